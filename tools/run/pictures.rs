//! The pictures of RAM that a session shows in letters: cells, legend and sum have to agree, and the legend with `memmap`, if the
//! session shows that too.

use std::collections::BTreeMap;

/// Letters of the uses by the words of `memmap`: those of the page allocator, and the owners of the rest.
const WORDS: &[(&str, &str)] = &[
    ("free", "0123456789.:"),
    ("per-CPU lists", "-"),
    ("allocated", "A"),
    ("slab", "S"),
    ("large kmalloc", "L"),
    ("vmalloc", "V"),
    ("page table", "T"),
    ("user", "U"),
    ("DMA", "D"),
    ("per-CPU memory", "P"),
    ("kernel", "K"),
    ("boot", "B"),
    ("reserved", "R"),
    ("no-map", "X"),
    ("left out", "O"),
];
/// Characters of a line in front of its cells, and its cells.
const ADDRESS: usize = 15;
const CELLS: usize = 64;
/// Characters of an entry of the legend, and between two.
const ENTRY: usize = 38;
const GAP: usize = 3;

/// A picture: KiB of each use by the legend, cells of each letter, KiB of all bands, of the sum, and of a cell.
#[derive(Default)]
struct Picture {
    legend: BTreeMap<char, u64>,
    cells: BTreeMap<char, u64>,
    bands: u64,
    sum: u64,
    cell: u64,
}

/// Columns of a terminal on which each picture fits.
const COLUMNS: usize = 80;

/// Reads every picture on a console that is in letters; others have to fit a terminal as well.
pub(crate) fn check(console: &str) -> Result<(), String> {
    fits(console)?;
    let mut picture = Picture::default();
    let mut whole = None;
    for line in console.lines() {
        if line.contains("quarry> ") {
            picture = Picture::default();
        } else if let Some(size) = band(line) {
            picture.bands += size;
        } else if let Some(cells) = cells(line) {
            cells.chars().filter(|cell| *cell != ' ').for_each(|cell| *picture.cells.entry(cell).or_default() += 1);
        } else if let Some((sum, cell)) = sum(line) {
            (picture.sum, picture.cell) = (sum, cell);
            // One in colours has neither cells nor a legend that are read here.
            if !picture.cells.is_empty() {
                agrees(&picture)?;
                let is_all = line.contains(" of RAM, ");
                whole = if is_all { Some(core::mem::take(&mut picture)) } else { whole };
            }
            picture = Picture::default();
        } else if picture.bands != 0 {
            entries(line).into_iter().for_each(|(letter, amount)| *picture.legend.entry(letter).or_default() += amount);
        }
    }
    let map = console.rsplit("quarry> memmap\n").next().filter(|_| console.contains("quarry> memmap\n"));
    match (whole, map) {
        (Some(picture), Some(map)) => is_memmap(&picture, map),
        _ => Ok(()),
    }
}

/// Whether no line of a picture is wider than a terminal.
fn fits(console: &str) -> Result<(), String> {
    let mut is_picture = false;
    for line in console.lines() {
        if line.contains("quarry> ") {
            is_picture = line.contains("quarry> map");
            continue;
        }
        // A line of the log, and the command's own usage, are no picture's.
        if is_picture && !line.starts_with(['[', 'm']) && width(line) > COLUMNS {
            return Err(format!("a picture has a line of {} columns: {line}", width(line)));
        }
    }
    Ok(())
}

/// Characters of a line without control sequences.
fn width(line: &str) -> usize {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().chars().count();
    first
        + parts
            .map(|part| {
                part.split_once(|end: char| end.is_ascii_alphabetic()).map_or(0, |(_, text)| text.chars().count())
            })
            .sum::<usize>()
}

/// The size of `NAME START-END SIZE KiB` above a band, if it is that of its addresses.
fn band(line: &str) -> Option<u64> {
    let (front, size) = line.strip_suffix(" KiB")?.rsplit_once(' ')?;
    let (start, end) = front.rsplit_once(' ')?.1.split_once('-')?;
    let number = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    size.parse()
        .ok()
        .filter(|size| number(end).zip(number(start)).is_some_and(|(end, start)| end - start == size << 10))
}

fn cells(line: &str) -> Option<&str> {
    let is_row = line.starts_with("0x") && line.len() == ADDRESS + CELLS && line.get(ADDRESS - 1..ADDRESS) == Some(" ");
    line.get(ADDRESS..).filter(|_| is_row)
}

fn sum(line: &str) -> Option<(u64, u64)> {
    let rest = line.strip_prefix("sum ")?;
    let (sum, rest) = rest.split_once(" KiB of RAM")?;
    Some((sum.parse().ok()?, rest.rsplit_once("a cell ")?.1.strip_suffix(" KiB")?.parse().ok()?))
}

