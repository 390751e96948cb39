//! Programs at EL0: each runs as a process of the reference kernel, and when the last one has ended nothing is left of any.

use crate::storm::{Balance, balance, note_frames};
use quarry::addr::{PAGE_SIZE, Pfn};
use quarry::gfp::Gfp;
use quarry::global::{self, ThisKernel};
use quarry::kernel::process::{self, Ended, MAX_PROCESSES, Pid, Signal, StartError};
use quarry::kernel::{init, machine_account};
use quarry::ktest;
use quarry::mm::fault_inject::{MayRecover, fail_every};
use quarry::mm::page::Kind;
use quarry::mm::user::map::Limits;

/// Tests every invariant there is, those of processes among them, and that all RAM adds up.
fn check() {
    process::check().expect("sound");
    global::check_all(&mut |part, result: Result<(), &dyn core::fmt::Display>| {
        result.unwrap_or_else(|error| panic!("{part}: {error}"));
    });
    let machine = init::machine().expect("booted");
    machine_account::account(machine).unwrap_or_else(|error| panic!("{error}"));
}

/// Everything in use that processes take: objects, blocks, their pages, and page tables.
fn in_use() -> (Balance, u64) {
    let frames = note_frames();
    let balance = balance();
    let pages = global::page_allocator();
    let first =
        global::memblock().memory().regions().first().map_or(0, |region| region.range.start().get() / PAGE_SIZE);
    let is_table = |page| pages.head(page).is_ok_and(|(_, state)| state.kind() == Kind::PageTable);
    let all = (first..first + frames).filter_map(|pfn| global::pfn_to_page(Pfn::new(pfn)));
    (balance, all.filter(|page| is_table(*page)).count() as u64)
}

/// Runs a program to its end, and finds all its memory again.
fn run(name: &str, arguments: &[&str]) -> Ended {
    // What the first process makes for all.
    process::execute("hello", &[], process::default_limits()).expect("it starts");
    let before = in_use();
    let ended = process::execute(name, arguments, process::default_limits()).expect("it starts");
    assert_eq!(in_use(), before, "what is in use");
    check();
    ended
}

ktest!(
    a_program_finds_its_arguments_and_its_own_map,
    machine a72 = "",
    machine max = "cpu=max",
    report = "hello from process 1\n",
    report = "argument 0: hello\nargument 1: one\nargument 2: two words\n",
    report = "00200000-",
    report = " r--p 00000000 00:00 0",
    report = " r-xp 00000000 00:00 0",
    report = " rw-p 00000000 00:00 0                          [stack]",
);
fn a_program_finds_its_arguments_and_its_own_map() {
    let ended = process::execute("hello", &["one", "two words"], process::default_limits());
    assert_eq!(ended, Ok(Ended::Exited(3)));
    let no = |name, arguments: &[&str]| process::start(name, arguments, Pid::NOBODY, process::default_limits());
    assert_eq!(no("goodbye", &[]), Err(StartError::NoProgram));
    assert!(matches!(no("hello", &["x"; 16]), Err(StartError::Map(_))));
    assert!(matches!(no("hello", &[core::str::from_utf8(&[b'x'; 1024]).expect("text")]), Err(StartError::Map(_))));
    check();
}

// Behaviour 389: two programs.
ktest!(one_address_has_other_contents_in_each_process, machine one = "", machine four = "smp=4", timeout = 60);
fn one_address_has_other_contents_in_each_process() {
    assert_eq!(run("address", &[]), Ended::Exited(0));
}

// Shared anonymous memory, whichever process touches a page first; `run` finds its pages again. Not on the machine of
// `user_devices`, whose files are the objects that are named first there.
ktest!(
    processes_that_share_memory_see_each_others_writes,
    machine two = "smp=2",
    machine four = "smp=4",
    timeout = 60
);
fn processes_that_share_memory_see_each_others_writes() {
    assert_eq!(run("shared", &[]), Ended::Exited(0));
    assert_eq!(process::shared_objects(), 0, "the last process to map an object takes it along");
}

// Behaviours 430, 432 and 441: from EL0.
ktest!(bad_deeds_end_the_process_and_not_the_kernel, machine a72 = "", machine max = "cpu=max smp=2", timeout = 60);
fn bad_deeds_end_the_process_and_not_the_kernel() {
    assert_eq!(run("bad", &[]), Ended::Exited(0));
}

ktest!(
    a_killed_process_is_told_of_in_one_paragraph,
    report = "(bad), thread ",
    report = ", is killed by SIGSEGV: it read 0xffff800080000000, which is no address of a process\n  pc 0x",
    report = "; pc in 00",
    report = " r-xp ",
    report = "is killed by SIGSEGV: it wrote to 0x",
    report = " r-xp ",
    report = "is killed by SIGILL: it used a register of floating point, which this kernel gives to nobody",
    report = "and the kernel lives"
);
fn a_killed_process_is_told_of_in_one_paragraph() {
    for (deed, signal) in [("read-kernel", Signal::Segv), ("write-text", Signal::Segv), ("float", Signal::Ill)] {
        assert_eq!(run("bad", &[deed]), Ended::Killed(signal));
    }
    quarry::kprintln!("and the kernel lives");
}

