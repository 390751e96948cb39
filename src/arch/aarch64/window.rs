//! The way by which page-table code reaches a frame.

use crate::addr::PhysAddr;
use core::ptr::NonNull;

/// A way to reach table frames.
///
/// # Safety
///
/// [`TableWindow::window`] returns a pointer to the frame's 4 KiB, mapped readable and writable as write-back memory,
/// aligned to 4 KiB, and valid until the next call on the same value.
pub unsafe trait TableWindow {
    /// Address at which the frame `table` can be accessed.
    ///
    /// # Safety
    ///
    /// `table` is a frame of RAM that this window can reach.
    unsafe fn window(&self, table: PhysAddr) -> NonNull<u64>;
}
