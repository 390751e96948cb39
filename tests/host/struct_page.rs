//! docs/struct-page.md stays true: every place that it names exists.

use std::fs;
use std::path::Path;

/// The text between the first two backticks of `text`, and the rest.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let (_, text) = text.split_once('`')?;
    text.split_once('`')
}

/// Whether `code` declares `name`: a field, a function, a constant, a type.
fn declares(code: &str, name: &str) -> bool {
    let words = ["fn", "const", "static", "struct", "enum", "trait"];
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).any(|line| {
        line.match_indices(name).any(|(at, _)| {
            let (before, after) = (&line[..at], &line[at + name.len()..]);
            let whole = !before.ends_with(is_word) && !after.starts_with(is_word);
            let item = words.iter().any(|word| before.trim_end().ends_with(word));
            let visibility = ["pub(super) ", "pub(in crate::mm) ", "pub "];
            let indent = before.trim_start();
            let field = after.starts_with(": ") && (indent.is_empty() || visibility.contains(&indent));
            whole && (item || field)
        })
    })
}

#[test]
fn every_place_that_the_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/struct-page.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| field "));
    let (mut places, mut reasons) = (0, 0);
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [_, place, note] = cells[..] else { panic!("three cells: {row}") };
        if place == "none:" {
            assert!(!note.is_empty(), "no place and no reason: {row}");
            reasons += 1;
            continue;
        }
        let (file, rest) = quoted(place).unwrap_or_else(|| panic!("neither a place nor none: {row}"));
        let (name, _) = quoted(rest).unwrap_or_else(|| panic!("a file without a name: {row}"));
        let code = fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(declares(&code, name), "{file} declares no {name}");
        places += 1;
    }
    assert!(places > 40 && reasons > 30, "{places} places, {reasons} reasons");
}

#[test]
fn a_name_that_is_only_used_is_no_declaration() {
    let code = "struct A {\n    pub(super) marks: B,\n}\nfn f(order: u8) { let g = x.high; } // const C: u8\n";
    for name in ["A", "marks", "f"] {
        assert!(declares(code, name), "{name}");
    }
    for name in ["high", "x", "C", "order", "mark", "B"] {
        assert!(!declares(code, name), "{name}");
    }
}
