//! System calls, with Linux's numbers for 64-bit Arm (`include/uapi/asm-generic/unistd.h`).

use core::arch::asm;
use core::ptr;

/// A system call's error, one of Linux's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub i32);

impl Errno {
    pub const NOENT: Self = Self(2);
    pub const BADF: Self = Self(9);
    pub const CHILD: Self = Self(10);
    pub const AGAIN: Self = Self(11);
    pub const NOMEM: Self = Self(12);
    pub const ACCES: Self = Self(13);
    pub const FAULT: Self = Self(14);
    pub const INVAL: Self = Self(22);
    pub const NOSYS: Self = Self(38);
}

pub const READ: usize = 1;
pub const WRITE: usize = 2;
pub const EXEC: usize = 4;

/// `madvise`: the content is not needed; guard pages.
pub const DONTNEED: usize = 4;
pub const GUARD_INSTALL: usize = 102;

const MAP_SHARED: usize = 1;
const MAP_PRIVATE: usize = 2;
const MAP_FIXED: usize = 0x10;
const MAP_ANONYMOUS: usize = 0x20;
const MREMAP_MAYMOVE: usize = 1;
const AT_FDCWD: usize = usize::MAX - 99;

/// Makes any system call.
///
/// # Safety
///
/// As for what the call does to the memory of this program.
pub unsafe fn call(number: usize, arguments: [usize; 6]) -> Result<usize, Errno> {
    let [a0, a1, a2, a3, a4, a5] = arguments;
    let result: usize;
    // SAFETY: all registers but x0 are kept by the kernel; the caller vouches for the memory.
    unsafe {
        asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") a0 => result,
            in("x1") a1,
            in("x2") a2,
            in("x3") a3,
            in("x4") a4,
            in("x5") a5,
            options(nostack),
        );
    }
    let signed = result as isize;
    if (-4095..0).contains(&signed) { Err(Errno(-signed as i32)) } else { Ok(result) }
}

/// A call that does nothing to this program's memory.
fn harmless(number: usize, arguments: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: the callers name such calls alone.
    unsafe { call(number, arguments) }
}

/// Ends the whole process.
pub fn exit_group(status: i32) -> ! {
    loop {
        let _ = harmless(94, [status as usize, 0, 0, 0, 0, 0]);
    }
}

/// Writes to a file.
pub fn write(file: usize, bytes: &[u8]) -> Result<usize, Errno> {
    write_at(file, bytes.as_ptr().addr(), bytes.len())
}

/// [`write`] from any address: the kernel checks it.
pub fn write_at(file: usize, at: usize, bytes: usize) -> Result<usize, Errno> {
    harmless(64, [file, at, bytes, 0, 0, 0])
}

/// Opens a file to read it; `path` ends with NUL.
pub fn open(path: &core::ffi::CStr) -> Result<usize, Errno> {
    harmless(56, [AT_FDCWD, path.as_ptr().addr(), 0, 0, 0, 0])
}

/// Reads from a file.
pub fn read(file: usize, to: &mut [u8]) -> Result<usize, Errno> {
    harmless(63, [file, to.as_mut_ptr().expose_provenance(), to.len(), 0, 0, 0])
}

/// Closes a file.
pub fn close(file: usize) -> Result<(), Errno> {
    harmless(57, [file, 0, 0, 0, 0, 0]).map(drop)
}

/// The number of the process.
pub fn getpid() -> usize {
    harmless(172, [0; 6]).unwrap_or(0)
}

/// The number of the thread.
pub fn gettid() -> usize {
    harmless(178, [0; 6]).unwrap_or(0)
}

/// Lets other threads run.
pub fn sched_yield() {
    let _ = harmless(124, [0; 6]);
}

/// Maps new private memory wherever there is room.
pub fn mmap(bytes: usize, access: usize) -> Result<*mut u8, Errno> {
    let at = harmless(222, [0, bytes, access, MAP_PRIVATE | MAP_ANONYMOUS, usize::MAX, 0])?;
    Ok(ptr::with_exposed_provenance_mut(at))
}

