//! The count of what a check found.
#![forbid(unsafe_code)]

use core::ops::AddAssign;

/// Number of errors and repairs. Linux counts both as errors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Findings {
    /// Reports.
    pub bugs: u32,
    /// Repairs.
    pub fixes: u32,
}

impl Findings {
    /// Both together: what Linux's `slub_kunit` counts.
    #[must_use]
    pub const fn errors(self) -> u32 {
        self.bugs + self.fixes
    }
}

impl AddAssign for Findings {
    fn add_assign(&mut self, other: Self) {
        self.bugs += other.bugs;
        self.fixes += other.fixes;
    }
}
