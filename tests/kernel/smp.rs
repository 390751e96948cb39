//! Several CPUs at once on the machine itself: what the simulated one shows with threads, here with CPUs that have TLBs,
//! interrupts and a memory order of their own.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use quarry::addr::{Address, CpuId, Order, PAGE_SIZE, VirtAddr, to_usize};
use quarry::arch::aarch64::{cpu, probe};
use quarry::gfp::Gfp;
use quarry::global::{self, KmemCache};
use quarry::hal::prot::Prot;
use quarry::kernel::cpus;
use quarry::ktest;
use quarry::mm::slab::{CacheSpec, SlabFlags};
use quarry::mm::vmalloc::VmFlags;

/// xorshift64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    pub(crate) fn index(&mut self, bound: usize) -> usize {
        to_usize(self.below(bound as u64))
    }

    pub(crate) fn order(&mut self, bound: u64) -> Order {
        Order::new(u8::try_from(self.below(bound)).expect("small")).expect("an order")
    }
}

/// A few numbers that one context puts and another takes, be it a handler: no lock.
pub(crate) struct Mailbox([AtomicU64; 32]);

impl Mailbox {
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 32])
    }

    /// Whether there was room.
    pub(crate) fn put(&self, number: u64) -> bool {
        self.0.iter().any(|slot| slot.compare_exchange(0, number, Ordering::Release, Ordering::Relaxed).is_ok())
    }

    pub(crate) fn take(&self) -> Option<u64> {
        self.0.iter().map(|slot| slot.swap(0, Ordering::Acquire)).find(|number| *number != 0)
    }
}

/// An object that says in its first word how large it is and which byte fills the rest.
pub(crate) struct Object(NonNull<u64>);

// SAFETY: the object is its holder's alone.
unsafe impl Send for Object {}

impl Object {
    pub(crate) fn new(size: usize, content: u64, gfp: Gfp) -> Option<Self> {
        let [byte, ..] = content.to_le_bytes();
        let object = global::kmalloc(size, gfp).ok()?;
        // SAFETY: as many bytes have just been allocated.
        unsafe { object.write_bytes(byte, size) };
        let object = object.cast::<u64>();
        // SAFETY: objects are aligned to words, and this one has two at least.
        unsafe { object.write((size as u64) << 8 | u64::from(byte)) };
        Some(Self(object))
    }

    pub(crate) fn into_raw(self) -> u64 {
        self.0.as_ptr().expose_provenance() as u64
    }

    pub(crate) fn from_raw(raw: u64) -> Self {
        Self(NonNull::new(VirtAddr::new(raw).as_ptr()).expect("an object"))
    }

    /// Looks whether it still holds what it held, and frees it.
    pub(crate) fn free(self) {
        // SAFETY: the object is this one's.
        let word = unsafe { self.0.read() };
        let (size, [byte, ..]) = (to_usize(word >> 8), word.to_le_bytes());
        assert!((16..=4096).contains(&size), "object {:?} says {word:#x}", self.0);
        // By words: most of what a storm executes is this.
        // SAFETY: as large as it was made.
        let words = unsafe { core::slice::from_raw_parts(self.0.as_ptr(), size / 8) };
        let end = self.0.cast::<u8>().as_ptr().wrapping_add(size / 8 * 8);
        // SAFETY: the bytes behind the last whole word, as large as it was made.
        let rest = unsafe { core::slice::from_raw_parts(end, size % 8) };
        let is_whole = words.iter().skip(1).all(|found| *found == u64::from_ne_bytes([byte; 8]))
            && rest.iter().all(|found| *found == byte);
        assert!(is_whole, "object {:?} of {size} bytes, of {byte:#x}", self.0);
        // SAFETY: nobody else has it.
        unsafe { global::kfree(self.0) };
    }
}

/// A cache that comes and goes while others allocate.
pub(crate) fn make_use_and_destroy_a_cache(size: u32) {
    let spec = CacheSpec { name: "passing", size, align: 0, flags: SlabFlags::NO_MERGE, constructor: None };
    let cache = KmemCache::create(&spec).expect("a cache");
    let objects = [0; 50].map(|_| cache.alloc(Gfp::KERNEL).expect("memory"));
    cache.shrink();
    for object in objects {
        // SAFETY: this function's own.
        unsafe { cache.free(object) };
    }
    cache.destroy().map_err(|(_, left)| left).expect("nothing is in use");
}

