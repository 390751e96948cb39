//! The areas that were placed before there is memory for descriptors.
#![forbid(unsafe_code)]

use super::VmFlags;
use crate::addr::{PhysAddr, VirtRange};
use core::panic::Location;

/// Maximum number of early areas.
const EARLY_MAX: usize = 16;

/// An area without a descriptor.
#[derive(Clone, Copy, Debug)]
pub(super) struct EarlyArea {
    pub(super) range: VirtRange,
    pub(super) flags: VmFlags,
    pub(super) phys: Option<PhysAddr>,
    pub(super) caller: &'static Location<'static>,
}

/// The areas that were placed early.
#[derive(Debug)]
pub(super) struct EarlyAreas {
    pub(super) areas: [Option<EarlyArea>; EARLY_MAX],
    pub(super) taken_over: bool,
}

impl EarlyAreas {
    pub(super) const fn new() -> Self {
        Self { areas: [None; EARLY_MAX], taken_over: false }
    }
}
