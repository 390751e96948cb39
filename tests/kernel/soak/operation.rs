//! How each kind of block is had, looked at and given back.

use super::block::{Block, How, PAGES, Row};
use crate::smp::Random;
use alloc::vec::Vec;
use core::ptr::NonNull;
use quarry::addr::{PAGE_SIZE, PhysAddr, VirtAddr, to_usize};
use quarry::gfp::Gfp;
use quarry::global::{self, KmallocPool, KmemCache};
use quarry::hal::prot::Prot;
use quarry::mm::dma::{Bidirectional, Device, DeviceSpec, DmaError};
use quarry::mm::io::IoError;
use quarry::mm::page::Page;
use quarry::mm::percpu::{PerCpuError, UNIT_SIZE};
use quarry::mm::slab::{CacheSpec, SlabFlags};
use quarry::mm::vmalloc::{AreaError, VmFlags, VmallocError};
use spin::once::Once;

/// Kinds of blocks.
pub(super) const KINDS: usize = 13;
/// Their names.
pub(super) const NAMES: [&str; KINDS] = [
    "pages",
    "bulk",
    "kmalloc",
    "kmem_cache",
    "vmalloc",
    "vmap",
    "vm_map_ram",
    "ioremap",
    "percpu",
    "mempool",
    "kvmalloc",
    "coherent",
    "streaming",
];

/// Devices that nobody drives: one whose accesses are not coherent, and one whose are.
static MASTERS: [Once<Device>; 2] = [const { Once::new() }; 2];

fn master(number: usize) -> &'static Device {
    MASTERS.get(number).and_then(Once::get).expect("prepared")
}

/// Devices of `virt` that nobody drives: the clock, and a part of the flash.
const DEVICES: [(u64, u64); 2] = [(0x901_0000, 0x1000), (0x400_0000, 2 << 20)];

const SIZES: [(&str, u32); 3] = [("soak-40", 40), ("soak-200", 200), ("soak-1500", 1_500)];
static CACHES: [Once<KmemCache>; 3] = [const { Once::new() }; 3];

/// Bytes of an element of the pool.
const ELEMENT: usize = 320;
static POOL: Once<KmallocPool> = Once::new();

fn pool() -> &'static KmallocPool {
    POOL.get().expect("prepared")
}

fn cache(number: usize) -> &'static KmemCache {
    CACHES.get(number).and_then(Once::get).expect("prepared")
}

/// Makes what stays.
pub(super) fn prepare() {
    for (place, (name, size)) in CACHES.iter().zip(SIZES) {
        let spec = CacheSpec { name, size, align: 0, flags: SlabFlags::NO_MERGE, constructor: None };
        place.call_once(|| KmemCache::create(&spec).expect("a cache"));
    }
    for (place, coherent) in MASTERS.iter().zip([false, true]) {
        place.call_once(|| global::dma_device(&DeviceSpec::new("soak").with_coherent(coherent)));
    }
    POOL.call_once(|| global::mempool_create_kmalloc_pool("soak", 8, ELEMENT).expect("memory"));
}

/// The pool is sound, and its reserve full: everything has come back.
pub(super) fn check_pool() {
    pool().check().unwrap_or_else(|broken| panic!("{broken}"));
    let stats = pool().stats();
    assert_eq!((stats.min, stats.reserve, stats.set_aside), (8, 8, 0), "the pool's reserve");
}

/// Lets the allocators get the records that they keep for good, as many as `most` blocks of a kind can take.
pub(super) fn warm_up(most: usize) {
    let mut live = Vec::with_capacity(most);
    let mut each = |make: &dyn Fn() -> How| {
        live.extend((0..most).map(|_| make()));
        for how in live.drain(..) {
            match how {
                How::Ioremap(at) => raw!(global::try_iounmap(VirtAddr::new(at))).expect("mapped"),
                How::PerCpu(ptr) => raw!(global::try_free_percpu(ptr)).expect("allocated"),
                _ => {}
            }
        }
    };
    let [(device, size), _] = DEVICES;
    each(&|| How::Ioremap(global::ioremap(PhysAddr::new(device), size).expect("addresses").get()));
    each(&|| How::PerCpu(global::alloc_percpu(to_usize(UNIT_SIZE), 8).expect("memory")));
}

