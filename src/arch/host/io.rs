//! Device registers on a desk machine: bytes, and a record of every access and barrier in its order.

use crate::addr::{VirtAddr, VirtRange, to_usize};
use crate::hal::io::{IoBus, IoWord, Width};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Event at the registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IoEvent {
    /// A load at an offset.
    Load(u64, Width),
    /// A store at an offset.
    Store(u64, Width, u64),
    /// Barrier after a load that is in order with memory; the value it waits for.
    LoadBarrier(u64),
    /// Barrier before a store that is in order with memory.
    StoreBarrier,
}

/// Registers that keep the values written to them, and record the accesses. An access outside them, or not in one aligned
/// piece, panics.
#[derive(Debug)]
pub struct Recorder {
    start: VirtAddr,
    bytes: Mutex<Vec<u8>>,
    events: Mutex<Vec<IoEvent>>,
}

/// Address of the registers, in a separate address space.
const START: u64 = 0xffff_8001_2345_6000;

fn open<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// `size` bytes of registers, all zero.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self::at_offset(size, 0)
    }

    /// The same, `offset` bytes into a page.
    #[must_use]
    pub fn at_offset(size: u64, offset: u64) -> Self {
        let start = VirtAddr::new(START + offset);
        Self { start, bytes: Mutex::new(vec![0; to_usize(size)]), events: Mutex::default() }
    }

    /// The addresses of the registers.
    #[must_use]
    pub fn range(&self) -> VirtRange {
        VirtRange::from_size(self.start, open(&self.bytes).len() as u64).unwrap_or_default()
    }

    /// Contents of the registers.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        open(&self.bytes).clone()
    }

    /// Fills the registers.
    pub fn fill(&self, with: impl Fn(usize) -> u8) {
        open(&self.bytes).iter_mut().enumerate().for_each(|(index, byte)| *byte = with(index));
    }

    /// Events since the last call.
    #[must_use]
    pub fn take_events(&self) -> Vec<IoEvent> {
        std::mem::take(&mut *open(&self.events))
    }

    fn record(&self, event: IoEvent) {
        open(&self.events).push(event);
    }

    /// The offset of an access, and the bytes that it reaches.
    #[expect(clippy::panic, reason = "a machine would stop with a fault")]
    fn reach<R>(&self, at: VirtAddr, width: Width, f: impl FnOnce(&mut [u8]) -> R) -> (u64, R) {
        let offset = at.offset_from(self.start).unwrap_or(u64::MAX);
        assert!(at.is_aligned(width.bytes()), "{} bytes at {at}", width.bytes());
        let first = to_usize(offset);
        match open(&self.bytes).get_mut(first..first.saturating_add(to_usize(width.bytes()))) {
            Some(bytes) => (offset, f(bytes)),
            None => panic!("an access to {at}, outside the registers"),
        }
    }
}

// SAFETY: each call is one access to the model, which has no memory behind it that could be harmed.
unsafe impl IoBus for Recorder {
    unsafe fn load<W: IoWord>(&self, at: VirtAddr) -> W {
        let (offset, value) = self.reach(at, W::WIDTH, |bytes| {
            W::from_bits(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
        });
        self.record(IoEvent::Load(offset, W::WIDTH));
        value
    }

    unsafe fn store<W: IoWord>(&self, at: VirtAddr, value: W) {
        let bits = value.to_bits();
        let (offset, ()) = self.reach(at, W::WIDTH, |bytes| {
            bytes.iter_mut().zip(bits.to_le_bytes()).for_each(|(byte, new)| *byte = new);
        });
        self.record(IoEvent::Store(offset, W::WIDTH, bits));
    }

    fn order_after_load<W: IoWord>(&self, value: W) {
        self.record(IoEvent::LoadBarrier(value.to_bits()));
    }

    fn order_before_store(&self) {
        self.record(IoEvent::StoreBarrier);
    }
}
