//! Devices and kernel memory that drivers give to processes: the clock of `virt`, read at EL0 and by `readl`.

use super::address_space::{Process, Program, free_pages};
use core::num::NonZeroU64;
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use quarry::addr::{PAGE_SIZE, PhysAddr, UserAddr, VirtAddr};
use quarry::gfp::Gfp;
use quarry::global::{self, IoMem, UserError};
use quarry::hal::prot::MemoryType;
use quarry::ktest;
use quarry::mm::layout::phys_to_virt;
use quarry::mm::page::Page;
use quarry::mm::user::SpaceFault;
use quarry::mm::user::map::{
    Advice, Backing, FilePage, MapError, MmapRequest, MremapRequest, NewArea, NoFilePage, ObjectId, Objects, Place,
    VmFlags,
};
use spin::Once;

/// The PL031 of `virt`: register 0 is the time in seconds.
const RTC: PhysAddr = PhysAddr::new(0x901_0000);
/// Bytes of memory of the second driver.
const BUFFER: usize = 5 * 4096;

const READ: VmFlags = VmFlags::READ;
const SHARED: VmFlags = VmFlags::READ.union(VmFlags::WRITE).union(VmFlags::SHARED);

const fn object(number: u64) -> ObjectId {
    match NonZeroU64::new(number) {
        Some(number) => ObjectId(number),
        None => unreachable!(),
    }
}

/// The clock's registers.
const CLOCK: ObjectId = object(1);
/// Memory of vmalloc.
const MEMORY: ObjectId = object(2);
/// Memory of vmalloc that is not for processes.
const SECRET: ObjectId = object(3);
/// Registers, said to be of another type.
const WRONG: ObjectId = object(4);
/// Pages that are put in one by one.
const PAGES: ObjectId = object(5);
/// What the pages of a driver begin with that sleeps in each fault. Two of them; the third is asked for and not given.
pub(super) const SLOW: u32 = 6;

/// Drivers, and what they have.
struct Drivers {
    memory: VirtAddr,
    secret: VirtAddr,
    slow: Page,
    areas: AtomicI32,
    opened: AtomicI32,
}

static DRIVERS: Once<Drivers> = Once::new();

/// The clock's driver.
static CLOCK_REGISTERS: Once<IoMem> = Once::new();

/// The file table of this kernel.
struct Files;

impl Objects for Files {
    fn mmap(&self, object: ObjectId, area: &mut NewArea) -> Result<(), MapError> {
        let drivers = DRIVERS.get().ok_or(MapError::File(19))?;
        match object {
            CLOCK => {
                area.flags -= VmFlags::MAYWRITE;
                area.flags |= VmFlags::HOOKS;
                // SAFETY: the page has the registers of the clock alone, which may be read; the drivers stay for good.
                unsafe { global::vm_iomap_memory(area, clock()) }
            }
            // SAFETY: made by `vmalloc_user`, and kept until no process is left that could map it.
            MEMORY => unsafe { global::remap_vmalloc_range(area, drivers.memory) },
            // SAFETY: it is refused.
            SECRET => unsafe { global::remap_vmalloc_range(area, drivers.secret) },
            WRONG => {
                // SAFETY: it is refused: the frame is RAM.
                unsafe { area.vm_iomap_memory(PhysAddr::new(0x4020_0000), PAGE_SIZE, MemoryType::DeviceNGnRE) }
            }
            PAGES => {
                area.flags |= VmFlags::MIXEDMAP;
                Ok(())
            }
            object if object.0.get() == u64::from(SLOW) => Ok(()),
            // ENODEV
            _ => Err(MapError::File(19)),
        }
    }

    fn fault(&self, object: ObjectId, index: u64, _: Gfp) -> Result<FilePage, NoFilePage> {
        if object.0.get() != u64::from(SLOW) {
            return Err(NoFilePage::NothingThere);
        }
        let page = super::run_user::sleep_in_fault(drivers().slow);
        // SAFETY: the page stays for good, and holds a number that anybody may read.
        if index < 2 { Ok(unsafe { FilePage::new(page) }) } else { Err(NoFilePage::NothingThere) }
    }

