//! A bar that fills while something takes its time. It moves by carriage returns, so that every terminal will do.
#![forbid(unsafe_code)]

use crate::kprint;

/// Characters of the bar.
const WIDTH: u64 = 40;

/// A bar on the console.
pub(super) struct Progress {
    title: &'static str,
    /// Characters that are full on the screen; none are before the first step.
    shown: Option<u64>,
}

impl Progress {
    /// A bar that is not shown yet.
    pub(super) const fn new(title: &'static str) -> Self {
        Self { title, shown: None }
    }

    /// Shows that `done` of `total` is done. Prints only if the bar changes.
    pub(super) fn show(&mut self, done: u64, total: u64) {
        let full = done.min(total).saturating_mul(WIDTH) / total.max(1);
        if self.shown == Some(full) {
            return;
        }
        self.shown = Some(full);
        kprint!("\r{} [", self.title);
        (0..full).for_each(|_| kprint!("#"));
        (full..WIDTH).for_each(|_| kprint!("."));
        kprint!("] {:3} %", full * 100 / WIDTH);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            kprint!("\n");
        }
    }
}
