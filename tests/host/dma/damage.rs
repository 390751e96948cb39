//! The checks of DMA are worth something only if they fail: each invariant, broken by hand.

use super::machine::{BUS, MIB, Machine, device, on_a_machine, on_a_machine_with, ram, with_buffer};
use crate::alloc::{TheSystem, resize_elsewhere};
use crate::vmalloc::kernel::RAM;
use quarry::addr::{PAGE_SIZE, Pfn, PhysAddr, PhysRange};
use quarry::gfp::Gfp;
use quarry::hal::prot::MemoryType;
use quarry::mm::alloc::{Allocator, Stateless};
use quarry::mm::dma::{BounceSlot, CoherentBlock, DmaHal, DmaPool, Entry, FromDevice, PoolShape, ToDevice};
use quarry::mm::page::PageMap;
use quarry::mm::slab::SlabAllocError;
use quarry::mm::zone::PageHal;
use std::alloc::Layout;
use std::cell::RefCell;
use std::ptr::NonNull;

fn tag(dma: &Machine<'_, '_>) -> Option<&'static str> {
    dma.check().err().map(|broken| broken.tag)
}

/// Where in a value a word stands. What a lock protects may be changed there while nobody holds it.
fn places_of<T>(value: &T, word: u64) -> Vec<*mut u64> {
    let start = std::ptr::from_ref(value).cast::<u64>().cast_mut();
    let places = (0..size_of::<T>() / 8).map(|index| start.wrapping_add(index));
    places.filter(|place| raw!(place.read_volatile()) == word).collect()
}

/// The tag that the checks answer with while a word is another one.
fn with_word(dma: &Machine<'_, '_>, place: *mut u64, word: u64) -> Option<&'static str> {
    let before = raw!(place.read_volatile());
    raw!(place.write_volatile(word));
    let found = tag(dma);
    raw!(place.write_volatile(before));
    assert_eq!(tag(dma), None);
    found
}

/// The records that were given away as such.
fn records<T>(dma: &Machine<'_, '_>) -> Vec<*mut T> {
    let given = dma.hal().given.lock().unwrap();
    let (start, bytes) = *given.last().unwrap();
    let first = std::ptr::with_exposed_provenance_mut::<T>(start);
    (0..bytes / size_of::<T>()).map(|index| first.wrapping_add(index)).collect()
}

fn record_as<T: Copy>(dma: &Machine<'_, '_>, place: *mut T, record: T) -> Option<&'static str> {
    let before = raw!(place.read());
    raw!(place.write(record));
    let found = tag(dma);
    raw!(place.write(before));
    assert_eq!(tag(dma), None);
    found
}

#[test]
fn a_bounce_slot_that_is_lost_is_found() {
    on_a_machine(64, 1, |dma| {
        dma.set_up_bounce(64).unwrap();
        let slots = records::<BounceSlot>(dma);
        let device = device(dma, false);
        for (size, expected) in [(100, "BNC-2"), (6000, "BNC-1")] {
            with_buffer(dma, (8, size), |_, buffer| {
                let bus = raw!(dma.map_single::<FromDevice>(&device, buffer.addr(dma), size)).unwrap();
                let used = || slots.iter().filter(|slot| raw!(slot.read()) != BounceSlot::FREE);
                assert_eq!(used().count() as u64, (size + 8).div_ceil(2048).max(1));
                assert_eq!(record_as(dma, *used().next_back().unwrap(), BounceSlot::FREE), Some(expected));
                // A slot that is nobody's.
                let copy = raw!(used().next().unwrap().read());
                assert_eq!(record_as(dma, slots[40], copy), Some("BNC-1"));
                raw!(dma.unmap_single::<FromDevice>(&device, bus, size)).unwrap();
            });
        }
    });
}

#[test]
fn a_note_of_a_mapping_that_is_lost_is_found() {
    on_a_machine(64, 1, |dma| {
        dma.watch(16).unwrap();
        let notes = records::<Entry>(dma);
        let device = device(dma, true);
        with_buffer(dma, (0, 64), |_, buffer| {
            let bus = raw!(dma.map_single::<ToDevice>(&device, buffer.addr(dma), 64)).unwrap();
            let used = *notes.iter().find(|note| raw!(note.read()) != Entry::NONE).unwrap();
            assert_eq!(record_as(dma, used, Entry::NONE), Some("DDBG-1"));
            let free = *notes.iter().find(|note| raw!(note.read()) == Entry::NONE).unwrap();
            assert_eq!(record_as(dma, free, raw!(used.read())), Some("DDBG-1"));
            raw!(dma.unmap_single::<ToDevice>(&device, bus, 64)).unwrap();
        });
    });
}

