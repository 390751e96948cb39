//! Random operations on caches of random shapes against a model: what each object holds, which caches there are.

use super::machine::{Handle, Sim};
use super::*;
use machine::{in_interrupt, run_on};
use proptest::prelude::*;
use quarry::mm::slab::{CacheSpec, Misuse, SlabFlags};
use std::collections::BTreeMap;

const CPUS: u32 = 3;
const NAMES: [&str; 6] = ["zero", "one", "two", "three", "four", "five"];

#[derive(Clone, Debug)]
enum Op {
    Create { place: usize, size: u32, align: u32, flags: SlabFlags },
    Destroy(usize),
    Alloc { place: usize, zero: bool, interrupt: bool },
    AllocBulk { place: usize, count: usize },
    Free { index: usize, by_kfree: bool, interrupt: bool },
    FreeBulk { place: usize, count: usize },
    Shrink(usize),
    ShrinkAll,
    Cpu(u32),
    Careful(bool),
}

fn op() -> impl Strategy<Value = Op> {
    let place = 0..NAMES.len();
    let flags = prop_oneof![
        6 => Just(SlabFlags::empty()),
        2 => Just(SlabFlags::NO_MERGE),
        1 => Just(SlabFlags::HWCACHE_ALIGN),
        1 => Just(SlabFlags::RECLAIM_ACCOUNT),
        1 => Just(SlabFlags::CACHE_DMA),
        1 => Just(SlabFlags::POISON | SlabFlags::RED_ZONE),
        1 => Just(SlabFlags::CONSISTENCY_CHECKS),
    ];
    let shape = (8_u32..3000, 0_u32..9, flags);
    prop_oneof![
        3 => (place.clone(), shape).prop_map(|(place, (size, align, flags))| {
            Op::Create { place, size, align: if align < 3 { 0 } else { 1 << align }, flags }
        }),
        2 => place.clone().prop_map(Op::Destroy),
        40 => (place.clone(), any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(place, zero, interrupt)| Op::Alloc { place, zero, interrupt }),
        4 => (place.clone(), 1..100_usize).prop_map(|(place, count)| Op::AllocBulk { place, count }),
        36 => (any::<usize>(), any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(index, by_kfree, interrupt)| Op::Free { index, by_kfree, interrupt }),
        4 => (place.clone(), 1..100_usize).prop_map(|(place, count)| Op::FreeBulk { place, count }),
        1 => place.prop_map(Op::Shrink),
        1 => Just(Op::ShrinkAll),
        4 => (0..CPUS).prop_map(Op::Cpu),
        1 => any::<bool>().prop_map(Op::Careful),
    ]
}

/// An object: its cache, its size, and what each of its bytes is.
struct Live {
    place: usize,
    size: usize,
    byte: u8,
}

struct Model<'p, 's, 'm> {
    slabs: &'s Slabs<'p, 'm>,
    caches: [Option<Handle<'m>>; NAMES.len()],
    /// By address.
    live: BTreeMap<u64, Live>,
    turn: u8,
}

