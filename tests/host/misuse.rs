//! docs/misuse.md stays true: each test that it names exists, and each report's words stand where they come from.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const CAUGHT: [&str; 5] = ["compile time", "error", "report", "fault", "panic"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every source file under `folder`, by its path.
fn sources(folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.insert(path.display().to_string(), fs::read_to_string(&path).unwrap());
        }
    }
}

/// Whether a file holds all pieces of `words`, which `…` separates.
fn says(text: &str, words: &str) -> bool {
    words.split('…').all(|piece| text.contains(piece))
}

/// The text of the file that `module::path::name` names, if it declares a test of that name.
pub(crate) fn file_of(test: &str) -> Option<String> {
    let (module, name) = test.rsplit_once("::")?;
    let text = read(&format!("tests/{}.rs", module.replace("::", "/")));
    let declared = [format!("fn {name}("), format!("    boot: {name},"), format!("ktest!({name}")];
    declared.iter().any(|form| text.contains(form.as_str())).then_some(text)
}

/// The row's cells without the marks of code.
fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('|').trim_matches('`').trim()).collect()
}

#[test]
fn every_row_is_true() {
    let mut files = BTreeMap::new();
    sources(&root().join("src"), &mut files);
    let page = read("docs/misuse.md");
    let mut rows = BTreeMap::new();
    for row in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| misuse ")) {
        let cells = cells(row);
        let [misuse, caught, words, test] = cells[..] else { panic!("four cells: {row}") };
        assert!(CAUGHT.contains(&caught), "caught how? {row}");
        assert!(words.split('…').any(|piece| piece.len() >= 5), "words that anything says: {row}");
        if caught == "compile time" {
            let text = read(test);
            assert!(text.contains("compile_fail") && text.contains(words), "{test} has no such example: {row}");
        } else {
            let text = file_of(test).unwrap_or_else(|| panic!("there is no test {test}"));
            let said = says(&text, words) || files.values().any(|source| says(source, words));
            assert!(said, "nobody says so: {row}");
        }
        assert!(rows.insert(misuse, test).is_none(), "twice: {row}");
    }
    assert!(rows.len() >= 40, "{} rows", rows.len());
}

#[test]
fn words_are_looked_for_piece_by_piece() {
    assert!(says("write!(f, \"{page:?} is in use: {}\")", "… is in use: …"));
    assert!(!says("write!(f, \"{page:?} is in use: {}\")", "… is not in use: …"));
    assert!(file_of("host::misuse::every_row_is_true").is_some());
    assert!(file_of("host::misuse::no_row_is_true").is_none());
    assert_eq!(cells("| a | b | `c` | `d` |"), ["a", "b", "c", "d"]);
}
