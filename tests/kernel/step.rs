//! An interrupt at every instruction of allocating and freeing. The code is stepped through; before its k-th instruction
//! something happens that an interrupt may do at any moment, which is to allocate and free the same things on the same
//! CPU. This for every k, and from the states in which the ways through the code differ.
#![expect(clippy::indexing_slicing, reason = "a test that runs out of its own places has failed")]

use crate::interrupts::with_timer;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use quarry::addr::VirtAddr;
use quarry::arch::aarch64::irq;
use quarry::arch::aarch64::step::{Step, Then, step_through, stop_at};
use quarry::driver::gic::IntId;
use quarry::driver::timer;
use quarry::gfp::Gfp;
use quarry::global::{self, KmemCache};
use quarry::ktest;
use quarry::mm::slab::{CacheInfo, CacheSpec, SlabFlags};
use spin::mutex::SpinMutex;
use spin::once::Once;

/// Things that somebody has, by address: the caller, or the interrupt.
struct Held {
    items: [u64; 512],
    len: usize,
}

impl Held {
    const fn new() -> Self {
        Self { items: [0; 512], len: 0 }
    }

    fn push(&mut self, item: u64) {
        self.items[self.len] = item;
        self.len += 1;
    }

    fn pop(&mut self) -> u64 {
        self.len -= 1;
        self.items[self.len]
    }
}

static HELD: SpinMutex<Held> = SpinMutex::new(Held::new());

/// A way to allocate and a way to free: which must fit each other.
struct Calls {
    alloc: fn(&mut [NonNull<u8>]),
    free: fn(&[NonNull<u8>]),
    /// How many in one call.
    count: usize,
    /// Numbers of cached objects at which paths differ.
    states: &'static [usize],
    /// Call of an interrupt handler, which may not wait: one for each kind.
    handler_alloc: fn() -> u64,
    handler_free: fn(u64),
    /// Whether the caller's calls have restartable sequences; `None` if only their slow paths have.
    restarts: Option<bool>,
}

/// The thing that is allocated and freed.
trait Pool {
    /// Bytes of one that the test fills.
    const SIZE: usize;
    /// Number cached on this CPU.
    fn at_hand() -> usize;
    /// How many are in use.
    fn in_use() -> u64;
    /// Drains the cached ones, where sleeping is allowed.
    fn shrink();
    /// Drains them anywhere.
    fn drain();
    /// Tests every invariant.
    fn check();
    /// Whether an operation on so many from a state has some hundred instructions more.
    fn takes_the_long_way(operation: Operation, state: usize, count: usize) -> bool {
        if operation == Operation::Alloc { state < count } else { state + count > Self::FULL }
    }
    /// Maximum number cached.
    const FULL: usize;
    /// More than that.
    const MANY: usize;
}

/// Action of the interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Deed {
    Take,
    TakeTwo,
    Give,
    GiveTwo,
    /// The count is the same afterwards, and so is what lies on top.
    TakeAndGive,
    /// The count is the same afterwards, and something else lies on top.
    Exchange,
    /// The other way round: what lies on top is another than before.
    GiveAndTake,
    /// A number that empties all caches.
    TakeMany,
    /// So many that there is no room.
    GiveMany,
    /// What memory is at hand is drained, as another CPU may ask.
    Drain,
}

const DEEDS: [Deed; 10] = [
    Deed::Take,
    Deed::TakeTwo,
    Deed::Give,
    Deed::GiveTwo,
    Deed::TakeAndGive,
    Deed::Exchange,
    Deed::GiveAndTake,
    Deed::TakeMany,
    Deed::GiveMany,
    Deed::Drain,
];

impl Deed {
    /// Whether it goes beyond the caches: the actions that are tried in the slow paths too.
    const fn moves_much(self) -> bool {
        matches!(self, Self::TakeMany | Self::GiveMany | Self::Drain)
    }

