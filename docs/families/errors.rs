use quarry::prelude::*;

/// Resources of a driver: all are released when it is dropped.
pub struct Driver {
    pub registers: IoMem<0x1000>,
    pub ring: VVec<u64>,
    pub counts: PerCpu<u64>,
}

/// The errors of five families go out by one `?` each.
pub fn probe(phys: PhysAddr) -> Result<Driver, Error> {
    // SAFETY: what these registers do is this driver's affair alone.
    let registers = unsafe { IoMem::request(phys, 0x1000, MemoryType::DeviceNGnRE, "driver") }?;
    let ring = VVec::from_elem(0, 1024, Gfp::KERNEL)?;
    let counts = PerCpu::new(Gfp::KERNEL, |_| 0)?;
    let page = get_free_pages(Gfp::KERNEL, Order::ZERO)?;
    // SAFETY: ours, and not used afterwards.
    unsafe { try_free_page(page) }?;
    Ok(Driver { registers, ring, counts })
}
