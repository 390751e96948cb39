//! This kernel's vmalloc, vmap and vm_map_ram: `vmalloc/BYTES`, `vmap/PAGES`, `vm_map_ram/PAGES`. A row counts
//! allocation and free, or mapping and unmapping, together, with the purges that fall due.

use crate::meter::{Figures, Meter, Unable};
use crate::rows::{QUARRY, Row};
use alloc::vec::Vec;
use core::hint::black_box;
use core::ptr::NonNull;
use quarry::addr::{Address, PAGE_BYTES, PAGE_SIZE, VirtAddr};
use quarry::gfp::Gfp;
use quarry::global;
use quarry::hal::prot::Prot;
use quarry::mm::page::Page;
use quarry::mm::vmalloc::VmFlags;
use quarry::mm::zone::PageBatch;

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    Row { name: "vmalloc/4096", by: QUARRY, run: vmalloc::<4096> },
    Row { name: "vmalloc/16384", by: QUARRY, run: vmalloc::<16384> },
    Row { name: "vmalloc/65536", by: QUARRY, run: vmalloc::<65536> },
    Row { name: "vmalloc/1048576", by: QUARRY, run: vmalloc::<1_048_576> },
    Row { name: "vmalloc/8388608", by: QUARRY, run: vmalloc::<8_388_608> },
    Row { name: "vmap/16", by: QUARRY, run: vmap::<16> },
    Row { name: "vm_map_ram/4", by: QUARRY, run: vm_map_ram::<4> },
    Row { name: "vm_map_ram/16", by: QUARRY, run: vm_map_ram::<16> },
];

fn vmalloc<const BYTES: usize>(meter: &mut Meter) -> Result<Figures, Unable> {
    // From the same state after every earlier row.
    global::vmap_space().purge_all();
    let addr = global::vmalloc(BYTES).map_err(|_| "vmalloc failed")?.at();
    for offset in (0..BYTES as u64).step_by(PAGE_BYTES) {
        let word = VirtAddr::new(addr.get() + offset).as_ptr::<u64>();
        // SAFETY: memory that vmalloc has just given to us.
        unsafe { word.write_volatile(offset) };
        // SAFETY: memory that vmalloc has just given to us.
        if unsafe { word.read_volatile() } != offset {
            return Err("what was written is not read");
        }
    }
    let mut done = raw!(global::try_vfree(addr)).is_ok();
    let figures = meter.measure(|| match global::vmalloc(black_box(BYTES)) {
        Ok(addr) => done &= raw!(global::try_vfree(black_box(addr))).is_ok(),
        Err(_) => done = false,
    });
    if done { Ok(figures) } else { Err("vmalloc or vfree failed") }
}

fn vmap<const PAGES: usize>(meter: &mut Meter) -> Result<Figures, Unable> {
    mapping::<PAGES>(
        meter,
        |list| global::vmap(list, VmFlags::empty(), Prot::KERNEL_RW).ok(),
        |addr| raw!(global::try_vunmap(addr)).is_ok(),
    )
}

fn vm_map_ram<const PAGES: usize>(meter: &mut Meter) -> Result<Figures, Unable> {
    mapping::<PAGES>(
        meter,
        |list| global::vm_map_ram(list, Prot::KERNEL_RW).ok(),
        |addr| raw!(global::try_vm_unmap_ram(addr, PAGES)).is_ok(),
    )
}

/// Maps scattered pages and unmaps them.
#[inline(always)]
fn mapping<const PAGES: usize>(
    meter: &mut Meter,
    map: impl Fn(&[Page]) -> Option<NonNull<u8>>,
    unmap: impl Fn(NonNull<u8>) -> bool,
) -> Result<Figures, Unable> {
    global::vmap_space().purge_all();
    let mut batch = PageBatch::<PAGES>::new();
    if global::alloc_pages_bulk(Gfp::KERNEL, &mut batch) != Ok(PAGES) {
        return Err("no pages");
    }
    // Every other one, so that they do not follow on.
    let (even, odd) = (batch.pages().iter().step_by(2), batch.pages().iter().skip(1).step_by(2));
    let list: Vec<Page> = even.chain(odd).copied().collect();
    let addr = map(&list).ok_or("the pages cannot be mapped")?;
    for (index, page) in list.iter().enumerate() {
        let here = VirtAddr::new(addr.at().get() + index as u64 * PAGE_SIZE);
        if global::vmalloc_to_page(here) != Some(*page) {
            return Err("a page is not where it should be");
        }
    }
    let mut done = unmap(addr);
    let figures = meter.measure(|| match map(black_box(&list)) {
        Some(addr) => done &= unmap(black_box(addr)),
        None => done = false,
    });
    done &= raw!(global::try_free_pages_bulk(&mut batch)).is_ok();
    if done { Ok(figures) } else { Err("mapping or unmapping failed") }
}
