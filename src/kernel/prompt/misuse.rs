//! `fault`: misuses memory on purpose, so that somebody sees how it is caught. Each kind is a row of docs/misuse.md.
//!
//! A free that is refused reports itself and changes nothing. An access that faults prints the kernel's whole report and returns
//! (`kernel/provoke.rs`), where in earnest the kernel would end. The list says which kinds end it all the same.

use crate::addr::{Address as _, Order, PAGE_BYTES, PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::arch::aarch64::{boot, irq};
use crate::gfp::Gfp;
use crate::global::{self, KVec, KmemCache, Pages, SpinLock};
use crate::hal::prot::Prot;
use crate::kernel::command::Command;
use crate::kernel::machine::Machine;
use crate::kernel::provoke::{self, Wrong};
use crate::kernel::screen;
use crate::kprintln;
use crate::mm::dma::{DeviceSpec, ToDevice};
use crate::mm::slab::{CacheSpec, SlabFlags};
use crate::mm::vmalloc::VmFlags;
use crate::sync::CHECKED;
use core::ptr::NonNull;

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "fault",
    arguments: "[KIND]",
    help: "misuses memory on purpose and shows how it is caught; without a kind lists them",
    example: "fault double-free",
    words: |before, offer| {
        if before.is_empty() {
            KINDS.iter().for_each(|kind| offer(kind.name));
        }
    },
    run: fault,
}];

/// A misuse.
struct Kind {
    name: &'static str,
    about: &'static str,
    /// The machine ends with the report.
    ends: bool,
    run: fn(&Machine) -> Outcome,
}

/// The end of a misuse that has not ended the kernel.
enum Outcome {
    /// It was refused, or reported, by the call itself.
    Refused,
    /// The access faulted.
    Faulted,
    /// Nothing was noticed.
    Unnoticed,
    /// There was no memory to misuse.
    NoMemory,
}

/// A row of the table below.
const fn kind(name: &'static str, about: &'static str, run: fn(&Machine) -> Outcome) -> Kind {
    Kind { name, about, ends: false, run }
}

/// The same for one that ends the machine.
const fn ends(name: &'static str, about: &'static str, run: fn(&Machine) -> Outcome) -> Kind {
    Kind { name, about, ends: true, run }
}

const KINDS: &[Kind] = &[
    kind("double-free", "an object is freed twice", |_| double_free()),
    kind("free-inside", "a pointer into an object is freed", |_| free_inside()),
    kind("free-page-as-object", "a page is freed as an object", |_| free_page_as_object()),
    kind("free-stack", "a pointer into the stack or the image is freed", |_| free_stack()),
    kind("wrong-cache", "an object is freed to another cache", |_| wrong_cache()),
    kind("use-after-free", "an object is written to after it was freed", |_| use_after_free()),
    kind("overrun", "bytes behind an object are written", |_| overrun(64)),
    kind("underrun", "bytes before an object are written", |_| overrun(-1)),
    kind("leak", "a cache is destroyed with objects in use", |_| leak()),
    kind("page-double-free", "a page is freed twice", |_| page_double_free()),
    kind("page-wrong-order", "a block is freed with another order", |_| page_wrong_order()),
    kind("page-inside", "a page inside a block, or the tail of a compound one, is freed", |_| page_inside()),
    kind("page-of-image", "memory of the kernel's image is freed", page_of_image),
    kind("page-no-ram", "an address without RAM is freed", |_| page_no_ram()),
    kind("area-double-free", "an area is freed twice", |_| area_double_free()),
    kind("area-inside", "an address inside an area is freed", |_| area_inside()),
    kind("area-wrong-kind", "a mapping of vmap is freed by vfree, or the other way round", |_| area_wrong_kind()),
    kind("page-of-area", "a page of an area is freed", |_| page_of_area()),
    kind("map-ram", "RAM is mapped as device memory", |_| map_ram()),
    kind("unmap-twice", "a mapping is unmapped twice", |_| unmap_nothing()),
    kind("dma-stack", "a buffer on a stack, of vmalloc, of the image or nowhere is mapped", |_| dma_stack()),
    kind("sleep-in-atomic", "an allocation may wait, with interrupts masked", |_| sleep_in_atomic()),
    kind("sleep-with-lock", "the same with a lock held", |_| sleep_with_lock()),
    kind("pool-double-free", "an element is freed twice, and lies in the reserve", |_| pool_double_free()),
    kind("null-read", "a null pointer is read", |_| access(Wrong::Load(VirtAddr::ZERO))),
    kind("null-write", "a field behind a null pointer is written", |_| access(Wrong::Store(VirtAddr::new(0x18)))),
    kind("null-call", "a null pointer is called", |_| access(Wrong::Call(VirtAddr::ZERO))),
    kind("wild-write", "a wild address is written", |_| access(Wrong::Store(VirtAddr::new(0x12_3000)))),
    kind("no-address", "an address that is no address is read", |_| access(Wrong::Load(VirtAddr::new(1 << 48)))),
    kind("text-write", "text is written", |_| access(Wrong::Store(boot::image_start()))),
    kind("constant-write", "constants are written", |_| access(Wrong::Store(boot::rodata_start()))),
    kind("constant-call", "constants are executed", |_| access(Wrong::Call(boot::rodata_start()))),
    kind("data-call", "data are executed", |_| access(Wrong::Call(boot::data_start()))),
    kind("stack-call", "the stack is executed", |_| stack_call()),
    kind("object-call", "an object is executed", |_| object_call()),
    kind("empty-object", "an allocation of no bytes is written to", |_| empty_object()),
    kind("area-overrun", "the page behind an area is written", |_| area_overrun()),
    kind("area-use-after-free", "an area is used after it was freed", |_| area_use_after_free()),
    kind("read-only-write", "a read-only mapping is written", |_| read_only_write()),
    kind("gap-write", "the gap between two regions is written", |_| {
        access(Wrong::Store(boot::image_start().checked_sub(8).unwrap_or_default()))
    }),
    kind("stack-guard", "the guard below a stack is written", |_| access(Wrong::Store(boot::boot_stack_guard()))),
    ends("stack-overflow", "a CPU's stack overflows", |_| stack_overflow()),
    ends("index", "an index lies behind its array", |_| index()),
    ends("double-lock", "a lock is taken twice by one CPU", |_| double_lock()),
];

