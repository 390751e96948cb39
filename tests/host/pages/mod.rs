//! The page allocator: the behaviours by number, random operations against a bitmap, several CPUs, a machine of 16 TiB.

mod buddy;
mod census;
mod contiguous;
mod cpus;
mod damage;
mod efforts;
mod errors;
mod failing;
mod flipped;
mod gfp;
mod machine;
mod migration;
mod model;
mod pcp;
mod races;
mod reclaim;
mod refusals;
mod refused;
mod registry;
mod reserve;
mod scrub;
mod sizes;
mod sparse;
mod stress;
mod ties;
mod zones;

use machine::{Pages, Spec, range};
use quarry::addr::Order;
use quarry::mm::page::{Page, PageMap};
use quarry::mm::zone::{ContigError, FreeError, PageHal};

fn order(order: u8) -> Order {
    Order::new(order).unwrap()
}

/// Every page of the machine, taken one at a time, whatever keeps it back.
fn take_all(pages: &Pages<'_>, order: Order) -> Vec<Page> {
    use quarry::gfp::Gfp;
    std::iter::from_fn(|| pages.alloc_pages(Gfp::MEMALLOC | Gfp::NOWARN, order).ok()).collect()
}

fn give_back(pages: &Pages<'_>, taken: impl IntoIterator<Item = Page>, order: Order) {
    for page in taken {
        raw!(pages.free_pages(page, order)).unwrap();
    }
}

/// Free blocks by order, in all zones, with nothing left on per-CPU lists.
fn blocks(pages: &Pages<'_>) -> Vec<u64> {
    use quarry::gfp::ZoneType;
    pages.drain_all();
    (0..=10)
        .map(|o| {
            ZoneType::ALL.iter().filter_map(|kind| pages.free_blocks(*kind)).map(|free| free.blocks_of(order(o))).sum()
        })
        .collect()
}

/// The tests' machine has nothing in its reserved memory.
fn free_reserved(pages: &Pages<'_>, first: Page, count: u32) -> Result<u32, FreeError> {
    // SAFETY: memory that is no memory, only descriptors.
    unsafe { pages.free_reserved(first, count) }
}

/// The same for memory that contiguous allocations have first.
fn add_cma(pages: &Pages<'_>, first: Page, count: u32) -> Result<(), ContigError> {
    // SAFETY: memory that is no memory, only descriptors.
    unsafe { pages.add_cma(first, count) }.map(drop)
}

fn phys(pages: &Pages<'_>, page: Page) -> u64 {
    pages.hal().map().phys(page).get()
}
