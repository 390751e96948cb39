//! The pictures of the guide are made of the code's own constants, sources and records, so that they cannot say anything else.
//! Each test makes one and compares it with the file in `docs/pictures`; `QUARRY_BLESS=1 cargo test … pictures` writes the
//! files anew.

mod svg;

use quarry::addr::{PAGE_SHIFT, PAGE_SIZE};
use quarry::gfp::Gfp;
use quarry::hal::level::{CONTIGUOUS_ENTRIES, ENTRIES, Level};
use quarry::mm::layout::{PAGE_DESCRIPTOR_SIZE, REGION_GAP, REGIONS};
use quarry::mm::slab::{CacheSpec, SlabFlags};
use quarry::single::{Heap, OneCpu, Pages};
use std::fs;
use std::path::Path;
use svg::{Anchor, Fill, Svg};

fn source(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Compares a picture with its file, or writes the file.
fn is_up_to_date(name: &str, picture: Svg) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures").join(name);
    let new = picture.finish();
    if std::env::var_os("QUARRY_BLESS").is_some() {
        fs::write(path, new).unwrap();
    } else {
        let old = fs::read_to_string(&path).unwrap_or_default();
        assert!(old == new, "docs/pictures/{name} is not what the code says; QUARRY_BLESS=1 makes it anew");
    }
}

