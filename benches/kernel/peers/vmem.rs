//! `vmem`: Bonwick's resource allocator, with boundary tags from a list in the arena. It finds the tag of an area by a
//! hash of its start.

use crate::areas::AreaAllocator;
use crate::arena::Arena;
use crate::meter::Unable;
use core::cell::Cell;
use core::ptr::NonNull;
use spin::mutex::{SpinMutex, SpinMutexGuard};
use vmem::alloc::Allocator;
use vmem::lock::Lock;
use vmem::{AllocPolicy, Bt};

/// The lock of the arena: the kernel's spin lock, as for our own.
#[derive(Default)]
pub(crate) struct Spin(SpinMutex<()>);

// SAFETY: the guard of a mutex.
unsafe impl Lock for Spin {
    type Guard<'a> = SpinMutexGuard<'a, ()>;

    fn lock(&self) -> Self::Guard<'_> {
        self.0.lock()
    }
}

/// Tags: freed ones in a list through their first words, then the rest of the arena.
pub(crate) struct Tags {
    freed: Cell<Option<NonNull<Bt>>>,
    next: Cell<usize>,
    arena: Arena,
}

// SAFETY: each tag is a part of the arena of its own, aligned, until it comes back.
unsafe impl Allocator for Tags {
    fn allocate(&self) -> Option<NonNull<Bt>> {
        if let Some(tag) = self.freed.get() {
            // SAFETY: tags on the list hold the link to the next.
            self.freed.set(unsafe { tag.cast::<Option<NonNull<Bt>>>().read() });
            return Some(tag);
        }
        let offset = self.next.get();
        self.next.set(offset + size_of::<Bt>());
        let tag = self.arena.pointer(self.arena.addr() + offset);
        self.arena.holds(tag, size_of::<Bt>()).then_some(tag.cast())
    }

    unsafe fn deallocate(&self, tag: NonNull<Bt>) {
        // SAFETY: the tag came from `allocate` and is ours again.
        unsafe { tag.cast::<Option<NonNull<Bt>>>().write(self.freed.get()) };
        self.freed.set(Some(tag));
    }
}

pub(crate) struct Areas(vmem::Arena<'static, 'static, Tags, Spin>);

impl AreaAllocator for Areas {
    const NAME: &'static str = "vmem";
    const LARGEST: usize = 1024;

    fn new(arena: Arena) -> Result<Self, Unable> {
        let tags = Tags { freed: Cell::new(None), next: Cell::new(0), arena };
        let areas = vmem::Arena::create("areas", 4096, None, tags).map_err(|_| "it refuses the quantum")?;
        areas.add_span(1 << 32, 1 << 36).map_err(|_| "it refuses the span")?;
        Ok(Self(areas))
    }

    #[inline]
    fn alloc(&mut self, bytes: usize) -> Option<usize> {
        self.0.alloc(bytes, AllocPolicy::InstantFit).ok()
    }

    #[inline]
    fn free(&mut self, start: usize, _: usize) -> bool {
        self.0.free(start).is_ok()
    }
}
