//! One rule for the raw calls of `global` (docs/safety.md): what they answer with, what they take, how they free, and which
//! type owns what they give.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Calls that give memory out.
const MEMORY: &[&str] = &[
    "alloc_pages_exact",
    "get_dma_pages",
    "get_free_pages",
    "get_zeroed_page",
    "kcalloc",
    "kmalloc",
    "kmalloc_array",
    "kmap",
    "kmap_atomic",
    "krealloc",
    "kvcalloc",
    "kvmalloc",
    "kvrealloc",
    "kvzalloc",
    "kzalloc",
    "memremap",
    "vm_map_ram",
    "vmalloc",
    "vmalloc_exec",
    "vmalloc_gfp",
    "vmalloc_huge",
    "vmalloc_user",
    "vmap",
    "vrealloc",
    "vzalloc",
];
/// Calls that answer with an address for all that: (name, why).
const ADDRESSES: &[(&str, &str)] = &[
    ("devm_ioremap", "registers"),
    ("devm_ioremap_wc", "registers"),
    ("ioremap", "registers"),
    ("ioremap_gre", "registers"),
    ("ioremap_ngre", "registers"),
    ("ioremap_np", "registers"),
    ("ioremap_prot", "registers"),
    ("ioremap_wc", "registers"),
    ("ioremap_wt", "registers"),
    ("page_address", "computes"),
    ("per_cpu_ptr", "computes"),
    ("phys_to_virt", "computes"),
    ("this_cpu_ptr", "computes"),
    ("untag", "computes"),
    ("resume_at", "an address of code"),
];
/// Sizes and lengths that are no `usize`: (name, why).
const PHYSICAL: &[(&str, &str)] = &[
    ("devm_ioremap", "on the bus"),
    ("devm_ioremap_resource", "on the bus"),
    ("devm_ioremap_wc", "on the bus"),
    ("devm_release_mem_region", "on the bus"),
    ("devm_request_mem_region", "on the bus"),
    ("dma_alloc_coherent", "what a device transfers"),
    ("dma_alloc_noncoherent", "what a device transfers"),
    ("dma_alloc_wc", "what a device transfers"),
    ("dma_coherent_pool", "what a device transfers"),
    ("dma_free_coherent", "what a device transfers"),
    ("dma_map_page", "what a device transfers"),
    ("dma_map_single", "what a device transfers"),
    ("dma_sync_single_for_cpu", "what a device transfers"),
    ("dma_sync_single_for_device", "what a device transfers"),
    ("dmam_alloc_coherent", "what a device transfers"),
    ("dma_unmap_page", "what a device transfers"),
    ("dma_unmap_resource", "what a device transfers"),
    ("dma_unmap_single", "what a device transfers"),
    ("ioremap", "on the bus"),
    ("ioremap_gre", "on the bus"),
    ("ioremap_ngre", "on the bus"),
    ("ioremap_np", "on the bus"),
    ("ioremap_prot", "on the bus"),
    ("ioremap_wc", "on the bus"),
    ("ioremap_wt", "on the bus"),
    ("memremap", "on the bus"),
    ("release_mem_region", "on the bus"),
    ("request_mem_region", "on the bus"),
];
/// First words of calls that free.
const FREES: [&str; 9] = ["free", "iounmap", "kfree", "kvfree", "memunmap", "put", "vfree", "vm_unmap_ram", "vunmap"];
/// Owning types, each with the file that declares it and the raw calls beside it.
const OWNERS: &[(&str, &str, &str)] = &[
    (
        "Pages",
        "pages.rs",
        "alloc_pages alloc_page get_free_pages get_zeroed_page get_dma_pages alloc_pages_bulk alloc_pages_exact \
         split_page alloc_contig_pages alloc_contig_range free_pages free_page free_pages_bulk free_pages_exact \
         free_contig_range put_page",
    ),
    ("KBox", "alloc.rs", "kmalloc kzalloc kfree kfree_sensitive"),
    ("KVec", "alloc.rs", "kmalloc_array kcalloc krealloc kvcalloc kvrealloc"),
    ("VBox", "valloc.rs", "vmalloc vzalloc vmalloc_gfp vmalloc_huge vmalloc_user vfree vfree_atomic"),
    ("VVec", "valloc.rs", "vrealloc kvmalloc"),
    ("Vmap", "valloc.rs", "vmap vunmap vm_map_ram vm_unmap_ram"),
    (
        "IoMem",
        "io.rs",
        "ioremap ioremap_gre ioremap_ngre ioremap_np ioremap_prot ioremap_wc ioremap_wt iounmap memremap memunmap",
    ),
    ("ReservedRegion", "reserved.rs", "memremap memunmap"),
    ("MemRegion", "resource.rs", "request_mem_region release_mem_region"),
    ("PerCpu", "percpu.rs", "alloc_percpu alloc_percpu_gfp free_percpu"),
    ("KernelStack", "stack.rs", "alloc_stack"),
];

