//! Stage 1 descriptors and `MAIR_EL1`, bit by bit.

use proptest::prelude::*;
use quarry::addr::PhysAddr;
use quarry::arch::aarch64::desc::{self, Stage1};
use quarry::arch::aarch64::mair;
use quarry::hal::entry::{Defect, Entry, EntryFormat, Leaf, RawEntry};
use quarry::hal::level::{LeafLevel, Level};
use quarry::hal::prot::{Access, MemoryType, Prot, ProtError};

const LEVELS: [Level; 4] = [Level::Pgd, Level::Pud, Level::Pmd, Level::Pte];
const LEAVES: [LeafLevel; 3] = [LeafLevel::Pud, LeafLevel::Pmd, LeafLevel::Pte];
const ACCESSES: [Access; 3] = [Access::ReadOnly, Access::ReadWrite, Access::Execute];

/// Every protection that has an encoding, in each state of its flags.
fn all_prots() -> Vec<Prot> {
    let mut prots = Vec::new();
    for access in ACCESSES {
        for base in [Prot::kernel(access), Prot::user(access)] {
            for memory in MemoryType::ALL {
                for flags in 0..8 {
                    let Ok(prot) = base.with_memory(memory) else { continue };
                    let prot = prot.with_accessed(flags & 1 != 0).with_global(flags & 2 != 0);
                    prots.push(prot.with_dirty(flags & 4 != 0));
                }
            }
        }
    }
    prots
}

fn raw(level: LeafLevel, prot: Prot) -> u64 {
    Stage1::leaf(level, PhysAddr::ZERO, prot, false).get()
}

// Behaviour 359
#[test]
fn every_leaf_table_and_absent_entry_decodes_to_what_was_encoded() {
    for level in LEVELS {
        assert_eq!(Stage1::decode(level, RawEntry::ABSENT), Entry::Absent);
    }
    for level in [Level::Pgd, Level::Pud, Level::Pmd] {
        let table = PhysAddr::new(0x0000_8765_4321_f000);
        assert_eq!(Stage1::decode(level, Stage1::table(table)), Entry::Table(table));
        assert_eq!(Stage1::next_table(Stage1::table(table)), Some(table));
    }
    for level in LEAVES {
        for prot in all_prots() {
            for contiguous in [false, true] {
                let phys = PhysAddr::new(0x0000_ffff_c000_0000);
                let leaf = Leaf { phys, level, prot, contiguous };
                let entry = Stage1::leaf(level, phys, prot, contiguous);
                assert_eq!(Stage1::decode(level.level(), entry), Entry::Leaf(leaf));
                assert!(Stage1::is_valid(entry));
                assert_eq!(Stage1::is_contiguous(entry), contiguous);
                assert!(!Stage1::is_valid(Stage1::invalidate(entry)));
                assert_eq!(Stage1::revalidate(Stage1::invalidate(entry)), entry);
            }
        }
    }
}

proptest! {
    // Behaviour 359: whatever decodes to a leaf encodes to the same bits, but for DBM on a leaf that is writable
    // without it.
    #[test]
    fn an_entry_that_decodes_is_the_one_that_encodes(
        noise in any::<u64>(),
        plausible in any::<bool>(),
        prot in proptest::sample::select(all_prots()),
        level in 0..4_usize,
    ) {
        // Near a real leaf most bits make another leaf; far from one hardly any do.
        let level = LEVELS[level];
        let near = raw(level.leaf().unwrap_or(LeafLevel::Pud), prot) ^ (1 << (noise % 64)) ^ (noise & desc::ADDRESS);
        let bits = if plausible { near } else { noise };
        match Stage1::decode(level, RawEntry::new(bits)) {
            Entry::Absent => prop_assert_eq!(bits, 0),
            Entry::Guard => prop_assert_eq!((level, bits), (Level::Pte, Stage1::GUARD.get())),
            Entry::Parked(leaf) => {
                let again = Stage1::park(Stage1::leaf(leaf.level, leaf.phys, leaf.prot, false)).get();
                let ignored = desc::DBM | desc::SOFT_DIRTY;
                prop_assert_eq!(again & !ignored, bits & !ignored);
                prop_assert!(bits & desc::VALID == 0 && Stage1::is_parked(RawEntry::new(bits)));
                prop_assert_eq!(leaf.level.level(), level);
            }
            Entry::Table(table) => prop_assert_eq!(Stage1::table(table).get(), bits),
            Entry::Leaf(leaf) => {
                let again = Stage1::leaf(leaf.level, leaf.phys, leaf.prot, leaf.contiguous).get();
                let ignored = desc::DBM | desc::SOFT_DIRTY;
                prop_assert_eq!(again & !ignored, bits & !ignored);
                prop_assert_eq!(leaf.level.level(), level);
            }
            Entry::Malformed(_) => {}
        }
    }

    // The leaf for the next unit is this leaf plus the unit's size: what `Mmu::fill` rests on.
    #[test]
    fn output_addresses_add_up(level in 0..3_usize, unit in 0..0x3_0000_u64, count in 0..512_u64) {
        let level = LEAVES[level];
        let at = |unit: u64| Stage1::leaf(level, PhysAddr::new(unit * level.size()), Prot::KERNEL_RW, true).get();
        prop_assume!((unit + count) * level.size() < 1 << 48);
        prop_assert_eq!(at(unit) + count * level.size(), at(unit + count));
    }
}

