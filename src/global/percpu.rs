//! The kernel's dynamic per-CPU memory, Linux's names for it, and a value for each CPU.

use super::misuse::refused;
use super::vmalloc::VMALLOC;
use super::{KVec, KernelPages, Kmalloc, context, possible_cpus, reclaim};
use crate::addr::{CpuId, VirtAddr, VirtRange, to_usize};
use crate::arch::aarch64::{cpu, irq};
use crate::ds::Broken;
use crate::gfp::Gfp;
use crate::hal::Internal;
use crate::hal::cpu::PerCpu as _;
use crate::mm::alloc::KBox;
use crate::mm::percpu::{Chunk, PerCpuAllocator, PerCpuError, PerCpuHal, PerCpuPtr, PerCpuStats};
use crate::mm::zone::{Purge, RegistryError};
use core::fmt;
use core::marker::PhantomData;
use core::panic::Location;

static PERCPU: PerCpuAllocator<'static, 'static, KernelPages> = PerCpuAllocator::new(&VMALLOC);

// SAFETY: HAL-11: an array is a fresh allocation, and memory is cleared by writes of the CPU.
unsafe impl PerCpuHal<'static> for KernelPages {
    fn row(&self, count: usize, gfp: Gfp) -> Option<&'static mut [Chunk<'static>]> {
        // Reclaimable memory.
        let gfp = gfp | Gfp::RECLAIMABLE;
        let row = KVec::from_elem(Chunk::FREE, count, gfp).ok()?;
        Some(KBox::leak(row.into_boxed_slice(gfp).ok()?))
    }

    fn free_row(&self, row: &'static mut [Chunk<'static>]) {
        // SAFETY: leaked above; the caller gives up the only reference.
        drop(unsafe { KBox::<_, Kmalloc>::from_raw(core::ptr::from_mut(row)) });
    }

    fn clear(&self, _: Internal, range: VirtRange) {
        // SAFETY: the allocator has mapped it, read-write, and gives it to its caller afterwards.
        unsafe { range.start().as_ptr::<u8>().write_bytes(0, to_usize(range.size())) };
    }
}

/// Its idle pages, for allocations that run short of memory.
struct Idle;

impl Purge for Idle {
    fn name(&self) -> &'static str {
        "per-CPU memory"
    }

    fn lazy_pages(&self) -> u64 {
        PERCPU.idle_pages()
    }

    fn purge(&self, _: Gfp) {
        PERCPU.trim();
    }
}

/// Registers the shrinker that frees idle per-CPU memory when memory is short. Boot CPU, once.
///
/// # Errors
///
/// [`RegistryError::Full`].
pub(crate) fn percpu_init() -> Result<(), RegistryError> {
    // Registered for good.
    reclaim().purges().register(context(), &Idle).map(drop)
}

/// `size` zeroed bytes for each CPU; see [`PerCpuAllocator::alloc`] (Linux: `__alloc_percpu`). May wait.
///
/// As a value: [`PerCpu`].
///
/// # Errors
///
/// [`PerCpuError`].
#[track_caller]
pub fn alloc_percpu(size: usize, align: usize) -> Result<PerCpuPtr, PerCpuError> {
    PERCPU.alloc(size as u64, align as u64, Gfp::KERNEL)
}

/// [`alloc_percpu`] with flags: with [`Gfp::ATOMIC`] in any context.
///
/// As a value: [`PerCpu`].
///
/// # Errors
///
/// [`PerCpuError`].
#[track_caller]
pub fn alloc_percpu_gfp(size: usize, align: usize, gfp: Gfp) -> Result<PerCpuPtr, PerCpuError> {
    PERCPU.alloc(size as u64, align as u64, gfp)
}

/// Frees an allocation of [`alloc_percpu`]. A wrong name is reported, and nothing changes. Any context; needs no memory.
///
/// As a value: [`PerCpu`].
///
/// # Safety
///
/// The caller owns the memory, alone: no [`PerCpu`] holds it, and nobody uses it after the call, on any CPU. A name
/// that is wrong in itself is found and refused.
#[track_caller]
pub unsafe fn free_percpu(ptr: PerCpuPtr) {
    if let Err(error) = PERCPU.do_free(ptr) {
        refused("free_percpu", ptr.addr(), &error, Location::caller());
    }
}

/// As [`free_percpu`], but returns an error for a bad name instead of reporting it.
///
/// # Errors
///
/// [`PerCpuError::NotAllocated`]; nothing has changed then.
///
/// # Safety
///
/// As for [`free_percpu`].
pub unsafe fn try_free_percpu(ptr: PerCpuPtr) -> Result<(), PerCpuError> {
    PERCPU.do_free(ptr)
}

