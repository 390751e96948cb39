//! `memset`, `memcpy`, `memmove`, `memcmp`, `bcmp` and the whole-page routines against models that go byte by byte, with
//! guard bytes on both sides: on a CPU with 64-byte DC ZVA, on one with another block size, and on one with FEAT_MOPS.

use core::arch::asm;
use core::ffi::c_int;
use core::hint::black_box;
use core::ptr::NonNull;
use quarry::arch::aarch64::features::IdRegisters;
use quarry::arch::aarch64::mem::{self, Page};
use quarry::kernel::init;
use quarry::ktest;
use spin::mutex::{SpinMutex, SpinMutexGuard};

/// Every length up to this one.
const LENGTHS: usize = 300;
/// Every alignment of either operand below this.
const ALIGNS: usize = 32;
/// Every distance of overlapping operands up to this one.
const DISTANCES: usize = 140;
/// Lengths beyond: around a page, and long enough for every loop to turn many times.
const LARGE: [usize; 7] = [511, 512, 1024, 4095, 4096, 4097, 30_011];
/// Untouched bytes below and above what a routine writes: more than one DC ZVA block.
const GUARD: usize = 320;
/// Their contents.
const GUARD_BYTE: u8 = 0xee;

const ROOM: usize = 32_768 + 2 * GUARD;

#[repr(align(4096))]
struct Room([u8; ROOM]);

static TO: SpinMutex<Room> = SpinMutex::new(Room([0; ROOM]));
static FROM: SpinMutex<Room> = SpinMutex::new(Room([0; ROOM]));

type Copy = unsafe extern "C" fn(*mut u8, *const u8, usize) -> *mut u8;
type Compare = unsafe extern "C" fn(*const u8, *const u8, usize) -> c_int;
type Set = unsafe extern "C" fn(*mut u8, c_int, usize) -> *mut u8;

unsafe extern "C" {
    fn memset(to: *mut u8, byte: c_int, n: usize) -> *mut u8;
    fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8;
    fn memmove(to: *mut u8, from: *const u8, n: usize) -> *mut u8;
    fn memcmp(a: *const u8, b: *const u8, n: usize) -> c_int;
    fn bcmp(a: *const u8, b: *const u8, n: usize) -> c_int;
}

/// A byte for each place, such that neighbours and places a power of two apart differ.
const fn pattern(place: usize) -> u8 {
    place.wrapping_mul(0x9e37_79b9).to_le_bytes()[2]
}

/// Memory that is read and written one byte at a time, by accesses that the compiler leaves as they are: it would make
/// a call of `memcpy` from a loop that copies.
struct Memory {
    start: NonNull<u8>,
    _room: SpinMutexGuard<'static, Room>,
}

impl Memory {
    fn new(room: &'static SpinMutex<Room>) -> Self {
        let mut room = room.lock();
        Self { start: NonNull::from(&mut room.0).cast(), _room: room }
    }

    /// The address of a place; it may be one past the end.
    fn at(&self, place: usize) -> *mut u8 {
        assert!(place <= ROOM);
        // SAFETY: within the room, or one past it.
        unsafe { self.start.add(place) }.as_ptr()
    }

    fn get(&self, place: usize) -> u8 {
        assert!(place < ROOM);
        // SAFETY: within the room, which is locked.
        unsafe { self.at(place).read_volatile() }
    }

    fn set(&self, place: usize, byte: u8) {
        assert!(place < ROOM);
        // SAFETY: within the room, which is locked.
        unsafe { self.at(place).write_volatile(byte) };
    }

    /// `n` places from `start` on, and the guards around them.
    fn around(start: usize, n: usize) -> core::ops::Range<usize> {
        start - GUARD..start + n + GUARD
    }
}

/// Runs a comparison of two operands at all lengths and alignments.
fn all_pairs(mut check: impl FnMut(usize, usize, usize)) {
    for n in 0..=LENGTHS {
        for to in 0..ALIGNS {
            for from in 0..ALIGNS {
                check(GUARD + to, GUARD + from, n);
            }
        }
    }
    for n in LARGE {
        for align in [0, 1, 8, 15, 31] {
            check(GUARD + align, GUARD, n);
            check(GUARD, GUARD + align, n);
        }
    }
}

/// `copy` moves exactly `n` bytes between two buffers.
fn copies(copy: Copy) {
    let copy = black_box(copy);
    let (to, from) = (Memory::new(&TO), Memory::new(&FROM));
    (0..ROOM).for_each(|place| from.set(place, pattern(place)));
    (0..ROOM).for_each(|place| to.set(place, GUARD_BYTE));
    all_pairs(|t, f, n| {
        // SAFETY: both lie in their rooms.
        let returned = unsafe { copy(to.at(t), from.at(f), n) };
        assert_eq!(returned, to.at(t));
        for place in Memory::around(t, n) {
            let expected = if (t..t + n).contains(&place) { pattern(f + place - t) } else { GUARD_BYTE };
            assert_eq!(to.get(place), expected, "byte {} of {n}, to {t} from {f}", place.wrapping_sub(t));
            to.set(place, GUARD_BYTE);
        }
    });
    (0..ROOM).for_each(|place| assert_eq!(from.get(place), pattern(place), "the source is only read"));
}

