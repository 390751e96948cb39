//! Every byte of RAM is accounted for, on every machine and at any time; what a person sees of it at the prompt.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use quarry::addr::{Order, PAGE_SIZE, VirtAddr};
use quarry::gfp::{Gfp, ZoneType};
use quarry::global;
use quarry::kernel::init::{self, Machine};
use quarry::kernel::machine_account::account;
use quarry::kernel::owner_map::Owner;
use quarry::kernel::prompt;
use quarry::ktest;
use quarry::mm::layout::{PAGE_DESCRIPTOR_SIZE, VMEMMAP_START};
use quarry::mm::page::Kind;

fn machine() -> &'static Machine {
    init::machine().expect("tests run after booting")
}

/// Bytes of RAM by the device tree's own words, if its memory nodes do not overlap.
fn stated() -> u64 {
    machine().tree.memory().flatten().map(|range| range.size()).sum()
}

ktest!(
    every_byte_is_accounted_for,
    machine as_it_is = "",
    machine limited = "mem=512M append=mem=128M",
    machine numa = "numa=128M,384M",
    machine elf = "loader=elf",
    machine reservations = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-reserved.dtb",
    machine owners = "loader=raw fdt_at=0x44000000 dtb=tests/data/dts/virt-owners.dtb",
    machine pi = "board=raspi4b serial=1 dtb=tests/data/dtb/boards/bcm2711-rpi-4-b.dtb.gz",
);
fn every_byte_is_accounted_for() {
    let account = account(machine()).expect("RAM adds up");
    assert_eq!(account.map.total(), stated());
    assert_eq!(account.map.sum(|_| true), stated());
    let pages = account.map.sum(|owner| owner == Owner::Pages);
    assert_eq!(pages, global::totalram_pages() * PAGE_SIZE);
    assert_eq!(account.census.managed(), global::totalram_pages());
    assert!(account.census.zones().all(|zone| zone.moved == 0), "nobody else runs");
    // Behaviour 70: RAM that starts at 1 GiB has a DMA zone all the same.
    assert!(global::page_allocator().zone(ZoneType::Dma).is_some_and(|zone| zone.managed != 0));
    for part in ["text", "rodata", "data", "bss", "identity map", "boot stack", "overflow stack"] {
        assert!(account.map.sum(|owner| owner == Owner::Kernel(part)) != 0, "{part}");
    }
    for part in ["page tables", "page descriptors", "per-CPU data", "early heap"] {
        assert!(account.map.sum(|owner| owner == Owner::Boot(part)) != 0, "{part}");
    }
}

ktest!(the_account_follows_what_is_allocated);
fn the_account_follows_what_is_allocated() {
    let before = account(machine()).expect("RAM adds up");
    let order = Order::new(3).expect("an order");
    let kinds = [Kind::Block, Kind::Slab, Kind::LargeKmalloc, Kind::Vmalloc, Kind::User, Kind::Dma, Kind::PerCpu];
    for kind in kinds {
        let page = global::alloc_pages(Gfp::KERNEL, order).expect("eight pages");
        if kind != Kind::Block {
            raw!(global::page_allocator().claim(page, kind, 7)).expect("a fresh block");
        }
        let now = account(machine()).expect("RAM adds up");
        assert_eq!(now.census.of(kind), before.census.of(kind) + 8, "{kind:?}");
        assert_eq!(now.census.managed(), before.census.managed());
        if kind != Kind::Block {
            raw!(global::page_allocator().disown(page, kind)).expect("it is ours");
        }
        raw!(global::try_free_pages(page, order)).expect("it is ours");
    }
    global::drain_all_pages();
    let after = account(machine()).expect("RAM adds up");
    assert_eq!(after.census.of(Kind::Block), before.census.of(Kind::Block));
}

ktest!(the_boots_own_tables_are_given_to_the_page_allocator, report = "of boot-time image freed");
fn the_boots_own_tables_are_given_to_the_page_allocator() {
    use quarry::arch::aarch64::boot;
    let phys = machine().boot.image_phys(boot::init_start());
    let size = boot::init_end().get() - boot::init_start().get();
    assert!(size >= 24 * PAGE_SIZE, "the tables of the image, of the fixmap, and those above them");
    let account = account(machine()).expect("RAM adds up");
    let row = account.map.rows().iter().find(|row| row.range.contains(phys)).expect("a row");
    assert_eq!(row.owner, Owner::Pages);
    let tables = global::kernel_tables().expect("the final tables");
    assert!(tables.translate(boot::init_start()).is_none(), "its name in the image is gone");
    let alias = global::phys_to_virt(phys).and_then(|alias| tables.translate(alias)).expect("in the linear map");
    assert!(!alias.leaf.prot.is_executable(), "and what is left cannot be executed");
    quarry::kprintln!("{} pages of boot-time image freed", size / PAGE_SIZE);
}

/// Makes the first word of a frame's descriptor something else, and what it was again when dropped.
struct Damage {
    word: *mut u64,
    before: u64,
}

