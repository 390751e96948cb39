//! `record`: a stress on all CPUs, and what the machine looks like meanwhile, as lines of JSON for `make report`.
//!
//! Each line is an object that begins with `"record"`; docs/report.md has the members. The figures are the allocators' own, read
//! while the other CPUs work.
#![forbid(unsafe_code)]

use super::bootargs::parse_number;
use super::command::{Command, no_words};
use super::cpus;
use super::json::Object;
use crate::addr::{CpuId, MAX_ORDER, Order, PAGE_SIZE, to_usize};
use crate::arch::aarch64::cpu::MAX_CPUS;
use crate::driver::timer;
use crate::gfp::{Gfp, ZoneType};
use crate::global::{self, KVec, Pages, VVec};
use crate::hal::patience::elapsed;
use crate::kprintln;
use crate::mm::layout;
use crate::mm::page::{Kind, PAGEBLOCK_ORDER, PageMap};
use crate::mm::zone::PageHal;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "record",
    arguments: "[ROUNDS]",
    help: "a stress on all CPUs, recorded as lines of JSON for make report",
    example: "record 8",
    words: no_words,
    run: |_, rest| command(rest),
}];

/// Rounds of the stress where no number is given, and at most.
const ROUNDS: u64 = 48;
const MAX_ROUNDS: u64 = 1000;
/// Calls of each CPU in a round.
const CALLS: u64 = 400;
/// Allocations that each CPU holds at most.
const HELD: usize = 640;
/// Classes of a call's duration: class `n` is less than 2^n ticks of the counter.
const CLASSES: usize = 32;

/// The ways to allocate that are measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Kmalloc,
    Pages,
    Vmalloc,
}

impl How {
    const ALL: [Self; 3] = [Self::Kmalloc, Self::Pages, Self::Vmalloc];

    const fn name(self) -> &'static str {
        match self {
            Self::Kmalloc => "kmalloc",
            Self::Pages => "pages",
            Self::Vmalloc => "vmalloc",
        }
    }
}

/// Memory that the stress holds; dropped, it is freed.
#[expect(dead_code, reason = "held, and freed by being dropped")]
enum Held {
    Small(KVec<u8>),
    Pages(Pages),
    Large(VVec<u8>),
}

/// The figures of a CPU.
struct Figures {
    allocs: [AtomicU64; How::ALL.len()],
    refused: AtomicU64,
    frees: AtomicU64,
    /// Ticks in calls.
    busy: AtomicU64,
    /// Ticks from its first round to its last.
    took: AtomicU64,
    classes: [[AtomicU64; CLASSES]; How::ALL.len()],
}

static FIGURES: [Figures; MAX_CPUS] = [const {
    Figures {
        allocs: [const { AtomicU64::new(0) }; How::ALL.len()],
        refused: AtomicU64::new(0),
        frees: AtomicU64::new(0),
        busy: AtomicU64::new(0),
        took: AtomicU64::new(0),
        classes: [const { [const { AtomicU64::new(0) }; CLASSES] }; How::ALL.len()],
    }
}; MAX_CPUS];

/// Free pages of all zones when they were fewest, by all CPUs: each looks after each of its allocations.
static FEWEST_FREE: AtomicU64 = AtomicU64::new(u64::MAX);

impl Figures {
    fn of(cpu: CpuId) -> Option<&'static Self> {
        FIGURES.get(to_usize(u64::from(cpu.get())))
    }

    fn clear(&self) {
        let single = [&self.refused, &self.frees, &self.busy, &self.took];
        for counter in single.into_iter().chain(&self.allocs).chain(self.classes.iter().flatten()) {
            counter.store(0, Ordering::Relaxed);
        }
    }

    fn allocated(&self, how: How, ticks: u64) {
        add(self.allocs.get(how as usize), 1);
        add(Some(&self.busy), ticks);
        let class = to_usize(u64::from(u64::BITS - ticks.leading_zeros())).min(CLASSES - 1);
        add(self.classes.get(how as usize).and_then(|row| row.get(class)), 1);
    }
}

