//! Calls that change the areas of a process.
#![forbid(unsafe_code)]

use super::call::{Answer, Call, Result};
use crate::addr::UserAddr;
use crate::kernel::process::errno::Errno;
use crate::kernel::process::shared::Made;
use crate::mm::user::map::{Advice, Backing, MmapRequest, MremapRequest, Place, VmFlags};

/// `PROT_READ`, `PROT_WRITE`, `PROT_EXEC` (include/uapi/asm-generic/mman-common.h). Memory that may be written to may be read.
fn access(bits: u64) -> core::result::Result<VmFlags, Errno> {
    let mut flags = VmFlags::empty();
    for (bit, flag) in [(1, VmFlags::READ), (2, VmFlags::READ | VmFlags::WRITE), (4, VmFlags::EXEC)] {
        if bits & bit != 0 {
            flags |= flag;
        }
    }
    if bits & !7 == 0 { Ok(flags) } else { Err(Errno::INVAL) }
}

/// `mmap(addr, length, prot, flags, fd, offset)`: anonymous memory, private or shared. There are no files to map.
pub(super) fn mmap(call: &Call<'_>) -> Result {
    const SHARED: u64 = 1;
    const PRIVATE: u64 = 2;
    const FIXED: u64 = 0x10;
    const ANONYMOUS: u64 = 0x20;
    const GROWSDOWN: u64 = 0x100;
    const LOCKED: u64 = 0x2000;
    const FIXED_NOREPLACE: u64 = 0x10_0000;
    // MAP_NORESERVE, MAP_POPULATE, MAP_STACK: hints.
    const HINTS: u64 = 0x4000 | 0x8000 | 0x2_0000;
    let [addr, size, prot, flags, file, offset] = call.arguments;
    let known = SHARED | PRIVATE | FIXED | ANONYMOUS | GROWSDOWN | LOCKED | FIXED_NOREPLACE | HINTS;
    if flags & !known != 0 || !matches!(flags & 3, SHARED | PRIVATE) {
        return Err(Errno::INVAL);
    }
    if flags & ANONYMOUS == 0 {
        return Err(if file < 3 { Errno::NODEV } else { Errno::BADF });
    }
    let addr = UserAddr::new(addr);
    let place = match addr.get() {
        _ if flags & FIXED_NOREPLACE != 0 => Place::FixedNoReplace(addr),
        _ if flags & FIXED != 0 => Place::Fixed(addr),
        0 => Place::Anywhere,
        _ => Place::Hint(addr),
    };
    let mut area = access(prot)?;
    if flags & GROWSDOWN != 0 {
        area |= VmFlags::GROWSDOWN;
    }
    if flags & LOCKED != 0 {
        area |= VmFlags::LOCKED;
    }
    // The areas have their own references when the map returns.
    let shared = if flags & SHARED == 0 { None } else { Some(Made::new(size)?) };
    let (backing, offset) = match &shared {
        Some(object) => (Backing::Shared(object.id()), 0),
        None => (Backing::Anonymous, offset),
    };
    if shared.is_some() {
        area |= VmFlags::SHARED;
    }
    let request = MmapRequest { place, size, align: 0, flags: area, backing, offset };
    Ok(Answer::Value(call.space.mmap(&request)?.get()))
}

/// `munmap(addr, length)`.
pub(super) fn munmap(call: &Call<'_>) -> Result {
    let [addr, size, ..] = call.arguments;
    call.space.munmap(UserAddr::new(addr), size)?;
    Ok(Answer::Value(0))
}

/// `mprotect(addr, length, prot)`.
pub(super) fn mprotect(call: &Call<'_>) -> Result {
    let [addr, size, prot, ..] = call.arguments;
    if size == 0 && UserAddr::new(addr).is_aligned(crate::addr::PAGE_SIZE) {
        return Ok(Answer::Value(0));
    }
    call.space.mprotect(UserAddr::new(addr), size, access(prot)?)?;
    Ok(Answer::Value(0))
}

/// `mremap(old_address, old_size, new_size, flags, new_address)`.
pub(super) fn mremap(call: &Call<'_>) -> Result {
    const MAYMOVE: u64 = 1;
    const FIXED: u64 = 2;
    let [addr, old_size, new_size, flags, to, _] = call.arguments;
    if flags & !(MAYMOVE | FIXED) != 0 || flags == FIXED {
        return Err(Errno::INVAL);
    }
    let to = (flags & FIXED != 0).then_some(UserAddr::new(to));
    let request = MremapRequest { addr: UserAddr::new(addr), old_size, new_size, may_move: flags & MAYMOVE != 0, to };
    Ok(Answer::Value(call.space.mremap(&request)?.get()))
}

/// `brk(addr)`: where the heap ends now, whether that is what was asked for or not.
pub(super) fn brk(call: &Call<'_>) -> Result {
    let [to, ..] = call.arguments;
    if let Ok(end) = call.space.brk(UserAddr::new(to)) {
        return Ok(Answer::Value(end.get()));
    }
    let end = call.space.with_map(|map| map.current_brk()).map_err(|_| Errno::AGAIN)?;
    Ok(Answer::Value(end.get()))
}

/// `madvise(addr, length, advice)`.
pub(super) fn madvise(call: &Call<'_>) -> Result {
    let [addr, size, advice, ..] = call.arguments;
    let advice = match advice {
        // Normal, random, sequential, will need: nothing here would do anything else.
        0..=3 => return Ok(Answer::Value(0)),
        4 => Advice::DontNeed,
        8 => Advice::Free,
        10 => Advice::DontFork,
        11 => Advice::DoFork,
        102 => Advice::GuardInstall,
        103 => Advice::GuardRemove,
        _ => return Err(Errno::INVAL),
    };
    call.space.madvise(UserAddr::new(addr), size, advice)?;
    Ok(Answer::Value(0))
}
