//! Per-CPU data of the kernel, the possible CPUs, and which of them are online.

use super::machine::{linear_offset, machine};
use super::static_percpu;
use crate::addr::{CpuId, PAGE_SHIFT, PAGE_SIZE, VirtAddr, VirtRange, to_usize};
use crate::arch::aarch64::cpu::{self, MAX_CPUS, Relax};
use crate::arch::aarch64::held_locks;
use crate::arch::aarch64::irq::{self, IrqFlags};
use crate::hal::cpu::{Interrupts, PerCpu, with_local};
use crate::hal::patience::elapsed;
use crate::mm::layout::{PAGE_DESCRIPTOR_SIZE, VMEMMAP_START};
use crate::mm::page::Vmemmap;
use crate::mm::slab::{ArrayHeader, CpuSlabs, KMALLOC_SIZES, MAX_CACHES};
use crate::mm::zone::CpuPages;
use crate::sync::{self, OrderedLock, RunningThread, Scopes, Sleeper, class};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// Freed stacks that a CPU keeps for the next thread (Linux: `NR_CACHED_STACKS`).
pub const KEPT_STACKS: usize = 2;

/// Bits of an address that form its page's number: the top byte, where a memory tag may be, is not among them.
pub(super) const NUMBERED: u64 = (1 << 56) - (1 << PAGE_SHIFT);

/// Where the descriptor of the page at address zero would lie: the sum wraps, and comes out right for addresses of the linear
/// map, with any tag.
pub(super) fn descriptor_of_zero() -> u64 {
    VMEMMAP_START.wrapping_sub(((linear_offset() & NUMBERED) >> PAGE_SHIFT).wrapping_mul(PAGE_DESCRIPTOR_SIZE))
}

/// This machine.
const HERE: KernelPages = KernelPages(());

/// The headers of the arrays of the first caches.
pub(super) type FirstArrays = [ArrayHeader; KMALLOC_SIZES as usize];
/// The headers of the arrays of all other caches.
pub(super) type OtherArrays = [ArrayHeader; MAX_CACHES - KMALLOC_SIZES as usize];

/// The stacks that a CPU keeps, by the address of each. All-zero is a CPU that keeps none.
#[derive(Debug)]
pub(super) struct KeptStacks([AtomicU64; KEPT_STACKS]);

impl KeptStacks {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; KEPT_STACKS])
    }

    /// Caller must be this CPU with interrupts masked, or act for an offline CPU.
    pub(super) fn take(&self) -> Option<VirtAddr> {
        let kept = self.0.iter().find(|kept| kept.load(Ordering::Relaxed) != 0)?;
        Some(VirtAddr::new(kept.swap(0, Ordering::Relaxed)))
    }

    /// Caller must be this CPU with interrupts masked. Returns whether there was room.
    pub(super) fn keep(&self, start: VirtAddr) -> bool {
        let free = self.0.iter().find(|kept| kept.load(Ordering::Relaxed) == 0);
        free.map(|kept| kept.store(start.get(), Ordering::Relaxed)).is_some()
    }
}

/// Scopes that a CPU of this kernel can be in. FIQ is masked for good in this kernel, so that its bit is in every saved mask.
pub(super) type KernelScopes = Scopes<{ IrqFlags::MASKED }, { IrqFlags::FIQ_MASKED }>;

/// Per-CPU data. All-zero is a valid value: a CPU that has no pages and may wait. `scopes` and `thread` belong to a thread, and
/// are here while it runs.
#[derive(Debug)]
#[repr(C)]
pub struct CpuLocal {
    /// First: two words that one instruction loads.
    pub(super) slab: CpuSlabs,
    /// The arrays of the first caches, those of `kmalloc` without special flags.
    pub(super) first_arrays: FirstArrays,
    pub(super) map: Vmemmap,
    /// Scopes that this CPU is in.
    pub(super) scopes: KernelScopes,
    /// Distance from the static variables to this CPU's copies; 0 if it has none.
    pub(super) statics: AtomicU64,
    /// Here, so that the lists of single pages, and all before them, lie at small offsets from the address in the register.
    pub(super) pages: CpuPages,
    /// The arrays of all others.
    pub(super) arrays: OtherArrays,
    /// Stacks for the next threads.
    pub(super) stacks: KeptStacks,
    /// The thread that this CPU runs.
    pub(super) thread: RunningThread,
    /// Whether it sleeps.
    pub(super) asleep: AtomicBool,
}

impl CpuLocal {
    #[expect(clippy::large_stack_arrays, reason = "constant, for a static")]
    const fn new() -> Self {
        Self {
            slab: CpuSlabs::new(),
            first_arrays: [const { ArrayHeader::new() }; _],
            map: Vmemmap::NONE,
            scopes: Scopes::new(),
            statics: AtomicU64::new(0),
            pages: CpuPages::new(),
            arrays: [const { ArrayHeader::new() }; _],
            stacks: KeptStacks::new(),
            thread: RunningThread::new(),
            asleep: AtomicBool::new(false),
        }
    }
}

/// Data of a CPU that has not been set up yet.
static NOTHING: CpuLocal = CpuLocal::new();

