//! Exceptions: the saved state, the way from `boot/vectors.S` to the kernel's handlers, and the walk over live stacks.
//!
//! This layer decides nothing: the kernel registers [`Handlers`], which repair, report, or end. Until it has, an
//! exception stops the CPU.

use super::backtrace::{Backtrace, StackMemory};
use super::boot;
use super::esr::ExceptionClass;
pub use super::frame::TrapFrame;
use super::stack::{
    self, INTERRUPT_STACK_SIZE, INTERRUPT_STACK_TOPS, OVERFLOW_STACK_SIZE, OVERFLOW_STACK_TOPS, STACK_SHIFT,
    StackError, StackUse,
};
use super::{cpu, rseq, step};
use crate::addr::{CpuId, VirtAddr, VirtRange};
use crate::sync::Once;
use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::VBAR_EL1;
use core::fmt;
use core::mem::{offset_of, size_of};
use tock_registers::interfaces::{Readable, Writeable};

const _: () = assert!(OVERFLOW_STACK_SIZE.is_power_of_two(), "the vectors test it with a mask");
const _: () = assert!(INTERRUPT_STACK_SIZE.is_power_of_two(), "the vectors test it with a mask");

core::arch::global_asm!(
    include_str!("../../../boot/vectors.S"),
    FRAME_SIZE = const size_of::<TrapFrame>(),
    FRAME_X = const offset_of!(TrapFrame, x),
    FRAME_ELR = const offset_of!(TrapFrame, elr),
    FRAME_ESR = const offset_of!(TrapFrame, esr),
    FRAME_RECORD = const offset_of!(TrapFrame, record),
    STACK_SHIFT = const STACK_SHIFT,
    OVERFLOW_STACK_SIZE = const OVERFLOW_STACK_SIZE,
    OVERFLOW_STACK_TOPS = sym OVERFLOW_STACK_TOPS,
    INTERRUPT_STACK_SIZE = const INTERRUPT_STACK_SIZE,
    INTERRUPT_STACK_TOPS = sym INTERRUPT_STACK_TOPS,
    trap_sync = sym trap_sync,
    trap_irq = sym trap_irq,
    trap_fatal = sym trap_fatal,
    trap_bad_stack = sym trap_bad_stack,
);

unsafe extern "C" {
    /// The vector table, 2 KiB aligned.
    static exception_vectors: u8;
    /// The same for a CPU whose tag checks are on: entries switch them on again, as taking an exception overrides them.
    static exception_vectors_tagging: u8;
    /// The end of the code behind the table.
    static exception_vectors_end: u8;
}

/// An entry of the vector table, by its number: where the exception came from and of which kind it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vector(u8);

impl Vector {
    /// Synchronous exception from EL1 on SP_EL1.
    pub const EL1H_SYNC: Self = Self(4);
}

impl fmt::Display for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0 & 3 {
            0 => "synchronous exception",
            1 => "IRQ",
            2 => "FIQ",
            _ => "SError",
        };
        let from = match self.0 >> 2 {
            0 => "EL1 with SP_EL0",
            1 => "EL1",
            2 => "EL0, AArch64",
            _ => "EL0, AArch32",
        };
        write!(f, "{kind} from {from}")
    }
}

/// Reason why the kernel must end here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fatal {
    /// An exception that nobody handled.
    Unhandled(Vector),
    /// The exception found `sp` outside a kernel stack or misaligned; the report runs on the overflow stack.
    BadStack(Vector),
}

/// Result of a handler of synchronous exceptions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Outcome {
    /// The frame has been changed so that the interrupted code can go on.
    Resume,
    /// The handler does not know this exception.
    Unhandled,
}

/// The kernel's handlers of exceptions. Each runs with everything masked, must neither sleep nor unmask, and may find any
/// lock taken: `sync` and `fatal` on the stack of the interrupted code, `irq` on the CPU's interrupt stack if it has one.
#[derive(Clone, Copy, Debug)]
pub struct Handlers {
    /// A synchronous exception taken at EL1.
    pub sync: fn(&mut TrapFrame) -> Outcome,
    /// An interrupt taken at EL1.
    pub irq: fn(&mut TrapFrame),
    /// The end: reports and leaves.
    pub fatal: fn(&TrapFrame, Fatal) -> !,
}

