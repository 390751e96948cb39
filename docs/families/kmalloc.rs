use quarry::prelude::*;

/// Small memory: values and rows of values, and by the raw calls.
pub fn example() -> Result<(), Error> {
    let number = KBox::new(42_u64, Gfp::KERNEL)?;
    let mut row = KVec::new();
    row.push(*number, Gfp::KERNEL)?;
    assert_eq!(row.as_slice(), [42]);

    let bytes = kzalloc(256, Gfp::KERNEL)?;
    assert!(ksize(bytes)? >= 256);
    // SAFETY: ours, and the old pointer is not used afterwards.
    let more = unsafe { krealloc(bytes, 1000, Gfp::KERNEL) }?;
    // SAFETY: ours, and not used afterwards.
    unsafe { kfree(more) };
    Ok(())
}