fn check() {
    global::slab_allocator().shrink_all();
    global::vmap_space().purge_all();
    global::drain_all_pages();
    global::page_allocator().check().expect("the page allocator keeps its invariants");
    global::slab_allocator().check().expect("the slab allocator keeps its invariants");
    global::vmap_space().check().expect("the areas keep their invariants");
}

/// Returns when all of `count` contexts have come here.
fn meet(place: &AtomicU32, count: u32) {
    place.fetch_add(1, Ordering::AcqRel);
    while place.load(Ordering::Acquire) < count {
        cpu::relax();
    }
}

// Behaviour 477: each CPU allocates half, and frees the half of the next.
ktest!(
    every_cpu_frees_what_another_has_allocated,
    machine four = "smp=4",
    machine four_counted = "smp=4 icount",
    machine raspi4b = "board=raspi4b serial=1 dtb=tests/data/dtb/boards/bcm2711-rpi-4-b.dtb.gz",
    timeout = 60,
);
fn every_cpu_frees_what_another_has_allocated() {
    const EACH: usize = 200;
    static BLOCKS: [[AtomicU64; EACH]; 4] = [const { [const { AtomicU64::new(0) }; EACH] }; 4];
    check();
    let before = global::nr_free_pages();
    for _ in 0..10 {
        let place = AtomicU32::new(0);
        cpus::run_everywhere(&|cpu: CpuId| {
            let own = BLOCKS.get(cpu.get() as usize).expect("four CPUs");
            for (number, block) in own.iter().enumerate() {
                let order = Order::new(if number % 16 == 0 { 3 } else { 0 }).expect("an order");
                let page = global::alloc_pages(Gfp::KERNEL, order).expect("memory");
                block.store(global::page_address(page).get(), Ordering::Relaxed);
            }
            meet(&place, 4);
            let next = BLOCKS.get((cpu.get() as usize + 1) % 4).expect("four CPUs");
            for (number, block) in next.iter().enumerate() {
                let order = Order::new(if number % 16 == 0 { 3 } else { 0 }).expect("an order");
                raw!(global::try_free_pages(VirtAddr::new(block.load(Ordering::Relaxed)), order)).expect("allocated");
            }
        });
        check();
        assert_eq!(global::nr_free_pages(), before);
    }
}

// Behaviours 104, 479: CPUs race for the last pages; what is lost meanwhile is on lists, and comes back.
ktest!(cpus_race_for_the_last_pages, machine four = "smp=4 mem=64M", timeout = 60);
fn cpus_race_for_the_last_pages() {
    check();
    let before = global::nr_free_pages();
    let taken = AtomicUsize::new(0);
    let place = AtomicU32::new(0);
    cpus::run_everywhere(&|_| {
        let (mut first, mut count) = (VirtAddr::ZERO, 0);
        while let Ok(page) = global::alloc_page(Gfp::NOWAIT | Gfp::NOWARN) {
            let addr = global::page_address(page);
            // SAFETY: the page has just been allocated; each keeps the one before.
            unsafe { addr.as_ptr::<u64>().write(first.get()) };
            (first, count) = (addr, count + 1);
        }
        taken.fetch_add(count, Ordering::Relaxed);
        meet(&place, 4);
        while first != VirtAddr::ZERO {
            // SAFETY: written above.
            let next = unsafe { first.as_ptr::<u64>().read() };
            raw!(global::try_free_page(first)).expect("allocated above");
            first = VirtAddr::new(next);
        }
    });
    check();
    assert_eq!(global::nr_free_pages(), before);
    let taken = taken.into_inner() as u64;
    assert!(taken > before * 3 / 4 && taken <= before, "{taken} of {before} pages");
}

