use quarry::prelude::*;

/// Requests for physical addresses: as a value, and by the raw calls.
pub fn example(phys: PhysAddr) -> Result<(), Error> {
    let ours = MemRegion::request(phys, 0x1000, "families")?;
    assert!(MemRegion::request(phys, 8, "somebody else").is_err());
    drop(ours);

    request_mem_region(phys, 0x1000, "families")?;
    Ok(release_mem_region(phys, 0x1000)?)
}
