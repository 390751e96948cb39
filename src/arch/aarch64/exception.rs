//! What an exception leaves, as far as the code of this crate looks at it or changes it: whatever frame a kernel's vectors
//! make, it is seen through this.
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
    /// `ESR_EL1`.
    pub esr: Esr,
    /// `FAR_EL1`.
    pub far: VirtAddr,
}
