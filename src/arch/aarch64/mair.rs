//! The value of `MAIR_EL1`: what each memory type means to the CPU.
#![forbid(unsafe_code)]

use crate::hal::prot::MemoryType;

/// The attribute byte of a memory type (Arm ARM D24.2, `MAIR_EL1.Attr<n>`).
///
/// `tags` says whether the CPU has FEAT_MTE2: without it the encoding of tagged memory, 0xF0, is unpredictable, and the
/// slot holds plain write-back.
#[must_use]
pub const fn attribute(memory: MemoryType, tags: bool) -> u8 {
    match memory {
        MemoryType::DeviceNGnRnE => 0x00,
        MemoryType::DeviceNGnRE => 0x04,
        MemoryType::DeviceNGRE => 0x08,
        MemoryType::DeviceGRE => 0x0C,
        MemoryType::NonCacheable => 0x44,
        MemoryType::WriteThrough => 0xBB,
        MemoryType::WriteBackTagged if tags => 0xF0,
        MemoryType::WriteBack | MemoryType::WriteBackTagged => 0xFF,
    }
}

/// `MAIR_EL1` with all eight types in the order of [`MemoryType`].
#[must_use]
pub const fn mair_el1(tags: bool) -> u64 {
    let mut value = 0;
    let mut index = 0;
    while index < 8 {
        value |= (attribute(MemoryType::from_index(index), tags) as u64) << (8 * index);
        index += 1;
    }
    value
}
