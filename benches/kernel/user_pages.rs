//! Address spaces as a whole, and faults that are not the usual ones: fork and the end of a process, from the `SVC` to the next
//! instruction at EL0, and first stores that need a table or bring a block. What a row makes ready for each operation is not in
//! its figure.

use crate::meter::{Figures, Meter, Unable};
use crate::rows::{QUARRY, Row};
use crate::user_spaces::{CODE, WRITE, accesses, enter, failed, mmap, run, space, touch};
use core::cell::RefCell;
use core::hint::black_box;
use quarry::addr::{Order, PAGE_SIZE, UserAddr, VirtAddr, VirtRange};
use quarry::arch::aarch64::user::{UserFrame, enter_user};
use quarry::arch::aarch64::user_exit::UserExit;
use quarry::gfp::Gfp;
use quarry::global::{self, AddressSpace};
use quarry::hal::prot::Access;
use quarry::mm::user::map::{Advice, MmapRequest, Place};
use quarry::mm::user::pages::{Backing, FaultAccess};

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    Row { name: "fault_anon/4096_table", by: QUARRY, run: |meter| first_stores(meter, Order::ZERO) },
    Row { name: "fault_anon/2097152", by: QUARRY, run: |meter| first_stores(meter, Order::MAX) },
    Row { name: "get_user_pages/1", by: QUARRY, run: pins::<1> },
    Row { name: "get_user_pages/16", by: QUARRY, run: pins::<16> },
    Row { name: "fork/bare", by: QUARRY, run: |meter| fork(meter, 0) },
    Row { name: "fork/1000", by: QUARRY, run: |meter| fork(meter, 1000) },
    Row { name: "exit/1000_shared", by: QUARRY, run: |meter| exit(meter, true) },
    Row { name: "exit/1000_own", by: QUARRY, run: |meter| exit(meter, false) },
];

const BLOCK: u64 = 2 << 20;

/// Stores to the first page of 2 MiB that have nothing, the table of their last entries included.
fn first_stores(meter: &mut Meter, largest: Order) -> Result<Figures, Unable> {
    let mut space = space()?;
    space.set_largest_unit(largest);
    let at = UserAddr::new(0x10_0000_0000);
    let request = MmapRequest::anonymous(4 * BLOCK, WRITE).at(Place::FixedNoReplace(at));
    space.mmap(&request).map_err(failed)?;
    // The tables above stay with the neighbour, which has a page.
    touch(&space, at, 1)?;
    let target = UserAddr::new(at.get() + 2 * BLOCK);
    enter(&space)?;
    let first = || accesses(FaultAccess::Write, target, 0);
    let frame = RefCell::new(first());
    let (mut done, mut prepared) = (true, true);
    let mut same = accesses(FaultAccess::Write, at, 0);
    meter.leave_out(|| done &= run(&space, &mut same));
    let figures = meter.measure_each(
        || {
            // Unmapped and mapped again, so that the table goes.
            prepared &= space.munmap(target, BLOCK).is_ok();
            let again = MmapRequest::anonymous(BLOCK, WRITE).at(Place::FixedNoReplace(target));
            prepared &= space.mmap(&again).is_ok();
            frame.replace(first());
        },
        || done &= run(&space, &mut frame.borrow_mut()),
    );
    let unit = if largest == Order::ZERO { PAGE_SIZE } else { BLOCK };
    done &= prepared && space.usage().anon >= unit;
    global::leave_mm();
    if done { Ok(figures.by_median()) } else { Err("a fault was not resolved") }
}

fn backing(at: UserAddr, bytes: u64) -> Result<Backing, Unable> {
    let range = VirtRange::from_size(VirtAddr::new(at.get()), bytes).ok_or("no range")?;
    Ok(Backing::private(range, Access::ReadWrite))
}

/// Pins pages that are there, and unpins them.
fn pins<const PAGES: usize>(meter: &mut Meter) -> Result<Figures, Unable> {
    let space = space()?;
    let at = mmap(&space, PAGES as u64).map_err(failed)?;
    touch(&space, at, PAGES as u64)?;
    let backing = backing(at, PAGES as u64 * PAGE_SIZE)?;
    let start = backing.range.start();
    let mut pinned = [const { None }; PAGES];
    let mut done = true;
    let figures = meter.measure(|| {
        if PAGES == 1 {
            done &= space.pages().pin(black_box(start), true, &backing, Gfp::USER).map(drop).is_ok();
        } else {
            done &= space.pages().pin_pages(black_box(start), true, &backing, Gfp::USER, &mut pinned).is_ok();
            space.pages().unpin_pages(&mut pinned);
        }
    });
    global::leave_mm();
    if done { Ok(figures) } else { Err("not pinned") }
}

/// The call of a parent; the child before has ended.
fn fork(meter: &mut Meter, touched: u64) -> Result<Figures, Unable> {
    let space = space()?;
    let at = mmap(&space, touched.max(1)).map_err(failed)?;
    touch(&space, at, touched)?;
    enter(&space)?;
    let mut frame = UserFrame::new(CODE, CODE);
    let mut done = true;
    let child = RefCell::new(None);
    let figures = meter.measure_each(
        || drop(child.take()),
        || {
            done &= enter_user(black_box(&mut frame)) == UserExit::Syscall(0);
            child.replace(space.fork().ok());
        },
    );
    done &= child.borrow().is_some();
    global::leave_mm();
    if done { Ok(figures) } else { Err("no child") }
}

/// The last call of a child: its space goes, with 1,000 pages that it shares with its parent, or of its own.
fn exit(meter: &mut Meter, shared: bool) -> Result<Figures, Unable> {
    let parent = space()?;
    let at = mmap(&parent, 1000).map_err(failed)?;
    if shared {
        touch(&parent, at, 1000)?;
    }
    let mut done = true;
    let child = RefCell::new(None::<AddressSpace>);
    let frame = RefCell::new(UserFrame::new(CODE, CODE));
    let figures = meter.measure_each(
        || {
            let made = parent.fork().ok().filter(|space| shared || touch(space, at, 1000).is_ok());
            frame.replace(UserFrame::new(CODE, CODE));
            if let Some(made) = made.filter(|space| enter(space).is_ok()) {
                child.replace(Some(made));
            }
        },
        || {
            done &= enter_user(black_box(&mut *frame.borrow_mut())) == UserExit::Syscall(0);
            done &= enter(&parent).is_ok();
            done &= child.take().map(drop).is_some();
        },
    );
    done &= parent.madvise(at, 1000 * PAGE_SIZE, Advice::DontNeed).is_ok();
    global::leave_mm();
    if done { Ok(figures) } else { Err("no child") }
}
