//! No circles of files: the graph of who names whom, and the circles that are known, each with its reason.
//!
//! `layering` reads `crate::` paths between modules; this reads every path of every file, `super::` and `self::` too, and follows
//! re-exports to the file that defines the name. A file that only passes names on (`pub use`) imports nothing by that.
//! Not seen: a method that is called on a value of a type from elsewhere, as its `impl` may be in any file.
#![expect(clippy::indexing_slicing, reason = "a mistake of this reader fails the test by a panic too")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The circles that there are, by their files below `src/` (all in one folder are written once), each with its reason. The list
/// may only shrink: a circle that is not here, or one that is smaller than here, fails the test.
#[rustfmt::skip]
const KNOWN: &[(&[&str], &str)] = &[
    (&["fdt/node.rs", "fdt/tree.rs"], "a node has a reference to its tree, and the tree returns its root as a node"),
    (
        &["mm/slab/cpu/array.rs", "mm/slab/cpu/masked.rs", "mm/slab/hal.rs"],
        "the machine's fast paths have bodies that mask interrupts, for machines without restartable sequences",
    ),
    (
        &["mm/user/access/pointer.rs", "mm/user/access/slice.rs"],
        "a pointer to one value is a slice of one, and a slice returns pointers",
    ),
    (
        &[
            "mm/zone/reclaim/background.rs", "mm/zone/reclaim/direct.rs", "mm/zone/reclaim/mod.rs", "mm/zone/reclaim/oom.rs",
        ],
        "to be opened: the state of reclaim has that of its stages, and each stage is written on the whole",
    ),
    (
        &[
            "mm/dma/coherent.rs", "mm/dma/contiguous.rs", "mm/dma/debug.rs", "mm/dma/device.rs", "mm/dma/device_pool.rs",
            "mm/dma/error.rs", "mm/dma/hal.rs", "mm/dma/mod.rs", "mm/dma/reserve.rs", "mm/dma/swiotlb.rs",
        ],
        "to be opened: devices, their pools and the reserves share one type of state in `mod.rs`",
    ),
    (
        &[
            "kernel/cpus/idle.rs", "kernel/cpus/mod.rs", "kernel/cpus/start.rs", "kernel/cpus/work.rs", "kernel/interrupts.rs",
            "kernel/panic.rs", "kernel/smp_call.rs", "kernel/tick.rs",
        ],
        "to be opened: a handler of interrupts runs what CPUs ask of each other, and asking is an interrupt",
    ),
    (
        &[
            "global/alloc.rs", "global/bring_up/memory.rs", "global/bring_up/mod.rs", "global/bring_up/pages.rs",
            "global/bring_up/tables.rs", "global/cma.rs", "global/cpu.rs", "global/dma.rs", "global/drain.rs",
            "global/fault_injection.rs", "global/io.rs", "global/kvmalloc.rs", "global/linear.rs", "global/machine.rs",
            "global/misuse.rs", "global/mod.rs", "global/pages.rs", "global/percpu.rs", "global/reclaim.rs",
            "global/reserved.rs", "global/resource.rs", "global/set_memory.rs", "global/slab.rs", "global/slab_fast.rs",
            "global/stack.rs", "global/static_percpu.rs", "global/switch_mm.rs", "global/tags.rs", "global/uaccess.rs",
            "global/user.rs", "global/user_pages.rs", "global/valloc.rs",
            "global/vmalloc.rs",
        ],
        "one image's allocators as statics: injectors, shrinkers and drains reach all of them, and all of them reach those",
    ),
];

/// A name that a file binds with `use`: the path, and whether others see it.
struct Binding {
    path: Vec<String>,
    is_public: bool,
}

/// A source file, as far as names go.
#[derive(Default)]
struct Source {
    /// Its module, as a path from the crate.
    module: Vec<String>,
    /// Names that it defines.
    items: BTreeSet<String>,
    /// Names that it imports, by the name that it uses.
    uses: BTreeMap<String, Binding>,
    /// Modules whose names it imports all, and imports without a name.
    globs: Vec<(Vec<String>, bool)>,
    /// Paths in its code, imports left out.
    paths: Vec<Vec<String>>,
}