/// The data of each CPU, or null.
///
/// - `LOCAL-1`: a pointer that is not null points to a [`CpuLocal`] that is never freed.
static LOCALS: [AtomicPtr<CpuLocal>; MAX_CPUS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CPUS];
/// One past the highest CPU number that has data.
static CPUS: AtomicU32 = AtomicU32::new(0);

/// This machine, as the page allocator sees it.
#[derive(Clone, Copy, Debug)]
pub struct KernelPages(pub(super) ());

impl Interrupts for KernelPages {
    type Saved = IrqFlags;

    #[inline(always)]
    fn save(&self) -> IrqFlags {
        irq::local_irq_save_flags()
    }

    #[inline(always)]
    fn restore(&self, saved: IrqFlags) {
        irq::local_irq_restore_flags(saved);
    }
}

impl PerCpu for KernelPages {
    type Local = CpuLocal;

    #[inline(always)]
    fn local(&self) -> &CpuLocal {
        let local = cpu::local().as_ptr::<CpuLocal>();
        // SAFETY: `start_cpu` or `give_cpu` has put a pointer there that is good for ever (LOCAL-1).
        unsafe { &*local }
    }

    fn local_of(&self, cpu: CpuId) -> Option<&CpuLocal> {
        let local = LOCALS.get(to_usize(u64::from(cpu.get())))?.load(Ordering::Acquire);
        // SAFETY: LOCAL-1.
        (!local.is_null()).then(|| unsafe { &*local })
    }

    fn cpu(&self) -> CpuId {
        cpu::current()
    }

    fn cpus(&self) -> u32 {
        CPUS.load(Ordering::Relaxed)
    }

    fn is_online(&self, cpu: CpuId) -> bool {
        // Acquire pairs with the release in `set_online`: the CPU's last changes to its data are visible.
        ONLINE.get(to_usize(u64::from(cpu.get()))).is_some_and(|online| online.load(Ordering::Acquire))
    }

    fn while_offline(&self, cpu: CpuId, work: &mut dyn FnMut()) -> bool {
        let saved = self.save();
        let coming_and_going = COMING_AND_GOING.lock();
        let offline = !self.is_online(cpu);
        if offline {
            work();
        }
        drop(coming_and_going);
        self.restore(saved);
        offline
    }

    fn kick(&self, cpu: CpuId) {
        // A kernel that cannot interrupt another CPU relies on each CPU to answer by itself: docs/embedding.md.
        let _ = machine().kick(cpu);
    }

    fn waiting_for(&self, cpu: CpuId, step: u64) {
        let now = machine().ticks();
        let is_late = with_local(self, |local| {
            let is_late = step != 0 && elapsed(local.thread.waiting_since(), now) > machine().ticks_per_second();
            if step == 0 || is_late {
                local.thread.waits_since(now);
            }
            is_late
        });
        if is_late {
            machine().no_answer(cpu);
        }
    }
}

/// Which CPUs run the kernel.
static ONLINE: [AtomicBool; MAX_CPUS] = [const { AtomicBool::new(false) }; MAX_CPUS];
/// Held while a CPU goes online or offline, and while another one uses the data of an offline CPU; interrupts masked.
static COMING_AND_GOING: OrderedLock<(), class::ComingAndGoing, Relax> = OrderedLock::new(());

/// The CPU that executes this. Any context.
#[must_use]
pub fn this_cpu() -> CpuId {
    cpu::current()
}

/// Whether a CPU runs the kernel. Any context.
#[must_use]
pub fn is_online(cpu: CpuId) -> bool {
    HERE.is_online(cpu)
}

/// The CPUs that run the kernel, this one among them. Any context.
pub fn online_cpus() -> impl Iterator<Item = CpuId> {
    (0..HERE.cpus()).map(CpuId::new).filter(|cpu| is_online(*cpu))
}

impl Sleeper for KernelPages {
    fn set_asleep(&self, asleep: bool) {
        with_local(self, |local| local.asleep.store(asleep, Ordering::SeqCst));
    }

    fn others_are_awake(&self) -> bool {
        let here = cpu::current();
        let others = online_cpus().filter(|cpu| *cpu != here).filter_map(|cpu| self.local_of(cpu));
        others.into_iter().any(|local| !local.asleep.load(Ordering::SeqCst))
    }

    fn send_event(&self) {
        cpu::send_event();
    }

    fn wait_for_event(&self) {
        cpu::wait_for_event();
    }
}

/// Runs `sleep`, in which this CPU sleeps until an interrupt: meanwhile it counts as one that frees no memory.
pub fn asleep(sleep: impl FnOnce()) {
    sync::rest(&HERE, sleep);
}

/// The background has work to do.
pub(super) fn rouse() {
    machine().rouse();
}

/// The CPUs that may run the kernel: those that have data (Linux: `for_each_possible_cpu`). Any context.
pub fn possible_cpus() -> impl Iterator<Item = CpuId> {
    (0..HERE.cpus()).map(CpuId::new).filter(|cpu| HERE.local_of(*cpu).is_some())
}

