//! Memory of processes under the machine's own MMU: that the instructions of user copies and of the change of address spaces are
//! right.

use crate::address_space::handle_fault;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use quarry::addr::{CpuId, PAGE_BYTES, PAGE_SIZE, UserAddr, VirtAddr, VirtRange, to_usize};
use quarry::arch::aarch64::esr::Access as AccessKind;
use quarry::arch::aarch64::features::IdRegisters;
use quarry::arch::aarch64::{icache, protect};
use quarry::gfp::Gfp;
use quarry::global::{self, BuddyFrames, KernelMmu, Resolution, UserFault};
use quarry::hal::mmu::{Asid, Mmu};
use quarry::hal::prot::{Access, Prot};
use quarry::hal::wait::Context as _;
use quarry::kernel::cpus;
use quarry::kernel::ktest::{FaultKind, expect_fault};
use quarry::ktest;
use quarry::mm::layout::phys_to_virt;
use quarry::mm::pgtable::{MapFlags, PageTable, Space};
use quarry::mm::user::access::{UserAccessError, UserPtr, UserSlice};
use quarry::mm::user::asid::AsidSlot;

/// Where a process has its first page.
pub(super) const AT: u64 = 0x40_0000;

pub(super) const fn at(raw: u64) -> UserAddr {
    UserAddr::new(raw)
}

/// An address space made by hand. Its tables and pages stay for good.
pub(super) struct Process {
    tables: PageTable<KernelMmu>,
    slot: AsidSlot,
}

impl Process {
    fn new() -> Self {
        let kernel = global::kernel_tables().expect("the final tables");
        let space = Space::User(Asid::new(0));
        let tables = raw!(PageTable::new(*kernel.mmu(), &BuddyFrames::ATOMIC, space)).expect("a root");
        Self { tables, slot: AsidSlot::new() }
    }

    /// A process with a page of data at [`AT`], of which every byte is `fill`.
    pub(super) fn with_page(fill: u8) -> Self {
        let process = Self::new();
        process.map(AT, Access::ReadWrite, &[fill; PAGE_BYTES]);
        process
    }

    /// Maps a new page with this content.
    pub(super) fn map(&self, page: u64, access: Access, content: &[u8]) {
        let memory = global::page_to_phys(global::alloc_page(Gfp::KERNEL.union(Gfp::ZERO)).expect("a page"));
        let bytes = phys_to_virt(memory).expect("RAM").as_ptr::<u8>();
        // SAFETY: the page is the test's own, and the content is no longer than it.
        unsafe { bytes.copy_from_nonoverlapping(content.as_ptr(), content.len().min(PAGE_BYTES)) };
        if access == Access::Execute {
            icache::sync(VirtRange::from_size(VirtAddr::of(bytes), PAGE_SIZE).expect("no wrap"));
        }
        let range = VirtRange::from_size(VirtAddr::new(page), PAGE_SIZE).expect("no wrap");
        let prot = Prot::user(access).with_dirty(access == Access::ReadWrite);
        raw!(self.tables.map(&BuddyFrames::ATOMIC, range, memory, prot, MapFlags::empty())).expect("free");
    }

    pub(super) fn enter(&self) {
        raw!(global::switch_mm(self.tables.root(), &self.slot)).expect("a number");
        assert_eq!(global::current_mm(), Some(self.tables.root()));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        global::leave_mm();
        if let Some(asid) = self.slot.asid() {
            self.tables.mmu().order_before_invalidate();
            self.tables.mmu().invalidate_asid(asid);
            self.tables.mmu().complete();
        }
    }
}

/// A byte that tells where it is.
#[expect(clippy::cast_possible_truncation, reason = "the low byte is what is wanted")]
const fn mark(at: usize) -> u8 {
    (at as u8).wrapping_mul(31).wrapping_add(7) | 1
}

