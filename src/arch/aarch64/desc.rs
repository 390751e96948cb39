//! Stage 1 descriptors of VMSAv8-64: 4 KiB granule, 48-bit addresses (Arm ARM D8.3, "Translation table descriptor
//! formats"). Pure arithmetic; nothing here touches memory.
//!
//! ```text
//!  63    59 58   55 54  53  52  51  50  49 48 47              12 11 10  9  8  7  6  5  4   2 1 0
//! ┌────────┬───────┬───┬───┬───┬───┬───┬─────┬──────────────────┬──┬──┬─────┬─────┬──┬──────┬───┐
//! │  PBHA  │ soft  │UXN│PXN│Con│DBM│GP │  0  │  output address  │nG│AF│ SH  │ AP  │NS│ Attr │typ│
//! └────────┴───────┴───┴───┴───┴───┴───┴─────┴──────────────────┴──┴──┴─────┴─────┴──┴──────┴───┘
//! ```
//!
//! Dirty state is kept as Linux keeps it. A writable leaf has DBM; it is clean while `AP[2]` says read-only, and the
//! first write clears that bit: the CPU where FEAT_HAFDBS is on, the fault handler elsewhere. A dirty leaf that is then
//! write-protected remembers the fact in a software bit.
#![forbid(unsafe_code)]

use crate::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn, PhysAddr, to_usize};
use crate::hal::entry::{Defect, Entry, EntryFormat, Leaf, RawEntry};
use crate::hal::level::{ENTRIES, LeafLevel, Level};
use crate::hal::prot::{Access, MemoryType, Privilege, Prot};

/// Bit 0: walkers use the entry.
pub const VALID: u64 = 1 << 0;
/// Bit 1: a table above the last level, a page at the last one; clear for a block.
pub(crate) const TABLE_OR_PAGE: u64 = 1 << 1;
/// Bits 4:2, `AttrIndx`: the slot of `MAIR_EL1`.
pub(crate) const ATTR_SHIFT: u32 = 2;
/// Bit 6, `AP[1]`: EL0 may access.
pub(crate) const AP_EL0: u64 = 1 << 6;
/// Bit 7, `AP[2]`: read-only.
pub const AP_READ_ONLY: u64 = 1 << 7;
/// Bits 9:8, `SH`: inner shareable. Ignored for Device and Non-cacheable memory, and written all the same.
pub(crate) const SH_INNER: u64 = 0b11 << 8;
/// Bit 10, `AF`: accessed; the first use of an entry without it faults.
pub const ACCESSED: u64 = 1 << 10;
/// Bit 11, `nG`: belongs to one address space number.
pub(crate) const NOT_GLOBAL: u64 = 1 << 11;
/// Bits 47:12: the output address.
pub const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
/// Bit 51, `DBM`: writable; the CPU may clear `AP[2]` on the first write.
pub const DBM: u64 = 1 << 51;
/// Bit 52: one of sixteen neighbours that the TLB may hold as one (Arm ARM D8.7.1).
pub const CONTIGUOUS: u64 = 1 << 52;
/// Bit 53, `PXN`: EL1 never executes.
pub const PXN: u64 = 1 << 53;
/// Bit 54, `UXN`: EL0 never executes.
pub const UXN: u64 = 1 << 54;
/// Bit 55, for software: written while it was writable.
pub const SOFT_DIRTY: u64 = 1 << 55;

/// Bit 58, for software, alone in an invalid entry: a page not to be used.
const GUARD: u64 = 1 << 58;
/// Bit 57, for software, in an invalid entry that has all else of a leaf: memory that nobody may access for now.
const PARKED: u64 = 1 << 57;

/// Bits that a leaf may have besides its output address.
const LEAF_BITS: u64 = VALID
    | TABLE_OR_PAGE
    | 0b111 << ATTR_SHIFT
    | AP_EL0
    | AP_READ_ONLY
    | SH_INNER
    | ACCESSED
    | NOT_GLOBAL
    | DBM
    | CONTIGUOUS
    | PXN
    | UXN
    | SOFT_DIRTY;

