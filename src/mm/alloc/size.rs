//! Sizes that overflow into a size that no allocator has, so that one check at the end is enough (Linux:
//! `include/linux/overflow.h`).
#![forbid(unsafe_code)]

/// `a + b` bytes, or `usize::MAX`, which every allocator refuses.
#[must_use]
#[inline]
pub const fn size_add(a: usize, b: usize) -> usize {
    a.saturating_add(b)
}

/// `a * b` bytes, or `usize::MAX`.
#[must_use]
#[inline]
pub const fn size_mul(a: usize, b: usize) -> usize {
    a.saturating_mul(b)
}

/// `a - b` bytes; `usize::MAX` if that is less than nothing, or if one of them has overflowed already.
#[must_use]
#[inline]
pub const fn size_sub(a: usize, b: usize) -> usize {
    match a.checked_sub(b) {
        Some(rest) if a != usize::MAX && b != usize::MAX => rest,
        _ => usize::MAX,
    }
}

/// Bytes of `count` elements, or `usize::MAX`.
#[must_use]
#[inline]
pub const fn array_size<T>(count: usize) -> usize {
    size_mul(size_of::<T>(), count)
}

/// Bytes of a `Header` with `count` elements behind it, where alignment puts them, or `usize::MAX` (Linux: `struct_size`).
#[must_use]
#[inline]
pub const fn struct_size<Header, Element>(count: usize) -> usize {
    let start = size_of::<Header>().next_multiple_of(align_of::<Element>());
    size_add(start, array_size::<Element>(count))
}
