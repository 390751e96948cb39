//! Which object of a slab an address is, without a division and whatever the address.
#![forbid(unsafe_code)]

use crate::addr::VirtAddr;

/// Division by the size of a cache's objects, for numbers that it divides.
///
/// With the size `m << shift`, `m` odd, and the inverse of `m` modulo 2^64, multiplying by the inverse and rotating right by
/// `shift` changes places among the numbers of 64 bits, and takes `n * size` to `n` (Granlund and Montgomery 1994, section 9).
/// So what comes out less than a slab has objects went in as that many sizes, and as nothing else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Divisor {
    inverse: u64,
    shift: u32,
}

impl Divisor {
    /// Division by `size`, not zero.
    pub(super) const fn new(size: u32) -> Self {
        let shift = size.trailing_zeros();
        let odd = (size >> shift) as u64;
        // Right in its five lowest bits; each step doubles them (Newton).
        let mut inverse = odd.wrapping_mul(3) ^ 2;
        let mut bits = 5;
        while bits < u64::BITS {
            inverse = inverse.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(inverse)));
            bits *= 2;
        }
        Self { inverse, shift }
    }
}

/// The objects of one slab, as a set of addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Members {
    by: Divisor,
    /// What the slab's first byte is multiplied to, negated.
    less_first: u64,
    objects: u64,
}

impl Members {
    /// No objects.
    pub(super) const NONE: Self = Self { by: Divisor { inverse: 0, shift: 0 }, less_first: 0, objects: 0 };

    /// The objects of the slab that starts at `start`, so many of them.
    #[inline(always)]
    pub(super) const fn new(by: Divisor, start: VirtAddr, objects: u16) -> Self {
        Self { by, less_first: start.get().wrapping_mul(by.inverse).wrapping_neg(), objects: objects as u64 }
    }

    /// Whether an object starts at an address.
    #[inline(always)]
    pub(super) const fn has(&self, at: VirtAddr) -> bool {
        let number = at.get().wrapping_mul(self.by.inverse).wrapping_add(self.less_first).rotate_right(self.by.shift);
        number < self.objects
    }
}

const _: () = {
    let slab = Members::new(Divisor::new(96), VirtAddr::new(0x1000), 42);
    assert!(slab.has(VirtAddr::new(0x1000)) && slab.has(VirtAddr::new(0x1000 + 41 * 96)));
    assert!(!slab.has(VirtAddr::new(0x1000 + 42 * 96)) && !slab.has(VirtAddr::new(0x1000 - 96)));
    assert!(!slab.has(VirtAddr::new(0x1000 + 8)) && !slab.has(VirtAddr::new(0x1000 + 32)));
};