// Behaviours 442 and 437: every distance to the end of the page, every alignment of the kernel's side.
ktest!(a_copy_into_an_unmapped_page_says_what_is_left, machine a72 = "", machine max = "cpu=max", timeout = 120);
fn a_copy_into_an_unmapped_page_says_what_is_left() {
    const SIZES: [usize; 20] = [0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 128, 255, 320, 700];
    let process = Process::with_page(0);
    process.enter();
    let mut buffer = [0_u8; 1024];
    let mut pattern = [0_u8; 1024];
    pattern.iter_mut().enumerate().for_each(|(index, byte)| *byte = mark(index));
    let end = AT + PAGE_SIZE;
    for there in (0..80).chain([127, 128, 129, 255, 256, 257, 300, 511, 640]) {
        let start = at(end - there as u64);
        for size in SIZES {
            let left = size.saturating_sub(there);
            let wanted = if left == 0 { Ok(()) } else { Err(UserAccessError::Fault { left }) };
            for align in 0..16 {
                let own = pattern.get(align..align + size).expect("long enough");
                assert_eq!(global::copy_to_user(start, own), wanted, "to: {there}, {size}, {align}");
                buffer.fill(0xee);
                let copy = buffer.get_mut(align..align + size).expect("long enough");
                assert_eq!(global::copy_from_user(copy, start), wanted, "from: {there}, {size}, {align}");
                let (copied, zeroed) = copy.split_at(size - left);
                assert_eq!(Some(copied), own.get(..size - left));
                assert!(zeroed.iter().all(|byte| *byte == 0));
                let around = buffer.iter().take(align).chain(buffer.iter().skip(align + size));
                assert!(around.copied().all(|byte| byte == 0xee), "{there}, {size}, {align}");
            }
            assert_eq!(global::clear_user(start, size), wanted, "clear: {there}, {size}");
            let zero = global::check_zeroed_user(start, size.min(there));
            assert_eq!(zero, Ok(true), "{there}, {size}");
        }
    }
}

// Behaviour 437: long copies of every length, so that each loop and each tail is taken.
ktest!(copies_of_every_length_are_whole, machine a72 = "", machine max = "cpu=max");
fn copies_of_every_length_are_whole() {
    let process = Process::with_page(0);
    process.enter();
    let (mut pattern, mut buffer) = ([0_u8; PAGE_BYTES], [0_u8; PAGE_BYTES]);
    pattern.iter_mut().enumerate().for_each(|(index, byte)| *byte = mark(index ^ index >> 8));
    for size in (0..600).chain([1023, 1024, 1100, 4095, 4096]) {
        assert_eq!(global::clear_user(at(AT), PAGE_BYTES), Ok(()));
        let own = pattern.get(..size).expect("long enough");
        assert_eq!(global::copy_to_user(at(AT), own), Ok(()));
        assert_eq!(global::check_zeroed_user(at(AT + size as u64), PAGE_BYTES - size), Ok(true), "{size}");
        buffer.fill(0);
        assert_eq!(global::copy_from_user(buffer.get_mut(..size).expect("long enough"), at(AT)), Ok(()));
        assert_eq!(buffer.get(..size), Some(own));
        assert!(buffer.iter().skip(size).all(|byte| *byte == 0));
    }
}

// Behaviour 445: every length and alignment, the NUL as the last byte of the page.
ktest!(a_string_is_read_to_its_nul_and_no_further, machine a72 = "", machine max = "cpu=max");
fn a_string_is_read_to_its_nul_and_no_further() {
    let process = Process::with_page(b'x');
    process.enter();
    let mut buffer = [0_u8; 96];
    for length in 0..64_usize {
        for behind in 0..20_u64 {
            // The NUL, and so many bytes up to the end of the page.
            let nul = AT + PAGE_SIZE - 1 - behind;
            let start = at(nul - length as u64);
            assert_eq!(global::put_user(UserPtr::new(at(nul)), 0_u8), Ok(()));
            buffer.fill(0xee);
            assert_eq!(global::strncpy_from_user(&mut buffer, start), Ok(length), "{length}, {behind}");
            assert!(buffer.iter().take(length).all(|byte| *byte == b'x'));
            assert_eq!(buffer.get(length), Some(&0));
            // As much room as the string has, and one byte more and less.
            for room in [length.saturating_sub(1), length, length + 1] {
                buffer.fill(0xee);
                let head = buffer.get_mut(..room).expect("long enough");
                assert_eq!(global::strncpy_from_user(head, start), Ok(length.min(room)), "{length}, {room}");
                assert!(buffer.iter().skip(room).all(|byte| *byte == 0xee));
            }
            assert_eq!(global::put_user(UserPtr::new(at(nul)), b'x'), Ok(()));
            // Without it the string goes on into the page that is not there.
            let there = length + 1 + usize::try_from(behind).expect("small");
            let left = buffer.len() - there;
            assert_eq!(global::strncpy_from_user(&mut buffer, start), Err(UserAccessError::Fault { left }));
        }
    }
}

