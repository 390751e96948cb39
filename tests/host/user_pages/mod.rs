//! The pages of user spaces, on a machine whose TLBs keep what they have.
#![expect(
    clippy::indexing_slicing,
    reason = "a test's own helpers panic as the test does; clippy knows only #[test] for one"
)]

mod faults;
mod fork;
mod machine;
mod model;
mod moves;
mod ranges;