    fn run<P: Pool>(self, calls: &Calls) {
        let mut held = HELD.lock();
        let take = |held: &mut Held, count: usize| (0..count).for_each(|_| held.push((calls.handler_alloc)()));
        let give = |held: &mut Held, count: usize| (0..count).for_each(|_| (calls.handler_free)(held.pop()));
        match self {
            Self::Take => take(&mut held, 1),
            Self::TakeTwo => take(&mut held, 2),
            Self::Give => give(&mut held, 1),
            Self::GiveTwo => give(&mut held, 2),
            Self::TakeAndGive => {
                take(&mut held, 1);
                give(&mut held, 1);
            }
            Self::Exchange => {
                take(&mut held, 2);
                let (second, first) = (held.pop(), held.pop());
                (calls.handler_free)(first);
                (calls.handler_free)(second);
            }
            Self::GiveAndTake => {
                give(&mut held, 2);
                take(&mut held, 2);
            }
            Self::TakeMany => take(&mut held, P::MANY),
            Self::GiveMany => give(&mut held, P::MANY),
            Self::Drain => P::drain(),
        }
    }
}

/// How the interrupt comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Arrival {
    /// The debug exception is the interrupt.
    InTheStep,
    /// Again, so many instructions after the first.
    Twice(u64),
    /// The timer's interrupt is pending, and taken before the instruction.
    Timer,
}

/// The number of no instruction.
const NEVER: u64 = u64::MAX;
/// Task of [`visit`]: the next interrupt comes at or after this instruction, and then again after this number of further ones.
static NEXT: AtomicU64 = AtomicU64::new(0);
static AGAIN: AtomicU64 = AtomicU64::new(0);
static BY_TIMER: AtomicBool = AtomicBool::new(false);
static DEED: SpinMutex<Option<fn()>> = SpinMutex::new(None);
/// Task of [`meet`]: the interrupt comes when its place has been met so many times.
static PASSES: AtomicU64 = AtomicU64::new(0);
/// Instructions so far; where the last interrupt came; how many came, and how many of them in a sequence.
static STEPS: AtomicU64 = AtomicU64::new(0);
static LAST: AtomicU64 = AtomicU64::new(0);
static CAME: AtomicU32 = AtomicU32::new(0);
static IN_SEQUENCE: AtomicU32 = AtomicU32::new(0);
/// How many times a place of the noted path was not come to.
static MISSED: AtomicU32 = AtomicU32::new(0);

fn visit(step: &Step) -> Then {
    let steps = STEPS.fetch_add(1, Ordering::Relaxed) + 1;
    let next = NEXT.load(Ordering::Relaxed);
    if next == NEVER {
        return Then::Run;
    }
    if steps < next || !step.interruptible {
        return Then::Step;
    }
    if let Then::Run = come(step, steps) {
        return Then::Run;
    }
    match AGAIN.swap(0, Ordering::Relaxed) {
        0 => NEXT.store(NEVER, Ordering::Relaxed),
        further => NEXT.store(steps + further, Ordering::Relaxed),
    }
    Then::Restart
}

/// The visitor of one place.
fn meet(step: &Step) -> Then {
    if LAST.load(Ordering::Relaxed) != 0 {
        return Then::Run;
    }
    if !step.interruptible || PASSES.fetch_sub(1, Ordering::Relaxed) != 1 {
        return Then::Step;
    }
    come(step, NEXT.load(Ordering::Relaxed))
}

/// The visitor that notes the instructions before which an interrupt is taken.
fn note(step: &Step) -> Then {
    let steps = STEPS.fetch_add(1, Ordering::Relaxed) + 1;
    if step.interruptible {
        let mut path = PATH.lock();
        let len = path.len;
        path.places[len] = (steps, step.pc);
        path.len += 1;
    }
    Then::Step
}

/// The interrupt comes before this instruction, which is the call's `number`-th.
fn come(step: &Step, number: u64) -> Then {
    CAME.fetch_add(1, Ordering::Relaxed);
    IN_SEQUENCE.fetch_add(u32::from(step.in_sequence), Ordering::Relaxed);
    LAST.store(number, Ordering::Relaxed);
    if BY_TIMER.load(Ordering::Relaxed) {
        timer::arm(0);
        return Then::Run;
    }
    interrupt();
    Then::Restart
}

/// Instructions of a call before which an interrupt is taken: the number and the place of each.
struct Path {
    places: [(u64, VirtAddr); 4096],
    len: usize,
}

static PATH: SpinMutex<Path> = SpinMutex::new(Path { places: [(0, VirtAddr::ZERO); 4096], len: 0 });

