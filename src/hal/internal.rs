//! Who calls what a machine does to memory.
#![forbid(unsafe_code)]

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

    /// A test plays the allocator, on a machine of its own.
    #[cfg(feature = "host")]
    #[must_use]
    pub const fn of_test() -> Self {
        Self(())
    }
}