static HANDLERS: Once<&'static Handlers, cpu::Relax> = Once::new();

/// Registers the kernel's handlers, for all CPUs. The first call counts.
pub(crate) fn set_handlers(handlers: &'static Handlers) {
    HANDLERS.call_once(|| handlers);
}

/// Makes this the boot CPU: its number, its stacks from the linker script, and the vectors.
///
/// # Errors
///
/// [`StackError`] if the linker script's stacks do not fit the vectors; the vectors are installed nevertheless.
pub(crate) fn init_boot_cpu() -> Result<(), StackError> {
    let registered = stack::register(CpuId::BOOT, StackUse::Kernel, boot::boot_stack_top());
    let overflow = stack::register(CpuId::BOOT, StackUse::Overflow, boot::overflow_stack_top());
    init(CpuId::BOOT);
    registered.and(overflow)
}

/// Tells this CPU its number and points it at the vectors. Its stacks should be registered by then; without them a stack
/// overflow stops the CPU in silence.
pub fn init(cpu: CpuId) {
    cpu::set_current(cpu);
    VBAR_EL1.set(VirtAddr::of(&raw const exception_vectors).get());
    barrier::isb(barrier::SY);
}

/// Points this CPU at the vectors that clear `PSTATE.TCO` first. On a CPU with FEAT_MTE only.
pub(super) fn use_tagging_vectors() {
    VBAR_EL1.set(VirtAddr::of(&raw const exception_vectors_tagging).get());
    barrier::isb(barrier::SY);
}

extern "C" fn trap_sync(frame: &mut TrapFrame) {
    let debug = [ExceptionClass::SOFTWARE_STEP, ExceptionClass::BREAKPOINT].contains(&frame.esr.class());
    // A sequence that started again at each step would never end: who steps says when it shall.
    if debug && step::handle(frame) {
        return;
    }
    let Some(handlers) = HANDLERS.get() else { cpu::park() };
    match (handlers.sync)(frame) {
        Outcome::Resume => rseq::rewind(&mut frame.elr),
        Outcome::Unhandled => (handlers.fatal)(frame, Fatal::Unhandled(Vector::EL1H_SYNC)),
    }
}

extern "C" fn trap_irq(frame: &mut TrapFrame) {
    let Some(handlers) = HANDLERS.get() else { cpu::park() };
    (handlers.irq)(frame);
    rseq::rewind(&mut frame.elr);
}

extern "C" fn trap_fatal(frame: &TrapFrame, vector: u8) -> ! {
    let Some(handlers) = HANDLERS.get() else { cpu::park() };
    (handlers.fatal)(frame, Fatal::Unhandled(Vector(vector)))
}

extern "C" fn trap_bad_stack(frame: &TrapFrame, vector: u8) -> ! {
    let Some(handlers) = HANDLERS.get() else { cpu::park() };
    (handlers.fatal)(frame, Fatal::BadStack(Vector(vector)))
}

/// The registered stacks, as a backtrace reads them.
#[derive(Clone, Copy, Debug)]
pub struct LiveStacks(());

impl StackMemory for LiveStacks {
    fn stack_around(&self, addr: VirtAddr) -> Option<VirtRange> {
        stack::containing(addr).map(|stack| stack.range)
    }

    fn load(&self, addr: VirtAddr) -> u64 {
        // SAFETY: `StackMemory::load`: aligned, and inside a registered stack, which `stack::register` says is mapped.
        // The word may be changed by its owner meanwhile, hence the volatile read.
        unsafe { addr.as_ptr::<u64>().read_volatile() }
    }

    fn in_vectors(&self, pc: VirtAddr) -> bool {
        let start = VirtAddr::of(&raw const exception_vectors);
        let end = VirtAddr::of(&raw const exception_vectors_end);
        start <= pc && pc < end
    }
}

/// A backtrace from the frame record at `fp` over the stacks of this machine. Any context; takes no lock.
#[must_use]
pub const fn backtrace(fp: VirtAddr) -> Backtrace<LiveStacks> {
    Backtrace::new(LiveStacks(()), fp)
}

/// The frame pointer of the calling function.
#[must_use]
#[inline(always)]
pub fn frame_pointer() -> VirtAddr {
    VirtAddr::new(aarch64_cpu::registers::FP.get())
}
