//! User address spaces with real processes: programs at EL0 whose memory comes by faults, is forked, changed and given back.

use crate::user::map_on_demand;
use core::sync::atomic::{AtomicU32, Ordering};
use quarry::addr::{CpuId, PAGE_SIZE, UserAddr, to_usize};
use quarry::arch::aarch64::esr::Access as Tried;
use quarry::arch::aarch64::irq;
use quarry::arch::aarch64::user::UserFrame;
use quarry::arch::aarch64::user_exit::UserExit;
use quarry::gfp::Gfp;
use quarry::global::{self, AddressSpace, Resolution, ThisKernel, UserFault};
use quarry::kernel::cpus::run_everywhere;
use quarry::ktest;
use quarry::mm::fault_inject::{MayRecover, fail_every};
use quarry::mm::user::SpaceFault;
use quarry::mm::user::access::UserPtr;
use quarry::mm::user::map::{Advice, Limits, MapError, MmapRequest, MremapRequest, Place, VmFlags};
use quarry::mm::user::pages::FaultAccess;

const READ: VmFlags = VmFlags::READ;
const WRITE: VmFlags = VmFlags::READ.union(VmFlags::WRITE);

// All programs run at CODE.
core::arch::global_asm!(
    ".section .rodata.space_programs, \"a\"",
    ".balign 4",
    // Stores x2 to the start of each of x1 pages from x0 on, and adds up what was there.
    "quarry_space_touch: mov x3, #0",
    "1: ldr x4, [x0]",
    "add x3, x3, x4",
    "str x2, [x0]",
    "add x0, x0, #4096",
    "subs x1, x1, #1",
    "b.ne 1b",
    "svc #1",
    // Adds up the start of each of x1 pages from x0 on.
    "quarry_space_sum: mov x3, #0",
    "1: ldr x4, [x0]",
    "add x3, x3, x4",
    "add x0, x0, #4096",
    "subs x1, x1, #1",
    "b.ne 1b",
    "svc #1",
    // Goes down its stack by x1 pages.
    "quarry_space_descend: sub sp, sp, #4096",
    "str x1, [sp]",
    "subs x1, x1, #1",
    "b.ne quarry_space_descend",
    "svc #1",
    // Reads the word at x0 into x3.
    "quarry_space_peek: ldr w3, [x0]",
    "svc #1",
    "quarry_space_end:",
    ".previous",
);

unsafe extern "C" {
    static quarry_space_touch: u8;
    static quarry_space_sum: u8;
    static quarry_space_descend: u8;
    static quarry_space_peek: u8;
    static quarry_space_end: u8;
}

/// Where the programs are.
pub(crate) const CODE: UserAddr = UserAddr::new(0x40_0000);

/// A process: a space, and the programs in it.
pub(crate) struct Process {
    pub(crate) space: AddressSpace,
}

pub(crate) enum Program {
    Touch,
    Sum,
    Descend,
    Peek,
}

impl Process {
    pub(crate) fn new() -> Self {
        Self::limited(Limits::DEFAULT).expect("memory")
    }

    pub(crate) fn limited(limits: Limits) -> Result<Self, MapError> {
        let process = Self { space: global::new_address_space(global::user_layout(), limits, Gfp::KERNEL)? };
        let (first, end) = (&raw const quarry_space_touch, &raw const quarry_space_end);
        // SAFETY: the assembly above puts both labels around the programs, read-only and for good.
        let programs = unsafe { core::slice::from_raw_parts(first, end.addr() - first.addr()) };
        let place = Place::FixedNoReplace(CODE);
        process.space.mmap(&MmapRequest::anonymous(PAGE_SIZE, WRITE).at(place))?;
        process.enter();
        let copied = global::copy_to_user(CODE, programs);
        global::leave_mm();
        copied.map_err(|_| MapError::NoMemory)?;
        process.space.mprotect(CODE, PAGE_SIZE, READ | VmFlags::EXEC)?;
        Ok(process)
    }

    /// This CPU sees the process.
    pub(crate) fn enter(&self) {
        set_up();
        current().store((&raw const self.space).cast_mut(), Ordering::Relaxed);
        raw!(global::activate(&self.space)).expect("a number");
    }

