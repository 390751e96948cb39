//! Interrupt storms: on every CPU the timer interrupts every few thousand instructions, and its handler allocates and
//! frees, while the CPUs run the stress suites of pages, slab and vmalloc against each other.
//!
//! Memory that one CPU allocates is freed by another one or a handler: addresses travel in mailboxes of atomics, which a
//! handler can use wherever it comes. Everything that is allocated holds a pattern that is looked at before it is freed.
#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use crate::smp::{Mailbox, Object, Random, make_use_and_destroy_a_cache};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use quarry::addr::{Address, CpuId, Order, PAGE_SIZE, Pfn, VirtAddr, to_usize};
use quarry::arch::aarch64::cpu;
use quarry::driver::timer;
use quarry::gfp::{Gfp, ZoneType};
use quarry::global;
use quarry::hal::wait::{Context, Scope};
use quarry::kernel::{cpus, tick};
use quarry::ktest;
use quarry::mm::page::{Kind, Page, PageMap};
use quarry::mm::vmalloc::VmFlags;
use quarry::mm::zone::PageHal;

const CPUS: usize = 8;
/// Interrupts that each CPU has at least in a round.
const ENOUGH: u64 = 200;

/// Blocks of pages that await their free on each CPU.
static PAGES: [Mailbox; CPUS] = [const { Mailbox::new() }; CPUS];
/// Objects that do.
static OBJECTS: [Mailbox; CPUS] = [const { Mailbox::new() }; CPUS];
/// Areas that do.
static AREAS: [Mailbox; CPUS] = [const { Mailbox::new() }; CPUS];
/// Random numbers of each CPU's handler.
static DRAWS: [AtomicU64; CPUS] = [const { AtomicU64::new(0) }; CPUS];
/// For each page whether somebody has it.
static USED: AtomicU64 = AtomicU64::new(0);
static FIRST_PFN: AtomicU64 = AtomicU64::new(0);
static FRAMES: AtomicU64 = AtomicU64::new(0);

