use quarry::prelude::*;

struct Inode {
    number: u64,
}

/// Caches of objects of one size: of a type, and by the raw calls.
pub fn example() -> Result<(), Error> {
    let inodes = Cache::<Inode>::create("family_inode", SlabFlags::empty())?;
    let inode = inodes.alloc(Inode { number: 2 }, Gfp::KERNEL)?;
    assert_eq!(inode.number, 2);
    drop(inode);

    let spec = CacheSpec { name: "family_raw", size: 96, align: 8, flags: SlabFlags::empty(), constructor: None };
    let cache = KmemCache::create(&spec)?;
    let object = cache.zalloc(Gfp::KERNEL)?;
    // SAFETY: an object of this cache, ours, and not used afterwards.
    unsafe { cache.free(object) };
    Ok(cache.destroy()?)
}
