use quarry::prelude::*;

/// Whole pages: as a value, and by the raw calls.
pub fn example() -> Result<(), Error> {
    let block = Pages::new(Gfp::KERNEL, Order::ZERO)?;
    assert!(block.address().is_aligned(PAGE_SIZE));
    drop(block);

    let page = get_zeroed_page(Gfp::KERNEL)?;
    // SAFETY: a page of memory, just allocated for us.
    assert_eq!(unsafe { page.read() }, 0);
    // SAFETY: ours, and not used afterwards.
    unsafe { free_page(page) };
    Ok(())
}
