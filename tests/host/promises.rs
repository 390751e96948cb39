//! docs/promises.md names tests that exist, for each of the ten promises, and nothing cites another number.

use crate::misuse::file_of;
use std::fs;
use std::path::Path;

const PROMISES: usize = 10;

#[test]
fn every_promise_has_tests_that_exist() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/promises.md");
    let page = fs::read_to_string(path).unwrap();
    let parts: Vec<&str> = page.split("\n## ").skip(1).collect();
    assert_eq!(parts.len(), PROMISES);
    for (number, part) in (1..).zip(parts) {
        assert!(part.starts_with(&format!("{number}. ")), "{part}");
        let tests: Vec<&str> = part.lines().filter_map(|line| line.strip_prefix("- `")?.strip_suffix('`')).collect();
        assert!(!tests.is_empty(), "promise {number} has no test");
        for test in tests {
            assert!(file_of(test).is_some(), "promise {number}: no test {test}");
        }
    }
}