// Behaviour 360: a leaf at level 0 has no `LeafLevel`, and its bits are refused.
#[test]
fn types_that_a_level_lacks_are_malformed() {
    let block = RawEntry::new(raw(LeafLevel::Pud, Prot::KERNEL_RW));
    assert_eq!(Stage1::decode(Level::Pgd, block), Entry::Malformed(Defect::BadType));
    assert_eq!(Level::Pgd.leaf(), None);
    assert_eq!(Stage1::decode(Level::Pte, block), Entry::Malformed(Defect::BadType));
    let page = RawEntry::new(raw(LeafLevel::Pte, Prot::KERNEL_RW));
    assert_eq!(Stage1::decode(Level::Pmd, page), Entry::Malformed(Defect::ReservedBits));
    let unaligned = RawEntry::new(raw(LeafLevel::Pmd, Prot::KERNEL_RW) | 0x1000);
    assert_eq!(Stage1::decode(Level::Pmd, unaligned), Entry::Malformed(Defect::ReservedBits));
    assert_eq!(Stage1::decode(Level::Pmd, RawEntry::new(0x40_0000)), Entry::Malformed(Defect::Leftover));
}

#[test]
fn kernel_and_user_bits_are_those_of_the_manual() {
    // AttrIndx 6, SH inner, AF; page.
    const COMMON: u64 = 0b11 | 6 << 2 | 0b11 << 8 | 1 << 10;
    const RO: u64 = 1 << 7;
    const EL0: u64 = 1 << 6;
    const DBM: u64 = 1 << 51;
    const PXN: u64 = 1 << 53;
    const UXN: u64 = 1 << 54;
    const NG: u64 = 1 << 11;
    let page = |prot| raw(LeafLevel::Pte, prot);
    assert_eq!(page(Prot::KERNEL_RX), COMMON | RO | UXN);
    assert_eq!(page(Prot::KERNEL_RO), COMMON | RO | UXN | PXN);
    assert_eq!(page(Prot::KERNEL_RW), COMMON | DBM | UXN | PXN);
    assert_eq!(page(Prot::user(Access::Execute)), COMMON | RO | EL0 | PXN | NG);
    assert_eq!(page(Prot::user(Access::ReadOnly)), COMMON | RO | EL0 | PXN | UXN | NG);
    assert_eq!(page(Prot::user(Access::ReadWrite)), COMMON | RO | DBM | EL0 | PXN | UXN | NG);
    assert_eq!(page(Prot::user(Access::ReadWrite).with_dirty(true)), COMMON | DBM | EL0 | PXN | UXN | NG);
    assert_eq!(page(Prot::KERNEL_DEVICE), COMMON & !(7 << 2) | 1 << 2 | DBM | UXN | PXN);
    assert_eq!(raw(LeafLevel::Pmd, Prot::KERNEL_RX), (COMMON | RO | UXN) & !0b10);
    let group = Stage1::leaf(LeafLevel::Pte, PhysAddr::ZERO, Prot::KERNEL_RW, true).get();
    assert_eq!(group, COMMON | DBM | UXN | PXN | 1 << 52);
}

