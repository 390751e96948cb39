use quarry::prelude::*;

/// The registers of a device at `phys`, a PrimeCell: as a value, and by the raw calls.
pub fn example(phys: PhysAddr) -> Result<(), Error> {
    // SAFETY: what these registers do is this driver's affair alone.
    let device = unsafe { IoMem::<0x1000>::request(phys, 0x1000, MemoryType::DeviceNGnRE, "families") }?;
    let part = device.read::<u32, 0xfe0>();
    assert_eq!(device.readl(0xfe0)?, part);
    drop(device);

    let registers = ioremap(phys, PAGE_SIZE)?;
    let identity = VirtAddr::new(registers.get() + 0xfe0);
    // SAFETY: a register of the mapping; to read it harms nothing.
    assert_eq!(unsafe { readl(identity) }, part);
    // SAFETY: our mapping, not used afterwards.
    unsafe { iounmap(registers) };
    Ok(())
}
