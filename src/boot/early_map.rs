//! Uses of the fixmap's pages, and mapping device registers through it: until the vmalloc region exists, every device that the
//! kernel uses is mapped here.

use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange, VirtAddr, VirtRange, to_usize};
use crate::arch::aarch64::boot;
use crate::arch::aarch64::early_fixmap::{Fixmap, FixmapError};
use crate::arch::aarch64::fixmap::FixmapSlots;
use crate::global::{self, BuddyFrames};
use crate::hal::prot::Prot;
use crate::mm::io::{EARLY_SLOT_PAGES, EARLY_SLOTS, EarlyError, EarlyMapping, EarlySlots};
use crate::mm::layout;
use crate::mm::pgtable::{MapFlags, UnmapFlags};
use core::cell::{Cell, RefCell};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Pages through which table frames are written while the linear map does not reach them.
pub(crate) const TABLE_PAGES: usize = 4;
/// Pages for device registers.
pub(crate) const DEVICE_PAGES: (usize, usize) = (TABLE_PAGES, 64);
/// The slots of short-lived mappings.
const SLOT_PAGES: (usize, usize) = (DEVICE_PAGES.1, 512);
/// Pages of each.
const SLOT: usize = to_usize(EARLY_SLOT_PAGES);
/// Device register ranges that are recorded: consoles, the interrupt controller's blocks, and some to spare.
const DEVICES: usize = 12;
/// The device-tree window.
pub(crate) const TREE_PAGES: (usize, usize) = (512, 1536);

const _: () = {
    assert!(SLOT_PAGES.0 + EARLY_SLOTS * SLOT == SLOT_PAGES.1);
    assert!(layout::FIXMAP_START + TREE_PAGES.0 as u64 * PAGE_SIZE == layout::FDT_WINDOW_START);
    assert!(layout::FIXMAP_START + TREE_PAGES.1 as u64 * PAGE_SIZE == layout::FDT_WINDOW_END);
};

/// The pages of a slot.
const fn slot_pages(slot: usize) -> (usize, usize) {
    let first = SLOT_PAGES.0 + slot * SLOT;
    (first, first + SLOT)
}

/// The fixmap with its device pages handed out one after the other.
///
/// Its entries are those of the boot stub, which are init-only memory: nobody reads them once the final tables are live,
/// and they are gone when the page allocator is up.
#[derive(Debug)]
pub(crate) struct EarlyMap {
    pub(crate) fixmap: Fixmap,
    entries: &'static [AtomicU64],
    next_device: AtomicUsize,
    /// The register ranges that were mapped.
    devices: [Cell<PhysRange>; DEVICES],
    slots: RefCell<EarlySlots>,
}

impl EarlyMap {
    /// The fixmap of the boot stub.
    ///
    /// # Safety
    ///
    /// Called once, while TTBR1 holds the boot stub's tables.
    pub(crate) unsafe fn of_boot_stub() -> Self {
        let entries = boot::fixmap_tables().as_ptr::<AtomicU64>();
        // SAFETY: the boot stub reserves the tables for all pages up to the end of the tree window, and the linker
        // script keeps everything else out of them.
        let entries = unsafe { core::slice::from_raw_parts(entries, TREE_PAGES.1) };
        // SAFETY: the stub links these tables at FIXMAP_START; only this value changes them.
        let fixmap = unsafe { Fixmap::new(VirtAddr::new(layout::FIXMAP_START), entries) };
        Self {
            fixmap,
            entries,
            next_device: AtomicUsize::new(DEVICE_PAGES.0),
            devices: Default::default(),
            slots: RefCell::default(),
        }
    }

    /// Maps the registers in `range` as Device-nGnRE and returns their address: in the boot stub's tables, or in the final ones
    /// once the page allocator is up. Boot CPU.
    pub(crate) fn device(&self, range: PhysRange) -> Result<VirtRange, FixmapError> {
        let pages = range.align_outwards(PAGE_SIZE).ok_or(FixmapError::NoRoom)?;
        let count = to_usize(pages.size() / PAGE_SIZE);
        let first = self.next_device.load(Ordering::Relaxed);
        let virt = match global::kernel_tables() {
            None => self.fixmap.map_range(first, DEVICE_PAGES.1, range, Prot::KERNEL_DEVICE)?,
            Some(_) if count > DEVICE_PAGES.1 - first => return Err(FixmapError::NoRoom),
            Some(_) => self.map_in_final_tables(first, range)?,
        };
        self.next_device.store(first + count, Ordering::Relaxed);
        if let Some(place) = self.devices.iter().find(|place| place.get().is_empty()) {
            place.set(range);
        }
        Ok(virt)
    }

