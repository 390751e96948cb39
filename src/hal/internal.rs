//! Who calls what a machine does to memory.

/// What the allocators alone have. A method of a machine that takes it changes memory, by an address that its caller answers for;
/// so nobody else can call it, although a machine can be reached from everywhere. It costs nothing.
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
    /// This crate calls.
    pub(crate) const CALL: Self = Self(());

    /// Somebody else plays the allocator: a test, or a measurement.
    ///
    /// # Safety
    ///
    /// The caller answers for all memory that it names together with it, as an allocator does for its own.
    #[must_use]
    pub const unsafe fn promised() -> Self {
        Self(())
    }
}
