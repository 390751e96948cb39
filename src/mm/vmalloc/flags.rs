//! Flags of an area.
#![forbid(unsafe_code)]

use core::fmt;

bitflags::bitflags! {
    /// Purpose of an area, and its handling. The values are Linux's (`include/linux/vmalloc.h`); bits from 20 up are the
    /// architecture's.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct VmFlags: u32 {
        /// Device registers, by `ioremap`.
        const IOREMAP = 0x1;
        /// The area has pages of its own, by `vmalloc`.
        const ALLOC = 0x2;
        /// The area maps pages of others, by `vmap`.
        const MAP = 0x4;
        /// The area may be mapped into user space.
        const USERMAP = 0x8;
        /// Coherent DMA memory.
        const DMA_COHERENT = 0x10;
        /// The area is under construction: it cannot be freed, and has no pages to show yet.
        const UNINITIALIZED = 0x20;
        /// The area has no guard page behind it.
        const NO_GUARD = 0x40;
        /// Its pages carry memory tags.
        const KASAN = 0x80;
        /// Permissions have been changed: the linear alias of its pages becomes writable again before they are freed.
        const FLUSH_RESET_PERMS = 0x100;
        /// The pages that were mapped here belong to the area from then on, and are freed with it.
        const MAP_PUT_PAGES = 0x200;
        /// The area has entries of 4 KiB only.
        const NO_HUGE_VMAP = 0x400;
        /// Pages of others, by `vm_map_ram` where its blocks had no room. A bit that Linux does not use.
        const MAP_RAM = 0x8000;

        const _ = !0;
    }
}

impl fmt::Display for VmFlags {
    /// The words of `/proc/vmallocinfo`: a space before each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (Self::IOREMAP, "ioremap"),
            (Self::ALLOC, "vmalloc"),
            (Self::MAP, "vmap"),
            (Self::MAP_RAM, "vm_map_ram"),
            (Self::USERMAP, "user"),
            (Self::DMA_COHERENT, "dma-coherent"),
        ];
        for (_, word) in words.into_iter().filter(|(flag, _)| self.contains(*flag)) {
            write!(f, " {word}")?;
        }
        Ok(())
    }
}