    /// Maps the pages that `range` touches from page `first` on, once the page allocator is up.
    fn map_in_final_tables(&self, first: usize, range: PhysRange) -> Result<VirtRange, FixmapError> {
        let tables = global::kernel_tables().ok_or(FixmapError::NoRoom)?;
        let pages = range.align_outwards(PAGE_SIZE).ok_or(FixmapError::NoRoom)?;
        let start = self.fixmap.page(first)?;
        let virt = VirtRange::from_size(start, pages.size()).ok_or(FixmapError::NoRoom)?;
        tables
            .do_map(&BuddyFrames::ATOMIC, virt, pages.start(), Prot::KERNEL_DEVICE, MapFlags::empty())
            .map_err(|_| FixmapError::InUse)?;
        let registers = start.checked_add(range.start().offset_in(PAGE_SIZE));
        registers.and_then(|start| VirtRange::from_size(start, range.size())).ok_or(FixmapError::NoRoom)
    }

    /// The registers that are mapped.
    pub(crate) fn devices(&self) -> impl Iterator<Item = PhysRange> {
        self.devices.iter().map(Cell::get).filter(|range| !range.is_empty())
    }

    /// Maps the registers in `range` as Device-nGnRE temporarily, in a slot (Linux: `early_ioremap`). Boot CPU.
    ///
    /// # Errors
    ///
    /// [`EarlyError`].
    #[track_caller]
    pub(crate) fn early_ioremap(&self, range: PhysRange) -> Result<VirtRange, EarlyError> {
        let slot = self.slots.borrow_mut().take(range)?;
        let (first, limit) = slot_pages(slot);
        let mapped = match global::kernel_tables() {
            None => self.fixmap.map_range(first, limit, range, Prot::KERNEL_DEVICE),
            Some(_) => self.map_in_final_tables(first, range),
        };
        if mapped.is_err() {
            self.slots.borrow_mut().give_back(slot)?;
        }
        mapped.map_err(|_| EarlyError::TooLarge(range))
    }

    /// Undoes [`EarlyMap::early_ioremap`].
    ///
    /// # Errors
    ///
    /// [`EarlyError::NotMapped`].
    pub(crate) fn early_iounmap(&self, at: VirtAddr) -> Result<(), EarlyError> {
        let page = to_usize(at.get().wrapping_sub(layout::FIXMAP_START) / PAGE_SIZE);
        let slot = page.wrapping_sub(SLOT_PAGES.0) / SLOT;
        let range = self.slots.borrow_mut().give_back(slot)?;
        let (first, limit) = slot_pages(slot);
        match (global::kernel_tables(), range.align_outwards(PAGE_SIZE)) {
            (Some(tables), Some(pages)) => {
                let virt = self.fixmap.page(first).ok().and_then(|start| VirtRange::from_size(start, pages.size()));
                let unmapped =
                    virt.map(|virt| tables.do_unmap_and_flush(&BuddyFrames::ATOMIC, virt, UnmapFlags::KEEP_TABLES));
                unmapped.and_then(Result::ok).ok_or(EarlyError::NotMapped(slot))
            }
            _ => {
                (first..limit).for_each(|page| self.fixmap.clear(page));
                Ok(())
            }
        }
    }

    /// The slots that are still in use: at the end of booting, forgotten ones.
    pub(crate) fn leaks(&self) -> impl Iterator<Item = EarlyMapping> {
        let leaked = self.slots.borrow();
        let leaked: [Option<EarlyMapping>; EARLY_SLOTS] = {
            let mut in_use = leaked.in_use();
            core::array::from_fn(|_| in_use.next())
        };
        leaked.into_iter().flatten()
    }

    /// The slots for table frames.
    ///
    /// # Safety
    ///
    /// Called once, while TTBR1 holds the boot stub's tables.
    pub(crate) unsafe fn table_slots(&self) -> FixmapSlots<TABLE_PAGES> {
        let entries: NonNull<[AtomicU64; TABLE_PAGES]> = NonNull::from(self.entries).cast();
        // SAFETY: these are the entries of the first pages of the fixmap, which `fixmap` never touches.
        unsafe { FixmapSlots::new(entries, VirtAddr::new(layout::FIXMAP_START)) }
    }

    /// Mappings that must keep their address when the tables change: every mapping of a device, and the device tree.
    pub(crate) fn lasting(&self) -> impl Iterator<Item = (VirtAddr, PhysAddr, Prot)> {
        let start = layout::FIXMAP_START + TABLE_PAGES as u64 * PAGE_SIZE;
        self.fixmap.mappings().filter(move |(virt, _, _)| virt.get() >= start)
    }
}
