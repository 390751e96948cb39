//! Memory of the process that this CPU runs, under Linux's names, and what happens to an access of it that faults.

use super::machine::machine;
use super::user::resolve_user_fault;
use crate::addr::{UserAddr, VirtAddr};
use crate::arch::aarch64::cpu::Relax;
use crate::arch::aarch64::esr::{Access, Esr, ExceptionClass, FaultStatus};
use crate::arch::aarch64::exception::Exception;
use crate::arch::aarch64::irq;
use crate::arch::aarch64::uaccess::{self, CpuUser};
use crate::gfp::Gfp;
use crate::hal::user::USER_END;
use crate::hal::wait::Context as _;
use crate::mm::user::access::{self, UserAccessError, UserData, UserPtr, UserSlice, UserWord};
use crate::sync::Once;

/// Reads a [`UserSlice`] of the process that this CPU runs.
pub type UserReader = access::UserReader<CpuUser>;
/// Writes a [`UserSlice`] of the process that this CPU runs.
pub type UserWriter = access::UserWriter<CpuUser>;

/// A fault of an access to user memory: of the process itself, or of the kernel on its behalf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UserFault {
    /// The address.
    pub addr: UserAddr,
    /// The access that was tried.
    pub access: Access,
    /// Reason why it failed.
    pub status: FaultStatus,
    /// Whether the kernel tried it, in one of the calls here.
    pub by_kernel: bool,
}

impl UserFault {
    /// The fault that a syndrome and a fault address tell of; `None` if it is no fault of an access to user memory that a handler
    /// could resolve.
    #[must_use]
    pub fn new(esr: Esr, far: VirtAddr) -> Option<Self> {
        let abort = esr.abort()?;
        let can_be_resolved = matches!(
            abort.status,
            FaultStatus::Translation(_) | FaultStatus::AccessFlag(_) | FaultStatus::Permission(_)
        );
        let addr = UserAddr::new(far.get());
        let by_kernel = esr.class() == ExceptionClass::DATA_ABORT;
        (can_be_resolved && abort.address_valid && addr < USER_END).then_some(Self {
            addr,
            access: abort.access,
            status: abort.status,
            by_kernel,
        })
    }
}

/// The outcome of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Resolution {
    /// The access succeeds if it is made again.
    Resolved,
    /// The process may not make it, or there is no memory for it.
    Bad,
}

static HANDLER: Once<fn(&UserFault) -> Resolution, Relax> = Once::new();

/// Says who resolves faults of user memory on a CPU whose process has no [`AddressSpace`](super::AddressSpace), or in a kernel
/// whose machine does not name it ([`Machine::with_current_space`](super::Machine)): by mapping what the process may access, as after a fault of its own. It is called on
/// the CPU and in the context of the access, with interrupts as they were, and may sleep. It is not called where the access was
/// made in a context that may not sleep: there, memory that is not mapped is an error at once (Linux: `pagefault_disable`). The
/// first call counts; without one every fault is an error.
///
/// The kernel's vectors must keep `ELR_EL1` and `SPSR_EL1` in memory while they call [`repair`](super::repair).
pub fn set_user_fault_handler(handler: fn(&UserFault) -> Resolution) {
    HANDLER.call_once(|| handler);
}

/// If this is a fault of one of the calls here, it is over: the handler has resolved it, or the call goes on to say how much is
/// left. Whether it was.
pub(super) fn repair(exception: &mut Exception<'_>) -> bool {
    let Some(resume) = uaccess::resumption(*exception.elr) else { return false };
    if exception.esr.class() != ExceptionClass::DATA_ABORT {
        return false;
    }
    if resolve(exception) != Resolution::Resolved {
        *exception.elr = resume;
    }
    true
}

fn resolve(exception: &Exception<'_>) -> Resolution {
    /// `SPSR_EL1.I`.
    const MASKED: u64 = 1 << 7;
    let Some(fault) = UserFault::new(exception.esr, exception.far) else { return Resolution::Bad };
    if exception.spsr & MASKED != 0 {
        return Resolution::Bad;
    }
    irq::local_irq_enable();
    let resolution = match super::context().atomic() {
        None => in_current_space(&fault).or_else(|| Some(HANDLER.get()?(&fault))).unwrap_or(Resolution::Bad),
        Some(_) => Resolution::Bad,
    };
    irq::local_irq_disable();
    resolution
}

/// Resolves a fault in the space of the process that this CPU runs; `None` if the kernel names none.
fn in_current_space(fault: &UserFault) -> Option<Resolution> {
    let mut resolution = None;
    machine().with_current_space(&mut |space| {
        let is_resolved = resolve_user_fault(space, fault, Gfp::USER).is_ok();
        resolution = Some(if is_resolved { Resolution::Resolved } else { Resolution::Bad });
    });
    resolution
}

