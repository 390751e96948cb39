//! Debugging of one cache or of all: red zones, poison, requested sizes. Caches that are debugged have no arrays, so every
//! call comes here.
#![forbid(unsafe_code)]

use super::cache::Cache;
use super::error::{AllocError, InUse, Misuse};
use super::flags::SlabFlags;
use super::object::Object;
use super::slab::{Place, Slab};
use super::{SlabAllocator, SlabHal};
use crate::addr::VirtAddr;

/// What a free object's bytes are (Linux: `POISON_FREE`).
const POISON_FREE: u8 = 0x6b;
/// Its last byte (Linux: `POISON_END`).
const POISON_END: u8 = 0xa5;
/// Red zone of a free object (Linux: `SLUB_RED_INACTIVE`).
const RED_FREE: u8 = 0xbb;
/// Red zone of an object in use (Linux: `SLUB_RED_ACTIVE`).
const RED_USED: u8 = 0xcc;

/// What the boot arguments want to be debugged: `slub_debug=FLAGS,NAME,NAME*`.
#[derive(Debug)]
pub(super) struct DebugChoice {
    flags: SlabFlags,
    /// Names of caches, separated by commas; empty for all.
    names: &'static str,
}

impl DebugChoice {
    /// Reads the value of the boot argument. Letters: F sanity, Z red zones, P poison, U users; none means all, `-` none.
    pub(super) fn parse(value: Option<&'static str>) -> Self {
        let Some(value) = value else { return Self { flags: SlabFlags::empty(), names: "" } };
        let (letters, names) = value.split_once(',').unwrap_or((value, ""));
        let flag = |letter: char| match letter.to_ascii_uppercase() {
            'F' => SlabFlags::CONSISTENCY_CHECKS,
            'Z' => SlabFlags::RED_ZONE,
            'P' => SlabFlags::POISON,
            'U' => SlabFlags::STORE_USER,
            _ => SlabFlags::empty(),
        };
        let flags = if letters.is_empty() { SlabFlags::DEBUG } else { letters.chars().map(flag).collect() };
        Self { flags, names }
    }

    fn flags_for(&self, name: &str) -> SlabFlags {
        let mut names = self.names.split(',').filter(|pattern| !pattern.is_empty()).peekable();
        let all = names.peek().is_none();
        let meant = |pattern: &str| pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start));
        if all || names.any(meant) { self.flags } else { SlabFlags::empty() }
    }
}

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// The flags of debugging that the boot arguments want for a cache.
    pub(super) fn debug_flags(&self, name: &str) -> SlabFlags {
        self.debug.get().map_or(SlabFlags::empty(), |choice| choice.flags_for(name))
    }

    /// Fills the objects of a new slab as free ones are.
    pub(super) fn prepare_debugged(&self, cache: &Cache<H>, slab: Slab, objects: u16) {
        for index in 0..objects {
            self.fill_free(cache, slab.object_of(cache, index.into()));
        }
    }

    fn fill_free(&self, cache: &Cache<H>, slot: Object) {
        let shape = &cache.shape;
        if shape.flags.contains(SlabFlags::POISON) && !shape.constructed {
            slot.fill(shape.object, POISON_FREE, shape.object_size as usize - 1);
            slot.fill(shape.object + shape.object_size - 1, POISON_END, 1);
        }
        self.fill_red(cache, slot, RED_FREE, shape.object_size);
    }

    /// Fills what is no object's: before it, and from `asked` bytes on.
    fn fill_red(&self, cache: &Cache<H>, slot: Object, byte: u8, asked: u32) {
        let shape = &cache.shape;
        if shape.flags.contains(SlabFlags::RED_ZONE) {
            slot.fill(0, byte, shape.object as usize);
            let from = shape.object + asked;
            slot.fill(from, byte, (shape.red_zone + super::shape::WORD - from) as usize);
        }
    }

    /// Tests a free object and makes it one in use.
    pub(super) fn allocated_debugged(&self, cache: &Cache<H>, slot: Object) -> Result<(), AllocError> {
        if let Err(misuse) = self.check_free_bytes(cache, slot) {
            self.report(&misuse);
            self.fill_free(cache, slot);
        }
        self.fill_red(cache, slot, RED_USED, cache.shape.object_size);
        Ok(())
    }

    /// Tests an object in use and makes it a free one. What was overwritten is reported; the object is freed all the
    /// same.
    pub(super) fn freed_debugged(&self, place: &Place<'_, H>) -> Result<(), Misuse> {
        let cache = place.cache;
        if let Err(misuse) = self.check_red(cache, place.object, RED_USED, cache.shape.object_size) {
            self.report(&misuse);
        }
        self.fill_free(cache, place.object);
        Ok(())
    }

    /// Whether a free object is as it was left.
    pub(super) fn check_free_bytes(&self, cache: &Cache<H>, slot: Object) -> Result<(), Misuse> {
        let shape = &cache.shape;
        self.check_red(cache, slot, RED_FREE, shape.object_size)?;
        if shape.flags.contains(SlabFlags::POISON) && !shape.constructed {
            let end = shape.object_size - 1;
            let wrong = slot.find_other(shape.object, POISON_FREE, end);
            let wrong = wrong.or_else(|| (slot.byte(shape.object + end) != POISON_END).then_some(end));
            if let Some(at) = wrong {
                return Err(overwritten(cache, slot, "poison", shape.object + at));
            }
        }
        Ok(())
    }

    fn check_red(&self, cache: &Cache<H>, slot: Object, byte: u8, asked: u32) -> Result<(), Misuse> {
        let shape = &cache.shape;
        if !shape.flags.contains(SlabFlags::RED_ZONE) {
            return Ok(());
        }
        if let Some(at) = slot.find_other(0, byte, shape.object) {
            return Err(overwritten(cache, slot, "left red zone", at));
        }
        let from = shape.object + asked;
        match slot.find_other(from, byte, shape.red_zone + super::shape::WORD - from) {
            Some(at) => Err(overwritten(cache, slot, "right red zone", from + at)),
            None => Ok(()),
        }
    }

    /// Notes that `size` bytes were asked for: what lies behind is red zone.
    pub(super) fn note_request(&self, _cache: &Cache<H>, _object: VirtAddr, _size: usize) {}

    /// Bytes that were asked for, where that is noted.
    pub(super) fn requested(&self, _cache: &Cache<H>, _slot: Object) -> Option<u32> {
        None
    }

    /// Says that a cache cannot be destroyed.
    pub(super) fn report_in_use(&self, cache: &Cache<H>, left: &InUse) {
        log::error!("slab: cache {} cannot be destroyed: {left}", cache.name);
    }
}

fn overwritten<H: SlabHal>(cache: &Cache<H>, slot: Object, what: &'static str, at: u32) -> Misuse {
    let add = |bytes: u32| VirtAddr::new(slot.addr().get().wrapping_add(bytes.into()));
    Misuse::Overwritten { object: add(cache.shape.object), cache: cache.name, what, at: add(at) }
}