ktest!(
    memcpy_copies_every_length_and_alignment,
    machine a72 = "",
    machine zva_256 = "cpu=a64fx gic=3",
    machine mops = "cpu=max",
    timeout = 120
);
fn memcpy_copies_every_length_and_alignment() {
    copies(memcpy);
}

ktest!(
    memmove_copies_every_length_and_alignment,
    machine a72 = "",
    machine zva_256 = "cpu=a64fx gic=3",
    machine mops = "cpu=max",
    timeout = 120
);
fn memmove_copies_every_length_and_alignment() {
    copies(memmove);
}

/// One overlapping move in one buffer, from `from` to `to`.
fn overlap(memory: &Memory, moves: Copy, to: usize, from: usize, n: usize) {
    let (low, high) = (to.min(from) - GUARD, to.max(from) + n + GUARD);
    (low..high).for_each(|place| memory.set(place, pattern(place)));
    // SAFETY: both lie in the room.
    let returned = unsafe { moves(memory.at(to), memory.at(from), n) };
    assert_eq!(returned, memory.at(to));
    for place in low..high {
        let expected = if (to..to + n).contains(&place) { pattern(from + place - to) } else { pattern(place) };
        assert_eq!(memory.get(place), expected, "place {place} of {n} bytes moved from {from} to {to}");
    }
}

ktest!(
    memmove_survives_every_overlap,
    machine a72 = "",
    machine mops = "cpu=max",
    timeout = 120
);
fn memmove_survives_every_overlap() {
    let memory = Memory::new(&TO);
    let moves = black_box(memmove as Copy);
    for n in 0..=LENGTHS {
        for distance in 1..=DISTANCES {
            // Over all lengths each distance meets every alignment.
            let base = GUARD + (n + distance) % ALIGNS;
            overlap(&memory, moves, base, base + distance, n);
            overlap(&memory, moves, base + distance, base, n);
        }
    }
    for n in LARGE {
        for distance in [1, 7, 8, 15, 16, 17, 63, 64, 65, 127, 128, 129, 1000] {
            overlap(&memory, moves, GUARD + 3, GUARD + 3 + distance, n);
            overlap(&memory, moves, GUARD + 3 + distance, GUARD + 3, n);
        }
        overlap(&memory, moves, GUARD, GUARD, n);
    }
}

ktest!(
    memset_fills_every_length_and_alignment,
    machine a72 = "",
    machine zva_256 = "cpu=a64fx gic=3",
    machine mops = "cpu=max",
    timeout = 120
);
fn memset_fills_every_length_and_alignment() {
    let memory = Memory::new(&TO);
    let set = black_box(memset as Set);
    (0..ROOM).for_each(|place| memory.set(place, GUARD_BYTE));
    let check = |start: usize, n: usize, value: c_int| {
        // SAFETY: in the room.
        let returned = unsafe { set(memory.at(start), value, n) };
        assert_eq!(returned, memory.at(start));
        for place in Memory::around(start, n) {
            let inside = (start..start + n).contains(&place);
            let expected = if inside { value.to_le_bytes()[0] } else { GUARD_BYTE };
            assert_eq!(memory.get(place), expected, "byte {} of {n} at {start}", place.wrapping_sub(start));
            memory.set(place, GUARD_BYTE);
        }
    };
    // Only the low byte counts.
    for value in [0, 0x1a5, -1] {
        for start in GUARD..GUARD + ALIGNS {
            (0..=LENGTHS).for_each(|n| check(start, n, value));
        }
        for n in LARGE {
            // Every place in a block of DC ZVA.
            (0..64).for_each(|align| check(GUARD + align, n, value));
        }
    }
}

