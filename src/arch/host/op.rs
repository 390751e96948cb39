//! TLBI operands as a CPU reads them: written from the manual's side (Arm ARM C5.5), so that an encoder that is wrong
//! drops the wrong entries here.
#![forbid(unsafe_code)]

use crate::addr::{PAGE_SHIFT, PAGE_SIZE, VirtAddr};
use crate::hal::level::Level;
use crate::hal::mmu::{Asid, WalkDepth};

/// An invalidation that was issued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TlbOp {
    pub(super) what: Reach,
    /// `None` for the all-ASID forms.
    pub(super) asid: Option<Asid>,
    pub(super) depth: WalkDepth,
}

/// Which addresses an invalidation reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    /// Entries that translate one address; with a level hint only those of that level.
    Address(VirtAddr, Option<Level>),
    /// Entries that translate some address from the first to the last.
    Span(VirtAddr, VirtAddr),
    /// All.
    Everything,
}

/// The address of page number `page`, whose highest of `bits` bits is the sign.
fn sign_extend(page: u64, bits: u32) -> VirtAddr {
    let negative = page >> (bits - 1) & 1 == 1;
    VirtAddr::new((page | if negative { u64::MAX << bits } else { 0 }) << PAGE_SHIFT)
}

fn asid_field(operand: u64) -> Asid {
    let [.., low, high] = operand.to_le_bytes();
    Asid::new(u16::from_le_bytes([low, high]))
}

impl TlbOp {
    /// `TLBI V*AE1IS`; `one_asid` tells `VAE1IS` from `VAAE1IS`.
    pub(super) fn by_address(operand: u64, one_asid: bool, depth: WalkDepth) -> Self {
        let level = match operand >> 44 & 0xf {
            0b0101 => Some(Level::Pud),
            0b0110 => Some(Level::Pmd),
            0b0111 => Some(Level::Pte),
            _ => None,
        };
        let addr = sign_extend(operand & 0xfff_ffff_ffff, 44);
        Self { what: Reach::Address(addr, level), asid: one_asid.then(|| asid_field(operand)), depth }
    }

    /// `TLBI RV*AE1IS`; `None` if the granule is not 4 KiB, upon which a CPU need not do anything.
    pub(super) fn by_range(operand: u64, one_asid: bool, depth: WalkDepth) -> Option<Self> {
        if operand >> 46 & 0b11 != 0b01 {
            return None;
        }
        let (scale, num) = (operand >> 44 & 0b11, operand >> 39 & 0b1_1111);
        let pages = (num + 1) << (5 * scale + 1);
        let first = sign_extend(operand & 0x1f_ffff_ffff, 37);
        let last = VirtAddr::new(first.get().saturating_add(pages * PAGE_SIZE - 1));
        Some(Self { what: Reach::Span(first, last), asid: one_asid.then(|| asid_field(operand)), depth })
    }

    /// `TLBI ASIDE1IS`.
    pub(super) fn by_asid(operand: u64) -> Self {
        Self { what: Reach::Everything, asid: Some(asid_field(operand)), depth: WalkDepth::AnyLevel }
    }

    /// `TLBI VMALLE1IS`.
    pub(super) const EVERYTHING: Self = Self { what: Reach::Everything, asid: None, depth: WalkDepth::AnyLevel };
}
