//! Stops of memory itself: boot allocator, pages, objects, areas, per-CPU memory, pools, tags.
#![forbid(unsafe_code)]

use super::say::say;
use crate::addr::{CpuId, Order, PAGE_SIZE, VirtAddr};
use crate::arch::aarch64::probe;
use crate::gfp::{Gfp, ZoneType};
use crate::global::{self, Error, KVec, Mempool, Pages, PerCpu, VVec};
use crate::kernel::cpus;
use crate::kernel::machine::Machine;
use crate::kernel::picture::Exact;
use crate::mm::mempool::PoolSpec;
use crate::mm::vmalloc::AreaInfo;
use core::sync::atomic::{AtomicU64, Ordering};

/// Objects of the stop "slab".
const OBJECTS: usize = 1000;
/// Bytes of the area of the stop "vmalloc".
const AREA: usize = 1 << 20;
/// Additions of each CPU.
const ADDS: u64 = 1000;

pub(super) fn memblock(machine: &Machine) -> Result<(), Error> {
    let memblock = global::memblock();
    let (banks, reserved) = (memblock.memory().regions().len(), memblock.reserved().regions().len());
    let bytes: u64 = memblock.memory().regions().iter().map(|bank| bank.range.size()).sum();
    drop(memblock);
    say!(
        "memblock",
        "{} of RAM in {banks} ranges, {reserved} ranges reserved before there was a page allocator",
        Exact(bytes)
    );
    say!("", "the W^X walk at boot saw {} entries: {} executable", machine.wx.entries, Exact(machine.wx.executable));
    Ok(())
}

/// Free blocks of an order, in all zones.
fn free_blocks(order: Order) -> u64 {
    let zones = ZoneType::ALL.into_iter().filter_map(|zone| global::page_allocator().free_blocks(zone));
    zones.map(|found| found.blocks_of(order)).sum()
}

pub(super) fn buddy(_: &Machine) -> Result<(), Error> {
    let order = Order::new(6).unwrap_or(Order::ZERO);
    global::drain_all_pages();
    let before = (free_blocks(Order::MAX), global::nr_free_pages());
    let block = Pages::new(Gfp::KERNEL, order)?;
    let zone = global::page_zone(block.page()).map_or("none", ZoneType::name);
    let phys = global::page_to_phys(block.page());
    say!("buddy", "order 6 from zone {zone}: {} at {phys}, {}", Exact(PAGE_SIZE << order.get()), block.address());
    let during = (free_blocks(Order::MAX), global::nr_free_pages());
    drop(block);
    global::drain_all_pages();
    let after = (free_blocks(Order::MAX), global::nr_free_pages());
    say!(
        "",
        "free blocks of 4 MiB: {} before, {} meanwhile, {} after it was freed and merged",
        before.0,
        during.0,
        after.0
    );
    say!("", "free pages: {} before, {} meanwhile, {} after", before.1, during.1, after.1);
    Ok(())
}

/// Slabs and objects in use of the cache for objects of 100 bytes.
fn cache_of_100() -> Result<(&'static str, u64, u64), Error> {
    let slabs = global::slab_allocator();
    let mut found = ("none", 0, 0);
    let _ = slabs.for_each(|cache| {
        if cache.name() == "kmalloc-128" {
            let info = slabs.info(cache);
            found = (cache.name(), info.slabs, info.active_objects);
        }
    });
    Ok(found)
}

pub(super) fn slab(_: &Machine) -> Result<(), Error> {
    let before = cache_of_100()?;
    let mut objects: KVec<KVec<u8>> = KVec::with_capacity(OBJECTS, Gfp::KERNEL)?;
    for _ in 0..OBJECTS {
        let object = KVec::with_capacity(100, Gfp::KERNEL)?;
        objects.push(object, Gfp::KERNEL)?;
    }
    let (name, slabs, active) = cache_of_100()?;
    let at = objects.as_slice().first().map_or(VirtAddr::ZERO, |object| VirtAddr::of(object.as_slice().as_ptr()));
    let size = global::ksize(at).unwrap_or(0);
    say!("slab", "{OBJECTS} objects of 100 bytes, each {size} bytes of cache {name}, the first at {at}");
    drop(objects);
    let after = cache_of_100()?;
    say!(
        "",
        "slabs: {} before, {slabs} meanwhile, {} after; objects in use: {}, {active}, {}",
        before.1,
        after.1,
        before.2,
        after.2
    );
    Ok(())
}

