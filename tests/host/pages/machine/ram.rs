//! RAM as page descriptors, and what is counted of the looks at them.

use super::threads::point;
use quarry::addr::{Pfn, PhysRange};
use quarry::mm::page::{Bank, BankMap, PAGEBLOCK_PAGES, Page, PageDescriptor, PageMap, Section, sections_of};
use std::cell::Cell;
use std::sync::atomic::AtomicU8;

std::thread_local! {
    static VISITS: Cell<u64> = const { Cell::new(0) };
    /// What this thread is told about the descriptors instead of the truth: the frame of page 0, and the sections.
    static LIE: Cell<Option<(Pfn, &'static [Section])>> = const { Cell::new(None) };
}

/// Runs `f` with another answer to what pages have descriptors.
pub(in crate::pages) fn with_sections<R>(origin: Pfn, sections: &[Section], f: impl FnOnce() -> R) -> R {
    LIE.set(Some((origin, sections.to_vec().leak())));
    let result = f();
    LIE.set(None);
    result
}

/// Descriptors and page blocks that this thread has looked at.
pub(in crate::pages) fn visits() -> u64 {
    VISITS.get()
}

/// The descriptors, counting who looks: what the allocator does with memory is told by what it touches.
#[derive(Clone, Copy)]
pub(in crate::pages) struct Counted<'m>(pub(super) BankMap<'m>);

// SAFETY: the answers of the map behind it, but for a test that lies to see what comes of it.
unsafe impl PageMap for Counted<'_> {
    fn origin(&self) -> Pfn {
        LIE.get().map_or(self.0.origin(), |(origin, _)| origin)
    }

    fn sections(&self) -> &[Section] {
        LIE.get().map_or(self.0.sections(), |(_, sections)| sections)
    }

    fn get(&self, page: Page) -> &PageDescriptor {
        VISITS.set(VISITS.get() + 1);
        point();
        self.0.get(page)
    }

    fn block_type(&self, page: Page) -> &AtomicU8 {
        VISITS.set(VISITS.get() + 1);
        self.0.block_type(page)
    }
}

/// The descriptors of a machine's RAM.
pub(in crate::pages) struct Ram {
    pub(super) origin: Pfn,
    pub(in crate::pages) banks: Vec<PhysRange>,
    pub(super) sections: Vec<Section>,
    descriptors: Vec<Vec<PageDescriptor>>,
    blocks: Vec<Vec<AtomicU8>>,
}

impl Ram {
    /// RAM in `banks`, sorted and disjoint, of whole pages.
    pub(in crate::pages) fn new(banks: &[PhysRange]) -> Self {
        let (sections, origin) = sections_of(banks.iter().copied());
        let sections: Vec<Section> = sections.map(|section| section.expect("RAM spans less than 16 TiB")).collect();
        let pages = |section: &Section| section.pages() as usize;
        Self {
            origin,
            banks: banks.to_vec(),
            descriptors: sections.iter().map(|s| (0..pages(s)).map(|_| PageDescriptor::default()).collect()).collect(),
            blocks: sections
                .iter()
                .map(|s| (0..pages(s) / PAGEBLOCK_PAGES as usize).map(|_| AtomicU8::new(0)).collect())
                .collect(),
            sections,
        }
    }

    pub(super) fn as_banks(&self) -> Vec<Bank<'_>> {
        self.sections
            .iter()
            .zip(&self.descriptors)
            .zip(&self.blocks)
            .map(|((section, descriptors), blocks)| Bank { section: *section, descriptors, blocks })
            .collect()
    }
}
