//! Variables that every CPU has a copy of from the start, with an initial value (Linux: `DEFINE_PER_CPU`).
//!
//! [`define_per_cpu!`](crate::define_per_cpu) puts a variable into a section of its own. The section in the image is the
//! **template**: each CPU gets a copy of the whole section behind its other data, and its copy of a variable lies as far from
//! the variable as the copies of all others do. That distance is a word in the CPU's data. The linker makes the symbols around
//! the section by itself, so a kernel's linker script need not know of it.
//!
//! The functions `this_cpu_…` are restartable sequences: an interrupt, or a migration to another CPU, between their loads
//! and their store starts them again. They need no lock, no masking and no atomic instruction, in any context.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "registers hold the bits of the words of all sizes"
)]

use super::cpu::{CpuLocal, KernelPages};
use super::possible_cpus;
use crate::addr::{CpuId, VirtAddr, VirtRange};
use crate::arch::aarch64::{cpu, irq};
use crate::hal::cpu::PerCpu as _;
use crate::sync::{CpuGuard, pin_cpu};
use core::arch::asm;
use core::cell::UnsafeCell;
use core::fmt;
use core::mem::offset_of;
use core::ops::Deref;
use core::sync::atomic::{
    AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
    Ordering,
};

/// The largest alignment of a variable: a cache line.
pub const STATIC_PER_CPU_ALIGN: u64 = 64;

/// Offset of the distance of its copies in a CPU's data.
const DISTANCE: usize = offset_of!(CpuLocal, statics);

const _: () = assert!(DISTANCE <= 32_760 && DISTANCE.is_multiple_of(8), "an offset that a load can have");

unsafe extern "C" {
    static __start_quarry_percpu: u8;
    static __stop_quarry_percpu: u8;
}

crate::define_per_cpu! {
    /// The number of the CPU whose copy it is (Linux: `cpu_number`).
    pub static CPU_NUMBER: AtomicU32 = AtomicU32::new(0);
}

/// The addresses of the template.
pub(super) fn template() -> VirtRange {
    let (start, stop) = (&raw const __start_quarry_percpu, &raw const __stop_quarry_percpu);
    VirtRange::new(VirtAddr::of(start), VirtAddr::of(stop)).unwrap_or_default()
}

/// Bytes of a CPU's copy behind data of `used` bytes, with the padding that keeps all alignments.
pub(super) fn bytes_behind(used: u64) -> u64 {
    start_behind(used) - used + template().size()
}

/// Where the copy starts, from the start of the CPU's data, which are page aligned.
fn start_behind(used: u64) -> u64 {
    used.next_multiple_of(STATIC_PER_CPU_ALIGN) + template().start().offset_in(STATIC_PER_CPU_ALIGN)
}

/// Gives `cpu` its copy, behind `used` bytes of data at `place`: its distance from the template.
///
/// # Safety
///
/// There is room for [`bytes_behind`], mapped read-write for good and used by nobody else.
pub(super) unsafe fn copy_template(cpu: CpuId, place: VirtAddr, used: u64) -> u64 {
    let (from, size) = (template().start(), template().size());
    let to = VirtAddr::new(place.get().wrapping_add(start_behind(used)));
    // SAFETY: by `# Safety`, `place` has room behind it; the template is there for good, and nobody writes to a variable in it.
    unsafe { to.as_ptr::<u8>().copy_from_nonoverlapping(from.as_ptr(), crate::addr::to_usize(size)) };
    let distance = to.get().wrapping_sub(from.get());
    let number = VirtAddr::new(CPU_NUMBER.addr().get().wrapping_add(distance)).as_ptr::<AtomicU32>();
    // SAFETY: its copy, made by the line above.
    unsafe { &*number }.store(cpu.get(), Ordering::Relaxed);
    distance
}

/// A variable that every CPU has a copy of; [`define_per_cpu!`](crate::define_per_cpu) makes it.
///
/// # Invariants
///
/// - `SPC-1`: it lies in the section of such variables. There is no reference to its value in the template, so that all copies
///   start with the initial value.
#[repr(transparent)]
pub struct StaticPerCpu<T>(UnsafeCell<T>);

// SAFETY: SPC-1: the copies are shared, as `T` may be.
unsafe impl<T: Sync> Sync for StaticPerCpu<T> {}

