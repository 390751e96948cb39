//! The entry of a kernel that takes this crate's boot stub and vectors, and nothing of the reference kernel: everything up to
//! memory, and then the kernel's own function.

use super::early_map::EarlyMap;
use super::init_memory::free_init_memory;
use super::reserved::reserved_map;
use super::switch::switch_to_final_tables;
use super::{BootError, device_tree, discovery, prepare_boot_cpu};
use crate::addr::{VirtAddr, VirtRange};
use crate::arch::aarch64::boot::BootInfo;
use crate::arch::aarch64::cpu::{self, Relax};
use crate::arch::aarch64::irq;
use crate::arch::aarch64::trap::{self, Fatal, Handlers, Outcome, TrapFrame};
use crate::fdt::Tree;
use crate::global::{self, BringUpError, Options, machine};
use crate::hal::prot::Prot;
use crate::hal::wait::Scope;
use crate::mm::layout::{FIXMAP_END, FIXMAP_START};
use crate::mm::pgtable::MapFlags;
use crate::sync;
use crate::sync::Once;

/// The results of booting, as the kernel's function gets them.
#[derive(Debug)]
pub struct Booted {
    /// The boot stub's findings.
    pub boot: BootInfo,
    /// The device tree.
    pub tree: Tree<'static>,
}

/// Names the function that a kernel on this crate's boot stub begins with: `fn(&'static Booted) -> !`. It is called on the
/// boot CPU, on the boot stack of 32 KiB, on the final page tables, with all of memory up and interrupts masked.
///
/// Once in a kernel, beside [`machine!`](crate::machine). The image is linked with this crate's `linker.ld`, which a build script
/// finds in `DEP_QUARRY_LINKER_SCRIPT`.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        const _: () = {
            #[unsafe(no_mangle)]
            static __QUARRY_MAIN: fn(&'static $crate::boot::Booted) -> ! = $main;
        };
    };
}

unsafe extern "Rust" {
    safe static __QUARRY_MAIN: fn(&'static Booted) -> !;
}

static BOOTED: Once<Booted, Relax> = Once::new();
static INTERRUPTS: Once<fn(), Relax> = Once::new();
static HANDLERS: Handlers = Handlers { sync: on_sync, irq: on_irq, fatal };

/// The results of booting; `None` until booting has ended.
#[must_use]
pub fn booted() -> Option<&'static Booted> {
    BOOTED.get()
}

/// Registers the handler of interrupts: it is called masked, inside the scope of an interrupt. The first call counts; before it
/// an interrupt ends the kernel.
pub fn set_interrupt_handler(handler: fn()) {
    INTERRUPTS.call_once(|| handler);
}

fn on_sync(frame: &mut TrapFrame) -> Outcome {
    if global::repair(&mut frame.exception()) { Outcome::Resume } else { Outcome::Unhandled }
}

#[expect(clippy::panic, reason = "an interrupt that nobody handles comes again for ever")]
fn on_irq(_: &mut TrapFrame) {
    let _scope = sync::enter(global::context(), Scope::Interrupt);
    match INTERRUPTS.get() {
        Some(handle) => handle(),
        None => panic!("an interrupt, and no handler"),
    }
}

#[expect(clippy::panic, reason = "this is the kernel's end, by its own panic handler")]
fn fatal(frame: &TrapFrame, why: Fatal) -> ! {
    panic!("{why:?}: {}, at {}, address {}", frame.esr, frame.elr, frame.far)
}

/// The first Rust code: called by the boot stub on the boot stack, exceptions masked, on the early tables.
#[unsafe(no_mangle)]
extern "C" fn quarry_boot_main(device_tree: u64, image: u64, level: u64, count: u64) -> ! {
    let boot = BootInfo::new(device_tree, image, level, count);
    trap::set_handlers(&HANDLERS);
    let _ = trap::init_boot_cpu();
    // SAFETY: the first use, on the boot stub's tables.
    let early = unsafe { EarlyMap::of_boot_stub() };
    match start(&boot, &early) {
        Ok(tree) => __QUARRY_MAIN(BOOTED.call_once(|| Booted { boot, tree })),
        Err(error) => machine().cannot_boot(format_args!("{error}")),
    }
}

/// Brings the machine up to the point where memory can be allocated.
fn start(boot: &BootInfo, early: &EarlyMap) -> Result<Tree<'static>, BootError> {
    let cpu = prepare_boot_cpu();
    let (range, blob) = device_tree::find(boot, &early.fixmap, cpu.physical_bits()).map_err(BootError::NoTree)?;
    let tree = Tree::new_or_located(blob).map_err(|error| BootError::Damaged(range.start(), error))?;
    let found = discovery::fill(boot, &tree, range, &cpu, None, false)
        .map_err(|error| BootError::Discover(error, tree.blob()))?;
    switch_to_final_tables(boot, early, (Prot::KERNEL_RW, MapFlags::empty()))?;
    if let Some(seed) = tree.chosen().and_then(|chosen| chosen.kaslr_seed()) {
        global::add_entropy(seed);
    }
    global::add_entropy(cpu::random(&cpu).unwrap_or_default());
    let options = Options::DEFAULT;
    let _ = global::bring_allocators_up(1, &options)?;
    free_init_memory()?;
    let _ = global::bring_areas_up(&options)?;
    let fixmap = VirtRange::new(VirtAddr::new(FIXMAP_START), VirtAddr::new(FIXMAP_END)).unwrap_or_default();
    let reserved = reserved_map(&tree, &found).map_err(BootError::NoMemory)?;
    global::io_init(cpu.physical_bits(), fixmap, reserved).map_err(BringUpError::Io)?;
    global::set_memory_init()?;
    global::default_pool_of(&tree);
    irq::unmask_serror();
    Ok(tree)
}

/// A further CPU: no kernel on this entry starts one yet.
#[unsafe(no_mangle)]
extern "C" fn quarry_secondary_main(_: u32) -> ! {
    cpu::park()
}
