//! The machine's memory tags: switching them on, the tags of pages and of vmalloc's memory, and the facts known about a wrong
//! one.
//!
//! Tags are off until [`enable_tags`] is called. While they are off, nothing here is called; the only cost is one branch where
//! a page is converted to an address or back.

use super::linear::{linear, linear_to_phys};
use super::pages::{PAGES, page_to_phys};
use super::vmalloc::{vmalloc_to_page, vmap_space};
use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange, TAG_GRANULE, Tag, TagSet, VirtAddr, to_usize};
use crate::arch::aarch64::cpu::Relax;
use crate::arch::aarch64::features::IdRegisters;
use crate::arch::aarch64::mte;
use crate::hal::tags::{TagEvent, TagMemory};
use crate::mm::page::Page;
use crate::mm::tags::{Evidence, Owner, OwnerRing, RingEntry, Verdict, for_block, whole_granules};
use crate::mm::vmalloc::{VmFlags, VmallocError, VmallocRequest};
use crate::sync::Once;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Distance within which the memory that an access has missed is searched.
const REACH: u64 = 512;

/// Whether memory is tagged.
///
/// - `TAGS-1`: set only while every CPU that runs has called [`mte::init_cpu`] and the linear map is mapped as tagged
///   memory.
static ON: AtomicBool = AtomicBool::new(false);
static SEED: AtomicU64 = AtomicU64::new(0);
static OWNERS: Once<OwnerRing, Relax> = Once::new();

/// Memory of this machine, through its linear map.
#[derive(Clone, Copy, Debug)]
struct LinearTags;

impl TagMemory for LinearTags {
    fn set(&self, range: PhysRange, tag: Tag) {
        // SAFETY: RAM of the page allocator, which the linear map maps as tagged, and whose caller has it (TAGS-1).
        unsafe { mte::set(linear(range.start()), range.size(), tag) };
    }

    fn get(&self, at: PhysAddr) -> Tag {
        // SAFETY: RAM of the page allocator, which the linear map maps as tagged, and whose caller has it (TAGS-1).
        unsafe { mte::get(linear(at)) }
    }

    fn random(&self, choices: TagSet) -> Tag {
        mte::random(choices)
    }

    fn fence(&self) {
        mte::fence();
    }

    fn note(&self, event: &TagEvent) {
        if let Some(owners) = OWNERS.get() {
            owners.add(event);
        }
    }
}

/// Whether memory is tagged. Any context.
#[must_use]
#[inline(always)]
pub fn tags_are_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// The tags of memory, while they are on.
#[inline(always)]
pub(super) fn tags() -> Option<&'static dyn TagMemory> {
    if tags_are_on() { Some(&LinearTags) } else { None }
}

/// An address without the tag that it may carry where memory is tagged (Linux: `kasan_reset_tag`). Without tags it is
/// unchanged.
#[must_use]
#[inline(always)]
pub fn untag(at: VirtAddr) -> VirtAddr {
    if tags_are_on() { at.untagged() } else { at }
}

/// Reason why memory is not tagged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TagError {
    /// The CPU has no FEAT_MTE2.
    NoTags,
    /// A tag that was written to memory does not come back: it is not mapped as tagged, or tags are kept from this exception
    /// level.
    NotKept,
}

impl core::fmt::Display for TagError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NoTags => "this CPU has no memory tags",
            Self::NotKept => "memory does not keep its tags: it is not mapped as tagged, or EL2 or EL3 withhold them",
        })
    }
}

impl core::error::Error for TagError {}

/// Switches tags on, on the boot CPU; the others follow as they start. Call it when the linear map is mapped as tagged memory,
/// before the page allocator has any. `seed` determines the tags if the CPU has no randomness of its own; `scratch` is an
/// unused page of the linear map.
///
/// # Errors
///
/// [`TagError`]; memory is not tagged then.
///
/// # Safety
///
/// `scratch` is mapped and the caller's.
pub unsafe fn enable_tags(seed: u64, scratch: VirtAddr) -> Result<(), TagError> {
    if !IdRegisters::read().has_mte2() {
        return Err(TagError::NoTags);
    }
    SEED.store(seed, Ordering::Relaxed);
    mte::init_cpu(seed);
    // SAFETY: by this function's `# Safety`, `scratch` is mapped and the caller's.
    if !unsafe { keeps_tags(scratch) } {
        return Err(TagError::NotKept);
    }
    // INVARIANT: TAGS-1.
    ON.store(true, Ordering::Relaxed);
    Ok(())
}

/// Switches tag checks on, on this CPU, if tags are on. Returns whether it may run: it needs tags if they are on. Call it on a
/// CPU that starts, before it follows a pointer to allocated memory.
#[must_use]
pub fn start_tags_on_cpu() -> bool {
    if !tags_are_on() {
        return true;
    }
    let able = IdRegisters::read().has_mte2();
    if able {
        mte::init_cpu(SEED.load(Ordering::Relaxed));
    }
    able
}

/// Whether memory keeps the tags that are written to it: the canary for a mapping that is not tagged, where tags read
/// zero and nothing is checked. Changes the tag of the first granule at `at`. On a CPU that checks tags.
///
/// # Safety
///
/// `at` is mapped, page aligned and the caller's.
#[must_use]
pub unsafe fn keeps_tags(at: VirtAddr) -> bool {
    let at = at.untagged();
    let kept = [Tag::from_bits(5), Tag::from_bits(10), Tag::FREE].map(|tag| {
        // SAFETY: by this function's `# Safety`, `at` is mapped, page aligned and the caller's.
        unsafe { mte::set(at, TAG_GRANULE, tag) };
        // SAFETY: by this function's `# Safety`, `at` is mapped, page aligned and the caller's.
        unsafe { mte::get(at) == tag }
    });
    kept == [true; 3]
}

