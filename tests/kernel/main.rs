//! Kernel tests: one image, booted in QEMU by the runner (docs/testing.md).
#![no_std]
#![no_main]
#![expect(clippy::expect_used, reason = "a test fails by panicking; clippy knows only #[test] for one")]

extern crate alloc;

#[macro_use]
mod raw;

// The programs for EL0.
include!(concat!(env!("OUT_DIR"), "/programs.rs"));

mod account;
mod address_space;
mod asynchronous;
mod boot;
mod bring_up;
mod calls;
mod cma;
mod commands;
mod console;
mod cpus;
mod device_memory;
mod devres;
mod dma;
mod dma_benchmark;
mod errata;
mod families;
mod fault_injection;
mod faults;
mod harness;
mod interrupts;
mod io;
mod ioremap;
mod kmalloc;
mod latency;
mod locks;
mod map;
mod memory_routines;
mod mempool;
mod nested;
mod pages;
mod pagetable;
mod peak;
mod percpu;
mod pi_dma;
mod planted;
mod ports;
mod process;
mod prompt;
mod protection;
mod raw_face;
mod reclaim;
mod reserved;
mod resource;
mod run_user;
mod set_memory;
mod slab;
mod slab_bulk;
mod slab_debug;
mod slab_failing;
mod smp;
mod soak;
mod spaces;
mod stacks;
mod static_percpu;
mod step;
mod storm;
mod tags;
mod threads;
mod tour;
mod trees;
mod user;
mod user_devices;
mod user_mode;
mod vmalloc;
mod vmalloc_api;
mod vmalloc_linux;
mod whereabouts;
