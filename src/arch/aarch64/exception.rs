//! A view of an exception that fits the frame of any kernel's vectors: the registers that this crate reads or changes.
#![forbid(unsafe_code)]

use super::esr::Esr;
use crate::addr::VirtAddr;

/// A synchronous exception that was taken at EL1.
#[derive(Debug)]
pub struct Exception<'f> {
    /// x0 to x30 of the interrupted code, which are loaded on return.
    pub x: &'f mut [u64; 31],
    /// The instruction that is returned to: `ELR_EL1`.
    pub elr: &'f mut VirtAddr,
    /// The state of the interrupted code: `SPSR_EL1`.
    pub spsr: u64,
    /// `ESR_EL1`.
    pub esr: Esr,
    /// `FAR_EL1`.
    pub far: VirtAddr,
}