/// The entries of a line of the legend: a letter, a name, an amount.
fn entries(line: &str) -> Vec<(char, u64)> {
    let halves = [line.get(..ENTRY).unwrap_or(line), line.get(ENTRY + GAP..).unwrap_or_default()];
    let read =
        |entry: &str| Some((entry.chars().next()?, entry.strip_suffix(" KiB")?.rsplit_once(' ')?.1.parse().ok()?));
    halves.into_iter().filter_map(read).collect()
}

fn agrees(picture: &Picture) -> Result<(), String> {
    let Picture { legend, cells, bands, sum, cell } = picture;
    let all: u64 = legend.values().sum();
    if all != *sum || bands != sum {
        return Err(format!("the legend adds up to {all} KiB, the bands to {bands}, the sum says {sum}"));
    }
    for (letter, count) in cells {
        // A small letter: the cell has other uses too.
        let use_of = letter.to_ascii_uppercase();
        let amount = legend.get(&use_of).copied().unwrap_or(0);
        // A page has one use.
        let is_exact = *cell == 4;
        let is_whole = letter.is_ascii_uppercase();
        if amount == 0 || is_whole && amount < count * cell || is_exact && amount != count * cell {
            return Err(format!("{count} cells {letter:?} of {cell} KiB are drawn, and the legend has {amount} KiB"));
        }
    }
    Ok(())
}

/// Whether the legend has the amounts of `memmap`: `sum … KiB = kernel N + boot N…`, and `zone … = free N + …`.
fn is_memmap(picture: &Picture, map: &str) -> Result<(), String> {
    let mut stated: BTreeMap<&str, u64> = BTreeMap::new();
    for line in map.lines().filter(|line| line.starts_with("  sum ") || line.starts_with("  zone ")) {
        let terms = line.split_once(" = ").map_or("", |(_, terms)| terms).split(" + ");
        for (name, amount) in terms.filter_map(|term| term.trim().rsplit_once(' ')) {
            *stated.entry(name).or_default() += amount.parse::<u64>().unwrap_or(0);
        }
    }
    if stated.is_empty() {
        return Err("memmap has no sums".to_owned());
    }
    for (word, letters) in WORDS {
        let drawn: u64 =
            picture.legend.iter().filter(|(letter, _)| letters.contains(**letter)).map(|(_, amount)| amount).sum();
        let stated = stated.get(word).copied().unwrap_or(0);
        if drawn != stated {
            return Err(format!("the map has {drawn} KiB of {word:?}, memmap {stated}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 64 cells: 32 of the kernel, one of boot memory, 31 free.
    fn console() -> String {
        format!(
            "quarry> map\nzone DMA 0x000040200000-0x000040240000 256 KiB\n0x000040200000 {}{}{}\n{:38}   {}\n{}\nsum 256 KiB of RAM, a cell 4 KiB\nquarry> memmap\nmemory map:\n  x\n  sum 256 KiB = kernel 128 + boot 4 + page allocator 124\npage allocator: 124 KiB\n  zone DMA 124 KiB = free 124\n",
            "K".repeat(32),
            "B",
            "3".repeat(31),
            "3  free, order 3               124 KiB",
            "K  kernel image                128 KiB",
            "B  boot                          4 KiB",
        )
    }

    #[test]
    fn a_picture_that_does_not_agree_is_found() {
        let console = console();
        check(&console).unwrap();
        for (part, other) in [
            ("KB3", "KK3"),
            ("KB3", "KS3"),
            ("         4 KiB\n", "         8 KiB\n"),
            ("sum 256 KiB of", "sum 252 KiB of"),
            ("kernel 128 +", "kernel 124 +"),
            ("free 124", "free 120 + slab 4"),
        ] {
            assert_eq!(console.matches(part).count(), 1, "{part:?}");
            assert!(check(&console.replace(part, other)).is_err(), "{other:?} was taken");
        }
        check("no picture").unwrap();
        assert_eq!(width("a\u{1b}[38;5;7mbc\u{1b}[0m"), 3);
        let wide = "#".repeat(81);
        assert!(check(&format!("quarry> map vmalloc\n{wide}\n")).is_err());
        check(&format!("quarry> map\nquarry> ptdump\n{wide}\n")).unwrap();
    }

    #[test]
    fn a_mixed_cell_says_less_than_a_whole_one() {
        let picture = |cells: &str| {
            format!(
                "zone DMA 0x000040000000-0x000040080000 512 KiB\n0x000040000000 {cells}{}\n{:38}   {}\nsum 512 KiB of RAM, a cell 8 KiB\n",
                "K".repeat(62),
                "S  slab                          6 KiB",
                "K  kernel image                506 KiB",
            )
        };
        check(&picture("ks")).unwrap();
        assert!(check(&picture("KS")).is_err());
    }
}
