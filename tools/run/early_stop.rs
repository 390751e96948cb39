//! `quarry-run early-stop ELF`: what a kernel does that cannot boot, on QEMU's Pi 4, by its writes to the registers: which serial
//! port has the message, in which order, what happens with a port that nobody clocks, and the green LED.
//!
//! No model has a port that takes no byte. So the addresses of one are led to RAM there, either by loading the image above 1 GiB,
//! where `early_stop` takes the board for `virt`, or by another address of the mini-UART in the linked image.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::elf::Kernel;
use crate::machine::Spec;
use crate::qemu::{self, Console, Program};
use crate::rpi4::{self, Killed};
use crate::scratch::Scratch;

const TREE: &str = "tests/data/dtb/boards/bcm2711-rpi-4-b.dtb.gz";
const MESSAGE: &str = "quarry: the image was not loaded at a multiple of 2 MiB; cannot boot\r\n";
/// Not on a 2 MiB boundary: there the image stops.
const LOW: u64 = 0x28_1000;
/// The same above 1 GiB, where a Pi has RAM at the address of virt's port.
const HIGH: u64 = 0x4028_1000;

/// Registers: the mini-UART's data, the PL011's data and control, the LED on and off.
const MINI: u64 = 0xfe21_5040;
const PL011: u64 = 0xfe20_1000;
const PL011_CONTROL: u64 = 0xfe20_1030;
const LED_ON: u64 = 0xfe20_0020;
const LED_OFF: u64 = 0xfe20_002c;
const LED: u64 = 1 << 10;

/// `movz x1, #0xfe21, lsl #16`, the mini-UART's address, and the same with RAM at 0x0900_0000.
const MINI_ADDRESS: (u32, u32) = (0xd2bf_c421, 0xd2a1_2001);
/// What tells that the port in RAM is on, and that it has room, from there.
const ENABLES: u64 = 0x0900_5004;
const LINE_STATUS: u64 = 0x0900_5054;
/// Flags of virt's port: bit 5, no room.
const FLAGS: u64 = 0x0900_0018;
/// `subs w5, w5, #1`: the bound of a wait; without it the flags say for ever that there is no room.
const BOUND: (u32, u32) = (0x7100_04a5, 0xd503_201f);

/// How long a machine may take to blink.
const LIMIT: Duration = Duration::from_secs(20);
/// How long one is watched that must not get there; those that do take a tenth of it.
const WATCHED: Duration = Duration::from_secs(4);

struct Scenario {
    name: &'static str,
    at: u64,
    /// Words of the image that are exchanged.
    exchanged: &'static [(u32, u32)],
    /// Words of RAM.
    ram: &'static [(u64, u32)],
    mini: bool,
    pl011: bool,
    blinks: bool,
}

const SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "the_mini_uart_comes_first",
        at: LOW,
        exchanged: &[],
        ram: &[],
        mini: true,
        pl011: true,
        blinks: true,
    },
    Scenario {
        name: "a_mini_uart_that_is_off_is_not_touched",
        at: LOW,
        exchanged: &[MINI_ADDRESS],
        ram: &[(ENABLES, 0), (LINE_STATUS, 1 << 5)],
        mini: false,
        pl011: true,
        blinks: true,
    },
    Scenario {
        name: "a_mini_uart_that_nobody_clocks_is_given_up",
        at: LOW,
        exchanged: &[MINI_ADDRESS],
        ram: &[(ENABLES, 1), (LINE_STATUS, 0)],
        mini: false,
        pl011: true,
        blinks: true,
    },
    Scenario {
        name: "a_pl011_that_nobody_clocks_is_given_up",
        at: HIGH,
        exchanged: &[],
        ram: &[(FLAGS, u32::MAX)],
        mini: false,
        pl011: false,
        blinks: true,
    },
    // What the two above would be without it.
    Scenario {
        name: "planted_without_the_bound_a_mini_uart_is_waited_for_for_ever",
        at: LOW,
        exchanged: &[MINI_ADDRESS, BOUND],
        ram: &[(ENABLES, 1), (LINE_STATUS, 0)],
        mini: false,
        pl011: false,
        blinks: false,
    },
    Scenario {
        name: "planted_without_the_bound_a_pl011_is_waited_for_for_ever",
        at: HIGH,
        exchanged: &[BOUND],
        ram: &[(FLAGS, u32::MAX)],
        mini: false,
        pl011: false,
        blinks: false,
    },
];

/// Runs all of them, and prints it as libtest would. Whether all passed.
pub(crate) fn check(elf: &str) -> Result<bool, String> {
    let mut kernel = Kernel::read(Path::new(elf))?;
    kernel.set_act_led()?;
    let (mut passed, mut failed) = (0, 0);
    let mut tell = |name: &str, result: Result<(), String>| match result {
        Ok(()) => {
            passed += 1;
            println!("test early_stop::{name} ... ok");
        }
        Err(why) => {
            failed += 1;
            println!("test early_stop::{name} ... FAILED\n    {why}");
        }
    };
    for scenario in &SCENARIOS {
        tell(scenario.name, run(scenario, &kernel));
    }
    tell("the_led_is_on_from_the_first_instruction_to_the_mmu", booting(elf));
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {result}. {passed} passed; {failed} failed");
    Ok(failed == 0)
}

