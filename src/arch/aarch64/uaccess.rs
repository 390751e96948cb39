//! Memory of the process that runs, from the kernel: the routines of `uaccess.S`, and where they resume after a fault.

use super::features::IdRegisters;
use super::protect;
use crate::addr::{UserAddr, VirtAddr};
use crate::hal::user::{Exchange, StringEnd, UserAccess};
use core::arch::global_asm;
use core::sync::atomic::{AtomicU8, Ordering};

global_asm!(include_str!("uaccess.S"));

/// Read by `uaccess.S`: nonzero once this kernel runs with PAN set.
#[unsafe(no_mangle)]
#[used]
static quarry_uses_pan: AtomicU8 = AtomicU8::new(0);

/// An access to user memory, and where to go on if it faults.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Stretch {
    start: VirtAddr,
    end: VirtAddr,
    resume: VirtAddr,
}

#[repr(C)]
struct Pair {
    value: u64,
    status: u64,
}

unsafe extern "C" {
    static __start_quarry_uaccess: Stretch;
    static __stop_quarry_uaccess: Stretch;
    fn quarry_copy_from_user(to: *mut u8, from: u64, bytes: usize) -> usize;
    fn quarry_copy_to_user(to: u64, from: *const u8, bytes: usize) -> usize;
    fn quarry_clear_user(to: u64, bytes: usize) -> usize;
    fn quarry_strncpy_from_user(to: *mut u8, from: u64, bytes: usize) -> Pair;
    fn quarry_load_user_u8(from: u64) -> Pair;
    fn quarry_load_user_u16(from: u64) -> Pair;
    fn quarry_load_user_u32(from: u64) -> Pair;
    fn quarry_load_user_u64(from: u64) -> Pair;
    fn quarry_store_user_u8(to: u64, value: u64) -> Pair;
    fn quarry_store_user_u16(to: u64, value: u64) -> Pair;
    fn quarry_store_user_u32(to: u64, value: u64) -> Pair;
    fn quarry_store_user_u64(to: u64, value: u64) -> Pair;
    fn quarry_cmpxchg_user_u32(at: u64, expected: u64, new: u64) -> Pair;
    fn quarry_cmpxchg_user_u64(at: u64, expected: u64, new: u64) -> Pair;
}

/// Looks whether this kernel runs with PAN set, which long copies then clear meanwhile. Once, on the boot CPU, when
/// its controls of access are as they stay; no other CPU may run that [`can_run_on`] refuses.
pub fn use_features(cpu: &IdRegisters) {
    quarry_uses_pan.store(u8::from(protect::barriers(cpu).pan), Ordering::Relaxed);
}

/// Whether the routines, as they are used, run on this CPU.
#[must_use]
pub fn can_run_on(cpu: &IdRegisters) -> bool {
    cpu.has_pan() || quarry_uses_pan.load(Ordering::Relaxed) == 0
}

/// Where the interrupted code goes on if the access to user memory at `elr` faults for good; `None` if there is no such
/// access. Any context.
#[must_use]
pub fn resumption(elr: VirtAddr) -> Option<VirtAddr> {
    let (start, end) = (&raw const __start_quarry_uaccess, &raw const __stop_quarry_uaccess);
    let count = (end.addr() - start.addr()) / size_of::<Stretch>();
    // SAFETY: the linker puts both symbols around the section, which consists of whole entries, read-only and there for good.
    let table = unsafe { core::slice::from_raw_parts(start, count) };
    // In the order of the one file that they come from.
    let after = table.partition_point(|stretch| stretch.start <= elr);
    let stretch = table.get(after.checked_sub(1)?)?;
    (elr < stretch.end).then_some(stretch.resume)
}

/// The CPU that executes the call, as a way to the memory of the process that it runs.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CpuUser;

// SAFETY: the routines write where they are told, and a load or store of user memory that faults changes nothing.
unsafe impl UserAccess for CpuUser {
    #[inline(always)]
    unsafe fn copy_in(&self, to: &mut [u8], from: UserAddr) -> usize {
        // SAFETY: `to` is a slice; `UserAccess::copy_in`: as many bytes at `from` lie below `USER_END`.
        unsafe { quarry_copy_from_user(to.as_mut_ptr(), from.get(), to.len()) }
    }

    #[inline(always)]
    unsafe fn copy_out(&self, to: UserAddr, from: &[u8]) -> usize {
        // SAFETY: `from` is a slice; `UserAccess::copy_out`: as many bytes at `to` lie below `USER_END`.
        unsafe { quarry_copy_to_user(to.get(), from.as_ptr(), from.len()) }
    }

    #[inline(always)]
    unsafe fn clear(&self, to: UserAddr, bytes: usize) -> usize {
        // SAFETY: `UserAccess::clear`: the bytes lie below `USER_END`.
        unsafe { quarry_clear_user(to.get(), bytes) }
    }

    #[inline(always)]
    unsafe fn copy_string(&self, to: &mut [u8], from: UserAddr) -> (usize, StringEnd) {
        // SAFETY: as for `copy_in`.
        let end = unsafe { quarry_strncpy_from_user(to.as_mut_ptr(), from.get(), to.len()) };
        let how = match end.status {
            0 => StringEnd::Nul,
            1 => StringEnd::Full,
            _ => StringEnd::Fault,
        };
        (crate::addr::to_usize(end.value), how)
    }

    #[inline(always)]
    unsafe fn load(&self, from: UserAddr, size: usize) -> Option<u64> {
        let load = match size {
            1 => quarry_load_user_u8,
            2 => quarry_load_user_u16,
            4 => quarry_load_user_u32,
            8 => quarry_load_user_u64,
            _ => return None,
        };
        // SAFETY: `UserAccess::load`: the bytes lie below `USER_END`.
        let loaded = unsafe { load(from.get()) };
        (loaded.status == 0).then_some(loaded.value)
    }

    #[inline(always)]
    unsafe fn store(&self, to: UserAddr, size: usize, value: u64) -> bool {
        let store = match size {
            1 => quarry_store_user_u8,
            2 => quarry_store_user_u16,
            4 => quarry_store_user_u32,
            8 => quarry_store_user_u64,
            _ => return false,
        };
        // SAFETY: `UserAccess::store`: the bytes lie below `USER_END`.
        unsafe { store(to.get(), value) }.status == 0
    }

    unsafe fn compare_exchange_u32(&self, at: UserAddr, expected: u32, new: u32) -> Exchange<u32> {
        // SAFETY: `UserAccess::compare_exchange_u32`: an aligned word below `USER_END`.
        let found = unsafe { quarry_cmpxchg_user_u32(at.get(), expected.into(), new.into()) };
        #[expect(clippy::cast_possible_truncation, reason = "the routine loads 32 bits")]
        exchange(found.status, found.value as u32)
    }

    unsafe fn compare_exchange_u64(&self, at: UserAddr, expected: u64, new: u64) -> Exchange<u64> {
        // SAFETY: `UserAccess::compare_exchange_u64`: an aligned word below `USER_END`.
        let found = unsafe { quarry_cmpxchg_user_u64(at.get(), expected, new) };
        exchange(found.status, found.value)
    }
}

const fn exchange<W: Copy>(status: u64, found: W) -> Exchange<W> {
    match status {
        0 => Exchange::Found(found),
        1 => Exchange::Fault,
        _ => Exchange::Contended,
    }
}