/// Column of the misuses in the list of kinds.
const NAMES: usize = 23;

fn fault(machine: &Machine, name: &str) {
    let Some(kind) = KINDS.iter().find(|kind| kind.name == name) else {
        if !name.is_empty() {
            kprintln!("no kind {name:?}; there are:");
        }
        return screen::list(machine, |f| {
            KINDS.iter().try_for_each(|kind| {
                let end = if kind.ends { "(the machine ends)" } else { "" };
                screen::row(
                    format_args!("  {}", kind.name),
                    NAMES,
                    [kind.about, end].get(..1 + usize::from(kind.ends)).unwrap_or_default(),
                    f,
                )
            })
        });
    };
    kprintln!("{}: {}", kind.name, kind.about);
    match (kind.run)(machine) {
        Outcome::Refused => kprintln!("{}: caught, and nothing has changed", kind.name),
        Outcome::Faulted => kprintln!("{}: caught; the access was given up, and the prompt goes on", kind.name),
        Outcome::Unnoticed => kprintln!("{}: not caught on this machine", kind.name),
        Outcome::NoMemory => kprintln!("{}: no memory to misuse", kind.name),
    }
}

/// Accesses memory that cannot be accessed so.
fn access(wrong: Wrong) -> Outcome {
    // SAFETY: the kinds in this file, which alone call this, name memory that is not mapped, or not for such an access: it faults.
    match unsafe { provoke::access(wrong) } {
        true => Outcome::Faulted,
        false => Outcome::Unnoticed,
    }
}

/// A free that the allocator refuses, reports, and does not do.
macro_rules! refused {
    ($call:expr) => {
        // SAFETY: it is nobody's, or not freed so: the allocator finds that out, and changes nothing.
        unsafe { $call }
    };
}

/// A free of memory that this file has allocated and does not use afterwards.
macro_rules! freed {
    ($call:expr) => {
        // SAFETY: allocated by the caller, freed once, not used afterwards.
        unsafe { $call }
    };
}

fn object() -> Option<NonNull<u8>> {
    global::kmalloc(64, Gfp::KERNEL).ok()
}

/// A cache of its own, so that no other object is near.
fn cache(flags: SlabFlags) -> Option<KmemCache> {
    let flags = flags | SlabFlags::NO_MERGE;
    KmemCache::create(&CacheSpec { name: "misused", size: 64, align: 0, flags, constructor: None }).ok()
}

/// Destroys a cache in which nothing is in use.
fn destroy(cache: KmemCache) -> Outcome {
    match cache.destroy() {
        Ok(()) => Outcome::Refused,
        Err((_, error)) => {
            kprintln!("{error}");
            Outcome::Unnoticed
        }
    }
}

fn double_free() -> Outcome {
    let Some(object) = object() else { return Outcome::NoMemory };
    freed!(global::kfree(object.as_ptr()));
    refused!(global::kfree(object.as_ptr()));
    Outcome::Refused
}

fn free_inside() -> Outcome {
    let Some(object) = object() else { return Outcome::NoMemory };
    refused!(global::kfree(object.as_ptr().wrapping_add(8)));
    freed!(global::kfree(object.as_ptr()));
    Outcome::Refused
}