pub(super) fn vmalloc(_: &Machine) -> Result<(), Error> {
    let mut area: VVec<u64> = VVec::with_capacity(AREA / 8, Gfp::KERNEL)?;
    for value in 0..(AREA / 8) as u64 {
        area.push(value, Gfp::KERNEL)?;
    }
    let sum: u64 = area.as_slice().iter().sum();
    let at = global::untag(VirtAddr::of(area.as_slice().as_ptr()));
    let Some(info) = global::vmap_space().find(at) else {
        say!("vmalloc", "no area at {at}");
        return Ok(());
    };
    say!("vmalloc", "{} at {at}: {} pages in {} physical pieces", Exact(info.size()), info.pages, pieces(&info));
    say!("", "{} words written and read back, sum {sum}", AREA / 8);
    let guard = info.mapped().end();
    match probe::load_u64(guard) {
        None => say!("", "the guard page at {guard} cannot be read: the MMU refuses"),
        Some(_) => say!("", "the guard page at {guard} can be read, which is an error"),
    }
    drop(area);
    let left = global::vmap_space().find(at).is_some();
    say!("", "freed: lookups {} it", if left { "still find" } else { "no longer find" });
    Ok(())
}

/// How many contiguous pieces of memory the pages of an area make.
fn pieces(area: &AreaInfo) -> u64 {
    let Some(tables) = global::kernel_tables() else { return 0 };
    let (mut pieces, mut next) = (0, None);
    let mut at = area.mapped().start();
    while at < area.mapped().end() {
        let phys = tables.translate(at).map(|found| found.phys);
        pieces += u64::from(phys.is_none() || phys != next);
        next = phys.and_then(|phys| phys.checked_add(PAGE_SIZE));
        let Some(after) = at.checked_add(PAGE_SIZE) else { break };
        at = after;
    }
    pieces
}

pub(super) fn per_cpu(_: &Machine) -> Result<(), Error> {
    let counts = PerCpu::new(Gfp::KERNEL, |_| AtomicU64::new(0))?;
    let cpus = cpus::run_everywhere(&|_: CpuId| {
        (0..ADDS).for_each(|_| {
            counts.with_this_cpu(|count| count.fetch_add(1, Ordering::Relaxed));
        });
    });
    let sum: u64 = counts.iter().map(|(_, count)| count.load(Ordering::Relaxed)).sum();
    let stats = global::percpu_stats();
    say!("per-CPU", "{cpus} CPUs added 1 to their own counter {ADDS} times, without a lock: sum {sum}");
    say!("", "{stats}");
    Ok(())
}

pub(super) fn mempool(_: &Machine) -> Result<(), Error> {
    let pool: Mempool<[u64; 32]> = Mempool::create(&PoolSpec { name: "tour", min: 4, gfp: Gfp::KERNEL, poison: true })?;
    let one = pool.alloc([1; 32], Gfp::KERNEL).map_err(Error::from)?;
    let sum: u64 = one.iter().sum();
    say!(
        "mempool",
        "a reserve of 4 objects of 256 bytes that no shortage takes; one is out, its words add up to {sum}"
    );
    drop(one);
    if let Err((_, error)) = pool.destroy_all() {
        say!("", "not destroyed: {error}");
    }
    Ok(())
}

pub(super) fn tags(_: &Machine) -> Result<(), Error> {
    if global::tags_are_on() {
        say!("tags", "on: each object has a tag of 4 bits, which each access must have too");
    } else {
        say!("tags", "off: they need a CPU with MTE and kasan=on (make run MACHINE='cpu=max mte append=kasan=on')");
    }
    Ok(())
}
