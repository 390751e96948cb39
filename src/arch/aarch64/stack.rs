//! The stacks that exist: each CPU's kernel stack and its overflow stack, on which a stack overflow is reported.
//!
//! A kernel stack is `STACK_SIZE` bytes at a multiple of twice its size, with unmapped memory below, so that the
//! vectors see in one bit of the stack pointer whether it has overflowed (Linux: `CONFIG_VMAP_STACK`).

use super::cpu::{self, MAX_CPUS};
use crate::addr::{CpuId, VirtAddr, VirtRange, to_usize};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

/// log2 of [`STACK_SIZE`], and the bit that is clear in every address of a kernel stack.
pub const STACK_SHIFT: u32 = 15;
/// Bytes of a kernel stack. It starts at a multiple of twice this.
pub const STACK_SIZE: u64 = 1 << STACK_SHIFT;
/// Bytes of an overflow stack.
pub const OVERFLOW_STACK_SIZE: u64 = 16 << 10;

/// Where each CPU's overflow stack ends, by CPU number; zero for a CPU without. Read by the vectors.
pub(super) static OVERFLOW_STACK_TOPS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
/// Where each CPU's kernel stack ends, by CPU number; zero for a CPU without.
static KERNEL_STACK_TOPS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// What a stack is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StackUse {
    /// The stack that a CPU runs the kernel on.
    Kernel,
    /// The stack that a CPU reports a stack overflow on.
    Overflow,
}

/// One stack of one CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stack {
    /// Whose it is.
    pub cpu: CpuId,
    /// What it is for.
    pub stack_use: StackUse,
    /// The addresses it may use.
    pub range: VirtRange,
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.stack_use {
            StackUse::Kernel => "kernel stack",
            StackUse::Overflow => "overflow stack",
        };
        write!(f, "{name} of CPU {} {}", self.cpu.get(), self.range)
    }
}

/// Why a stack was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StackError {
    /// The CPU number is [`MAX_CPUS`] or more.
    CpuNumber(CpuId),
    /// The kernel stack does not end [`STACK_SIZE`] above a multiple of twice that.
    KernelStackTop(VirtAddr),
    /// The overflow stack's end is not a multiple of 16 or leaves no room for the stack below.
    OverflowStackTop(VirtAddr),
}

impl fmt::Display for StackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CpuNumber(cpu) => write!(f, "CPU number {} is too high for the table of stacks", cpu.get()),
            Self::KernelStackTop(top) => write!(f, "kernel stack that ends at {top} is not aligned to twice its size"),
            Self::OverflowStackTop(top) => write!(f, "overflow stack cannot end at {top}"),
        }
    }
}

impl core::error::Error for StackError {}

/// Makes the stacks of `cpu` known: the kernel stack of [`STACK_SIZE`] bytes that ends at `kernel_top`, and the overflow
/// stack of [`OVERFLOW_STACK_SIZE`] bytes that ends at `overflow_top`. Both must be mapped for as long as the CPU runs.
///
/// # Errors
///
/// A variant of [`StackError`] for an address or CPU number that the vectors cannot work with; nothing has changed then.
pub fn register(cpu: CpuId, kernel_top: VirtAddr, overflow_top: VirtAddr) -> Result<(), StackError> {
    let index = to_usize(u64::from(cpu.get()));
    let (Some(kernel), Some(overflow)) = (KERNEL_STACK_TOPS.get(index), OVERFLOW_STACK_TOPS.get(index)) else {
        return Err(StackError::CpuNumber(cpu));
    };
    if kernel_top.offset_in(2 * STACK_SIZE) != STACK_SIZE {
        return Err(StackError::KernelStackTop(kernel_top));
    }
    if !overflow_top.is_aligned(16) || overflow_top.get() < OVERFLOW_STACK_SIZE {
        return Err(StackError::OverflowStackTop(overflow_top));
    }
    kernel.store(kernel_top.get(), Ordering::Release);
    overflow.store(overflow_top.get(), Ordering::Release);
    Ok(())
}

/// The stack of `cpu` for `stack_use`, or `None` if it has not been registered.
#[must_use]
pub fn of_cpu(cpu: CpuId, stack_use: StackUse) -> Option<Stack> {
    let (tops, size) = match stack_use {
        StackUse::Kernel => (&KERNEL_STACK_TOPS, STACK_SIZE),
        StackUse::Overflow => (&OVERFLOW_STACK_TOPS, OVERFLOW_STACK_SIZE),
    };
    let top = VirtAddr::new(tops.get(to_usize(u64::from(cpu.get())))?.load(Ordering::Acquire));
    let range = VirtRange::new(top.checked_sub(size)?, top)?;
    Some(Stack { cpu, stack_use, range })
}

/// The stack that holds `addr`, this CPU's first. Linear in [`MAX_CPUS`]: for reports.
#[must_use]
pub fn containing(addr: VirtAddr) -> Option<Stack> {
    find(|stack| stack.range.contains(addr))
}

/// The kernel stack whose end a stack pointer `sp` has run through: `sp` lies less than a stack's size below it.
#[must_use]
pub fn overflowed(sp: VirtAddr) -> Option<Stack> {
    find(|stack| {
        let below = stack.range.start().offset_from(sp);
        stack.stack_use == StackUse::Kernel && below.is_some_and(|bytes| bytes > 0 && bytes <= STACK_SIZE)
    })
}

fn find(matches: impl Fn(&Stack) -> bool) -> Option<Stack> {
    #[expect(clippy::cast_possible_truncation, reason = "MAX_CPUS is small")]
    let all = (0..MAX_CPUS as u32).map(CpuId::new);
    core::iter::once(cpu::current())
        .chain(all)
        .flat_map(|cpu| [of_cpu(cpu, StackUse::Kernel), of_cpu(cpu, StackUse::Overflow)])
        .flatten()
        .find(matches)
}
