//! User memory as bytes with a first and a last one, for tests that make very many accesses.

use quarry::addr::{UserAddr, to_usize};
use quarry::hal::user::{Exchange, StringEnd, UserAccess};
use std::cell::RefCell;

/// Bytes from an address on; everything else faults.
pub(super) struct Flat {
    start: u64,
    bytes: RefCell<Vec<u8>>,
}

impl Flat {
    pub(super) fn new(start: u64, bytes: Vec<u8>) -> Self {
        Self { start, bytes: RefCell::new(bytes) }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.bytes.borrow().clone()
    }

    /// The bytes of `size` from `at` on that are there, from the first on.
    fn there(&self, at: UserAddr, size: usize) -> std::ops::Range<usize> {
        let len = self.bytes.borrow().len();
        let first = at.get().checked_sub(self.start).map_or(len, |first| to_usize(first).min(len));
        first..len.min(first + size)
    }
}

// SAFETY: it writes its own bytes and the slices of the caller.
unsafe impl UserAccess for Flat {
    unsafe fn copy_in(&self, to: &mut [u8], from: UserAddr) -> usize {
        let there = self.there(from, to.len());
        to[..there.len()].copy_from_slice(&self.bytes.borrow()[there.clone()]);
        to.len() - there.len()
    }

    unsafe fn copy_out(&self, to: UserAddr, from: &[u8]) -> usize {
        let there = self.there(to, from.len());
        self.bytes.borrow_mut()[there.clone()].copy_from_slice(&from[..there.len()]);
        from.len() - there.len()
    }

    unsafe fn clear(&self, to: UserAddr, bytes: usize) -> usize {
        let there = self.there(to, bytes);
        self.bytes.borrow_mut()[there.clone()].fill(0);
        bytes - there.len()
    }

    unsafe fn copy_string(&self, to: &mut [u8], from: UserAddr) -> (usize, StringEnd) {
        let there = self.there(from, to.len());
        let bytes = self.bytes.borrow();
        for (done, byte) in bytes[there.clone()].iter().enumerate() {
            to[done] = *byte;
            if *byte == 0 {
                return (done, StringEnd::Nul);
            }
        }
        (there.len(), if there.len() == to.len() { StringEnd::Full } else { StringEnd::Fault })
    }

    unsafe fn load(&self, from: UserAddr, size: usize) -> Option<u64> {
        let mut bytes = [0; 8];
        let left = raw!(self.copy_in(&mut bytes[..size], from));
        (left == 0).then(|| u64::from_le_bytes(bytes))
    }

    unsafe fn store(&self, to: UserAddr, size: usize, value: u64) -> bool {
        raw!(self.copy_out(to, &value.to_le_bytes()[..size])) == 0
    }

    unsafe fn compare_exchange_u32(&self, _: UserAddr, _: u32, _: u32) -> Exchange<u32> {
        Exchange::Contended
    }

    unsafe fn compare_exchange_u64(&self, _: UserAddr, _: u64, _: u64) -> Exchange<u64> {
        Exchange::Contended
    }
}
