//! One function that tests every invariant of the memory subsystem.
#![forbid(unsafe_code)]

use super::spaces::check_spaces;
use super::{
    check_dma, check_percpu, check_vmalloc, io_space, iomem_resource, kernel_tables, memblock, page_allocator,
    slab_allocator,
};
use core::fmt::Display;

/// Callback that receives the result of each part's check.
pub type Tell<'t> = dyn FnMut(&'static str, Result<(), &dyn Display>) + 't;

/// Tests every invariant: walks every list, tree and table of every part, and reports the result of each part. A broken part
/// reports its first broken invariant, and the others are tested all the same.
///
/// Nothing may be allocated, freed or mapped meanwhile, on any CPU. Cost: O(pages + entries of tables).
pub fn check_all(tell: &mut Tell<'_>) {
    // A new part adds one line here.
    part("memblock", memblock().check(), tell);
    part("page allocator", page_allocator().check(), tell);
    part("slab allocator", slab_allocator().check(), tell);
    part("vmalloc", check_vmalloc(), tell);
    part("per-CPU memory", check_percpu(), tell);
    part("DMA", check_dma(), tell);
    part("device memory", io_space().check(), tell);
    part("user spaces", check_spaces(), tell);
    part("resources", iomem_resource().check(), tell);
    part("page tables", kernel_tables().map_or(Ok(()), |table| table.check().map(drop)), tell);
}

/// Reports the check of one part.
pub fn part<E: Display>(name: &'static str, result: Result<(), E>, tell: &mut Tell<'_>) {
    tell(name, result.as_ref().map(|&()| ()).map_err(|error| error as _));
}