impl Path {
    /// The instruction at `index`: its number, its place, and how many times the path has come there then.
    fn at(&self, index: usize) -> Option<(u64, VirtAddr, u64)> {
        let places = &self.places[..self.len];
        let (number, place) = *places.get(index)?;
        let passes = places[..=index].iter().filter(|(_, other)| *other == place).count();
        Some((number, place, passes as u64))
    }
}

fn interrupt() {
    let deed = *DEED.lock();
    deed.expect("something to do")();
}

fn timer_interrupt(_: IntId) {
    timer::stop();
    interrupt();
}

/// The word that each word of a thing holds.
fn pattern(item: u64) -> u64 {
    item.rotate_left(17) ^ 0x5a5a_a5a5_0ff0_f00f
}

fn words<P: Pool>(item: u64) -> &'static mut [u64] {
    let start = VirtAddr::new(item).as_ptr::<u64>();
    // SAFETY: the things are the test's own, as large and aligned to a word; each slice is dropped before the next.
    unsafe { core::slice::from_raw_parts_mut(start, P::SIZE / 8) }
}

/// That no two are the same and none is anybody else's: each can hold something of its own.
fn verify_held<P: Pool>(held: &Held) {
    let items = &held.items[..held.len];
    items.iter().for_each(|item| words::<P>(*item).fill(pattern(*item)));
    for item in items {
        assert!(words::<P>(*item).iter().all(|word| *word == pattern(*item)), "{item:#x} is somebody else's");
    }
    // An object that holds its own pattern may still exist twice.
    for item in items {
        let first = &mut words::<P>(*item)[0];
        assert_eq!(*first, pattern(*item), "{item:#x} was handed out twice");
        *first = 0;
    }
}

/// The caller's operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operation {
    Alloc,
    Free,
}

/// Brings the pool into a state: this number cached, and enough held to free.
///
/// After a deed that takes memory from the caller, all is made anew: slabs that differ from round to round would make another
/// path of each.
fn prepare<P: Pool>(calls: &Calls, deed: Deed, at_hand: usize) {
    let mut held = HELD.lock();
    let enough = P::MANY * 2 + calls.count;
    let kept = if matches!(deed, Deed::TakeMany | Deed::Drain) { 0 } else { enough };
    while held.len > kept {
        (calls.handler_free)(held.pop());
    }
    P::shrink();
    while held.len < enough {
        held.push((calls.handler_alloc)());
    }
    let mut now = P::at_hand();
    while now < at_hand {
        (calls.handler_free)(held.pop());
        now += 1;
    }
    while now > at_hand {
        held.push((calls.handler_alloc)());
        now -= 1;
    }
    assert_eq!(P::at_hand(), at_hand);
}

/// How a round goes.
#[derive(Clone, Copy)]
enum Way {
    /// Stepped, and noted; no interrupt comes.
    Noted,
    /// Stepped up to instruction number `at`, or the first one after it at which an interrupt is taken.
    Stepped { at: u64 },
    /// Run up to the place of instruction number `at`, which is come to the `passes`-th time.
    Run { at: u64, place: VirtAddr, passes: u64 },
}

/// One operation, with an interrupt: the number of the instruction at which it came, if it did before the operation had ended.
fn one_round(calls: &Calls, operation: Operation, arrival: Arrival, way: Way) -> Option<u64> {
    if let Way::Stepped { at } | Way::Run { at, .. } = way {
        NEXT.store(at, Ordering::Relaxed);
    }
    AGAIN.store(if let Arrival::Twice(further) = arrival { further } else { 0 }, Ordering::Relaxed);
    BY_TIMER.store(arrival == Arrival::Timer, Ordering::Relaxed);
    STEPS.store(0, Ordering::Relaxed);
    LAST.store(0, Ordering::Relaxed);
    let mut items = [NonNull::dangling(); MOST];
    let items = &mut items[..calls.count];
    match operation {
        Operation::Alloc => {
            go(way, || (calls.alloc)(items));
            items.iter().for_each(|item| HELD.lock().push(name(*item)));
        }
        Operation::Free => {
            items.iter_mut().for_each(|item| *item = pointer(HELD.lock().pop()));
            go(way, || (calls.free)(items));
        }
    }
    let last = LAST.load(Ordering::Relaxed);
    (last != 0).then_some(last)
}