impl<'m> Model<'_, '_, 'm> {
    fn cache(&self, place: usize) -> Option<&Cache<Sim<'m>>> {
        self.caches[place].as_ref().map(Handle::cache)
    }

    /// Notes an object that has been allocated: apart from all others.
    fn note(&mut self, place: usize, at: VirtAddr, zeroed: bool) {
        let cache = self.cache(place).unwrap();
        let (size, stride) = (cache.object_size() as usize, cache.size());
        assert!(stride as usize >= size);
        let below = self.live.range(..=at.get()).next_back();
        assert!(below.is_none_or(|(start, live)| start + live.size as u64 <= at.get()), "overlaps the one below");
        let above = self.live.range(at.get()..).next();
        assert!(above.is_none_or(|(start, _)| at.get() + size as u64 <= *start), "overlaps the one above");
        assert!(!zeroed || holds(at, 0, size));
        self.turn = self.turn.wrapping_add(1);
        fill(at, self.turn, size);
        self.live.insert(at.get(), Live { place, size, byte: self.turn });
    }

    fn forget(&mut self, at: VirtAddr) -> Live {
        let live = self.live.remove(&at.get()).unwrap();
        assert!(holds(at, live.byte, live.size), "an object of {} was written to", NAMES[live.place]);
        live
    }

    fn of(&self, place: usize) -> impl Iterator<Item = VirtAddr> {
        self.live.iter().filter(move |(_, live)| live.place == place).map(|(at, _)| VirtAddr::new(*at))
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Create { place, size, align, flags } => {
                if self.caches[place].is_none() {
                    let spec = CacheSpec { name: NAMES[place], size, align, flags, constructor: None };
                    let handle = self.slabs.create(&spec).unwrap();
                    assert_eq!(handle.cache().name(), NAMES[place]);
                    self.caches[place] = Some(handle);
                }
            }
            Op::Destroy(place) => {
                let Some(handle) = self.caches[place].take() else { return };
                let used = self.of(place).next().is_some();
                match self.slabs.destroy(handle) {
                    Ok(()) => assert!(!used, "destroyed with objects in use"),
                    Err((handle, left)) => {
                        assert_eq!(left.in_use().unwrap().objects, self.of(place).count() as u64);
                        // Reported, and nothing else was.
                        let reports = self.slabs.hal().reports();
                        let [Misuse::Remaining { cache, objects, .. }] = reports[..] else { panic!("{reports:?}") };
                        assert_eq!((cache, objects), (handle.cache().name(), left.in_use().unwrap().objects));
                        self.caches[place] = Some(handle);
                    }
                }
            }
            Op::Alloc { place, zero, interrupt } => {
                let Some(cache) = self.cache(place) else { return };
                let gfp = if zero { Gfp::ZERO } else { Gfp::empty() };
                let at = if interrupt {
                    in_interrupt(|| self.slabs.alloc_object(cache, gfp | Gfp::ATOMIC))
                } else {
                    self.slabs.alloc_object(cache, gfp | KERNEL)
                };
                self.note(place, at.unwrap(), zero);
            }
            Op::AllocBulk { place, count } => {
                let Some(cache) = self.cache(place) else { return };
                let mut objects = vec![VirtAddr::ZERO; count];
                self.slabs.alloc_bulk(cache, KERNEL, &mut objects).unwrap();
                objects.into_iter().for_each(|at| self.note(place, at, false));
            }
            Op::Free { index, by_kfree, interrupt } => {
                let Some(at) = index.checked_rem(self.live.len()).and_then(|index| self.live.keys().nth(index)) else {
                    return;
                };
                let at = VirtAddr::new(*at);
                let place = self.forget(at).place;
                let free = || match self.cache(place) {
                    Some(cache) if !by_kfree => raw!(self.slabs.free_object(cache, at)),
                    _ => raw!(self.slabs.kfree(at)),
                };
                if interrupt { in_interrupt(free) } else { free() }.unwrap();
            }
            Op::FreeBulk { place, count } => {
                let objects: Vec<_> = self.of(place).take(count).collect();
                for at in &objects {
                    self.forget(*at);
                }
                let Some(cache) = self.cache(place) else { return };
                assert_eq!(raw!(self.slabs.free_bulk(cache, &objects)), 0);
            }
            Op::Shrink(place) => {
                if let Some(cache) = self.cache(place) {
                    self.slabs.shrink(cache);
                }
            }
            Op::ShrinkAll => drop(self.slabs.shrink_all()),
            Op::Cpu(cpu) => run_on(cpu),
            Op::Careful(careful) => self.slabs.set_careful(careful),
        }
    }
}

fn run(spec: Spec, ops: &[Op]) {
    spec.exchanging().run(|slabs| {
        let mut model = Model { slabs, caches: [const { None }; NAMES.len()], live: BTreeMap::new(), turn: 0 };
        for (number, op) in ops.iter().enumerate() {
            model.apply(op);
            if number % 700 == 699 {
                check(slabs);
            }
        }
        run_on(0);
        slabs.set_careful(false);
        check(slabs);
        for (at, live) in std::mem::take(&mut model.live) {
            assert!(holds(VirtAddr::new(at), live.byte, live.size));
            raw!(slabs.kfree(VirtAddr::new(at))).unwrap();
        }
        for handle in model.caches.into_iter().flatten() {
            slabs.destroy(handle).map_err(|(_, left)| left).unwrap();
        }
        assert_eq!(slabs.hal().reports(), []);
    });
}

const CASES: u32 = if cfg!(miri) { 1 } else { 50 };
const OPS: usize = if cfg!(miri) { 150 } else { 2100 };

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, max_shrink_iters: 500, ..ProptestConfig::default() })]

    // Behaviour 217: more than 100,000 operations a run.
    #[test]
    fn objects_of_many_caches_are_each_their_own(ops in proptest::collection::vec(op(), OPS)) {
        run(Spec::of_size(32 << 20).cpus(CPUS), &ops);
    }

    // The same as a thread that moves to another CPU wherever it can.
    #[test]
    fn objects_are_each_their_own_whatever_cpu_a_thread_is_moved_to(ops in proptest::collection::vec(op(), OPS / 3)) {
        run(Spec::of_size(32 << 20).cpus(CPUS).migrating(), &ops);
    }
}
