//! All CPUs: each comes up as the boot CPU did, can be called, goes and comes back.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use crate::interrupts::wait_for;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use quarry::addr::{Address, CpuId, Order, PAGE_BYTES, VirtAddr};
use quarry::arch::aarch64::stack::{self, StackOwner, StackUse};
use quarry::arch::aarch64::{cpu, irq};
use quarry::driver::timer;
use quarry::gfp::Gfp;
use quarry::global;
use quarry::hal::wait::Context;
use quarry::kernel::cpus::{self, CpuError, CpuState, ReleaseError};
use quarry::kernel::smp_call::{CallError, smp_call, smp_call_async};
use quarry::kernel::{console, init, power, tick};
use quarry::ktest;

/// The CPUs of the machine, by its device tree.
fn described() -> usize {
    init::machine().expect("tests run after booting").tree.cpus().filter(|cpu| cpu.is_enabled()).count()
}

pub(crate) fn others() -> impl Iterator<Item = CpuId> {
    global::possible_cpus().filter(|cpu| *cpu != CpuId::BOOT)
}

/// State that must be the same on every CPU: the registers that the boot stub sets, and those that point to the tables.
fn registers() -> [u64; 10] {
    macro_rules! read {
        ($($name:literal)*) => {
            [$({
                let value: u64;
                // SAFETY: reading a system register of EL1 that every Armv8.0 CPU has.
                unsafe { asm!(concat!("mrs {}, ", $name), out(reg) value) };
                value
            }),*]
        };
    }
    read!("sctlr_el1" "tcr_el1" "mair_el1" "ttbr0_el1" "ttbr1_el1" "CurrentEL" "SPSel" "cpacr_el1" "vbar_el1" "daif")
}

// Behaviour 491
ktest!(
    every_cpu_comes_up_as_the_boot_cpu_did,
    machine two = "smp=2",
    machine three_gicv3 = "smp=3 gic=3",
    machine four = "smp=4",
    machine five_max = "smp=5 cpu=max gic=3",
    machine six_el2 = "smp=6 virtualization gic=3",
    machine seven_secure = "smp=7 secure",
    machine eight_gicv2 = "smp=8",
    machine eight_gicv3 = "smp=8 gic=3",
    machine four_one_thread = "smp=4 icount",
    machine raspi4b = "board=raspi4b serial=1 dtb=tests/data/dtb/boards/bcm2711-rpi-4-b.dtb.gz",
);
fn every_cpu_comes_up_as_the_boot_cpu_did() {
    let (seen, wrong) = (AtomicU64::new(0), AtomicU32::new(0));
    let expected = registers();
    let ran = cpus::run_everywhere(&|cpu: CpuId| {
        let here = 0_u64;
        let on = stack::containing(VirtAddr::of(&raw const here)).map(|stack| stack.owner);
        let right = cpu == cpu::current()
            && on == Some(StackOwner::Cpu(cpu, StackUse::Kernel))
            && cpu::affinity() == cpus::affinity(cpu)
            && registers() == expected
            && cpus::state(cpu) == CpuState::Online
            && global::context().atomic().is_none()
            && irq::local_irqs_enabled();
        wrong.fetch_add(u32::from(!right), Ordering::Relaxed);
        seen.fetch_add(1 << (8 * cpu.get()), Ordering::Relaxed);
    });
    assert_eq!(ran as usize, described(), "every CPU of the device tree");
    let each_once = (0..ran).fold(0, |sum, cpu| sum | 1_u64 << (8 * cpu));
    assert_eq!((seen.into_inner(), wrong.into_inner()), (each_once, 0), "each once, as itself");
}

// The tree's conduit does not exist: HVC where the kernel was entered at EL2 and left nobody there, SMC without EL3. The
// boot goes on without the other CPU.
ktest!(
    boot: hvc_that_nobody_answers_leaves_cpus_out,
    machine = "virtualization smp=2 loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-hvc.dtb",
    report = "CPU 1 is left out: firmware: ",
    report = "CPUs: 1 of 2 are up",
    exit = 0
);
ktest!(
    boot: smc_that_nobody_answers_leaves_cpus_out,
    machine = "smp=2 loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-smc.dtb",
    report = "CPU 1 is left out: firmware: ",
    report = "CPUs: 1 of 2 are up",
    exit = 0
);
// Nor is there anybody to switch the machine off.
ktest!(
    boot: without_hvc_a_machine_that_cannot_be_switched_off_says_so,
    machine = "virtualization semihosting=off smp=2 loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-hvc.dtb",
    report = "memory map:",
    report = "not switched off ("
);
ktest!(
    boot: without_smc_a_machine_that_cannot_be_switched_off_says_so,
    machine = "semihosting=off smp=2 loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-smc.dtb",
    report = "memory map:",
    report = "not switched off ("
);