// Compiled once, so that a path is the same whichever way it is gone.
#[inline(never)]
fn go(way: Way, mut body: impl FnMut()) {
    let call: &mut dyn FnMut() = &mut body;
    let gone = match way {
        Way::Noted => step_through(note, call),
        Way::Stepped { .. } => step_through(visit, call),
        Way::Run { place, passes, .. } => {
            PASSES.store(passes, Ordering::Relaxed);
            stop_at(place, meet, call)
        }
    };
    gone.expect("every instruction can be stepped over");
}

/// The most in one call.
const MOST: usize = 40;

/// Every invariant is tested after so many rounds, and after the last one: it takes longer than a round.
const CHECK_EVERY: u64 = 16;

/// Every instruction of an operation, from one state, with one deed.
fn every_instruction<P: Pool>(
    calls: &'static Calls,
    operation: Operation,
    arrival: Arrival,
    deed: Deed,
    state: usize,
    baseline: u64,
) {
    PATH.lock().len = 0;
    // Stepping to each instruction from the start takes the square of their number, so the path is noted once, and each
    // place on it run to. It is stepped to where this time's path misses it, and behind the noted path's end.
    if !matches!(arrival, Arrival::Twice(_)) {
        prepare::<P>(calls, deed, state);
        one_round(calls, operation, arrival, Way::Noted);
    }
    let mut at = 1;
    for index in 0.. {
        prepare::<P>(calls, deed, state);
        let noted = PATH.lock().at(index);
        let ran = noted.and_then(|(number, place, passes)| {
            at = number;
            one_round(calls, operation, arrival, Way::Run { at, place, passes })
        });
        let came = ran.or_else(|| {
            if noted.is_some() {
                MISSED.fetch_add(1, Ordering::Relaxed);
                prepare::<P>(calls, deed, state);
            }
            one_round(calls, operation, arrival, Way::Stepped { at })
        });
        let held = HELD.lock();
        verify_held::<P>(&held);
        let in_use = P::in_use() - baseline;
        assert_eq!(in_use, held.len as u64, "{operation:?} from {state} at hand, interrupt at {at} ({came:?})");
        if came.is_none() || at.is_multiple_of(CHECK_EVERY) {
            P::check();
        }
        match came {
            None if PATH.lock().at(index + 1).is_some() => at += 1,
            None => return,
            Some(came) => at = at.max(came) + 1,
        }
    }
}

/// All of it for one pair of calls.
fn interrupt_everywhere<P: Pool>(calls: &'static Calls, deeds: &[(Deed, fn())], arrivals: &[Arrival]) {
    irq::local_irq_enable();
    let baseline = P::in_use();
    IN_SEQUENCE.store(0, Ordering::Relaxed);
    CAME.store(0, Ordering::Relaxed);
    MISSED.store(0, Ordering::Relaxed);
    for arrival in arrivals {
        for (deed, run) in deeds {
            *DEED.lock() = Some(*run);
            for operation in [Operation::Alloc, Operation::Free] {
                for state in calls.states {
                    if P::takes_the_long_way(operation, *state, calls.count) && !deed.moves_much() {
                        continue;
                    }
                    every_instruction::<P>(calls, operation, *arrival, *deed, *state, baseline);
                }
            }
            log::info!("{arrival:?} {deed:?}: {} interrupts so far", CAME.load(Ordering::Relaxed));
        }
    }
    let (came, in_sequence) = (CAME.load(Ordering::Relaxed), IN_SEQUENCE.load(Ordering::Relaxed));
    let missed = MISSED.load(Ordering::Relaxed);
    log::info!("{came} interrupts, {in_sequence} of them in sequences that restart");
    log::info!("{missed} places were not on their round's path, and stepped to");
    // The slow path of a masking call may need a magazine, which comes from `kmalloc` by its fast path.
    let as_expected = match calls.restarts {
        Some(true) => in_sequence != 0,
        Some(false) => in_sequence < came / 100,
        None => in_sequence < came / 2,
    };
    assert!(as_expected, "{in_sequence} of {came} in sequences");
    let mut held = HELD.lock();
    while held.len != 0 {
        (calls.handler_free)(held.pop());
    }
    drop(held);
    assert_eq!(P::in_use(), baseline);
    P::shrink();
    P::check();
}

static CACHE: Once<KmemCache> = Once::new();

fn cache() -> &'static KmemCache {
    let spec = CacheSpec { name: "stepped", size: 600, align: 0, flags: SlabFlags::NO_MERGE, constructor: None };
    CACHE.call_once(|| KmemCache::create(&spec).expect("a cache"))
}