    /// Runs a program with these arguments until it calls: x3, or the fault that ends it.
    pub(crate) fn run(&self, program: Program, arguments: [u64; 3]) -> Result<u64, SpaceFault> {
        let first = (&raw const quarry_space_touch).addr();
        let start = match program {
            Program::Touch => (&raw const quarry_space_touch).addr(),
            Program::Sum => (&raw const quarry_space_sum).addr(),
            Program::Descend => (&raw const quarry_space_descend).addr(),
            Program::Peek => (&raw const quarry_space_peek).addr(),
        };
        let pc = UserAddr::new(CODE.get() + (start - first) as u64);
        let mut frame = UserFrame::new(pc, UserAddr::new(STACK));
        frame.x[..3].copy_from_slice(&arguments);
        self.enter();
        let result = loop {
            match global::run_user(&self.space, &mut frame) {
                UserExit::Syscall(1) => break Ok(frame.x[3]),
                UserExit::Interrupt => {}
                UserExit::Abort(esr, far) => {
                    let fault = UserFault::new(esr, far).expect("an address of the process");
                    if let Err(error) = self.space.fault(fault.addr, wanted(fault.access), Gfp::USER) {
                        break Err(error);
                    }
                }
                exit => panic!("{exit}"),
            }
        };
        global::leave_mm();
        result
    }

    pub(crate) fn mmap(&self, pages: u64, access: VmFlags) -> UserAddr {
        self.space.mmap(&MmapRequest::anonymous(pages * PAGE_SIZE, access)).expect("room")
    }

    pub(crate) fn touch(&self, at: UserAddr, pages: u64, value: u64) -> u64 {
        self.run(Program::Touch, [at.get(), pages, value]).expect("memory")
    }

    pub(crate) fn sum(&self, at: UserAddr, pages: u64) -> u64 {
        self.run(Program::Sum, [at.get(), pages, 0]).expect("memory")
    }

    pub(crate) fn fork(&self) -> Result<Self, MapError> {
        self.space.fork().map(|space| Self { space })
    }
}

/// Where stacks end.
const STACK: u64 = 0x7fff_0000_0000;

const fn wanted(tried: Tried) -> FaultAccess {
    match tried {
        Tried::Read => FaultAccess::Read,
        Tried::Write => FaultAccess::Write,
        Tried::Execute => FaultAccess::Execute,
        // DC ZVA and its kin, which write or need the right to.
        Tried::CacheMaintenance => FaultAccess::Write,
    }
}

type Current = core::sync::atomic::AtomicPtr<AddressSpace>;

/// The space that each CPU sees, for faults of the kernel's own copies.
static CURRENT: [Current; 8] = [const { Current::new(core::ptr::null_mut()) }; 8];

fn current() -> &'static Current {
    CURRENT.get(to_usize(global::this_cpu().get().into())).expect("at most eight CPUs")
}

fn set_up() {
    global::set_user_fault_handler(handle_fault);
}

/// The handler of all tests that share a boot, since the first one stays: a fault belongs to a test's page tables
/// ([`map_on_demand`]) or to the space that this CPU sees.
pub(crate) fn handle_fault(fault: &UserFault) -> Resolution {
    if let Some(resolution) = map_on_demand(fault) {
        return resolution;
    }
    let space = current().load(Ordering::Relaxed);
    // SAFETY: set by `enter` to a space that lives while the CPU sees it.
    match unsafe { space.as_ref() }.map(|space| space.fault(fault.addr, wanted(fault.access), Gfp::USER)) {
        Some(Ok(_)) => Resolution::Resolved,
        _ => Resolution::Bad,
    }
}

/// Free pages, with all that is kept for later given back.
pub(crate) fn free_pages() -> u64 {
    global::slab_allocator().shrink_all();
    global::drain_all_pages();
    global::nr_free_pages()
}

// Behaviours 424, 431 and 354
ktest!(memory_comes_by_faults_and_is_copied_when_a_child_writes, machine a72 = "", machine max = "cpu=max");
fn memory_comes_by_faults_and_is_copied_when_a_child_writes() {
    drop(Process::new());
    let free = free_pages();
    {
        let parent = Process::new();
        let at = parent.mmap(64, WRITE);
        assert_eq!(parent.sum(at, 64), 0, "zeros");
        assert_eq!(parent.touch(at, 64, 7), 0);
        assert_eq!(parent.sum(at, 64), 7 * 64);
        let before = parent.space.usage();
        let child = parent.fork().expect("memory");
        parent.space.check().expect("sound");
        child.space.check().expect("sound");
        assert_eq!(child.sum(at, 64), 7 * 64, "the child sees what the parent wrote");
        assert_eq!(child.touch(at, 32, 9), 7 * 32);
        assert_eq!((parent.sum(at, 64), child.sum(at, 64)), (7 * 64, 9 * 32 + 7 * 32));
        assert_eq!(parent.touch(at, 64, 1), 7 * 64);
        assert_eq!(child.sum(at, 64), 9 * 32 + 7 * 32, "and not what it writes later");
        assert_eq!(parent.space.usage().anon, before.anon);
        child.space.munmap(at, 32 * PAGE_SIZE).expect("mapped");
        assert_eq!(child.run(Program::Sum, [at.get(), 1, 0]), Err(SpaceFault::NotMapped(at)));
        drop(child);
        assert_eq!(parent.sum(at, 64), 64);
        parent.space.check().expect("sound");
    }
    assert_eq!(free_pages(), free, "every page is back");
}

