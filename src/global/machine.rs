//! The trait by which a kernel describes its machine. A kernel implements it once, and names the value once, by
//! [`machine!`](crate::machine).

use super::AddressSpace;
use crate::addr::{CpuId, Order, VirtAddr};
use crate::arch::aarch64::{counter, cpu};
use crate::gfp::Gfp;
use crate::hal::wait::{Atomic, WaitQueue};
use crate::mm::zone::Shortage;
use core::fmt;

/// The part of a kernel's machine that this crate cannot know by itself. Every method has a default body for one CPU without
/// threads; a kernel that grows replaces them one by one (docs/embedding.md).
///
/// All methods but [`Machine::hold_others`] and [`Machine::block`] are called in any context, interrupt handlers and
/// reports of the kernel's end among them, so they take no lock that they might hold already and allocate nothing.
///
/// # Safety
///
/// - `MACH-1`: all RAM that the kernel gives to [`bring_up`](super::bring_up()) is mapped read-write, write-back, at its
///   physical address plus the `linear_offset` of [`machine!`](crate::machine), wrapping, on all CPUs, from before that call
///   on and for good.
/// - `MACH-2`: [`Machine::hold_others`] answers `true` only if it has run the function once, while no other CPU executed
///   anything but a wait in memory that the function does not change, and interrupts were masked on this one.
pub unsafe trait Machine: Sync {
    /// Makes an online CPU call [`answer_requests`](super::answer_requests) soon, by an interrupt. Returns whether it can.
    /// Another CPU waits for the answer, so a kernel of several CPUs without such an interrupt must call that function on each
    /// CPU repeatedly: from its timer's handler and from its idle loop.
    fn kick(&self, cpu: CpuId) -> bool {
        let _ = cpu;
        false
    }

    /// Prints lines of a report.
    fn print(&self, text: fmt::Arguments<'_>) {
        log::error!("{text}");
    }

    /// Prints the backtrace of its caller, behind lines of a report.
    fn print_backtrace(&self) {}

    /// Writes an address of code in readable form.
    ///
    /// # Errors
    ///
    /// Those of the formatter.
    fn fmt_code(&self, at: VirtAddr, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&at, f)
    }

    /// A clock that never goes back, in ticks: the generic timer's virtual counter.
    fn ticks(&self) -> u64 {
        counter::ticks()
    }

    /// Ticks a second, at least one.
    fn ticks_per_second(&self) -> u64 {
        counter::frequency()
    }

    /// Called when another CPU has not answered for a second; the wait continues.
    fn no_answer(&self, cpu: CpuId) {
        self.print(format_args!("{:?} has waited a second for {cpu:?}", super::this_cpu()));
    }

    /// Called when there is background work: makes an idle CPU call [`idle`](super::idle).
    fn rouse(&self) {}

    /// Runs `work` while all other CPUs are stopped, if that is possible. Returns whether it ran. Live blocks of the linear map
    /// are split this way on CPUs that need break-before-make. Not from an interrupt handler.
    fn hold_others(&self, work: &mut dyn FnMut()) -> bool {
        let _ = work;
        false
    }

    /// Blocks the running thread until [`WaitQueue::generation`] of `queue` is no longer `seen`, or for a shorter time, and
    /// lets other threads run. Returns whether it did: `false` if no other thread can run, or if there are none: the CPU works
    /// for other CPUs meanwhile, and sleeps, or finds that no CPU is left that could free memory. A kernel that implements it
    /// calls [`switch_thread`](super::switch_thread) at each switch.
    fn block(&self, queue: &WaitQueue, seen: u32) -> bool {
        let _ = (queue, seen);
        false
    }

    /// Wakes the threads that [`Machine::block`] has blocked on `queue`. Any context.
    fn wake(&self, queue: &WaitQueue) {
        let _ = queue;
    }

    /// Calls `f` with the address space of the process that this CPU runs, if it runs one: a copy from or to user memory has met
    /// a page that is not there. Called in the context of the copy, where it may sleep. The space must live until `f` returns.
    fn with_current_space(&self, f: &mut dyn FnMut(&AddressSpace)) {
        let _ = f;
    }

    /// Whether memory may still be freed outside the running contexts of CPUs, by an interrupt handler for example. If not, an
    /// allocation that waits fails in the end instead of waiting for ever.
    fn may_free_memory(&self) -> bool {
        false
    }

    /// Called when the machine cannot boot: a damaged device tree, too little memory. The caller is the entry of the feature
    /// `boot`, on the boot stack, before there is memory. Stops this CPU, unless a kernel has something better.
    fn cannot_boot(&self, why: fmt::Arguments<'_>) -> ! {
        self.print(format_args!("cannot boot: {why}"));
        cpu::park()
    }

    /// Called when an allocation fails without [`Gfp::NOWARN`].
    fn allocation_failed(&self, shortage: &Shortage) {
        self.print(format_args!("page allocation failure: order:{}, mode:{}", shortage.order.get(), shortage.gfp));
        self.print_backtrace();
    }

    /// Called when an allocation that may wait was made where waiting is not legal; the allocation goes on without waiting.
    fn waits_in_atomic(&self, gfp: Gfp, order: Order, why: Atomic) {
        let order = order.get();
        self.print(format_args!("sleeping allocation in atomic context ({why}): order:{order}, mode:{gfp}"));
        self.print_backtrace();
    }

    /// Called when a function that may sleep was called where that is not legal, with the function's name; the call is refused.
    fn sleeps_in_atomic(&self, call: &'static str, why: Atomic) {
        self.print(format_args!("sleeping function called in atomic context ({why}): {call}"));
        self.print_backtrace();
    }
}

/// Names the kernel's machine: a value of a type that is [`Machine`], in a constant expression, and the offset that the linear
/// map adds to a physical address: any multiple of 2 MiB, zero included (RAM is used where it is). Without `linear_offset` it
/// is [`PAGE_OFFSET`](crate::mm::layout::PAGE_OFFSET). Cheapest are values that share no bit with an address of RAM.
///
/// Use it once in a kernel; the linker reports a missing or a second one.
///
/// ```ignore
/// struct MyKernel;
/// // SAFETY: one CPU, and RAM is mapped where it is.
/// unsafe impl quarry::Machine for MyKernel {}
/// quarry::machine!(MyKernel, linear_offset = 0);
/// ```
#[macro_export]
macro_rules! machine {
    ($machine:expr) => {
        $crate::machine!($machine, linear_offset = $crate::mm::layout::PAGE_OFFSET);
    };
    ($machine:expr, linear_offset = $offset:expr) => {
        const _: () = {
            #[unsafe(no_mangle)]
            static __QUARRY_LINEAR_OFFSET: u64 = {
                let offset: u64 = $offset;
                assert!(offset.is_multiple_of(2 << 20), "the linear map starts at a multiple of 2 MiB");
                offset
            };
            #[unsafe(no_mangle)]
            static __QUARRY_MACHINE: &'static dyn $crate::Machine = &$machine;
        };
    };
}

unsafe extern "Rust" {
    // Symbols that `machine!` defines, in the kernel's own crate. With link-time optimisation both are constants here.
    safe static __QUARRY_LINEAR_OFFSET: u64;
    safe static __QUARRY_MACHINE: &'static dyn Machine;
}

/// The kernel's machine.
#[inline]
pub(crate) fn machine() -> &'static dyn Machine {
    __QUARRY_MACHINE
}

/// The offset of the linear map from physical addresses.
#[inline(always)]
pub(super) fn linear_offset() -> u64 {
    __QUARRY_LINEAR_OFFSET
}