/// Copies from the process; see [`access::copy_from_user`]. Any context.
///
/// # Errors
///
/// [`UserAccessError::Fault`]; the bytes that were not copied are zero in `to`.
#[inline]
pub fn copy_from_user(to: &mut [u8], from: UserAddr) -> Result<(), UserAccessError> {
    access::copy_from_user(&CpuUser, to, from)
}

/// Copies to the process; see [`access::copy_to_user`]. Any context.
///
/// # Errors
///
/// [`UserAccessError::Fault`].
#[inline]
pub fn copy_to_user(to: UserAddr, from: &[u8]) -> Result<(), UserAccessError> {
    access::copy_to_user(&CpuUser, to, from)
}

/// Zeroes memory of the process; see [`access::clear_user`]. Any context.
///
/// # Errors
///
/// [`UserAccessError::Fault`].
#[inline]
pub fn clear_user(to: UserAddr, bytes: usize) -> Result<(), UserAccessError> {
    access::clear_user(&CpuUser, to, bytes)
}

/// Copies a string from the process; see [`access::strncpy_from_user`]. Any context.
///
/// # Errors
///
/// [`UserAccessError::Fault`].
#[inline]
pub fn strncpy_from_user(to: &mut [u8], from: UserAddr) -> Result<usize, UserAccessError> {
    access::strncpy_from_user(&CpuUser, to, from)
}

/// Whether memory of the process is all zero; see [`access::check_zeroed_user`]. Any context.
///
/// # Errors
///
/// [`UserAccessError::Fault`].
pub fn check_zeroed_user(from: UserAddr, bytes: usize) -> Result<bool, UserAccessError> {
    access::check_zeroed_user(&CpuUser, from, bytes)
}

/// Copies a structure that has versions; see [`access::copy_struct_from_user`]. Any context.
///
/// # Errors
///
/// [`UserAccessError::UnknownTail`], [`UserAccessError::Fault`].
pub fn copy_struct_from_user(to: &mut [u8], from: UserAddr, bytes: usize) -> Result<(), UserAccessError> {
    access::copy_struct_from_user(&CpuUser, to, from, bytes)
}

/// Reads a word of the process; see [`access::get_user`]. Any context.
///
/// # Errors
///
/// [`UserAccessError::Fault`].
#[inline]
pub fn get_user<W: UserWord>(from: UserPtr<W>) -> Result<W, UserAccessError> {
    access::get_user(&CpuUser, from.addr())
}

/// Writes a word of the process; see [`access::put_user`]. Any context.
///
/// # Errors
///
/// [`UserAccessError::Fault`].
#[inline]
pub fn put_user<W: UserWord>(to: UserPtr<W>, value: W) -> Result<(), UserAccessError> {
    access::put_user(&CpuUser, to.addr(), value)
}

/// Exchanges a word of the process; see [`access::cmpxchg_user_u32`]. Any context.
///
/// # Errors
///
/// [`UserAccessError::Misaligned`], [`UserAccessError::Fault`], [`UserAccessError::Contended`].
pub fn cmpxchg_user_u32(at: UserPtr<u32>, expected: u32, new: u32) -> Result<u32, UserAccessError> {
    access::cmpxchg_user_u32(&CpuUser, at.addr(), expected, new)
}

/// Exchanges a word of the process; see [`access::cmpxchg_user_u64`]. Any context.
///
/// # Errors
///
/// As for [`cmpxchg_user_u32`].
pub fn cmpxchg_user_u64(at: UserPtr<u64>, expected: u64, new: u64) -> Result<u64, UserAccessError> {
    access::cmpxchg_user_u64(&CpuUser, at.addr(), expected, new)
}

/// Reads a value of the process. Any context.
///
/// # Errors
///
/// [`UserAccessError::Fault`].
#[inline]
pub fn read_user<T: UserData>(from: UserPtr<T>) -> Result<T, UserAccessError> {
    from.read(&CpuUser)
}

/// Writes a value of the process. Any context.
///
/// # Errors
///
/// [`UserAccessError::Fault`].
#[inline]
pub fn write_user<T: UserData>(to: UserPtr<T>, value: &T) -> Result<(), UserAccessError> {
    to.write(&CpuUser, value)
}

/// Reads a slice of the process from its start to its end.
#[must_use]
pub const fn user_reader(slice: UserSlice) -> UserReader {
    slice.reader(CpuUser)
}

/// Writes a slice of the process from its start to its end.
#[must_use]
pub const fn user_writer(slice: UserSlice) -> UserWriter {
    slice.writer(CpuUser)
}
