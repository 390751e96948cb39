//! The fuzz target's histories of DMA, with random bytes and on lines of all sizes.

use super::machine::{on_a_machine, ram};
use crate::alloc::TheSystem;
use crate::random::Random;

#[path = "../../../fuzz/fuzz_targets/dma/history.rs"]
mod body;

// Behaviours 299, 309, 314, 315, 316, 317 and 321
#[test]
fn any_bytes_are_a_history_that_agrees_with_the_model() {
    for seed in 0..if cfg!(miri) { 1 } else { 24 } {
        let mut random = Random(seed * 2 + 1);
        let length = if cfg!(miri) { 60 } else { 3000 };
        let data: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
        on_a_machine([16, 32, 64, 128][seed as usize % 4], seed, |dma| {
            dma.set_up_bounce(8).unwrap();
            body::run::<_, TheSystem>(dma, ram(dma), &data);
        });
    }
}
