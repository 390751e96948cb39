//! Test whether addresses are objects of a slab, without a division: one multiplication and one comparison each.
#![forbid(unsafe_code)]

use super::array::ArrayOffset;
use crate::addr::VirtAddr;

/// Division by the size of a cache's objects, at most 32 KiB, of distances between addresses.
///
/// With `factor` the least odd number such that `factor * size` is more than 2^64, by `excess`, `n * factor` modulo 2^64 is
/// `q * excess + r * factor` for `n = q * size + r` (after Lemire, Kaser, Kurz 2019, section 3.2). While `q * excess`
/// stays below `factor`, as it does for `n` up to 2^48, that is less than `count * excess` if and only if `r` is zero
/// and `q` is below `count`, and just so for negative `n`, none of which is.
#[derive(Clone, Copy, Debug)]
pub struct Divisor {
    /// The factor.
    pub factor: u64,
    /// Its excess over the exact factor, times the size.
    pub excess: u64,
}

impl Divisor {
    /// Division by `size`, not zero.
    pub(in crate::mm::slab) const fn new(size: u32) -> Self {
        let size = size as u64;
        // 2^64 - 1 is not divided by a power of two, but 2^64 is.
        let least = u64::MAX / size + if size.is_power_of_two() { 2 } else { 1 };
        let factor = least | 1;
        Self { factor, excess: factor.wrapping_mul(size) }
    }
}

/// Constants of a bulk free's objects, which are of one cache.
#[derive(Clone, Copy, Debug)]
pub struct CacheObjects {
    /// Offset of the cache's array.
    pub array: ArrayOffset,
    /// Their size.
    pub size: Divisor,
    /// Bytes from the start of an object to its mark.
    pub mark: u32,
    /// Secret by which the marks differ from the addresses.
    pub secret: u64,
}

/// The objects of one slab, as a set of addresses: those for which `address * factor + offset`, modulo 2^64, is below
/// `bound`.
///
/// That is exact for the addresses of the kernel's half, and for those that differ from one in the highest byte alone, since
/// the factor is odd. Of values that are no address, one in some 2^48 passes; a read there faults.
#[derive(Clone, Copy, Debug)]
pub(in crate::mm::slab) struct Members {
    factor: u64,
    offset: u64,
    bound: u64,
}

impl Members {
    /// No objects.
    pub(in crate::mm::slab) const NONE: Self = Self { factor: 0, offset: 0, bound: 0 };

    /// The objects of the slab that starts at `start`, `objects` of them.
    #[inline(always)]
    pub(in crate::mm::slab) const fn new(by: Divisor, start: VirtAddr, objects: u16) -> Self {
        Self {
            factor: by.factor,
            offset: start.get().wrapping_mul(by.factor).wrapping_neg(),
            bound: by.excess.wrapping_mul(objects as u64),
        }
    }

    /// Whether an object starts at an address.
    #[inline(always)]
    pub(in crate::mm::slab) const fn has(&self, at: VirtAddr) -> bool {
        at.get().wrapping_mul(self.factor).wrapping_add(self.offset) < self.bound
    }
}

/// Asserts that exactly the objects are members, of all addresses around a slab and of some far away.
const fn assert_exact(size: u64, objects: u64) {
    const START: u64 = 0xffff_0000_0000_8000;
    #[expect(clippy::cast_possible_truncation, reason = "small numbers")]
    let slab = Members::new(Divisor::new(size as u32), VirtAddr::new(START), objects as u16);
    let end = size * objects;
    let mut at: u64 = 0;
    while at < end {
        assert!(slab.has(VirtAddr::new(START + at)));
        at += size;
    }
    let far = [end, 1 << 31, 1 << 32, 1 << 40, 1 << 46, (1 << 48) - (1 << 16), 1 << 48];
    let mut rest: &[u64] = &far;
    while let [distance, after @ ..] = rest {
        let mut near = 0;
        while near < 3 * size {
            let distance = *distance + near;
            let (above, below) = (START.wrapping_add(distance), START.wrapping_sub(distance));
            assert!(!slab.has(VirtAddr::new(above)) && !slab.has(VirtAddr::new(below)));
            near += 1 + size / 64;
        }
        rest = after;
    }
    let mut byte = 1;
    while byte < 0x100 {
        assert!(!slab.has(VirtAddr::new(START ^ byte << 56)));
        byte += 1;
    }
    let mut within = 0;
    while within < end {
        assert!(slab.has(VirtAddr::new(START + within)) == within.is_multiple_of(size));
        assert!(!slab.has(VirtAddr::new(START - 1 - within)));
        within += 1 + size / 64;
    }
}

const _: () = {
    assert_exact(8, 512);
    assert_exact(24, 170);
    assert_exact(96, 42);
    assert_exact(256, 16);
    assert_exact(1056, 31);
    assert_exact(8192, 4);
    assert_exact(32_760, 1);
    assert_exact(32_768, 1);
    assert!(!Members::NONE.has(VirtAddr::ZERO));
};
