//! Frames that a file puts behind an area in its `mmap` operation. Only the file knows whether a process may have them, so each
//! way to name them is `unsafe`. Nothing here maps anything: the space does, when all else is known to succeed.

use super::{MapError, VmFlags};
use crate::addr::{PAGE_SHIFT, Pfn, PhysAddr, UserRange};
use crate::hal::prot::MemoryType;
use crate::mm::page::Page;
use core::fmt;

/// The page of kernel memory with a number, for what the first argument names; `None` where there is none.
pub type PageOf = fn(u64, u64) -> Option<Page>;

/// Frames of a [`Fill`].
#[derive(Clone, Copy)]
pub(in crate::mm::user) enum Frames {
    /// From this one on.
    Run {
        /// The first.
        first: Pfn,
        /// Whether they are those of a device: none of them has a descriptor.
        device: bool,
    },
    /// Pages of the kernel, from a number on.
    Pages {
        /// Finds them.
        page_of: PageOf,
        /// The thing that they are part of.
        of: u64,
        /// The number of the first.
        first: u64,
    },
}

/// Frames that a file puts behind the area that is made, all at once. Made by the operations of [`NewArea`] that Linux's
/// drivers have: [`NewArea::remap_pfn_range`] and those beside it.
#[derive(Clone, Copy)]
pub struct Fill {
    frames: Frames,
    memory: MemoryType,
}

impl Fill {
    /// How they are mapped.
    #[must_use]
    pub const fn memory(&self) -> MemoryType {
        self.memory
    }

    /// The first frame, if they follow each other.
    #[must_use]
    pub const fn first(&self) -> Option<Pfn> {
        match self.frames {
            Frames::Run { first, .. } => Some(first),
            Frames::Pages { .. } => None,
        }
    }

    pub(in crate::mm::user) const fn frames(&self) -> Frames {
        self.frames
    }

    /// Flags of an area with such frames, as Linux's functions set them.
    pub(super) const fn flags(&self) -> VmFlags {
        match self.frames {
            Frames::Run { .. } => VmFlags::IO.union(VmFlags::PFNMAP).union(VmFlags::DONTEXPAND),
            Frames::Pages { .. } => VmFlags::MIXEDMAP.union(VmFlags::DONTEXPAND),
        }
    }
}

impl fmt::Debug for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = self.memory.name();
        match self.frames {
            Frames::Run { first, .. } => write!(f, "{memory} frames from {first:?} on"),
            Frames::Pages { of, first, .. } => write!(f, "{memory} pages of {of:#x} from {first} on"),
        }
    }
}

/// A page of the kernel that an object gives for a fault ([`Objects::fault`](super::Objects::fault)).
#[derive(Clone, Copy, Debug)]
pub struct FilePage(Page);

impl FilePage {
    /// This page. Each area that maps it holds it from then on. A shared area maps it with its own access; a private one
    /// read-only, and a write to it copies the page. It must be write-back memory, and no slab's, page table or user memory.
    ///
    /// # Safety
    ///
    /// The caller owns the page and keeps it until no area maps its object any more; user space may read what it holds, and write
    /// it through a shared area that may be written to.
    #[must_use]
    pub const unsafe fn new(page: Page) -> Self {
        Self(page)
    }

    pub(in crate::mm::user) const fn page(self) -> Page {
        self.0
    }
}

/// Reason why an object gives no page for a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoFilePage {
    /// It has nothing there: the process gets SIGBUS.
    NothingThere,
    /// There is no memory for it.
    NoMemory,
}

/// An area about to be made, for the file that it maps to look at and to change (Linux: `vm_area_desc`).
#[derive(Debug)]
pub struct NewArea {
    /// Its addresses.
    pub range: UserRange,
    /// Where it begins in the file, in pages.
    pub page_offset: u64,
    /// The requested flags. The file may take away [`VmFlags::MAYACCESS`] and add [`VmFlags::SPECIAL`],
    /// [`VmFlags::DONTCOPY`], [`VmFlags::HOOKS`]; no other change counts.
    pub flags: VmFlags,
    /// Frames to map at once ([`NewArea::remap_pfn_range`] and its kin); `None` for a file that maps none.
    pub fill: Option<Fill>,
}

/// Linux's `EINVAL`.
const EINVAL: MapError = MapError::File(22);

