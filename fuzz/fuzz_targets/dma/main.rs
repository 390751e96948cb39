//! Any bytes as a history of DMA: `history.rs`, which `make test` runs with random bytes.
#![no_main]

mod history;
mod machine;
#[path = "../kmalloc/machine.rs"]
#[expect(dead_code, reason = "the memory of that machine, without its slabs")]
mod memory;
#[path = "../../../tests/host/alloc/system.rs"]
mod system;

use libfuzzer_sys::fuzz_target;
use system::TheSystem;

fuzz_target!(|data: &[u8]| {
    let dma = machine::dma();
    history::run::<_, TheSystem>(dma, &dma.hal().ram, data);
});
