//! The tour's figures have to agree with each other: what a stop took is what it says that it took, and it is back.

/// Pages of the block of order 6.
const BLOCK: u64 = 64;
/// Objects of the stop "slab".
const OBJECTS: u64 = 1000;
/// Bytes of the largest slab.
const MAX_SLAB: u64 = 32 << 10;
/// Additions of each CPU.
const ADDS: u64 = 1000;

/// Reads the tour on a console.
pub(crate) fn check(console: &str) -> Result<(), String> {
    let tour = console.split("\nThe tour: ").nth(1).ok_or("the console shows no tour")?;
    let figures = |words: &str| {
        let line = tour.lines().find(|line| line.contains(words)).ok_or_else(|| format!("no line with {words:?}"))?;
        Ok::<_, String>((numbers(line), line))
    };
    let holds = |holds: bool, line: &str| if holds { Ok(()) } else { Err(format!("the figures do not agree: {line}")) };

    let (ram, line) = figures(" of RAM in ")?;
    let (owners, _) = figures("the owners of RAM add up to ")?;
    holds(ram.first() == owners.last(), line)?;

    let (order, line) = figures("order 6 from zone ")?;
    let (block, at, virt) = (order.get(1), order.get(2), order.get(3));
    holds(block == Some(&(BLOCK * 4)) && at.is_some_and(|at| at % (BLOCK << 12) == 0) && is_linear(at, virt), line)?;
    let (blocks, line) = figures("free blocks of 4 MiB: ")?;
    let [_, before, during, after] = blocks[..] else { return holds(false, line) };
    holds(before == after && (during == before || during + 1 == before), line)?;
    let (pages, line) = figures("free pages: ")?;
    let [before, during, after] = pages[..] else { return holds(false, line) };
    holds(before == during + BLOCK && before == after, line)?;

    let (slabs, line) = figures("slabs: ")?;
    let [.., more, _, none, active, again] = slabs[..] else { return holds(false, line) };
    holds(active == none + OBJECTS && again == none && more >= OBJECTS * 128 / MAX_SLAB, line)?;

    let (area, line) = figures("vmalloc ")?;
    let [kib, _, pages, pieces] = area[..] else { return holds(false, line) };
    holds(pages * 4 == kib && (1..=pages).contains(&pieces), line)?;
    let (words, line) = figures(" words written and read back")?;
    let [count, sum] = words[..] else { return holds(false, line) };
    holds(count * 8 == kib << 10 && sum == count * (count - 1) / 2, line)?;

    let (cpus, line) = figures(" CPUs added ")?;
    let [cpus, 1, adds, sum] = cpus[..] else { return holds(false, line) };
    holds(adds == ADDS && sum == cpus * adds, line)?;

    let (words, line) = figures("a word that both see at once")?;
    let [_, wrote, reads] = words[..] else { return holds(false, line) };
    holds(wrote == reads, line)?;

    let (process, line) = figures("exit status ")?;
    let [.., before, after] = process[..] else { return holds(false, line) };
    holds(before == after, line)
}

/// Whether the second address is that of the first in the linear map.
fn is_linear(phys: Option<&u64>, virt: Option<&u64>) -> bool {
    matches!((phys, virt), (Some(phys), Some(virt)) if virt & 0xff_ffff_ffff == *phys)
}

/// The numbers of a line: those of words that begin with a digit, decimal or behind `0x`.
fn numbers(line: &str) -> Vec<u64> {
    let words = line.split(|letter: char| !letter.is_ascii_alphanumeric());
    let read = |word: &str| match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    };
    words.filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOUR: &str = "
The tour: each.
memblock 262144 KiB of RAM in 1 ranges, 5 ranges reserved
buddy    order 6 from zone DMA: 256 KiB at 0x4a000000, 0xffff00004a000000
         free blocks of 4 MiB: 60 before, 59 meanwhile, 60 after it was freed and merged
         free pages: 62000 before, 61936 meanwhile, 62000 after
slab     1000 objects of 100 bytes, each 128 bytes of cache kmalloc-128, the first at 0xffff00004a000000
         slabs: 1 before, 32 meanwhile, 1 after; objects in use: 20, 1020, 20
vmalloc  1024 KiB at 0xffff800100000000: 256 pages in 3 physical pieces
         131072 words written and read back, sum 8589869056
per-CPU  4 CPUs added 1 to their own counter 1000 times, without a lock: sum 4000
DMA      4096 bytes at 0xffff00004a000000 for a device
         a word that both see at once, at 0x4a001000: wrote 0x123456789abcdef, reads 0x123456789abcdef
user     hello runs at EL0
         hello: exit status 3; free pages: 62000 before, 62000 after
check    every invariant of 13 parts holds; the owners of RAM add up to 262144 KiB
";

    #[test]
    fn figures_that_do_not_agree_are_found() {
        check(TOUR).unwrap();
        for (part, other) in [
            ("memblock 262144", "memblock 262140"),
            ("256 KiB at", "128 KiB at"),
            ("0x4a000000, 0xffff00004a000000\n", "0x4a000000, 0xffff00004a040000\n"),
            ("59 meanwhile", "61 meanwhile"),
            ("61936", "61937"),
            ("62000 after\nslab", "61999 after\nslab"),
            ("1020", "1021"),
            ("1020, 20", "1020, 21"),
            ("256 pages", "255 pages"),
            ("in 3 ph", "in 300 ph"),
            ("sum 8589869056", "sum 8589869055"),
            ("sum 4000", "sum 3999"),
            ("reads 0x123456789abcdef", "reads 0x0"),
            ("before, 62000 after\ncheck", "before, 61808 after\ncheck"),
            ("exit status", "end"),
        ] {
            assert_eq!(TOUR.matches(part).count(), 1, "{part:?}");
            assert!(check(&TOUR.replace(part, other)).is_err(), "{other:?} was taken");
        }
        assert!(check("no tour").is_err());
    }
}
