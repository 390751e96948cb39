//! `docs/behaviours.md` says which test shows which numbered behaviour. The tests say it themselves, in a comment
//! `// Behaviour 31` above each; the table is made of those comments, and this test sees that it is up to date.
//! `QUARRY_BLESS=1 cargo test … behaviours` writes it anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const START: &str = "<!-- table -->\n";
const END: &str = "<!-- end of table -->";

/// The numbers in a comment such as `// Behaviours 31, 32 and 40: why`; `None` for any other line.
fn cited(line: &str) -> Option<Vec<u32>> {
    let comment = line.trim().strip_prefix("//")?;
    let rest = comment.split_once("Behaviour")?.1.trim_start_matches('s');
    let list: String = rest.chars().take_while(|c| c.is_ascii_digit() || " ,and".contains(*c)).collect();
    let numbers: Vec<u32> = list.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    (!numbers.is_empty()).then_some(numbers)
}

/// The test that a line names: `fn name(`, `ktest!(name` or, on a line of its own inside `ktest!(`, `name,` or
/// `boot: name,`.
fn test_name(line: &str) -> Option<&str> {
    let line = line.trim();
    let ident = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').count();
    let start = line
        .strip_prefix("fn ")
        .or_else(|| line.strip_prefix("ktest!(boot: "))
        .or_else(|| line.strip_prefix("ktest!("))
        .or_else(|| line.strip_prefix("boot: "))
        .or_else(|| (line.ends_with(',') && !line.contains([' ', '=', '"'])).then_some(line))?;
    Some(&start[..ident(start)]).filter(|name| !name.is_empty())
}

fn collect(dir: &Path, rows: &mut BTreeMap<u32, Vec<String>>) {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, rows);
            continue;
        }
        if path.extension().is_none_or(|extension| extension != "rs") || path.ends_with("behaviours.rs") {
            continue;
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let module = path.strip_prefix(root).unwrap().with_extension("").to_str().unwrap().replace('/', "::");
        let text = fs::read_to_string(&path).unwrap();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let Some(numbers) = cited(line) else { continue };
            let name = lines.clone().take(12).find_map(test_name);
            let name = name.unwrap_or_else(|| panic!("{}: no test below {line:?}", path.display()));
            for number in numbers {
                rows.entry(number).or_default().push(format!("`{module}::{name}`"));
            }
        }
    }
}

fn table() -> String {
    let mut rows = BTreeMap::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"), &mut rows);
    let mut text = String::from("| number | test |\n|---|---|\n");
    for (number, mut tests) in rows {
        tests.dedup();
        text += &format!("| {number} | {} |\n", tests.join(", "));
    }
    text
}

#[test]
fn the_map_of_behaviours_is_up_to_date() {
    let path = format!("{}/docs/behaviours.md", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(START).expect("the start of the table");
    let (old, after) = rest.split_once(END).expect("the end of the table");
    let new = table();
    if std::env::var_os("QUARRY_BLESS").is_some() {
        fs::write(path, format!("{before}{START}{new}{END}{after}")).unwrap();
    } else {
        assert!(old == new, "docs/behaviours.md is not what the tests say; QUARRY_BLESS=1 writes it anew");
    }
}

#[test]
fn comments_are_understood() {
    assert_eq!(cited("    // Behaviours 31, 32 and 40: why"), Some(vec![31, 32, 40]));
    assert_eq!(cited("/// Behaviour 7."), Some(vec![7]));
    assert_eq!(cited("let behaviour = 7;"), None);
    assert_eq!(test_name("    boot: refuses_zeros,"), Some("refuses_zeros"));
    assert_eq!(test_name("ktest!(text_cannot_be_written);"), Some("text_cannot_be_written"));
    assert_eq!(test_name("#[test]"), None);
}
