//! The shape of a cache: the layout of an object's slot, and the number of slots in a slab.
//!
//! ```text
//!  plain:           | mark .. link in the middle .. |            while the object is free
//!  constructor:     | object | link | mark |
//!  debugging:       | red zone | object | red zone | link | mark | bytes asked for | user of alloc | user of free | padding |
//! ```
#![forbid(unsafe_code)]

use super::super::error::CreateError;
use super::flags::SlabFlags;
use super::order::{MAX_SLAB_BYTES, calculate_order, min_order, objects, slab_bytes};
use crate::addr::{Order, TAG_GRANULE};

/// Bytes of the smallest slot; every alignment is a multiple of it.
pub(in crate::mm::slab) const WORD: u32 = 8;
/// Bytes that share a memory tag.
#[expect(clippy::cast_possible_truncation, reason = "16")]
const GRANULE: u32 = TAG_GRANULE as u32;
/// Bytes of a cache line.
pub(in crate::mm::slab) const CACHE_LINE: u32 = 64;
/// Bytes of a record of a user: caller, time, CPU.
pub(in crate::mm::slab) const TRACK: u32 = 3 * WORD;
/// The most objects that a slab has.
const MAX_OBJECTS: u32 = 4096;

/// Layout of a slot. All distances are bytes from the start of the slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::mm::slab) struct Shape {
    /// Bytes that the user requested.
    pub(in crate::mm::slab) object_size: u32,
    /// Bytes from slot to slot.
    pub(in crate::mm::slab) size: u32,
    /// Every object starts at a multiple of this.
    pub(super) align: u32,
    /// Offset of the object: behind the left red zone, if there is one.
    pub(in crate::mm::slab) object: u32,
    /// Offset of a free object's link while it is on the slab's list.
    pub(in crate::mm::slab) link: u32,
    /// Offset of a free object's mark.
    pub(in crate::mm::slab) mark: u32,
    /// Offset of the right red zone, the size rounded up to words; it is a word long.
    pub(in crate::mm::slab) red_zone: u32,
    /// Offset of the number of bytes requested; 0 if that is not recorded.
    pub(in crate::mm::slab) asked: u32,
    /// Offset of the records of users; 0 if there are none.
    pub(in crate::mm::slab) tracks: u32,
    /// Offset of the padding that aligns the next slot.
    pub(in crate::mm::slab) padding: u32,
    /// Properties.
    pub(in crate::mm::slab) flags: SlabFlags,
    /// Whether there is a constructor, whose work free objects keep.
    pub(in crate::mm::slab) constructed: bool,
    /// Preferred order of the slabs.
    pub(in crate::mm::slab) order: Order,
    /// Smallest order of the slabs.
    pub(in crate::mm::slab) min_order: Order,
}

impl Shape {
    /// The shape for objects of `object_size` bytes at multiples of `align`.
    pub(in crate::mm::slab) const fn new(
        object_size: u32,
        align: u32,
        flags: SlabFlags,
        constructed: bool,
        cpus: u32,
    ) -> Result<Self, CreateError> {
        if object_size == 0 {
            return Err(CreateError::Empty);
        }
        if object_size > MAX_SLAB_BYTES {
            return Err(CreateError::TooLarge);
        }
        if !(align == 0 || align.is_power_of_two()) || align as u64 > crate::addr::PAGE_SIZE {
            return Err(CreateError::Align);
        }
        if flags.contains(SlabFlags::TYPESAFE_BY_RCU) {
            return Err(CreateError::Unsupported);
        }
        let align = alignment(object_size, align, flags);
        let debug = flags.intersects(SlabFlags::DEBUG);
        let red = flags.contains(SlabFlags::RED_ZONE);
        let object = if red { align } else { 0 };
        let tagged = flags.contains(SlabFlags::KASAN);
        // A granule protected by the object's tag holds no data of the allocator.
        let room = object_size.next_multiple_of(if tagged { GRANULE } else { WORD });
        let red_zone = object + room;
        let mut end = red_zone + if red { WORD } else { 0 };
        let (link, mark) = if constructed || debug {
            let link = end;
            end += 2 * WORD;
            (link, link + WORD)
        } else {
            // In the middle, where an overrun of the previous object does not reach first.
            let bytes = if tagged { room } else { object_size };
            ((bytes / 2) & !(WORD - 1), 0)
        };
        let mut asked = 0;
        if red {
            asked = end;
            end += WORD;
        }
        let mut tracks = 0;
        if flags.contains(SlabFlags::STORE_USER) {
            tracks = end;
            end += 2 * TRACK;
        }
        let size = end.next_multiple_of(align);
        if size > MAX_SLAB_BYTES {
            return Err(CreateError::TooLarge);
        }
        let (Some(order), Some(min_order)) = (Some(calculate_order(size, cpus)), Order::new(min_order(size))) else {
            return Err(CreateError::TooLarge);
        };
        Ok(Self {
            object_size,
            size,
            align,
            object,
            link,
            mark,
            red_zone,
            asked,
            tracks,
            padding: end,
            flags,
            constructed,
            order,
            min_order,
        })
    }

    /// Objects in a slab of this order.
    pub(in crate::mm::slab) const fn objects(&self, order: Order) -> u32 {
        let count = objects(order.get(), self.size);
        if count < MAX_OBJECTS { count } else { MAX_OBJECTS }
    }

    /// Bytes behind the last object of a slab of this order.
    pub(in crate::mm::slab) const fn tail(&self, order: Order) -> u32 {
        slab_bytes(order.get()) - self.objects(order) * self.size
    }

    /// Whether freeing needs more than the fast path tests: the mark is not in the first word.
    pub(in crate::mm::slab) const fn frees_on_slow_path(&self) -> bool {
        self.mark != 0 || self.object != 0 || self.is_slow_path_only()
    }

    /// Whether every call must take the slow path: it has work that the fast paths do not do.
    pub(in crate::mm::slab) const fn is_slow_path_only(&self) -> bool {
        !self.flags.intersection(SlabFlags::DEBUG.union(SlabFlags::KASAN)).is_empty()
    }

    /// Bytes of an object that its user may use.
    pub(in crate::mm::slab) const fn usable(&self) -> u32 {
        if self.constructed || !self.flags.intersection(SlabFlags::DEBUG).is_empty() {
            self.object_size
        } else {
            self.size
        }
    }
}

/// The alignment of objects: the requested one, a cache line if that is wanted (for small objects, the part of one that holds
/// them), a word at least.
const fn alignment(size: u32, asked: u32, flags: SlabFlags) -> u32 {
    let least = if flags.contains(SlabFlags::KASAN) { GRANULE } else { WORD };
    let mut align = if asked > least { asked } else { least };
    if flags.contains(SlabFlags::HWCACHE_ALIGN) {
        let mut line = CACHE_LINE;
        while line > WORD && size <= line / 2 {
            line /= 2;
        }
        if line > align {
            align = line;
        }
    }
    align
}