// Behaviours 437, 441, 444 and 446: words, atomic ones, addresses that are no process's.
ktest!(words_of_a_process_are_read_written_and_exchanged, machine a72 = "", machine max = "cpu=max");
fn words_of_a_process_are_read_written_and_exchanged() {
    let process = Process::with_page(0);
    process.enter();
    let end = AT + PAGE_SIZE;
    assert_eq!(global::put_user(UserPtr::new(at(AT + 1)), 0x81_u8), Ok(()));
    assert_eq!(global::put_user(UserPtr::new(at(AT + 3)), -2_i16), Ok(()));
    assert_eq!(global::put_user(UserPtr::new(at(AT + 9)), 0x8765_4321_u32), Ok(()));
    assert_eq!(global::put_user(UserPtr::new(at(end - 8)), u64::MAX - 1), Ok(()));
    assert_eq!(global::get_user(UserPtr::<u8>::new(at(AT + 1))), Ok(0x81));
    assert_eq!(global::get_user(UserPtr::<i16>::new(at(AT + 3))), Ok(-2));
    assert_eq!(global::get_user(UserPtr::<u32>::new(at(AT + 9))), Ok(0x8765_4321));
    assert_eq!(global::get_user(UserPtr::<u64>::new(at(end - 8))), Ok(u64::MAX - 1));
    for wild in
        [end, end - 1, 0, 1 << 47, (1 << 48) - 4, 1 << 48, 0x5500_0000_0040_0000, u64::MAX - 3, 0xffff_0000_4000_0000]
    {
        assert_eq!(
            global::get_user(UserPtr::<u64>::new(at(wild))),
            Err(UserAccessError::Fault { left: 8 }),
            "{wild:#x}"
        );
        assert_eq!(
            global::put_user(UserPtr::new(at(wild)), 1_u32),
            Err(UserAccessError::Fault { left: 4 }),
            "{wild:#x}"
        );
        assert_eq!(global::clear_user(at(wild), 100).map_err(|_| ()), Err(()), "{wild:#x}");
    }
    // The kernel's own memory, which is mapped.
    let mut secret = [7_u8; 128];
    let kernel = at(VirtAddr::of(secret.as_ptr()).get());
    assert_eq!(global::copy_to_user(kernel, &[1; 128]), Err(UserAccessError::Fault { left: 128 }));
    assert_eq!(global::copy_from_user(&mut [0; 16], kernel), Err(UserAccessError::Fault { left: 16 }));
    assert_eq!(core::hint::black_box(&mut secret), &[7; 128]);

    assert_eq!(global::put_user(UserPtr::new(at(AT + 64)), 5_u64), Ok(()));
    assert_eq!(global::cmpxchg_user_u32(UserPtr::new(at(AT + 64)), 5, 6), Ok(5));
    assert_eq!(global::cmpxchg_user_u32(UserPtr::new(at(AT + 64)), 5, 7), Ok(6));
    assert_eq!(global::cmpxchg_user_u64(UserPtr::new(at(AT + 64)), 6, u64::MAX), Ok(6));
    assert_eq!(global::get_user(UserPtr::<u64>::new(at(AT + 64))), Ok(u64::MAX));
    assert_eq!(global::cmpxchg_user_u64(UserPtr::new(at(end)), 0, 1), Err(UserAccessError::Fault { left: 8 }));
    assert_eq!(global::cmpxchg_user_u32(UserPtr::new(at(AT + 66)), 0, 1), Err(UserAccessError::Misaligned));

    let mut writer = global::user_writer(UserSlice::new(at(end - 16), 32));
    assert_eq!(writer.write(&[1_u32, 2, 3]), Ok(()));
    assert_eq!((writer.write(&4_u64), writer.remaining()), (Err(UserAccessError::Fault { left: 4 }), 16));
    let mut reader = global::user_reader(UserSlice::new(at(end - 16), 32));
    assert_eq!((reader.read(), reader.read::<[u32; 2]>()), (Ok(1_u32), Ok([2, 3])));
}

