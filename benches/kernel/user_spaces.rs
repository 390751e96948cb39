//! Address spaces: calls of a process, from one `SVC` to the next with the call in between, and faults, each a store less the same
//! store to a page that is there. Rounds that change nothing else follow each other, so that a mean is what one costs.

use crate::meter::{Figures, Meter, Unable};
use crate::rows::{QUARRY, Row};
use core::hint::black_box;
use quarry::addr::{Order, PAGE_SIZE, UserAddr};
use quarry::arch::aarch64::user::{UserFrame, enter_user};
use quarry::arch::aarch64::user_exit::UserExit;
use quarry::gfp::Gfp;
use quarry::global::{self, AddressSpace};
use quarry::mm::user::map::{Advice, Limits, MapError, MmapRequest, MremapRequest, Place, VmFlags};
use quarry::mm::user::pages::FaultAccess;

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    Row { name: "fault_anon/4096", by: QUARRY, run: |meter| faults(meter, FaultAccess::Write, Before::Nothing) },
    Row { name: "fault_zero_page", by: QUARRY, run: |meter| faults(meter, FaultAccess::Read, Before::Nothing) },
    Row { name: "fault_zero_page/write", by: QUARRY, run: |meter| faults(meter, FaultAccess::Write, Before::ZeroPage) },
    Row { name: "fault_cow/copy", by: QUARRY, run: |meter| faults(meter, FaultAccess::Write, Before::Shared) },
    Row { name: "fault_cow/reuse", by: QUARRY, run: |meter| faults(meter, FaultAccess::Write, Before::Last) },
    Row {
        name: "mmap/16",
        by: QUARRY,
        run: |meter| calls(meter, 0, 2, |space, _| mmap(space, 16).and_then(|at| unmap(space, at, 16))),
    },
    Row { name: "mmap/16_among_1024", by: QUARRY, run: |meter| among(meter, 1024) },
    Row { name: "mmap/16_among_10000", by: QUARRY, run: |meter| among(meter, 10_000) },
    Row { name: "mprotect/16", by: QUARRY, run: |meter| calls(meter, 16, 2, |space, at| protect(space, at, 16)) },
    Row { name: "mprotect/8_of_16", by: QUARRY, run: |meter| calls(meter, 16, 2, |space, at| protect(space, at, 8)) },
    Row { name: "mremap/grow", by: QUARRY, run: mremap_grow },
    Row { name: "brk/grow", by: QUARRY, run: brk_grow },
];

const READ: VmFlags = VmFlags::READ;
pub(crate) const WRITE: VmFlags = VmFlags::READ.union(VmFlags::WRITE);
/// Where the program is.
pub(crate) const CODE: UserAddr = UserAddr::new(0x40_0000);

/// `svc #0` for ever; a store and a call, for ever, the next store so many bytes further; the same with a load; so many stores and a
/// call.
const PROGRAM: [u32; 15] = [
    0xd400_0001, // svc #0
    0x17ff_ffff, // b .-4
    0xf900_0001, // str x1, [x0]
    0x8b03_0000, // add x0, x0, x3
    0xd400_0001, // svc #0
    0x17ff_fffd, // b .-12
    0xf940_0001, // ldr x1, [x0]
    0x8b03_0000, // add x0, x0, x3
    0xd400_0001, // svc #0
    0x17ff_fffd, // b .-12
    0xf900_0001, // str x1, [x0]
    0x8b03_0000, // add x0, x0, x3
    0xf100_0442, // subs x2, x2, #1
    0x54ff_ffa1, // b.ne .-12
    0xd400_0001, // svc #0
];
const STORE: UserAddr = UserAddr::new(0x40_0008);
const LOAD: UserAddr = UserAddr::new(0x40_0018);
const STORES: UserAddr = UserAddr::new(0x40_0028);

/// A process that accesses the memory at `at`, and calls, and accesses the memory `stride` bytes further.
pub(crate) fn accesses(access: FaultAccess, at: UserAddr, stride: u64) -> UserFrame {
    let mut frame = UserFrame::new(if access == FaultAccess::Read { LOAD } else { STORE }, CODE);
    (frame.x[0], frame.x[3]) = (at.get(), stride);
    frame
}

