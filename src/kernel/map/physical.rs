//! The map of RAM: by zone, each block of the page allocator by its descriptor, and all other RAM by its owner.
#![forbid(unsafe_code)]

use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange};
use crate::gfp::ZoneType;
use crate::global;
use crate::kernel::machine::Machine;
use crate::kernel::machine_account;
use crate::kernel::owner_map::Row;
use crate::kernel::picture::{Band, Canvas, Exact, Legend, Overlay, Style, Use};
use core::fmt;

/// Lines of cells, so that picture and legend fit a screen.
const LINES: u64 = 12;
/// Edges of zones: two for each.
const EDGES: usize = 2 * ZoneType::COUNT;

/// All RAM, or that in a range of addresses, as it is when it is printed. Takes memory for owners and cells first; the walk over
/// the descriptors holds a zone's lock for a section (4 MiB) at a time.
pub(in crate::kernel) struct Physical<'m> {
    pub(in crate::kernel) machine: &'m Machine,
    pub(in crate::kernel) style: Style,
    pub(in crate::kernel) range: Option<(u64, u64)>,
}

impl fmt::Display for Physical<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owners = match machine_account::owners(self.machine) {
            Ok(owners) => owners,
            Err(error) => return writeln!(f, "memory does not add up: {error}"),
        };
        let bands = bands(owners.rows(), self.range.unwrap_or((0, u64::MAX)));
        let Ok(mut canvas) = Canvas::new(&Use::INKS, self.style, bands, LINES, PAGE_SIZE) else {
            return writeln!(f, "no memory for the picture");
        };
        let mut overlay = Overlay::new(owners.rows(), |range, found| {
            canvas.paint(range.start().get(), range.end().get(), found.index());
        });
        let walk = global::page_allocator().for_each_block(|block, state| {
            if let Some(found) = Use::of_block(state) {
                overlay.block(block, found);
            }
        });
        overlay.finish();
        if let Err(broken) = walk {
            writeln!(f, "{broken}")?;
        }
        canvas.draw(f)?;
        Legend { inks: canvas.inks(), sums: canvas.sums(), style: self.style }.draw(f)?;
        let (sum, cell) = (Exact(canvas.sum()), Exact(canvas.cell()));
        match self.range {
            None => writeln!(f, "sum {sum} of RAM, a cell {cell}"),
            Some(_) => writeln!(f, "sum {sum} of RAM in that range, a cell {cell}"),
        }
    }
}

fn span(kind: ZoneType) -> Option<PhysRange> {
    global::page_allocator().zone_span(kind)
}

/// The zone of an address, by the zones' spans.
fn zone_at(addr: u64) -> &'static str {
    let inside = |kind: &ZoneType| span(*kind).is_some_and(|span| span.contains(PhysAddr::new(addr)));
    match ZoneType::ALL.into_iter().find(inside) {
        Some(ZoneType::Dma) => "zone DMA",
        Some(ZoneType::Dma32) => "zone DMA32",
        Some(ZoneType::Normal) => "zone Normal",
        None => "no zone",
    }
}

/// RAM without gaps, cut where zones begin and end, and to `range`.
fn bands(rows: &[Row], range: (u64, u64)) -> impl Iterator<Item = Band> {
    let mut edges = [u64::MAX; EDGES];
    let spans = ZoneType::ALL.into_iter().filter_map(span).flat_map(|span| [span.start().get(), span.end().get()]);
    edges.iter_mut().zip(spans).for_each(|(edge, found)| *edge = found);
    let mut rows = rows.iter().map(|row| row.range).peekable();
    let mut left: Option<(u64, u64)> = None;
    core::iter::from_fn(move || {
        let (start, end) = match left.take() {
            Some(left) => left,
            None => {
                let first = rows.next()?;
                let mut end: PhysAddr = first.end();
                while let Some(next) = rows.next_if(|next| next.start() == end) {
                    end = next.end();
                }
                (first.start().get(), end.get())
            }
        };
        let cut = edges.iter().copied().filter(|edge| start < *edge && *edge < end).min();
        left = cut.map(|cut| (cut, end));
        Some(Band { name: zone_at(start), start: start.max(range.0), end: cut.unwrap_or(end).min(range.1) })
    })
}