/// A free function.
struct Call {
    name: String,
    is_unsafe: bool,
    /// Between the parentheses, without the names of patterns: `size: usize`.
    takes: Vec<String>,
    /// Behind the arrow; empty for nothing.
    answers: String,
    docs: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The documentation and the attributes above the line at `at`.
fn docs_before(text: &str, at: usize) -> String {
    let above = text[..at].lines().rev().take_while(|line| {
        let line = line.trim_start();
        line.starts_with("///") || line.starts_with("#[") || line.starts_with("//")
    });
    let mut lines: Vec<&str> = above.collect();
    lines.reverse();
    lines.join("\n")
}

/// The parts of `text` between commas that are inside no bracket.
fn parts(text: &str) -> Vec<String> {
    let (mut depth, mut found) = (0_i32, vec![String::new()]);
    for c in text.chars() {
        match c {
            '(' | '[' | '<' => depth += 1,
            ')' | ']' | '>' => depth -= 1,
            _ => {}
        }
        if c == ',' && depth == 0 { found.push(String::new()) } else { found.last_mut().unwrap().push(c) }
    }
    found.iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// The public free functions of a source file.
fn calls(text: &str) -> Vec<Call> {
    let mut found = Vec::new();
    for start in ["\npub fn ", "\npub unsafe fn ", "\npub const fn ", "\npub const unsafe fn "] {
        for (at, _) in text.match_indices(start) {
            let head = &text[at + start.len()..];
            let head = &head[..head.find(" {\n").unwrap_or(head.len())];
            let name: String = head.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let open = head.find('(').unwrap();
            let mut depth = 0;
            let close = head[open..]
                .char_indices()
                .find(|(_, c)| {
                    depth += i32::from(*c == '(') - i32::from(*c == ')');
                    depth == 0
                })
                .unwrap()
                .0;
            found.push(Call {
                name,
                is_unsafe: start.contains("unsafe"),
                takes: parts(&head[open + 1..open + close]),
                answers: head[open + close + 1..].trim().trim_start_matches("->").trim().to_owned(),
                docs: docs_before(text, at + 1),
            });
        }
    }
    found
}

/// The sources of `src/global`, by name, and their calls.
fn sources() -> BTreeMap<String, String> {
    let files = fs::read_dir(root().join("src/global")).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap()))
        .collect()
}

fn all_calls() -> BTreeMap<String, Call> {
    sources().values().flat_map(|text| calls(text)).map(|call| (call.name.clone(), call)).collect()
}

/// Errors in the result or the arguments of a call.
fn faults_of(call: &Call) -> Vec<String> {
    let mut faults = Vec::new();
    let listed = |list: &[(&str, &str)]| list.iter().any(|(name, _)| *name == call.name);
    if MEMORY.contains(&call.name.as_str()) && !call.answers.contains("NonNull<u8>") {
        faults.push(format!("{} gives memory and answers with {}", call.name, call.answers));
    }
    if call.answers.contains("VirtAddr") && !listed(ADDRESSES) {
        faults.push(format!("{} answers with an address", call.name));
    }
    for part in &call.takes {
        let (name, kind) = part.split_once(": ").unwrap_or((part, ""));
        let is_size = ["size", "bytes", "align", "len"].contains(&name);
        if is_size && kind == "u64" && !listed(PHYSICAL) {
            faults.push(format!("{}: {part} is no usize", call.name));
        }
        if is_size && kind == "usize" && listed(PHYSICAL) {
            faults.push(format!("{}: {part} is no u64", call.name));
        }
        // An address comes in as anything that is one; the last two are of setting up.
        let takes_back = ["*mut u8", "*const u8", "NonNull<u8>", "VirtAddr"].contains(&kind);
        if takes_back && !["at", "elr", "place", "scratch"].contains(&name) {
            faults.push(format!("{}: {part} is neither `impl Pointer` nor `impl Address`", call.name));
        }
    }
    faults
}