fn addr(memory: NonNull<u8>) -> VirtAddr {
    VirtAddr::new(memory.as_ptr().expose_provenance() as u64)
}

/// Mostly small, seldom large.
fn size(random: &mut Random, small: u64, large: u64) -> u64 {
    let most = match random.below(64) {
        0 => large,
        1..=8 => small * 8,
        _ => small,
    };
    1 + random.below(most)
}

/// Single pages, as many as could be had of those wanted.
fn row(random: &mut Random, gfp: Gfp) -> Row {
    let mut row = Row::new();
    for _ in 0..=random.index(PAGES) {
        let Ok(page) = global::alloc_page(gfp) else { break };
        assert!(row.push(page), "room");
    }
    row
}

fn free_row(mut row: Row) {
    while let Some(page) = row.pop() {
        raw!(global::try_free_page(page)).expect("allocated");
    }
}

/// Only lack of memory is a reason.
fn or_short<T>(result: Result<T, VmallocError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(VmallocError::Pages(_) | VmallocError::Tables(_) | VmallocError::Area(AreaError::NoDescriptor)) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Allocates a block of a kind and fills it; `None` for lack of memory.
pub(super) fn take(kind: usize, random: &mut Random, gfp: Gfp) -> Option<Block> {
    let gfp = gfp | Gfp::NOWARN;
    let block = match kind {
        0 => {
            let most = match random.below(256) {
                0 => 10,
                1..=32 => 5,
                _ => 2,
            };
            let order = random.order(most + 1);
            let page = global::alloc_pages(gfp, order).ok()?;
            Block::new(How::Pages(order), global::page_address(page), order.bytes())
        }
        1 => {
            let mut row = Row::new();
            // Fewer than wanted will do.
            let _ = global::alloc_pages_bulk(gfp, &mut row);
            if row.pages().is_empty() {
                return None;
            }
            let block = Block::new(How::Bulk(row), VirtAddr::ZERO, 0);
            if let How::Bulk(row) = &block.how {
                row.pages().iter().for_each(|page| block.fill(global::page_address(*page), PAGE_SIZE));
            }
            return Some(block);
        }
        2 => {
            let bytes = size(random, 256, 64 << 10);
            Block::new(How::Kmalloc, addr(global::kmalloc(to_usize(bytes), gfp).ok()?), bytes)
        }
        3 => {
            let number = random.index(SIZES.len());
            let bytes = u64::from(SIZES.get(number)?.1);
            Block::new(How::Cache(number), addr(cache(number).alloc(gfp).ok()?), bytes)
        }
        4 => {
            let bytes = size(random, 3 * PAGE_SIZE, 1 << 20);
            Block::new(How::Vmalloc, addr(or_short(global::vmalloc_gfp(to_usize(bytes), gfp))?), bytes)
        }
        5 | 6 => {
            let row = row(random, gfp);
            if row.pages().is_empty() {
                return None;
            }
            let bytes = row.pages().len() as u64 * PAGE_SIZE;
            let mapped = if kind == 5 {
                global::vmap(row.pages(), VmFlags::empty(), Prot::KERNEL_RW)
            } else {
                global::vm_map_ram(row.pages(), Prot::KERNEL_RW)
            };
            let Some(at) = or_short(mapped) else {
                free_row(row);
                return None;
            };
            Block::new(if kind == 5 { How::Vmap(row) } else { How::MapRam(row) }, addr(at), bytes)
        }
        7 => return take_device(random),
        8 => {
            let bytes = size(random, 64, UNIT_SIZE);
            let align = 1 << random.below(7);
            let ptr = match global::alloc_percpu_gfp(to_usize(bytes), to_usize(align), gfp) {
                Ok(ptr) => ptr,
                Err(PerCpuError::OutOfMemory | PerCpuError::Tables(_) | PerCpuError::Area(AreaError::NoDescriptor)) => {
                    return None;
                }
                Err(error) => panic!("{error}"),
            };
            let block = Block::new(How::PerCpu(ptr), ptr.addr(), bytes);
            global::possible_cpus().for_each(|cpu| block.fill(ptr.of(cpu), bytes));
            return Some(block);
        }
        9 => {
            let element = match random.below(16) {
                0 => global::mempool_alloc_preallocated(pool())?,
                _ => global::mempool_alloc(pool(), gfp).ok()?,
            };
            Block::new(How::Mempool, addr(element), ELEMENT as u64)
        }
        11 => {
            let (number, bytes) = (random.index(2), size(random, 2 * PAGE_SIZE, 5 << 20));
            let block = match global::dma_alloc_coherent(master(number), bytes, gfp) {
                Ok(block) => block,
                Err(DmaError::Alloc(_) | DmaError::Alias(_) | DmaError::NoReserve | DmaError::TooLarge(_)) => {
                    return None;
                }
                Err(error) => panic!("{error}"),
            };
            Block::new(How::Coherent(number, block), block.addr, bytes)
        }
        12 => return take_mapping(random, gfp),
        _ => {
            let bytes = size(random, 2_000, 512 << 10);
            Block::new(How::Kvmalloc, addr(global::kvmalloc(to_usize(bytes), gfp).ok()?), bytes)
        }
    };
    block.fill(block.at, block.bytes);
    Some(block)
}

/// Maps some of a device. Its registers are not memory: what is looked at is where the mapping leads.
fn take_device(random: &mut Random) -> Option<Block> {
    let (start, size) = *DEVICES.get(random.index(DEVICES.len()))?;
    let offset = random.below(size);
    let (phys, bytes) = (start + offset, 1 + random.below(size - offset));
    match global::ioremap(PhysAddr::new(phys), bytes) {
        Ok(at) => Some(Block::new(How::Ioremap(phys), at, bytes)),
        Err(IoError::NoClaim | IoError::Tables(_) | IoError::Area(AreaError::NoDescriptor)) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Gives part of some pages to a device, which does nothing with them.
fn take_mapping(random: &mut Random, gfp: Gfp) -> Option<Block> {
    let (number, order) = (random.index(2), random.order(3));
    let page = global::alloc_pages(gfp, order).ok()?;
    let at = global::page_address(page);
    let offset = random.below(order.bytes());
    let bytes = 1 + random.below(order.bytes() - offset);
    let mut block = Block::new(How::Pages(order), at, order.bytes());
    block.fill(at, order.bytes());
    let start = VirtAddr::new(at.get() + offset);
    // SAFETY: pages that were just allocated, which nobody touches until they are unmapped.
    match unsafe { global::dma_map_single::<Bidirectional>(master(number), start, bytes) } {
        Ok(bus) => {
            block.how = How::Streaming(number, order, bus, bytes);
            Some(block)
        }
        Err(DmaError::BounceFull(_)) => {
            raw!(global::try_free_pages(at, order)).expect("allocated");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Frees a block, or gives it another size.
pub(super) fn give(block: Block, random: &mut Random, gfp: Gfp) -> Option<Block> {
    let resizes = matches!(block.how, How::Kmalloc | How::Vmalloc | How::Kvmalloc);
    if resizes && random.below(4) == 0 {
        return Some(resize(block, random, gfp | Gfp::NOWARN));
    }
    free(block, random);
    None
}

/// Gives a block another size: what both have stays.
fn resize(block: Block, random: &mut Random, gfp: Gfp) -> Block {
    block.verify(block.at, block.bytes);
    let bytes = size(random, block.bytes, 2 * block.bytes);
    let old = block.at.as_ptr::<u8>();
    let new = match block.how {
        // SAFETY: this block's memory, which nobody uses meanwhile.
        How::Kmalloc => unsafe { global::krealloc(old, to_usize(bytes), gfp) }.ok().map(addr),
        // SAFETY: this block's memory, which nobody uses meanwhile.
        How::Vmalloc => unsafe { global::vrealloc(block.at, to_usize(bytes), gfp) }.ok().map(addr),
        // SAFETY: this block's memory, which nobody uses meanwhile.
        _ => unsafe { global::kvrealloc(old, to_usize(bytes), gfp) }.ok().map(addr),
    };
    let Some(at) = new else {
        // It is what it was.
        block.verify(block.at, block.bytes);
        return block;
    };
    // Whole words: the last bytes of the shorter one need not be the same.
    block.verify(at, block.bytes.min(bytes) & !7);
    let block = Block { at, bytes, ..block };
    block.fill(at, bytes);
    block
}

/// Looks at a block, and frees it.
pub(super) fn free(block: Block, random: &mut Random) {
    let memory = block.at.as_ptr::<u8>();
    match &block.how {
        How::Bulk(row) => {
            row.pages().iter().for_each(|page| block.verify(global::page_address(*page), PAGE_SIZE));
        }
        How::PerCpu(ptr) => global::possible_cpus().for_each(|cpu| block.verify(ptr.of(cpu), block.bytes)),
        How::Ioremap(phys) => check_device(&block, *phys),
        How::Vmap(row) | How::MapRam(row) => {
            block.verify(block.at, block.bytes);
            check_linear(&block, row.pages());
        }
        How::Streaming(number, _, bus, bytes) => {
            raw!(global::dma_unmap_single::<Bidirectional>(master(*number), *bus, *bytes)).expect("mapped");
            block.verify(block.at, block.bytes);
        }
        _ => block.verify(block.at, block.bytes),
    }
    match block.how {
        How::Coherent(number, coherent) => {
            raw!(global::dma_free_coherent(master(number), block.bytes, coherent)).expect("allocated");
        }
        How::Pages(order) | How::Streaming(_, order, ..) => {
            raw!(global::try_free_pages(block.at, order)).expect("allocated")
        }
        How::Bulk(mut row) => raw!(global::try_free_pages_bulk(&mut row)).expect("allocated"),
        // SAFETY: this block's memory, which nobody uses any more.
        How::Kmalloc => unsafe { global::kfree(memory) },
        How::Cache(number) => {
            let object = NonNull::new(memory).expect("an object");
            // SAFETY: this block's memory, which nobody uses any more.
            unsafe { cache(number).free(object) };
        }
        How::Vmalloc if random.below(8) == 0 => raw!(global::try_vfree_atomic(block.at)).expect("allocated"),
        How::Vmalloc => raw!(global::try_vfree(block.at)).expect("allocated"),
        How::Vmap(row) => {
            raw!(global::try_vunmap(block.at)).expect("mapped");
            free_row(row);
        }
        How::MapRam(row) => {
            raw!(global::try_vm_unmap_ram(block.at, row.pages().len())).expect("mapped");
            free_row(row);
        }
        How::Ioremap(_) => raw!(global::try_iounmap(block.at)).expect("mapped"),
        How::PerCpu(ptr) => raw!(global::try_free_percpu(ptr)).expect("allocated"),
        // SAFETY: this block's memory, which nobody uses any more.
        How::Mempool => unsafe { global::mempool_free(memory, pool()) },
        // SAFETY: this block's memory, which nobody uses any more.
        How::Kvmalloc => unsafe { global::kvfree(memory) },
    }
}

/// The first and the last byte of a mapping lead where they should.
fn check_device(block: &Block, phys: u64) {
    let tables = global::kernel_tables().expect("the final tables");
    for offset in [0, block.bytes - 1] {
        let found = tables.translate(VirtAddr::new(block.at.get() + offset));
        assert_eq!(found.map(|found| found.phys.get()), Some(phys + offset), "a mapping of a device");
    }
}

/// Bytes written through a mapping are in its pages, in their order: the first word of each.
fn check_linear(block: &Block, pages: &[Page]) {
    for (page, index) in pages.iter().zip(0_u64..) {
        let word = global::page_address(*page).as_ptr::<u64>();
        // SAFETY: a page of this block, mapped in the linear map.
        let found = unsafe { word.read() };
        let number = index * (PAGE_SIZE / 8);
        assert_eq!(found, block.key ^ number.wrapping_mul(0x0101_0101_0101_0101), "page {index} of a mapping");
    }
}