/// `NSTable`, `APTable`, `UXNTable`, `PXNTable`: bits 63:59 of a table descriptor.
const TABLE_ATTRIBUTES: u64 = 0b1_1111 << 59;

/// Bits 11:2 of a table descriptor, which walkers ignore (Arm ARM D8.3.1; one of them is an access flag where
/// `TCR2_EL1.HAFT` says so, which nobody sets): a number of software's.
const LIVE: u64 = 0x3ff << LIVE_SHIFT;
const LIVE_SHIFT: u32 = 2;
const _: () = assert!(ENTRIES as u64 <= LIVE >> LIVE_SHIFT, "all entries of a table can be counted");

/// The stage 1 format of EL1&0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stage1;

/// The bits that `prot` stands for.
const fn attributes(prot: Prot) -> u64 {
    let executable = match prot.privilege() {
        Privilege::Kernel => UXN,
        Privilege::User => PXN | AP_EL0,
    };
    let access = match prot.access() {
        Access::Execute => executable | AP_READ_ONLY,
        Access::ReadOnly if prot.is_dirty() => executable | PXN | UXN | AP_READ_ONLY | SOFT_DIRTY,
        Access::ReadOnly => executable | PXN | UXN | AP_READ_ONLY,
        Access::ReadWrite if prot.is_dirty() => executable | PXN | UXN | DBM,
        Access::ReadWrite => executable | PXN | UXN | DBM | AP_READ_ONLY,
    };
    let accessed = if prot.is_accessed() { ACCESSED } else { 0 };
    let scope = if prot.is_global() { 0 } else { NOT_GLOBAL };
    access | accessed | scope | SH_INNER | (prot.memory().index() as u64) << ATTR_SHIFT
}

const fn has(raw: u64, bit: u64) -> bool {
    raw & bit != 0
}

/// Decodes the attribute bits of a leaf, or says why they are none that this code writes.
fn protection(raw: u64) -> Result<Prot, Defect> {
    let user = has(raw, AP_EL0);
    let writable = has(raw, DBM) || !has(raw, AP_READ_ONLY);
    let (executable, other_may_execute) =
        if user { (!has(raw, UXN), !has(raw, PXN)) } else { (!has(raw, PXN), !has(raw, UXN)) };
    let memory = MemoryType::from_index(to_usize(raw >> ATTR_SHIFT).to_le_bytes()[0]);
    if writable && (executable || other_may_execute) {
        return Err(Defect::WritableExecutable);
    }
    if other_may_execute {
        return Err(if user { Defect::UserWithoutPxn } else { Defect::KernelWithoutUxn });
    }
    if executable && memory.is_device() {
        return Err(Defect::ExecutableDevice);
    }
    if raw & SH_INNER != SH_INNER {
        return Err(Defect::Shareability);
    }
    let (access, dirty) = match (writable, executable) {
        (true, _) => (Access::ReadWrite, !has(raw, AP_READ_ONLY)),
        (false, true) => (Access::Execute, false),
        (false, false) => (Access::ReadOnly, has(raw, SOFT_DIRTY)),
    };
    let prot = if user { Prot::user(access) } else { Prot::kernel(access) };
    let prot = prot.with_dirty(dirty).with_accessed(has(raw, ACCESSED)).with_global(!has(raw, NOT_GLOBAL));
    prot.with_memory(memory).map_err(|_| Defect::ExecutableDevice)
}

impl EntryFormat for Stage1 {
    const OUTPUT_END: u64 = ADDRESS + PAGE_SIZE;
    const GUARD: RawEntry = RawEntry::new(GUARD);
    const LIVE: RawEntry = RawEntry::new(1 << LIVE_SHIFT);

    #[inline]
    fn attributes(prot: Prot) -> RawEntry {
        RawEntry::new(attributes(prot))
    }

