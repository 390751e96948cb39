//! The house has floors: no module imports from a floor above its own, and no two modules import each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Top-level modules by floor, and the order inside `mm`, which is an order of imports too.
const FLOORS: &[(&str, u8)] = &[
    ("addr", 0),
    ("gfp", 0),
    ("hal", 1),
    ("sync", 2),
    ("ds", 2),
    ("fdt", 2),
    ("mm", 3),
    ("arch", 4),
    ("board", 4),
    ("driver", 4),
    ("global", 5),
    ("single", 5),
    ("boot", 6),
    ("kernel", 7),
    ("prelude", 6),
];
const MM_ORDER: &[&str] = &[
    "layout",
    "tags",
    "fault_inject",
    "memblock",
    "page",
    "zone",
    "pgtable",
    "slab",
    "alloc",
    "mempool",
    "vmalloc",
    "percpu",
    "io",
    "dma",
    "user",
    "stats",
    "check",
];

fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// Every `crate::a::b` path in a source text outside comments, as (a, b).
fn paths(text: &str) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let code = line.split("//").next().unwrap_or("");
        for piece in code.split("crate::").skip(1) {
            let ident = |s: &str| s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
            let first = ident(piece);
            // `use crate::{…}` is for macros alone, which live at the root in every case.
            let grouped = piece.strip_prefix('{').and_then(|group| group.split('}').next());
            for name in grouped.into_iter().flat_map(|group| group.split(',')).map(str::trim) {
                assert!(name.starts_with("kprint"), "write one `use crate::module` a line, not a group: {line}");
            }
            let second = piece[first.len()..].strip_prefix("::").map(ident).unwrap_or_default();
            found.insert((first, second));
        }
    }
    found
}

/// The module that a file belongs to, as (top, second): `src/mm/zone/pcp/pages.rs` is (mm, zone).
fn module_of(path: &str) -> (String, String) {
    let inner = path.strip_prefix("src/").unwrap_or(path).trim_end_matches(".rs");
    let mut parts = inner.split('/');
    let top = parts.next().unwrap_or_default().to_string();
    let second = parts.next().unwrap_or_default().to_string();
    (top, second)
}

/// Errors in the imports of the given (path, text) files.
fn violations(files: &[(String, String)]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in files {
        let (top, second) = module_of(path);
        if top == "lib" || top == "main" {
            continue;
        }
        let Some(own) = floor(&top) else {
            wrong.push(format!("{path}: module `{top}` has no floor"));
            continue;
        };
        for (to, to_second) in paths(text) {
            let Some(other) = floor(&to) else { continue };
            if other > own {
                wrong.push(format!("{path} (L{own}) imports crate::{to} (L{other})"));
            }
            if own == 4 && to == "mm" {
                wrong.push(format!("{path}: the machine may not know mm"));
            }
            if to != top {
                edges.entry(top.clone()).or_default().insert(to.clone());
            }
            if top == "mm" && to == "mm" {
                let place = |name: &str| MM_ORDER.iter().position(|m| *m == name);
                match (place(&second), place(&to_second)) {
                    (Some(from), Some(into)) if into > from => {
                        wrong.push(format!("{path}: mm::{second} comes before mm::{to_second} and may not import it"));
                    }
                    (None, _) if second != "mod" => {
                        wrong.push(format!("{path}: mm::{second} has no place in the order"))
                    }
                    _ => {}
                }
            }
        }
    }
    for (from, targets) in &edges {
        for to in targets {
            if from < to && edges.get(to).is_some_and(|back| back.contains(from)) {
                wrong.push(format!("{from} and {to} import each other"));
            }
        }
    }
    wrong
}

fn sources(dir: &Path, into: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_string();
            into.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn no_module_imports_from_above() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    assert!(files.len() > 10);
    let wrong = violations(&files);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_upward_import_is_found() {
    let planted = [
        ("src/hal/mmu.rs", "use crate::mm::layout;", "imports crate::mm"),
        ("src/arch/aarch64/tlb.rs", "use crate::mm::layout;", "may not know mm"),
        ("src/mm/zone/pcp/pages.rs", "fn f() { crate::mm::slab::x() }", "comes before mm::slab"),
        ("src/addr/mod.rs", "use crate::kernel::log;", "imports crate::kernel"),
        ("src/odds/mod.rs", "", "has no floor"),
    ];
    for (path, text, expected) in planted {
        let wrong = violations(&[(path.into(), text.into())]);
        assert!(wrong.iter().any(|w| w.contains(expected)), "{path}: {wrong:?}");
    }
    let circle = [("src/arch/a.rs", "use crate::board::x;"), ("src/board/b.rs", "use crate::arch::y;")];
    let wrong = violations(&circle.map(|(p, t)| (p.into(), t.into())));
    assert!(wrong.iter().any(|w| w.contains("import each other")), "{wrong:?}");
}

#[test]
fn no_module_is_a_drawer() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    for (path, _) in files {
        for drawer in ["utils", "util", "common", "misc", "helpers", "helper"] {
            assert!(!path.split(['/', '.']).any(|part| part == drawer), "{path} is a drawer, not a room");
        }
    }
}

/// The files that the tables of `docs/unsafe.md` list.
fn listed(page: &str) -> BTreeSet<String> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('|').next());
    cells.flat_map(|cell| cell.split(", ").map(|name| format!("src/{}", name.trim().trim_matches('`')))).collect()
}

/// Whether a source text has an unsafe block, function, trait, implementation or attribute.
fn has_unsafe(text: &str) -> bool {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or(""));
    code.flat_map(|code| code.split(|c: char| !c.is_alphanumeric() && c != '_')).any(|word| word == "unsafe")
}

#[test]
fn unsafe_code_is_where_the_table_says() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/unsafe.md")).unwrap();
    let found: BTreeSet<String> = files
        .into_iter()
        // The crate's root has it in an example of its documentation alone.
        .filter(|(_, text)| has_unsafe(text))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(listed(&page), found);
    assert!(has_unsafe("let x = unsafe { y };") && !has_unsafe("// unsafe\n#![forbid(unsafe_code)]"));
}