impl<T: Sync> StaticPerCpu<T> {
    /// A variable with an initial value.
    ///
    /// # Safety
    ///
    /// It is a static in the section `quarry_percpu`, and `value` is a constant: every CPU may have a copy.
    #[must_use]
    pub const unsafe fn in_section(value: T) -> Self {
        const {
            assert!(align_of::<T>() as u64 <= STATIC_PER_CPU_ALIGN, "a variable is aligned to a cache line at most");
        }
        // INVARIANT: SPC-1 is the caller's promise.
        Self(UnsafeCell::new(value))
    }

    #[inline(always)]
    fn addr(&self) -> VirtAddr {
        VirtAddr::of(self)
    }

    /// The copy of a CPU, or `None` for a CPU that has no data, or not yet (Linux: `per_cpu_ptr`). Any context; O(1).
    #[inline]
    #[must_use]
    pub fn get(&'static self, cpu: CpuId) -> Option<&'static T> {
        self.at(KernelPages(()).local_of(cpu)?)
    }

    /// All copies, each with its CPU (Linux: `for_each_possible_cpu`). Any context.
    pub fn iter(&'static self) -> impl Iterator<Item = (CpuId, &'static T)> {
        possible_cpus().filter_map(|cpu| Some((cpu, self.get(cpu)?)))
    }

    /// Runs `f` with the copy of the CPU that executes this, and interrupts masked, so that it stays that CPU. `None` on a CPU
    /// that has no data yet; `f` has not run then. Any context.
    #[inline]
    pub fn with_this_cpu<R>(&'static self, f: impl FnOnce(&T) -> R) -> Option<R> {
        let _masked = irq::local_irq_save();
        self.at(KernelPages(()).local()).map(f)
    }

    /// The copy of the CPU that executes this, with interrupts masked; `None` if it has no data yet.
    #[inline(always)]
    pub(super) fn here(&'static self) -> Option<&'static T> {
        self.at(KernelPages(()).local())
    }

    #[inline]
    fn at(&'static self, local: &CpuLocal) -> Option<&'static T> {
        let distance = Some(local.statics.load(Ordering::Relaxed)).filter(|distance| *distance != 0)?;
        // SAFETY: SPC-1: the CPU's copy of the section has it there, for good.
        Some(unsafe { &*VirtAddr::new(self.addr().get().wrapping_add(distance)).as_ptr::<T>() })
    }
}

impl<T: Sync + fmt::Debug + 'static> fmt::Debug for StaticPerCpu<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticPerCpu").field("template", &self.addr()).finish_non_exhaustive()
    }
}

/// Defines variables that every CPU has a copy of (Linux: `DEFINE_PER_CPU`). The type is shared between CPUs and handlers, so
/// it must allow that: an atomic for numbers, which the functions `this_cpu_…` work on; a lock; anything of these.
///
/// ```ignore
/// quarry::define_per_cpu! {
///     /// Packets that this CPU has seen.
///     pub static PACKETS: AtomicU64 = AtomicU64::new(0);
/// }
/// quarry::this_cpu_inc(&PACKETS);
/// let all: u64 = PACKETS.iter().map(|(_, packets)| packets.load(Ordering::Relaxed)).sum();
/// ```
#[macro_export]
macro_rules! define_per_cpu {
    ($($(#[$about:meta])* $vis:vis static $name:ident: $type:ty = $initial:expr;)+) => {$(
        $(#[$about])*
        #[unsafe(link_section = "quarry_percpu")]
        $vis static $name: $crate::global::StaticPerCpu<$type> = {
            // SAFETY: a static in the section, by the attribute, with a constant.
            unsafe { $crate::global::StaticPerCpu::in_section(const { $initial }) }
        };
    )+};
}

/// The running context stays on its CPU until this is dropped (Linux: `get_cpu`, `put_cpu`).
pub type PinnedCpu = CpuGuard<'static, KernelPages>;

/// Keeps the running context on its CPU, which is [`CpuGuard::cpu`], until the guard is dropped; it may not wait meanwhile
/// (Linux: `get_cpu`). Any context.
pub fn get_cpu() -> PinnedCpu {
    pin_cpu(super::context())
}

/// This CPU's copy of a variable, on which the context stays until this is dropped (Linux: `get_cpu_var`, `put_cpu_var`).
/// Interrupts are not masked: a handler may use the copy meanwhile.
#[must_use = "the context may leave the CPU when the guard is dropped"]
#[derive(Debug)]
pub struct CpuVar<T: 'static> {
    value: &'static T,
    cpu: PinnedCpu,
}

impl<T> CpuVar<T> {
    /// CPU that this copy belongs to.
    #[must_use]
    pub const fn cpu(&self) -> CpuId {
        self.cpu.cpu()
    }
}

impl<T> Deref for CpuVar<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        self.value
    }
}

