//! Drivers of real devices on QEMU's `virt`: fw_cfg, a source of random numbers, and a disk through the crate
//! `virtio-drivers`. Begin with `rng.rs`, which is one whole driver; docs/drivers.md walks through it.
//!
//! `cargo build --target aarch64-unknown-none-softfloat` here, then, with a file DISK of 1 MiB:
//!
//! ```text
//! qemu-system-aarch64 -machine virt -cpu cortex-a72 -m 3G -global virtio-mmio.force-legacy=false -device virtio-rng-device
//!     -drive if=none,format=raw,id=disk,file=DISK -device virtio-blk-device,drive=disk,queue-size=256 -nographic -kernel …
//! ```
#![no_std]
#![no_main]

mod console;
mod disk;
mod fw_cfg;
mod gic;
mod rng;
mod virtio;

use console::say;
use quarry::boot::Booted;
use quarry::global::ThisKernel;
use quarry::mm::fault_inject::{MayRecover, fail_every};

struct Kernel;
// SAFETY: one CPU; the boot stub's final tables map all RAM at the usual offset.
unsafe impl quarry::Machine for Kernel {}
quarry::machine!(Kernel);
quarry::entry!(main);

fn main(booted: &'static Booted) -> ! {
    let tree = &booted.tree;
    console::open();
    quarry::global::dma_init(None).expect("the first call");
    quarry::global::dma_debug(512).expect("memory for the checks");
    gic::init(tree).expect("a GICv2");

    let fw_cfg = tree.find_by(|node| node.is_compatible("qemu,fw-cfg-mmio")).expect("virt has one");
    fw_cfg::run(fw_cfg).expect("fw_cfg");
    let (mut sources, mut disks) = (0, 0);
    for node in tree.nodes().filter(|node| node.is_compatible("virtio,mmio") && node.is_available()) {
        match virtio::identify(node) {
            Ok(virtio::ENTROPY) => {
                let sum = rng::run(node).expect("a source of random numbers");
                say!("rng: 128 random bytes ({sum:016x}) in 2 buffers, {} interrupts\n", rng::interrupts());
                sources += 1;
                // Every allocation of the probe fails once: it undoes what it began, in reverse.
                let rounds =
                    fail_every(&ThisKernel, MayRecover::Yes, || rng::run(node), drop).expect("all is given back");
                say!("rng: {} failed probes left nothing\n", rounds.points - rounds.recovered);
                assert!(rounds.points > 5);
            }
            Ok(virtio::BLOCK) => {
                disk::run(node).expect("a disk");
                disks += 1;
            }
            Ok(_) => {}
            Err(error) => say!("driver: {}: {error}\n", node.name()),
        }
    }
    assert!(sources == 1 && disks == 1, "{sources} sources of random numbers, {disks} disks");

    // The devices are gone: nothing of what they had is left.
    assert_eq!(quarry::global::bounce_stats().used, 0);
    quarry::global::check_dma().expect("DMA is sound");
    quarry::check_all(&mut |part, sound| assert!(sound.is_ok(), "{part}"));
    say!("driver: all given back, all invariants hold\n");
    console::power_off()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    say!("driver: {info}\n");
    console::power_off()
}
