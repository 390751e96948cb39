use quarry::prelude::*;

/// Memory of any size: from `kmalloc` if it has any, and else from vmalloc.
pub fn example() -> Result<(), Error> {
    let table = kvzalloc(600_000, Gfp::KERNEL)?;
    // SAFETY: so many bytes, ours.
    assert_eq!(unsafe { table.read() }, 0);
    // SAFETY: ours, and the old pointer is not used afterwards.
    let longer = unsafe { kvrealloc(table, 5 << 20, Gfp::KERNEL) }?;
    // SAFETY: ours, and not used afterwards.
    unsafe { kvfree(longer) };
    Ok(())
}
