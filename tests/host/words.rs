//! The words of comments and pages: a list of phrases that make a reader read twice, and must not come back. No file is excepted.

use std::fs;
use std::path::{Path, PathBuf};

/// Words that begin no sentence: the thing itself is its subject ("State protected by the lock", not "What the lock protects").
const OPENINGS: &[&str] = &["What", "Whatever", "Who", "Whoever", "Whom", "Whomever", "Whose", "Why"];

/// Phrases, in lower case, and the field's own words for each.
const PHRASES: &[(&str, &str)] = &[
    ("leads nowhere", "points to no object"),
    ("lead nowhere", "point to no object"),
    ("leads to", "points to"),
    ("lead to", "point to"),
    ("led to", "pointed to"),
    ("the long way", "the slow path"),
    ("the short way", "the fast path"),
    ("the long one", "the slow path"),
    ("short ways", "fast paths"),
    ("no short way", "not by the fast path"),
    ("a short way", "a fast path"),
    ("long ways", "slow paths"),
    ("the general way", "the general path"),
    ("at hand", "in the CPU's cache, known, current"),
    ("whoever", "the caller, the owner"),
    ("what is wrong", "the error"),
    ("leads in a circle", "is circular"),
    ("for who said so", "on their caller's promise"),
    ("is none that", "is not one that"),
    ("goes in whole blocks", "is freed in whole blocks"),
    ("a row of values", "an array"),
    ("in a row of", "in an array of"),
];

/// Phrases in a `SAFETY` comment that send its reader away without the reason: the comment names the invariant's tag, the bullet of
/// a `# Safety` list, or the line that made it true.
const NO_REASON: &[&str] = &[
    "as above",
    "the caller's promise",
    "the caller promises",
    "the caller's contract",
    "the trait's contract",
    "the caller vouches",
    "the caller answers",
];

/// A paragraph of prose: where it begins, and its text in one line.
struct Paragraph {
    line: usize,
    text: String,
}

/// The marker and the prose of a comment line of Rust; `None` for a line of code.
fn prose_of_rust(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start();
    let marker = ["///", "//!", "//"].into_iter().find(|marker| line.starts_with(marker))?;
    Some((marker, &line[marker.len()..]))
}

/// The paragraphs of a source file's comments, or of a page. Code blocks are left out, and code inside of backticks.
fn paragraphs(text: &str, is_page: bool) -> Vec<Paragraph> {
    let mut found: Vec<Paragraph> = Vec::new();
    let mut last = None;
    let mut fenced = false;
    for (number, line) in (1..).zip(text.lines()) {
        let prose = if is_page { Some(("", line)) } else { prose_of_rust(line) };
        let Some((marker, words)) = prose else {
            (last, fenced) = (None, false);
            continue;
        };
        let words = words.trim();
        if words.starts_with("```") {
            fenced = !fenced;
            last = None;
        } else if fenced || words.is_empty() || words.starts_with('#') {
            last = None;
        } else if words.starts_with('|') {
            let cells = words.trim_matches('|').split(" | ");
            found.extend(cells.map(|cell| Paragraph { line: number, text: cell.trim().to_owned() }));
            last = None;
        } else {
            let item =
                words.strip_prefix("- ").or_else(|| words.split_once(". ").filter(|(n, _)| is_number(n)).map(|p| p.1));
            match found.last_mut().filter(|_| last == Some(marker) && item.is_none()) {
                Some(paragraph) => paragraph.text = format!("{} {words}", paragraph.text),
                None => found.push(Paragraph { line: number, text: item.unwrap_or(words).to_owned() }),
            }
            last = Some(marker);
        }
    }
    for paragraph in &mut found {
        paragraph.text = without_code(&paragraph.text);
    }
    found
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit())
}

/// Prose alone: each piece between backticks becomes `…`.
fn without_code(text: &str) -> String {
    let pieces = text.split('`').enumerate();
    pieces.map(|(number, piece)| if number.is_multiple_of(2) { piece } else { "`…`" }).collect()
}

/// Sentences of a paragraph: each begins behind a full stop, and may be set in bold.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let bold = text.match_indices("**").map(|(at, mark)| &text[at + mark.len()..]);
    let plain = text.match_indices([' ']).filter(|(at, _)| text[..*at].ends_with(['.', '!', '?', ':']));
    std::iter::once(text).chain(plain.map(|(at, _)| &text[at + 1..])).chain(bold)
}