// More CPUs than one region of redistributors has room for.
ktest!(cpus_of_a_second_region_of_redistributors_come_up, machine = "smp=130 gic=3 mem=1G", timeout = 120);
fn cpus_of_a_second_region_of_redistributors_come_up() {
    let ran = AtomicU32::new(0);
    cpus::run_everywhere(&|_| {
        ran.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!((ran.into_inner() as usize, described()), (130, 130));
}

ktest!(as_many_cpus_come_up_as_the_boot_arguments_want, machine = "smp=4 append='maxcpus=3'");
fn as_many_cpus_come_up_as_the_boot_arguments_want() {
    assert_eq!(global::online_cpus().count(), 3);
    assert_eq!(cpus::state(CpuId::new(3)), CpuState::Off);
    cpus::cpu_up(CpuId::new(3)).expect("it waits");
    assert_eq!(global::online_cpus().count(), 4);
}

// Of this tree's CPUs one polls another word than the tree says, and one has its word where there is no RAM.
ktest!(
    a_cpu_that_does_not_come_is_left_out,
    machine = "board=raspi4b serial=1 dtb=tests/data/dts/rpi4-lost-cpus.dtb.gz alone"
);
fn a_cpu_that_does_not_come_is_left_out() {
    let states = [0, 1, 2, 3].map(|cpu| cpus::state(CpuId::new(cpu)));
    assert_eq!(states, [CpuState::Online, CpuState::Online, CpuState::Late, CpuState::Waiting]);
    let lost = CpuId::new(2);
    assert_eq!(cpus::cpu_up(lost), Err(CpuError::NoSuchCpu(lost, CpuState::Late)));
    assert!(matches!(cpus::cpu_up(CpuId::new(3)), Err(CpuError::Release(_, ReleaseError::NoRam(_)))));
    assert_eq!(cpus::run_everywhere(&|_| {}), 2, "the others work");
    assert_eq!(smp_call(lost, |_: &()| {}, &()), Err(CallError::Offline(lost)));
    global::drain_all_pages();
}

ktest!(
    boot: a_cpu_that_does_not_come_is_named,
    machine = "board=raspi4b serial=1 dtb=tests/data/dts/rpi4-lost-cpus.dtb.gz append='quarry.batch'",
    report = "CPU 2 is left out: CPU 2 did not answer within a second",
    report = "CPU 3 is left out: its cpu-release-addr 0xfe000000 lies in",
    report = "CPUs: 2 of 4 are up"
);

/// Free pages, with all caches drained.
fn free_pages() -> u64 {
    global::slab_allocator().shrink_all();
    global::vmap_space().purge_all();
    global::drain_all_pages();
    global::nr_free_pages()
}

/// Takes and frees memory of every kind, so that this CPU has some of each in its caches.
fn use_memory(cpu: CpuId) {
    for round in 0..20 {
        let size = 16_usize << ((round + cpu.get()) % 8);
        let object = global::kmalloc(size, Gfp::KERNEL).expect("memory");
        let page = global::alloc_pages(Gfp::KERNEL, Order::ZERO).expect("memory");
        let area = global::vmalloc(3 * PAGE_BYTES).expect("memory").at();
        let stack = global::KernelStack::new("passing").expect("memory");
        // SAFETY: allocated above, and not used any more.
        unsafe { global::kfree(object.as_ptr()) };
        raw!(global::try_free_page(page)).expect("allocated above");
        raw!(global::try_vfree(area)).expect("allocated above");
        drop(stack);
    }
}

// Behaviours 104 and 487
ktest!(
    a_cpu_that_goes_leaves_everything_behind,
    machine psci = "smp=4",
    machine psci_gicv3 = "smp=4 gic=3 virtualization",
    machine raspi4b = "board=raspi4b serial=1 dtb=tests/data/dtb/boards/bcm2711-rpi-4-b.dtb.gz",
    timeout = 60,
);
fn a_cpu_that_goes_leaves_everything_behind() {
    cpus::run_everywhere(&use_memory);
    let all = global::online_cpus().count();
    global::drain_kernel_stacks();
    let mut settled = 0;
    for round in 0..5 {
        cpus::run_everywhere(&use_memory);
        global::drain_kernel_stacks();
        for cpu in others() {
            cpus::cpu_down(cpu).expect("it has nothing to do");
            assert!(!global::is_online(cpu));
            assert_eq!(global::page_allocator().pages_on_lists(cpu), 0, "{cpu:?} keeps pages");
            assert_eq!(cpus::cpu_down(cpu), Err(CpuError::State(cpu, cpus::state(cpu))));
            assert_eq!(smp_call(cpu, |_: &()| {}, &()), Err(CallError::Offline(cpu)));
            assert_eq!(smp_call_async(cpu, |_| {}, 0), Err(CallError::Offline(cpu)));
        }
        // An interrupt stack each, and what the others run on and report an overflow on.
        assert_eq!(global::stack_count() as usize, 3 * all - 2, "stacks that nobody keeps any more");
        let free = free_pages();
        if round > 0 {
            assert_eq!(free, settled, "pages that are free while one CPU runs");
        }
        settled = free;
        global::page_allocator().check().expect("the page allocator keeps its invariants");
        global::slab_allocator().check().expect("the slab allocator keeps its invariants");
        assert_eq!(cpus::run_everywhere(&|_| {}), 1);
        for cpu in others() {
            cpus::cpu_up(cpu).expect("it can come back");
        }
        assert_eq!(global::online_cpus().count(), all);
        // They work as before.
        assert_eq!(cpus::run_everywhere(&use_memory) as usize, all);
    }
    assert_eq!(cpus::cpu_down(CpuId::BOOT), Err(CpuError::Refused(CpuId::BOOT)));
}

// Behaviour 487: CPUs come and go while the others allocate, drain and call.
ktest!(
    cpus_come_and_go_while_others_work,
    machine psci = "smp=4",
    machine raspi4b = "board=raspi4b serial=1 dtb=tests/data/dtb/boards/bcm2711-rpi-4-b.dtb.gz",
    timeout = 60,
);
fn cpus_come_and_go_while_others_work() {
    static CALLED: AtomicU64 = AtomicU64::new(0);
    // Another test of this name may have run in the same boot.
    CALLED.store(0, Ordering::Relaxed);
    let working = AtomicU32::new(2);
    let passing = CpuId::new(3);
    let made = AtomicU64::new(0);
    let count = |_: &()| {
        CALLED.fetch_add(1, Ordering::Relaxed);
    };
    let worker = |cpu: CpuId| {
        if cpu == CpuId::BOOT || cpu == passing {
            return;
        }
        for round in 0..12 {
            use_memory(cpu);
            if smp_call(passing, count, &()).is_ok() {
                made.fetch_add(1, Ordering::Relaxed);
            }
            if round % 4 == 0 {
                global::drain_all_pages();
                global::slab_allocator().shrink_all();
            }
        }
        working.fetch_sub(1, Ordering::Release);
    };
    let times = AtomicU32::new(0);
    cpus::run_everywhere(&|cpu: CpuId| {
        worker(cpu);
        if cpu == CpuId::BOOT {
            while working.load(Ordering::Acquire) != 0 {
                // It does its part of this very job first, which is nothing.
                match cpus::cpu_down(passing) {
                    Ok(()) => {}
                    Err(CpuError::NoAnswer(_)) => panic!("CPU 3 is busy"),
                    Err(error) => panic!("{error}"),
                }
                cpus::cpu_up(passing).expect("it can come back");
                times.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    assert!(times.into_inner() > 3, "it went and came");
    assert_eq!(CALLED.load(Ordering::Relaxed), made.into_inner(), "each call was made or refused");
    global::page_allocator().check().expect("the page allocator keeps its invariants");
    global::slab_allocator().check().expect("the slab allocator keeps its invariants");
}

ktest!(a_busy_cpu_stays, machine = "smp=2");
fn a_busy_cpu_stays() {
    let busy = CpuId::new(1);
    let (begun, done) = (AtomicBool::new(false), AtomicBool::new(false));
    cpus::run_everywhere(&|cpu: CpuId| {
        if cpu == busy {
            begun.store(true, Ordering::Release);
            while !done.load(Ordering::Acquire) {
                cpu::relax();
            }
        } else if cpu == CpuId::BOOT {
            wait_for(|| begun.load(Ordering::Acquire));
            assert_eq!(cpus::cpu_down(busy), Err(CpuError::NoAnswer(busy)));
            assert_eq!(cpus::state(busy), CpuState::Online);
            done.store(true, Ordering::Release);
        }
    });
    cpus::cpu_down(busy).expect("now it has nothing to do");
    cpus::cpu_up(busy).expect("it can come back");
}

ktest!(
    a_cpu_that_does_not_answer_is_named,
    machine = "smp=2 alone stays",
    report = "CPU 0 has waited a second for CPU 1, which is Online"
);
fn a_cpu_that_does_not_answer_is_named() {
    while_the_other_cpu_is_deaf(global::drain_all_pages);
}

/// Runs `body` on the boot CPU while CPU 1 masks interrupts for good.
pub(crate) fn while_the_other_cpu_is_deaf(body: impl Fn() + Sync) {
    let begun = AtomicBool::new(false);
    cpus::run_everywhere(&|cpu: CpuId| {
        if cpu == CpuId::new(1) {
            let _masked = irq::local_irq_save();
            begun.store(true, Ordering::Release);
            loop {
                cpu::relax();
            }
        }
        wait_for(|| begun.load(Ordering::Acquire));
        body();
    });
}

ktest!(every_cpu_ticks, machine four = "smp=4", machine gicv3 = "smp=4 gic=3", machine one = "smp=1");
fn every_cpu_ticks() {
    static HERE: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
    fn each() {
        let here = HERE.get(cpu::current().get() as usize).expect("four CPUs");
        here.fetch_add(1, Ordering::Relaxed);
    }
    tick::start(timer::frequency() / 2000, each).expect("the timer is free");
    let late = others().last();
    if let Some(cpu) = late {
        cpus::cpu_down(cpu).expect("it has nothing to do");
        cpus::cpu_up(cpu).expect("it can come back");
    }
    let counts = || global::online_cpus().map(tick::count);
    wait_for(|| counts().all(|count| count >= 10));
    tick::stop().expect("it runs");
    let sum: u64 = counts().sum();
    assert_eq!(HERE.iter().map(|here| here.load(Ordering::Relaxed)).sum::<u64>(), sum);
    let start = timer::ticks();
    wait_for(|| timer::ticks() - start > timer::frequency() / 100);
    assert_eq!(counts().sum::<u64>(), sum, "no tick after the end");
}

// Behaviour 461. A CPU that is not stopped ends the machine with another status before the patience of the one that
// panics is at its end.
ktest!(
    a_panic_stops_the_other_cpus_and_prints,
    machine = "smp=4 alone",
    report = "panic at tests/kernel/cpus.rs:",
    report = "one is enough",
    report = "on CPU 0",
    report = "backtrace:",
    exit = 1
);
fn a_panic_stops_the_other_cpus_and_prints() {
    let panics = AtomicU64::new(0);
    let ready = AtomicU32::new(0);
    cpus::run_everywhere(&|cpu: CpuId| {
        if cpu == CpuId::BOOT {
            wait_for(|| ready.load(Ordering::Acquire) == 3);
            panics.store(timer::ticks(), Ordering::Release);
            panic!("one is enough");
        }
        ready.fetch_add(1, Ordering::Release);
        wait_for(|| {
            let since = panics.load(Ordering::Acquire);
            since != 0 && timer::ticks() - since > timer::frequency() * 9 / 100
        });
        power::leave(42);
    });
}

// Behaviour 461: the CPU that does not stop has the console.
ktest!(
    a_panic_prints_past_a_cpu_that_does_not_stop,
    machine = "smp=4 alone",
    report = "CPU 2 did not stop within a tenth of a second",
    report = "panic at tests/kernel/cpus.rs:",
    report = "all the same",
    report = "on CPU 1",
    report = "backtrace:",
    exit = 1
);
fn a_panic_prints_past_a_cpu_that_does_not_stop() {
    struct Endless<'a>(&'a AtomicBool);
    impl core::fmt::Display for Endless<'_> {
        fn fmt(&self, _: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            self.0.store(true, Ordering::Release);
            loop {
                cpu::relax();
            }
        }
    }
    let begun = AtomicBool::new(false);
    cpus::run_everywhere(&|cpu: CpuId| match cpu.get() {
        1 => {
            wait_for(|| begun.load(Ordering::Acquire));
            panic!("all the same");
        }
        2 => console::print_urgent(format_args!("{}", Endless(&begun))),
        _ => {}
    });
}

ktest!(
    two_panics_are_one_report_and_a_line,
    machine = "smp=2 alone",
    report = "panic at tests/kernel/cpus.rs:",
    exit = 1
);
fn two_panics_are_one_report_and_a_line() {
    let ready = AtomicU32::new(0);
    cpus::run_everywhere(&|cpu: CpuId| {
        ready.fetch_add(1, Ordering::AcqRel);
        wait_for(|| ready.load(Ordering::Acquire) == 2);
        panic!("{cpu:?} fails");
    });
}
