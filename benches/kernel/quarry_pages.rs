//! This kernel's page allocator, as a kernel calls it: flags and order are constants, the page is not.

use crate::meter::{Figures, Meter, Unable};
use crate::pages::{BATCH, EXHAUSTED, SHUFFLED, shuffle};
use crate::rows::{QUARRY, Row};
use alloc::vec::Vec;
use core::hint::black_box;
use quarry::addr::Order;
use quarry::gfp::Gfp;
use quarry::instance;
use quarry::mm::zone::PageBatch;

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    Row { name: "alloc_pages/0", by: QUARRY, run: alloc_pages::<0> },
    Row { name: "alloc_pages/3", by: QUARRY, run: alloc_pages::<3> },
    Row { name: "alloc_pages/4", by: QUARRY, run: alloc_pages::<4> },
    Row { name: "alloc_pages/9", by: QUARRY, run: alloc_pages::<9> },
    Row { name: "alloc_pages/10", by: QUARRY, run: alloc_pages::<10> },
    Row { name: "get_zeroed_page", by: QUARRY, run: get_zeroed_page },
    Row { name: "alloc_pages_bulk/64", by: QUARRY, run: alloc_pages_bulk },
    Row { name: "pages_batch_random/4096", by: QUARRY, run: pages_batch_random },
];

fn answer(failed: bool, figures: Figures) -> Result<Figures, Unable> {
    if failed { Err(EXHAUSTED) } else { Ok(figures) }
}

/// An order as a constant.
struct Of<const ORDER: u8>;

impl<const ORDER: u8> Of<ORDER> {
    const ORDER: Order = match Order::new(ORDER) {
        Some(order) => order,
        None => panic!("no such order"),
    };
}

fn alloc_pages<const ORDER: u8>(meter: &mut Meter) -> Result<Figures, Unable> {
    let mut failed = false;
    let figures = meter.measure(|| match instance::alloc_pages(Gfp::KERNEL, Of::<ORDER>::ORDER) {
        Ok(page) => failed |= instance::free_pages(black_box(page), Of::<ORDER>::ORDER).is_err(),
        Err(_) => failed = true,
    });
    answer(failed, figures)
}

fn get_zeroed_page(meter: &mut Meter) -> Result<Figures, Unable> {
    let mut failed = false;
    let figures = meter.measure(|| match instance::get_zeroed_page(Gfp::KERNEL) {
        Ok(page) => failed |= instance::free_page(black_box(page)).is_err(),
        Err(_) => failed = true,
    });
    answer(failed, figures)
}

fn alloc_pages_bulk(meter: &mut Meter) -> Result<Figures, Unable> {
    let mut failed = false;
    let mut batch = PageBatch::<64>::new();
    let figures = meter.measure(|| {
        failed |= instance::alloc_pages_bulk(Gfp::KERNEL, black_box(&mut batch)) != Ok(64);
        failed |= instance::free_pages_bulk(black_box(&mut batch)).is_err();
    });
    answer(failed, figures)
}

fn pages_batch_random(meter: &mut Meter) -> Result<Figures, Unable> {
    let mut order = SHUFFLED.lock();
    shuffle(&mut order);
    let mut failed = false;
    let Ok(first) = instance::alloc_page(Gfp::KERNEL) else { return Err(EXHAUSTED) };
    // What the places hold before the first round is of no account.
    let mut pages: Vec<_> = (0..BATCH).map(|_| first).collect();
    failed |= instance::free_page(first).is_err();
    let figures = meter.measure_units(u32::from(BATCH), || {
        for place in pages.iter_mut() {
            match instance::alloc_page(Gfp::KERNEL) {
                Ok(page) => *place = page,
                Err(_) => failed = true,
            }
        }
        for &index in order.iter() {
            if let Some(page) = pages.get(usize::from(index)) {
                failed |= instance::free_page(*page).is_err();
            }
        }
    });
    answer(failed, figures)
}
