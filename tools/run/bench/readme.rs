//! The measured table in a Markdown file: what stands between two marks is replaced by the last overview.

use std::fs;
use std::path::Path;

use crate::scratch;

const BEGIN: &str = "<!-- bench:begin -->\n";
const END: &str = "<!-- bench:end -->";

/// Puts the text of `table` between the marks of `document`.
pub(crate) fn refresh(table: &str, document: &str) -> Result<(), String> {
    let read = |path: &str| fs::read_to_string(path).map_err(|e| format!("{path}: {e}"));
    let new = replaced(&read(document)?, &read(table)?)
        .ok_or_else(|| format!("{document}: no lines {:?} and {END:?} in this order", BEGIN.trim_end()))?;
    scratch::write(Path::new(document), new.as_bytes())
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
}
