//! Random bits for the slab allocator, unknown outside the machine.

use crate::arch::aarch64::cpu;
use crate::arch::aarch64::features::IdRegisters;
use crate::fdt::Tree;
use crate::global;
use ::log::info;
use aarch64_cpu::registers::CNTPCT_EL0;
use tock_registers::interfaces::Readable;

/// Collects the random bits of the boot loader, the CPU and the clock. Boot CPU, before the first objects.
pub(super) fn add_entropy(tree: &Tree<'_>) {
    let mut bits = 0;
    if let Some(chosen) = tree.chosen() {
        let words = chosen.rng_seed().unwrap_or_default().as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
        for seed in words.chain(chosen.kaslr_seed()) {
            global::add_entropy(seed);
            bits += u64::BITS;
        }
    }
    if let Some(random) = cpu::random(&IdRegisters::read()) {
        global::add_entropy(random);
        bits += u64::BITS;
    }
    // Few bits, but different from boot to boot on a machine without better sources.
    global::add_entropy(CNTPCT_EL0.get());
    info!("entropy: {bits} bits of seed");
}
