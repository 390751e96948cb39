//! The kinds of allocation that can be made to fail.

/// Kind of call that can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[repr(u8)]
pub enum FaultSite {
    /// Pages from the page allocator.
    PageAlloc = 0,
    /// Objects from a cache of the slab allocator.
    Slab = 1,
    /// Frames for page tables.
    PageTable = 2,
    /// Ranges of kernel addresses.
    VmapArea = 3,
}

impl FaultSite {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::PageAlloc, Self::Slab, Self::PageTable, Self::VmapArea];

    /// The name of its boot argument, Linux's where it has one.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PageAlloc => "fail_page_alloc",
            Self::Slab => "failslab",
            Self::PageTable => "fail_page_table",
            Self::VmapArea => "fail_vmap_area",
        }
    }

    /// Unit of its sizes.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::PageAlloc | Self::PageTable => "pages",
            Self::Slab | Self::VmapArea => "bytes",
        }
    }

    /// The site of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|site| site.name() == name)
    }
}