/// The code of a source text: without comments, without what strings contain, without attributes' items for documentation.
fn code(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(next) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if next == '"' {
            out.push_str("\"\"");
            string_end(rest)
        } else if rest.starts_with("#[cfg(doc)]") || rest.starts_with("#[cfg(test)]") {
            // The import or module that follows is for documentation or a unit test alone.
            let end = rest.find([';', '{']).map_or(rest.len(), |end| end + 1);
            if rest[..end].contains("use ") { rest.find(';').map_or(rest.len(), |end| end + 1) } else { 1 }
        } else if rest.starts_with("'\"'") {
            3
        } else if rest.starts_with("pub(in ") {
            // A visibility is no import.
            out.push_str("pub(crate)");
            rest.find(')').map_or(rest.len(), |end| end + 1)
        } else {
            out.push(next);
            next.len_utf8()
        };
        rest = &rest[skip..];
    }
    out
}

/// Bytes of the string literal that a text starts with.
fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, next) in text.char_indices().skip(1) {
        match next {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The leaves of an import: (path, name that it binds; `_` for none, `*` for all).
fn leaves(tree: &str, before: &[String], into: &mut Vec<(Vec<String>, String)>) {
    let tree = tree.trim();
    if let Some((head, group)) = tree.split_once('{') {
        let mut path = before.to_vec();
        path.extend(head.split("::").map(str::trim).filter(|part| !part.is_empty()).map(String::from));
        let (mut depth, mut start) = (0, 0);
        let group = group.strip_suffix('}').unwrap_or(group);
        for (at, next) in group.char_indices() {
            match next {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    leaves(&group[start..at], &path, into);
                    start = at + 1;
                }
                _ => {}
            }
        }
        return leaves(&group[start..], &path, into);
    }
    let (path, name) =
        tree.split_once(" as ").map_or((tree, None), |(path, name)| (path, Some(name.trim().to_string())));
    let mut full = before.to_vec();
    full.extend(path.split("::").map(str::trim).filter(|part| !part.is_empty()).map(String::from));
    if full.len() > 1 && full.last().is_some_and(|last| last == "self") {
        full.pop();
    }
    if let Some(last) = full.last().cloned().filter(|_| !path.is_empty()) {
        into.push((full, name.unwrap_or(last)));
    }
}

impl Source {
    fn read(path: &str, text: &str) -> Self {
        let mut module: Vec<_> =
            path.trim_start_matches("src/").trim_end_matches(".rs").split('/').map(String::from).collect();
        if module.last().is_some_and(|last| last == "mod" || last == "lib") {
            module.pop();
        }
        let mut source = Self { module, ..Self::default() };
        let code = code(text);
        let mut body = String::new();
        for (number, part) in code.split(';').enumerate() {
            // An import stands behind the last bracket or attribute of what comes before it.
            let found = part.match_indices("use ").find(|(at, _)| {
                let before = part[..*at].trim_end();
                before.is_empty() || before.ends_with(['}', '{', ']']) || before.ends_with("pub") || is_scope(before)
            });
            let Some((at, _)) = found.filter(|_| number < code.len()) else {
                body.push_str(part);
                body.push(';');
                continue;
            };
            body.push_str(&part[..at]);
            body.push('\n');
            let before = part[..at].trim_end();
            let is_public = before.ends_with("pub") || is_scope(before);
            let mut all = Vec::new();
            leaves(&part[at + 4..], &[], &mut all);
            for (path, name) in all {
                if name == "*" {
                    source.globs.push((path[..path.len() - 1].to_vec(), is_public));
                } else if name == "_" {
                    source.paths.push(path);
                } else {
                    source.uses.insert(name, Binding { path, is_public });
                }
            }
        }
        source.find_items(&body);
        source.find_paths(&body);
        source
    }

    fn find_items(&mut self, body: &str) {
        let words: Vec<_> = body.split(|c: char| !is_word(c) && c != '!').filter(|word| !word.is_empty()).collect();
        for pair in words.windows(2) {
            let is_item = ["struct", "enum", "union", "trait", "type", "fn", "const", "static", "macro_rules!"];
            if is_item.contains(&pair[0]) {
                self.items.insert(pair[1].to_string());
            }
        }
    }

    /// Paths of two names or more, and single names that an import binds.
    fn find_paths(&mut self, body: &str) {
        let mut rest = body;
        while let Some(start) = rest.find(|c: char| is_word(c)) {
            rest = &rest[start..];
            let (mut path, mut at) = (Vec::new(), 0);
            loop {
                let end = rest[at..].find(|c: char| !is_word(c)).map_or(rest.len(), |end| at + end);
                path.push(rest[at..end].to_string());
                at = end;
                match rest[end..].strip_prefix("::") {
                    Some(after) if after.starts_with(is_word) => at = end + 2,
                    _ => break,
                }
            }
            rest = &rest[at..];
            if path.len() > 1 || self.uses.contains_key(&path[0]) {
                self.paths.push(path);
            }
        }
    }
}

/// Whether a text ends in `pub(…)`.
fn is_scope(before: &str) -> bool {
    before.ends_with(')') && before.rfind('(').is_some_and(|open| before[..open].ends_with("pub"))
}

/// The files of a crate, by module.
struct Graph {
    sources: BTreeMap<Vec<String>, (String, Source)>,
}

impl Graph {
    fn new(files: &[(String, String)]) -> Self {
        let files = files.iter().map(|(path, text)| {
            let source = Source::read(path, text);
            (source.module.clone(), (path.clone(), source))
        });
        Self { sources: files.collect() }
    }

    /// The absolute path that a path in `source` means; `None` if it leaves the crate, or names something local.
    fn absolute(&self, source: &Source, path: &[String]) -> Option<Vec<String>> {
        let mut at = source.module.clone();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => {
                at.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|first| first == "super") {
                    at.pop();
                    rest = &rest[1..];
                }
            }
            first => {
                if let Some(binding) = source.uses.get(first).filter(|binding| binding.path.first() != path.first()) {
                    let mut whole = self.absolute(source, &binding.path)?;
                    whole.extend_from_slice(&rest[1..]);
                    return Some(whole);
                }
                // A module of this one, or nothing of this crate.
                at.push(first.to_string());
                if !self.sources.contains_key(&at) {
                    return None;
                }
                rest = &rest[1..];
            }
        }
        at.extend_from_slice(rest);
        Some(at)
    }

    /// The file that defines what an absolute path names.
    fn file_of(&self, path: &[String], depth: u32) -> Option<&str> {
        let mut length = path.len();
        while length > 0 && !self.sources.contains_key(&path[..length]) {
            length -= 1;
        }
        let (name, source) = self.sources.get(&path[..length])?;
        let Some(item) = path.get(length) else { return Some(name) };
        if source.items.contains(item) || depth == 0 {
            return Some(name);
        }
        if let Some(binding) = source.uses.get(item) {
            let whole = self.absolute(source, &binding.path)?;
            return self.file_of(&whole, depth - 1);
        }
        for (glob, _) in &source.globs {
            let Some(mut whole) = self.absolute(source, glob) else { continue };
            let target = self.sources.get(&whole)?;
            if target.1.items.contains(item) || target.1.uses.contains_key(item) {
                whole.push(item.clone());
                return self.file_of(&whole, depth - 1);
            }
        }
        Some(name)
    }

    /// Who names whom, by file.
    fn edges(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut edges = BTreeMap::new();
        for (name, source) in
            self.sources.values().filter(|(name, _)| !["src/lib.rs", "src/main.rs"].contains(&name.as_str()))
        {
            let globs = source.globs.iter().filter(|(_, is_public)| !is_public).map(|(path, _)| path);
            let silent = source.uses.values().filter(|binding| !binding.is_public).map(|binding| &binding.path);
            // Traits are used without their name.
            let traits = silent.filter(|path| path.last().is_some_and(|last| last.ends_with("Hal")));
            let paths = source.paths.iter().chain(globs).chain(traits);
            let targets = paths.filter_map(|path| self.file_of(&self.absolute(source, path)?, 8));
            let targets = targets.filter(|to| to != name && *to != "src/lib.rs").collect();
            edges.insert(name.as_str(), targets);
        }
        edges
    }

    /// The circles: sets of more than one file that all reach each other, sorted.
    fn circles(&self) -> Vec<Vec<&str>> {
        let edges = self.edges();
        let reach = |from: &str| {
            let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
            while let Some(at) = left.pop() {
                for to in edges.get(at).into_iter().flatten() {
                    if seen.insert(*to) {
                        left.push(to);
                    }
                }
            }
            seen
        };
        let reached: BTreeMap<_, _> = edges.keys().map(|file| (*file, reach(file))).collect();
        let mut found: Vec<Vec<&str>> = Vec::new();
        for (file, to) in &reached {
            if to.contains(file) && !found.iter().any(|circle| circle.contains(file)) {
                found.push(to.iter().copied().filter(|other| reached[other].contains(file)).collect());
            }
        }
        found
    }
}

