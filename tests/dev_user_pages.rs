#![expect(clippy::unwrap_used, reason = "tests")]
macro_rules! raw {
    ($call:expr) => {{
        // SAFETY: tests
        unsafe { $call }
    }};
}
#[path = "host/random.rs"]
mod random;
#[path = "host/user_map/mod.rs"]
mod user_map;
#[path = "host/user_pages/mod.rs"]
mod user_pages;
