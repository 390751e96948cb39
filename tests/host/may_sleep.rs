//! Functions that may sleep: each that says so asserts it, and a test shows that it refuses where sleeping is not allowed.
//! Those of the slab layer are called one by one in `slab::sleeping`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The documentation phrase for functions that may sleep.
const WORDS: &str = "where sleeping is allowed";

/// File and name of every function outside the slab layer, and the test that calls it in atomic context.
const SHOWN: [(&str, &str); 39] = [
    ("mm/zone/reclaim/registry.rs unregister", "whoever_may_not_wait_unregisters_nobody"),
    ("mm/zone/reclaim/background.rs balance", "the_background_reclaimer_works_only_where_sleeping_is_allowed"),
    ("global/reclaim.rs defer_no_more", "whoever_may_not_wait_makes_no_waiting_call"),
    ("global/reclaim.rs idle", "whoever_may_not_wait_makes_no_waiting_call"),
    ("kernel/cpus/start.rs cpu_up", "whoever_may_not_wait_makes_no_waiting_call"),
    ("kernel/cpus/start.rs cpu_down", "whoever_may_not_wait_makes_no_waiting_call"),
    ("kernel/cpus/work.rs run_everywhere", "whoever_may_not_wait_makes_no_waiting_call"),
    ("kernel/smp_call.rs smp_call", "whoever_may_not_wait_makes_no_waiting_call"),
    ("kernel/tick.rs start", "whoever_may_not_wait_makes_no_waiting_call"),
    ("kernel/tick.rs stop", "whoever_may_not_wait_makes_no_waiting_call"),
    ("mm/mempool/pool.rs create", "what_may_sleep_of_a_pool_refuses_in_atomic_context_before_it_changes_anything"),
    ("mm/mempool/pool.rs resize", "what_may_sleep_of_a_pool_refuses_in_atomic_context_before_it_changes_anything"),
    ("mm/mempool/pool.rs destroy", "what_may_sleep_of_a_pool_refuses_in_atomic_context_before_it_changes_anything"),
    ("mm/mempool/typed.rs destroy", "whoever_may_not_sleep_makes_no_pool"),
    ("global/mempool.rs mempool_create", "whoever_may_not_sleep_makes_no_pool"),
    ("global/mempool.rs mempool_create_slab_pool", "whoever_may_not_sleep_makes_no_pool"),
    ("global/mempool.rs mempool_create_kmalloc_pool", "whoever_may_not_sleep_makes_no_pool"),
    ("global/mempool.rs mempool_create_page_pool", "whoever_may_not_sleep_makes_no_pool"),
    ("global/mempool.rs mempool_resize", "whoever_may_not_sleep_makes_no_pool"),
    ("global/mempool.rs mempool_destroy", "whoever_may_not_sleep_makes_no_pool"),
    ("global/mempool.rs create", "whoever_may_not_sleep_makes_no_pool"),
    ("global/mempool.rs destroy_all", "whoever_may_not_sleep_makes_no_pool"),
    ("mm/user/space.rs change", "areas_do_not_change_in_atomic_context"),
    ("mm/user/space.rs mmap", "areas_do_not_change_in_atomic_context"),
    ("mm/user/space.rs munmap", "areas_do_not_change_in_atomic_context"),
    ("mm/user/space.rs mprotect", "areas_do_not_change_in_atomic_context"),
    ("mm/user/space.rs mremap", "areas_do_not_change_in_atomic_context"),
    ("mm/user/space.rs brk", "areas_do_not_change_in_atomic_context"),
    ("mm/user/space.rs madvise", "areas_do_not_change_in_atomic_context"),
    ("mm/user/space.rs populate", "areas_do_not_change_in_atomic_context"),
    ("mm/user/space.rs insert_page", "areas_do_not_change_in_atomic_context"),
    ("mm/user/space.rs with_map", "areas_do_not_change_in_atomic_context"),
    ("mm/user/space.rs with_map_mut", "areas_do_not_change_in_atomic_context"),
    ("mm/user/space.rs fork", "areas_do_not_change_in_atomic_context"),
    ("kernel/process/schedule.rs run", "processes_start_only_where_sleeping_is_allowed"),
    ("kernel/process/start.rs start", "processes_start_only_where_sleeping_is_allowed"),
    ("kernel/process/start.rs execute", "processes_start_only_where_sleeping_is_allowed"),
    ("kernel/dma_benchmark.rs run", "parameters_out_of_range_are_refused"),
    (
        "mm/slab, mm/alloc, global/{slab,alloc}.rs",
        "what_may_sleep_refuses_in_atomic_context_before_it_changes_anything",
    ),
];