/// Whether a call frees, so that it has the one form of frees.
fn frees(name: &str) -> bool {
    // Linux's name for a store to a process's memory.
    if name == "put_user" {
        return false;
    }
    let verb = name.strip_prefix("try_").unwrap_or(name);
    FREES.iter().any(|free| verb == *free || verb.starts_with(&format!("{free}_")))
}

#[test]
fn what_is_given_out_is_a_pointer_and_sizes_are_usize() {
    let calls = all_calls();
    let faults: Vec<String> = calls.values().flat_map(faults_of).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    let unknown: Vec<_> = MEMORY.iter().filter(|name| !calls.contains_key(**name)).collect();
    assert!(unknown.is_empty(), "no such calls: {unknown:?}");
    for (name, _) in ADDRESSES.iter().chain(PHYSICAL) {
        assert!(calls.contains_key(*name), "listed for nothing: {name}");
    }
}

#[test]
fn every_free_has_one_form_and_a_sister_that_answers() {
    let calls = all_calls();
    let all: Vec<&Call> = calls.values().filter(|call| frees(&call.name)).collect();
    assert!(all.len() >= 30, "the scan sees the frees: {}", all.len());
    for call in all {
        let name = &call.name;
        assert!(call.is_unsafe, "{name} is safe");
        if let Some(plain) = name.strip_prefix("try_") {
            assert!(call.answers.starts_with("Result<(), "), "{name} answers with {}", call.answers);
            let plain = calls.get(plain).unwrap_or_else(|| panic!("{name} has no sister that reports"));
            assert_eq!(plain.takes, call.takes, "{name} takes something else than its sister");
        } else {
            assert_eq!(call.answers, "", "{name} answers");
            assert!(calls.contains_key(&format!("try_{name}")), "{name} has no sister that answers");
        }
    }
}

#[test]
fn writes_take_what_is_written_first() {
    let (mmio, io) = (read("src/mm/io/mmio.rs"), read("src/global/io.rs"));
    for (text, wanted) in [
        (&mmio, "fn $write(&self, value: $word, offset: u64)"),
        (&mmio, "fn $write_relaxed(&self, value: $word, offset: u64)"),
        (&mmio, "fn memcpy_fromio(&self, into: &mut [u8], offset: u64)"),
        (&mmio, "fn memcpy_toio(&self, offset: u64, from: &[u8])"),
        (&mmio, "fn memset_io(&self, offset: u64, byte: u8, count: u64)"),
        (&io, "fn $write(value: $word, at: VirtAddr)"),
        (&io, "fn $write_relaxed(value: $word, at: VirtAddr)"),
    ] {
        assert!(text.contains(wanted), "no {wanted}");
    }
}

#[test]
fn raw_calls_and_owning_types_name_each_other() {
    let (files, calls) = (sources(), all_calls());
    for (owner, file, names) in OWNERS {
        let text = &files[*file];
        let declared = [format!("\npub struct {owner}"), format!("\npub type {owner}<")];
        let at = declared.iter().find_map(|form| text.find(form)).unwrap_or_else(|| panic!("no {owner} in {file}"));
        let docs = docs_before(text, at + 1);
        for name in names.split_whitespace() {
            assert!(docs.contains(&format!("`{name}`")), "{owner} does not name {name}");
            assert!(calls[name].docs.contains(&format!("`{owner}`")), "{name} does not name {owner}");
        }
    }
    let owned: BTreeSet<&str> = OWNERS.iter().flat_map(|(_, _, names)| names.split_whitespace()).collect();
    let unowned = calls.keys().filter(|name| frees(name) && !name.starts_with("try_") && *name != "kvfree");
    let unowned: Vec<_> = unowned.filter(|name| !owned.contains(name.as_str())).collect();
    assert!(unowned.is_empty(), "of no owning type: {unowned:?}");
}