ktest!(a_read_only_page_is_not_written_for_the_process, machine a72 = "", machine max = "cpu=max");
fn a_read_only_page_is_not_written_for_the_process() {
    let process = Process::with_page(1);
    process.map(AT + PAGE_SIZE, Access::ReadOnly, &[2; PAGE_BYTES]);
    process.enter();
    let mut bytes = [0; 200];
    let start = at(AT + PAGE_SIZE - 100);
    assert_eq!(global::copy_from_user(&mut bytes, start), Ok(()));
    assert_eq!(global::copy_to_user(start, &[3; 200]), Err(UserAccessError::Fault { left: 100 }));
    assert_eq!(global::copy_to_user(at(AT + PAGE_SIZE), &[3; 8]), Err(UserAccessError::Fault { left: 8 }));
    assert_eq!(global::clear_user(start, 164), Err(UserAccessError::Fault { left: 64 }));
    assert_eq!(
        global::cmpxchg_user_u32(UserPtr::new(at(AT + PAGE_SIZE)), 0x0202_0202, 1),
        Err(UserAccessError::Fault { left: 4 })
    );
    assert_eq!(global::get_user(UserPtr::<u8>::new(at(AT + PAGE_SIZE))), Ok(2));
}

// Behaviour 389: not global, so that no flush is needed between two spaces.
ktest!(one_address_shows_what_its_process_has_there, machine a72 = "", machine max = "cpu=max");
fn one_address_shows_what_its_process_has_there() {
    let processes = [1, 2, 3].map(Process::with_page);
    for _ in 0..10 {
        for (process, fill) in processes.iter().zip(1_u8..) {
            process.enter();
            assert_eq!(global::get_user(UserPtr::<u8>::new(at(AT))), Ok(fill));
        }
    }
    let numbers = processes.each_ref().map(|process| process.slot.asid());
    assert!(
        numbers.iter().flatten().all(|asid| asid.get() != 0) && numbers[0] != numbers[1] && numbers[1] != numbers[2]
    );
    global::leave_mm();
    assert_eq!(global::current_mm(), None);
    assert_eq!(global::get_user(UserPtr::<u8>::new(at(AT))), Err(UserAccessError::Fault { left: 1 }));
    global::asids().expect("numbers").check_all().unwrap_or_else(|error| panic!("{error}"));
}

// Behaviour 389: on all CPUs at once, the same spaces and others.
ktest!(cpus_change_spaces_side_by_side, machine a72 = "smp=4", machine max = "smp=4 cpu=max");
fn cpus_change_spaces_side_by_side() {
    let processes = [1, 2, 3, 4, 5, 6, 7].map(Process::with_page);
    let cpus = cpus::run_everywhere(&|cpu: CpuId| {
        for round in 0..2_000_usize {
            let turn = (round * (2 * to_usize(cpu.get().into()) + 1)) % processes.len();
            for (process, fill) in processes.iter().zip(1_u8..).skip(turn).take(1) {
                // On one CPU, and undisturbed: nobody here changes spaces along with threads.
                let _pinned = global::get_cpu();
                process.enter();
                assert_eq!(global::get_user(UserPtr::<u8>::new(at(AT + 99))), Ok(fill));
            }
        }
        global::leave_mm();
    });
    assert_eq!(cpus, 4);
    let asids = global::asids().expect("numbers");
    asids.check_all().unwrap_or_else(|error| panic!("{error}"));
    let slots = processes.iter().map(|process| &process.slot);
    asids.check_slots(slots).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(asids.rollovers(), 0, "16 bits");
}

