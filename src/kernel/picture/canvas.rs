//! Cells of equal size over stretches of addresses, painted from low to high.
#![forbid(unsafe_code)]

use super::style::Colours;
use super::{Exact, Ink, Style};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::fmt::{self, Write};

/// Cells beside each other. With the address in front a line has 79 characters; of one that has more than twelve digits there is the
/// distance from the band's start.
pub const COLUMNS: u64 = 64;
/// A cell in which nothing was painted.
const NOTHING: u8 = 0x7f;
/// Bit of a cell that has one use alone.
const WHOLE: u8 = 0x80;
/// The largest cell. Two lines of such cells cover every address that there is.
const LARGEST: u64 = 1 << 57;

/// A stretch of addresses that is drawn by itself, with its name above.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Band {
    /// Its name.
    pub name: &'static str,
    /// The first address.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
}

impl Band {
    /// Start of the first line of cells.
    const fn first_line(self, line: u64) -> u64 {
        self.start - self.start % line
    }

    /// Number of lines of cells, each of `line` bytes.
    const fn lines(self, line: u64) -> u64 {
        (self.end - self.first_line(line)).div_ceil(line)
    }
}

/// The picture, and the exact sum of each use.
///
/// # Invariants
///
/// - `PIC-1`: the sums are the bytes painted inside the bands, each byte once: painting goes from low to high, and a byte below
///   the place that it has reached is not painted again.
#[derive(Debug)]
pub struct Canvas<'k, const N: usize> {
    inks: &'k [Ink; N],
    style: Style,
    bands: Vec<Band>,
    /// Bytes of a cell, a power of two.
    cell: u64,
    /// By band, from its first line on.
    cells: Vec<u8>,
    sums: [u64; N],
    /// End of what was painted.
    painted: u64,
    /// The band that `painted` has reached, and the number of its first cell.
    band: usize,
    band_cell: u64,
    /// The cell that is being painted, and the bytes of each use in it.
    current: u64,
    in_current: [u64; N],
}

impl<'k, const N: usize> Canvas<'k, N> {
    /// An empty picture of `bands`, by ascending address, none overlapping another; empty ones are left out. The cells are the
    /// smallest, from `smallest` (a power of two) on, with which the bands take at most `lines` lines, if any do.
    ///
    /// # Errors
    ///
    /// No memory for the cells.
    pub fn new(
        inks: &'k [Ink; N],
        style: Style,
        bands: impl Iterator<Item = Band>,
        lines: u64,
        smallest: u64,
    ) -> Result<Self, TryReserveError> {
        let mut kept: Vec<Band> = Vec::new();
        for band in bands.filter(|band| band.start < band.end) {
            kept.try_reserve(1)?;
            kept.push(band);
        }
        let mut cell = smallest.max(1);
        let line_of = |cell: u64| (cell * COLUMNS).saturating_mul(style.halves());
        let total = |cell: u64| kept.iter().map(|band| band.lines(line_of(cell))).sum::<u64>();
        while cell < LARGEST / style.halves() && total(cell) > lines {
            cell *= 2;
        }
        let count = usize::try_from(total(cell) * COLUMNS * style.halves()).unwrap_or(usize::MAX);
        let mut cells = Vec::new();
        cells.try_reserve_exact(count)?;
        cells.resize(count, NOTHING);
        let (sums, in_current) = ([0; N], [0; N]);
        Ok(Self {
            inks,
            style,
            bands: kept,
            cell,
            cells,
            sums,
            painted: 0,
            band: 0,
            band_cell: 0,
            current: 0,
            in_current,
        })
    }

    /// Bytes of a cell.
    #[must_use]
    pub const fn cell(&self) -> u64 {
        self.cell
    }