/// The address of a CPU's copy. Any context.
#[inline(always)]
#[must_use]
pub const fn per_cpu_ptr(ptr: PerCpuPtr, cpu: CpuId) -> VirtAddr {
    ptr.of(cpu)
}

/// The address of the copy of the CPU that executes this, which stays the same CPU as long as interrupts are masked.
#[inline(always)]
#[must_use]
pub fn this_cpu_ptr(ptr: PerCpuPtr) -> VirtAddr {
    ptr.of(cpu::current())
}

/// Amount of per-CPU memory.
#[must_use]
pub fn percpu_stats() -> PerCpuStats {
    PERCPU.stats()
}

/// Frees the unused pages of per-CPU memory. Returns their number. Any context.
pub fn percpu_trim() -> u64 {
    PERCPU.trim()
}

/// Tests every invariant of per-CPU memory. Nothing may be allocated or freed meanwhile.
///
/// # Errors
///
/// The first that does not hold.
pub fn check_percpu() -> Result<(), Broken> {
    PERCPU.check()
}

/// A value for each CPU that may ever run, all dropped and freed together.
///
/// Raw: [`alloc_percpu`], [`alloc_percpu_gfp`],
/// [`free_percpu`].
///
#[doc = concat!("```ignore\n", include_str!("../../docs/families/percpu.rs"), "```")]
///
/// # Invariants
///
/// - `PCV-1`: at `ptr`, in the unit of each possible CPU, is a value; all belong to this value alone.
pub struct PerCpu<T> {
    ptr: PerCpuPtr,
    owns: PhantomData<T>,
}

// SAFETY: PCV-1: the values belong to this value alone, on every CPU.
unsafe impl<T: Send> Send for PerCpu<T> {}
// SAFETY: PCV-1: sharing it gives shared references to the values only.
unsafe impl<T: Sync> Sync for PerCpu<T> {}

impl<T> PerCpu<T> {
    /// Makes a value for each CPU with `make`. Context as `gfp` says.
    ///
    /// # Errors
    ///
    /// [`PerCpuError`], also for a type that is larger than [`UNIT_SIZE`](crate::mm::percpu::UNIT_SIZE) or aligned to
    /// more than a page.
    #[track_caller]
    pub fn new(gfp: Gfp, mut make: impl FnMut(CpuId) -> T) -> Result<Self, PerCpuError> {
        let ptr = PERCPU.alloc(size_of::<T>().max(1) as u64, align_of::<T>() as u64, gfp)?;
        for cpu in possible_cpus() {
            // SAFETY: fresh, as large and as aligned as a value, in the unit of each CPU.
            unsafe { ptr.of(cpu).as_ptr::<T>().write(make(cpu)) };
        }
        // INVARIANT: PCV-1 by the loop.
        Ok(Self { ptr, owns: PhantomData })
    }

    /// The value of a CPU, or `None` for a CPU that this machine does not have. O(1).
    #[inline]
    #[must_use]
    pub fn get(&self, cpu: CpuId) -> Option<&T> {
        KernelPages(()).local_of(cpu)?;
        // SAFETY: PCV-1, as the CPU is possible.
        Some(unsafe { &*self.ptr.of(cpu).as_ptr::<T>() })
    }

    /// Runs `f` with the value of the CPU that executes this, and interrupts masked, so that it stays that CPU. Any
    /// context.
    #[inline]
    pub fn with_this_cpu<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        let _masked = irq::local_irq_save();
        // SAFETY: PCV-1: the CPU that executes this is a possible CPU.
        f(unsafe { &*self.ptr.of(cpu::current()).as_ptr::<T>() })
    }

    /// All values, each with its CPU (Linux: `for_each_possible_cpu`).
    pub fn iter(&self) -> impl Iterator<Item = (CpuId, &T)> {
        // SAFETY: PCV-1.
        possible_cpus().map(|cpu| (cpu, unsafe { &*self.ptr.of(cpu).as_ptr::<T>() }))
    }
}

impl<T> Drop for PerCpu<T> {
    fn drop(&mut self) {
        for cpu in possible_cpus() {
            // SAFETY: PCV-1, and not used afterwards.
            unsafe { self.ptr.of(cpu).as_ptr::<T>().drop_in_place() };
        }
        // SAFETY: PCV-1: the memory is this value's alone, and its contents are dropped. A bad pointer is reported.
        unsafe { free_percpu(self.ptr) };
    }
}

impl<T: fmt::Debug> fmt::Debug for PerCpu<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(cpu, value)| (cpu.get(), value))).finish()
    }
}