/// A cache of the test's own.
struct Own;

impl Pool for Own {
    const SIZE: usize = 600;
    // An array and its spare have 31 each.
    const FULL: usize = 62;
    const MANY: usize = 70;

    fn at_hand() -> usize {
        usize::try_from(info().at_hand).expect("fewer objects than addresses")
    }

    fn in_use() -> u64 {
        info().active_objects
    }

    fn shrink() {
        cache().shrink();
    }

    fn drain() {
        global::slab_allocator().try_shrink_all(u64::MAX).expect("nobody makes a cache");
        assert_eq!(Self::at_hand(), 0);
    }

    fn check() {
        global::slab_allocator().check_cache(cache().cache()).unwrap_or_else(|broken| panic!("{broken}"));
    }
}

fn info() -> CacheInfo {
    global::slab_allocator().info(cache().cache())
}

fn pointer(object: u64) -> NonNull<u8> {
    NonNull::new(VirtAddr::new(object).as_ptr()).expect("an object")
}

fn name(object: NonNull<u8>) -> u64 {
    object.addr().get() as u64
}

fn alloc_waiting() -> u64 {
    name(cache().alloc(Gfp::KERNEL).expect("memory"))
}

fn alloc_atomic() -> u64 {
    name(cache().alloc(Gfp::ATOMIC).expect("memory"))
}

fn free_to_cache(object: u64) {
    // SAFETY: the test's own, not used afterwards.
    unsafe { cache().free(pointer(object)) };
}

fn kfree(object: u64) {
    // SAFETY: the test's own, not used afterwards.
    unsafe { global::kfree(pointer(object).as_ptr()) };
}

/// With interrupts masked.
fn alloc_many(objects: &mut [NonNull<u8>]) {
    cache().alloc_bulk(Gfp::ATOMIC, objects).expect("memory");
}

/// With interrupts masked.
fn free_many(objects: &[NonNull<u8>]) {
    // SAFETY: the test's own, not used afterwards.
    assert_eq!(unsafe { cache().free_bulk(objects) }, 0);
}

/// With interrupts masked.
fn alloc_masked() -> u64 {
    let mut objects = [NonNull::dangling()];
    alloc_many(&mut objects);
    name(objects[0])
}

/// With interrupts masked.
fn kfree_masked(object: u64) {
    // SAFETY: the test's own, not used afterwards.
    unsafe { global::try_kfree(pointer(object).as_ptr()) }.expect("allocated");
}

/// The deeds, as functions without arguments.
macro_rules! deeds {
    ($pool:ty, $calls:ident) => {{
        const RUN: [(Deed, fn()); DEEDS.len()] = [
            (DEEDS[0], || DEEDS[0].run::<$pool>(&$calls)),
            (DEEDS[1], || DEEDS[1].run::<$pool>(&$calls)),
            (DEEDS[2], || DEEDS[2].run::<$pool>(&$calls)),
            (DEEDS[3], || DEEDS[3].run::<$pool>(&$calls)),
            (DEEDS[4], || DEEDS[4].run::<$pool>(&$calls)),
            (DEEDS[5], || DEEDS[5].run::<$pool>(&$calls)),
            (DEEDS[6], || DEEDS[6].run::<$pool>(&$calls)),
            (DEEDS[7], || DEEDS[7].run::<$pool>(&$calls)),
            (DEEDS[8], || DEEDS[8].run::<$pool>(&$calls)),
            (DEEDS[9], || DEEDS[9].run::<$pool>(&$calls)),
        ];
        RUN
    }};
}

/// An array and its spare: with nothing, with some, with one of them full, with both.
const STATES: &[usize] = &[0, 1, 15, 30, 31, 32, 62];

static RESTARTING: Calls = Calls {
    alloc: |objects| objects[0] = pointer(alloc_atomic()),
    free: |objects| kfree(name(objects[0])),
    count: 1,
    states: STATES,
    handler_alloc: alloc_atomic,
    handler_free: kfree,
    restarts: Some(true),
};

static RESTARTING_CACHE: Calls = Calls {
    alloc: |objects| objects[0] = pointer(alloc_waiting()),
    free: |objects| free_to_cache(name(objects[0])),
    count: 1,
    states: STATES,
    handler_alloc: alloc_masked,
    handler_free: kfree_masked,
    restarts: Some(true),
};

