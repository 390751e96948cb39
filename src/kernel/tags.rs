//! Memory tags: `kasan=on` in the boot arguments switches them on where the CPU has them (Linux: `kasan=`, hardware
//! tags), the test at boot that a wrong tag really faults, and the text of a report about one.

use super::bootargs::BootArgs;
use super::symbol::Symbol;
use super::{cpus, smp_call};
use crate::addr::{CpuId, PAGE_SIZE, Tag, VirtAddr};
use crate::arch::aarch64::features::IdRegisters;
use crate::arch::aarch64::{cpu, mte, probe};
use crate::driver::timer;
use crate::fdt::Tree;
use crate::gfp::Gfp;
use crate::global;
use crate::hal::prot::{MemoryType, Prot};
use crate::mm::layout;
use crate::mm::memblock::Window;
use ::log::{error, info, warn};
use aarch64_cpu::registers::CNTPCT_EL0;
use core::fmt;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use tock_registers::interfaces::Readable;

/// Records of allocations and frees without `kasan.stack_ring_size=`.
const OWNERS: u64 = 4096;
/// Maximum number of records: more than 4 MiB, the largest block, would not fit.
const MOST_OWNERS: u64 = 128 << 10;

/// Whether memory should be tagged.
pub(super) fn wanted(args: BootArgs<'_>, cpu: &IdRegisters) -> bool {
    let asked = args.switch("kasan");
    if asked && !cpu.has_mte2() {
        warn!("kasan=on: this CPU has no memory tags (FEAT_MTE2); memory is not checked");
    }
    asked && cpu.has_mte2()
}

/// Mapping of writable RAM in the linear map.
pub(super) fn linear_prot(tagged: bool) -> Prot {
    let prot = Prot::KERNEL_RW;
    // Data are not code, so every memory type is allowed.
    if tagged { prot.with_memory(MemoryType::WriteBackTagged).unwrap_or(prot) } else { prot }
}

/// Switches tags on. Boot CPU, exceptions masked, when the linear map is up, as tagged memory, and memblock is the
/// allocator.
pub(super) fn init(tree: &Tree<'_>) {
    let seed = tree.chosen().and_then(|chosen| chosen.kaslr_seed()).unwrap_or(0) ^ CNTPCT_EL0.get();
    let page = global::memblock().alloc_raw(PAGE_SIZE, PAGE_SIZE, Window::ANYWHERE);
    let Some((page, virt)) = page.ok().and_then(|page| Some((page, layout::phys_range_to_virt(page)?))) else {
        error!("memory tags: off, as there is no page to try them on");
        return;
    };
    // SAFETY: memblock has just given the page to us, and the linear map maps it.
    if let Err(error) = unsafe { global::enable_tags(seed, virt.start()) } {
        error!("memory tags: off: {error}");
    }
    // A page that memblock does not take back is lost; that does no other harm.
    let _ = global::memblock().free(page);
}

/// Records previous owners of memory, for reports. Boot CPU, when memory can be allocated.
pub(super) fn remember_owners(args: BootArgs<'_>) {
    if !global::tags_are_on() {
        return;
    }
    let asked = args.number("kasan.stack_ring_size");
    let places = asked.unwrap_or(OWNERS).clamp(1, MOST_OWNERS);
    match global::remember_owners(crate::addr::to_usize(places)) {
        Ok(()) => info!("memory tags: on, the last {places} allocations and frees are remembered"),
        Err(error) => warn!("memory tags: on; no owners in reports: {error}"),
    }
}

/// Expected effects of a tag mismatch that did not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Failure {
    /// Tag checks are overridden in this context.
    Overridden = 1,
    /// The right tag, or the one that matches all, faulted.
    Faults,
    /// A wrong tag did not fault.
    Unchecked,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overridden => "checks are overridden (PSTATE.TCO)",
            Self::Faults => "an access with the right tag faults",
            Self::Unchecked => "an access with a wrong tag does not fault",
        })
    }
}

