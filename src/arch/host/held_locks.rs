//! The locks that each thread holds, and the checks of them: on the host every thread plays a CPU.

use crate::sync::{HeldLocks, LockContext, LockHal};

/// Waits for a lock as a thread does that expects to get it at once.
#[derive(Clone, Copy, Debug)]
pub struct Spin;

/// Runs `f` with the locks that the running thread holds: the body of [`LockHal::with_held`] for ways of waiting of a test's
/// own.
pub fn with_held(f: &mut dyn FnMut(&HeldLocks, LockContext)) {
    thread_local! {
        static HELD: HeldLocks = {
            let held = HeldLocks::new();
            held.enforce(true);
            held
        };
    }
    // A thread that ends holds nothing that counts.
    let _ = HELD.try_with(|held| f(held, LockContext::Unknown));
}

impl LockHal for Spin {
    fn relax() {
        std::hint::spin_loop();
    }

    fn with_held(f: &mut dyn FnMut(&HeldLocks, LockContext)) {
        with_held(f);
    }
}
