//! The order of boot: vectors, device tree, console, memblock, final tables, early heap; each step logs its figures.

use super::bootargs::BootArgs;
use super::machine::{self, BootMemory};
pub use super::machine::{Machine, machine};
use super::owner_map::OwnerMapError;
use super::{
    console, cpus, dma, errata, exceptions, fault_injection, heap, input, interrupts, io, iomem, ktest, log,
    machine_account, pages, ports, power, pressure, process, prompt, report, report_json, resume, serial, slabs, tags,
    tour, vmalloc, whereabouts, workarounds, wx_check,
};
use crate::addr::{Bytes, CpuId, PAGE_SIZE};
use crate::arch::aarch64::boot::{self, BootInfo};
use crate::arch::aarch64::trap;
use crate::arch::aarch64::{irq, pmu};
use crate::board::Board;
use crate::boot::early_map::EarlyMap;
use crate::boot::switch::switch_to_final_tables;
use crate::boot::{BootError, device_tree, discovery, prepare_boot_cpu};
use crate::driver::timer;
use crate::fdt::Tree;
use crate::global;
use crate::kprintln;
use crate::mm::layout;
use crate::mm::memblock::{MemblockError, Window};
use crate::mm::pgtable::MapFlags;
use crate::mm::pgtable::wx::WxViolation;
use crate::mm::zone::Scrub;
use ::log::{error, info, warn};
use core::fmt;

/// Reason why the machine cannot be booted. Each is printed on the console, if need be on the board's default one.
#[derive(Clone, Copy, Debug)]
pub(super) enum StartError {
    Boot(BootError),
    Wx(WxViolation),
    Map(OwnerMapError),
    MemEquals(&'static str),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boot(error) => error.fmt(f),
            Self::Wx(error) => write!(f, "W^X violated: {error}"),
            Self::Map(error) => error.fmt(f),
            Self::MemEquals(text) => write!(f, "boot argument mem={text} is no size"),
        }
    }
}

impl<E: Into<BootError>> From<E> for StartError {
    fn from(error: E) -> Self {
        Self::Boot(error.into())
    }
}

/// The first Rust code: called by the boot stub on the boot stack, exceptions masked, on the early tables.
#[unsafe(no_mangle)]
extern "C" fn quarry_boot_main(device_tree: u64, image: u64, level: u64, count: u64) -> ! {
    let boot = BootInfo::new(device_tree, image, level, count);
    log::init();
    trap::set_handlers(&exceptions::HANDLERS);
    report::add_describer(whereabouts::describe);
    report::add_describer(tags::describe);
    let stacks = trap::init_boot_cpu();
    // SAFETY: the first use, on the boot stub's tables.
    let early = unsafe { EarlyMap::of_boot_stub() };
    let guess = Board::guess(boot.image);

    let result = start(&boot, &early);
    let machine = match result {
        Ok(machine) => machine::booted(machine),
        Err(error) => {
            // Without a tree the image's place says which board it is; a device that the tree does not name does not exist.
            let unknown = matches!(error, StartError::Boot(BootError::NoTree(_) | BootError::Damaged(..)));
            if unknown && console::ports().next().is_none() {
                serial::open_fallback(guess, &early);
            }
            kprintln!("\nquarry: cannot boot: {error}");
            power::leave(power::FAILURE)
        }
    };
    if let Err(error) = stacks {
        warn!("boot stacks: {error}");
    }
    go(machine)
}

/// Prints the machine's memory, then runs tests, the prompt, or nothing, as the boot arguments say.
fn go(machine: &Machine) -> ! {
    let args = machine.args;
    match machine_account::account(machine) {
        Ok(account) => kprintln!("memory map:\n{account}"),
        Err(error) => error!("memory does not add up: {error}"),
    }
    kprintln!("address map:\n{}", layout::AddressMap);
    // Booting is over: from here on this CPU takes interrupts, and waits only where that is legal.
    global::forbid_waiting_in_atomic(true);
    irq::local_irq_enable();
    workarounds::settle(&machine.boot);
    if global::tags_are_on() {
        tags::self_test();
    }
    if args.flag("ktest.resume") {
        let list = |name| args.value(name).unwrap_or_default();
        resume::run(machine, list("ktest"), list("ktest.smp"), list("ktest.restart"));
    }
    if let Some(list) = args.value("ktest") {
        ktest::run_list(list);
    }
    if args.flag("quarry.tour") {
        power::leave(if tour::run(machine) { power::SUCCESS } else { power::FAILURE });
    }
    if args.flag("quarry.batch") {
        power::leave(power::SUCCESS);
    }
    prompt::run(machine)
}