// Behaviour 379, 380: what is never written is recognised.
#[test]
fn dangerous_bits_are_malformed_and_named() {
    let decode = |bits| Stage1::decode(Level::Pte, RawEntry::new(bits));
    let rx = raw(LeafLevel::Pte, Prot::KERNEL_RX);
    let rw = raw(LeafLevel::Pte, Prot::KERNEL_RW);
    let user_rx = raw(LeafLevel::Pte, Prot::user(Access::Execute));
    let device = raw(LeafLevel::Pte, Prot::KERNEL_DEVICE);
    assert_eq!(decode(rx & !desc::AP_READ_ONLY), Entry::Malformed(Defect::WritableExecutable));
    assert_eq!(decode(rx | desc::DBM), Entry::Malformed(Defect::WritableExecutable));
    assert_eq!(decode(rw & !desc::PXN), Entry::Malformed(Defect::WritableExecutable));
    assert_eq!(decode(user_rx & !desc::AP_READ_ONLY), Entry::Malformed(Defect::WritableExecutable));
    assert_eq!(decode(rx & !desc::UXN), Entry::Malformed(Defect::KernelWithoutUxn));
    assert_eq!(decode(user_rx & !desc::PXN), Entry::Malformed(Defect::UserWithoutPxn));
    let executable_device = (device | desc::AP_READ_ONLY) & !(desc::PXN | desc::DBM);
    assert_eq!(decode(executable_device), Entry::Malformed(Defect::ExecutableDevice));
    assert_eq!(decode(rw & !(1 << 9)), Entry::Malformed(Defect::Shareability));
    assert_eq!(decode(rw | 1 << 5), Entry::Malformed(Defect::ReservedBits));
    for bit in 59..64 {
        let table = Stage1::table(PhysAddr::new(0x1000)).get() | 1 << bit;
        assert_eq!(Stage1::decode(Level::Pmd, RawEntry::new(table)), Entry::Malformed(Defect::TableAttributes));
    }
}

// Behaviour 372: the algebra of the flags, for each protection, through its encoding.
#[test]
fn young_dirty_and_write_flags_compose() {
    let through = |prot: Prot| match Stage1::decode(Level::Pte, RawEntry::new(raw(LeafLevel::Pte, prot))) {
        Entry::Leaf(leaf) => leaf.prot,
        other => panic!("{prot:?} became {other:?}"),
    };
    for prot in all_prots() {
        assert!(through(prot.with_accessed(true)).is_accessed());
        assert!(!through(prot.with_accessed(false)).is_accessed());
        assert_eq!(through(through(prot.with_accessed(false)).with_accessed(prot.is_accessed())), prot);
        assert!(!through(prot.with_dirty(false)).is_dirty());
        assert_eq!(through(prot.with_dirty(true)).is_dirty(), !prot.is_executable());
        assert_eq!(through(prot.with_dirty(false)).access(), prot.access());
        if prot.is_writable() {
            let protect = |prot: Prot| through(prot.with_access(Access::ReadOnly).expect("never executable"));
            assert!(!protect(prot.with_dirty(false)).is_dirty(), "wrprotect of a clean page");
            assert!(protect(prot.with_dirty(true)).is_dirty(), "wrprotect of a dirty page");
            assert!(!protect(prot).is_writable());
            let again = through(protect(prot.with_dirty(true)).with_access(Access::ReadWrite).expect("not executable"));
            assert_eq!(again, prot.with_dirty(true));
        }
    }
}

#[test]
fn device_memory_is_never_executable() {
    for memory in MemoryType::ALL.into_iter().filter(|memory| memory.is_device()) {
        assert_eq!(Prot::KERNEL_RX.with_memory(memory), Err(ProtError::ExecutableDevice));
        let device = Prot::KERNEL_RW.with_memory(memory).expect("not executable");
        assert_eq!(device.with_access(Access::Execute), Err(ProtError::ExecutableDevice));
    }
}

#[test]
fn mair_holds_the_eight_types_in_order() {
    assert_eq!(mair::mair_el1(true), 0xf0ff_bb44_0c08_0400);
    assert_eq!(mair::mair_el1(false), 0xffff_bb44_0c08_0400);
}

#[test]
fn only_the_two_write_back_types_agree_with_each_other() {
    for one in MemoryType::ALL {
        for other in MemoryType::ALL {
            let both = one.index() >= 6 && other.index() >= 6;
            assert_eq!(one.agrees_with(other), one == other || both);
            assert_eq!(MemoryType::from_index(one.index()), one);
        }
    }
}