    #[inline]
    fn leaf_with(attributes: RawEntry, level: LeafLevel, phys: PhysAddr, contiguous: bool) -> RawEntry {
        debug_assert!(phys.is_aligned(level.size()), "output address not a multiple of the leaf's size");
        let kind = if matches!(level, LeafLevel::Pte) { VALID | TABLE_OR_PAGE } else { VALID };
        let group = if contiguous { CONTIGUOUS } else { 0 };
        RawEntry::new(phys.get() & ADDRESS | attributes.get() | kind | group)
    }

    #[inline]
    fn table(table: PhysAddr) -> RawEntry {
        RawEntry::new(table.get() & ADDRESS | VALID | TABLE_OR_PAGE)
    }

    #[inline(always)]
    fn live(entry: RawEntry) -> usize {
        to_usize((entry.get() & LIVE) >> LIVE_SHIFT)
    }

    fn decode(level: Level, entry: RawEntry) -> Entry {
        let raw = entry.get();
        if raw == 0 {
            return Entry::Absent;
        }
        if raw == GUARD && matches!(level, Level::Pte) {
            return Entry::Guard;
        }
        if !has(raw, VALID) {
            return match Self::decode(level, RawEntry::new(raw & !PARKED | VALID)) {
                Entry::Leaf(leaf) if has(raw, PARKED) && !leaf.contiguous => Entry::Parked(leaf),
                _ => Entry::Malformed(Defect::Leftover),
            };
        }
        let phys = PhysAddr::new(raw & ADDRESS);
        let leaf = match (level.leaf(), has(raw, TABLE_OR_PAGE)) {
            (None | Some(LeafLevel::Pud | LeafLevel::Pmd), true) => {
                return match raw & !(ADDRESS | LIVE | VALID | TABLE_OR_PAGE) {
                    0 => Entry::Table(phys),
                    extra if has(extra, TABLE_ATTRIBUTES) => Entry::Malformed(Defect::TableAttributes),
                    _ => Entry::Malformed(Defect::ReservedBits),
                };
            }
            (Some(level @ LeafLevel::Pte), true) | (Some(level @ (LeafLevel::Pud | LeafLevel::Pmd)), false) => level,
            (None | Some(LeafLevel::Pte), false) => return Entry::Malformed(Defect::BadType),
        };
        match protection(raw) {
            Err(defect) => Entry::Malformed(defect),
            Ok(_) if has(raw, !(ADDRESS | LEAF_BITS)) || !phys.is_aligned(leaf.size()) => {
                Entry::Malformed(Defect::ReservedBits)
            }
            Ok(prot) => Entry::Leaf(Leaf { phys, level: leaf, prot, contiguous: has(raw, CONTIGUOUS) }),
        }
    }

    #[inline]
    fn next_table(entry: RawEntry) -> Option<PhysAddr> {
        const TABLE: u64 = VALID | TABLE_OR_PAGE;
        (entry.get() & TABLE == TABLE).then_some(PhysAddr::new(entry.get() & ADDRESS))
    }

    #[inline]
    fn is_valid(entry: RawEntry) -> bool {
        has(entry.get(), VALID)
    }

    #[inline]
    fn invalidate(entry: RawEntry) -> RawEntry {
        RawEntry::new(entry.get() & !VALID)
    }

    #[inline]
    fn revalidate(entry: RawEntry) -> RawEntry {
        RawEntry::new(entry.get() | VALID)
    }

    #[inline]
    fn park(leaf: RawEntry) -> RawEntry {
        RawEntry::new(leaf.get() & !(VALID | CONTIGUOUS) | PARKED)
    }

    #[inline]
    fn is_parked(entry: RawEntry) -> bool {
        entry.get() & (VALID | PARKED) == PARKED
    }

    #[inline(always)]
    fn frame_of(entry: RawEntry) -> Pfn {
        Pfn::new((entry.get() & ADDRESS) >> PAGE_SHIFT)
    }

    #[inline]
    fn is_contiguous(entry: RawEntry) -> bool {
        has(entry.get(), CONTIGUOUS)
    }

    #[inline]
    fn with_contiguous(entry: RawEntry, contiguous: bool) -> RawEntry {
        let plain = entry.get() & !CONTIGUOUS;
        RawEntry::new(if contiguous { plain | CONTIGUOUS } else { plain })
    }
}