#[test]
#[cfg_attr(miri, ignore = "looks at a value as words")]
fn a_reserve_that_says_something_else_is_found() {
    on_a_machine(64, 1, |dma| {
        let cold = device(dma, false);
        let mut blocks: Vec<CoherentBlock> =
            (0..13).map(|_| dma.alloc_coherent(&cold, PAGE_SIZE, Gfp::KERNEL).unwrap()).collect();
        for index in [5, 2] {
            raw!(dma.free_coherent(&cold, PAGE_SIZE, blocks.remove(index))).unwrap();
        }
        // The pages in use, and those that start an allocation.
        let bits = 0b1_1111_1101_1011;
        let places = places_of(dma, bits);
        assert_eq!(places.len(), 2, "busy, and starts");
        for place in places {
            assert_eq!(with_word(dma, place, bits | 1 << 20), Some("RSV-1"));
            assert_eq!(with_word(dma, place, bits & !1 | 1 << 63), Some("RSV-1"));
        }
        // Two of them at one place.
        let large = dma.alloc_coherent(&cold, 2 * MIB, Gfp::KERNEL).unwrap();
        let start = |block: CoherentBlock| (block.bus.get() - BUS + RAM) & !(2 * MIB - 1);
        let (first, second) = (start(blocks[0]), start(large));
        assert_ne!(first, second);
        // One may end where the other begins.
        let found: Vec<_> = places_of(dma, second).iter().map(|place| with_word(dma, *place, first)).collect();
        assert!(found.contains(&Some("RSV-2")), "{found:?}");
        // And one whose descriptor says that it is cached.
        let pages = dma.hal().pages();
        let page = pages.hal().map().find(Pfn::containing(PhysAddr::new(first))).unwrap();
        raw!(pages.set_memory_type(page, MemoryType::WriteBack)).unwrap();
        assert_eq!(tag(dma), Some("RSV-3"));
        raw!(pages.set_memory_type(page, MemoryType::NonCacheable)).unwrap();
        raw!(dma.free_coherent(&cold, 2 * MIB, large)).unwrap();
        blocks.into_iter().for_each(|block| raw!(dma.free_coherent(&cold, PAGE_SIZE, block)).unwrap());
    });
}

#[test]
#[cfg_attr(miri, ignore = "looks at a value as words")]
fn two_pools_of_devices_at_one_place_are_found() {
    let reserved = PhysRange::from_size(PhysAddr::new(RAM + 32 * MIB), MIB).unwrap();
    on_a_machine_with(reserved, 64, 1, |dma| {
        ram(dma).set_cacheable(reserved, false);
        for from in [0, 64 << 10] {
            let start = PhysAddr::new(reserved.start().get() + from);
            let range = PhysRange::from_size(start, 64 << 10).unwrap();
            raw!(dma.add_pool(range, ram(dma).uncached(start), false)).unwrap();
        }
        let second = reserved.start().get() + (64 << 10);
        // The end of the first, and the start of the second.
        let places = places_of(dma, second);
        let found: Vec<_> = places.iter().map(|place| with_word(dma, *place, second - PAGE_SIZE)).collect();
        assert!(found.contains(&Some("DPL-2")), "{found:?}");
    });
}

std::thread_local! {
    /// Blocks of [`Noted`], with their bytes.
    static BLOCKS: RefCell<Vec<(NonNull<u8>, Layout)>> = const { RefCell::new(Vec::new()) };
}

/// The system's allocator, which notes what it gave.
struct Noted;

impl Stateless for Noted {
    const THE: Self = Self;
}

// SAFETY: blocks of the system's allocator.
unsafe impl Allocator for Noted {
    fn allocate(&self, layout: Layout, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
        let block = TheSystem.allocate(layout, gfp | Gfp::ZERO)?;
        BLOCKS.with_borrow_mut(|blocks| blocks.push((block, layout)));
        Ok(block)
    }

    unsafe fn resize(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, SlabAllocError> {
        // SAFETY: `Allocator::resize`: the block has the layout `old`, and is not used after the move.
        unsafe { resize_elsewhere(self, block, old, new, gfp) }
    }

    unsafe fn free(&self, block: NonNull<u8>, layout: Layout) {
        BLOCKS.with_borrow_mut(|blocks| blocks.retain(|(other, _)| *other != block));
        // SAFETY: given out with this layout.
        unsafe { TheSystem.free(block, layout) };
    }
}

#[test]
#[cfg_attr(miri, ignore = "looks at a value as words")]
fn a_pool_of_blocks_that_miscounts_is_found() {
    on_a_machine(64, 1, |dma| {
        let device = device(dma, true);
        let shape = PoolShape { size: 1024, align: 1024, boundary: 0, poison: false };
        let pool: DmaPool<'_, '_, _, Noted> = DmaPool::new(dma, &device, "damage", shape).unwrap();
        let held: Vec<_> = (0..53).map(|_| pool.alloc(Gfp::KERNEL).unwrap()).collect();
        let tag = || pool.check().err().map(|broken| broken.tag);
        assert_eq!(tag(), None);
        let flip = |place: *mut u64, bits: u64| {
            raw!(place.write_volatile(place.read_volatile() ^ bits));
            let found = tag();
            raw!(place.write_volatile(place.read_volatile() ^ bits));
            found
        };
        let counts = places_of(&pool, 53);
        assert!(counts.iter().any(|place| flip(*place, 1) == Some("POOL-2")));
        // The free blocks of the last page, which has three: one more than it has; one less.
        let (start, layout) = BLOCKS.with_borrow(|blocks| *blocks.last().unwrap());
        let words = (0..layout.size() / 8).map(|index| start.cast::<u64>().as_ptr().wrapping_add(index));
        let free: Vec<_> = words.filter(|word| raw!(word.read_volatile()) == 0b1110).collect();
        assert!(free.iter().any(|place| flip(*place, 1 << 4) == Some("POOL-1")), "{} words", free.len());
        assert!(free.iter().any(|place| flip(*place, 1 << 3) == Some("POOL-2")));
        held.into_iter().for_each(|block| raw!(pool.free(block)).unwrap());
        pool.destroy().map_err(|_| ()).unwrap();
    });
}