#[test]
fn each_example_is_shown_and_run() {
    let shown: String = sources().into_values().collect();
    let run = read("tests/kernel/families.rs");
    let library = read("examples/families/src/lib.rs");
    let mut count = 0;
    for entry in fs::read_dir(root().join("docs/families")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let path = format!("docs/families/{name}");
        assert!(shown.contains(&format!("include_str!(\"../../{path}\")")), "{name} is in no documentation");
        assert!(run.contains(&format!("\"../../{path}\"")), "{name} is not run");
        assert!(library.contains(&format!("../../../{path}")), "{name} is not built");
        count += 1;
    }
    assert!(count >= 10, "{count} examples");
}

#[test]
fn every_familys_error_is_one_of_error() {
    let text = read("src/global/error.rs");
    let declared = &text[text.rfind("families! {").unwrap()..];
    for call in all_calls().values() {
        let Some(result) = call.answers.strip_prefix("Result<") else { continue };
        let answer = parts(result.trim_end_matches('>'));
        let Some(error) = answer.get(1) else { continue };
        // The value that is given back comes first.
        let error = error.rsplit_once(", ").map_or(error.as_str(), |(_, error)| error).trim_end_matches(')');
        let error = error.trim_end_matches('>').split('<').next().unwrap().trim_start_matches("crate::mm::");
        // Errors that only the setup returns, and a table's check.
        if !["Broken", "SetupError", "()"].contains(&error) {
            assert!(declared.contains(error), "{}: no way from {error} to `Error`", call.name);
        }
    }
}

/// The names of public enums that are errors and may be matched to the end.
fn exhaustive(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("\npub enum ") {
        let name: String = text[at + 10..].chars().take_while(|c| c.is_alphanumeric()).collect();
        let is_error = name.ends_with("Error") || text.contains(&format!("core::error::Error for {name} "));
        if is_error && !docs_before(text, at + 1).contains("#[non_exhaustive]") {
            found.push(name);
        }
    }
    found
}

fn walk(dir: &Path, into: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, into) } else { into.push(fs::read_to_string(&path).unwrap()) }
    }
}

#[test]
fn no_error_can_be_matched_to_the_end() {
    let mut texts = Vec::new();
    walk(&root().join("src"), &mut texts);
    let found: Vec<String> = texts.iter().flat_map(|text| exhaustive(text)).collect();
    assert!(found.is_empty(), "not `non_exhaustive`: {found:?}");
    assert_eq!(exhaustive("\n#[derive(Debug)]\npub enum MapError {\n"), ["MapError"]);
    assert!(exhaustive("\n#[non_exhaustive]\npub enum MapError {\n").is_empty());
}

#[test]
fn what_breaks_the_rule_is_seen() {
    let faults = |text: &str| calls(text).iter().flat_map(faults_of).count();
    assert_eq!(faults("\npub fn vmalloc(size: usize) -> Result<NonNull<u8>, MapError> {\n"), 0);
    assert_eq!(faults("\npub fn vmalloc(size: u64) -> Result<NonNull<u8>, MapError> {\n"), 1);
    assert_eq!(faults("\npub fn vmalloc(size: usize) -> Result<VirtAddr, MapError> {\n"), 2);
    assert_eq!(faults("\npub unsafe fn vfree(addr: VirtAddr) {\n"), 1);
    assert_eq!(faults("\npub unsafe fn vfree(addr: impl Pointer) {\n"), 0);
    assert_eq!(faults("\npub fn memremap(phys: PhysAddr, size: usize) -> Result<NonNull<u8>, IoError> {\n"), 1);
    let generic = calls("\npub unsafe fn free_pages_bulk<const N: usize>(batch: &mut PageBatch<N>) {\n");
    assert_eq!(generic[0].takes, ["batch: &mut PageBatch<N>"]);
    assert!(generic[0].answers.is_empty() && generic[0].is_unsafe && frees(&generic[0].name));
    assert!(frees("try_vfree_atomic") && frees("iounmap") && !frees("freeze") && !frees("vmalloc"));
}