/// Writes to registers, in their order: address and value.
type Writes = Vec<(u64, u64)>;

/// Boots, and watches until `is_enough` says so, or the time is over.
fn watch(
    spec: &Spec,
    kernel: &Kernel,
    more: &[String],
    limit: Duration,
    is_enough: impl Fn(&Writes) -> bool,
) -> Result<Writes, String> {
    let scratch = Scratch::new()?;
    let log = scratch.write("trace", &[])?;
    let mut machine = qemu::machine(spec, &Program { kernel }, "", Console::Script)?;
    machine.command.args(more).args(["-d", "trace:memory_region_ops_write", "-D"]).arg(&log);
    let child = machine.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _child = Killed(child.map_err(|e| format!("the emulator: {e}"))?);
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        // The last line may not be whole.
        let whole = text.rfind('\n').and_then(|end| text.get(..end)).unwrap_or_default();
        let writes = whole.lines().filter_map(write).collect();
        if is_enough(&writes) || begun.elapsed() > limit {
            return Ok(writes);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// `… addr 0xfe215040 value 0x71 …`
fn write(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split(' ').skip_while(|word| *word != "addr");
    let mut number = || u64::from_str_radix(words.by_ref().nth(1)?.strip_prefix("0x")?, 16).ok();
    Some((number()?, number()?))
}

/// What a port was sent.
fn sent(writes: &Writes, port: u64) -> String {
    writes
        .iter()
        .filter(|(at, _)| *at == port)
        .filter_map(|(_, byte)| u8::try_from(*byte).ok())
        .map(char::from)
        .collect()
}

/// The LED's changes: on or off.
fn led(writes: &Writes) -> Vec<bool> {
    writes
        .iter()
        .filter(|(at, value)| [LED_ON, LED_OFF].contains(at) && *value == LED)
        .map(|(at, _)| *at == LED_ON)
        .collect()
}

fn run(scenario: &Scenario, kernel: &Kernel) -> Result<(), String> {
    let mut spec = Spec::parse(&format!("board=raspi4b serial=1 loader=raw dtb={TREE} bootargs=off semihosting=off"))?;
    spec.addr = Some(scenario.at);
    let start = kernel.symbol("early_stop")?;
    let code = kernel.code()?;
    let mut words = Vec::new();
    for (from, to) in scenario.exchanged {
        let at = (start..start + 0x200).step_by(4).find(|at| code.word(*at) == Some(*from));
        words.push((at.ok_or_else(|| format!("no {from:#x} behind early_stop"))?, *to));
    }
    let ram =
        |(at, value): &(u64, u32)| ["-device".to_owned(), format!("loader,addr={at:#x},data={value:#x},data-len=4")];
    let more: Vec<String> = scenario.ram.iter().flat_map(ram).collect();
    let limit = if scenario.blinks { LIMIT } else { WATCHED };
    let writes = watch(&spec, &kernel.patched(&words)?, &more, limit, |writes| led(writes).len() >= 6)?;
    for (name, port, wanted) in [("the mini-UART", MINI, scenario.mini), ("the PL011", PL011, scenario.pl011)] {
        let (said, wanted) = (sent(&writes, port), if wanted { MESSAGE } else { "" });
        if said != wanted {
            return Err(format!("{name} has {said:?} instead of {wanted:?}"));
        }
    }
    let first = |port| writes.iter().position(|(at, _)| *at == port);
    if scenario.mini && first(MINI) > first(PL011) {
        return Err("the PL011 is written before the mini-UART".to_owned());
    }
    // UARTEN and TXE: nobody has opened it.
    let opened = writes.iter().position(|(at, value)| *at == PL011_CONTROL && value & 0x101 == 0x101);
    if scenario.pl011 && (opened.is_none() || opened > first(PL011)) {
        return Err("the PL011 is not switched on before it is written".to_owned());
    }
    // On at the first instruction; then on and off.
    let led = led(&writes);
    let expected = [true, true, false, true, false, true];
    match scenario.blinks {
        true if led.get(..6) != Some(&expected) => Err(format!("the LED: {led:?}")),
        false if led != [true] => Err(format!("it has gone on without the bound, and the LED tells: {led:?}")),
        _ => Ok(()),
    }
}

/// The image of the tests, which boots.
fn booting(elf: &str) -> Result<(), String> {
    let kernel = rpi4::with_tests(elf, &["errata::"])?;
    let spec = Spec::parse(&format!("board=raspi4b serial=1 dtb={TREE} bootargs=off semihosting=off"))?;
    let is_port = |(at, _): &(u64, u64)| [MINI, PL011].contains(at);
    let writes = watch(&spec, &kernel, &[], LIMIT, |writes| writes.iter().any(is_port))?;
    let before: Writes = writes.into_iter().take_while(|write| !is_port(write)).collect();
    match led(&before).as_slice() {
        [true, false] => Ok(()),
        other => Err(format!("the LED before the first byte: {other:?}")),
    }
}
