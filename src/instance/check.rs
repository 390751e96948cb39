//! One function that tests every invariant of the memory subsystem.
#![forbid(unsafe_code)]

use super::{kernel_tables, memblock, page_allocator};
use core::fmt::Display;

/// Tests every invariant there is: walks every list, tree and table of every part. What is broken is shown to `broken`,
/// with the name of its part; each part tells its first broken invariant, and the others are tested all the same. The
/// names of all parts are the answer.
///
/// Nothing may be allocated, freed or mapped meanwhile, on any CPU. Cost: O(pages + entries of tables).
pub fn check_all(broken: &mut dyn FnMut(&'static str, &dyn Display)) -> impl Iterator<Item = &'static str> + use<> {
    // A part joins with one line.
    let parts = [
        part("memblock", memblock().check(), broken),
        part("pages", page_allocator().check(), broken),
        part("page tables", kernel_tables().map_or(Ok(()), |table| table.check().map(drop)), broken),
    ];
    parts.into_iter()
}

fn part<E: Display>(
    name: &'static str,
    result: Result<(), E>,
    broken: &mut dyn FnMut(&'static str, &dyn Display),
) -> &'static str {
    if let Err(error) = result {
        broken(name, &error);
    }
    name
}
