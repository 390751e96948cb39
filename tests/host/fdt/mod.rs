//! Device-tree reading: real trees with known answers, made trees for each rule, damaged trees.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "in a test a panic is the answer"
)]

mod builder;
mod corpus;
mod damage;
mod devices;
mod dma;
mod memory;
mod mutation;
mod nops;

pub(super) use builder::{Builder, corpus_tree};
