//! Errata of the CPU that QEMU plays: the lines at boot, the workarounds that stay in and those that are taken out.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use quarry::addr::{Address, CpuId, VirtRange, to_usize};
use quarry::arch::aarch64::dcache::Caches;
use quarry::arch::aarch64::errata::{self, Handling};
use quarry::arch::aarch64::features::IdRegisters;
use quarry::arch::aarch64::{alternative, icache};
use quarry::driver::timer;
use quarry::global;
use quarry::hal::Internal;
use quarry::hal::cache::DataCache;
use quarry::kernel::{cpus, init};
use quarry::ktest;

ktest!(boot: a_cortex_a53_is_told_its_errata, machine = "cpu=cortex-a53",
    report = "CPU: Cortex-A53 r0p4", report = "CPU 0: erratum 835769 of Cortex-A53 up to r0p4: the image has no such sequence", exit = 0);
ktest!(boot: a_cortex_a55_is_told_its_errata, machine = "cpu=cortex-a55",
    report = "CPU 0: erratum 1530923 of Cortex-A55 up to r2p0: nothing to do without guests",
    report = "CPU 0: erratum 2441007 of Cortex-A55: a TLBI and a DSB more behind each invalidation", exit = 0);
ktest!(boot: a_cortex_a57_is_told_its_errata, machine = "cpu=cortex-a57",
    report = "WARN  kernel::errata: CPU 0: erratum 832075 of Cortex-A57 up to r1p2: NOT HANDLED", exit = 0);
ktest!(boot: a_cortex_a72_is_told_its_errata, machine = "cpu=cortex-a72",
    report = "CPU 0: erratum 1319367 of Cortex-A72: nothing to do without guests", exit = 0);
ktest!(boot: a_cortex_a76_is_told_its_errata, machine = "cpu=cortex-a76",
    report = "CPU: Cortex-A76 r4p1",
    report = "CPU 0: erratum 4193800 of Cortex-A76: a TLBI and a DSB more behind each invalidation", exit = 0);
ktest!(boot: the_prompt_lists_errata, machine = "cpu=cortex-a55 type='errata\\r|quit\\r'",
    report = "erratum 2441007 of Cortex-A55", report = "instructions that only some cores need have been exchanged");

ktest!(
    workarounds_stay_where_a_cpu_needs_them,
    machine a53 = "cpu=cortex-a53",
    machine a55 = "cpu=cortex-a55 smp=4",
    machine a72 = "cpu=cortex-a72 smp=2",
    machine a76 = "cpu=cortex-a76",
    machine n1 = "cpu=neoverse-n1 gic=3",
    machine max = "cpu=max",
);
fn workarounds_stay_where_a_cpu_needs_them() {
    let rows = errata::met();
    assert_eq!(rows, IdRegisters::read().errata(), "all CPUs of this machine are alike");
    let (sites, exchanged) = alternative::census();
    assert!(sites >= 8, "TLBI, DC CVAC and DC CVAU have {sites} sites");
    if rows.need(Handling::RepeatTlbi) {
        assert!(0 < exchanged && exchanged < sites, "{exchanged} of {sites}: cleaning alone is right here");
    } else {
        assert_eq!(exchanged, sites, "nothing is needed here");
    }
    work();
}

ktest!(workarounds_stay_while_a_cpu_has_not_shown_itself, machine = "smp=2 append='maxcpus=1'");
fn workarounds_stay_while_a_cpu_has_not_shown_itself() {
    assert_eq!(alternative::census().1, 0, "nothing is exchanged");
    work();
    assert_eq!(cpus::cpu_up(CpuId::new(1)), Ok(()), "a CPU that needs nothing may come later");
    work();
}

ktest!(
    the_device_tree_states_the_counters_frequency_where_the_firmware_does_not,
    machine = "loader=raw virtualization fdt_at=0x4a000000 clock=62500000"
);
fn the_device_tree_states_the_counters_frequency_where_the_firmware_does_not() {
    assert!(timer::lacks_frequency(), "CNTFRQ_EL0 is zero");
    assert_eq!(timer::frequency(), 62_500_000);
}
ktest!(boot: a_counter_without_a_frequency_is_named, machine = "loader=raw virtualization fdt_at=0x4a000000 clock=0",
    report = "timer: CNTFRQ_EL0 is 0, and the device tree has no clock-frequency: times are wrong");

// Entered at EL3, with nobody below who has set the core up.
ktest!(boot: a_core_that_only_its_firmware_can_set_up_stops_with_a_message, machine = "secure loader=elf cpu=a64fx alone",
    report = "quarry: entered at EL3 on a core that only its firmware can set up");
ktest!(
    arms_cores_are_set_up_at_el3,
    machine a35 = "secure loader=elf cpu=cortex-a35",
    machine a53 = "secure loader=elf cpu=cortex-a53",
    machine a55 = "secure loader=elf cpu=cortex-a55",
    machine a76 = "secure loader=elf cpu=cortex-a76",
);
fn arms_cores_are_set_up_at_el3() {
    let Some(machine) = init::machine() else { panic!("tests run after booting") };
    assert_eq!(machine.boot.entry_level, 3);
}

/// Everything that has sites: unmapping on all CPUs, cleaning of one line and of many, writing instructions.
fn work() {
    for pages in [1_u64, 3, 200] {
        let start = global::vmalloc(to_usize(pages * 4096)).expect("memory").at();
        let range = VirtRange::from_size(start, pages * 4096).expect("no wrap");
        fill(range, 0x5a);
        // SAFETY: the test owns the memory, and cleaning keeps its content.
        let promised = || unsafe { Internal::promised() };
        Caches.clean(promised(), range);
        Caches.clean(promised(), VirtRange::from_size(start, 8).expect("no wrap"));
        Caches.complete();
        icache::sync(range);
        assert!(is_filled(range, 0x5a), "cleaning has changed memory");
        raw!(global::vfree(start));
    }
}

fn fill(range: VirtRange, byte: u8) {
    // SAFETY: the caller owns the range.
    unsafe { range.start().as_ptr::<u8>().write_bytes(byte, to_usize(range.size())) };
}

fn is_filled(range: VirtRange, byte: u8) -> bool {
    // SAFETY: the caller owns the range.
    let bytes = unsafe { core::slice::from_raw_parts(range.start().as_ptr::<u8>(), to_usize(range.size())) };
    bytes.iter().all(|other| *other == byte)
}
