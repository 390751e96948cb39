//! docs/embedding.md and docs/drivers.md stay true: what they show of a kernel is what the examples do.

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The lines of code in a text: no comments, no indentation.
fn code(text: &str) -> Vec<&str> {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or("").trim());
    lines.filter(|line| !line.is_empty()).collect()
}

/// The lines of `shown` that are in none of the texts.
fn invented<'t>(shown: &'t str, texts: &[String]) -> Vec<&'t str> {
    let all: Vec<&str> = texts.iter().flat_map(|text| code(text)).collect();
    code(shown).into_iter().filter(|line| !all.contains(line)).collect()
}

#[test]
fn the_lines_about_threads_are_the_examples() {
    let page = read("docs/embedding.md");
    let section = page.split("\n### Threads\n").nth(1).and_then(|rest| rest.split("\n##").next()).unwrap();
    let block = section.split("```rust,ignore\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(code(block).len() >= 10, "{block}");
    let sources = ["sched.rs", "memory.rs"].map(|name| read(&format!("examples/threads/src/{name}")));
    assert_eq!(invented(block, &sources), [] as [&str; 0]);
    // Seen to find what the example does not have.
    assert_eq!(invented("let at = quarry::resume_at(elr); // so\n", &sources), ["let at = quarry::resume_at(elr);"]);
}

#[test]
fn the_lines_about_processes_are_the_examples() {
    let page = read("docs/embedding.md");
    let section = page.split("\n### Processes\n").nth(1).and_then(|rest| rest.split("\n##").next()).unwrap();
    let block = section.split("```rust,ignore\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(code(block).len() >= 12, "{block}");
    let sources = ["sched.rs", "memory.rs"].map(|name| read(&format!("examples/processes/src/{name}")));
    assert_eq!(invented(block, &sources), [] as [&str; 0]);
}

#[test]
fn the_lines_about_drivers_are_the_examples() {
    let page = read("docs/drivers.md");
    let sources = ["rng.rs", "virtio.rs"].map(|name| read(&format!("examples/driver/src/{name}")));
    let blocks: Vec<&str> =
        page.split("```rust,ignore\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 7, "{}", blocks.len());
    for block in blocks {
        assert_eq!(invented(block, &sources), [] as [&str; 0]);
    }
}
