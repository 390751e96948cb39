//! The fast paths for a machine without restartable sequences: interrupts are masked meanwhile.
#![forbid(unsafe_code)]

use super::super::SlabHal;
use super::super::object::{Object, low};
use super::super::words::{ArrayOffset, Book, CacheObjects, Members, SlabWord};
use super::array::Array;
use crate::addr::{PAGE_SIZE, Pfn, VirtAddr};
use crate::hal::Internal;
use crate::mm::page::{Page, PageMap};
use core::sync::atomic::{AtomicU64, Ordering};

/// Takes an object off this CPU's array and clears its mark; see [`SlabHal::pop_free`].
#[inline(always)]
pub fn pop<H: SlabHal>(_: Internal, hal: &H, offset: ArrayOffset, mark: u32, wait: bool) -> Option<VirtAddr> {
    let saved = hal.save();
    let local = hal.local();
    let mut popped = None;
    if !wait || hal.may_wait(local, saved) {
        popped = Array::new::<H>(local, offset).pop();
    }
    hal.restore(saved);
    if let Some(object) = popped {
        Object::of_array(object).store(mark, 0);
    }
    popped
}

/// Marks an object as free and puts it on this CPU's array, if `is_right` accepts that array; see [`SlabHal::push_free`].
#[inline(always)]
pub fn push<H: SlabHal>(_: Internal, hal: &H, at: VirtAddr, is_right: impl FnOnce(ArrayOffset) -> bool) -> bool {
    let Some(phys) = hal.to_phys(at) else { return false };
    let saved = hal.save();
    let local = hal.local();
    let map = H::local_map(local);
    let word = map.find(Pfn::containing(phys)).map(|page| map.get(page).aux().load(Ordering::Relaxed));
    let word = SlabWord::from_raw(word.unwrap_or(0));
    let mut pushed = false;
    if word.starts_object(at.offset_in(PAGE_SIZE)) && is_right(word.array()) {
        let (array, object) = (Array::new::<H>(local, word.array()), Object::of_array(at));
        let mark = array.mark_of(at);
        if low(object.load(0)) != low(mark) {
            pushed = array.push(at);
            if pushed {
                object.store(0, mark);
            }
        }
    }
    hal.restore(saved);
    pushed
}

/// Marks objects as free and puts them into the room of this CPU's array; see [`SlabHal::push_free_many`].
#[inline(always)]
pub fn push_many<H: SlabHal>(
    _: Internal,
    hal: &H,
    local: &H::Local,
    of: &CacheObjects,
    objects: &[VirtAddr],
    room: &[AtomicU64],
) -> usize {
    let mut slab = Members::NONE;
    let mut push = |(at, entry): (&VirtAddr, &AtomicU64)| {
        if !slab.has(*at) {
            slab = members(hal, local, of, *at).filter(|slab| slab.has(*at))?;
        }
        let (object, mark) = (Object::of_array(*at), of.secret ^ at.get());
        if low(object.load(of.mark)) == low(mark) {
            return None;
        }
        object.store(of.mark, mark);
        entry.store(at.get(), Ordering::Relaxed);
        Some(())
    };
    objects.iter().zip(room).map_while(&mut push).count()
}

/// The objects of the slab that an address lies in, if the slab belongs to the cache and frees may take the fast path.
fn members<H: SlabHal>(hal: &H, local: &H::Local, of: &CacheObjects, at: VirtAddr) -> Option<Members> {
    let map = H::local_map(local);
    let page = map.find(Pfn::containing(hal.to_phys(at)?))?;
    let word = SlabWord::from_raw(map.get(page).aux().load(Ordering::Relaxed));
    if !word.is_of(of.array) {
        return None;
    }
    let number = word.page();
    let book = Book::from_raw(map.get(Page::new(page.index().wrapping_sub(number))).owner());
    let before = u64::from(number).wrapping_mul(PAGE_SIZE);
    let start = VirtAddr::new(at.align_down(PAGE_SIZE).get().wrapping_sub(before));
    Some(Members::new(of.size, start, book.objects))
}