fn sources(dir: &Path, into: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_str().unwrap().to_string();
            into.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn no_circle_of_files_is_unknown() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let graph = Graph::new(&files);
    let (circles, edges) = (graph.circles(), graph.edges());
    let known: BTreeSet<Vec<String>> =
        KNOWN.iter().map(|(files, _)| files.iter().map(|file| format!("src/{file}")).collect()).collect();
    let found: BTreeSet<Vec<String>> =
        circles.iter().map(|circle| circle.iter().map(ToString::to_string).collect()).collect();
    let describe = |circle: &Vec<String>| {
        let inside = |file: &String| {
            let to: Vec<_> = edges[file.as_str()].iter().filter(|to| circle.iter().any(|other| other == *to)).collect();
            format!("    {file} names {to:?}\n")
        };
        format!("a circle of {}:\n{}", circle.len(), circle.iter().map(inside).collect::<String>())
    };
    let wrong: String = found.difference(&known).map(describe).collect();
    assert!(wrong.is_empty(), "{wrong}");
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(gone.is_empty(), "these circles are open: take them off the list: {gone:?}");
    assert!(edges.values().map(BTreeSet::len).sum::<usize>() > 1000, "few imports: the test does not see them");
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    let planted: [&[(&str, &str)]; 6] = [
        &[
            ("src/a/mod.rs", "mod b; mod c;"),
            ("src/a/b.rs", "use super::c::X; fn f(_: X) {}"),
            ("src/a/c.rs", "use super::b::f; struct X; fn g() { f(X) }"),
        ],
        &[
            ("src/a/mod.rs", "mod b; mod c; pub use b::f; pub use c::X;"),
            ("src/a/b.rs", "use super::X; pub fn f(_: X) {}"),
            ("src/a/c.rs", "pub struct X; fn g() { super::f(X) }"),
        ],
        &[
            ("src/a/mod.rs", "mod b; use b::{self as bee}; struct X; fn g() { bee::f(X) }"),
            ("src/a/b.rs", "fn f(_: super::X) {}"),
        ],
        &[
            ("src/a.rs", "use crate::b::{Y as Z, c}; fn f() { c::go(Z) }"),
            ("src/b/mod.rs", "mod c; pub struct Y;"),
            ("src/b/c.rs", "fn go() { crate::a::f() }"),
        ],
        &[
            ("src/a/mod.rs", "pub mod b; pub trait Hal {}"),
            ("src/a/b.rs", "use crate::a::Hal; pub struct X; impl X { fn f(h: impl Hal) {} }"),
            ("src/a/c.rs", ""),
            ("src/z.rs", ""),
            ("src/a/mod.rs", "pub mod b; pub trait Hal { fn x() -> self::b::X; }"),
        ],
        &[("src/a.rs", "use crate::b::*; struct X;"), ("src/b.rs", "use crate::a::X; const Y: X = X;")],
    ];
    for files in planted {
        let files: Vec<_> = files.iter().map(|(path, text)| (path.to_string(), text.to_string())).collect();
        assert_eq!(Graph::new(&files).circles().len(), 1, "{files:?}");
    }
    let straight = [
        ("src/a/mod.rs", "mod b; mod c; pub use b::f; pub use c::X;"),
        ("src/a/b.rs", "use super::X; // super::c::g\npub fn f(_: X) -> &str { \"super::c::g\" }"),
        ("src/a/c.rs", "#[cfg(doc)]\nuse super::b::f;\npub struct X; pub fn g() {}"),
    ];
    let straight = straight.map(|(path, text)| (path.to_string(), text.to_string()));
    assert!(Graph::new(&straight).circles().is_empty());
}

