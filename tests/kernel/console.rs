//! The console, the log, and how the machine is left.

use alloc::string::ToString as _;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use log::{LevelFilter, debug, info, log_enabled};
use quarry::addr::VirtAddr;
use quarry::driver::timer;
use quarry::driver::uart::{Line, Uart, UartKind};
use quarry::kernel::bootargs::BootArgs;
use quarry::kernel::{console, log_level::LogArguments};
use quarry::{kprint, kprintln, ktest};

ktest!(
    the_boot_arguments_set_the_log_level,
    machine as_it_is = "",
    machine quiet = "append=quiet",
    machine debug = "append=log=debug",
    machine by_number = "append=loglevel=5",
    machine last_counts = "append='quiet log=trace'",
);
fn the_boot_arguments_set_the_log_level() {
    let machine = quarry::kernel::init::machine();
    let args = machine.map_or(BootArgs::new(""), |machine| machine.args);
    let wanted = LogArguments::parse(args).filter;
    let args = args.to_string();
    assert_eq!(log::max_level(), wanted);
    // Expansion of the harness's bootargs, so that the line above compares with a known text.
    let known = [
        ("quiet log=trace", LevelFilter::Trace),
        ("quiet", LevelFilter::Error),
        ("log=debug", LevelFilter::Debug),
        ("loglevel=5", LevelFilter::Warn),
    ];
    let known = known.iter().find(|(words, _)| args.contains(words)).map_or(LevelFilter::Info, |(_, level)| *level);
    assert_eq!(wanted, known);
}

ktest!(
    a_message_has_time_level_and_module,
    machine = "append=log=debug",
    report = "] DEBUG kernel::console: two words",
    report = "[",
    report = "] INFO  kernel::console: and more"
);
fn a_message_has_time_level_and_module() {
    assert!(log_enabled!(log::Level::Debug));
    debug!("two {}", "words");
    info!("and more");
}

ktest!(
    boot: a_refused_level_is_named,
    machine = "append=log=loud",
    report = "boot argument `log=loud` names no log level",
    report = "] INFO  kernel::init: Quarry"
);

struct Nested;

impl fmt::Display for Nested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        kprintln!("<a line inside>");
        f.write_str("after it")
    }
}

ktest!(a_line_inside_a_line_comes_before_it, report = "<a line inside>", report = "before it after it, done");
fn a_line_inside_a_line_comes_before_it() {
    kprintln!("before it {}, done", Nested);
}

struct Panics;

impl fmt::Display for Panics {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("in the middle of a line");
    }
}

ktest!(
    a_panic_in_the_middle_of_a_line_is_reported,
    report = "panic at tests/kernel/console.rs:",
    report = "in the middle of a line",
    report = "backtrace:",
    exit = 1
);
fn a_panic_in_the_middle_of_a_line_is_reported() {
    kprintln!("half a line {}", Panics);
}

ktest!(
    the_pi_talks_through_the_port_that_its_tree_names,
    machine mini_uart = "board=raspi4b serial=1 dtb=tests/data/dtb/boards/bcm2711-rpi-4-b.dtb.gz"
);
fn the_pi_talks_through_the_port_that_its_tree_names() {
    let kinds: [Option<UartKind>; 2] = core::array::from_fn(|at| console::ports().nth(at).map(Uart::kind));
    // The PL011 carries a Bluetooth child.
    assert_eq!(kinds, [Some(UartKind::Mini), None]);
}

/// The registers of a mini-UART, as memory: the byte to send is word 0, the line status word 5.
static REGISTERS: [AtomicU32; 16] = [const { AtomicU32::new(0) }; 16];
const CAN_SEND: u32 = 1 << 5;

ktest!(a_port_that_is_dead_costs_one_pause, machine = "alone", timeout = 60);
fn a_port_that_is_dead_costs_one_pause() {
    let base = VirtAddr::of(&raw const REGISTERS);
    // SAFETY: memory that does nothing stands for the registers, for ever.
    let port = unsafe { Uart::open(UartKind::Mini, base, Line::default()) };
    assert!(console::add_port(port));
    let start = timer::ticks();
    for line in 0..100 {
        kprintln!("{line}: nobody takes this from the second port");
    }
    let spent = timer::ticks() - start;
    assert!(spent < 3 * timer::frequency(), "{} ms", spent * 1000 / timer::frequency());
    let written = || REGISTERS[0].load(Ordering::Relaxed);
    assert_eq!(written(), 0, "nothing was sent");
    REGISTERS[5].store(CAN_SEND, Ordering::Relaxed);
    kprint!("it lives, x");
    assert_eq!(written(), u32::from(b'x'), "a port that recovers is used again");
    kprintln!();
}

// Without semihosting the machine is switched off through PSCI, by either conduit.
ktest!(boot: it_is_switched_off_by_hvc, machine = "semihosting=off append=quarry.batch", report = "memory map:", exit = 0);
ktest!(
    boot: it_is_switched_off_by_smc,
    machine = "virtualization semihosting=off append=quarry.batch",
    report = "memory map:",
    exit = 0
);

// The addresses of virt's serial port are something else on a board of another name.
ktest!(
    boot: no_register_is_written_that_the_tree_does_not_name,
    machine = "silent dtb=tests/data/dts/virt-other-board.dtb append=quarry.batch",
    exit = 0
);