ktest!(one_address_has_other_contents_in_each_process);
fn one_address_has_other_contents_in_each_process() {
    let processes: [Process; 3] = core::array::from_fn(|_| Process::new());
    let at = UserAddr::new(0x1000_0000);
    for (process, value) in processes.iter().zip(1_u64..) {
        let request = MmapRequest::anonymous(PAGE_SIZE, WRITE).at(Place::FixedNoReplace(at));
        assert_eq!(process.space.mmap(&request), Ok(at));
        process.touch(at, 1, value);
    }
    for _ in 0..10 {
        for (process, value) in processes.iter().zip(1_u64..) {
            assert_eq!(process.sum(at, 1), value);
        }
    }
}

// Behaviours 420 and 430
ktest!(a_change_of_access_counts_at_once, machine a72 = "", machine max = "cpu=max");
fn a_change_of_access_counts_at_once() {
    let process = Process::new();
    let at = process.mmap(16, WRITE);
    process.touch(at, 16, 5);
    process.space.mprotect(at, 8 * PAGE_SIZE, READ).expect("mapped");
    assert_eq!(process.sum(at, 16), 5 * 16);
    assert_eq!(process.run(Program::Touch, [at.get(), 16, 6]), Err(SpaceFault::Denied(at)));
    process.space.check().expect("sound");
    // No access at all: what is there stays, also through a fork.
    process.space.mprotect(at, 8 * PAGE_SIZE, VmFlags::empty()).expect("mapped");
    assert_eq!(process.run(Program::Sum, [at.get(), 16, 0]), Err(SpaceFault::Denied(at)));
    process.enter();
    assert!(global::get_user(UserPtr::<u64>::new(at)).is_err(), "nor do the kernel's copies reach it");
    global::leave_mm();
    process.space.check().expect("sound");
    let child = process.fork().expect("memory");
    assert_eq!(child.run(Program::Sum, [at.get(), 16, 0]), Err(SpaceFault::Denied(at)));
    child.space.check().expect("sound");
    child.space.mprotect(at, 16 * PAGE_SIZE, WRITE).expect("mapped");
    assert_eq!(child.touch(at, 16, 9), 5 * 16);
    drop(child);
    process.space.mprotect(at, 8 * PAGE_SIZE, WRITE).expect("mapped");
    assert_eq!(process.touch(at, 16, 6), 5 * 16, "what was there is there");
    let bare = process.mmap(4, VmFlags::empty());
    assert_eq!(process.run(Program::Sum, [bare.get(), 1, 0]), Err(SpaceFault::Denied(bare)));
    process.space.mprotect(bare, 2 * PAGE_SIZE, READ).expect("mapped");
    assert_eq!(process.sum(bare, 2), 0);
    assert_eq!(process.space.mprotect(at, PAGE_SIZE, WRITE | VmFlags::EXEC), Err(MapError::WriteExec));
    // Nothing is mapped low, and the kernel's copies know it too.
    let null = UserAddr::new(8);
    assert_eq!(process.run(Program::Sum, [0, 1, 0]), Err(SpaceFault::NotMapped(UserAddr::new(0))));
    process.enter();
    assert!(global::get_user(UserPtr::<u64>::new(null)).is_err());
    assert_eq!(global::get_user(UserPtr::<u64>::new(at)), Ok(6));
    global::leave_mm();
}

// Behaviour 422
ktest!(a_stack_grows_to_its_limit_and_no_further);
fn a_stack_grows_to_its_limit_and_no_further() {
    let process = Process::limited(Limits { stack: 32, ..Limits::DEFAULT }).expect("memory");
    let place = Place::FixedNoReplace(UserAddr::new(STACK - PAGE_SIZE));
    let stack = MmapRequest { flags: WRITE | VmFlags::GROWSDOWN, ..MmapRequest::anonymous(PAGE_SIZE, WRITE) };
    process.space.mmap(&stack.at(place)).expect("room");
    process.run(Program::Descend, [0, 31, 0]).expect("the stack grows");
    process.space.check().expect("sound");
    let end = UserAddr::new(STACK - 33 * PAGE_SIZE);
    assert_eq!(process.run(Program::Descend, [0, 40, 0]), Err(SpaceFault::NotMapped(end)));
}

