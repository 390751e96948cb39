//! Ranges of a process that have pages: mapped with all of them, unmapped, moved, given up; and what an area and an address space
//! take. A call is counted from the `SVC` to the next instruction at EL0, a touch from one store to the next. What a row makes
//! ready for each operation is not in its figure.

use crate::meter::{Figures, Meter, Unable};
use crate::rows::{QUARRY, Row};
use crate::user_spaces::{CODE, STORES, WRITE, enter, failed, mmap, space, touch};
use core::cell::RefCell;
use core::hint::black_box;
use core::num::NonZeroU64;
use quarry::addr::{Order, PAGE_SIZE, Pfn, UserAddr};
use quarry::arch::aarch64::user::{UserFrame, enter_user};
use quarry::arch::aarch64::user_exit::UserExit;
use quarry::gfp::Gfp;
use quarry::global::{self, AddressSpace};
use quarry::hal::prot::MemoryType;
use quarry::mm::user::map::{
    Advice, Backing, MapError, MmapRequest, MremapRequest, NewArea, ObjectId, Objects, Place, VmFlags,
};
use quarry::mm::user::pages::FaultAccess;

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    Row { name: "mmap/16_touched", by: QUARRY, run: mmap_touched },
    Row { name: "mmap/2097152_populate", by: QUARRY, run: |meter| populate(meter, true) },
    Row { name: "munmap/2097152", by: QUARRY, run: |meter| populate(meter, false) },
    Row { name: "munmap/1000_touched", by: QUARRY, run: munmap_touched },
    Row { name: "mremap/move_16", by: QUARRY, run: mremap_move },
    Row { name: "madvise_dontneed/16", by: QUARRY, run: dontneed },
    Row { name: "brk/shrink", by: QUARRY, run: brk_shrink },
    Row { name: "remap_pfn_range/16_mmap", by: QUARRY, run: remap },
    Row { name: "bytes/vma", by: QUARRY, run: |_| bytes_of_areas() },
    Row { name: "bytes/address_space", by: QUARRY, run: |_| Ok(Figures::bytes(size_of::<AddressSpace>() as u64, 1)) },
];

const AT: UserAddr = UserAddr::new(0x10_0000_0000);
const ELSEWHERE: UserAddr = UserAddr::new(0x18_0000_0000);
const BLOCK: u64 = 2 << 20;

/// A space whose memory comes page by page, as the rows of others have it, and which this CPU sees.
fn paged() -> Result<AddressSpace, Unable> {
    let mut space = space()?;
    space.set_largest_unit(Order::ZERO);
    enter(&space)?;
    Ok(space)
}

fn map_at(space: &AddressSpace, at: UserAddr, size: u64) -> Result<UserAddr, MapError> {
    space.mmap(black_box(&MmapRequest::anonymous(size, WRITE).at(Place::FixedNoReplace(at))))
}

/// Measures one call, with what is made ready for each.
fn one_call(
    meter: &mut Meter,
    mut prepare: impl FnMut() -> bool,
    mut call: impl FnMut() -> Result<(), MapError>,
) -> Result<Figures, Unable> {
    let mut frame = UserFrame::new(CODE, CODE);
    let (mut ready, mut done) = (true, true);
    let figures = meter.measure_each(
        || ready &= prepare(),
        || {
            done &= enter_user(black_box(&mut frame)) == UserExit::Syscall(0);
            done &= call().is_ok();
        },
    );
    global::leave_mm();
    if ready && done { Ok(figures) } else { Err("a call of the process failed") }
}

/// `mmap`, sixteen first stores, `munmap`.
fn mmap_touched(meter: &mut Meter) -> Result<Figures, Unable> {
    let space = paged()?;
    let mut done = true;
    let figures = meter.measure(|| {
        let mut frame = UserFrame::new(CODE, CODE);
        done &= enter_user(black_box(&mut frame)) == UserExit::Syscall(0);
        let Ok(at) = mmap(&space, 16) else { return done = false };
        let mut frame = UserFrame::new(STORES, CODE);
        frame.x[0] = at.get();
        for _ in 0..16 {
            match enter_user(black_box(&mut frame)) {
                UserExit::Abort(_, far) => {
                    done &= space.fault(UserAddr::new(far.get()), FaultAccess::Write, Gfp::USER).is_ok();
                }
                _ => done = false,
            }
        }
        let mut frame = UserFrame::new(CODE, CODE);
        done &= enter_user(black_box(&mut frame)) == UserExit::Syscall(0);
        done &= space.usage().anon >= 16 * PAGE_SIZE;
        done &= space.munmap(black_box(at), black_box(16 * PAGE_SIZE)).is_ok();
    });
    global::leave_mm();
    if done { Ok(figures) } else { Err("a call of the process failed") }
}

