//! Stepping over exclusive accesses: where they are left.

use quarry::addr::VirtAddr;
use quarry::arch::aarch64::exclusive::{exits, is_load};

const LDAXRB: u32 = 0x085f_fc08; // ldaxrb w8, [x0]
const STXRB: u32 = 0x0809_7c0a; // stxrb w9, w10, [x0]
const NOP: u32 = 0xd503_201f;
const CLREX: u32 = 0xd503_3f5f;
const START: u64 = 0xffff_8000_8000_1000;

/// cbnz w8, so many instructions further on.
const fn cbnz(words: i32) -> u32 {
    0x3500_0008 | (words.cast_unsigned() & 0x7_ffff) << 5
}

/// b.ne
const fn b_ne(words: i32) -> u32 {
    0x5400_0001 | (words.cast_unsigned() & 0x7_ffff) << 5
}

/// Where code that starts with a load-exclusive goes on, in instructions from it.
fn left_at(code: &[u32]) -> Option<Vec<i64>> {
    let load = |at: VirtAddr| code.get((at.get().wrapping_sub(START) / 4) as usize).copied().unwrap_or(NOP);
    let exits = exits(VirtAddr::new(START), load)?;
    let index = |at: VirtAddr| (at.get().wrapping_sub(START)).cast_signed() / 4;
    Some(exits.into_iter().flatten().map(index).collect())
}

#[test]
fn a_pair_is_left_behind_its_store_or_by_its_branches() {
    assert_eq!(left_at(&[LDAXRB, NOP, STXRB, cbnz(-3)]), Some(vec![3]), "no branch between");
    assert_eq!(left_at(&[LDAXRB, cbnz(3), STXRB, cbnz(-3), CLREX]), Some(vec![4, 3]), "compare and exchange");
    assert_eq!(left_at(&[LDAXRB, b_ne(-20), STXRB]), Some(vec![-19, 3]), "a branch backwards");
    // The store lies where the branch leads.
    assert_eq!(left_at(&[LDAXRB, cbnz(3), CLREX, NOP, NOP, STXRB, NOP]), Some(vec![6, 2]));
    // And behind an unconditional branch.
    assert_eq!(left_at(&[LDAXRB, 0x1400_0002, NOP, STXRB, NOP]), Some(vec![4]));
    assert_eq!(left_at(&[LDAXRB; 40]), None, "no store");
    assert_eq!(left_at(&[NOP, STXRB]), None, "no load");
}

#[test]
fn loads_are_told_from_their_kin() {
    for load in [LDAXRB, 0xc85f_7c20, 0x885f_fc41, 0xc87f_0861, 0x887f_8861] {
        assert!(is_load(load), "{load:#x}: LDXR, LDAXR, LDXP, LDAXP");
    }
    // STXRB; LDAR, STLR; CASP, CAS; LDR.
    for other in [STXRB, 0xc8df_fc20, 0xc89f_fc20, 0x4860_7c82, 0xc8a0_7c41, 0xf940_0020] {
        assert!(!is_load(other), "{other:#x}");
    }
}