/// `compare` looks at exactly `n` bytes, as unsigned ones, and the first difference decides.
fn compares(compare: Compare, has_sign: bool) {
    let compare = black_box(compare);
    let (a, b) = (Memory::new(&TO), Memory::new(&FROM));
    // The second operand holds the same bytes wherever it starts; around both, the buffers differ.
    all_pairs(|x, y, n| {
        for place in 0..n {
            let byte = pattern(place);
            a.set(x + place, byte);
            b.set(y + place, byte);
        }
        for (memory, start, byte) in [(&a, x, 1), (&b, y, 2)] {
            memory.set(start - 1, byte);
            memory.set(start + n, byte);
        }
        // SAFETY: both lie in their rooms.
        let ordered = |n| unsafe { compare(a.at(x), b.at(y), n) };
        assert_eq!(ordered(n), 0, "{n} equal bytes at {x} and {y}");
        // A difference at each end, in the middle, and at both ends of the last word.
        for place in [0, n / 2, n.saturating_sub(8), n.wrapping_sub(1)].into_iter().filter(|&place| place < n) {
            let same = a.get(x + place);
            // Above and below as unsigned bytes, though not as signed ones; and what comes later does not matter.
            for (one, other) in [(0x80, 0x7f), (0x01, 0xff)] {
                a.set(x + place, one);
                b.set(y + place, other);
                let last = a.get(x + n - 1);
                if place + 1 < n {
                    a.set(x + n - 1, if one > other { 0 } else { 0xff });
                    b.set(y + n - 1, if one > other { 0xff } else { 0 });
                }
                let sign = ordered(n).signum();
                let expected = if one > other { 1 } else { -1 };
                assert!(if has_sign { sign == expected } else { sign != 0 }, "byte {place} of {n} at {x} and {y}");
                assert_eq!(ordered(place), 0, "the difference at {place} is not among {place} bytes");
                if place + 1 < n {
                    a.set(x + n - 1, last);
                    b.set(y + n - 1, last);
                }
            }
            a.set(x + place, same);
            b.set(y + place, same);
        }
    });
}

ktest!(memcmp_orders_every_length_and_alignment, timeout = 120);
fn memcmp_orders_every_length_and_alignment() {
    compares(memcmp, true);
}

ktest!(bcmp_tells_every_difference, timeout = 120);
fn bcmp_tells_every_difference() {
    compares(bcmp, false);
}

const PAGE: usize = size_of::<Page>();

fn page_of(memory: &Memory, index: usize) -> NonNull<Page> {
    let page = memory.at(index * PAGE).cast::<Page>();
    assert!(page.addr().is_multiple_of(PAGE));
    NonNull::new(page).unwrap_or(NonNull::dangling())
}

ktest!(
    whole_pages_are_cleared_and_copied,
    machine a72 = "",
    machine zva_256 = "cpu=a64fx gic=3",
    machine mops = "cpu=max",
    timeout = 60
);
fn whole_pages_are_cleared_and_copied() {
    let (to, from) = (Memory::new(&TO), Memory::new(&FROM));
    (0..4 * PAGE).for_each(|place| from.set(place, pattern(place)));
    let expect = |byte: &dyn Fn(usize) -> u8| {
        for place in 0..3 * PAGE {
            let expected = if place / PAGE == 1 { byte(place - PAGE) } else { GUARD_BYTE };
            assert_eq!(to.get(place), expected, "byte {place} around the page at {PAGE}");
        }
    };
    (0..3 * PAGE).for_each(|place| to.set(place, GUARD_BYTE));
    // SAFETY: a page of the room.
    unsafe { mem::clear_page(page_of(&to, 1)) };
    expect(&|_| 0);
    for source in 0..4 {
        // SAFETY: pages of two rooms.
        unsafe { mem::copy_page(page_of(&to, 1), page_of(&from, source)) };
        expect(&|place| pattern(source * PAGE + place));
    }
}

ktest!(
    pages_in_a_row_are_cleared,
    machine a72 = "",
    machine zva_256 = "cpu=a64fx gic=3",
    timeout = 60
);
fn pages_in_a_row_are_cleared() {
    let memory = Memory::new(&TO);
    for pages in 1..=6 {
        (0..8 * PAGE).for_each(|place| memory.set(place, GUARD_BYTE));
        // SAFETY: pages of the room.
        unsafe { mem::clear_pages(page_of(&memory, 1), pages as u64) };
        for place in 0..8 * PAGE {
            let inside = (1..=pages).contains(&(place / PAGE));
            assert_eq!(memory.get(place), if inside { 0 } else { GUARD_BYTE }, "byte {place}, {pages} pages");
        }
    }
}

// The tests above reach every path only if these machines are what they are taken for.
ktest!(
    the_machines_have_the_features_that_choose_a_path,
    machine a72 = "append=path=zva_64",
    machine zva_256 = "cpu=a64fx gic=3 append=path=zva_256",
    machine mops = "cpu=max append=path=mops"
);
fn the_machines_have_the_features_that_choose_a_path() {
    let dczid: u64;
    // SAFETY: reading an ID register has no effect.
    unsafe { asm!("mrs {}, dczid_el0", out(reg) dczid, options(nomem, nostack, preserves_flags)) };
    // DZP, and the logarithm of a block's words.
    let path = match (IdRegisters::read().has_mops(), dczid & 0x1f) {
        (true, _) => "mops",
        (false, 4) => "zva_64",
        (false, 6) => "zva_256",
        _ => "none",
    };
    let expected = init::machine().and_then(|machine| machine.args.value("path"));
    assert_eq!(Some(path), expected);
}
