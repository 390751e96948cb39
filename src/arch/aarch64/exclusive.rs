//! Exclusive accesses as a debugger sees them: taking an exception between a load-exclusive and its store-exclusive makes
//! the store fail, so code that is stepped through them one by one never gets past (Arm ARM B2.12.5, C6.2).
#![forbid(unsafe_code)]

use crate::addr::VirtAddr;

/// Instructions between the two that are scanned; compilers need a handful.
const REACH: u32 = 16;
/// Places at which a sequence may continue.
pub(crate) const EXITS: usize = 4;

/// Whether an instruction is LDXR, LDAXR or one of their kin.
#[must_use]
pub const fn is_load(instruction: u32) -> bool {
    // With bit 31 clear and bit 21 set, this form is CASP, which is complete by itself.
    instruction & 0x3fc0_0000 == 0x0840_0000 && instruction & 0x8020_0000 != 0x0020_0000
}

const fn is_store(instruction: u32) -> bool {
    instruction & 0x3fc0_0000 == 0x0800_0000 && instruction & 0x8020_0000 != 0x0020_0000
}

/// Whether an instruction is CLREX: what follows belongs to no pair any more.
const fn is_clear(instruction: u32) -> bool {
    instruction & 0xffff_f0ff == 0xd503_305f
}

/// Target of a conditional branch at `pc`, if `instruction` is one.
fn branch_target(instruction: u32, pc: VirtAddr) -> Option<VirtAddr> {
    // The offset in instructions, its sign bit at the top of the word.
    let (shifted, bits) = if instruction & 0xff00_0010 == 0x5400_0000 || instruction & 0x7e00_0000 == 0x3400_0000 {
        (instruction << 8, 19)
    } else if instruction & 0x7e00_0000 == 0x3600_0000 {
        (instruction << 13, 14)
    } else {
        return None;
    };
    let words = shifted.cast_signed() >> (u32::BITS - bits);
    Some(VirtAddr::new(pc.get().wrapping_add_signed(i64::from(words) * 4)))
}

/// Target of an unconditional branch at `pc`, if `instruction` is one.
fn jump_target(instruction: u32, pc: VirtAddr) -> Option<VirtAddr> {
    let words = (instruction << 6).cast_signed() >> 6;
    let is_jump = instruction & 0xfc00_0000 == 0x1400_0000;
    is_jump.then(|| VirtAddr::new(pc.get().wrapping_add_signed(i64::from(words) * 4)))
}

const fn next(pc: VirtAddr) -> VirtAddr {
    VirtAddr::new(pc.get().wrapping_add(4))
}

/// Address behind the store-exclusive that code at `pc` reaches before it branches, if it reaches one.
fn behind_store(mut pc: VirtAddr, load: &impl Fn(VirtAddr) -> u32) -> Option<VirtAddr> {
    for _ in 0..REACH {
        let instruction = load(pc);
        if is_store(instruction) {
            return Some(next(pc));
        }
        if branch_target(instruction, pc).is_some() || is_load(instruction) || is_clear(instruction) {
            return None;
        }
        pc = jump_target(instruction, pc).unwrap_or(next(pc));
    }
    None
}

/// Addresses at which code at the load-exclusive at `pc` may continue: behind the store-exclusive, and the targets of branches
/// between the two. `load` reads an instruction. `None` if there is no load-exclusive at `pc`, or the code behind it is none of
/// the usual forms.
#[must_use]
pub fn exits(mut pc: VirtAddr, load: impl Fn(VirtAddr) -> u32) -> Option<[Option<VirtAddr>; EXITS]> {
    if !is_load(load(pc)) {
        return None;
    }
    let mut exits = [None; EXITS];
    let mut places = exits.iter_mut();
    for _ in 0..REACH {
        pc = jump_target(load(pc), pc).unwrap_or(next(pc));
        let instruction = load(pc);
        if is_store(instruction) {
            *places.next()? = Some(next(pc));
            return Some(exits);
        }
        if let Some(target) = branch_target(instruction, pc) {
            *places.next()? = Some(behind_store(target, &load).unwrap_or(target));
            if behind_store(next(pc), &load).is_none() && branch_target(load(next(pc)), next(pc)).is_none() {
                *places.next()? = Some(next(pc));
                return Some(exits);
            }
        }
    }
    None
}