/// Bytes in the largest unit that they fill, with one decimal if they are no whole number of it.
fn bytes(size: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let step = (size.ilog2() / 10).min(4);
    let unit = 1_u64 << (10 * step);
    let name = units.get(step as usize).unwrap();
    if size.is_multiple_of(unit) {
        return format!("{} {name}", size / unit);
    }
    let tenths = (size / (unit / 1024) * 10 + 512) / 1024;
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

#[test]
fn the_layers() {
    let library = source("src/lib.rs");
    let rows: Vec<Vec<String>> = library
        .lines()
        .filter_map(|line| line.strip_prefix("//! | L"))
        .map(|row| row.trim_end_matches(" |").split(" | ").map(|cell| cell.replace(['`', '[', ']'], "")).collect())
        .collect();
    assert_eq!(rows.len(), 8, "eight layers");
    let mut svg = Svg::new(800, 50 + 8 * 40, "The layers: modules import from below only");
    let fills =
        [Fill::Orange, Fill::Orange, Fill::Yellow, Fill::Green, Fill::Blue, Fill::Violet, Fill::Grey, Fill::Grey];
    for ((number, row), fill) in (0..).zip(&rows).zip(fills) {
        let [layer, modules, contents] = &row[..] else { panic!("three cells: {row:?}") };
        let y = 40 + number * 40;
        svg.rect(16, y, 240, 32, fill);
        svg.text(24, y + 21, Anchor::Start, true, &format!("L{layer}"));
        svg.text(56, y + 21, Anchor::Start, false, modules);
        svg.text(268, y + 21, Anchor::Start, false, contents);
    }
    is_up_to_date("layers.svg", svg);
}

#[test]
fn the_address_map() {
    let (row, gap) = (34, 8);
    let height = 60 + u32::try_from(REGIONS.len()).unwrap() * (row + gap) + 20;
    let mut svg = Svg::new(640, height, "The kernel's half of the address space (TTBR1), highest address first");
    let fills =
        [Fill::Green, Fill::Orange, Fill::Orange, Fill::Blue, Fill::Violet, Fill::Violet, Fill::Grey, Fill::Grey];
    let mut y = 44;
    for (region, fill) in REGIONS.iter().zip(fills).rev() {
        svg.labelled(16, y, 200, row, fill, region.name);
        svg.text(228, y + 14, Anchor::Start, false, &format!("{:#018x}", region.end.get()));
        svg.text(228, y + 30, Anchor::Start, false, &format!("{:#018x}", region.start.get()));
        svg.text(400, y + 22, Anchor::Start, false, &bytes(region.end.get() - region.start.get()));
        y += row + gap;
    }
    let note = format!("At least {} stay unmapped between two regions. Heights are not to scale.", bytes(REGION_GAP));
    svg.text(16, y + 12, Anchor::Start, false, &note);
    is_up_to_date("address-map.svg", svg);
}

#[test]
fn the_levels_of_page_tables() {
    let levels = [Level::Pgd, Level::Pud, Level::Pmd, Level::Pte];
    let mut svg = Svg::new(720, 330, "A 48-bit virtual address, and the four levels that translate it");
    let top = Level::Pgd.shift() + ENTRIES.ilog2();
    let bit = |number: u32| 40 + (top - number) * 13;
    for level in levels {
        let (high, low) = (level.shift() + ENTRIES.ilog2(), level.shift());
        svg.labelled(bit(high), 60, bit(low) - bit(high), 30, Fill::Blue, &format!("{level:?}").to_uppercase());
        svg.text(bit(high) + 3, 54, Anchor::Start, false, &format!("{}", high - 1));
        svg.text(bit(low) - 3, 54, Anchor::End, false, &format!("{low}"));
    }
    svg.labelled(bit(PAGE_SHIFT), 60, bit(0) - bit(PAGE_SHIFT), 30, Fill::Grey, "offset");
    svg.text(bit(PAGE_SHIFT) + 3, 54, Anchor::Start, false, &format!("{}", PAGE_SHIFT - 1));
    svg.text(bit(0) - 3, 54, Anchor::End, false, "0");
    for (number, level) in (0..).zip(levels) {
        let (x, middle) = (40 + number * 165, bit(level.shift()) - 58);
        svg.line((middle, 90), (x + 65, 130));
        svg.rect(x, 130, 130, 110, Fill::White);
        svg.text(x + 65, 148, Anchor::Middle, true, &format!("{level:?}").to_uppercase());
        svg.text(x + 65, 168, Anchor::Middle, false, &format!("{ENTRIES} entries"));
        svg.text(x + 65, 186, Anchor::Middle, false, &format!("{} each", bytes(level.size())));
        let (leaf, group) = match level.leaf() {
            None => ("tables only".to_owned(), String::new()),
            Some(leaf) if level == Level::Pte => {
                ("page".to_owned(), format!("group: {}", bytes(leaf.contiguous_size())))
            }
            Some(leaf) if level == Level::Pmd => {
                ("block".to_owned(), format!("group: {}", bytes(leaf.contiguous_size())))
            }
            // Blocks of 1 GiB are never joined.
            Some(_) => ("block".to_owned(), String::new()),
        };
        svg.text(x + 65, 206, Anchor::Middle, false, &leaf);
        svg.text(x + 65, 226, Anchor::Middle, false, &group);
        if level != Level::Pte {
            svg.line((x + 130, 185), (x + 165, 185));
        }
    }
    let table = format!("A table is {} of 8-byte entries.", bytes(ENTRIES as u64 * 8));
    let group = format!("A contiguous group joins {CONTIGUOUS_ENTRIES} neighbouring entries into one TLB entry.");
    svg.text(40, 276, Anchor::Start, false, &table);
    svg.text(40, 296, Anchor::Start, false, &group);
    is_up_to_date("page-tables.svg", svg);
}

/// The fields of a `repr(C)` structure of atomics in a source text: name, bytes.
fn fields(text: &str, name: &str) -> Vec<(String, u32)> {
    let body = text.split(&format!("pub struct {name} {{\n")).nth(1).and_then(|rest| rest.split("\n}").next());
    let lines = body.unwrap().lines().filter(|line| !line.trim_start().starts_with("//"));
    let field = |line: &str| {
        let (name, kind) = line.trim().trim_end_matches(',').split_once(": ")?;
        let size = match kind {
            "AtomicU64" => 8,
            "AtomicU32" => 4,
            other => panic!("a field of type {other}"),
        };
        Some((name.to_owned(), size))
    };
    lines.filter_map(field).collect()
}

/// The value of `const NAME` in a source text that is a number or a shift of one bit: the lowest bit of a field.
fn lowest_bit(text: &str, name: &str) -> u32 {
    let start = format!("const {name}: ");
    let line = text.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("no const {name}"));
    let value = line.split(" = ").nth(1).unwrap().trim_end_matches(';');
    let number = value.strip_prefix("1 << ").unwrap_or(value);
    number.parse().unwrap_or_else(|_| panic!("const {name} = {value}"))
}