/// 2 MiB mapped with all pages, by one call; or unmapped.
fn populate(meter: &mut Meter, mapped: bool) -> Result<Figures, Unable> {
    let space = paged()?;
    let map = || map_at(&space, AT, BLOCK).is_ok_and(|at| space.populate(at, BLOCK).is_ok());
    let unmap = || space.munmap(black_box(AT), black_box(BLOCK));
    if mapped {
        one_call(meter, || unmap().is_ok(), || if map() { Ok(()) } else { Err(MapError::NoMemory) })
    } else {
        one_call(meter, map, unmap)
    }
}

fn munmap_touched(meter: &mut Meter) -> Result<Figures, Unable> {
    let (space, size) = (paged()?, 1000 * PAGE_SIZE);
    let map = || map_at(&space, AT, size).is_ok_and(|at| touch(&space, at, 1000).is_ok());
    one_call(meter, map, || space.munmap(black_box(AT), black_box(size)))
}

/// There and back by turns, sixteen pages.
fn mremap_move(meter: &mut Meter) -> Result<Figures, Unable> {
    let (space, size) = (paged()?, 16 * PAGE_SIZE);
    map_at(&space, AT, size).map_err(failed)?;
    touch(&space, AT, 16)?;
    let (mut addr, mut to) = (AT, ELSEWHERE);
    one_call(
        meter,
        || true,
        || {
            let request = MremapRequest { addr, old_size: size, new_size: size, may_move: true, to: Some(to) };
            (addr, to) = (to, addr);
            space.mremap(black_box(&request)).map(|_| ())
        },
    )
}

fn dontneed(meter: &mut Meter) -> Result<Figures, Unable> {
    let (space, size) = (paged()?, 16 * PAGE_SIZE);
    map_at(&space, AT, size).map_err(failed)?;
    let advise = || space.madvise(black_box(AT), black_box(size), Advice::DontNeed);
    one_call(meter, || touch(&space, AT, 16).is_ok(), advise)
}

/// The heap loses a page that nobody touched.
fn brk_shrink(meter: &mut Meter) -> Result<Figures, Unable> {
    let space = paged()?;
    let set = space.with_map_mut(|map, _| {
        map.set_start_brk(AT);
        Ok(())
    });
    set.map_err(failed)?;
    let brk = |pages: u64| space.brk(black_box(UserAddr::new(AT.get() + pages * PAGE_SIZE)));
    one_call(meter, || brk(3).is_ok(), || brk(2).map(|_| ()))
}

/// A driver with sixteen pages of registers: those of `virt`'s flash.
struct Driver;

impl Objects for Driver {
    fn mmap(&self, _: ObjectId, area: &mut NewArea) -> Result<(), MapError> {
        // SAFETY: nobody reads or writes there; no other mapping of the flash is live meanwhile.
        unsafe { area.io_remap_pfn_range(Pfn::new(0x4000), MemoryType::DeviceNGnRE) };
        Ok(())
    }

    fn get(&self, _: ObjectId) {}

    fn put(&self, _: ObjectId) {}
}

fn remap(meter: &mut Meter) -> Result<Figures, Unable> {
    global::user_init(&Driver).map_err(|_| "no processes")?;
    let space = paged()?;
    let object = ObjectId(NonZeroU64::MIN);
    let size = 16 * PAGE_SIZE;
    let request =
        MmapRequest { backing: Backing::File(object), ..MmapRequest::anonymous(size, WRITE | VmFlags::SHARED) };
    let mut frame = UserFrame::new(CODE, CODE);
    let mut done = true;
    let figures = meter.measure(|| {
        for _ in 0..2 {
            done &= enter_user(black_box(&mut frame)) == UserExit::Syscall(0);
        }
        done &= space.mmap(black_box(&request)).and_then(|at| space.munmap(black_box(at), black_box(size))).is_ok();
    });
    global::leave_mm();
    if done { Ok(figures) } else { Err("a call of the process failed") }
}

/// Memory that many areas take, whole pages of records, for each.
fn bytes_of_areas() -> Result<Figures, Unable> {
    const AREAS: u64 = 10_000;
    const OTHERS: u64 = 15_000;
    let space = RefCell::new(space()?);
    let map = |area: u64| {
        let at = UserAddr::new(AT.get() + area * 2 * PAGE_SIZE);
        map_at(&space.borrow(), at, PAGE_SIZE).map(|_| ())
    };
    // Records that were left of others are used up first.
    (0..OTHERS).try_for_each(map).map_err(failed)?;
    // Pages on the lists of a CPU are free, and it gets many at once.
    let free = || {
        global::drain_all_pages();
        global::nr_free_pages()
    };
    let before = free();
    (OTHERS..OTHERS + AREAS).try_for_each(map).map_err(failed)?;
    let taken = before.saturating_sub(free());
    global::leave_mm();
    Ok(Figures::bytes(taken * PAGE_SIZE, AREAS))
}
