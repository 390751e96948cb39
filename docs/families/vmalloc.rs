use quarry::prelude::*;

/// Large memory, contiguous in addresses alone: as values, and by the raw calls.
pub fn example() -> Result<(), Error> {
    let table = VVec::<u64>::from_elem(7, 100_000, Gfp::KERNEL)?;
    assert!(table.iter().all(|entry| *entry == 7));

    let area = vmalloc(16 * PAGE_BYTES)?;
    // SAFETY: ours, and so many bytes.
    unsafe { area.write_bytes(0x5a, 16 * PAGE_BYTES) };
    // SAFETY: ours, and the old pointer is not used afterwards.
    let area = unsafe { vrealloc(area, 32 * PAGE_BYTES, Gfp::KERNEL) }?;
    // SAFETY: as long as before, at least.
    assert_eq!(unsafe { area.read() }, 0x5a);
    // SAFETY: ours, and not used afterwards.
    unsafe { vfree(area) };
    Ok(())
}
