//! Iteration over the free ranges: mapped memory minus reservations, from both ends.
#![forbid(unsafe_code)]

use super::region::{PHYS_END, Region, span};
use crate::addr::{PhysAddr, PhysRange};
use core::iter::FusedIterator;

/// The free ranges of a memblock by ascending address; from the back, by descending address. Each is as large as it
/// can be. A whole walk costs O(regions).
#[derive(Clone, Debug)]
#[must_use = "an iterator does nothing until it is advanced"]
pub struct FreeRanges<'a> {
    // Regions that have not been passed from either end yet.
    memory: &'a [Region],
    reserved: &'a [Region],
    // Addresses that have not been passed from either end yet.
    low: PhysAddr,
    high: PhysAddr,
}

impl<'a> FreeRanges<'a> {
    /// The parts of the mapped ones among `memory` that are outside `reserved`, both sorted and disjoint.
    pub(super) const fn new(memory: &'a [Region], reserved: &'a [Region]) -> Self {
        Self { memory, reserved, low: PhysAddr::ZERO, high: PHYS_END }
    }
}

impl Iterator for FreeRanges<'_> {
    type Item = PhysRange;

    fn next(&mut self) -> Option<PhysRange> {
        loop {
            let (first, behind) = self.memory.split_first()?;
            let left = span(first.start().max(self.low), first.end().min(self.high));
            let Some(left) = left.filter(|_| first.is_mapped()) else {
                self.memory = behind;
                continue;
            };
            while let Some((passed, rest)) = self.reserved.split_first()
                && passed.end() <= left.start()
            {
                self.reserved = rest;
            }
            let taken = self.reserved.first().filter(|taken| taken.start() < left.end());
            let end = taken.map_or(left.end(), Region::start);
            // The memory behind the free part is reserved up to the end of that region.
            self.low = taken.map_or(left.end(), Region::end);
            if let Some(free) = span(left.start(), end) {
                return Some(free);
            }
        }
    }
}

impl DoubleEndedIterator for FreeRanges<'_> {
    fn next_back(&mut self) -> Option<PhysRange> {
        loop {
            let (last, before) = self.memory.split_last()?;
            let left = span(last.start().max(self.low), last.end().min(self.high));
            let Some(left) = left.filter(|_| last.is_mapped()) else {
                self.memory = before;
                continue;
            };
            while let Some((passed, rest)) = self.reserved.split_last()
                && passed.start() >= left.end()
            {
                self.reserved = rest;
            }
            let taken = self.reserved.last().filter(|taken| taken.end() > left.start());
            let start = taken.map_or(left.start(), Region::end);
            self.high = taken.map_or(left.start(), Region::start);
            if let Some(free) = span(start, left.end()) {
                return Some(free);
            }
        }
    }
}

impl FusedIterator for FreeRanges<'_> {}