/// A process that stores to so many pages, and calls.
pub(crate) fn stores(at: UserAddr, pages: u64) -> UserFrame {
    let mut frame = UserFrame::new(STORES, CODE);
    (frame.x[0], frame.x[2], frame.x[3]) = (at.get(), pages, PAGE_SIZE);
    frame
}

/// Runs the process until it calls; whether it does.
#[inline(always)]
pub(crate) fn run(space: &AddressSpace, frame: &mut UserFrame) -> bool {
    global::run_user(space, black_box(frame)) == UserExit::Syscall(0)
}

pub(crate) fn failed(_: MapError) -> Unable {
    "a call of the process failed"
}

pub(crate) fn space() -> Result<AddressSpace, Unable> {
    let space = global::new_address_space(global::user_layout(), Limits::DEFAULT, Gfp::KERNEL).map_err(failed)?;
    let code = MmapRequest::anonymous(PAGE_SIZE, WRITE).at(Place::FixedNoReplace(CODE));
    space.mmap(&code).map_err(failed)?;
    space.fault(CODE, FaultAccess::Write, Gfp::USER).map_err(|_| "no page")?;
    enter(&space)?;
    // SAFETY: the words as bytes.
    let bytes = unsafe { core::slice::from_raw_parts(PROGRAM.as_ptr().cast::<u8>(), size_of_val(&PROGRAM)) };
    global::copy_to_user(CODE, bytes).map_err(|_| "not copied")?;
    space.mprotect(CODE, PAGE_SIZE, READ | VmFlags::EXEC).map_err(failed)?;
    Ok(space)
}

pub(crate) fn enter(space: &AddressSpace) -> Result<(), Unable> {
    // SAFETY: every row leaves the space before it is dropped.
    unsafe { global::activate(space) }.map_err(|_| "no number")
}

pub(crate) fn mmap(space: &AddressSpace, pages: u64) -> Result<UserAddr, MapError> {
    space.mmap(black_box(&MmapRequest::anonymous(pages * PAGE_SIZE, WRITE)))
}

fn unmap(space: &AddressSpace, at: UserAddr, pages: u64) -> Result<(), MapError> {
    space.munmap(black_box(at), black_box(pages * PAGE_SIZE))
}

fn protect(space: &AddressSpace, at: UserAddr, pages: u64) -> Result<(), MapError> {
    space.mprotect(black_box(at), pages * PAGE_SIZE, READ)?;
    space.mprotect(black_box(at), pages * PAGE_SIZE, WRITE)
}

/// Touches so many pages.
pub(crate) fn touch(space: &AddressSpace, at: UserAddr, pages: u64) -> Result<(), Unable> {
    (0..pages).try_for_each(|page| {
        let at = UserAddr::new(at.get() + page * PAGE_SIZE);
        space.fault(at, FaultAccess::Write, Gfp::USER).map(|_| ()).map_err(|_| "no page")
    })
}

/// Measures a call that needs so many system calls, with that many pages touched.
fn calls(
    meter: &mut Meter,
    touched: u64,
    syscalls: u32,
    call: impl Fn(&AddressSpace, UserAddr) -> Result<(), MapError>,
) -> Result<Figures, Unable> {
    let space = space()?;
    let at = mmap(&space, touched.max(1)).map_err(failed)?;
    touch(&space, at, touched)?;
    let figures = measure_calls(meter, &space, syscalls, || call(&space, at));
    global::leave_mm();
    figures
}

fn measure_calls(
    meter: &mut Meter,
    space: &AddressSpace,
    syscalls: u32,
    mut call: impl FnMut() -> Result<(), MapError>,
) -> Result<Figures, Unable> {
    enter(space)?;
    let mut frame = UserFrame::new(CODE, CODE);
    let mut done = true;
    let figures = meter.measure(|| {
        for _ in 0..syscalls {
            done &= enter_user(black_box(&mut frame)) == UserExit::Syscall(0);
        }
        done &= call().is_ok();
    });
    if done { Ok(figures) } else { Err("a call of the process failed") }
}