fn free_page_as_object() -> Outcome {
    let Ok(page) = Pages::new(Gfp::KERNEL, Order::ZERO) else { return Outcome::NoMemory };
    refused!(global::kfree(page.address().as_ptr::<u8>()));
    Outcome::Refused
}

fn free_stack() -> Outcome {
    let mut here = 0_u64;
    refused!(global::kfree(&raw mut here));
    Outcome::Refused
}

fn wrong_cache() -> Outcome {
    let Some(cache) = cache(SlabFlags::empty()) else { return Outcome::NoMemory };
    if let Some(object) = object() {
        refused!(cache.free(object.as_ptr()));
        freed!(global::kfree(object.as_ptr()));
    }
    destroy(cache)
}

fn use_after_free() -> Outcome {
    let Some(cache) = cache(SlabFlags::DEBUG) else { return Outcome::NoMemory };
    if let Ok(object) = cache.alloc(Gfp::KERNEL) {
        freed!(cache.free(object.as_ptr()));
        write(object, 50);
        cache.validate();
    }
    destroy(cache)
}

fn overrun(at: isize) -> Outcome {
    let Some(cache) = cache(SlabFlags::DEBUG) else { return Outcome::NoMemory };
    if let Ok(object) = cache.alloc(Gfp::KERNEL) {
        write(object, at);
        freed!(cache.free(object.as_ptr()));
    }
    destroy(cache)
}

/// Writes a byte of an object of a debugged cache, or of its red zone.
fn write(object: NonNull<u8>, at: isize) {
    // SAFETY: the byte is inside of the object's slot, which belongs to a cache that this file alone has.
    unsafe { object.as_ptr().wrapping_offset(at).write_volatile(0x78) };
}

fn leak() -> Outcome {
    let Some(cache) = cache(SlabFlags::STORE_USER) else { return Outcome::NoMemory };
    let Ok(object) = cache.alloc(Gfp::KERNEL) else { return destroy(cache) };
    match cache.destroy() {
        Ok(()) => Outcome::Unnoticed,
        Err((cache, _)) => {
            freed!(cache.free(object.as_ptr()));
            destroy(cache)
        }
    }
}

fn page_double_free() -> Outcome {
    let Ok(page) = global::alloc_page(Gfp::KERNEL) else { return Outcome::NoMemory };
    freed!(global::free_page(page));
    refused!(global::free_page(page));
    Outcome::Refused
}

/// A block of four pages.
fn block() -> Option<Pages> {
    Order::new(2).and_then(|order| Pages::new(Gfp::KERNEL, order).ok())
}

fn page_wrong_order() -> Outcome {
    let Some(block) = block() else { return Outcome::NoMemory };
    refused!(global::free_pages(block.page(), Order::ZERO));
    Outcome::Refused
}

fn page_inside() -> Outcome {
    let Some(block) = block() else { return Outcome::NoMemory };
    refused!(global::free_page(VirtAddr::new(block.address().get() + PAGE_SIZE)));
    Outcome::Refused
}

fn page_of_image(machine: &Machine) -> Outcome {
    let Some(page) = global::pfn_to_page(Pfn::containing(machine.boot.image_range().start())) else {
        return Outcome::NoMemory;
    };
    refused!(global::free_page(page));
    Outcome::Refused
}

fn page_no_ram() -> Outcome {
    // The first frame: no board has RAM there that the kernel may free.
    let Some(first) = global::phys_to_virt(PhysAddr::new(0)) else { return Outcome::NoMemory };
    refused!(global::free_page(first));
    Outcome::Refused
}

fn area() -> Option<VirtAddr> {
    global::vmalloc(4 * PAGE_BYTES).ok().map(|area| area.at())
}

fn area_double_free() -> Outcome {
    let Some(area) = area() else { return Outcome::NoMemory };
    freed!(global::vfree(area));
    refused!(global::vfree(area));
    Outcome::Refused
}

fn area_inside() -> Outcome {
    let Some(area) = area() else { return Outcome::NoMemory };
    refused!(global::vfree(VirtAddr::new(area.get() + PAGE_SIZE)));
    freed!(global::vfree(area));
    Outcome::Refused
}

fn area_wrong_kind() -> Outcome {
    let Some(area) = area() else { return Outcome::NoMemory };
    refused!(global::vunmap(area));
    freed!(global::vfree(area));
    Outcome::Refused
}

fn page_of_area() -> Outcome {
    let Some(area) = area() else { return Outcome::NoMemory };
    if let Some(page) = global::vmalloc_to_page(area) {
        refused!(global::free_page(page));
    }
    freed!(global::vfree(area));
    Outcome::Refused
}