/// This CPU uses the data that [`bring_up`](super::bring_up()) gave it from here on, and is online: another CPU asks it for its
/// pages or objects. Returns whether it has data. Call it on a CPU that starts, interrupts masked, before it allocates
/// anything; it must call [`answer_requests`](super::answer_requests) next.
///
/// # Safety
///
/// This CPU has just started, with interrupts masked, in the state that [`bring_up`](super::bring_up()) requires; no other CPU
/// is still using the data that it left the last time.
pub unsafe fn bring_cpu_online() -> bool {
    let cpu = cpu::current();
    let Some(local) = HERE.local_of(cpu) else { return false };
    cpu::set_local(VirtAddr::of(local));
    set_online(cpu, true);
    true
}

/// This CPU goes offline: other CPUs may take its pages and objects, and it does not touch them again. Interrupts masked, for
/// good.
///
/// # Safety
///
/// Interrupts are masked and stay so, and this CPU calls nothing of this crate any more that takes memory: others use
/// its data from here on.
pub unsafe fn take_cpu_offline() {
    set_online(cpu::current(), false);
}

fn set_online(cpu: CpuId, online: bool) {
    let saved = HERE.save();
    let coming_and_going = COMING_AND_GOING.lock();
    if let Some(place) = ONLINE.get(to_usize(u64::from(cpu.get()))) {
        // Release pairs with the acquire in `is_online`.
        place.store(online, Ordering::Release);
    }
    drop(coming_and_going);
    HERE.restore(saved);
}

/// Lets the boot CPU run the functions of this module, which refuse everything until there is memory. Before the first of
/// them.
///
/// # Safety
///
/// The boot CPU is the only one that runs, and has called nothing of this module yet.
pub unsafe fn start_cpu() {
    cpu::set_local(VirtAddr::of(&raw const NOTHING));
    set_online(CpuId::BOOT, true);
}

/// Bytes of a CPU's data in front of its copies of static variables.
const LOCAL: u64 = size_of::<CpuLocal>() as u64;

/// Bytes of a CPU's data, its copies of static variables included.
#[must_use]
pub fn cpu_local_used() -> u64 {
    LOCAL + static_percpu::bytes_behind(LOCAL)
}

/// Bytes, a multiple of the page size, that a CPU's data take.
#[must_use]
pub fn cpu_local_size() -> u64 {
    cpu_local_used().next_multiple_of(PAGE_SIZE)
}

/// [`start_cpu`] on a CPU whose number is not set yet.
///
/// # Safety
///
/// As for [`start_cpu`].
pub(super) unsafe fn start_boot_cpu() {
    cpu::set_current(CpuId::BOOT);
    // SAFETY: this function's `# Safety` is that of `start_cpu`.
    unsafe { start_cpu() };
}

/// Gives a CPU its data. If it is this CPU, the CPU uses them from here on.
///
/// # Safety
///
/// `place` is [`cpu_local_used`] zeroed bytes, page aligned, mapped read-write for good and used by nobody else. `map` is
/// the one of this machine. Called once a CPU, before pages are handed over, with interrupts masked.
pub(crate) unsafe fn give_cpu(cpu: CpuId, place: VirtAddr, map: Vmemmap) {
    let local = place.as_ptr::<CpuLocal>();
    // SAFETY: by this function's `# Safety`, `place` has room for the data, page aligned, and is nobody else's.
    let field = unsafe { &raw mut (*local).map };
    // SAFETY: a field of the data at `place`, which nobody else uses yet.
    unsafe { field.write(map) };
    // SAFETY: the data at `place`, zeroed and mapped for good; the fields are atomics, for which zero is valid.
    let data = unsafe { &*local };
    data.slab.descriptors.store(descriptor_of_zero(), Ordering::Relaxed);
    // SAFETY: by this function's `# Safety`, `place` has `cpu_local_used` bytes, and so those behind the data.
    let statics = unsafe { static_percpu::copy_template(cpu, place, LOCAL) };
    data.statics.store(statics, Ordering::Relaxed);
    let Some(slot) = LOCALS.get(to_usize(u64::from(cpu.get()))) else { return };
    // INVARIANT: LOCAL-1: zeroes are a valid value of all other fields. Release pairs with the acquire in `local_of`.
    slot.store(local, Ordering::Release);
    CPUS.fetch_max(cpu.get() + 1, Ordering::Relaxed);
    if cpu == cpu::current() {
        cpu::set_local(place);
    }
}

/// The data of every CPU that has some.
pub fn cpu_locals() -> impl Iterator<Item = VirtRange> {
    let places = LOCALS.iter().map(|slot| VirtAddr::of(slot.load(Ordering::Acquire)));
    places.filter(|place| *place != VirtAddr::ZERO).filter_map(|place| VirtRange::from_size(place, cpu_local_size()))
}

/// Booting is over: from now on an allocation that may wait is reported on this CPU if interrupts are masked.
pub fn forbid_waiting_in_atomic(forbid: bool) {
    with_local(&HERE, |local| local.scopes.enforce(forbid));
    held_locks::enforce_lock_order(forbid);
}