/// Among so many areas with gaps of a page between them.
fn among(meter: &mut Meter, areas: u64) -> Result<Figures, Unable> {
    let space = space()?;
    for area in 0..areas {
        let at = UserAddr::new(0x10_0000_0000 + area * 2 * PAGE_SIZE);
        space.mmap(&MmapRequest::anonymous(PAGE_SIZE, WRITE).at(Place::FixedNoReplace(at))).map_err(failed)?;
    }
    let figures = measure_calls(meter, &space, 2, || mmap(&space, 16).and_then(|at| unmap(&space, at, 16)));
    global::leave_mm();
    figures
}

/// 16 pages grow to 32 in place; the way back is another call, which is measured too and taken off by nobody.
fn mremap_grow(meter: &mut Meter) -> Result<Figures, Unable> {
    let space = space()?;
    let start = UserAddr::new(0x10_0000_0000);
    space.mmap(&MmapRequest::anonymous(16 * PAGE_SIZE, WRITE).at(Place::FixedNoReplace(start))).map_err(failed)?;
    let mut pages = 16;
    let figures = measure_calls(meter, &space, 1, || {
        let (old, new) = (pages * PAGE_SIZE, (pages + 16) * PAGE_SIZE);
        pages += 16;
        space
            .mremap(black_box(&MremapRequest { addr: start, old_size: old, new_size: new, may_move: false, to: None }))
            .map(|_| ())
    });
    global::leave_mm();
    figures
}

fn brk_grow(meter: &mut Meter) -> Result<Figures, Unable> {
    let space = space()?;
    let mut at = UserAddr::new(0x20_0000_0000);
    space
        .with_map_mut(|map, _| {
            map.set_start_brk(at);
            Ok(())
        })
        .map_err(failed)?;
    let figures = measure_calls(meter, &space, 1, || {
        at = UserAddr::new(at.get() + PAGE_SIZE);
        space.brk(black_box(at)).map(|_| ())
    });
    global::leave_mm();
    figures
}

/// State of an address before the access.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    ZeroPage,
    /// A page that a child has too.
    Shared,
    /// A page that a child had.
    Last,
}

/// Pages that are made ready: more than there are rounds.
const PAGES: u64 = 16_384;
/// The same where a row is traced: a few rounds, and what comes before them is traced too.
const TRACED_PAGES: u64 = 16;

fn faults(meter: &mut Meter, access: FaultAccess, before: Before) -> Result<Figures, Unable> {
    let mut space = space()?;
    // Pages alone, as the rows of others have them.
    space.set_largest_unit(Order::ZERO);
    let pages = if meter.is_tracing() { TRACED_PAGES } else { PAGES };
    let at = mmap(&space, pages).map_err(failed)?;
    let touch = |access| {
        (0..pages).try_for_each(|page| {
            let at = UserAddr::new(at.get() + page * PAGE_SIZE);
            space.fault(at, access, Gfp::USER).map(|_| ()).map_err(|_| "no page")
        })
    };
    // All tables are there.
    touch(FaultAccess::Read)?;
    let mut child = None;
    match before {
        Before::Nothing => space.madvise(at, pages * PAGE_SIZE, Advice::DontNeed).map_err(failed)?,
        Before::ZeroPage => {}
        Before::Shared | Before::Last => {
            touch(FaultAccess::Write)?;
            child = Some(space.fork().map_err(failed)?).filter(|_| before == Before::Shared);
        }
    }
    let mut frame = accesses(access, at, PAGE_SIZE);
    let (mut done, there) = (true, mmap(&space, 1).map_err(failed)?);
    space.fault(there, FaultAccess::Write, Gfp::USER).map_err(|_| "no page")?;
    enter(&space)?;
    let mut same = accesses(access, there, 0);
    // A trace prepares a few pages alone.
    meter.begin();
    meter.leave_out(|| done &= run(&space, &mut same));
    let figures = meter.measure(|| done &= run(&space, &mut frame));
    global::leave_mm();
    drop(child);
    if done { Ok(figures.by_median()) } else { Err("a fault was not resolved") }
}