/// This CPU's copy of a variable (Linux: `get_cpu_var`); `None` on a CPU that has no data yet. Any context.
pub fn get_cpu_var<T: Sync>(variable: &'static StaticPerCpu<T>) -> Option<CpuVar<T>> {
    let cpu = get_cpu();
    let value = variable.at(KernelPages(()).local())?;
    Some(CpuVar { value, cpu })
}

/// A number that the functions `this_cpu_…` accept.
///
/// # Safety
///
/// - `WORD-2`: as large and aligned as its `Value`, whose bits it holds.
pub unsafe trait PerCpuWord: Sync + 'static {
    /// Type of the value.
    type Value: Copy;

    /// Its value; a single access.
    fn load(&self) -> Self::Value;
    /// Adds to this CPU's copy of the word at `at` in the template, with wrapping. Returns the new value.
    fn add(at: VirtAddr, by: Self::Value) -> Self::Value;
    /// Adds one.
    fn inc(at: VirtAddr);
    /// Reads it.
    fn read(at: VirtAddr) -> Self::Value;
    /// Writes it.
    fn write(at: VirtAddr, value: Self::Value);
    /// Writes it. Returns the previous value.
    fn exchange(at: VirtAddr, value: Self::Value) -> Self::Value;
    /// Writes it if it holds `expected`. Returns the previous value.
    fn compare_exchange(at: VirtAddr, expected: Self::Value, value: Self::Value) -> Self::Value;
}

/// A restartable sequence of `$body` behind the address of this CPU's copy, in `base` and `at`; `6` is its end.
macro_rules! sequence {
    ($at:expr, [$($body:expr),+], $($operands:tt)*) => {
        // SAFETY: SPC-1: the copy of a word of this size exists. An exception in between starts it again, and the one store is
        // the last instruction.
        unsafe {
            asm!(
                "2: mrs {base}, tpidr_el1",
                "ldr {base}, [{base}, #{distance}]",
                $($body,)+
                "6:",
                ".pushsection quarry_rseq, \"aR\"",
                ".balign 8",
                ".quad 2b, 6b, 2b",
                ".popsection",
                base = out(reg) _,
                at = in(reg) $at.get(),
                distance = const DISTANCE,
                $($operands)*
                options(nostack),
            )
        }
    };
}

/// `$r` is the assembly name of a register of this size, `$bits` the integer that fills one.
macro_rules! words {
    ($($word:ident: $value:ty as $bits:ty, $load:literal, $store:literal, $r:literal;)*) => {$(
        const _: () = {
            // SAFETY: WORD-2 by the definition of the atomic.
            unsafe impl PerCpuWord for $word {
                type Value = $value;

                #[inline]
                fn load(&self) -> $value {
                    self.load(Ordering::Relaxed)
                }

                #[inline(always)]
                fn add(at: VirtAddr, by: $value) -> $value {
                    let new: $bits;
                    sequence!(
                        at,
                        [
                            concat!($load, " {new", $r, "}, [{base}, {at}]"),
                            concat!("add {new", $r, "}, {new", $r, "}, {by", $r, "}"),
                            concat!($store, " {new", $r, "}, [{base}, {at}]")
                        ],
                        new = out(reg) new, by = in(reg) by as $bits,
                    );
                    new as $value
                }

                #[inline(always)]
                fn inc(at: VirtAddr) {
                    sequence!(
                        at,
                        [
                            concat!($load, " {new", $r, "}, [{base}, {at}]"),
                            concat!("add {new", $r, "}, {new", $r, "}, #1"),
                            concat!($store, " {new", $r, "}, [{base}, {at}]")
                        ],
                        new = out(reg) _,
                    );
                }

                #[inline(always)]
                fn read(at: VirtAddr) -> $value {
                    let found: $bits;
                    sequence!(
                        at, [concat!($load, " {found", $r, "}, [{base}, {at}]")], found = out(reg) found,
                    );
                    found as $value
                }

                #[inline(always)]
                fn write(at: VirtAddr, value: $value) {
                    sequence!(
                        at,
                        [concat!($store, " {value", $r, "}, [{base}, {at}]")],
                        value = in(reg) value as $bits,
                    );
                }

                #[inline(always)]
                fn exchange(at: VirtAddr, value: $value) -> $value {
                    let found: $bits;
                    sequence!(
                        at,
                        [
                            concat!($load, " {found", $r, "}, [{base}, {at}]"),
                            concat!($store, " {value", $r, "}, [{base}, {at}]")
                        ],
                        found = out(reg) found, value = in(reg) value as $bits,
                    );
                    found as $value
                }

                #[inline(always)]
                fn compare_exchange(at: VirtAddr, expected: $value, value: $value) -> $value {
                    let found: $bits;
                    sequence!(
                        at,
                        [
                            concat!($load, " {found", $r, "}, [{base}, {at}]"),
                            concat!("cmp {found", $r, "}, {expected", $r, "}"),
                            "b.ne 6f",
                            concat!($store, " {value", $r, "}, [{base}, {at}]")
                        ],
                        // As the load left it: no more bits than the value has.
                        found = out(reg) found, expected = in(reg) expected as $bits & FULL, value = in(reg) value as $bits,
                    );
                    found as $value
                }
            }

            const FULL: $bits = <$bits>::MAX >> (<$bits>::BITS - <$value>::BITS);
        };
    )*};
}