// Behaviours 425 and 432, by several CPUs
ktest!(threads_of_one_process_fault_unmap_and_fork_at_once, machine = "smp=4", timeout = 120);
fn threads_of_one_process_fault_unmap_and_fork_at_once() {
    drop(Process::new());
    let process = Process::new();
    let common = process.mmap(512, WRITE);
    let forks = AtomicU32::new(0);
    let cpus = run_everywhere(&|cpu: CpuId| {
        let number = u64::from(cpu.get()) + 1;
        for round in 0..40_u64 {
            let own = process.mmap(40, WRITE);
            assert_eq!(process.touch(own, 40, number), 0, "zeros for a new mapping");
            // Every fourth page of the common area is this CPU's.
            let mine = UserAddr::new(common.get() + (number - 1) * 128 * PAGE_SIZE);
            let before = if round == 0 { 0 } else { (number * 1000 + round - 1) * 128 };
            assert_eq!(process.touch(mine, 128, number * 1000 + round), before);
            if round % 8 == number {
                let child = process.fork().expect("memory");
                assert_eq!(child.sum(own, 40), number * 40);
                assert_eq!(child.touch(mine, 128, 1), (number * 1000 + round) * 128);
                forks.fetch_add(1, Ordering::Relaxed);
            }
            assert_eq!(process.sum(own, 40), number * 40);
            process.space.munmap(own, 40 * PAGE_SIZE).expect("mapped");
        }
    });
    assert_eq!((cpus, forks.load(Ordering::Relaxed)), (4, 20));
    process.space.check().expect("sound");
}

// Behaviour 426
ktest!(no_failed_call_of_a_process_loses_anything, machine = "mem=128M", timeout = 180);
fn no_failed_call_of_a_process_loses_anything() {
    let parent = Process::new();
    let at = parent.mmap(80, WRITE);
    parent.touch(at, 80, 3);
    let fork = || parent.space.fork();
    let rounds = fail_every(&ThisKernel, MayRecover::Yes, fork, drop).expect("sound");
    assert!(rounds.points >= 5, "{rounds:?}");
    let start = || {
        let process = Process::limited(Limits::DEFAULT)?;
        let at = process.space.mmap(&MmapRequest::anonymous(4 * PAGE_SIZE, WRITE))?;
        process.run(Program::Touch, [at.get(), 4, 1]).map_err(|_| MapError::NoMemory)?;
        process.space.mprotect(at, 2 * PAGE_SIZE, READ)?;
        Ok::<_, MapError>(process)
    };
    drop(start());
    let rounds = fail_every(&ThisKernel, MayRecover::Yes, start, drop).expect("sound");
    assert!(rounds.points >= 8, "{rounds:?}");
    assert_eq!(parent.sum(at, 80), 3 * 80);
}

ktest!(what_a_killed_process_has_is_back_when_the_call_returns, machine = "mem=128M");
fn what_a_killed_process_has_is_back_when_the_call_returns() {
    let process = Process::new();
    let at = process.mmap(4096, WRITE);
    process.touch(at, 4096, 1);
    let free = free_pages();
    assert!(process.space.kill());
    assert!(free_pages() >= free + 4096, "its memory is free");
    assert_eq!(process.run(Program::Sum, [at.get(), 1, 0]), Err(SpaceFault::Killed));
    process.space.check().expect("sound");
}

ktest!(
    areas_do_not_change_in_atomic_context,
    report = "sleeping function called in atomic context (interrupts are masked): mmap",
    report = "sleeping function called in atomic context (interrupts are masked): fork"
);
fn areas_do_not_change_in_atomic_context() {
    let process = Process::new();
    let at = process.mmap(1, WRITE);
    process.touch(at, 1, 1);
    let space = &process.space;
    let spare = global::alloc_page(Gfp::KERNEL).expect("memory");
    {
        let _masked = irq::local_irq_save();
        assert_eq!(space.mmap(&MmapRequest::anonymous(PAGE_SIZE, WRITE)), Err(MapError::Atomic));
        assert_eq!(space.munmap(at, PAGE_SIZE), Err(MapError::Atomic));
        assert_eq!(space.mprotect(at, PAGE_SIZE, READ), Err(MapError::Atomic));
        assert_eq!(space.brk(at), Err(MapError::Atomic));
        assert_eq!(space.madvise(at, PAGE_SIZE, Advice::DontNeed), Err(MapError::Atomic));
        let grown = MremapRequest { addr: at, old_size: PAGE_SIZE, new_size: 2 * PAGE_SIZE, may_move: true, to: None };
        assert_eq!(space.mremap(&grown), Err(MapError::Atomic));
        assert_eq!(space.fork().map(|_| ()), Err(MapError::Atomic));
        assert!(space.with_map(|_| ()).is_err());
        assert_eq!(space.populate(at, PAGE_SIZE), Err(SpaceFault::Busy));
        // SAFETY: it is refused.
        assert_eq!(unsafe { space.insert_page(at, spare) }, Err(MapError::Atomic));
        // A fault that does not wait is another thing.
        assert!(space.fault(at, FaultAccess::Read, Gfp::NOWAIT).is_ok());
    }
    // SAFETY: allocated above, and used by nobody.
    unsafe { global::free_pages(spare, quarry::addr::Order::ZERO) };
    assert_eq!(process.sum(at, 1), 1);
}
