//! Many pages in a row: a range is isolated, its owners move their pages out of it, and it is taken as a whole.
#![forbid(unsafe_code)]

mod cma;
mod contig;
mod migrate;

pub use cma::{CmaArea, CmaUsage};
pub use migrate::Mover;

pub(super) use cma::contiguous_run;
pub(super) use contig::{is_cma, page_blocks};