/// The layers of a module that has a folder for each, from the ground up.
const LAYERS: &[(&str, &[&str])] = &[
    ("src/mm/slab", &["object", "words", "cpu", "cache", "depot", "debug", "calls", "views"]),
    ("src/mm/zone", &["blocks", "pcp", "contents", "contiguous", "setup", "calls", "reclaim", "views"]),
];

/// Imports of a higher layer's files, and folders without a place among the layers.
fn upward(graph: &Graph) -> String {
    let mut wrong = String::new();
    for (module, layers) in LAYERS {
        let folder = |path: &str| {
            let inside = path.strip_prefix(module)?.strip_prefix('/')?;
            inside.split_once('/').map(|(folder, _)| folder.to_string())
        };
        let floor = |folder: &str| layers.iter().position(|layer| *layer == folder);
        for (file, imports) in graph.edges() {
            let Some(own) = folder(file) else { continue };
            if floor(&own).is_none() {
                wrong += &format!("{file}: the folder {own} has no place in the order\n");
            }
            let above = |to: &&&str| folder(to).is_some_and(|other| floor(&other) > floor(&own));
            imports
                .iter()
                .filter(above)
                .for_each(|to| wrong += &format!("{file} imports {to}, of a layer above its own\n"));
        }
    }
    wrong
}