/// Places of a text that are to be written anew, as `line: why`.
fn complaints(text: &str, is_page: bool) -> Vec<String> {
    let mut found = Vec::new();
    for Paragraph { line, text } in paragraphs(text, is_page) {
        for sentence in sentences(&text) {
            let first = sentence.split(|c: char| !c.is_alphanumeric()).next().unwrap_or("");
            if OPENINGS.contains(&first) {
                let start: String = sentence.chars().take(60).collect();
                found.push(format!("{line}: a sentence begins with {first:?}: name its subject first: {start}…"));
            }
        }
        let lower = text.to_lowercase();
        for (phrase, better) in PHRASES {
            let ends = |at: usize| !lower[at + phrase.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
            let begins = |at: usize| !lower[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if lower.match_indices(phrase).any(|(at, _)| begins(at) && ends(at)) {
                found.push(format!("{line}: {phrase:?}: say {better:?}"));
            }
        }
    }
    found
}

fn files(dir: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|is| is == extension) {
            found.push(path);
        }
    }
}

#[test]
fn every_sentence_names_its_subject_first() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    files(&root.join("src"), "rs", &mut all);
    files(&root.join("docs"), "md", &mut all);
    all.sort();
    let mut wrong = Vec::new();
    for path in all {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let found = complaints(&text, name.ends_with(".md"));
        wrong.extend(found.into_iter().map(|complaint| format!("{name}:{complaint}")));
    }
    assert!(wrong.is_empty(), "{} places to write anew:\n{}", wrong.len(), wrong.join("\n"));
}

/// Comments `SAFETY: …` that name no reason, as `line: phrase`.
fn without_reason(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for Paragraph { line, text } in paragraphs(text, false) {
        let Some(reason) = text.split("SAFETY:").nth(1) else { continue };
        let lower = reason.to_lowercase();
        found.extend(
            NO_REASON.iter().filter(|phrase| lower.contains(**phrase)).map(|phrase| format!("{line}: {phrase:?}")),
        );
    }
    found
}

#[test]
fn every_safety_comment_names_what_it_rests_on() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for dir in ["src", "examples", "docs", "benches", "fuzz/fuzz_targets", "tests"] {
        files(&root.join(dir), "rs", &mut all);
    }
    assert!(all.len() > 300, "{} files", all.len());
    let mut wrong = Vec::new();
    // Neither what an example's build has made, nor the planted comments below.
    for path in all.into_iter().filter(|path| path.iter().all(|part| part != "target" && part != "words.rs")) {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let found = without_reason(&fs::read_to_string(&path).unwrap());
        wrong.extend(found.into_iter().map(|complaint| format!("{name}:{complaint}")));
    }
    assert!(wrong.is_empty(), "{} comments without a reason:\n{}", wrong.len(), wrong.join("\n"));
    for planted in ["// SAFETY: as above.\n", "// SAFETY: RAM-1; and\n// the caller's promise.\n"] {
        assert_eq!(without_reason(planted).len(), 1, "{planted}");
    }
    for right in ["// SAFETY: RAM-1: allocated above.\n", "/// As above.\n// SAFETY: `Mmu::read`: it is a table.\n"] {
        assert_eq!(without_reason(right), Vec::<String>::new(), "{right}");
    }
}

#[test]
fn a_planted_sentence_is_found() {
    for planted in [
        "/// What the pool's lock protects.\n",
        "/// Why a call was refused.\n",
        "//! A cache of objects. Whoever frees one\n//! owns it.\n",
        "    // The CPU stops. Who waits goes on.\n",
        "/// - `CPU-1`: Whatever is there stays.\n",
        "/// Frees it by the\n/// long way.\n",
        "/// The link leads\n/// nowhere.\n",
        "/// Takes an object that is at hand.\n",
    ] {
        assert_eq!(complaints(planted, false).len(), planted.matches("Whoever").count() + 1, "{planted}");
    }
    for planted in [
        "**What it costs.** Nothing.\n",
        "| Who frees | yes |\n",
        "1. Whose it is.\n",
        "It is kept.\nWhat stays is old.\n",
    ] {
        assert_eq!(complaints(planted, true).len(), 1, "{planted}");
    }
    for right in [
        "/// State protected by the pool's lock.\nfn what() { let whoever = \"What is this\"; }\n",
        "/// The prompt's `what` command; `whoever_waits` is a test.\n",
        "/// ```\n/// // What follows is code.\n/// ```\n",
        "/// The caller knows what it frees, and who owns it.\n",
    ] {
        assert_eq!(complaints(right, false), Vec::<String>::new(), "{right}");
    }
}
