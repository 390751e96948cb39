//! Bytes written into elements when they enter a reserve, and checked when they leave it.

use crate::addr::VirtAddr;
use core::ptr::NonNull;

/// Byte pattern of a poisoned element in a reserve (Linux: `POISON_FREE`).
pub const POISON_FREE: u8 = 0x6b;
/// Its last byte (Linux: `POISON_END`).
pub const POISON_END: u8 = 0xa5;
/// Byte pattern of such an element when it is given out (Linux: `POISON_INUSE`).
pub const POISON_IN_USE: u8 = 0x5a;

/// Bytes of a mark.
const WORD: usize = 8;

/// First word of an element in a reserve.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seal {
    keep: u64,
    flip: u64,
}

impl Seal {
    pub(super) const fn new(poison: bool) -> Self {
        if poison {
            Self { keep: 0, flip: u64::from_ne_bytes([POISON_FREE; WORD]) }
        } else {
            // Nothing secret: a word that is the same by accident costs a search and no more.
            Self { keep: u64::MAX, flip: 0x6d65_6d70_6f6f_6c21 }
        }
    }

    /// The word. Odd where it is no poison, so that it is never 0.
    #[inline(always)]
    pub(super) fn word(self, element: NonNull<u8>) -> u64 {
        VirtAddr::of(element.as_ptr()).get() & self.keep ^ self.flip
    }
}

/// An element in a reserve, or on its way there or out of it.
///
/// # Invariants
///
/// - `POOL-4`: the backing has given it out, it has `bytes` bytes that may be written, and the pool is its only owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Element {
    at: NonNull<u8>,
    bytes: usize,
}

// SAFETY: POOL-4: the pool is its only owner, on every CPU.
unsafe impl Send for Element {}

/// A byte of an element that differs from the pattern.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Damage {
    /// Its distance from the start.
    pub(super) offset: usize,
    pub(super) found: u8,
    pub(super) expected: u8,
}

impl Element {
    /// The element at `at`.
    ///
    /// # Safety
    ///
    /// `POOL-4`; of no bytes it may be anything.
    pub(super) const unsafe fn new(at: NonNull<u8>, bytes: usize) -> Self {
        // INVARIANT: POOL-4 is the caller's promise.
        Self { at, bytes }
    }

    pub(super) const fn pointer(self) -> NonNull<u8> {
        self.at
    }

    pub(super) fn addr(self) -> VirtAddr {
        VirtAddr::of(self.at.as_ptr())
    }

    /// Its first word in a reserve without poison.
    fn mark(self) -> u64 {
        Seal::new(false).word(self.at)
    }

    /// Writes its contents for the reserve.
    pub(super) fn seal(self, poison: bool) {
        if poison && self.bytes != 0 {
            self.fill(POISON_FREE);
            self.write_byte(self.bytes - 1, POISON_END);
        } else if self.bytes >= WORD {
            // SAFETY: POOL-4: it has that many bytes.
            unsafe { self.at.cast::<u64>().write_unaligned(self.mark()) };
        }
    }

    /// Whether it might be sealed: not if it holds something else.
    pub(super) fn looks_sealed(self, poison: bool) -> bool {
        let wanted = if poison { u64::from_ne_bytes([POISON_FREE; WORD]) } else { self.mark() };
        // SAFETY: POOL-4: it has that many bytes.
        self.bytes <= WORD || unsafe { self.at.cast::<u64>().read_unaligned() } == wanted
    }

    /// The first byte that has changed since it was sealed.
    pub(super) fn damage(self, poison: bool) -> Option<Damage> {
        let damaged = |offset: usize, expected: u8| {
            // SAFETY: POOL-4, and the callers stay inside.
            let byte = unsafe { self.at.add(offset) };
            // SAFETY: POOL-4, and the callers stay inside. Volatile, as its previous owner may still be writing to it.
            let found = unsafe { byte.read_volatile() };
            (found != expected).then_some(Damage { offset, found, expected })
        };
        if poison && self.bytes != 0 {
            let last = self.bytes - 1;
            return (0..last).find_map(|offset| damaged(offset, POISON_FREE)).or_else(|| damaged(last, POISON_END));
        }
        let mark = self.mark().to_ne_bytes();
        mark.into_iter().enumerate().take(self.bytes / WORD * WORD).find_map(|(offset, byte)| damaged(offset, byte))
    }

    /// Prepares it for its next owner.
    pub(super) fn unseal(self, poison: bool) {
        if poison {
            self.fill(POISON_IN_USE);
        } else if self.bytes >= WORD {
            // SAFETY: POOL-4: it has that many bytes.
            unsafe { self.at.cast::<u64>().write_unaligned(0) };
        }
    }

    fn write_byte(self, offset: usize, byte: u8) {
        // SAFETY: POOL-4, and the callers stay inside.
        let at = unsafe { self.at.add(offset) };
        // SAFETY: POOL-4, and the callers stay inside.
        unsafe { at.write(byte) };
    }

    fn fill(self, byte: u8) {
        // SAFETY: POOL-4: all of its bytes.
        unsafe { self.at.write_bytes(byte, self.bytes) };
    }
}
