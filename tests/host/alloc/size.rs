//! Sizes that overflow stay overflown.

use quarry::mm::alloc::{array_size, size_add, size_mul, size_sub, struct_size};

// Behaviour 195.
#[test]
fn sizes_that_overflow_become_the_largest() {
    const MAX: usize = usize::MAX;
    assert_eq!([size_add(1, 2), size_add(MAX, 1), size_add(MAX, MAX)], [3, MAX, MAX]);
    assert_eq!([size_mul(3, 4), size_mul(MAX, 2), size_mul(1 << 33, 1 << 33), size_mul(MAX, 0)], [12, MAX, MAX, 0]);
    assert_eq!([size_sub(3, 1), size_sub(1, 3), size_sub(MAX, 1), size_sub(MAX, MAX)], [2, MAX, MAX, MAX]);
    assert_eq!([array_size::<u32>(5), array_size::<u32>(MAX / 4 + 1), array_size::<()>(MAX)], [20, MAX, 0]);
    assert_eq!(struct_size::<u8, u64>(2), 24);
    assert_eq!(struct_size::<[u8; 20], u8>(3), 23);
    assert_eq!(struct_size::<u64, u64>(MAX / 8), MAX);
}
