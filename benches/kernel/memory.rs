//! Whole pages: `zero_page`, `copy_page`.

use crate::arena::Arena;
use crate::meter::{Figures, Meter, Unable};
use crate::rows::{QUARRY, Row};
use core::hint::black_box;
use core::ptr::NonNull;
use quarry::arch::aarch64::mem::{self, Page};

/// The rows. That of the compiler's own routines stands in `benches/figures.tsv`: here they are replaced by ours.
pub(crate) const ROWS: &[Row] =
    &[Row { name: "zero_page", by: QUARRY, run: zero_page }, Row { name: "copy_page", by: QUARRY, run: copy_page }];

/// Two pages of the arena.
fn two_pages() -> (NonNull<Page>, NonNull<Page>) {
    let first = Arena::get().start().cast::<Page>();
    // SAFETY: the arena has many pages.
    (first, unsafe { first.add(1) })
}

fn zero_page(meter: &mut Meter) -> Result<Figures, Unable> {
    let (page, _) = two_pages();
    // SAFETY: a page of the arena, which is ours.
    unsafe { page.write([0xa5; size_of::<Page>()]) };
    // SAFETY: a page of the arena, which is ours.
    let figures = meter.measure(|| unsafe { mem::clear_page(black_box(page)) });
    // SAFETY: a page of the arena, which is ours.
    let zero = unsafe { page.as_ref() }.iter().all(|&byte| byte == 0);
    if zero { Ok(figures) } else { Err("the page is not zero") }
}

fn copy_page(meter: &mut Meter) -> Result<Figures, Unable> {
    let (to, from) = two_pages();
    // SAFETY: a page of the arena, which is ours.
    unsafe { from.write([0x5a; size_of::<Page>()]) };
    // SAFETY: two pages of the arena, which are ours.
    let figures = meter.measure(|| unsafe { mem::copy_page(black_box(to), black_box(from)) });
    // SAFETY: two pages of the arena, which are ours.
    let (copy, original) = (unsafe { to.as_ref() }, unsafe { from.as_ref() });
    if copy == original { Ok(figures) } else { Err("the copy differs") }
}
