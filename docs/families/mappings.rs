use quarry::prelude::*;

/// Pages that are not contiguous, mapped at consecutive addresses: as a value, and by the raw calls.
pub fn example() -> Result<(), Error> {
    let mut blocks = KVec::new();
    for _ in 0..3 {
        blocks.push(Pages::new(Gfp::KERNEL, Order::ZERO)?, Gfp::KERNEL)?;
    }
    let mut row = Vmap::new(blocks)?;
    row.bytes().fill(core::mem::MaybeUninit::new(0x5a));

    let page = alloc_page(Gfp::KERNEL)?;
    let mapped = vmap(&[page], VmFlags::empty(), Prot::KERNEL_RW)?;
    assert_eq!(vmalloc_to_page(mapped), Some(page));
    // SAFETY: our mapping, not used afterwards.
    unsafe { vunmap(mapped) };
    // SAFETY: our page, mapped nowhere any more.
    unsafe { free_page(page) };
    Ok(())
}
