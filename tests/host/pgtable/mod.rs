//! Page tables: descriptors and operands by arithmetic, everything else on the simulated machine.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test's own helpers panic as the test does; clippy knows only #[test] for one"
)]

mod change;
mod descriptor;
mod errors;
mod failing;
mod faulty;
mod flush;
mod machine;
mod mapping;
mod model;
mod operand;
mod report;
mod rig;
mod split;
mod unit;
mod unkind;
mod walkers;