/// Maps new memory that the children of this process share with it, wherever there is room.
pub fn mmap_shared(bytes: usize, access: usize) -> Result<*mut u8, Errno> {
    let at = harmless(222, [0, bytes, access, MAP_SHARED | MAP_ANONYMOUS, usize::MAX, 0])?;
    Ok(ptr::with_exposed_provenance_mut(at))
}

/// Maps new private memory at an address, in place of what is there.
///
/// # Safety
///
/// Nothing else uses what is there.
pub unsafe fn mmap_fixed(at: usize, bytes: usize, access: usize) -> Result<*mut u8, Errno> {
    // SAFETY: the caller's promise.
    let at = unsafe { call(222, [at, bytes, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, usize::MAX, 0]) }?;
    Ok(ptr::with_exposed_provenance_mut(at))
}

/// Unmaps memory.
///
/// # Safety
///
/// Nothing uses it any more.
pub unsafe fn munmap(at: *mut u8, bytes: usize) -> Result<(), Errno> {
    // SAFETY: the caller's promise.
    unsafe { call(215, [at.addr(), bytes, 0, 0, 0, 0]) }.map(drop)
}

/// Changes what a range of memory permits.
///
/// # Safety
///
/// The memory is used as it permits from then on.
pub unsafe fn mprotect(at: *mut u8, bytes: usize, access: usize) -> Result<(), Errno> {
    // SAFETY: the caller's promise.
    unsafe { call(226, [at.addr(), bytes, access, 0, 0, 0]) }.map(drop)
}

/// Makes a mapping larger or smaller; it may move.
///
/// # Safety
///
/// Nothing uses the old addresses any more.
pub unsafe fn mremap(at: *mut u8, old: usize, new: usize) -> Result<*mut u8, Errno> {
    // SAFETY: the caller's promise.
    let at = unsafe { call(216, [at.addr(), old, new, MREMAP_MAYMOVE, 0, 0]) }?;
    Ok(ptr::with_exposed_provenance_mut(at))
}

/// Gives advice about memory.
///
/// # Safety
///
/// Nothing needs the content that the advice gives up.
pub unsafe fn madvise(at: *mut u8, bytes: usize, advice: usize) -> Result<(), Errno> {
    // SAFETY: the caller's promise.
    unsafe { call(233, [at.addr(), bytes, advice, 0, 0, 0]) }.map(drop)
}

/// Moves the end of the heap to `to`, and answers with where it is: unchanged if there is no memory. 0 asks.
///
/// # Safety
///
/// Nothing uses what lies behind `to`.
pub unsafe fn brk(to: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe { call(214, [to, 0, 0, 0, 0, 0]) }.unwrap_or(0)
}

/// Makes a child: `Ok(0)` in the child, its number in the parent.
pub fn fork() -> Result<usize, Errno> {
    const SIGCHLD: usize = 17;
    // A thread that has the heap would not be in the child to give it back.
    crate::heap::with_lock(|| harmless(220, [SIGCHLD, 0, 0, 0, 0, 0]))
}

/// The end of a child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// With this status.
    Exited(i32),
    /// By a signal of this number.
    Killed(i32),
}

/// Waits for a child, any if `child` is `None`: its number, and how it ended.
pub fn wait(child: Option<usize>) -> Result<(usize, Ended), Errno> {
    let mut status = 0_i32;
    let status_at = (&raw mut status).expose_provenance();
    let number = harmless(260, [child.unwrap_or(usize::MAX), status_at, 0, 0, 0, 0])?;
    // SAFETY: the kernel may have written to it, which the compiler does not see.
    let status = unsafe { (&raw const status).read_volatile() };
    let ended = if status & 0x7f == 0 { Ended::Exited(status >> 8 & 0xff) } else { Ended::Killed(status & 0x7f) };
    Ok((number, ended))
}
