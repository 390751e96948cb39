//! Starting the slab allocator: what the boot arguments and the boot loader say about it.

use super::bootargs::BootArgs;
use super::symbol::Symbol;
use crate::arch::aarch64::features::IdRegisters;
use crate::arch::aarch64::{cpu, rseq};
use crate::fdt::Tree;
use crate::instance;
use crate::mm::slab::{CreateError, SlabOptions};
use ::log::info;
use aarch64_cpu::registers::CNTPCT_EL0;
use core::fmt::Display;
use tock_registers::interfaces::Readable;

/// Makes the first caches. Boot CPU, once, when the page allocator is up.
pub(super) fn init(tree: &Tree<'_>, args: BootArgs<'static>) -> Result<(), CreateError> {
    let mut bits = 0;
    if let Some(chosen) = tree.chosen() {
        let words = chosen.rng_seed().unwrap_or_default().as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
        for seed in words.chain(chosen.kaslr_seed()) {
            instance::add_entropy(seed);
            bits += u64::BITS;
        }
    }
    if let Some(random) = cpu::random(&IdRegisters::read()) {
        instance::add_entropy(random);
        bits += u64::BITS;
    }
    // Little, but different from boot to boot on a machine that tells nothing.
    instance::add_entropy(CNTPCT_EL0.get());
    // Linux called it by the second name until 6.9.
    let debug = args.words().filter(|word| matches!(word.name, "slab_debug" | "slub_debug")).last();
    let debug = debug.map(|word| word.value.unwrap_or_default());
    instance::set_code_printer(|at, f| Symbol::of_return_address(at).fmt(f));
    instance::start_slabs(SlabOptions {
        debug,
        init_on_alloc: args.switch("init_on_alloc"),
        init_on_free: args.switch("init_on_free"),
        panic_on_misuse: args.switch("panic_on_warn"),
    })?;
    let (sequences, loads) = rseq::init();
    info!("slab: kmalloc up, {bits} bits of seed, {sequences} restartable sequences, {loads} loads that may fault");
    Ok(())
}
