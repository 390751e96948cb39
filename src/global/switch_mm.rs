//! Which process's memory each CPU sees: the numbers of address spaces, and `TTBR0_EL1`.

use super::cpu::KernelPages;
use super::static_percpu::StaticPerCpu;
use crate::addr::{CpuId, PhysAddr};
use crate::arch::aarch64::cpu::Relax;
use crate::arch::aarch64::{irq, ttbr0};
use crate::hal::cpu::PerCpu as _;
use crate::hal::mmu::Asid;
use crate::mm::user::asid::{
    AsidAllocator, AsidCpu, AsidError, AsidHal, AsidNumbers, AsidSlot, NUMBERS_8_BIT, NUMBERS_16_BIT,
};
use crate::sync::{OrderedLock, class};
use core::sync::atomic::AtomicU64;

crate::define_per_cpu! {
    /// Which number this CPU uses.
    static ASID_CPU: AsidCpu = AsidCpu::new();
}

static NUMBERS: OrderedLock<AsidNumbers, class::AsidNumbers, Relax> = OrderedLock::new(AsidNumbers::new());
static ASIDS: AsidAllocator<KernelAsids> = AsidAllocator::without_numbers(KernelAsids(()), AtomicU64::new(0));

/// This machine, as the allocator of address space numbers sees it.
#[derive(Clone, Copy, Debug)]
pub struct KernelAsids(());

impl AsidHal for KernelAsids {
    type Word = AtomicU64;

    #[inline(always)]
    fn local(&self) -> Option<&AsidCpu> {
        StaticPerCpu::here(&ASID_CPU)
    }

    fn of(&self, cpu: CpuId) -> Option<&AsidCpu> {
        ASID_CPU.get(cpu)
    }

    fn cpus(&self) -> u32 {
        KernelPages(()).cpus()
    }

    fn locked<R>(&self, f: impl FnOnce(&mut AsidNumbers) -> R) -> R {
        let _masked = irq::local_irq_save();
        f(&mut NUMBERS.lock())
    }

    fn flush_local(&self) {
        ttbr0::flush_local();
    }

    fn order_before_walks(&self) {
        ttbr0::order_before_walks();
    }
}

/// The numbers of address spaces. Any context.
///
/// # Errors
///
/// [`AsidError`], if this machine cannot run processes.
pub fn asids() -> Result<&'static AsidAllocator<KernelAsids>, AsidError> {
    if ASIDS.numbers() == 0 {
        let half = ttbr0::lower_half();
        if !half.is_usable {
            return Err(AsidError::LowerHalf);
        }
        ASIDS.start(if half.wide_asids { NUMBERS_16_BIT } else { NUMBERS_8_BIT })?;
    }
    Ok(&ASIDS)
}

/// From now on this CPU sees the memory of the process with the tables at `root` (Linux: `switch_mm`). Any context; cost: some 30
/// instructions, more after the numbers have run out. To be called with each change of threads, by a kernel that has threads.
///
/// # Errors
///
/// [`AsidError`], upon which nothing changes.
///
/// # Safety
///
/// `root` is the root of tables of [`Space::User`](crate::mm::pgtable::Space), which are not freed before each CPU that sees them has
/// changed to others, or to none. `slot` belongs to these tables alone.
#[inline]
pub unsafe fn switch_mm(root: PhysAddr, slot: &AsidSlot) -> Result<(), AsidError> {
    // SAFETY: this function's `# Safety` is that of `switch_mm_noting`: `root` outlives its users, `slot` is its own.
    unsafe { switch_mm_noting(root, slot, &mut |_| {}) }
}

/// [`switch_mm`]; if the process gets a number, `note` is told before any CPU uses it: for page tables that keep the number that
/// they invalidate with. With interrupts masked and a lock held.
///
/// # Errors
///
/// As for [`switch_mm`].
///
/// # Safety
///
/// As for [`switch_mm`].
#[inline(always)]
pub unsafe fn switch_mm_noting(root: PhysAddr, slot: &AsidSlot, note: &mut dyn FnMut(Asid)) -> Result<(), AsidError> {
    let saved = irq::local_irq_save_flags();
    let asid = match ASIDS.activate_noting(slot, note) {
        Some(asid) => Ok(asid),
        None => activate_first(slot, note),
    };
    if let Ok(asid) = asid {
        // SAFETY: by `# Safety` of `switch_mm` the tables outlive their use; the number is theirs, and interrupts are masked.
        unsafe { ttbr0::set(root, asid) };
    }
    irq::local_irq_restore_flags(saved);
    asid.map(drop)
}

/// There have been no numbers, or this CPU takes no part.
#[cold]
#[inline(never)]
fn activate_first(slot: &AsidSlot, note: &mut dyn FnMut(Asid)) -> Result<Asid, AsidError> {
    asids()?.activate_noting(slot, note).ok_or(AsidError::NoCpuData)
}

/// From now on this CPU sees no process's memory: every access below the kernel's half faults (Linux: `cpu_set_reserved_ttbr0`).
/// Any context.
pub fn leave_mm() {
    ttbr0::set_empty();
}

/// The root of the process's tables that this CPU sees; `None` if it sees none. Any context; of use with interrupts masked.
#[must_use]
pub fn current_mm() -> Option<PhysAddr> {
    let (root, asid) = ttbr0::get();
    (asid.get() != 0 && root != ttbr0::empty()).then_some(root)
}