    /// Its inks.
    #[must_use]
    pub const fn inks(&self) -> &'k [Ink; N] {
        self.inks
    }

    /// Bytes of each use inside the bands.
    #[must_use]
    pub const fn sums(&self) -> &[u64; N] {
        &self.sums
    }

    /// Bytes that were painted inside the bands.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sums.iter().sum()
    }

    /// Bytes of a line.
    const fn line(&self) -> u64 {
        (self.cell * COLUMNS).saturating_mul(self.style.halves())
    }

    /// Paints the bytes from `start` to `end` in ink number `ink`. Bytes outside the bands, or below what was painted already,
    /// are left out. Takes no memory and no lock.
    pub fn paint(&mut self, start: u64, end: u64, ink: usize) {
        // INVARIANT: PIC-1.
        let mut at = start.max(self.painted);
        while at < end {
            let Some(band) = self.bands.get(self.band).copied() else { break };
            if at >= band.end {
                self.band_cell += band.lines(self.line()) * COLUMNS * self.style.halves();
                self.band += 1;
                continue;
            }
            at = at.max(band.start);
            let offset = at - band.first_line(self.line());
            let cell_end = at - offset % self.cell + self.cell;
            let stop = end.min(band.end).min(cell_end);
            if at >= stop {
                break;
            }
            self.dab(self.band_cell + offset / self.cell, ink, stop - at);
            at = stop;
        }
        self.painted = self.painted.max(end);
    }

    /// Adds `bytes` of an ink to a cell.
    fn dab(&mut self, cell: u64, ink: usize, bytes: u64) {
        if cell != self.current {
            self.settle();
            self.current = cell;
        }
        if let (Some(here), Some(sum)) = (self.in_current.get_mut(ink), self.sums.get_mut(ink)) {
            *here += bytes;
            *sum += bytes;
        }
    }

    /// Decides what the current cell shows: the use of most of it, and of two with as much the first.
    fn settle(&mut self) {
        let all: u64 = self.in_current.iter().sum();
        let most = (0_u8..NOTHING).zip(&self.in_current).reduce(|most, next| if next.1 > most.1 { next } else { most });
        let cell = usize::try_from(self.current).ok().and_then(|cell| self.cells.get_mut(cell));
        if let (Some((ink, bytes)), Some(cell)) = (most, cell)
            && all != 0
        {
            *cell = ink | if *bytes == all { WHOLE } else { 0 };
        }
        self.in_current = [0; N];
    }

    /// Draws the bands: the name and the size of each, and its cells, a line of them with the address in front.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn draw(&mut self, out: &mut (impl Write + ?Sized)) -> fmt::Result {
        self.settle();
        let line = self.line();
        let mut cells = self.cells.chunks(usize::try_from(COLUMNS * self.style.halves()).unwrap_or(1));
        for band in &self.bands {
            let name = band.name;
            writeln!(out, "{name} {:#014x}-{:#014x} {}", band.start, band.end, Exact(band.end - band.start))?;
            for number in 0..band.lines(line) {
                let address = band.first_line(line).saturating_add(number.saturating_mul(line));
                match address >> 48 {
                    0 => write!(out, "{address:#014x} ")?,
                    _ => write!(out, "+{:#012x} ", address.saturating_sub(band.first_line(line)))?,
                }
                self.draw_line(cells.next().unwrap_or_default(), out)?;
            }
        }
        Ok(())
    }

    fn ink(&self, cell: u8) -> Option<&Ink> {
        self.inks.get(usize::from(cell & !WHOLE))
    }

    fn draw_line(&self, cells: &[u8], out: &mut (impl Write + ?Sized)) -> fmt::Result {
        if self.style == Style::Plain {
            for cell in cells {
                let letter = self.ink(*cell).map_or(b' ', |ink| ink.letter);
                let letter = if cell & WHOLE == 0 { letter.to_ascii_lowercase() } else { letter };
                out.write_char(char::from(letter))?;
            }
            return out.write_char('\n');
        }
        let (above, below) = cells.split_at(cells.len() / 2);
        let mut colours = Colours::new(out);
        for (above, below) in above.iter().zip(below) {
            let colour = |cell: u8| self.ink(cell).map(|ink| ink.colour);
            match (colour(*above), colour(*below)) {
                (None, None) => colours.put(' ', None, None)?,
                (None, below) => colours.put('▄', below, None)?,
                (above, None) => colours.put('▀', above, None)?,
                (above, below) => colours.put('▀', above, below)?,
            }
        }
        colours.reset()?;
        out.write_char('\n')
    }
}