static MASKED: Calls = Calls {
    alloc: alloc_many,
    free: |objects| kfree_masked(name(objects[0])),
    count: 1,
    states: STATES,
    handler_alloc: alloc_atomic,
    handler_free: kfree,
    restarts: Some(false),
};

static THREE: Calls = Calls {
    alloc: alloc_many,
    free: free_many,
    count: 3,
    states: STATES,
    handler_alloc: alloc_atomic,
    handler_free: kfree,
    restarts: None,
};

/// More than a magazine holds, so that most states take the same paths.
static FORTY: Calls = Calls { count: MOST, states: &[0, 31, 62], ..THREE };

/// Where arrays are off: every call goes to the slabs.
static LONG_WAY: Calls = Calls { states: &[0], restarts: None, ..RESTARTING };

// Behaviour 185: as with a cache that is debugged, or with failures on request.
ktest!(an_interrupt_at_any_instruction_of_a_call_without_arrays, machine = "mem=64M", timeout = 60);
fn an_interrupt_at_any_instruction_of_a_call_without_arrays() {
    global::slab_allocator().set_careful(true);
    interrupt_everywhere::<Own>(&LONG_WAY, &deeds!(Own, LONG_WAY), &[Arrival::InTheStep]);
    global::slab_allocator().set_careful(false);
}

// Behaviour 185.
ktest!(an_interrupt_at_any_instruction_of_a_restarting_call, machine = "mem=64M", timeout = 300);
fn an_interrupt_at_any_instruction_of_a_restarting_call() {
    interrupt_everywhere::<Own>(&RESTARTING, &deeds!(Own, RESTARTING), &[Arrival::InTheStep]);
}

// Behaviour 185.
ktest!(an_interrupt_at_any_instruction_of_a_cache_s_call, machine = "mem=64M", timeout = 300);
fn an_interrupt_at_any_instruction_of_a_cache_s_call() {
    interrupt_everywhere::<Own>(&RESTARTING_CACHE, &deeds!(Own, RESTARTING_CACHE), &[Arrival::InTheStep]);
}

ktest!(an_interrupt_at_any_instruction_of_a_masking_call, machine = "mem=64M", timeout = 300);
fn an_interrupt_at_any_instruction_of_a_masking_call() {
    interrupt_everywhere::<Own>(&MASKED, &deeds!(Own, MASKED), &[Arrival::InTheStep]);
}

// Behaviour 185.
ktest!(an_interrupt_at_any_instruction_of_a_call_for_three, machine = "mem=64M", timeout = 300);
fn an_interrupt_at_any_instruction_of_a_call_for_three() {
    interrupt_everywhere::<Own>(&THREE, &deeds!(Own, THREE), &[Arrival::InTheStep]);
}

// Behaviour 185.
ktest!(an_interrupt_at_any_instruction_of_a_call_for_forty, machine = "mem=64M", timeout = 300);
fn an_interrupt_at_any_instruction_of_a_call_for_forty() {
    let deeds = deeds!(Own, FORTY);
    // One of each kind: forty take a while.
    let deeds = [deeds[0], deeds[5], deeds[7], deeds[8], deeds[9]];
    interrupt_everywhere::<Own>(&FORTY, &deeds, &[Arrival::InTheStep]);
}

// Behaviour 185.
ktest!(the_timer_at_any_instruction_of_a_call, machine gicv2 = "mem=64M", machine gicv3 = "mem=64M gic=3", timeout = 300);
fn the_timer_at_any_instruction_of_a_call() {
    with_timer(timer_interrupt, || {
        interrupt_everywhere::<Own>(&RESTARTING, &deeds!(Own, RESTARTING), &[Arrival::Timer]);
    });
}

// Behaviour 185.
ktest!(two_interrupts_in_one_call, machine = "mem=64M", timeout = 300);
fn two_interrupts_in_one_call() {
    let deeds = deeds!(Own, RESTARTING);
    let arrivals = [1, 2, 5, 11].map(Arrival::Twice);
    interrupt_everywhere::<Own>(&RESTARTING, &deeds[5..6], &arrivals);
    interrupt_everywhere::<Own>(&RESTARTING, &deeds[6..7], &arrivals);
}