impl Damage {
    fn new(frame: u64, change: impl Fn(u64) -> u64) -> Self {
        let word = VirtAddr::new(VMEMMAP_START + frame * PAGE_DESCRIPTOR_SIZE).as_ptr::<u64>();
        // SAFETY: descriptors of RAM are mapped for good; nobody else runs.
        let before = unsafe { word.read_volatile() };
        // SAFETY: the descriptor's word, mapped for good; the test undoes it before anybody allocates.
        unsafe { word.write_volatile(change(before)) };
        Self { word, before }
    }
}

impl Drop for Damage {
    fn drop(&mut self) {
        // SAFETY: as in `new`.
        unsafe { self.word.write_volatile(self.before) };
    }
}

// Planted bugs, each seen by another sum: a frame of the kernel image that says it is free, a free block that says it is
// reserved, a block that has lost its head.
ktest!(
    memory_that_does_not_add_up_is_named,
    report = "memory does not add up: the memory map breaks its rule ACCT-4",
    report = "kernel: text",
    report = "memory does not add up: zone DMA: ",
    report = "pages are managed, and its counter says",
    report = "memory does not add up: PAGE-1 broken: a page of no block",
    report = "sum of all RAM: ok"
);
fn memory_that_does_not_add_up_is_named() {
    let kind = |state: u64| state >> 28 & 0xf;
    let with_kind = |kind: Kind| move |state: u64| state & !(0xf << 28) | (kind as u64) << 28;
    let text = machine().boot.image.get() / PAGE_SIZE;
    let damage = Damage::new(text, with_kind(Kind::Free));
    assert_eq!(kind(damage.before), Kind::Reserved as u64);
    prompt::execute(machine(), "memmap");
    drop(damage);

    global::drain_all_pages();
    let frames = machine()
        .tree
        .memory()
        .flatten()
        .flat_map(|bank| (bank.start().get() / PAGE_SIZE..bank.end().get() / PAGE_SIZE).step_by(1024));
    let free = frames.map(quarry::addr::Pfn::new).find(|frame| {
        let page = global::pfn_to_page(*frame).expect("RAM has descriptors");
        global::page_allocator().head(page).is_ok_and(|(head, state)| head == page && state.kind() == Kind::Free)
    });
    let free = free.expect("a free block").get();
    let damage = Damage::new(free, with_kind(Kind::Reserved));
    prompt::execute(machine(), "memmap");
    drop(damage);

    let damage = Damage::new(free, |_| 0);
    prompt::execute(machine(), "memmap");
    drop(damage);
    prompt::execute(machine(), "check");
}

ktest!(
    the_prompt_shows_what_linux_shows,
    report = "Node 0, zone ",
    report = "  pages free     ",
    report = "        managed  ",
    report = "  pagesets",
    report = "  start_pfn:           262144",
    report = "MemTotal:  ",
    report = "Free pages count per migrate type at order",
    report = "Number of blocks type ",
    report = "slabinfo - version: 2.1 (statistics)",
    report = "kmalloc-192 ",
    report = "page allocator: ok",
    report = "page tables: ok",
    report = "W^X: ok",
    report = "sum of all RAM: ok",
    report = "= kernel ",
    report = "page allocator: ",
    report = "no command \"sing\"; try help"
);
fn the_prompt_shows_what_linux_shows() {
    for command in
        ["buddyinfo", "zoneinfo", "meminfo", "pagetypeinfo", "slabinfo", "check", "memmap", "", "  sing loudly"]
    {
        prompt::execute(machine(), command);
    }
}

ktest!(
    the_prompt_says_what_a_frame_is,
    report = "slab order 2 references 1",
    report = "block of 4 pages from",
    report = "owner 0xbeef",
    report = "page allocator",
    report = "reserved order",
    report = "kernel: text",
    report = "has no descriptor: no RAM is near",
    report = "0xffff800000000000 is no address in the linear map or of RAM, and no frame number",
    report = "all: no symbol has the name; an address is 0x"
);
fn the_prompt_says_what_a_frame_is() {
    extern crate alloc;
    let order = Order::new(2).expect("an order");
    let page = global::alloc_pages(Gfp::KERNEL, order).expect("four pages");
    raw!(global::page_allocator().claim(page, Kind::Slab, 0xbeef)).expect("a fresh block");
    let inside = global::page_address(page).get() + 3 * PAGE_SIZE + 17;
    prompt::execute(machine(), &alloc::format!("page {inside:#x}"));
    raw!(global::page_allocator().disown(page, Kind::Slab)).expect("it is ours");
    raw!(global::try_free_pages(page, order)).expect("it is ours");
    prompt::execute(machine(), &alloc::format!("page {:#x}", machine().boot.image.get() / PAGE_SIZE));
    for line in ["page 0x1", "page 0xffff800000000000", "page all"] {
        prompt::execute(machine(), line);
    }
}
