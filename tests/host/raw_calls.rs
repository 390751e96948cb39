//! Safe means safe: which public functions may be called without `unsafe` on something that is named by an address, a page
//! or a number (docs/safety.md).

use std::fs;
use std::path::Path;

/// First words of names of calls that end, move or change what they are told of.
const VERBS: [&str; 39] = [
    "add",
    "bring",
    "carve",
    "change",
    "claim",
    "collapse",
    "complete",
    "destroy",
    "disown",
    "free",
    "give",
    "iounmap",
    "kfree",
    "krealloc",
    "kvfree",
    "kvrealloc",
    "map",
    "memunmap",
    "populate",
    "protect",
    "put",
    "recycle",
    "release",
    "remap",
    "remove",
    "replace",
    "reset",
    "set",
    "shrink",
    "split",
    "start",
    "swap",
    "take",
    "unmap",
    "vfree",
    "vm",
    "vrealloc",
    "vunmap",
    "write",
];
/// Types that name memory, a mapping or an area without owning it.
const NAMES: [&str; 16] = [
    "Address",
    "AreaRef",
    "BlockName",
    "NonNull",
    "Page",
    "PageBatch",
    "Pages",
    "PerCpuPtr",
    "Pfn",
    "PhysAddr",
    "PhysRange",
    "Pointer",
    "Removed",
    "VirtAddr",
    "VirtRange",
    "mut",
];
/// Calls of whole CPUs: what they end is not named at all.
const OF_CPUS: [&str; 3] = ["bring_cpu_online", "start_cpu", "take_cpu_offline"];
/// Safe although verb and type say otherwise: (path and name, why). This list only shrinks.
const SAFE: &[(&str, &str)] = &[
    ("src/global/reserved.rs map_part", "a part of the region that the value owns, by the one type that it has"),
    ("src/global/resource.rs release_mem_region", "a note in the resource tree: no mapping and no memory changes"),
    ("src/global/vmalloc.rs vm_map_ram", "makes an address of what has one already; to use it is unsafe"),
    ("src/mm/vmalloc/block.rs vm_map_ram", "as above"),
    ("src/mm/io/early.rs take", "a note about what the boot loader left; nothing is mapped by it"),
    ("src/mm/io/space.rs set_up", "says once what RAM there is and what is reserved; nothing is mapped by it"),
    (
        "src/mm/memblock/alloc.rs set_limit",
        "lists of ranges by exclusive reference: memory changes hands at the hand-over",
    ),
    ("src/mm/memblock/bootmem.rs free_bootmem", "as above"),
    ("src/mm/memblock/bootmem.rs set_low_limit", "as above"),
    ("src/mm/memblock/mod.rs add", "as above"),
    ("src/mm/memblock/mod.rs add_with_flags", "as above"),
    ("src/mm/memblock/mod.rs free", "as above"),
    ("src/mm/memblock/mod.rs remove", "as above"),
    ("src/mm/pgtable/map.rs populate", "adds empty tables: what is translated stays what it was"),
    ("src/mm/slab/depot/exchange.rs free_to_spare", "checks the object as a free does"),
    (
        "src/mm/user/pages/anon.rs populate",
        "user addresses of a space that the caller has: the kernel refers to nothing there that is not pinned",
    ),
    ("src/mm/user/pages/protect.rs protect", "as above"),
    ("src/mm/user/pages/zap.rs unmap", "as above"),
    ("src/mm/vmalloc/area.rs set_phys", "a note that reports print"),
    ("src/mm/vmalloc/early.rs add_early", "a note of addresses that are taken; nothing is mapped by it"),
];

struct Signature {
    /// Path and name.
    name: String,
    is_unsafe: bool,
    /// From the name to the block.
    text: String,
}

/// The public functions of a source file, methods and free ones; not those of traits, nor of the crate alone.
fn signatures(path: &str, text: &str) -> Vec<Signature> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|l| format!("{l}\n")).collect();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("pub ") {
        let rest = &code[at + 4..];
        let Some(to_fn) =
            rest.find("fn ").filter(|to| rest[..*to].split_whitespace().all(|w| ["const", "unsafe"].contains(&w)))
        else {
            continue;
        };
        let text: String = rest[to_fn + 3..].chars().take_while(|c| !['{', ';'].contains(c)).collect();
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
        found.push(Signature {
            name: format!("{path} {}", &text[..end]),
            is_unsafe: rest[..to_fn].contains("unsafe"),
            text,
        });
    }
    found
}

/// Whether a call may end or change what others hold, by its signature.
fn is_raw(signature: &Signature) -> bool {
    // Nobody but this crate can make one.
    if signature.text.contains("_: Internal") {
        return false;
    }
    let name = signature.name.rsplit(' ').next().unwrap_or_default();
    let takes = signature.text.split("->").next().unwrap_or_default();
    let mut words = takes.split(|c: char| !c.is_alphanumeric());
    // `&mut` is no pointer.
    let takes_name = words.any(|word| word != "mut" && NAMES.contains(&word)) || takes.contains("*mut");
    let is_self_named = takes.contains("(self") && signature.name.contains("vmalloc/raw_calls.rs");
    let verb = name.split('_').next().unwrap_or_default();
    OF_CPUS.contains(&name) || VERBS.contains(&verb) && (takes_name || is_self_named)
}

fn sources(dir: &Path, into: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_str().unwrap().to_owned();
            into.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn what_ends_or_changes_something_by_its_name_is_unsafe() {
    let mut files = Vec::new();
    for part in ["src/mm", "src/global"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(part), &mut files);
    }
    let all: Vec<Signature> = files.iter().flat_map(|(path, text)| signatures(path, text)).collect();
    let raw: Vec<&Signature> = all.iter().filter(|signature| is_raw(signature)).collect();
    let safe: Vec<&str> = raw.iter().filter(|signature| !signature.is_unsafe).map(|s| s.name.as_str()).collect();
    let unknown: Vec<&&str> = safe.iter().filter(|name| !SAFE.iter().any(|(known, _)| known == *name)).collect();
    assert!(unknown.is_empty(), "safe, though whoever calls may not own what is named: {unknown:#?}");
    let stale: Vec<_> = SAFE.iter().filter(|(known, _)| !safe.contains(known)).collect();
    assert!(stale.is_empty(), "listed for nothing: {stale:#?}");
    assert!(raw.iter().filter(|signature| signature.is_unsafe).count() > 50, "the scan sees the raw calls");
}

#[test]
fn a_safe_raw_call_is_seen() {
    let planted = [
        ("pub fn vfree(addr: VirtAddr) -> u8 {}", true),
        ("pub fn vfree(addr: impl Pointer) {}", true),
        ("pub fn free_page(page: impl BlockName) {}", true),
        ("    pub fn unmap<F>(\n        &self,\n        range: VirtRange,\n    ) {}", true),
        ("pub fn take_cpu_offline() {}", true),
        ("pub fn free_count(&self) -> Option<Page> {}", false),
        ("pub(crate) fn do_vfree(addr: VirtAddr) {}", false),
        ("/// pub fn vfree(addr: VirtAddr) {}", false),
        ("pub fn free_all(&mut self, count: u32) {}", false),
    ];
    for (text, wanted) in planted {
        let found = signatures("src/mm/x.rs", text);
        assert_eq!(found.iter().any(|s| is_raw(s) && !s.is_unsafe), wanted, "{text}");
    }
    let declared = signatures("src/mm/x.rs", "pub const unsafe fn kfree(object: *mut u8) {}");
    assert!(declared.iter().all(|signature| signature.is_unsafe && is_raw(signature)) && declared.len() == 1);
}
