//! The state that the vectors save when an exception is taken.
#![forbid(unsafe_code)]

use super::esr::Esr;
use super::exception::Exception;
use crate::addr::VirtAddr;
use core::mem::{offset_of, size_of};

/// The state of the interrupted code, as the vectors store it.
///
/// A handler may change the integer registers, `elr` and `spsr`; the vectors load them on return. `sp` is not loaded: the
/// frame lies on the stack that it describes.
#[repr(C, align(16))]
#[derive(Clone, Debug)]
pub struct TrapFrame {
    /// x0 to x30.
    pub x: [u64; 31],
    /// The stack pointer.
    pub sp: VirtAddr,
    /// The instruction that faulted or that was to be executed next.
    pub elr: VirtAddr,
    /// The processor state.
    pub spsr: u64,
    /// The syndrome; of no meaning for an interrupt.
    pub esr: Esr,
    /// The fault address, where `esr` says that there is one.
    pub far: VirtAddr,
    /// The frame record {x29, elr} that lets a backtrace walk through.
    pub(super) record: [u64; 2],
}

const _: () = assert!(offset_of!(TrapFrame, sp) == offset_of!(TrapFrame, x) + 31 * 8, "stored as a pair with x30");
const _: () = assert!(offset_of!(TrapFrame, spsr) == offset_of!(TrapFrame, elr) + 8, "stored as a pair");
const _: () = assert!(offset_of!(TrapFrame, far) == offset_of!(TrapFrame, esr) + 8, "stored as a pair");
const _: () = assert!(offset_of!(TrapFrame, record) + 16 == size_of::<TrapFrame>(), "the record ends the frame");
const _: () = assert!(size_of::<TrapFrame>() < 504, "every offset fits a load or store of a pair");

impl TrapFrame {
    /// The registers that the repair of a fault reads and changes.
    #[must_use]
    pub const fn exception(&mut self) -> Exception<'_> {
        Exception { x: &mut self.x, elr: &mut self.elr, spsr: self.spsr, esr: self.esr, far: self.far }
    }

    /// The address of the frame record, where a backtrace of the interrupted code starts after `elr`.
    #[must_use]
    pub const fn frame_pointer(&self) -> VirtAddr {
        let [.., fp, _lr] = self.x;
        VirtAddr::new(fp)
    }

    /// The link register.
    #[must_use]
    pub const fn link(&self) -> VirtAddr {
        let [.., lr] = self.x;
        VirtAddr::new(lr)
    }
}