/// Other words for the same would pass the reader by.
const OTHER_WORDS: [&str; 4] =
    ["waiting is legal", "waiting is allowed", "sleeping is legal", "may be called where sleep"];

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every function whose documentation has the words, by file and name, with its body.
fn documented(text: &str, file: &str) -> BTreeMap<String, String> {
    let (mut found, mut words) = (BTreeMap::new(), String::new());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let bare = line.trim();
        if let Some(comment) = bare.strip_prefix("///") {
            words = format!("{words} {}", comment.trim());
        } else if let Some((_, rest)) = bare.split_once("fn ").filter(|_| !bare.starts_with("//")) {
            let name = rest.split(['(', '<']).next().unwrap();
            if words.to_lowercase().contains(WORDS) {
                let indent = line.len() - bare.len();
                let closes = format!("{}}}", " ".repeat(indent));
                let body: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with(&closes)).collect();
                found.insert(format!("{file} {name}"), body.join("\n"));
            }
            words.clear();
        } else if !bare.starts_with("#[") && !bare.starts_with("// ") {
            words.clear();
        }
    }
    found
}

fn all() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for path in files(&root().join("src")) {
        let file = path.strip_prefix(root().join("src")).unwrap().to_str().unwrap().to_owned();
        found.extend(documented(&fs::read_to_string(path).unwrap(), &file));
    }
    // The assertion itself.
    found.retain(|function, _| !function.starts_with("mm/zone/calls/might_sleep.rs "));
    found
}

fn is_of_slab_layer(function: &str) -> bool {
    ["mm/slab/", "mm/alloc/", "global/slab.rs ", "global/alloc.rs "].iter().any(|start| function.starts_with(start))
}

#[test]
fn every_function_that_may_sleep_is_listed_with_its_test() {
    let named: BTreeSet<String> = all().into_keys().filter(|function| !is_of_slab_layer(function)).collect();
    let listed = SHOWN.iter().map(|(function, _)| (*function).to_owned());
    let listed: BTreeSet<String> =
        listed.filter(|function| !is_of_slab_layer(&format!("{function}/")) && function.contains(".rs ")).collect();
    assert_eq!(named, listed);
    let tests: String = files(&root().join("tests"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    for (function, test) in SHOWN {
        assert!(tests.contains(&format!("fn {test}(")), "{function}: no test {test}");
    }
}

/// The first thing that happens is the assertion, or a call of another function of the kind.
fn asserts_first(body: &str, others: &BTreeSet<&str>) -> bool {
    let calls = |line: &str, name: &str| line.contains(&format!("{name}("));
    let asserts = |line: &str| {
        calls(line, "might_sleep") || calls(line, "sleeps_in_atomic") || others.iter().any(|other| calls(line, other))
    };
    body.lines().take(FIRST_LINES).any(asserts)
}

/// Lines that may stand before it: constants and functions of the body, a check of the arguments.
const FIRST_LINES: usize = 16;

/// It makes a value that asserts when it is printed.
const WHEN_PRINTED: &str = "mm/slab/views/slabinfo.rs slabinfo";

#[test]
fn every_function_that_may_sleep_asserts_so_first() {
    let all = all();
    let names: BTreeSet<&str> = all.keys().map(|function| function.split(' ').nth(1).unwrap()).collect();
    for (function, body) in all.iter().filter(|(function, _)| *function != WHEN_PRINTED) {
        assert!(asserts_first(body, &names), "{function} says that it may sleep, and does not assert it:\n{body}");
    }
}

#[test]
fn a_function_that_asserts_nothing_is_seen() {
    let planted =
        "/// Frees all. Where sleeping is\n/// allowed.\n#[inline]\npub fn free_all(&self) {\n    self.free();\n}\n";
    let found = documented(planted, "planted.rs");
    assert_eq!(found.keys().collect::<Vec<_>>(), ["planted.rs free_all"]);
    assert!(!asserts_first(&found["planted.rs free_all"], &BTreeSet::new()));
    assert!(asserts_first("    self.might_sleep(\"free_all\")?;", &BTreeSet::new()));
}

#[test]
fn there_is_one_way_to_say_it() {
    for path in files(&root().join("src")) {
        let text = fs::read_to_string(&path).unwrap().to_lowercase().replace("\n    ///", " ").replace("\n///", " ");
        for words in OTHER_WORDS {
            assert!(!text.contains(words), "{}: say \"{WORDS}\"", path.display());
        }
    }
}
