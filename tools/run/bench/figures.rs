//! Recorded figures to compare with: `benches/figures.tsv`.

use std::fs;
use std::path::Path;

/// Recorded figures of an operation besides our own. Each is a number, or empty if unknown.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Recorded {
    /// `operation/parameter`, or `operation/first..last` for every row of the operation with a number between them.
    pub(crate) name: String,
    pub(crate) linux: Option<f64>,
    /// The best crate when the figures were recorded.
    pub(crate) peer: Option<f64>,
    /// Hand-written assembly.
    pub(crate) limit: Option<f64>,
    pub(crate) target: Option<f64>,
    pub(crate) note: String,
}

impl Recorded {
    /// Whether the figures are about the row `name`.
    pub(crate) fn covers(&self, name: &str) -> bool {
        let numbers = |(operation, range): (&'_ str, &'_ str)| {
            let (first, last) = range.split_once("..")?;
            let number = name.strip_prefix(operation)?.strip_prefix('/')?.parse::<u64>().ok()?;
            Some((first.parse::<u64>().ok()?..=last.parse().ok()?).contains(&number))
        };
        self.name == name || self.name.split_once('/').and_then(numbers) == Some(true)
    }

    /// The name for people: `operation/first … last`.
    pub(crate) fn shown(&self) -> String {
        self.name.replace("..", " … ")
    }
}

pub(crate) fn read(path: &Path) -> Result<Vec<Recorded>, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines.map(|(at, line)| parse(line).ok_or_else(|| format!("{}:{}: {line:?}", path.display(), at + 1))).collect()
}

fn parse(line: &str) -> Option<Recorded> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [name, linux, peer, limit, target, note] = fields.as_slice() else { return None };
    let number = |text: &str| match text {
        "-" => Some(None),
        _ => text.parse().ok().map(Some),
    };
    Some(Recorded {
        name: (*name).to_owned(),
        linux: number(linux)?,
        peer: number(peer)?,
        limit: number(limit)?,
        target: number(target)?,
        note: (*note).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_four_numbers_between_name_and_note() {
        let recorded = parse("zero_page\t266\t1564\t-\t160\tDC ZVA").unwrap();
        assert_eq!((recorded.linux, recorded.limit, recorded.target), (Some(266.0), None, Some(160.0)));
        assert!(parse("zero_page\t266\t1564\t-\t160").is_none());
        assert!(parse("zero_page\t266\tmany\t-\t160\t").is_none());
    }

    #[test]
    fn a_range_covers_the_rows_of_its_operation() {
        let recorded = parse("kmalloc/8..64\t-\t-\t-\t40\t").unwrap();
        let covered = ["kmalloc/8", "kmalloc/64", "kmalloc/96", "kmalloc_large/16", "kmalloc", "kmalloc/x"];
        assert_eq!(covered.map(|name| recorded.covers(name)), [true, true, false, false, false, false]);
        assert!(parse("a/b\t-\t-\t-\t-\t").unwrap().covers("a/b"));
    }
}
