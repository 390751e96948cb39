//! Description of an address by the kernel's own map: for the reports of faults.
//!
//! The first question that is answered with yes ends the search; interrupts are as the caller has them:
//!
//! | step | read | lock |
//! |---|---|---|
//! | 1. near zero? | - | none |
//! | 2. on a stack, or in the guard page below one? | the registered stacks | none |
//! | 3. in the image? | the linker's sections | none |
//! | 4. in an area of vmalloc or of code, or its guard page? | the busy trees | each node's, if it is free |
//! | 5. elsewhere in the vmalloc region? | its bounds | none |
//! | 6. in the linear map: no-map memory, no RAM, an object, a block? | the device tree, the descriptor, the slab | none |
//! | 7. in another region, in the user half, or in none? | the address map | none |

use super::reserved::Owners;
use super::tags;
use crate::addr::{PAGE_SIZE, Pfn, PhysAddr, PhysRange, VirtAddr};
use crate::arch::aarch64::{boot, stack};
use crate::global;
use crate::mm::layout;
use crate::mm::page::Kind;
use core::fmt;

/// Addresses below this are taken for a null pointer with an offset.
const NEAR_NULL: u64 = 64 << 10;

/// An address that prints its description: [`describe`].
#[derive(Clone, Copy, Debug)]
pub struct Whereabouts(pub VirtAddr);

impl fmt::Display for Whereabouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe(self.0, f)?;
        match global::tag_report(self.0) {
            Some(_) => {
                f.write_str("; ")?;
                tags::describe(self.0, f)
            }
            None => Ok(()),
        }
    }
}

/// Describes `addr` in words, as a fault report does. Any context, takes no lock that it does not find free.
///
/// # Errors
///
/// Those of `out`.
pub fn describe(addr: VirtAddr, out: &mut dyn fmt::Write) -> fmt::Result {
    let addr = global::untag(addr);
    if addr.get() < NEAR_NULL {
        return out.write_str("near address zero, as behind a null pointer");
    }
    if let Some(stack) = stack::containing(addr) {
        return write!(out, "on the {stack}");
    }
    // Nothing else lies within a stack's size below a stack, except below the boot stacks, which have one page.
    let guarded = addr.align_down(PAGE_SIZE).checked_add(PAGE_SIZE).and_then(stack::containing);
    if let Some(stack) = guarded.or_else(|| stack::overflowed(addr).filter(|_| global::is_vmalloc_addr(addr))) {
        return write!(out, "in a guard page, below the {stack}");
    }
    if let Some((name, _)) = boot::image_sections().iter().find(|(_, range)| range.contains(addr)) {
        return write!(out, "in the kernel's {name}");
    }
    let area = global::vmap_space().try_find(addr).or_else(|| global::execmem_space().try_find(addr));
    if let Some(area) = area {
        return match area.is_guard(addr) {
            true => write!(out, "guard page after vmalloc area {area}"),
            false => write!(out, "in vmalloc area {area}"),
        };
    }
    if global::is_vmalloc_addr(addr) {
        return out.write_str("in the vmalloc region, where there is no area: it was freed, or never allocated");
    }
    if let Some(phys) = layout::virt_to_phys(addr) {
        return describe_linear(phys, out);
    }
    match layout::region_of(addr) {
        Some(region) => {
            write!(out, "in the region {}, of which it is byte {:#x}", region.name, into(addr, region.start))
        }
        None if addr.get() < 1 << 48 => out.write_str("in the user half, where nothing is mapped"),
        None => out.write_str("in no region of the kernel's address map"),
    }
}

/// Describes the memory at an address of the linear map: by the device tree if it does not belong to the page allocator,
/// otherwise by its descriptor.
fn describe_linear(phys: PhysAddr, out: &mut dyn fmt::Write) -> fmt::Result {
    write!(out, "in the linear map, of physical address {phys}: ")?;
    let page = PhysRange::from_size(phys.align_down(PAGE_SIZE), PAGE_SIZE).unwrap_or_default();
    if let Some(region) = global::io_space().reserved().no_map_in(page) {
        return write!(out, "{region}, which is its owner's alone: {}", Owners(region));
    }
    let pages = global::page_allocator();
    let page = global::pfn_to_page(Pfn::containing(phys));
    let Some((head, state)) = page.and_then(|page| pages.head(page).ok()) else {
        return out.write_str("no RAM, or none that the kernel may use");
    };
    if state.kind() == Kind::Slab
        && let Some(written) = layout::phys_to_virt(phys).and_then(|at| global::slab_allocator().dump_object(at, out))
    {
        return written;
    }
    write!(out, "{:?}, block of {} pages from {:?}", state.kind(), state.order().pages(), global::page_to_pfn(head))
}

fn into(addr: VirtAddr, start: VirtAddr) -> u64 {
    addr.offset_from(start).unwrap_or(0)
}
