//! A program's segments and first stack, put into an empty space.
#![forbid(unsafe_code)]

use super::elf::Image;
use super::spaces::Seen;
use crate::addr::{PAGE_SIZE, UserAddr, UserRange};
use crate::global::{self, AddressSpace};
use crate::mm::user::map::{MapError, MapLayout, MmapRequest, Place, VmFlags};

/// The most bytes that the arguments of a program may have, with the ends of their strings.
pub const MAX_ARGUMENT_BYTES: usize = 1024;
/// The most arguments, the name included.
pub const MAX_ARGUMENTS: usize = 16;

/// Bytes of the stack that are mapped from the start; it grows as far as the limit of the process.
const FIRST_STACK: u64 = 4 * PAGE_SIZE;
/// Free addresses above the stack.
const ABOVE_STACK: u64 = 16 * PAGE_SIZE;
/// Free addresses between a program and its heap.
const BELOW_HEAP: u64 = PAGE_SIZE;
/// `AT_PAGESZ` (include/uapi/linux/auxvec.h).
const AT_PAGESZ: u64 = 6;

/// Where the segments of a program may lie: below what `mmap` gives out, as high again as the largest stack.
pub(super) fn room(layout: &MapLayout) -> UserRange {
    UserRange::new(layout.mmap_min, UserAddr::new(layout.mmap_base.get() / 2)).unwrap_or_default()
}

/// Maps the segments with their bytes and rights; memory behind the bytes of a segment is zero. Sets the start of the heap.
/// The caller sees the space, where nothing is mapped yet, and may sleep.
///
/// # Errors
///
/// [`MapError`]. Some of it may be mapped: the space is good for nothing then.
pub(super) fn segments(seen: &Seen, image: &Image<'_>) -> Result<(), MapError> {
    let space = seen.space().ok_or(MapError::NoMemory)?;
    for segment in image.segments() {
        let place = Place::FixedNoReplace(segment.range.start());
        let access = VmFlags::READ | VmFlags::WRITE;
        space.mmap(&MmapRequest::anonymous(segment.range.size(), access).at(place))?;
        // Faults as it goes.
        global::copy_to_user(segment.start, segment.bytes).map_err(|_| MapError::NoMemory)?;
        if segment.access != access {
            space.mprotect(segment.range.start(), segment.range.size(), segment.access)?;
        }
    }
    let heap = image.end().checked_add(BELOW_HEAP).ok_or(MapError::NoMemory)?;
    space.with_map_mut(|map, _| {
        map.set_start_brk(heap);
        Ok(())
    })
}

/// Maps the stack and puts the arguments on it as Linux does: their count, pointers to them, a null for their end, one for that
/// of the environment, which is empty, and the vector of auxiliary values, which has the size of a page. The address of the
/// count.
///
/// # Errors
///
/// As for [`segments`]; [`MapError::TooLarge`] for too many arguments.
pub(super) fn stack(space: &AddressSpace, layout: &MapLayout, arguments: &[&str]) -> Result<UserAddr, MapError> {
    let bytes: usize = arguments.iter().map(|argument| argument.len() + 1).sum();
    if bytes > MAX_ARGUMENT_BYTES || arguments.len() > MAX_ARGUMENTS {
        return Err(MapError::TooLarge(bytes as u64));
    }
    let end = layout.task_size.get().saturating_sub(ABOVE_STACK);
    let low = UserAddr::new(end - FIRST_STACK);
    let access = VmFlags::READ | VmFlags::WRITE;
    let stack = MmapRequest { flags: access | VmFlags::GROWSDOWN, ..MmapRequest::anonymous(FIRST_STACK, access) };
    space.mmap(&stack.at(Place::FixedNoReplace(low)))?;
    // The count, the pointers with their null, the null of the environment, two pairs of auxiliary values.
    let mut words = [0_u64; 1 + MAX_ARGUMENTS + 1 + 1 + 4];
    let used = 1 + arguments.len() + 1 + 1 + 4;
    let mut at = (end - bytes as u64) & !15;
    let bottom = (at - (used as u64) * 8) & !15;
    for (word, argument) in words.iter_mut().skip(1).zip(arguments) {
        *word = at;
        copy(at, argument.as_bytes())?;
        // The NUL behind it is there: memory is zero.
        at += argument.len() as u64 + 1;
    }
    if let Some(count) = words.first_mut() {
        *count = arguments.len() as u64;
    }
    if let Some([kind, value, ..]) = words.get_mut(1 + arguments.len() + 2..) {
        (*kind, *value) = (AT_PAGESZ, PAGE_SIZE);
    }
    for (word, place) in words.iter().take(used).zip((bottom..).step_by(8)) {
        copy(place, &word.to_le_bytes())?;
    }
    Ok(UserAddr::new(bottom))
}

fn copy(at: u64, bytes: &[u8]) -> Result<(), MapError> {
    global::copy_to_user(UserAddr::new(at), bytes).map_err(|_| MapError::NoMemory)
}