fn map_ram() -> Outcome {
    let Ok(page) = Pages::new(Gfp::KERNEL, Order::ZERO) else { return Outcome::NoMemory };
    match global::ioremap(global::page_to_phys(page.page()), PAGE_SIZE) {
        Err(error) => {
            kprintln!("{error}");
            Outcome::Refused
        }
        Ok(_) => Outcome::Unnoticed,
    }
}

fn unmap_nothing() -> Outcome {
    let Some(area) = area() else { return Outcome::NoMemory };
    freed!(global::vfree(area));
    refused!(global::iounmap(area));
    Outcome::Refused
}

fn dma_stack() -> Outcome {
    let device = global::dma_device(&DeviceSpec::new("misuser"));
    let here = 0_u64;
    match refused!(global::dma_map_single::<ToDevice>(&device, VirtAddr::of(&raw const here), 8)) {
        Err(error) => {
            kprintln!("{error}");
            Outcome::Refused
        }
        Ok(_) => Outcome::Unnoticed,
    }
}

fn sleep_in_atomic() -> Outcome {
    let _masked = irq::local_irq_save();
    drop(Pages::new(Gfp::KERNEL, Order::ZERO));
    Outcome::Refused
}

fn sleep_with_lock() -> Outcome {
    static LOCK: SpinLock<()> = global::spin_lock(());
    let held = LOCK.lock();
    drop(Pages::new(Gfp::KERNEL, Order::ZERO));
    drop(held);
    Outcome::Refused
}

fn pool_double_free() -> Outcome {
    let Ok(pool) = global::mempool_create_kmalloc_pool("misused", 2, 128) else { return Outcome::NoMemory };
    if let Some(element) = global::mempool_alloc_preallocated(&pool) {
        freed!(global::mempool_free(element, &pool));
        refused!(global::mempool_free(element, &pool));
    }
    match global::mempool_destroy(pool) {
        Ok(()) => Outcome::Refused,
        Err((_, error)) => {
            kprintln!("{error}");
            Outcome::Unnoticed
        }
    }
}

fn stack_call() -> Outcome {
    let here = 0_u64;
    access(Wrong::Call(VirtAddr::of(&raw const here)))
}

fn object_call() -> Outcome {
    let Ok(object) = KVec::<u64>::with_capacity(8, Gfp::KERNEL) else { return Outcome::NoMemory };
    access(Wrong::Call(VirtAddr::of(object.as_slice().as_ptr())))
}

fn empty_object() -> Outcome {
    match global::kmalloc(0, Gfp::KERNEL) {
        Ok(nothing) => access(Wrong::Store(VirtAddr::of(nothing.as_ptr()).align_down(8))),
        Err(_) => Outcome::NoMemory,
    }
}

fn area_overrun() -> Outcome {
    let Some(area) = area() else { return Outcome::NoMemory };
    let outcome = access(Wrong::Store(VirtAddr::new(area.get() + 4 * PAGE_SIZE)));
    freed!(global::vfree(area));
    outcome
}

fn area_use_after_free() -> Outcome {
    let Some(area) = area() else { return Outcome::NoMemory };
    freed!(global::vfree(area));
    global::vmap_space().purge_all();
    access(Wrong::Store(area))
}

fn read_only_write() -> Outcome {
    let Ok(page) = Pages::new(Gfp::KERNEL, Order::ZERO) else { return Outcome::NoMemory };
    let Ok(mapping) = global::vmap(&[page.page()], VmFlags::empty(), Prot::KERNEL_RO).map(|mapping| mapping.at())
    else {
        return Outcome::NoMemory;
    };
    let outcome = access(Wrong::Store(mapping));
    freed!(global::vunmap(mapping));
    outcome
}

fn stack_overflow() -> Outcome {
    core::hint::black_box(recurse(0));
    Outcome::Unnoticed
}

/// Runs through the stack, frame by frame; the sum keeps it from becoming a loop.
#[inline(never)]
#[expect(unconditional_recursion, reason = "it ends where the stack does")]
fn recurse(depth: u64) -> u64 {
    let frame = core::hint::black_box([depth; 32]);
    recurse(depth + 1) + frame.iter().sum::<u64>()
}

fn index() -> Outcome {
    let array = core::hint::black_box([0_u8; 4]);
    #[expect(clippy::indexing_slicing, reason = "it panics, which the person at the prompt wants to see")]
    core::hint::black_box(array[core::hint::black_box(4)]);
    Outcome::Unnoticed
}

fn double_lock() -> Outcome {
    static LOCK: SpinLock<()> = global::spin_lock(());
    if !CHECKED {
        kprintln!("this build does not check locks, and would wait for ever");
        return Outcome::Unnoticed;
    }
    let first = LOCK.lock();
    drop(LOCK.lock());
    drop(first);
    Outcome::Unnoticed
}
