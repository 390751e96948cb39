//! Reports of refused raw calls: the rule, the object, its owner and the caller.
#![forbid(unsafe_code)]

use super::machine::machine;
use super::tags::untag;
use super::{execmem_space, page_allocator, pfn_to_page, slab_allocator, virt_to_phys, vmap_space};
use crate::addr::{Pfn, VirtAddr};
use crate::mm::page::Kind;
use core::fmt;
use core::panic::Location;

/// The owner of the memory at an address.
struct Owner(VirtAddr);

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = untag(self.0);
        if let Some(area) = vmap_space().try_find(at).or_else(|| execmem_space().try_find(at)) {
            return write!(f, "In the area {area}");
        }
        let Some(phys) = virt_to_phys(at) else { return f.write_str("Nobody has it") };
        let page = pfn_to_page(Pfn::containing(phys));
        let Some((head, state)) = page.and_then(|page| page_allocator().head(page).ok()) else {
            return f.write_str("No RAM that the page allocator has");
        };
        if state.kind() == Kind::Slab {
            f.write_str("In ")?;
            if let Some(written) = slab_allocator().dump_object(at, f) {
                return written;
            }
        }
        let (pages, first) = (state.order().pages(), super::page_to_pfn(head));
        write!(f, "In a block of {pages} pages from {first:?}: {}", state.kind().name())
    }
}

/// Reports that `call` was refused for the address `at`, and its caller. Any context; takes no lock that it does not find free.
///
/// # Panics
///
/// Panics if `panic_on_warn` says so ([`SlabOptions::panic_on_misuse`](crate::mm::slab::SlabOptions::panic_on_misuse)).
#[cold]
#[inline(never)]
pub(super) fn refused(call: &str, at: VirtAddr, error: &dyn fmt::Display, caller: &Location<'_>) {
    machine().print(format_args!("BUG {call}({at}): {error}"));
    machine().print(format_args!("{}", Owner(at)));
    machine().print(format_args!("Called from {caller}"));
    if slab_allocator().panics_on_misuse() {
        #[expect(clippy::panic, reason = "what the boot argument asks for")]
        {
            panic!("{call}({at}): {error}");
        }
    }
}