#[test]
fn no_folder_imports_from_a_layer_above_its_own() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let wrong = upward(&Graph::new(&files));
    assert!(wrong.is_empty(), "{wrong}");
    let counted =
        LAYERS.iter().flat_map(|(module, layers)| layers.iter().map(move |layer| format!("{module}/{layer}/")));
    let missing: Vec<_> = counted.filter(|layer| !files.iter().any(|(path, _)| path.starts_with(layer))).collect();
    assert!(missing.is_empty(), "layers without a file: {missing:?}");
}

#[test]
fn an_import_from_a_layer_above_is_found() {
    let planted = |text: &str| {
        let files = [
            ("src/mm/slab/mod.rs", "mod object; mod calls;"),
            ("src/mm/slab/object/mod.rs", "mod id;"),
            ("src/mm/slab/object/id.rs", text),
            ("src/mm/slab/calls/mod.rs", "mod alloc; pub(super) use alloc::f;"),
            ("src/mm/slab/calls/alloc.rs", "pub(in crate::mm::slab) fn f() {}"),
            ("src/mm/slab/other/mod.rs", ""),
        ];
        upward(&Graph::new(&files.map(|(path, text)| (path.to_string(), text.to_string()))))
    };
    assert!(planted("use super::super::calls::f; fn g() { f() }").contains("imports src/mm/slab/calls/alloc.rs"));
    assert!(planted("fn g() {}").contains("the folder other has no place"));
    assert!(!planted("fn g() {}").contains("imports"));
}