impl NewArea {
    /// Pages of the area.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.range.size() >> PAGE_SHIFT
    }

    /// All of the area maps the frames from `first` on with this memory type (Linux: `remap_pfn_range`): memory that no
    /// allocator ever had, or blocks that are allocated, which are held until the last mapping of them is gone. Frames that
    /// are free, of user space, or of another memory type are refused when the area is made. The area becomes
    /// [`IO`](VmFlags::IO), [`PFNMAP`](VmFlags::PFNMAP) and [`DONTEXPAND`](VmFlags::DONTEXPAND); it is not executable, and
    /// writable only if it is shared. Any context.
    ///
    /// # Safety
    ///
    /// The frames are the file's to show to the process, as the area's flags say, for as long as an area maps them:
    /// through `munmap`, `fork`, `mremap`, `exit`, of which its [`opened`](super::Objects::opened) and
    /// [`closed`](super::Objects::closed) tell. They stay what they are. For frames without a descriptor the file has a
    /// claim on them with this memory type for all of that time (promise 9), as a mapping of `ioremap` is.
    pub const unsafe fn remap_pfn_range(&mut self, first: Pfn, memory: MemoryType) {
        self.fill = Some(Fill { frames: Frames::Run { first, device: false }, memory });
    }

    /// The same for registers and memory of a device: a frame of RAM among them is refused when the area is made (Linux:
    /// `io_remap_pfn_range`).
    ///
    /// # Safety
    ///
    /// As for [`NewArea::remap_pfn_range`].
    pub const unsafe fn io_remap_pfn_range(&mut self, first: Pfn, memory: MemoryType) {
        self.fill = Some(Fill { frames: Frames::Run { first, device: true }, memory });
    }

    /// The same for `size` bytes of a device from `start` on, of which the area gets those from its own offset on (Linux:
    /// `vm_iomap_memory`): whole pages, also if the registers do not fill the first and the last of them.
    ///
    /// # Errors
    ///
    /// [`MapError::File`] with `EINVAL` if the area is not within them.
    ///
    /// # Safety
    ///
    /// As for [`NewArea::remap_pfn_range`], for all that lies in the pages.
    pub unsafe fn vm_iomap_memory(&mut self, start: PhysAddr, size: u64, memory: MemoryType) -> Result<(), MapError> {
        let first = Pfn::containing(start);
        let end = start.get().checked_add(size).filter(|_| size > 0).ok_or(EINVAL)?;
        let pages = (end.div_ceil(1 << PAGE_SHIFT)).saturating_sub(first.get());
        self.admit(pages)?;
        let first = first.checked_add(self.page_offset).ok_or(EINVAL)?;
        // SAFETY: as this function says, for the part of the frames that the area has.
        unsafe { self.io_remap_pfn_range(first, memory) };
        Ok(())
    }

    /// The area maps pages of the kernel: those with the numbers from its own offset on, of `count` that `page_of` finds for
    /// `of` (Linux: `vm_map_pages`). They are write-back memory; a page that is free, a slab's, a page table or user memory is
    /// refused when the area is made. Each mapping holds its page: what the file frees meanwhile stays until it is unmapped.
    /// The area becomes [`MIXEDMAP`](VmFlags::MIXEDMAP) and [`DONTEXPAND`](VmFlags::DONTEXPAND); it is not executable, and
    /// writable only if it is shared.
    ///
    /// # Errors
    ///
    /// [`MapError::File`] with `EINVAL` if the area is not within them.
    ///
    /// # Safety
    ///
    /// `page_of` finds pages that are the file's, the same for the same arguments, until `mmap` has returned; and user space may
    /// read what they hold, and write it if the area may be written to, for as long as an area maps them.
    pub unsafe fn vm_map_pages(&mut self, of: u64, count: u64, page_of: PageOf) -> Result<(), MapError> {
        self.admit(count)?;
        let frames = Frames::Pages { page_of, of, first: self.page_offset };
        self.fill = Some(Fill { frames, memory: MemoryType::WriteBack });
        Ok(())
    }

    /// Refuses an area that is not within `pages` pages of its file.
    fn admit(&self, pages: u64) -> Result<(), MapError> {
        let end = self.page_offset.checked_add(self.pages());
        end.filter(|end| *end <= pages).map(|_| ()).ok_or(EINVAL)
    }
}
