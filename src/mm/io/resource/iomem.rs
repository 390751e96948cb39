//! The tree as text, as Linux writes `/proc/iomem`.
#![forbid(unsafe_code)]

use super::{ResourceHal, ResourceInfo, ResourceTree, Resources};
use crate::addr::PhysAddr;
use core::fmt;

/// Ranges deeper than this are indented no further (Linux: `MAX_IORES_LEVEL`).
const DEEPEST: usize = 5;

/// One line, with addresses of at least `width` digits.
fn line(range: &ResourceInfo<'_>, width: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let indent = (range.depth.min(DEEPEST + 1) - 1) * 2;
    let (start, last) = (range.span.start().get(), range.span.last().get());
    writeln!(f, "{:indent$}{start:0width$x}-{last:0width$x} : {}", "", range.name)
}

fn width(tree: &ResourceTree<'_>) -> usize {
    let end = tree.info(tree.root()).map_or(PhysAddr::MAX, |root| root.span.last());
    if end.get() < 0x1_0000 { 4 } else { 8 }
}

/// A tree to print: a line a range, those inside one below it and indented.
#[derive(Debug)]
pub struct Iomem<'t, 'a>(pub &'t ResourceTree<'a>);

impl fmt::Display for Iomem<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = width(self.0);
        self.0.iter().try_for_each(|range| line(&range, width, f))
    }
}

impl<'a, H: ResourceHal<'a>> Resources<'a, H> {
    /// All of it, to print; nothing is locked while a line is written. O(ranges²).
    pub const fn iomem(&self) -> SharedIomem<'_, 'a, H> {
        SharedIomem(self)
    }
}

/// A shared tree to print, each line in its current state.
pub struct SharedIomem<'r, 'a, H: ResourceHal<'a>>(&'r Resources<'a, H>);

impl<'a, H: ResourceHal<'a>> fmt::Display for SharedIomem<'_, 'a, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.with(|tree| width(tree));
        let ranges = (0..).map_while(|index| self.0.with(|tree| tree.iter().nth(index)));
        ranges.into_iter().try_for_each(|range| line(&range, width, f))
    }
}