words! {
    AtomicU8: u8 as u32, "ldrb", "strb", ":w";
    AtomicI8: i8 as u32, "ldrb", "strb", ":w";
    AtomicU16: u16 as u32, "ldrh", "strh", ":w";
    AtomicI16: i16 as u32, "ldrh", "strh", ":w";
    AtomicU32: u32 as u32, "ldr", "str", ":w";
    AtomicI32: i32 as u32, "ldr", "str", ":w";
    AtomicU64: u64 as u64, "ldr", "str", "";
    AtomicI64: i64 as u64, "ldr", "str", "";
    AtomicUsize: usize as u64, "ldr", "str", "";
    AtomicIsize: isize as u64, "ldr", "str", "";
}

/// Adds to this CPU's copy, with wrapping. Returns the new value (Linux: `this_cpu_add`, `this_cpu_add_return`). Any context.
/// On a CPU that has no data yet all these functions work on the template: the initial value of every copy.
#[inline(always)]
pub fn this_cpu_add<W: PerCpuWord>(variable: &'static StaticPerCpu<W>, by: W::Value) -> W::Value {
    W::add(variable.addr(), by)
}

/// Adds one to this CPU's copy (Linux: `this_cpu_inc`). Any context. Five instructions behind the variable's address.
#[inline(always)]
pub fn this_cpu_inc<W: PerCpuWord>(variable: &'static StaticPerCpu<W>) {
    W::inc(variable.addr());
}

/// Value of this CPU's copy (Linux: `this_cpu_read`): of the CPU that the caller was on at some moment of the call. Any
/// context.
#[inline(always)]
#[must_use]
pub fn this_cpu_read<W: PerCpuWord>(variable: &'static StaticPerCpu<W>) -> W::Value {
    W::read(variable.addr())
}

/// Writes this CPU's copy (Linux: `this_cpu_write`). Any context.
#[inline(always)]
pub fn this_cpu_write<W: PerCpuWord>(variable: &'static StaticPerCpu<W>, value: W::Value) {
    W::write(variable.addr(), value);
}

/// Writes this CPU's copy. Returns the previous value (Linux: `this_cpu_xchg`). Any context.
#[inline(always)]
pub fn this_cpu_xchg<W: PerCpuWord>(variable: &'static StaticPerCpu<W>, value: W::Value) -> W::Value {
    W::exchange(variable.addr(), value)
}

/// Writes this CPU's copy if it holds `expected`. Returns the previous value (Linux: `this_cpu_cmpxchg`). Any context.
#[inline(always)]
pub fn this_cpu_cmpxchg<W: PerCpuWord>(
    variable: &'static StaticPerCpu<W>,
    expected: W::Value,
    value: W::Value,
) -> W::Value {
    W::compare_exchange(variable.addr(), expected, value)
}

/// Sum of all copies. Each is read once, at its own moment. Any context.
pub fn per_cpu_sum(variable: &'static StaticPerCpu<AtomicU64>) -> u64 {
    variable.iter().fold(0, |sum, (_, word)| sum.wrapping_add(word.load(Ordering::Relaxed)))
}

/// Whether the CPU that executes this finds its own number in its copy: a check of the register that points there.
#[must_use]
pub fn finds_its_own_copy() -> bool {
    CPU_NUMBER.with_this_cpu(|number| number.load(Ordering::Relaxed) == cpu::current().get()) == Some(true)
}