fn of(mail: &'static [Mailbox; CPUS], cpu: CpuId) -> &'static Mailbox {
    mail.get(cpu.get() as usize).expect("eight CPUs at most")
}

/// The bits of `count` pages from `page` on must all be the other way round, and are turned.
fn turn(page: Page, order: Order, used: bool) {
    let bits = VirtAddr::new(USED.load(Ordering::Relaxed)).as_ptr::<AtomicBool>();
    let first = global::page_to_pfn(page).get() - FIRST_PFN.load(Ordering::Relaxed);
    for index in first..first + order.pages() {
        let bit = VirtAddr::new(VirtAddr::of(bits).get() + index).as_ptr::<AtomicBool>();
        // SAFETY: there is a byte for each frame of RAM, zeroed at first, until everybody has finished.
        let bit = unsafe { bit.as_ref() }.expect("a byte");
        assert_eq!(bit.swap(used, Ordering::AcqRel), !used, "page {index} of order {} has two owners", order.get());
    }
}

fn take_block(gfp: Gfp, order: Order) -> Option<u64> {
    let page = global::alloc_pages(gfp | Gfp::NOWARN, order).ok()?;
    turn(page, order, true);
    Some(global::page_address(page).get() | u64::from(order.get()))
}

fn free_block(block: u64) {
    let (addr, order) = (VirtAddr::new(block & !0xfff), Order::new(block.to_le_bytes()[0] & 0xf).expect("an order"));
    turn(global::virt_to_page(addr).expect("a page"), order, false);
    raw!(global::try_free_pages(addr, order)).expect("it was allocated");
}

/// An area that says in its first word how large it is, and holds a word of its own at the start of each page.
fn take_area(gfp: Gfp, pages: u64) -> Option<u64> {
    let start = global::vmalloc_gfp(to_usize(pages * PAGE_SIZE), gfp | Gfp::NOWARN).ok()?.at();
    for page in 0..pages {
        // SAFETY: inside the area that was just allocated.
        unsafe {
            VirtAddr::new(start.get() + page * PAGE_SIZE).as_ptr::<u64>().write(start.get() ^ page ^ pages << 56)
        };
    }
    Some(start.get())
}

fn free_area(start: u64) {
    let word = |page: u64| {
        // SAFETY: the area is there until it is freed, below.
        unsafe { VirtAddr::new(start + page * PAGE_SIZE).as_ptr::<u64>().read() }
    };
    let pages = (word(0) ^ start) >> 56;
    assert!((1..=64).contains(&pages), "{start:#x} says that it has {pages} pages");
    for page in 0..pages {
        assert_eq!(word(page), start ^ page ^ pages << 56, "page {page} of the area at {start:#x}");
    }
    raw!(global::try_vfree(VirtAddr::new(start))).expect("it was allocated");
}

/// Work of a handler: it allocates, frees, and frees the memory that others have sent.
fn each() {
    assert!(global::context().is_inside(Scope::Interrupt), "the context says where it is");
    let cpu = cpu::current();
    let draw = DRAWS.get(cpu.get() as usize).expect("eight CPUs at most");
    let mut random = Random(draw.load(Ordering::Relaxed) | 1);
    match random.below(4) {
        0 => {
            let order = random.order(4);
            if let Some(block) = take_block(Gfp::ATOMIC, order)
                && !of(&PAGES, cpu).put(block)
            {
                free_block(block);
            }
            of(&PAGES, cpu).take().into_iter().for_each(free_block);
        }
        1 | 2 => {
            let size = 16 + random.index(600);
            if let Some(object) = Object::new(size, cpu.get().into(), Gfp::ATOMIC).map(Object::into_raw)
                && !of(&OBJECTS, cpu).put(object)
            {
                Object::from_raw(object).free();
            }
            of(&OBJECTS, cpu).take().into_iter().for_each(|raw| Object::from_raw(raw).free());
        }
        _ => {
            if let Some(area) = take_area(Gfp::ATOMIC, 1 + random.below(3))
                && !of(&AREAS, cpu).put(area)
            {
                free_area(area);
            }
            of(&AREAS, cpu).take().into_iter().for_each(free_area);
        }
    }
    draw.store(random.0, Ordering::Relaxed);
}

/// Memory in use, with all caches drained. Not included: pages of slabs, as how many hold as many objects depends on where
/// those lie; and tables and descriptors of areas, which stay for the next ones.
#[derive(PartialEq, Eq, Default, Debug)]
pub(crate) struct Balance {
    objects: u64,
    areas: usize,
    /// Pages of areas and stacks.
    area_pages: u64,
    /// Pages of blocks that nobody has claimed, and of large blocks of kmalloc.
    blocks: u64,
    /// Pages on lists of CPUs.
    listed: u64,
    /// Pages of processes.
    user: u64,
}

/// Afterwards there are as many of each as counted. After [`note_frames`].
pub(crate) fn balance() -> Balance {
    let (slabs, space, pages) = (global::slab_allocator(), global::vmap_space(), global::page_allocator());
    cpus::run_everywhere(&|_| global::drain_kernel_stacks());
    global::idle();
    slabs.shrink_all();
    space.purge_all();
    global::percpu_trim();
    global::drain_all_pages();
    // Those under construction are never complete: addresses that stay for `vm_map_ram`, registers of the kernel's own.
    let in_use = space.iter().filter(|area| !area.flags.contains(VmFlags::UNINITIALIZED));
    let mut balance = Balance { areas: in_use.count(), ..Balance::default() };
    let counted = slabs.for_each(|cache| {
        if cache.name() != "vmap_area" {
            balance.objects += slabs.info(cache).active_objects;
        }
    });
    assert!(counted.is_ok(), "not in atomic context");
    let first = FIRST_PFN.load(Ordering::Relaxed);
    for page in (first..first + FRAMES.load(Ordering::Relaxed)).filter_map(|pfn| global::pfn_to_page(Pfn::new(pfn))) {
        let Ok((head, state)) = pages.head(page) else { continue };
        let count = state.order().pages();
        match state.kind() {
            _ if head != page => {}
            Kind::Vmalloc if pages.hal().map().get(head).owner() != 0 => balance.area_pages += count,
            Kind::Block | Kind::LargeKmalloc => balance.blocks += count,
            Kind::Pcp => balance.listed += count,
            Kind::User => balance.user += count,
            _ => {}
        }
    }
    balance
}

/// Notes which frames there are: how many.
pub(crate) fn note_frames() -> u64 {
    let memblock = global::memblock();
    let regions = memblock.memory().regions();
    let (first, last) = (regions.first().expect("RAM"), regions.last().expect("RAM"));
    let start = first.range.start().get();
    let frames = (last.range.end().get() - start) / PAGE_SIZE;
    FIRST_PFN.store(start / PAGE_SIZE, Ordering::Relaxed);
    FRAMES.store(frames, Ordering::Relaxed);
    frames
}

/// Runs `work` on all CPUs in a storm, and looks afterwards whether everything is where it was.
fn in_a_storm(work: impl Fn(CpuId, &mut Random) + Sync) {
    let frames = note_frames();
    let used = global::vzalloc(to_usize(frames)).expect("memory").at();
    USED.store(used.get(), Ordering::Relaxed);
    for (draw, seed) in DRAWS.iter().zip(1_u64..) {
        draw.store(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), Ordering::Relaxed);
    }
    let before = balance();
    round(&work, 1);
    assert_eq!(balance(), before, "what is in use");
    let ticks = round(&work, 2);
    assert_eq!(balance(), before, "what is in use");
    raw!(global::try_vfree(used)).expect("allocated above");
    quarry::kprintln!("storm: {ticks} interrupts");
}