// Behaviour 451.
ktest!(the_kernel_does_not_read_a_user_page_by_accident, machine = "cpu=max");
fn the_kernel_does_not_read_a_user_page_by_accident() {
    assert!(protect::barriers(&IdRegisters::read()).pan);
    let process = Process::with_page(1);
    process.enter();
    // After a long copy, which clears PAN meanwhile, it is set again; so it is after one that faults.
    let mut bytes = [0; 200];
    assert_eq!(global::copy_from_user(&mut bytes, at(AT)), Ok(()));
    assert_eq!(global::copy_to_user(at(AT + PAGE_SIZE - 100), &bytes), Err(UserAccessError::Fault { left: 100 }));
    assert_eq!(
        global::cmpxchg_user_u32(UserPtr::new(at(AT + PAGE_SIZE)), 0, 1),
        Err(UserAccessError::Fault { left: 4 })
    );
    assert!(protect::barriers(&IdRegisters::read()).pan);
    let page = VirtAddr::new(AT);
    expect_fault(FaultKind::Permission(AccessKind::Read), page);
    // SAFETY: the load takes the fault that was announced, and the machine ends.
    unsafe { page.as_ptr::<u8>().read_volatile() };
}

/// The process whose pages the handler maps on demand.
static ON_DEMAND: AtomicPtr<Process> = AtomicPtr::new(core::ptr::null_mut());
static FAULTS: AtomicU32 = AtomicU32::new(0);

/// Resolves a fault of that process; `None` if there is none.
pub(crate) fn map_on_demand(fault: &UserFault) -> Option<Resolution> {
    // SAFETY: the test's process, while it runs.
    let process = unsafe { ON_DEMAND.load(Ordering::Relaxed).as_ref() }?;
    assert!(fault.by_kernel);
    FAULTS.fetch_add(1, Ordering::Relaxed);
    if fault.addr >= at(AT + 4 * PAGE_SIZE) || fault.addr < at(AT) {
        return Some(Resolution::Bad);
    }
    assert!(global::context().atomic().is_none(), "it may sleep");
    process.map(fault.addr.align_down(PAGE_SIZE).get(), Access::ReadWrite, &[9; PAGE_BYTES]);
    Some(Resolution::Resolved)
}

// Behaviour 442: a fault in a copy is the handler's first.
ktest!(a_copy_waits_for_the_page_that_its_fault_maps, machine a72 = "", machine max = "cpu=max");
fn a_copy_waits_for_the_page_that_its_fault_maps() {
    let mut process = Process::with_page(1);
    global::set_user_fault_handler(handle_fault);
    ON_DEMAND.store(&raw mut process, Ordering::Relaxed);
    process.enter();
    let mut bytes = [0_u8; 3 * PAGE_BYTES];
    // Where nobody may wait, the fault is an answer.
    let masked = quarry::arch::aarch64::irq::local_irq_save();
    assert_eq!(
        global::copy_from_user(&mut bytes, at(AT + 8)),
        Err(UserAccessError::Fault { left: 2 * PAGE_BYTES + 8 })
    );
    drop(masked);
    let pinned = global::get_cpu();
    assert_eq!(global::get_user(UserPtr::<u8>::new(at(AT + PAGE_SIZE))), Err(UserAccessError::Fault { left: 1 }));
    drop(pinned);
    assert_eq!(FAULTS.load(Ordering::Relaxed), 0);
    assert_eq!(global::copy_from_user(&mut bytes, at(AT + 8)), Ok(()));
    assert_eq!(FAULTS.load(Ordering::Relaxed), 3);
    let (first, rest) = bytes.split_at(PAGE_BYTES - 8);
    assert!(first.iter().all(|byte| *byte == 1) && rest.iter().all(|byte| *byte == 9));
    let left = 2 * PAGE_BYTES + 8;
    assert_eq!(global::copy_to_user(at(AT + 3 * PAGE_SIZE + 8), &bytes), Err(UserAccessError::Fault { left }));
    ON_DEMAND.store(core::ptr::null_mut(), Ordering::Relaxed);
}