ktest!(a_fork_bomb_ends_at_the_limit_of_processes, machine one = "", machine four = "smp=4", timeout = 120);
fn a_fork_bomb_ends_at_the_limit_of_processes() {
    assert_eq!(run("forkbomb", &[]), Ended::Exited(0));
    // The table is empty again.
    let start = || process::start("hello", &[], Pid::NOBODY, process::default_limits());
    for _ in 0..MAX_PROCESSES {
        start().expect("a place is free");
    }
    assert_eq!(start(), Err(StartError::TooMany));
    process::run(&|| false);
    check();
}

ktest!(a_leak_ends_at_the_limit_of_its_process, machine = "mem=128M", timeout = 60, report = " MiB mapped and ");
fn a_leak_ends_at_the_limit_of_its_process() {
    assert_eq!(run("leak", &[]), Ended::Exited(0));
}

ktest!(a_heap_takes_small_blocks_from_brk_and_large_ones_from_mmap, machine = "mem=256M", timeout = 60);
fn a_heap_takes_small_blocks_from_brk_and_large_ones_from_mmap() {
    assert_eq!(run("heap", &[]), Ended::Exited(0));
}

// Behaviour 425: from EL0.
ktest!(
    threads_that_map_fault_unmap_and_fork_at_once_keep_every_byte,
    machine one = "",
    machine four = "smp=4",
    machine four_max = "smp=4 cpu=max gic=3",
    timeout = 120
);
fn threads_that_map_fault_unmap_and_fork_at_once_keep_every_byte() {
    assert_eq!(run("threads", &[]), Ended::Exited(0));
}

ktest!(a_process_that_never_calls_is_preempted_and_killed, machine one = "", machine two = "smp=2", timeout = 60);
fn a_process_that_never_calls_is_preempted_and_killed() {
    let start = |name| process::start(name, &[], Pid::KERNEL, process::default_limits()).expect("it starts");
    let spinning = [start("spin"), start("spin"), start("spin")];
    let guest = start("hello");
    process::run(&|| process::reap(guest).is_some());
    for pid in spinning {
        assert_eq!(process::reap(pid), None, "it runs on");
        assert!(process::kill(pid) && !process::kill(pid));
    }
    process::run(&|| false);
    for pid in spinning {
        assert_eq!(process::reap(pid), Some(Ended::Killed(Signal::Kill)));
    }
    check();
}

// Behaviour 497
ktest!(no_failed_allocation_of_a_start_loses_anything, machine = "mem=128M", timeout = 180);
fn no_failed_allocation_of_a_start_loses_anything() {
    run("hello", &[]);
    let start = || process::start("spin", &[], Pid::KERNEL, Limits::DEFAULT);
    let rounds = fail_every(&ThisKernel, MayRecover::Yes, start, |pid| {
        assert!(process::kill(pid));
        process::run(&|| false);
        assert_eq!(process::reap(pid), Some(Ended::Killed(Signal::Kill)));
    })
    .expect("sound");
    assert!(rounds.points >= 5, "{rounds:?}");
    check();
    assert!(global::alloc_page(Gfp::KERNEL).is_ok_and(|page| raw!(global::try_free_page(page)).is_ok()));
}

ktest!(
    memory_used_up_ends_the_largest_process_and_no_other,
    machine = "mem=128M smp=2",
    timeout = 120,
    report = "killed process ",
    report = " (leak): address space ",
    report = "the others live"
);
fn memory_used_up_ends_the_largest_process_and_no_other() {
    process::execute("hello", &[], process::default_limits()).expect("it starts");
    let before = in_use();
    let start = |name| process::start(name, &[], Pid::KERNEL, Limits::DEFAULT).expect("it starts");
    let (small, leak) = (start("spin"), start("leak"));
    let end = spin::Once::new();
    process::run(&|| end.is_completed() || process::reap(leak).map(|ended| end.call_once(|| ended)).is_some());
    assert_eq!(end.get(), Some(&Ended::Killed(Signal::Kill)));
    assert_eq!(process::reap(small), None, "it runs on");
    assert!(process::kill(small));
    process::run(&|| false);
    assert_eq!(process::reap(small), Some(Ended::Killed(Signal::Kill)));
    assert_eq!(in_use(), before, "what is in use");
    check();
    quarry::kprintln!("the others live");
}

ktest!(
    processes_start_only_where_sleeping_is_allowed,
    report = "sleeping function called in atomic context (interrupts are masked): process::start",
    report = "sleeping function called in atomic context (interrupts are masked): process::run"
);
fn processes_start_only_where_sleeping_is_allowed() {
    let start = || process::start("hello", &[], Pid::NOBODY, process::default_limits());
    let _masked = quarry::arch::aarch64::irq::local_irq_save();
    assert_eq!(start(), Err(StartError::Atomic));
    assert_eq!(process::execute("hello", &[], process::default_limits()), Err(StartError::Atomic));
    process::run(&|| panic!("nobody runs"));
    process::check().expect("sound");
}