/// Whether accesses are checked in this context: `pointer` points to a word of tagged memory. Any context.
///
/// # Errors
///
/// The failure, in words.
fn try_tags(pointer: VirtAddr) -> Result<(), Failure> {
    if mte::is_overridden() {
        return Err(Failure::Overridden);
    }
    if probe::load_u64(pointer).is_none() || probe::load_u64(pointer.untagged()).is_none() {
        return Err(Failure::Faults);
    }
    let wrong = (0..15).map(Tag::from_bits).filter(|tag| *tag != pointer.tag());
    match wrong.map(|tag| probe::load_u64(pointer.with_tag(tag))).all(|read| read.is_none()) {
        true => Ok(()),
        false => Err(Failure::Unchecked),
    }
}

/// Result of [`in_handler`]: 0 none yet, 1 success, else one more than a [`Failure`].
static FOUND: AtomicU8 = AtomicU8::new(0);
static WORD: AtomicU64 = AtomicU64::new(0);

fn in_handler(_: usize) {
    let found = try_tags(VirtAddr::new(WORD.load(Ordering::Relaxed)));
    FOUND.store(found.map_or_else(|failure| failure as u8 + 1, |()| 1), Ordering::Release);
}

/// Tests on every CPU that a wrong tag faults: on this one outside of a handler too, on each in the handler of an interrupt.
/// Returns whether it does. Boot CPU, interrupts unmasked, when the others are up.
pub fn self_test() -> bool {
    let Ok(object) = global::kzalloc(64, Gfp::KERNEL) else { return false };
    let word = VirtAddr::new(object.as_ptr().expose_provenance() as u64);
    let mut fine = true;
    let mut tell = |cpu: CpuId, place: &str, why: &dyn fmt::Display| {
        fine = false;
        error!("memory tags: {place} on {cpu:?} {why}");
    };
    if let Err(failure) = try_tags(word) {
        tell(cpu::current(), "outside of handlers", &failure);
    }
    WORD.store(word.get(), Ordering::Relaxed);
    let mut cpus = 0;
    for cpu in global::online_cpus() {
        FOUND.store(0, Ordering::Relaxed);
        if let Err(error) = smp_call::smp_call_async(cpu, in_handler, 0) {
            tell(cpu, "in a handler", &error);
            continue;
        }
        let mut patience = cpus::patience();
        while FOUND.load(Ordering::Acquire) == 0 && patience.is_left(timer::ticks()) {
            cpu::relax();
        }
        cpus += 1;
        match FOUND.load(Ordering::Acquire) {
            1 => {}
            0 => tell(cpu, "in a handler", &"no interrupt came"),
            2 => tell(cpu, "in a handler", &Failure::Overridden),
            3 => tell(cpu, "in a handler", &Failure::Faults),
            _ => tell(cpu, "in a handler", &Failure::Unchecked),
        }
    }
    // SAFETY: ours, and not used afterwards.
    unsafe { global::kfree(object.as_ptr()) };
    if fine {
        info!("memory tags: a wrong one faults, in handlers too, on {cpus} CPUs");
    }
    fine
}

/// Describes the error of an access through a pointer whose tag is not the memory's: for the reports of faults. Writes nothing
/// if there is no error.
///
/// # Errors
///
/// Those of `out`.
pub(super) fn describe(at: VirtAddr, out: &mut dyn fmt::Write) -> fmt::Result {
    let Some(report) = global::tag_report(at) else { return Ok(()) };
    write!(out, "the pointer's tag is {}, the memory's {}", report.pointer, report.memory)?;
    if report.memory == Tag::FREE {
        out.write_str(", that of free memory")?;
    }
    write!(out, ": {}", report.verdict)?;
    let Some(owner) = report.owner else { return Ok(()) };
    write!(out, "; the pointer's memory was {} bytes at {}", owner.bytes, owner.pointer.untagged())?;
    for (what, place) in [("allocated", owner.allocated), ("freed", owner.freed)] {
        if let Some(place) = place {
            write!(out, ", {what} in {}", Symbol::of_return_address(place))?;
        }
    }
    Ok(())
}
