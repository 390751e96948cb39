//! Device registers: single loads and stores, and the barriers that order them with memory.

use crate::addr::VirtAddr;
use crate::hal::io::{IoBus, IoWord, Width};
use core::arch::asm;

/// Registers that are mapped as Device or Normal memory, reached by LDR and STR with a base register and nothing else:
/// the only forms that the syndrome of an abort describes, so that a hypervisor can emulate the device (Arm ARM
/// D17.2.37).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mmio;

// SAFETY: each arm is one instruction of the word's width, without pair or writeback.
unsafe impl IoBus for Mmio {
    #[inline(always)]
    unsafe fn load<W: IoWord>(&self, at: VirtAddr) -> W {
        let at = at.get();
        let bits: u64;
        match W::WIDTH {
            // SAFETY: `IoBus::load`: `at` is mapped, a multiple of the width, and reading it does no harm.
            Width::Byte => unsafe {
                asm!("ldrb {bits:w}, [{at}]", at = in(reg) at, bits = out(reg) bits, options(nostack, preserves_flags));
            },
            // SAFETY: `IoBus::load`, on `at` and this width.
            Width::Half => unsafe {
                asm!("ldrh {bits:w}, [{at}]", at = in(reg) at, bits = out(reg) bits, options(nostack, preserves_flags));
            },
            // SAFETY: `IoBus::load`, on `at` and this width.
            Width::Word => unsafe {
                asm!("ldr {bits:w}, [{at}]", at = in(reg) at, bits = out(reg) bits, options(nostack, preserves_flags));
            },
            // SAFETY: `IoBus::load`, on `at` and this width.
            Width::Double => unsafe {
                asm!("ldr {bits}, [{at}]", at = in(reg) at, bits = out(reg) bits, options(nostack, preserves_flags));
            },
        }
        W::from_bits(bits)
    }

    #[inline(always)]
    unsafe fn store<W: IoWord>(&self, at: VirtAddr, value: W) {
        let (at, bits) = (at.get(), value.to_bits());
        match W::WIDTH {
            // SAFETY: `IoBus::store`: `at` is mapped, a multiple of the width, and writing it does no harm.
            Width::Byte => unsafe {
                asm!("strb {bits:w}, [{at}]", at = in(reg) at, bits = in(reg) bits, options(nostack, preserves_flags));
            },
            // SAFETY: `IoBus::store`, on `at` and this width.
            Width::Half => unsafe {
                asm!("strh {bits:w}, [{at}]", at = in(reg) at, bits = in(reg) bits, options(nostack, preserves_flags));
            },
            // SAFETY: `IoBus::store`, on `at` and this width.
            Width::Word => unsafe {
                asm!("str {bits:w}, [{at}]", at = in(reg) at, bits = in(reg) bits, options(nostack, preserves_flags));
            },
            // SAFETY: `IoBus::store`, on `at` and this width.
            Width::Double => unsafe {
                asm!("str {bits}, [{at}]", at = in(reg) at, bits = in(reg) bits, options(nostack, preserves_flags));
            },
        }
    }

    /// DMB OSHLD: no later access overtakes the load. And a branch that depends on the value: instructions that are no
    /// accesses, such as a read of the system counter, wait for it too (Linux: `__io_ar`, arch/arm64/include/asm/io.h).
    #[inline(always)]
    fn order_after_load<W: IoWord>(&self, value: W) {
        // SAFETY: barriers and a branch to the next instruction.
        unsafe {
            asm!(
                "dmb oshld",
                "eor {zero}, {value}, {value}",
                "cbnz {zero}, .",
                zero = out(reg) _,
                value = in(reg) value.to_bits(),
                options(nostack, preserves_flags),
            );
        }
    }

    /// DMB OSHST: earlier writes to memory are visible when the device sees the store (Linux: `__io_bw`).
    #[inline(always)]
    fn order_before_store(&self) {
        // SAFETY: a barrier.
        unsafe { asm!("dmb oshst", options(nostack, preserves_flags)) };
    }
}