    fn get(&self, _: ObjectId) {
        if let Some(drivers) = DRIVERS.get() {
            drivers.areas.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn put(&self, _: ObjectId) {
        if let Some(drivers) = DRIVERS.get() {
            drivers.areas.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn opened(&self, _: ObjectId, _: quarry::addr::UserRange) {
        if let Some(drivers) = DRIVERS.get() {
            drivers.opened.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn closed(&self, _: ObjectId, _: quarry::addr::UserRange) {
        if let Some(drivers) = DRIVERS.get() {
            drivers.opened.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn drivers() -> &'static Drivers {
    DRIVERS.call_once(|| {
        global::user_init(&Files).expect("processes");
        let memory = VirtAddr::of(global::vmalloc_user(BUFFER).expect("memory").as_ptr());
        let secret = VirtAddr::of(global::vmalloc(BUFFER).expect("memory").as_ptr());
        let slow = global::alloc_page(Gfp::KERNEL.union(Gfp::ZERO)).expect("memory");
        let first = phys_to_virt(global::page_to_phys(slow)).expect("RAM").as_ptr::<u32>();
        // SAFETY: the first word of a page that is nobody else's yet.
        unsafe { first.write(SLOW) };
        Drivers { memory, secret, slow, areas: AtomicI32::new(0), opened: AtomicI32::new(0) }
    })
}

fn clock() -> &'static IoMem {
    CLOCK_REGISTERS.call_once(|| {
        // SAFETY: the clock is nobody else's, and reading it has no effect.
        unsafe { IoMem::new(RTC, PAGE_SIZE, MemoryType::DeviceNGnRE) }.expect("the clock of virt")
    })
}

fn map(process: &Process, object: ObjectId, pages: u64, flags: VmFlags) -> Result<UserAddr, MapError> {
    process.space.mmap(&MmapRequest {
        backing: Backing::File(object),
        flags,
        ..MmapRequest::anonymous(pages * PAGE_SIZE, flags)
    })
}

/// Maps the driver that sleeps.
pub(super) fn map_slow(process: &Process, pages: u64) -> Result<UserAddr, MapError> {
    drivers();
    map(process, object(u64::from(SLOW)), pages + 1, READ)
}

fn counts() -> (i32, i32) {
    let drivers = drivers();
    (drivers.areas.load(Ordering::Relaxed), drivers.opened.load(Ordering::Relaxed))
}

/// What the process reads in the word at `at`.
fn peek(process: &Process, at: UserAddr) -> Result<u64, SpaceFault> {
    process.run(Program::Peek, [at.get(), 0, 0])
}

// The clock at EL0 and by readl; promise 9; behaviours 405 and 424 for a device
ktest!(a_process_reads_the_clock_of_the_machine_through_its_driver, machine a72 = "", machine max = "cpu=max");
fn a_process_reads_the_clock_of_the_machine_through_its_driver() {
    drivers();
    let clock = clock();
    let seconds = || u64::from(clock.readl(0).expect("a register"));
    let process = Process::new();
    let free = free_pages();
    let at = map(&process, CLOCK, 1, READ | VmFlags::SHARED).expect("a driver that maps its registers");
    let agrees = |process: &Process, at: UserAddr| {
        let before = seconds();
        let found = peek(process, at).expect("mapped");
        assert!((before..=seconds()).contains(&found), "{found} at EL0, and {before} before it");
        assert!(found > 1_600_000_000, "{found} seconds since 1970");
    };
    agrees(&process, at);
    let found = process.space.pages().tables().translate(VirtAddr::new(at.get())).expect("mapped");
    assert_eq!((found.phys, found.leaf.prot.memory()), (RTC, MemoryType::DeviceNGnRE));
    assert_eq!(counts(), (1, 1));
    // It may not be written to, nor executed, nor become so.
    assert_eq!(process.run(Program::Touch, [at.get(), 1, 0]), Err(SpaceFault::Denied(at)));
    for access in [VmFlags::WRITE, VmFlags::EXEC] {
        assert!(matches!(process.space.mprotect(at, PAGE_SIZE, READ | access), Err(MapError::Access(_))));
    }
    assert!(matches!(map(&process, CLOCK, 1, SHARED), Err(MapError::Access(_))), "the driver refuses writers");
    assert_eq!(map(&process, CLOCK, 2, READ | VmFlags::SHARED), Err(MapError::File(22)), "more than there is");
    assert_eq!(map(&process, WRONG, 1, READ | VmFlags::SHARED), Err(MapError::File(22)), "RAM is no device");
    assert_eq!(counts(), (1, 1));
    // Parked and back: the type stays.
    process.space.mprotect(at, PAGE_SIZE, VmFlags::empty()).expect("mapped");
    assert_eq!(peek(&process, at), Err(SpaceFault::Denied(at)));
    process.space.mprotect(at, PAGE_SIZE, READ).expect("mapped");
    agrees(&process, at);
    // A child has it, and at another address too.
    let child = process.fork().expect("memory");
    agrees(&child, at);
    assert_eq!(counts(), (2, 2));
    let to = UserAddr::new(0x2000_0000);
    let moved = MremapRequest { addr: at, old_size: PAGE_SIZE, new_size: PAGE_SIZE, may_move: true, to: Some(to) };
    assert_eq!(child.space.mremap(&moved), Ok(to));
    agrees(&child, to);
    agrees(&process, at);
    assert_eq!(child.space.madvise(to, PAGE_SIZE, Advice::DontNeed).map_err(MapError::errno), Err(22));
    let found = child.space.pages().tables().translate(VirtAddr::new(to.get())).expect("mapped");
    assert_eq!((found.phys, found.leaf.prot.memory()), (RTC, MemoryType::DeviceNGnRE));
    child.space.check().expect("sound");
    drop(child);
    process.space.munmap(at, PAGE_SIZE).expect("mapped");
    assert_eq!(peek(&process, at), Err(SpaceFault::NotMapped(at)));
    assert_eq!(counts(), (0, 0));
    process.space.check().expect("sound");
    // In place of other memory, which goes.
    let at = process.mmap(3, VmFlags::READ | VmFlags::WRITE);
    process.touch(at, 3, 7);
    let middle = UserAddr::new(at.get() + PAGE_SIZE);
    let over =
        MmapRequest { backing: Backing::File(CLOCK), ..MmapRequest::anonymous(PAGE_SIZE, READ | VmFlags::SHARED) };
    assert_eq!(process.space.mmap(&over.at(Place::Fixed(middle))), Ok(middle));
    agrees(&process, middle);
    assert_eq!(process.sum(at, 1), 7);
    process.space.check().expect("sound");
    process.space.munmap(at, 3 * PAGE_SIZE).expect("mapped");
    assert_eq!(counts(), (0, 0));
    assert_eq!(process.space.trim(), 3, "tables that are kept for what is mapped next");
    assert_eq!(free_pages(), free, "and no frame of the device among what is free");
    agrees_in_the_kernel(clock);
}

/// The kernel's own mapping is as it was.
fn agrees_in_the_kernel(clock: &IoMem) {
    assert!(clock.readl(0).is_ok_and(|seconds| seconds > 1_600_000_000));
}

ktest!(a_driver_shares_memory_of_vmalloc_with_processes);
fn a_driver_shares_memory_of_vmalloc_with_processes() {
    let memory = drivers().memory;
    let words = |page: u64| VirtAddr::new(memory.get() + page * PAGE_SIZE).as_ptr::<AtomicU64>();
    // SAFETY: memory of `vmalloc_user`, mapped for good, that is accessed atomically.
    let word = |page: u64| unsafe { &*words(page) };
    let process = Process::new();
    let at = map(&process, MEMORY, 5, SHARED).expect("a driver that shares its memory");
    assert_eq!(process.touch(at, 5, 11), 0, "zeros, as the driver left it");
    assert!((0..5).all(|page| word(page).load(Ordering::Relaxed) == 11), "the kernel sees what the process wrote");
    word(2).store(40, Ordering::Relaxed);
    let child = process.fork().expect("memory");
    assert_eq!(child.sum(at, 5), 84, "and the processes what the kernel wrote");
    child.touch(at, 1, 5);
    assert_eq!((process.sum(at, 5), word(0).load(Ordering::Relaxed)), (78, 5), "shared with the child, too");
    assert_eq!(process.space.usage().mapped, 5 * PAGE_SIZE);
    // From an offset; and refused beyond the end, or where it is not for processes.
    let request = MmapRequest {
        backing: Backing::File(MEMORY),
        offset: 2 * PAGE_SIZE,
        ..MmapRequest::anonymous(3 * PAGE_SIZE, SHARED)
    };
    let part = process.space.mmap(&request).expect("inside");
    assert_eq!(process.sum(part, 1), 40);
    assert_eq!(process.space.mmap(&MmapRequest { size: 4 * PAGE_SIZE, ..request }), Err(MapError::File(22)));
    assert_eq!(map(&process, SECRET, 1, READ), Err(MapError::File(22)));
    assert!(
        matches!(map(&process, MEMORY, 1, READ | VmFlags::WRITE), Err(MapError::Access(_))),
        "private and writable"
    );
    process.space.check().expect("sound");
    drop((child, process));
    assert!(counts().0 == 0 && word(1).load(Ordering::Relaxed) == 11, "the driver's memory is still its own");
}

/// The page allocator's name for a page that the test has.
fn page_of(at: VirtAddr) -> Page {
    global::virt_to_page(at).expect("a page of RAM")
}

ktest!(a_page_of_a_driver_stays_until_the_last_process_has_let_go_of_it);
fn a_page_of_a_driver_stays_until_the_last_process_has_let_go_of_it() {
    drivers();
    let process = Process::new();
    let free = free_pages();
    let at = map(&process, PAGES, 4, SHARED).expect("memory");
    assert_eq!(peek(&process, at), Err(SpaceFault::NothingThere(at)), "nothing is put in yet");
    let page = global::alloc_page(Gfp::KERNEL | Gfp::ZERO).expect("memory");
    let insert = |at: UserAddr, page| {
        // SAFETY: the page is the test's own, and zeros; or the call is refused.
        unsafe { process.space.insert_page(at, page) }
    };
    let third = UserAddr::new(at.get() + 2 * PAGE_SIZE);
    insert(third, page).expect("nothing is there");
    assert!(matches!(insert(third, page), Err(MapError::Exists(_))));
    assert_eq!(insert(UserAddr::new(at.get() + 8), page), Err(MapError::Unaligned(at.get() + 8)));
    assert!(matches!(insert(super::address_space::CODE, page), Err(MapError::WrongKind(_))));
    let object = global::kzalloc(64, Gfp::KERNEL).expect("memory");
    assert_eq!(insert(at, page_of(VirtAddr::of(object.as_ptr()))), Err(MapError::File(22)), "a slab's page");
    // SAFETY: allocated above, and used no more.
    unsafe { global::kfree(object) };
    assert_eq!(process.touch(third, 1, 77), 0);
    let child = process.fork().expect("memory");
    assert_eq!(global::page_count(page), 3);
    // SAFETY: the test's own reference; what the processes have keeps the page.
    unsafe { global::free_pages(page, quarry::addr::Order::ZERO) };
    assert_eq!(child.sum(third, 1), 77);
    process.space.munmap(at, 4 * PAGE_SIZE).expect("mapped");
    assert_eq!(child.sum(third, 1), 77);
    drop(child);
    assert_eq!(process.space.trim(), 3, "tables that are kept for what is mapped next");
    assert_eq!(free_pages(), free, "the last one freed it");
}

ktest!(files_and_devices_are_named_once);
fn files_and_devices_are_named_once() {
    let process = Process::new();
    let at = {
        drivers();
        map(&process, CLOCK, 1, READ | VmFlags::SHARED).expect("a driver that maps its registers")
    };
    assert_eq!(global::user_init(&Files), Err(UserError::ObjectsSettled), "the areas are the first owner's");
    process.space.munmap(at, PAGE_SIZE).expect("mapped");
    assert_eq!(counts(), (0, 0), "which hears of their end");
}

// A machine of its own, on which nobody names any.
ktest!(what_is_mapped_by_name_settles_that_there_are_no_files, machine = "smp=2 mem=96M");
fn what_is_mapped_by_name_settles_that_there_are_no_files() {
    let process = Process::new();
    let no_device = Err(MapError::File(19));
    assert_eq!(map(&process, CLOCK, 1, READ | VmFlags::SHARED), no_device);
    assert_eq!(global::user_init(&Files), Err(UserError::ObjectsSettled), "an area may have an object of nobody's");
    assert_eq!(map(&process, CLOCK, 1, READ | VmFlags::SHARED), no_device);
}
