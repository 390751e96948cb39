//! The reference kernel's image. Everything it does is in `quarry::kernel`.
#![no_std]
#![no_main]

// The programs for EL0.
include!(concat!(env!("OUT_DIR"), "/programs.rs"));
