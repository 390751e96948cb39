//! Memory as a picture of text: a cell is a block of addresses, and its colour or letter the use of most of it.
//!
//! Everything here is computed from ranges and their uses, and written to any [`Write`](core::fmt::Write): the commands of the
//! prompt hand in the machine's memory, and the host tests any.
#![forbid(unsafe_code)]

mod bar;
mod canvas;
mod ink;
mod largest;
mod legend;
mod overlay;
mod sizes;
mod style;
mod uses;

pub use bar::Bar;
pub use canvas::{Band, COLUMNS, Canvas};
pub use ink::Ink;
pub use largest::Largest;
pub use legend::Legend;
pub use overlay::Overlay;
pub use sizes::Exact;
pub use style::Style;
pub use uses::{Ram, Use};
