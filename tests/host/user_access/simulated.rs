//! Copies over the simulated MMU: partial ones at the edge of a page, rights, pages that a handler maps on demand.

use quarry::addr::{CpuId, PhysAddr, PhysRange, UserAddr, VirtAddr, VirtRange};
use quarry::arch::host::{Config, Machine, SimCpu, SimFrames, SimUser};
use quarry::hal::mmu::Asid;
use quarry::hal::prot::{Access, Prot};
use quarry::mm::pgtable::{MapFlags, PageTable, Space};
use quarry::mm::user::access::{
    UserAccessError, clear_user, cmpxchg_user_u32, cmpxchg_user_u64, copy_from_user, copy_to_user, get_user, put_user,
    strncpy_from_user,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const PAGE: u64 = 4096;
/// The last byte of the page at `AT` is mapped, the first one behind it is not.
const AT: u64 = 0x40_0000;
const RAM: u64 = 0x80_0000_0000;

struct Rig {
    machine: Machine,
    frames: SimFrames,
    table: Arc<PageTable<SimCpu>>,
}

impl Rig {
    fn new(config: Config) -> Self {
        let memory = PhysRange::from_size(PhysAddr::new(0x4000_0000), 1 << 20).expect("no wrap");
        let machine = Machine::new(Config { eager: false, ..config }, memory);
        let frames = machine.frames();
        let table = raw!(PageTable::new(machine.cpu(CpuId::BOOT), &frames, Space::User(Asid::new(1)))).expect("a root");
        machine.set_ttbr0(CpuId::BOOT, table.root(), Asid::new(1));
        let rig = Self { machine, frames, table: Arc::new(table) };
        rig.map(AT, Prot::user(Access::ReadWrite).with_dirty(true));
        rig
    }

    fn map(&self, page: u64, prot: Prot) {
        map(&self.table, &self.frames, page, prot);
    }

    fn user(&self) -> SimUser {
        SimUser::new(self.machine.cpu(CpuId::BOOT))
    }
}

fn map(table: &PageTable<SimCpu>, frames: &SimFrames, page: u64, prot: Prot) {
    let range = VirtRange::from_size(VirtAddr::new(page), PAGE).expect("no wrap");
    let memory = PhysAddr::new(RAM + page - AT);
    raw!(table.map(frames, range, memory, prot, MapFlags::empty())).expect("free");
}

const fn at(raw: u64) -> UserAddr {
    UserAddr::new(raw)
}

/// Bytes that tell where they were.
fn pattern(start: u64, bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|byte| (start + byte).wrapping_mul(7).to_le_bytes()[0]).collect()
}

// Behaviour 442: on the model. The routines of the target have the same test in the kernel.
#[test]
fn a_copy_into_the_next_page_says_how_much_is_left() {
    let rig = Rig::new(Config::CORTEX_A72);
    let (user, end) = (rig.user(), AT + PAGE);
    assert_eq!(copy_to_user(&user, at(AT), &pattern(AT, 4096)), Ok(()));
    for there in 0..if cfg!(miri) { 4 } else { 80 } {
        let start = end - there as u64;
        for size in [1, 7, 8, 9, 16, 33, 64, 65, 100, 300] {
            let left = size - there.min(size);
            let wanted = if left == 0 { Ok(()) } else { Err(UserAccessError::Fault { left }) };
            let mut buffer = vec![0xaa; size];
            assert_eq!(copy_from_user(&user, &mut buffer, at(start)), wanted, "{there}, {size}");
            let mut copy = pattern(start, size);
            copy[size - left..].fill(0);
            assert_eq!(buffer, copy);
            assert_eq!(copy_to_user(&user, at(start), &pattern(start, size)), wanted);
            assert_eq!(clear_user(&user, at(start), size), wanted);
            let mut rest = vec![9; there];
            assert_eq!(copy_from_user(&user, &mut rest, at(start)), Ok(()));
            assert!(rest.iter().take(size).all(|byte| *byte == 0));
            assert_eq!(copy_to_user(&user, at(start), &pattern(start, there)), Ok(()));
        }
    }
    rig.machine.violations().unwrap();
}