fn round(work: &(impl Fn(CpuId, &mut Random) + Sync), seed: u64) -> u64 {
    // Under `-icount` some 3,000 instructions of each CPU, since the clock counts those of all; as many at the speed of a fast
    // translator otherwise. With fewer the handlers of four CPUs leave next to nothing for the work.
    let cpus = global::online_cpus().count() as u64;
    tick::start(cpus * timer::frequency() / 300_000, each).expect("the timer is free");
    cpus::run_everywhere(&|cpu: CpuId| {
        let mut random = Random((seed << 32 | u64::from(cpu.get())).wrapping_mul(0xd1b5_4a32_d192_ed03) | 1);
        // Without `-icount` it is the host that says how often the timer comes while so much is done.
        while tick::count(cpu) < ENOUGH {
            work(cpu, &mut random);
        }
    });
    let ticks = global::online_cpus().map(tick::count);
    let (least, sum) = ticks.fold((u64::MAX, 0), |(least, sum), count| (least.min(count), sum + count));
    tick::stop().expect("it runs");
    assert!(least >= ENOUGH, "a CPU had {least} interrupts: that is no storm");
    for cpu in global::online_cpus() {
        while let Some(block) = of(&PAGES, cpu).take() {
            free_block(block);
        }
        while let Some(raw) = of(&OBJECTS, cpu).take() {
            Object::from_raw(raw).free();
        }
        while let Some(area) = of(&AREAS, cpu).take() {
            free_area(area);
        }
    }
    let pages = global::page_allocator();
    balance();
    pages.check().expect("the page allocator keeps its invariants");
    global::slab_allocator().check().expect("the slab allocator keeps its invariants");
    global::vmap_space().check().expect("the areas keep their invariants");
    global::kernel_tables().expect("the final tables").check().expect("the tables keep their invariants");
    for kind in [ZoneType::Dma, ZoneType::Dma32, ZoneType::Normal] {
        let Some(traffic) = pages.traffic(kind) else { continue };
        let Some(zone) = pages.zone(kind) else { continue };
        assert!(traffic.allocated >= traffic.freed, "{kind:?}: {} pages in use at most", zone.managed - zone.free);
    }
    sum
}

/// The blocks that a CPU holds: a row that needs no memory.
struct ArrayVec([u64; 64], usize);

impl ArrayVec {
    fn is_full(&self) -> bool {
        self.1 == self.0.len()
    }

    fn push(&mut self, block: u64) {
        *self.0.get_mut(self.1).expect("room") = block;
        self.1 += 1;
    }

    fn take_any(&mut self, random: &mut Random) -> Option<u64> {
        self.1 = self.1.checked_sub(1)?;
        let place = random.index(self.1 + 1);
        self.0.swap(place, self.1);
        self.0.get(self.1).copied()
    }
}

/// A CPU that runs, which may be the sender.
fn anybody(random: &mut Random) -> CpuId {
    let count = global::online_cpus().count();
    global::online_cpus().nth(random.index(count)).expect("a CPU")
}

