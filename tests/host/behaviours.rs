//! `docs/behaviours.md` has a sentence for each numbered behaviour, and the tests that show it. The tests say which ones they
//! show, in a comment `// Behaviour 31` above each; the last column of the table is made of those comments. The sentences are
//! written by hand in the page, and stay. This test sees that the table is up to date, that each number that is cited has a
//! sentence, and that each sentence has a test or a reason for none. `QUARRY_BLESS=1 cargo test … behaviours` writes it anew.

use std::collections::{BTreeMap, BTreeSet};
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

/// The sentence of each number, from the rows of the table in the page.
fn sentences(table: &str) -> BTreeMap<u32, String> {
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let rows =
        rows.filter_map(|(number, rest)| Some((number.parse().ok()?, rest.split(" |").next()?.trim().to_owned())));
    rows.filter(|(_, sentence)| !sentence.is_empty()).collect()
}

/// The numbers and ranges that begin the rows of the table of those left out.
fn left_out(page: &str) -> BTreeSet<u32> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let parts = cells.flat_map(|cell| cell.split(',')).map(|part| part.split('(').next().unwrap_or("").trim());
    let range = |part: &str| {
        let (first, last) = part.split_once('–').unwrap_or((part, part));
        Some(first.parse::<u32>().ok()?..=last.parse().ok()?)
    };
    parts.filter_map(range).flatten().collect()
}

/// The table, and everything that is wrong with its numbers.
fn table(
    tests: &BTreeMap<u32, Vec<String>>,
    sentences: &BTreeMap<u32, String>,
    left: &BTreeSet<u32>,
) -> (String, Vec<String>) {
    let mut text = String::from("| number | behaviour | test |\n|---|---|---|\n");
    let mut wrong: Vec<String> = tests
        .iter()
        .filter(|(number, _)| !sentences.contains_key(number))
        .map(|(number, tests)| format!("{number} has no sentence, and is cited by {}", tests.join(", ")))
        .collect();
    for (number, sentence) in sentences {
        let mut tests = tests.get(number).cloned().unwrap_or_default();
        tests.dedup();
        let shown = if tests.is_empty() { "left out, see above".to_owned() } else { tests.join(", ") };
        if tests.is_empty() && !left.contains(number) {
            wrong.push(format!("{number} has neither a test nor a reason for none"));
        }
        text += &format!("| {number} | {sentence} | {shown} |\n");
    }
    (text, wrong)
}

#[test]
fn the_map_of_behaviours_is_up_to_date() {
    let path = format!("{}/docs/behaviours.md", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(START).expect("the start of the table");
    let (old, after) = rest.split_once(END).expect("the end of the table");
    let mut tests = BTreeMap::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"), &mut tests);
    let (new, wrong) = table(&tests, &sentences(old), &left_out(before));
    assert!(wrong.is_empty(), "docs/behaviours.md:\n{}", wrong.join("\n"));
    if std::env::var_os("QUARRY_BLESS").is_some() {
        fs::write(path, format!("{before}{START}{new}{END}{after}")).unwrap();
    } else {
        assert!(old == new, "docs/behaviours.md is not what the tests say; QUARRY_BLESS=1 writes it anew");
    }
}

#[test]
fn a_number_needs_a_sentence_and_a_test_or_a_reason() {
    let known = sentences(
        "| number | behaviour | test |\n|---|---|---|\n| 1 | One is shown | `old` |\n| 2 | Two | |\n| 3 | Three | |\n",
    );
    let tests = BTreeMap::from([(1, vec!["`a`".to_owned()]), (4, vec!["`b`".to_owned()])]);
    let left = left_out("| number | why |\n| 2 (its half), 7 | no |\n| 9–11 | no |\n");
    assert_eq!(left, BTreeSet::from([2, 7, 9, 10, 11]));
    let (text, wrong) = table(&tests, &known, &left);
    assert_eq!(wrong, ["4 has no sentence, and is cited by `b`", "3 has neither a test nor a reason for none"]);
    assert!(text.contains("| 1 | One is shown | `a` |\n| 2 | Two | left out, see above |\n"), "{text}");
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
