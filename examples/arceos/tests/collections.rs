//! The standard library's collections live on it: it is the allocator of this whole program.

use ax_allocator::{BaseAllocator, ByteAllocator, PageAllocator};
use quarry_arceos::QuarryAllocator;
use spin::Mutex;
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ptr::{NonNull, null_mut};

const POOL: usize = 256 << 20;

struct Global(Mutex<(QuarryAllocator, bool)>);

#[global_allocator]
static GLOBAL: Global = Global(Mutex::new((QuarryAllocator::new(), false)));

// SAFETY: the allocator's promise, behind a lock.
unsafe impl GlobalAlloc for Global {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (allocator, started) = &mut *self.0.lock();
        if !*started {
            *started = true;
            // SAFETY: the layout is not empty.
            let pool = unsafe { System.alloc(Layout::from_size_align_unchecked(POOL, 4096)) };
            allocator.init(pool.expose_provenance(), POOL);
        }
        allocator.alloc(layout).map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            self.0.lock().0.dealloc(block, layout);
        }
    }
}

/// Numbers without a pattern.
fn numbers(count: usize) -> impl Iterator<Item = u64> {
    (0..count as u64).map(|number| (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17))
}

#[test]
fn vectors_grow_and_are_sorted() {
    let mut values: Vec<u64> = numbers(3_000_000).collect();
    values.sort_unstable();
    assert!(values.is_sorted() && values.len() == 3_000_000);
    let blocks: Vec<Vec<u64>> = (0..30_000).map(|_| Vec::with_capacity(64)).collect();
    let large: Vec<Vec<u64>> = (0..7_500).map(|_| Vec::with_capacity(520)).collect();
    assert!(blocks.iter().all(|block| block.capacity() >= 64) && large.len() == 7_500);
}

#[test]
fn maps_of_strings_hold_what_was_put_in() {
    let mut tree = BTreeMap::new();
    let mut table = HashMap::new();
    for number in numbers(100_000) {
        tree.insert(format!("key_{number}"), number);
        table.insert(number, format!("value_{number}"));
    }
    assert!(tree.len() == 100_000 && table.len() == 100_000);
    for number in numbers(100_000).step_by(2) {
        assert_eq!(tree.remove(&format!("key_{number}")), Some(number));
        assert_eq!(table.remove(&number), Some(format!("value_{number}")));
    }
    assert!(tree.iter().all(|(key, number)| *key == format!("key_{number}")));
    assert!(table.iter().all(|(number, value)| *value == format!("value_{number}")));
}

#[test]
fn queues_of_boxes_on_several_threads() {
    let threads: Vec<_> = (0..4_u64)
        .map(|thread| {
            std::thread::spawn(move || {
                let mut queue = VecDeque::new();
                for number in 0..100_000_u64 {
                    queue.push_back(Box::new([thread, number]));
                    if number % 3 == 0 {
                        assert_eq!(queue.pop_front().map(|pair| pair[0]), Some(thread));
                    }
                }
                queue.len()
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().ok(), Some(100_000 - 33_334));
    }
}

#[test]
fn alignments_are_kept_and_counted() {
    let pool = vec![0_u64; 1 << 21].leak();
    let mut allocator = QuarryAllocator::new();
    allocator.init(pool.as_mut_ptr().expose_provenance(), size_of_val(pool));
    let mut blocks = Vec::new();
    for (number, seed) in numbers(5_000).enumerate() {
        let layout = Layout::from_size_align(1 + (seed % 3000) as usize, 1 << (seed >> 60 & 7)).expect("a layout");
        let block = allocator.alloc(layout).expect("memory");
        assert!(block.addr().get().is_multiple_of(layout.align()), "{number}");
        blocks.push((block, layout));
        if number % 3 == 0 {
            let (block, layout) = blocks.swap_remove(number / 2 % blocks.len());
            allocator.dealloc(block, layout);
        }
    }
    assert_eq!(allocator.used_bytes(), blocks.iter().map(|(_, layout)| layout.size()).sum());
    blocks.into_iter().for_each(|(block, layout)| allocator.dealloc(block, layout));
    assert_eq!(allocator.used_bytes(), 0);
}

#[test]
fn pages_come_aligned_at_a_place_and_go_back_in_parts() {
    let pool = vec![0_u64; 1 << 21].leak();
    let mut allocator = QuarryAllocator::new();
    allocator.init(pool.as_mut_ptr().expose_provenance(), size_of_val(pool));
    let free = allocator.available_pages();
    let block = allocator.alloc_pages(8, 0x8000).expect("pages");
    assert!(block.is_multiple_of(0x8000) && allocator.used_pages() == 8);
    let odd = allocator.alloc_pages(5, 0x10000).expect("pages");
    assert!(odd.is_multiple_of(0x10000));
    allocator.dealloc_pages(block + 0x1000, 3);
    assert_eq!(allocator.alloc_pages_at(block + 0x1000, 2, 0x1000).ok(), Some(block + 0x1000));
    assert!(allocator.alloc_pages_at(block, 1, 0x1000).is_err(), "somebody has it");
    assert!(allocator.alloc_pages_at(block + 1, 1, 0x1000).is_err());
    assert!(allocator.alloc_pages(1, 3).is_err() && allocator.alloc_pages(0, 0x1000).is_err());
    allocator.dealloc_pages(block, 3);
    allocator.dealloc_pages(block + 0x4000, 4);
    allocator.dealloc_pages(odd, 5);
    assert_eq!((allocator.used_pages(), allocator.available_pages()), (0, free));
}

#[test]
fn memory_that_is_added_serves_when_the_first_is_used_up() {
    const RANGE: usize = 4 << 20;
    let layout = Layout::from_size_align(2 * RANGE, RANGE).unwrap();
    // SAFETY: the layout is not empty.
    let memory = unsafe { System.alloc(layout) }.expose_provenance();
    let mut allocator = QuarryAllocator::new();
    allocator.init(memory, RANGE);
    let first = allocator.total_pages();
    assert!(allocator.add_memory(memory + RANGE / 2, RANGE).is_err(), "it meets the first");
    assert!(allocator.add_memory(memory + RANGE, 4096).is_err(), "no room for its descriptors");
    assert_eq!(allocator.total_pages(), first);
    allocator.add_memory(memory + RANGE, RANGE).unwrap();
    assert!(allocator.total_pages() > 2 * first - 64);

    let block = Layout::from_size_align(1000, 8).unwrap();
    let mut blocks: Vec<NonNull<u8>> = Vec::with_capacity(9000);
    while let Ok(at) = allocator.alloc(block) {
        blocks.push(at);
    }
    let in_second = blocks.iter().filter(|at| at.addr().get() >= memory + RANGE).count();
    assert!(in_second > 3000 && blocks.len() - in_second > 3000, "{in_second} of {}", blocks.len());
    for at in blocks {
        allocator.dealloc(at, block);
    }
    assert_eq!(allocator.used_bytes(), 0);
    let mut runs = Vec::new();
    while let Ok(at) = allocator.alloc_pages(64, 4096) {
        runs.push(at);
    }
    let in_second = runs.iter().filter(|at| **at >= memory + RANGE).count();
    assert!(in_second > 8 && runs.len() - in_second > 8, "{in_second} of {}", runs.len());
    for at in runs {
        allocator.dealloc_pages(at, 64);
    }
    assert_eq!(allocator.used_pages(), 0);
}