/// Registers a storm on every machine that interrupts otherwise.
macro_rules! on_stormy_machines {
    ($name:ident) => {
        ktest!(
            $name,
            machine one = "alone",
            machine one_counted = "icount",
            machine four = "smp=4",
            machine four_counted = "smp=4 icount gic=3",
            machine four_max = "smp=4 cpu=max gic=3",
            machine raspi4b = "board=raspi4b serial=1 dtb=tests/data/dtb/boards/bcm2711-rpi-4-b.dtb.gz",
            timeout = 120,
        );
    };
}

// Behaviours 104, 106, 142, 476, 477: the suite of tests/host/pages/stress.rs.
on_stormy_machines!(pages_in_a_storm);
fn pages_in_a_storm() {
    const FLAGS: [Gfp; 6] = [
        Gfp::ATOMIC,
        Gfp::NOWAIT,
        Gfp::KERNEL,
        Gfp::HIGHUSER_MOVABLE,
        Gfp::KERNEL.union(Gfp::COMP),
        Gfp::NOWAIT.union(Gfp::RECLAIMABLE).union(Gfp::DMA),
    ];
    in_a_storm(|cpu, random| {
        let mut held = ArrayVec([0; 64], 0);
        for _ in 0..3_000 {
            match random.below(16) {
                0..=7 if !held.is_full() => {
                    let bound = if random.below(4) == 0 { 11 } else { 4 };
                    let gfp = *FLAGS.get(random.index(6)).expect("six");
                    take_block(gfp, random.order(bound)).into_iter().for_each(|block| held.push(block));
                }
                8..=11 => held.take_any(random).into_iter().for_each(free_block),
                12..=13 => {
                    if let Some(block) = held.take_any(random)
                        && !of(&PAGES, anybody(random)).put(block)
                    {
                        free_block(block);
                    }
                }
                14 => of(&PAGES, cpu).take().into_iter().for_each(free_block),
                _ if random.below(64) == 0 => global::drain_all_pages(),
                _ => {}
            }
        }
        while let Some(block) = held.take_any(random) {
            free_block(block);
        }
    });
}

// Behaviours 184, 185, 477, 480, 481: the suite of tests/host/slab/stress.rs.
on_stormy_machines!(objects_in_a_storm);
fn objects_in_a_storm() {
    in_a_storm(|cpu, random| {
        let mut slots = [const { None::<Object> }; 100];
        for round in 0..4_000_u64 {
            let bound = if random.below(8) == 0 { 3_000 } else { 500 };
            let size = 16 + random.index(bound);
            let gfp = if random.below(2) == 0 { Gfp::KERNEL } else { Gfp::ATOMIC };
            let Some(made) = Object::new(size, round, gfp | Gfp::NOWARN) else { continue };
            let place = slots.get_mut(random.index(100)).expect("a hundred");
            if let Some(old) = place.replace(made) {
                // Half of them are freed by somebody else.
                let raw = old.into_raw();
                if random.below(2) == 0 || !of(&OBJECTS, anybody(random)).put(raw) {
                    Object::from_raw(raw).free();
                }
            }
            of(&OBJECTS, cpu).take().into_iter().for_each(|raw| Object::from_raw(raw).free());
            if cpu == CpuId::BOOT && round % 500 == 0 {
                make_use_and_destroy_a_cache(24 + 40 * u32::try_from(round / 500).expect("small"));
            }
        }
        slots.iter_mut().filter_map(Option::take).for_each(Object::free);
    });
}

// Behaviour 484.
on_stormy_machines!(areas_in_a_storm);
fn areas_in_a_storm() {
    in_a_storm(|cpu, random| {
        for _ in 0..400 {
            let bound = if random.below(8) == 0 { 40 } else { 5 };
            let pages = 1 + random.below(bound);
            let Some(area) = take_area(Gfp::KERNEL, pages) else { continue };
            if random.below(2) == 0 || !of(&AREAS, anybody(random)).put(area) {
                free_area(area);
            }
            of(&AREAS, cpu).take().into_iter().for_each(free_area);
            match random.below(64) {
                0 => global::vmap_space().purge_all(),
                1 => drop(global::KernelStack::new("passing").expect("memory")),
                _ => {}
            }
        }
        global::drain_kernel_stacks();
    });
}
