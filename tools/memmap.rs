//! Prints the memory map that a device tree states, as one line of JSON: the answers of the device-tree reader and the
//! memblock that the kernel boots with, on a desk machine. `free_static` is what is left of `usable` without `memreserve`
//! and the fixed ranges of `reserved` that are in force; initrd and dynamic regions are not taken out of it.
//!
//! `memmap FILE` with FILE a `.dtb`, compressed by gzip or not. Exit status 1, and one line on standard error, for a
//! tree that is refused; 2 for wrong usage.

use flate2::read::GzDecoder;
use quarry::addr::PhysRange;
use quarry::fdt::{FdtError, Node, ReservedMemory, Tree};
use quarry::hal::{BootMemory, Unreachable};
use quarry::mm::memblock::{DiscoverError, Memblock};
use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::io::Read as _;
use std::process::ExitCode;

/// The first bytes of a gzip file.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Ranges that a tree may state. The kernel's lists grow where the RAM is; here there is none to grow into.
const REGIONS: usize = 1024;

/// The RAM of the desk machine that the tree speaks of: there is none.
enum Nowhere {}

impl<'m> BootMemory<'m> for Nowhere {
    fn zero(&mut self, _: PhysRange) -> Result<(), Unreachable> {
        match *self {}
    }

    fn claim<T: Copy + 'm>(&mut self, _: PhysRange, _: T) -> Result<&'m mut [T], Unreachable> {
        match *self {}
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file] = arguments.as_slice() else {
        eprintln!("usage: memmap FILE.dtb");
        return ExitCode::from(2);
    };
    match read(file).map_err(|error| error.to_string()).and_then(|mut blob| memory_map(&mut blob)) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("memmap: {file}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn read(file: &str) -> std::io::Result<Vec<u8>> {
    let bytes = std::fs::read(file)?;
    if !bytes.starts_with(&GZIP_MAGIC) {
        return Ok(bytes);
    }
    let mut blob = Vec::new();
    GzDecoder::new(bytes.as_slice()).read_to_end(&mut blob)?;
    Ok(blob)
}

/// The line of JSON, or the line that says what is wrong and where.
fn memory_map(blob: &mut [u8]) -> Result<String, String> {
    let tree = Tree::new(blob).map_err(|error| error.to_string())?;
    answers(&tree).map_err(|error| {
        let node = if let DiscoverError::Tree(error) = error { error.node() } else { None };
        match node.and_then(|node| tree.path_at(node)) {
            Some(path) => format!("{path}: {error}"),
            None => error.to_string(),
        }
    })
}

fn answers(tree: &Tree<'_>) -> Result<String, DiscoverError> {
    let mut memblock = Memblock::<Option<Nowhere>, REGIONS>::new(None);
    for range in tree.memory() {
        let range = range?;
        memblock.add(range.start(), range.size())?;
    }
    let memreserve: Vec<PhysRange> = tree.reservations().collect::<Result<_, _>>()?;
    let mut taken = memreserve.clone();
    let mut reserved = Vec::new();
    for region in tree.reserved_memory() {
        let fixed: Result<Vec<PhysRange>, FdtError> = region.ranges().collect();
        reserved.push(reserved_region(region, fixed.as_deref().ok()));
        // A reservation that is in force and cannot be read would be handed out as memory: the tree is refused.
        if region.is_enabled() {
            taken.extend(fixed?);
        }
    }
    for range in taken {
        memblock.reserve(range.start(), range.size())?;
    }
    let usable = memblock.mapped_ranges().map(range);
    let dynamic = tree.reserved_memory().filter(|region| region.is_dynamic()).map(|region| string(region.name()));
    Ok(object([
        ("usable", list(usable)),
        ("memreserve", ranges(&memreserve)),
        ("reserved", list(reserved)),
        ("reserved_dynamic", list(dynamic)),
        ("free_static", list(memblock.free_ranges().map(range))),
        ("chosen", chosen(tree)?),
        ("cpus", cpus(tree)),
        ("psci", psci(tree)),
    ]))
}

/// One child of `/reserved-memory`: its name, and only what is stated of it. A value that cannot be read is null: no memory
/// depends on it in a region that is disabled, or that would be placed anew.
fn reserved_region(region: ReservedMemory<'_, '_>, fixed: Option<&[PhysRange]>) -> String {
    let node = region.node();
    let flag = |is_set: bool| is_set.then(|| "true".to_owned());
    let number = |value: Result<Option<u64>, FdtError>| match value {
        Ok(value) => value.map(|value| value.to_string()),
        Err(_) => Some(null()),
    };
    let alloc_ranges: Result<Vec<PhysRange>, FdtError> = region.alloc_ranges().collect();
    let members = [
        ("name", Some(string(region.name()))),
        ("status", node.str("status").map(string)),
        ("compatible", node.has("compatible").then(|| list(node.compatible().map(string)))),
        ("no-map", flag(region.is_no_map())),
        ("reusable", flag(region.is_reusable())),
        ("linux,cma-default", flag(region.is_cma_default())),
        ("reg", node.has("reg").then(|| fixed.map_or_else(null, ranges))),
        ("size", number(region.size())),
        ("alignment", number(region.alignment())),
        ("alloc_ranges", node.has("alloc-ranges").then(|| alloc_ranges.as_deref().map_or_else(|_| null(), ranges))),
    ];
    object(members.into_iter().filter_map(|(key, value)| Some((key, value?))))
}

fn chosen(tree: &Tree<'_>) -> Result<String, FdtError> {
    let Some(chosen) = tree.chosen() else { return Ok(null()) };
    Ok(object([
        ("stdout_node", chosen.stdout().map_or_else(null, |stdout| string(&stdout.node.path().to_string()))),
        ("bootargs", chosen.bootargs().map_or_else(null, |bytes| string(&text(bytes)))),
        ("initrd", chosen.initrd()?.map_or_else(null, range)),
    ]))
}

fn cpus(tree: &Tree<'_>) -> String {
    let mut methods: BTreeMap<&str, usize> = BTreeMap::new();
    for cpu in tree.cpus() {
        *methods.entry(cpu.node().str("enable-method").unwrap_or("-")).or_default() += 1;
    }
    object([
        ("count", tree.cpus().count().to_string()),
        ("enabled", tree.cpus().filter(|cpu| cpu.is_enabled()).count().to_string()),
        ("enable_methods", object(methods.into_iter().map(|(method, count)| (method, count.to_string())))),
    ])
}

/// The method, then what the node is compatible with. Of `/psci` only: the format does not look elsewhere.
fn psci(tree: &Tree<'_>) -> String {
    let Some(node) = tree.root().child("psci") else { return null() };
    list(core::iter::once(method(node)).chain(node.compatible().map(string)))
}

fn method(node: Node<'_, '_>) -> String {
    node.str("method").map_or_else(null, string)
}

fn null() -> String {
    "null".to_owned()
}

fn range(range: PhysRange) -> String {
    format!("[{}, {}]", range.start().get(), range.size())
}

fn ranges(list_of: &[PhysRange]) -> String {
    list(list_of.iter().copied().map(range))
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(", "))
}

fn object<K: Display>(members: impl IntoIterator<Item = (K, String)>) -> String {
    let members = members.into_iter().map(|(key, value)| format!("{}: {value}", string(&key.to_string())));
    format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
}

/// Boot arguments without the NUL at their end, in any encoding.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// A JSON string in ASCII.
fn string(text: &str) -> String {
    let mut quoted = String::from('"');
    for unit in text.encode_utf16() {
        match char::from_u32(u32::from(unit)) {
            Some(special @ ('"' | '\\')) => quoted.extend(['\\', special]),
            Some(plain) if plain.is_ascii_graphic() || plain == ' ' => quoted.push(plain),
            // Writing to a `String` cannot fail.
            _ => drop(write!(quoted, "\\u{unit:04x}")),
        }
    }
    quoted.push('"');
    quoted
}