#[test]
fn the_descriptor_of_a_page() {
    let descriptor = source("src/mm/page/meta.rs");
    let fields = fields(&descriptor, "PageDescriptor");
    assert_eq!(fields.iter().map(|(_, size)| u64::from(*size)).sum::<u64>(), PAGE_DESCRIPTOR_SIZE);
    let mut svg =
        Svg::new(720, 300, &format!("The descriptor of a page: {PAGE_DESCRIPTOR_SIZE} bytes for {PAGE_SIZE}"));
    let mut at = 0;
    for ((name, size), fill) in fields.iter().zip([Fill::Orange, Fill::Blue, Fill::Blue, Fill::Green, Fill::Yellow]) {
        svg.labelled(40 + at * 20, 60, size * 20, 36, fill, name);
        svg.text(40 + at * 20, 54, Anchor::Start, false, &at.to_string());
        at += size;
    }
    svg.text(40 + at * 20, 54, Anchor::End, false, &at.to_string());

    let flags = source("src/mm/page/flags.rs");
    let parts = [
        ("mobility", 0),
        ("zone", lowest_bit(&flags, "ZONE_SHIFT")),
        ("free list", lowest_bit(&flags, "LIST_SHIFT")),
        ("order", lowest_bit(&flags, "ORDER_SHIFT")),
        ("memory type", lowest_bit(&flags, "MEMORY_SHIFT")),
        ("brief", lowest_bit(&flags, "BRIEF")),
        ("compound", lowest_bit(&flags, "COMPOUND")),
        ("accounted", lowest_bit(&flags, "ACCOUNTED")),
        ("mappings", lowest_bit(&flags, "MAPPINGS_SHIFT")),
        ("kind", lowest_bit(&flags, "KIND_SHIFT")),
        ("references", lowest_bit(&flags, "COUNT_SHIFT")),
    ];
    assert!(parts.is_sorted_by_key(|(_, bit)| *bit), "the fields are in order");
    svg.text(40, 130, Anchor::Start, true, "state, bit by bit");
    for (number, (name, low)) in (0_u32..).zip(parts) {
        let end = parts.get(number as usize + 1).map_or(64, |(_, next)| *next);
        let (column, row) = (number / 3, number % 3);
        let (x, y) = (40 + column * 165, 146 + row * 40);
        let bits = if end == low + 1 { format!("{low}") } else { format!("{}:{low}", end - 1) };
        svg.labelled(x, y, 60, 28, Fill::Orange, &bits);
        svg.text(x + 70, y + 18, Anchor::Start, false, name);
    }
    svg.text(
        40,
        284,
        Anchor::Start,
        false,
        "next, prev: links by page number. aux: by kind. owner: cache, area or address space.",
    );
    is_up_to_date("struct-page.svg", svg);
}

fn heap() -> &'static Heap {
    let pages: &'static Pages = Box::leak(Box::new(Pages::new(OneCpu::new().with_seed(1))));
    let heap: &'static Heap = Box::leak(Box::new(Heap::new(pages)));
    let memory = vec![0_u64; 1 << 20].leak();
    // SAFETY: leaked memory, and this thread alone.
    unsafe { heap.start(memory.as_mut_ptr().cast(), size_of_val(memory)) }.unwrap();
    heap
}

#[test]
fn the_layout_of_slabs() {
    const SIZE: u32 = 200;
    let heap = heap();
    let kinds = [
        ("plain", SlabFlags::NO_MERGE, None),
        ("constructed", SlabFlags::NO_MERGE, Some((|_| {}) as fn(_))),
        ("debugged", SlabFlags::NO_MERGE | SlabFlags::DEBUG, None),
    ];
    let mut svg =
        Svg::new(760, 360, &format!("A slot for an object of {SIZE} bytes, while it is free, in three caches"));
    let mut y = 60;
    for (name, flags, constructor) in kinds {
        let spec = CacheSpec { name, size: SIZE, align: 8, flags, constructor };
        let handle = heap.slabs().create(&spec).unwrap();
        let object = heap.slabs().alloc_object(handle.cache(), Gfp::KERNEL).unwrap();
        let (cache, info) = (handle.cache(), heap.slabs().info(handle.cache()));
        let (slots, pages) = (info.objects / info.slabs, info.pages / info.slabs);
        let per_slab = format!("{slots} slots in {pages} page{}", if pages == 1 { "" } else { "s" });
        svg.text(16, y - 6, Anchor::Start, true, &format!("{name}: a slot is {} bytes, {per_slab}", cache.size()));
        // Slots begin where the slab does, and the slab is aligned to its size.
        let start = object.get() % (info.pages / info.slabs * PAGE_SIZE) % u64::from(cache.size());
        let start = u32::try_from(start).unwrap();
        let place = |offset: u32| 16 + offset * 2;
        svg.rect(16, y, cache.size() * 2, 44, Fill::Grey);
        svg.labelled(place(start), y, cache.object_size() * 2, 44, Fill::Green, "");
        svg.text(place(start + cache.object_size() - 4), y + 26, Anchor::End, false, &format!("object, {SIZE} bytes"));
        let words = [(cache.mark(), "mark", Fill::Orange), (start + cache.link_offset(), "link", Fill::Blue)];
        for (offset, label, fill) in words {
            svg.rect(place(offset), y, 16, 44, fill);
            // A link that stands before its mark ends its label where that one begins.
            let (x, anchor) = match label {
                "link" => (place(offset) + 14, Anchor::End),
                _ => (place(offset) + 2, Anchor::Start),
            };
            svg.text(x, y + 58, anchor, false, &format!("{label} {offset}"));
        }
        // SAFETY: allocated above, and not used again.
        unsafe { heap.slabs().free_object(handle.cache(), object) }.unwrap();
        y += 96;
    }
    svg.text(
        16,
        y,
        Anchor::Start,
        false,
        "Distances are bytes from the start of the slot. Grey: red zones, records, padding.",
    );
    is_up_to_date("slab.svg", svg);
}
