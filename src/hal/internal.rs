//! The capability to call a machine's methods that change memory.

/// Only the allocators can make this. Each method of a machine that changes memory by an address takes it, since the caller
/// answers for the address; so no other code can call such a method, although every caller can reach a machine. It has no size
/// and costs nothing.
///
/// ```compile_fail,E0423
/// use quarry::hal::Internal;
/// use quarry::mm::zone::PageHal;
/// use quarry::single::OneCpu;
///
/// OneCpu::new().zero(Internal(()), quarry::addr::PhysAddr::new(0x1000), 1);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Internal(());

impl Internal {
    /// This crate is the caller.
    pub(crate) const CALL: Self = Self(());

    /// Another caller plays the allocator: a test, or a measurement.
    ///
    /// # Safety
    ///
    /// The caller answers for all memory that it names together with it, as an allocator does for its own.
    #[must_use]
    pub const unsafe fn promised() -> Self {
        Self(())
    }
}
