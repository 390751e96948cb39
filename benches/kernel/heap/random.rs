//! Random numbers that are the same in each run, sizes that are log-uniform, and orders.

use super::layout;
use core::alloc::Layout;

/// xorshift64*: small, and good enough to mix sizes with.
#[derive(Clone, Copy)]
pub(crate) struct Random(u64);

impl Random {
    /// A generator for one workload.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ seed)
    }

    /// Any number of 31 bits.
    pub(crate) fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let Ok(number) = u32::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) else { unreachable!() };
        number
    }

    /// A number below `end`, which is not zero.
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        self.next() % end
    }

    /// The layout of a block of 8 to 8,192 bytes, log-uniform: each doubling is as likely as any other.
    pub(crate) fn layout(&mut self) -> Layout {
        let step = self.below(STEPS * 10 + 1);
        let whole = (8_u64 << (step / STEPS)) << FRACTION;
        let times = |size: u64, factor: u64, count: u32| (0..count).fold(size, |size, _| (size * factor) >> 32);
        let size = times(times(whole, EIGHTH, step % STEPS / 8), SIXTY_FOURTH, step % 8);
        layout(u32::try_from((size + (1 << FRACTION) / 2) >> FRACTION).unwrap_or(8))
    }

    /// Puts `order` into random order.
    pub(crate) fn shuffle<T>(&mut self, order: &mut [T]) {
        for index in (1..order.len()).rev() {
            let Ok(end) = u32::try_from(index + 1) else { return };
            order.swap(index, self.below(end) as usize);
        }
    }
}

/// Steps of the exponent to a doubling.
const STEPS: u32 = 64;
/// 2^(1/8) and 2^(1/64), with 32 bits behind the point.
const EIGHTH: u64 = 4_683_695_048;
const SIXTY_FOURTH: u64 = 4_341_736_423;
/// Bits behind the point of a size.
const FRACTION: u32 = 16;
