//! The stacks that exist: of each CPU the one it runs the kernel on, the one it handles interrupts on and the one it reports a
//! stack overflow on; and those of threads, if a function that finds them is registered.
//!
//! A stack starts at a multiple of twice the largest size that there is, with unmapped memory below. So one bit of the stack
//! pointer tells the vectors whether it has overflowed, for every size (Linux: `CONFIG_VMAP_STACK`).

use super::cpu::{self, MAX_CPUS};
use crate::addr::{CpuId, VirtAddr, VirtRange, to_usize};
use crate::sync::Once;
use core::arch::global_asm;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

/// log2 of [`STACK_SIZE_MAX`], and the bit that is clear in every address of a stack and set in the same number of bytes below
/// it.
pub const STACK_SHIFT: u32 = 15;
/// Bytes of the largest stack.
pub const STACK_SIZE_MAX: u64 = 1 << STACK_SHIFT;
/// Alignment of a stack's lowest address.
pub const STACK_ALIGN: u64 = 2 * STACK_SIZE_MAX;
/// Bytes of the stack that a CPU runs the kernel on.
pub const STACK_SIZE: u64 = STACK_SIZE_MAX;
/// Bytes of an interrupt stack.
pub const INTERRUPT_STACK_SIZE: u64 = 16 << 10;
/// Bytes of an overflow stack.
pub const OVERFLOW_STACK_SIZE: u64 = 16 << 10;

/// Ends of the stacks of a kind, by CPU number; zero for a CPU without.
type Tops = [AtomicU64; MAX_CPUS];

/// Read by the vectors.
pub(super) static OVERFLOW_STACK_TOPS: Tops = [const { AtomicU64::new(0) }; MAX_CPUS];
/// Read by the vectors.
pub(super) static INTERRUPT_STACK_TOPS: Tops = [const { AtomicU64::new(0) }; MAX_CPUS];
static KERNEL_STACK_TOPS: Tops = [const { AtomicU64::new(0) }; MAX_CPUS];

/// Use of a CPU's stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StackUse {
    /// Running the kernel.
    Kernel,
    /// Handling interrupts; a CPU without one handles them on the stack that they interrupt.
    Interrupt,
    /// Reporting a stack overflow.
    Overflow,
}

impl StackUse {
    const ALL: [Self; 3] = [Self::Kernel, Self::Interrupt, Self::Overflow];

    /// Bytes of such a stack.
    #[must_use]
    pub const fn size(self) -> u64 {
        match self {
            Self::Kernel => STACK_SIZE,
            Self::Interrupt => INTERRUPT_STACK_SIZE,
            Self::Overflow => OVERFLOW_STACK_SIZE,
        }
    }

    const fn tops(self) -> &'static Tops {
        match self {
            Self::Kernel => &KERNEL_STACK_TOPS,
            Self::Interrupt => &INTERRUPT_STACK_TOPS,
            Self::Overflow => &OVERFLOW_STACK_TOPS,
        }
    }
}

/// Owner of a stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StackOwner {
    /// A CPU's own.
    Cpu(CpuId, StackUse),
    /// A thread's.
    Thread(ThreadName),
}

/// Name of a thread in reports: the first bytes of a text (Linux: `comm`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ThreadName([u8; Self::WORDS * 8]);

impl ThreadName {
    /// Words that it takes.
    pub const WORDS: usize = 3;

    /// As much of `name` as there is room for.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut bytes = [0; Self::WORDS * 8];
        let end = (0..=bytes.len().min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
        for (place, byte) in bytes.iter_mut().zip(name.bytes().take(end)) {
            *place = byte;
        }
        Self(bytes)
    }

    /// The name in words.
    #[must_use]
    pub fn words(self) -> [u64; Self::WORDS] {
        let mut words = [0; Self::WORDS];
        for (word, bytes) in words.iter_mut().zip(self.0.as_chunks::<8>().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        words
    }

    /// The name of [`ThreadName::words`].
    #[must_use]
    pub fn from_words(words: [u64; Self::WORDS]) -> Self {
        let mut name = [0; Self::WORDS * 8];
        for (place, word) in name.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word.to_ne_bytes();
        }
        Self(name)
    }
}

impl fmt::Display for ThreadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        let text = self.0.get(..end).and_then(|bytes| core::str::from_utf8(bytes).ok());
        f.write_str(text.unwrap_or("?"))
    }
}

/// One stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stack {
    /// Owner and use.
    pub owner: StackOwner,
    /// The addresses it may use.
    pub range: VirtRange,
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.owner {
            StackOwner::Cpu(cpu, StackUse::Kernel) => write!(f, "kernel stack of CPU {}", cpu.get()),
            StackOwner::Cpu(cpu, StackUse::Interrupt) => write!(f, "interrupt stack of CPU {}", cpu.get()),
            StackOwner::Cpu(cpu, StackUse::Overflow) => write!(f, "overflow stack of CPU {}", cpu.get()),
            StackOwner::Thread(name) => write!(f, "stack of thread {name}"),
        }?;
        write!(f, " {}", self.range)
    }
}

/// Reason why a stack was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StackError {
    /// The CPU number is [`MAX_CPUS`] or more.
    CpuNumber(CpuId),
    /// A stack that is checked for overflow does not start at a multiple of [`STACK_ALIGN`].
    Start(VirtAddr),
    /// The overflow stack's end is not a multiple of 16 or leaves no room for the stack below.
    OverflowStackTop(VirtAddr),
}