// Behaviours 437 and 446: words both ways, and atomic ones.
#[test]
fn words_go_both_ways() {
    let rig = Rig::new(Config::MAX);
    let user = rig.user();
    assert_eq!((put_user(&user, at(AT + 3), 0x81_u8), get_user(&user, at(AT + 3))), (Ok(()), Ok(0x81_u8)));
    assert_eq!((put_user(&user, at(AT + 5), -2_i16), get_user(&user, at(AT + 5))), (Ok(()), Ok(-2_i16)));
    assert_eq!((put_user(&user, at(AT + 8), u32::MAX - 1), get_user(&user, at(AT + 8))), (Ok(()), Ok(u32::MAX - 1)));
    assert_eq!((put_user(&user, at(AT + 16), i64::MIN), get_user(&user, at(AT + 16))), (Ok(()), Ok(i64::MIN)));
    assert_eq!(get_user::<_, u64>(&user, at(AT + PAGE - 4)), Err(UserAccessError::Fault { left: 8 }));
    assert_eq!(put_user(&user, at(AT + PAGE), 1_u8), Err(UserAccessError::Fault { left: 1 }));
    assert_eq!(put_user(&user, at(AT + 24), 5_u64), Ok(()));
    assert_eq!(cmpxchg_user_u32(&user, at(AT + 24), 5, 6), Ok(5));
    assert_eq!(cmpxchg_user_u32(&user, at(AT + 24), 5, 7), Ok(6), "not exchanged");
    assert_eq!(cmpxchg_user_u32(&user, at(AT + 28), 0, 1), Ok(0));
    assert_eq!(cmpxchg_user_u64(&user, at(AT + 24), 0x1_0000_0006, 9), Ok(0x1_0000_0006));
    assert_eq!(get_user(&user, at(AT + 24)), Ok(9_u64));
    assert_eq!(cmpxchg_user_u32(&user, at(AT + 26), 0, 1), Err(UserAccessError::Misaligned));
    assert_eq!(cmpxchg_user_u64(&user, at(AT + 28), 0, 1), Err(UserAccessError::Misaligned));
    assert_eq!(cmpxchg_user_u64(&user, at(AT + PAGE), 0, 1), Err(UserAccessError::Fault { left: 8 }));
}

#[test]
fn a_copy_has_the_rights_of_the_process() {
    let rig = Rig::new(Config::CORTEX_A72);
    rig.map(AT + PAGE, Prot::user(Access::ReadOnly));
    let user = rig.user();
    let mut buffer = [0; 16];
    assert_eq!(copy_from_user(&user, &mut buffer, at(AT + PAGE - 8)), Ok(()));
    assert_eq!(copy_to_user(&user, at(AT + PAGE - 8), &buffer), Err(UserAccessError::Fault { left: 8 }));
    assert_eq!(cmpxchg_user_u32(&user, at(AT + PAGE), 0, 1), Err(UserAccessError::Fault { left: 4 }));
}

// Behaviour 442: with a handler that maps each page at its first access.
#[test]
fn a_page_that_is_mapped_on_demand_is_no_fault() {
    let rig = Rig::new(Config::CORTEX_A72);
    let calls = Arc::new(AtomicU32::new(0));
    let (table, frames, count) = (Arc::clone(&rig.table), rig.frames.clone(), Arc::clone(&calls));
    let user = rig.user().with_handler(Arc::new(move |fault, _| {
        count.fetch_add(1, Ordering::Relaxed);
        let page = fault.addr.align_down(PAGE).get();
        // Three pages behind the first are the process's.
        let own = page < AT + 4 * PAGE;
        if own {
            map(&table, &frames, page, Prot::user(Access::ReadWrite).with_dirty(true));
        }
        own
    }));
    let bytes = pattern(0, 2 * 4096);
    assert_eq!(copy_to_user(&user, at(AT + 100), &bytes), Ok(()));
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    let mut back = vec![0; bytes.len()];
    assert_eq!(copy_from_user(&user, &mut back, at(AT + 100)), Ok(()));
    assert_eq!(back, bytes);
    assert_eq!(clear_user(&user, at(AT + 3 * PAGE - 8), 2 * 4096), Err(UserAccessError::Fault { left: 4096 - 8 }));
    assert_eq!(calls.load(Ordering::Relaxed), 4);
    // A handler that resolves nothing, and says that it did, is asked a few times only.
    let liar = rig.user().with_handler(Arc::new(|_, _| true));
    assert_eq!(get_user::<_, u8>(&liar, at(AT + 5 * PAGE)), Err(UserAccessError::Fault { left: 1 }));
}

// Behaviour 445: over the MMU.
#[test]
fn nothing_behind_the_nul_of_a_string_is_read() {
    let rig = Rig::new(Config::CORTEX_A72);
    let user = rig.user();
    let end = AT + PAGE;
    assert_eq!(copy_to_user(&user, at(end - 6), b"hello\0"), Ok(()));
    let mut buffer = [0; 64];
    assert_eq!(strncpy_from_user(&user, &mut buffer, at(end - 6)), Ok(5));
    assert_eq!(copy_to_user(&user, at(end - 1), b"!"), Ok(()));
    assert_eq!(strncpy_from_user(&user, &mut buffer, at(end - 6)), Err(UserAccessError::Fault { left: 58 }));
    assert_eq!(strncpy_from_user(&user, &mut buffer[..6], at(end - 6)), Ok(6));
}
