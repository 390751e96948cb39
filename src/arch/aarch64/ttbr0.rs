//! The lower half of the address space on this CPU: which process's tables it walks, and under which number.
//!
//! `TCR_EL1.A1` is zero, so the ASID is that of `TTBR0_EL1`, and one write changes tables and number together. It takes effect at
//! the next context synchronisation: an ISB here, so that the next access of the lower half, by a user copy, is that of the
//! new process. (A kernel that goes straight to EL0 has one in the ERET.) `CnP` stays 0: each CPU has entries of its own.

use super::at;
use crate::addr::{PhysAddr, VirtAddr};
use crate::hal::mmu::Asid;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

/// The bits of the table's address.
const BADDR: u64 = 0x0000_ffff_ffff_fffe;
/// `TCR_EL1.A1`: the ASID is that of `TTBR1_EL1`.
const A1: u64 = 1 << 22;
/// `TCR_EL1.EPD0`: `TTBR0_EL1` is not walked.
const EPD0: u64 = 1 << 7;
/// `TCR_EL1.T0SZ`, and what it is for 48 bits.
const T0SZ: (u64, u64) = (0x3f, 16);
/// `TCR_EL1.TG0`, which is 0 for pages of 4 KiB.
const TG0: u64 = 0b11 << 14;
/// `TCR_EL1.AS`: ASIDs have 16 bits.
const AS: u64 = 1 << 36;

/// The empty table, where the boot stub has none: aligned to a page, and never written.
#[cfg(not(feature = "boot"))]
#[repr(align(4096))]
struct EmptyTable([u64; 512]);

#[cfg(not(feature = "boot"))]
static EMPTY_TABLE: EmptyTable = EmptyTable([0; 512]);

/// Its physical address, once that is known.
static EMPTY: AtomicU64 = AtomicU64::new(0);

/// The configuration of the lower half, as the registers have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LowerHalf {
    /// Whether it is translated as this crate's user tables are: 48 bits, pages of 4 KiB, by `TTBR0_EL1` and its ASID.
    pub is_usable: bool,
    /// Whether ASIDs have 16 bits, and not 8.
    pub wide_asids: bool,
}

/// The configuration in this CPU's registers.
#[must_use]
pub fn lower_half() -> LowerHalf {
    use aarch64_cpu::registers::{Readable, TCR_EL1};
    let tcr = TCR_EL1.get();
    LowerHalf { is_usable: tcr & (A1 | EPD0 | T0SZ.0 | TG0) == T0SZ.1, wide_asids: tcr & AS != 0 }
}

#[cfg(feature = "boot")]
fn empty_table() -> VirtAddr {
    super::boot::empty_table()
}

#[cfg(not(feature = "boot"))]
fn empty_table() -> VirtAddr {
    VirtAddr::of(&raw const EMPTY_TABLE.0)
}

/// The table that translates nothing. Any context.
#[must_use]
#[inline]
pub fn empty() -> PhysAddr {
    match EMPTY.load(Ordering::Relaxed) {
        0 => find_empty(),
        known => PhysAddr::new(known),
    }
}

#[cold]
fn find_empty() -> PhysAddr {
    // The image is mapped; without it nothing runs here.
    let phys = at::translate(empty_table()).map_or(PhysAddr::ZERO, |par| par.phys);
    EMPTY.store(phys.get(), Ordering::Relaxed);
    phys
}

/// Makes this CPU translate the lower half by the tables at `root`, under `asid`.
///
/// # Safety
///
/// `root` is the root of user tables of this crate's format, which are not freed before each CPU that has them here has others.
/// No other tables have the number `asid`, as long as interrupts stay masked since `mm::user::asid` answered with it.
#[inline(always)]
pub unsafe fn set(root: PhysAddr, asid: Asid) {
    let value = u64::from(asid.get()) << 48 | root.get();
    // SAFETY: by `# Safety` the tables outlive their use here; the kernel's own accesses to the lower half expect to fault.
    unsafe { asm!("msr ttbr0_el1, {}", "isb", in(reg) value, options(nostack, preserves_flags)) };
}

/// Makes the lower half of this CPU empty: it runs no process. Any context.
#[inline]
pub fn set_empty() {
    // SAFETY: the empty table is there for good, and number 0 is its own.
    unsafe { set(empty(), Asid::new(0)) };
}

/// The tables and the number that this CPU has. Any context.
#[must_use]
pub fn get() -> (PhysAddr, Asid) {
    use aarch64_cpu::registers::{Readable, TTBR0_EL1};
    let value = TTBR0_EL1.get();
    let [.., low, high] = value.to_le_bytes();
    (PhysAddr::new(value & BADDR), Asid::new(u16::from_le_bytes([low, high])))
}

/// Drops every translation that this CPU alone holds, and waits for that.
pub fn flush_local() {
    // SAFETY: dropping translations is always allowed; they are walked anew.
    unsafe { asm!("dsb nshst", "tlbi vmalle1", "dsb nsh", "isb", options(nostack, preserves_flags)) };
}

/// Earlier stores are seen by every CPU before this one walks tables that it changes to from now on.
pub fn order_before_walks() {
    // SAFETY: a barrier has no effect that Rust can see.
    unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
}
