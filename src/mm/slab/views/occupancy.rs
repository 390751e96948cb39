//! The objects of a slab, each in use, cached by a CPU, or free: for pictures.
#![forbid(unsafe_code)]

use super::super::cache::{Cache, Node};
use super::super::error::SlabBroken;
use super::super::object::MAX_SLAB_BYTES;
use super::super::words::{Book, NIL};
use super::super::{SlabAllocator, SlabHal};
use crate::addr::{PAGE_SIZE, PhysRange};
use crate::mm::page::{Kind, Page, PageMap};

/// Objects of a slab at most: the smallest have eight bytes.
const MOST: usize = MAX_SLAB_BYTES as usize / 8;

/// State of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Slot {
    /// It has a user.
    InUse,
    /// In an array of a CPU, or in the depot.
    Cached,
    /// On its slab's list, or never allocated.
    Free,
}

impl Slot {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::InUse, Self::Cached, Self::Free];
}

/// The objects of a slab, by address, as they were at one moment for the slab's list, and about then for the arrays.
#[derive(Debug)]
pub struct Objects {
    /// By object, two bits.
    slots: [u8; MOST / 4],
    len: u32,
}

impl Objects {
    const fn new(len: u32) -> Self {
        Self { slots: [0; MOST / 4], len }
    }

    fn set(&mut self, index: u32, slot: Slot) {
        let shift = index % 4 * 2;
        if let Some(four) = self.slots.get_mut(index as usize / 4) {
            *four = *four & !(3 << shift) | (slot as u8) << shift;
        }
    }

    /// Number of objects.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// State of the object of this number.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<Slot> {
        let four = self.slots.get(index as usize / 4).filter(|_| index < self.len)?;
        Slot::ALL.get(usize::from(four >> (index % 4 * 2) & 3)).copied()
    }

    /// How many objects are in this state.
    #[must_use]
    pub fn count(&self, slot: Slot) -> u32 {
        (0..self.len).map(|index| u32::from(self.get(index) == Some(slot))).sum()
    }
}

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// Shows `f` every slab of a cache, by address, while others allocate and free: its memory, and its objects. The cache's
    /// node is locked for one slab at a time, and not while `f` runs. Any context. Cost: O(pages + objects).
    ///
    /// # Errors
    ///
    /// [`SlabBroken`]: a descriptor makes no sense.
    pub fn for_each_slab_of(&self, cache: &Cache<H>, f: &mut dyn FnMut(PhysRange, &Objects)) -> Result<(), SlabBroken> {
        let map = self.hal().map();
        self.for_each_slab(cache, |head, _| {
            let look = self.with_node(cache, |node| self.objects_of(cache, node, head));
            let size = PAGE_SIZE << map.get(head).state().raw_order();
            if let (Some(objects), Some(memory)) = (look, PhysRange::from_size(map.phys(head), size)) {
                f(memory, &objects);
            }
            Ok(())
        })
    }

    /// The objects of a slab. With the node locked, under which slabs are neither made nor freed; `None` if the page is no slab
    /// of the cache any more.
    fn objects_of(&self, cache: &Cache<H>, node: &Node, head: Page) -> Option<Objects> {
        let map = self.hal().map();
        let descriptor = map.get(head);
        let book = Book::from_raw(descriptor.owner());
        if descriptor.state().kind() != Kind::Slab || book.cache != cache.id {
            return None;
        }
        // A slab without users may be on its way to the page allocator, or not yet complete: then it is on no list.
        let mut listed = core::iter::successors(node.front(), |slab| Node::after(map, *slab));
        if book.in_use == 0 && !listed.any(|slab| slab == head) {
            return None;
        }
        let slab = self.slab(cache, head, book);
        let mut objects = Objects::new(book.objects.into());
        for index in 0..objects.len {
            // An object that is marked is cached, unless it turns out below that it is its slab's.
            let slot = match slab.is_fresh(index, book) {
                true => Slot::Free,
                false if cache.is_free(slab.object_of(cache, index)) => Slot::Cached,
                false => Slot::InUse,
            };
            objects.set(index, slot);
        }
        let mut at = book.first;
        for _ in 0..book.objects {
            if at == NIL {
                break;
            }
            objects.set(at.into(), Slot::Free);
            at = self.next_free(cache, slab, book, slab.object_of(cache, at.into()))?;
        }
        Some(objects)
    }
}