/// Sets aside `places` records of previous owners of memory, for reports. When memory can be allocated, once.
///
/// # Errors
///
/// [`AllocError`](crate::mm::slab::SlabAllocError).
pub fn remember_owners(places: usize) -> Result<(), crate::mm::slab::SlabAllocError> {
    let bytes = places.saturating_mul(size_of::<RingEntry>());
    let memory = super::kzalloc(bytes, crate::gfp::Gfp::KERNEL)?.cast::<RingEntry>();
    // SAFETY: that many bytes, aligned to words, zero, which is a valid entry, and never owned by others.
    let entries = unsafe { core::slice::from_raw_parts(memory.as_ptr().cast_const(), places) };
    OWNERS.call_once(|| OwnerRing::new(entries));
    Ok(())
}

/// The address of a page with its owner's tag.
#[cold]
#[inline(never)]
pub(super) fn tagged_page(page: Page) -> VirtAddr {
    linear(page_to_phys(page)).with_tag(PAGES.page_tag(page))
}

/// Tags memory of vmalloc: a tag of its own for the requested bytes, the tag of free memory behind them.
#[cold]
#[inline(never)]
pub(super) fn tagged_vmalloc(request: &VmallocRequest) -> Result<VirtAddr, VmallocError> {
    let start = vmap_space().vmalloc(&VmallocRequest { flags: request.flags | VmFlags::KASAN, ..*request })?;
    // Areas have no neighbours: there is a guard page between any two.
    let tag = mte::random(for_block([None; 2]));
    tag_pages(start, request.size, request.size, tag);
    Ok(start.with_tag(tag))
}

/// Gives the first `size` bytes of `mapped` of vmalloc's memory the tag of their pointer, and the rest that of free memory.
/// Called when an area has become longer or shorter.
pub(super) fn retag_vmalloc(pointer: VirtAddr, size: u64, mapped: u64) {
    if tags_are_on() && !pointer.is_untagged() {
        tag_pages(pointer.untagged(), size, mapped, pointer.tag());
    }
}

fn tag_pages(start: VirtAddr, size: u64, mapped: u64, tag: Tag) {
    let whole = whole_granules(size);
    for offset in (0..mapped).step_by(to_usize(PAGE_SIZE)) {
        let Some(page) = vmalloc_to_page(VirtAddr::new(start.get().wrapping_add(offset))) else { continue };
        let (first, used) = (page_to_phys(page), whole.saturating_sub(offset).min(PAGE_SIZE));
        let end = PhysAddr::new(first.get().wrapping_add(PAGE_SIZE));
        let middle = PhysAddr::new(first.get().wrapping_add(used));
        for (range, tag) in [(PhysRange::new(first, middle), tag), (PhysRange::new(middle, end), Tag::FREE)] {
            if let Some(range) = range {
                LinearTags.set(range, tag);
            }
        }
    }
}

/// Description of a tag mismatch.
#[derive(Clone, Copy, Debug)]
pub struct TagReport {
    /// The pointer's tag and the memory's.
    pub pointer: Tag,
    /// The memory's.
    pub memory: Tag,
    /// Kind of error.
    pub verdict: Verdict,
    /// Owner of the pointer's memory, as far as it is remembered.
    pub owner: Option<Owner>,
}

/// Finds the error in an access at `at`, a tagged pointer into the linear map or memory of vmalloc; `None` for any other
/// pointer, and if there is no error. Any context; takes no lock.
#[must_use]
pub fn tag_report(at: VirtAddr) -> Option<TagReport> {
    let tags = tags()?;
    let plain = at.untagged();
    let tables = super::kernel_tables()?;
    let tag_at = |at: VirtAddr| {
        let phys = linear_to_phys(at);
        let mapped = tables.translate(at)?;
        (phys.is_none_or(|phys| phys == mapped.phys)).then(|| tags.get(mapped.phys))
    };
    let (pointer, memory) = (at.tag(), tag_at(plain)?);
    let near = |step: &dyn Fn(u64) -> Option<VirtAddr>| {
        let distances = (1..=REACH / TAG_GRANULE).map(|granules| granules * TAG_GRANULE);
        distances.into_iter().find(|distance| step(*distance).and_then(tag_at) == Some(pointer))
    };
    let granule = plain.align_down(TAG_GRANULE);
    let inside = plain.offset_in(TAG_GRANULE);
    let behind = near(&|distance| granule.checked_sub(distance)).map(|distance| distance - TAG_GRANULE + inside);
    let before = near(&|distance| granule.checked_add(distance)).map(|distance| distance - inside);
    let owner = OWNERS.get().and_then(|owners| owners.owner_of(at, REACH));
    let had = |owner: Owner| plain.distance_from(owner.pointer).is_some_and(|offset| offset < owner.bytes);
    let freed = owner.is_some_and(|owner| owner.freed.is_some() && had(owner));
    let evidence = Evidence { pointer, memory, behind, before, freed };
    match evidence.verdict() {
        Verdict::Fine => None,
        verdict => Some(TagReport { pointer, memory, verdict, owner }),
    }
}