impl fmt::Display for StackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CpuNumber(cpu) => write!(f, "CPU number {} is too high for the table of stacks", cpu.get()),
            Self::Start(start) => write!(f, "stack that starts at {start} is not aligned to twice the largest size"),
            Self::OverflowStackTop(top) => write!(f, "overflow stack cannot end at {top}"),
        }
    }
}

impl core::error::Error for StackError {}

/// Makes a stack of `cpu` known: [`StackUse::size`] bytes that end at `top`, mapped for as long as the CPU runs.
///
/// # Errors
///
/// A variant of [`StackError`] for an address or CPU number that the vectors cannot work with; nothing has changed then.
pub fn register(cpu: CpuId, stack_use: StackUse, top: VirtAddr) -> Result<(), StackError> {
    let slot = stack_use.tops().get(to_usize(u64::from(cpu.get()))).ok_or(StackError::CpuNumber(cpu))?;
    let start = top.checked_sub(stack_use.size());
    match (stack_use, start) {
        (StackUse::Overflow, Some(_)) if top.is_aligned(16) => {}
        (StackUse::Overflow, _) => return Err(StackError::OverflowStackTop(top)),
        (_, Some(start)) if start.is_aligned(STACK_ALIGN) => {}
        (_, start) => return Err(StackError::Start(start.unwrap_or_default())),
    }
    slot.store(top.get(), Ordering::Release);
    Ok(())
}

/// The stack of `cpu` for `stack_use`, or `None` if it has not been registered.
#[must_use]
pub fn of_cpu(cpu: CpuId, stack_use: StackUse) -> Option<Stack> {
    let top = stack_use.tops().get(to_usize(u64::from(cpu.get())))?.load(Ordering::Acquire);
    let top = VirtAddr::new(top);
    let range = VirtRange::new(top.checked_sub(stack_use.size())?, top)?;
    Some(Stack { owner: StackOwner::Cpu(cpu, stack_use), range })
}

/// Finds the thread's stack that holds an address, or that lies less than [`STACK_SIZE_MAX`] above it. Called from reports
/// and backtraces: takes no lock.
pub type FindThreadStack = fn(VirtAddr) -> Option<Stack>;

static FIND_THREAD_STACK: Once<FindThreadStack, cpu::Relax> = Once::new();

/// Registers the function that finds the stacks of threads. The first call counts.
pub fn set_thread_stacks(find: FindThreadStack) {
    FIND_THREAD_STACK.call_once(|| find);
}

/// The stack that holds `addr`, this CPU's first. Linear in [`MAX_CPUS`]: for reports.
#[must_use]
pub fn containing(addr: VirtAddr) -> Option<Stack> {
    find(addr, |stack| stack.range.contains(addr))
}

/// The stack whose end a stack pointer or an access at `addr` has run through: it lies at most [`STACK_SIZE_MAX`] below
/// it. Overflow stacks are not searched.
#[must_use]
pub fn overflowed(addr: VirtAddr) -> Option<Stack> {
    find(addr, |stack| {
        let below = stack.range.start().offset_from(addr);
        !matches!(stack.owner, StackOwner::Cpu(_, StackUse::Overflow))
            && below.is_some_and(|bytes| bytes > 0 && bytes <= STACK_SIZE_MAX)
    })
}

fn find(addr: VirtAddr, matches: impl Fn(&Stack) -> bool) -> Option<Stack> {
    #[expect(clippy::cast_possible_truncation, reason = "MAX_CPUS is small")]
    let all = (0..MAX_CPUS as u32).map(CpuId::new);
    core::iter::once(cpu::current())
        .chain(all)
        .flat_map(|cpu| StackUse::ALL.map(|stack_use| of_cpu(cpu, stack_use)))
        .flatten()
        .find(&matches)
        .or_else(|| FIND_THREAD_STACK.get().and_then(|find| find(addr)).filter(&matches))
}

global_asm!(
    // in: x0 = end of the other stack, x1 = function, x2 = its argument   AAPCS64
    ".section .text.on_stack, \"ax\"",
    ".global run_on_stack",
    ".type run_on_stack, %function",
    "run_on_stack:",
    "stp x29, x30, [sp, #-16]!",
    "mov x29, sp",
    "mov sp, x0",
    "mov x0, x2",
    "blr x1",
    "mov sp, x29",
    "ldp x29, x30, [sp], #16",
    "ret",
    ".size run_on_stack, . - run_on_stack",
    ".previous",
);

unsafe extern "C" {
    fn run_on_stack(end: VirtAddr, function: extern "C" fn(*mut ()), argument: *mut ());
}

/// Calls `function` with `argument` on the stack that ends at `end`, and returns. A backtrace crosses it. Not from an interrupt
/// handler, whose stack another interrupt would begin anew.
///
/// # Safety
///
/// `end` is the end of a stack, a multiple of 16, that nobody else runs on until this returns; `argument` is what
/// `function` wants.
pub unsafe fn call(end: VirtAddr, function: extern "C" fn(*mut ()), argument: *mut ()) {
    // SAFETY: by this function's `# Safety`, nobody else runs on the stack that ends there, and `argument` suits `function`.
    unsafe { run_on_stack(end, function, argument) };
}