fn add(counter: Option<&AtomicU64>, count: u64) {
    if let Some(counter) = counter {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// `record [ROUNDS]`.
fn command(word: &str) {
    let rounds = if word.is_empty() { Some(ROUNDS) } else { parse_number(word) };
    match rounds.filter(|rounds| (1..=MAX_ROUNDS).contains(rounds)) {
        Some(rounds) => record(rounds),
        None => kprintln!("a number of rounds, 1 to {MAX_ROUNDS}"),
    }
}

fn record(rounds: u64) {
    FIGURES.iter().for_each(Figures::clear);
    FEWEST_FREE.store(global::nr_free_pages(), Ordering::Relaxed);
    line("machine", &|line| {
        line.text("version", env!("CARGO_PKG_VERSION"))?;
        line.number("cpus", global::online_cpus().count() as u64)?;
        line.number("ticks_per_second", timer::frequency())?;
        line.number("rounds", rounds)?;
        line.number("block_bytes", PAGE_SIZE << PAGEBLOCK_ORDER)
    });
    line("address_map", &|line| {
        line.array("regions", |list| {
            layout::REGIONS.iter().try_for_each(|region| {
                list.object(|one| {
                    one.text("name", region.name)?;
                    one.text("start", region.start)?;
                    one.text("end", region.end)
                })
            })
        })
    });
    state(0);
    cpus::run_everywhere(&|cpu| stress(cpu, rounds));
    // So that pages on the CPUs' lists do not look as if they were lost.
    global::drain_all_pages();
    state(rounds + 1);
    line("peak", &|line| {
        line.number("free_pages", read(&FEWEST_FREE))?;
        line.number("all_pages", global::totalram_pages())
    });
    let listed = global::slab_allocator().for_each(|cache| {
        let info = global::slab_allocator().info(cache);
        line("cache", &|line| {
            line.text("name", cache.name())?;
            line.number("object_bytes", cache.object_size().into())?;
            line.number("active", info.active_objects)?;
            line.number("objects", info.objects)?;
            line.number("slabs", info.slabs)?;
            line.number("pages", info.pages)
        });
    });
    if let Err(error) = listed {
        kprintln!("{error}");
    }
    for how in How::ALL {
        line("latency", &|line| {
            line.text("call", how.name())?;
            line.array("classes", |list| {
                (0..CLASSES).try_for_each(|class| {
                    let count = |figures: &Figures| figures.classes.get(how as usize)?.get(class).map(read);
                    list.number(FIGURES.iter().filter_map(count).sum())
                })
            })
        });
    }
    for cpu in global::online_cpus() {
        let Some(figures) = Figures::of(cpu) else { continue };
        line("cpu", &|line| {
            line.number("cpu", cpu.get().into())?;
            How::ALL.iter().zip(&figures.allocs).try_for_each(|(how, count)| line.number(how.name(), read(count)))?;
            line.number("frees", read(&figures.frees))?;
            line.number("refused", read(&figures.refused))?;
            line.number("busy_ticks", read(&figures.busy))?;
            line.number("ticks", read(&figures.took))
        });
    }
    line("end", &|_| Ok(()));
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// The work of one CPU. The boot CPU looks at the machine after each of its rounds.
fn stress(cpu: CpuId, rounds: u64) {
    let Some(figures) = Figures::of(cpu) else { return };
    let Ok(mut held) = KVec::with_capacity(HELD, Gfp::KERNEL) else { return };
    for _ in 0..HELD {
        if held.push(None, Gfp::KERNEL).is_err() {
            return;
        }
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(cpu.get()) << 32);
    let begin = timer::ticks();
    for round in 1..=rounds {
        // More and more up to the middle, then less and less: a peak, and what is left of it.
        let height = round.min(rounds + 1 - round) * 2;
        let limit = to_usize((HELD as u64 * height / rounds).clamp(1, HELD as u64));
        for slot in held.iter_mut().skip(limit) {
            free(figures, slot);
        }
        for _ in 0..CALLS {
            let Some(slot) = held.get_mut(to_usize(random.below(limit as u64))) else { continue };
            match slot {
                Some(_) => free(figures, slot),
                None => *slot = allocate(figures, &mut random),
            }
        }
        if cpu == CpuId::BOOT {
            state(round);
        }
    }
    held.iter_mut().for_each(|slot| free(figures, slot));
    figures.took.store(elapsed(begin, timer::ticks()), Ordering::Relaxed);
}

fn free(figures: &Figures, slot: &mut Option<Held>) {
    if slot.is_some() {
        let start = timer::ticks();
        *slot = None;
        add(Some(&figures.busy), elapsed(start, timer::ticks()));
        add(Some(&figures.frees), 1);
    }
}

fn allocate(figures: &Figures, random: &mut Random) -> Option<Held> {
    let gfp = Gfp::KERNEL | Gfp::NOWARN | Gfp::NORETRY;
    let how = match random.below(10) {
        0..6 => How::Kmalloc,
        6..9 => How::Pages,
        _ => How::Vmalloc,
    };
    // Small sizes are the frequent ones.
    let (shift, fraction) = (random.below(10), random.below(8));
    let start = timer::ticks();
    let made = match how {
        How::Kmalloc => KVec::with_capacity(to_usize((8 + fraction) << shift), gfp).ok().map(Held::Small),
        How::Pages => Order::new(fraction_order(shift)).and_then(|order| Pages::new(gfp, order).ok()).map(Held::Pages),
        How::Vmalloc => {
            VVec::with_capacity(to_usize(((1 + fraction) * PAGE_SIZE) << (shift / 3)), gfp).ok().map(Held::Large)
        }
    };
    let ticks = elapsed(start, timer::ticks());
    match made {
        Some(_) => {
            figures.allocated(how, ticks);
            FEWEST_FREE.fetch_min(global::nr_free_pages(), Ordering::Relaxed);
        }
        None => add(Some(&figures.refused), 1),
    }
    made
}

/// An order for one of ten equally likely numbers.
const fn fraction_order(number: u64) -> u8 {
    match number {
        0..4 => 0,
        4..6 => 1,
        6 => 2,
        7 => 4,
        8 => 6,
        _ => 7,
    }
}

/// The state of physical memory: the kind of each block, and the free lists.
fn state(round: u64) {
    line("blocks", &|line| {
        line.number("round", round)?;
        line.number("microseconds", timer::microseconds())?;
        line.number("area_bytes", global::vmap_space().iter().map(|area| area.size()).sum())?;
        line.text("kinds", Blocks)
    });
    let mut free = 0;
    for zone in ZoneType::ALL {
        let Some(blocks) = global::page_allocator().free_blocks(zone) else { continue };
        let orders = || (0..=MAX_ORDER).filter_map(Order::new);
        free += orders().map(|order| blocks.blocks_of(order) * order.pages()).sum::<u64>();
        line("free", &|line| {
            line.number("round", round)?;
            line.text("zone", zone.name())?;
            line.array("blocks", |list| orders().try_for_each(|order| list.number(blocks.blocks_of(order))))?;
            line.array("unusable", |list| orders().try_for_each(|order| list.number(blocks.unusable_index(order))))?;
            // Linux prints -1 where a request could be served; here, 1000 more than any index.
            line.array("fragmentation", |list| {
                orders().try_for_each(|order| list.number(blocks.fragmentation_index(order).unwrap_or(2000)))
            })
        });
    }
    FEWEST_FREE.fetch_min(free, Ordering::Relaxed);
}

/// A letter for each page block that has descriptors: the kind that most of its pages are of.
struct Blocks;

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pages = global::page_allocator();
        let map = pages.hal().map();
        for section in map.sections() {
            let mut at = section.first;
            while at < section.end {
                let end = (at + (1 << PAGEBLOCK_ORDER)).min(section.end);
                write!(f, "{}", letter(most_frequent(at, end)))?;
                at = end;
            }
        }
        Ok(())
    }
}

/// The kind of most of the pages `at` to `end`, which others may change meanwhile.
fn most_frequent(mut at: u32, end: u32) -> Kind {
    let pages = global::page_allocator();
    let map = pages.hal().map();
    let mut counts = [0_u32; Kind::COUNT];
    while at < end {
        let pfn = crate::addr::Pfn::new(map.origin().get() + u64::from(at));
        let head = global::pfn_to_page(pfn).and_then(|page| pages.head(page).ok());
        let (kind, next) = match head {
            Some((head, state)) => (state.kind(), head.index().saturating_add(1 << state.order().get())),
            None => (Kind::Hole, at + 1),
        };
        let next = next.clamp(at + 1, end);
        if let Some(count) = counts.get_mut(kind as usize) {
            *count += next - at;
        }
        at = next;
    }
    let most = Kind::ALL.into_iter().max_by_key(|kind| counts.get(*kind as usize).copied());
    most.unwrap_or(Kind::Hole)
}

const fn letter(kind: Kind) -> char {
    match kind {
        Kind::Free | Kind::Pcp => '.',
        Kind::Reserved => 'r',
        Kind::Slab => 's',
        Kind::LargeKmalloc => 'k',
        Kind::Vmalloc => 'v',
        Kind::PageTable => 't',
        Kind::User => 'u',
        Kind::Dma => 'd',
        Kind::PerCpu => 'c',
        Kind::Block => 'b',
        Kind::Inside | Kind::Tail | Kind::Hole => '-',
    }
}

/// Prints one record.
fn line(record: &str, members: &dyn Fn(&mut Object<'_>) -> fmt::Result) {
    struct Line<'a>(&'a str, &'a dyn Fn(&mut Object<'_>) -> fmt::Result);
    impl fmt::Display for Line<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let mut line = Object::begin(f)?;
            line.text("record", self.0)?;
            (self.1)(&mut line)?;
            line.end()
        }
    }
    kprintln!("{}", Line(record, members));
}

/// xorshift64.
struct Random(u64);

impl Random {
    const fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