// Behaviour 485: while one CPU unmaps, frees and fills again, the others read through the old address and never see the
// new content: promise 3.
ktest!(
    no_cpu_reads_new_content_through_an_old_address,
    machine four = "smp=4",
    machine raspi4b = "board=raspi4b serial=1 dtb=tests/data/dtb/boards/bcm2711-rpi-4-b.dtb.gz",
    timeout = 60,
);
fn no_cpu_reads_new_content_through_an_old_address() {
    const OLD: u64 = 0x0101_0101_0101_0101;
    const NEW: u64 = 0x0e0e_0e0e_0e0e_0e0e;
    let place = AtomicU64::new(0);
    let (done, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    cpus::run_everywhere(&|cpu: CpuId| {
        if cpu != CpuId::BOOT {
            while !done.load(Ordering::Acquire) {
                let addr = place.load(Ordering::Acquire);
                if addr != 0
                    && let Some(found) = probe::load_u64(VirtAddr::new(addr))
                {
                    assert_ne!(found, NEW, "{addr:#x} leads to its page's next owner");
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            }
            return;
        }
        for _ in 0..2_000 {
            let page = global::alloc_page(Gfp::KERNEL).expect("memory");
            let linear = global::page_address(page).as_ptr::<u64>();
            // SAFETY: the page is this test's.
            unsafe { linear.write_volatile(OLD) };
            let addr = global::vmap(&[page], VmFlags::empty(), Prot::KERNEL_RW).expect("room").at();
            place.store(addr.get(), Ordering::Release);
            let seen = reads.load(Ordering::Relaxed);
            for _ in 0..200 {
                if reads.load(Ordering::Relaxed) != seen {
                    break;
                }
                cpu::relax();
            }
            raw!(global::try_vunmap(addr)).expect("mapped above");
            // SAFETY: the page is still this test's, and mapped in the linear map alone.
            unsafe { linear.write_volatile(NEW) };
            raw!(global::try_free_page(page)).expect("allocated above");
        }
        done.store(true, Ordering::Release);
    });
    assert!(reads.into_inner() > 0, "the others read");
    check();
}

// Behaviour 486
ktest!(caches_come_and_go_while_others_allocate, machine four = "smp=4", timeout = 60);
fn caches_come_and_go_while_others_allocate() {
    let working = AtomicU32::new(3);
    cpus::run_everywhere(&|cpu: CpuId| {
        if cpu == CpuId::BOOT {
            let mut times = 0;
            while working.load(Ordering::Acquire) != 0 {
                make_use_and_destroy_a_cache(24 + times % 20 * 16);
                times += 1;
            }
            assert!(times > 0);
            return;
        }
        let mut random = Random(u64::from(cpu.get()) + 7);
        for round in 0..20_000_u64 {
            let size = 16 + random.index(500);
            Object::new(size, round, Gfp::KERNEL).expect("memory").free();
        }
        working.fetch_sub(1, Ordering::Release);
    });
    check();
}

// Behaviour 484: several CPUs allocate and free areas, each other's too.
ktest!(areas_travel_between_cpus, machine four = "smp=4", timeout = 60);
fn areas_travel_between_cpus() {
    static AREAS: Mailbox = Mailbox::new();
    cpus::run_everywhere(&|cpu: CpuId| {
        let mut random = Random(u64::from(cpu.get()) + 11);
        for _ in 0..300 {
            let area = global::vmalloc(to_usize((1 + random.below(12)) * PAGE_SIZE)).expect("memory").at();
            // SAFETY: the area's first word.
            unsafe { area.as_ptr::<u64>().write(area.get()) };
            let taken = AREAS.take();
            if !AREAS.put(area.get()) {
                raw!(global::try_vfree(area)).expect("allocated above");
            }
            if let Some(other) = taken.map(VirtAddr::new) {
                // SAFETY: an area that somebody gave away.
                assert_eq!(unsafe { other.as_ptr::<u64>().read() }, other.get());
                raw!(global::try_vfree(other)).expect("somebody allocated it");
            }
        }
    });
    while let Some(area) = AREAS.take() {
        raw!(global::try_vfree(VirtAddr::new(area))).expect("somebody allocated it");
    }
    check();
}
