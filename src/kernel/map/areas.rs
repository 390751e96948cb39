//! The areas of vmalloc and the gaps between them, in proportion, and as a list.
#![forbid(unsafe_code)]

use crate::addr::PAGE_SIZE;
use crate::global;
use crate::kernel::picture::{Band, Bar, Canvas, Exact, Ink, Legend, Style};
use crate::mm::vmalloc::{AreaInfo, VmFlags};
use core::fmt;

/// Lines of cells.
const LINES: u64 = 8;
/// Gaps from this size on are not drawn but named: the region has 123 TiB.
const CUT: u64 = 16 << 20;
/// Characters of a bar in the list.
const BAR: u64 = 16;

/// Place of the gaps among [`INKS`]; guard pages come behind.
const GAP: usize = 6;
const INKS: [Ink; 8] = [
    Ink { letter: b'V', colour: 39, name: "vmalloc" },
    Ink { letter: b'I', colour: 208, name: "ioremap" },
    Ink { letter: b'M', colour: 99, name: "vmap" },
    Ink { letter: b'R', colour: 201, name: "vm_map_ram" },
    Ink { letter: b'D', colour: 220, name: "DMA, coherent" },
    Ink { letter: b'O', colour: 51, name: "others" },
    Ink { letter: b'.', colour: 236, name: "gaps between areas" },
    Ink { letter: b'G', colour: 196, name: "guard pages" },
];

/// The areas, each as it is at that moment.
pub(super) struct Areas {
    pub(super) style: Style,
}

/// The place of an area among [`INKS`].
fn ink(area: &AreaInfo) -> usize {
    let kinds = [VmFlags::ALLOC, VmFlags::IOREMAP, VmFlags::MAP, VmFlags::MAP_RAM, VmFlags::DMA_COHERENT];
    kinds.iter().position(|flag| area.flags.contains(*flag)).unwrap_or(kinds.len())
}

/// Stretches of areas between which the gaps are short.
fn clusters() -> impl Iterator<Item = Band> {
    let mut areas =
        global::vmap_space().iter().map(|area| (area.range.start().get(), area.range.end().get())).peekable();
    core::iter::from_fn(move || {
        let (start, mut end) = areas.next()?;
        while let Some((_, next)) = areas.next_if(|(start, _)| start.saturating_sub(end) < CUT) {
            end = next;
        }
        Some(Band { name: "areas", start, end })
    })
}

impl fmt::Display for Areas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(mut canvas) = Canvas::new(&INKS, self.style, clusters(), LINES, PAGE_SIZE) else {
            return writeln!(f, "no memory for the picture");
        };
        let (mut count, mut largest) = (0_u64, 0);
        let mut before = None;
        for area in global::vmap_space().iter() {
            let (start, guard, end) = (area.range.start().get(), area.mapped().end().get(), area.range.end().get());
            if let Some(before) = before {
                canvas.paint(before, start, GAP);
            }
            canvas.paint(start, guard, ink(&area));
            canvas.paint(guard, end, GAP + 1);
            (before, count, largest) = (Some(end), count + 1, largest.max(area.size()));
        }
        canvas.draw(f)?;
        Legend { inks: canvas.inks(), sums: canvas.sums(), style: self.style }.draw(f)?;
        writeln!(f, "{count} areas, a cell {}", Exact(canvas.cell()))?;
        self.list(largest, f)
    }
}

impl Areas {
    /// Every area with its size as a bar, and every gap.
    fn list(&self, largest: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = None;
        for area in global::vmap_space().iter() {
            let start = area.range.start();
            if let Some(gap) = before.map(|end| start.get().saturating_sub(end)).filter(|gap| *gap != 0) {
                writeln!(f, "{:18} gap {}", "", Exact(gap))?;
            }
            before = Some(area.range.end().get());
            let bar = Bar { part: area.size(), whole: largest, width: BAR, style: self.style };
            let name = INKS.get(ink(&area)).map_or("", |ink| ink.name);
            let size = Exact(area.size());
            write!(f, "{start:#018x} {size:>14} {bar} {name}")?;
            if let Some(caller) = area.caller {
                let file = caller.file().rsplit('/').next().unwrap_or_default();
                write!(f, " {file}:{}", caller.line())?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
