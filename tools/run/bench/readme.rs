//! The measured tables in Markdown files: the text between two marks is replaced by the last overview, whole in one file, and
//! cut down to one row for each family of calls in the other.

use std::fs;
use std::path::Path;

use crate::scratch;

const BEGIN: &str = "<!-- bench:begin -->\n";
const END: &str = "<!-- bench:end -->";

/// The rows of the short table: one for each family, whether or not it meets its target.
const SHORT: [&str; 8] = [
    "map_unmap/512",
    "alloc_pages/0",
    "kmalloc/8 … 64",
    "vmalloc/16384",
    "ioremap/4096",
    "dma_map_single/4096_to",
    "fault_anon/4096",
    "fork/1000",
];

/// Puts the overview in the file `table` between the marks of `whole`, and its short form between those of `short`. Changes
/// neither file unless both can be written.
pub(crate) fn refresh(table: &str, short: &str, whole: &str) -> Result<(), String> {
    let read = |path: &str| fs::read_to_string(path).map_err(|e| format!("{path}: {e}"));
    let overview = read(table)?;
    let few =
        shortened(&overview).map_err(|row| format!("{table} has no row {row}: it needs a run of all benchmarks"))?;
    let new = |document: &str, table: &str| {
        replaced(&read(document)?, table)
            .ok_or_else(|| format!("{document}: no lines {:?} and {END:?} in this order", BEGIN.trim_end()))
    };
    let texts = [(short, new(short, &few)?), (whole, new(whole, &overview)?)];
    texts.iter().try_for_each(|(document, text)| scratch::write(Path::new(document), text.as_bytes()))
}

/// The overview's first table with the rows of [`SHORT`] alone, or the name of a row that it does not have.
fn shortened(overview: &str) -> Result<String, &'static str> {
    let lines: Vec<&str> = overview.lines().collect();
    let head = lines.iter().take_while(|line| !line.starts_with('|')).count();
    let mut text: Vec<&str> = lines.iter().take(head + 2).copied().collect();
    let name = |line: &str| line.split('|').nth(1).unwrap_or_default().trim().to_owned();
    let rows = || lines.iter().skip(head + 2).take_while(|line| line.starts_with('|'));
    for row in SHORT {
        text.push(rows().find(|line| name(line) == row).ok_or(row)?);
    }
    Ok(text.join("\n"))
}

fn replaced(document: &str, table: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}\n\n{END}{after}", table.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_block_changes() {
        let document = "a\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nb\n";
        let once = replaced(document, "| new |\n").unwrap();
        assert_eq!(once, "a\n<!-- bench:begin -->\n\n| new |\n\n<!-- bench:end -->\nb\n");
        assert_eq!(replaced(&once, "| new |\n").unwrap(), once);
        assert_eq!(replaced("no marks", "x"), None);
    }

    #[test]
    fn the_short_table_has_its_rows_in_its_order_and_no_others() {
        let row = |name: &str| format!("| {name} | 1 |\n");
        let all: String = SHORT.iter().rev().copied().chain(["other/1"]).map(row).collect();
        let overview = format!("Instructions.\n\n| operation | Quarry |\n|---|---|\n{all}\nNot measured yet:\n");
        let rows: String = SHORT.iter().copied().map(row).collect();
        let expected = format!("Instructions.\n\n| operation | Quarry |\n|---|---|\n{rows}");
        assert_eq!(shortened(&overview), Ok(expected.trim_end().to_owned()));
        // A run of some benchmarks writes no table.
        assert_eq!(shortened(&overview.replace("| fork/1000 | 1 |\n", "")), Err("fork/1000"));
    }
}
