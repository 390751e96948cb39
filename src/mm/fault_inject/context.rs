//! Requesting contexts, as far as fault injection tells them apart.

use crate::addr::CpuId;

/// A number for the running context: a CPU where there are no threads, a thread where there are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FaultContext(u32);

impl FaultContext {
    /// An interrupt handler: no number of calls is counted for it, and no filter names it.
    pub const INTERRUPT: Self = Self(u32::MAX);

    /// The context with this number, of which `u32::MAX` is [`FaultContext::INTERRUPT`].
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// All code on this CPU except interrupt handlers.
    #[must_use]
    pub const fn of_cpu(cpu: CpuId) -> Self {
        Self(cpu.get())
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}