/// Brings the machine up.
fn start(boot: &BootInfo, early: &EarlyMap) -> Result<Machine, StartError> {
    let cpu = prepare_boot_cpu();

    let (tree_range, blob) = device_tree::find(boot, &early.fixmap, cpu.physical_bits()).map_err(BootError::NoTree)?;
    let tree = Tree::new_or_located(blob).map_err(|error| BootError::Damaged(tree_range.start(), error))?;
    let board = Board::from_compatible(tree.root().compatible());
    let given = || tree.chosen().and_then(|chosen| chosen.bootargs()).unwrap_or_default();
    let args = BootArgs::new(boot::built_in_arguments().unwrap_or_else(given));
    power::init(
        args.flag("semihosting"),
        tree.psci().filter(|psci| psci.has_standard_functions()).and_then(|psci| psci.conduit()),
    );
    let lacks_frequency = timer::lacks_frequency();
    if lacks_frequency && let Some(frequency) = tree.timer_frequency() {
        timer::set_frequency(frequency.into());
    }
    if serial::open(&tree, board, early) == 0 {
        serial::open_fallback(board, early);
    }
    // Nobody else uses it, and most machines have none, which takes a walk over their whole tree.
    if args.flag("ktest.resume")
        && let Some(watchdog) = serial::watchdog(&tree, early)
    {
        resume::set_watchdog(watchdog);
    }
    log::apply(args);
    report_json::init(args);
    info!("Quarry {} on {}", env!("CARGO_PKG_VERSION"), tree.model().unwrap_or("a machine without a model name"));
    info!("entered at EL{}, image at {}, device tree at {tree_range}", boot.entry_level, boot.image_range());
    info!("CPU: {cpu}");
    errata::report(CpuId::BOOT, cpu.errata());
    if !args.is_empty() {
        info!("boot arguments: {args}");
    }
    if lacks_frequency {
        match tree.timer_frequency() {
            Some(frequency) => warn!("timer: CNTFRQ_EL0 is 0; {frequency} Hz by the device tree's clock-frequency"),
            None => warn!("timer: CNTFRQ_EL0 is 0, and the device tree has no clock-frequency: times are wrong"),
        }
    }
    for complaint in args.complaints() {
        warn!("{complaint}");
    }

    let limit = args.size("mem").map_err(StartError::MemEquals)?;
    let found = discovery::fill(boot, &tree, tree_range, &cpu, limit, args.place("cma").is_some())
        .map_err(|error| BootError::Discover(error, tree.blob()))?;
    let tagged = tags::wanted(args, &cpu);
    switch_to_final_tables(boot, early, (tags::linear_prot(tagged), linear_flags(args)))?;
    if tagged {
        tags::init(&tree);
    }
    grant_early_heap()?;
    slabs::add_entropy(&tree);
    pages::init(&tree, args)?;
    heap::hand_over();
    info!("early heap: {} in use; kmalloc serves from here on", Bytes(heap::usage().0 as u64));
    fault_injection::init(args);
    pressure::init();
    process::init();
    vmalloc::init(args)?;
    tags::remember_owners(args);
    irq::unmask_serror();
    if let Err(error) = interrupts::init(&tree, early) {
        warn!("interrupts: {error}");
    }
    input::init();
    io::init(&cpu, &tree, &found);
    if let Some(pci) = iomem::init(boot, &tree, early) {
        ports::init(&tree, pci);
    }
    dma::init(&tree, args);
    for leak in early.leaks() {
        warn!("early mapping not undone: {leak}");
    }
    let wx = wx_check::check_tables(boot).map_err(StartError::Wx)?;
    info!("W^X: ok, {} entries walked, {} executable", wx.entries, Bytes(wx.executable));
    let boot_cost = pmu::instructions_retired(&cpu);
    if boot_cost != 0 {
        info!("boot cost: {boot_cost} instructions from entry to here");
    }
    let boot_memory = BootMemory::survey().map_err(StartError::Map)?;
    cpus::remember_places(boot, tree_range);
    cpus::init(&tree, max_cpus(args));
    Ok(Machine { boot: *boot, cpu, board, args, tree, tree_range, found, boot_cost, wx, boot_memory })
}

/// Number of CPUs by the boot arguments: `maxcpus=N`, and `nosmp` for one.
fn max_cpus(args: BootArgs<'_>) -> Option<u64> {
    if args.flag("nosmp") {
        return Some(1);
    }
    args.number("maxcpus")
}

/// Restrictions on the linear map: pages that are protected one by one need an entry each.
fn linear_flags(args: BootArgs<'_>) -> MapFlags {
    match pages::scrub(args).contains(Scrub::UNMAP) {
        true => MapFlags::NO_HUGE | MapFlags::NO_CONT,
        false => MapFlags::empty(),
    }
}

/// Gives the early heap its memory.
fn grant_early_heap() -> Result<(), BootError> {
    let range = global::memblock()
        .alloc_raw(heap::EARLY_HEAP_SIZE, PAGE_SIZE, Window::ANYWHERE)
        .map_err(BootError::Memblock)?;
    let virt = layout::phys_range_to_virt(range).ok_or(BootError::Memblock(MemblockError::NoMemory))?;
    // SAFETY: memblock has just given the range to us, and the linear map maps it; the only call.
    unsafe { heap::init(virt) };
    info!("early heap: {} at {range}", Bytes(heap::EARLY_HEAP_SIZE));
    Ok(())
}
