//! Random operations against a model: a number of elements in a reserve, and a set of those in use.

use super::*;
use proptest::prelude::*;
use quarry::mm::mempool::{NotFreed, PoolEmpty};

#[derive(Clone, Copy, Debug)]
enum Op {
    Alloc,
    Preallocated,
    Free(usize),
    FreeTwice(usize),
    Resize(u32),
    /// From now on the source has so many.
    Source(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => Just(Op::Alloc),
        2 => Just(Op::Preallocated),
        6 => any::<usize>().prop_map(Op::Free),
        1 => any::<usize>().prop_map(Op::FreeTwice),
        1 => (0_u32..12).prop_map(Op::Resize),
        2 => (0_u64..6).prop_map(Op::Source),
    ];
    proptest::collection::vec(op, 1..200)
}

/// The pool in five words.
struct Model {
    min: u32,
    reserve: u32,
    left: u64,
    live: Vec<NonNull<u8>>,
}

impl Model {
    fn free(&mut self) {
        if self.reserve < self.min {
            self.reserve += 1;
        } else {
            self.left += 1;
        }
    }

    fn resize(&mut self, min: u32) {
        self.min = min;
        if self.reserve > min {
            self.left += u64::from(self.reserve - min);
            self.reserve = min;
        }
        let grown = u64::from(min - self.reserve).min(self.left);
        self.left -= grown;
        self.reserve += u32::try_from(grown).unwrap();
    }
}

fn step(pool: &Numbers<'_, '_, '_>, source: &Source, model: &mut Model, op: Op) {
    match op {
        Op::Alloc => match pool.alloc(NOWAIT) {
            Ok(element) => {
                assert!(!model.live.contains(&element), "given out twice");
                if model.left != 0 {
                    model.left -= 1;
                } else {
                    model.reserve -= 1;
                }
                model.live.push(element);
            }
            Err(why) => assert_eq!((why, model.left, model.reserve), (PoolEmpty::Empty, 0, 0)),
        },
        Op::Preallocated => match pool.alloc_preallocated() {
            Some(element) => {
                assert!(!model.live.contains(&element), "given out twice");
                model.reserve -= 1;
                model.live.push(element);
            }
            None => assert_eq!(model.reserve, 0),
        },
        Op::Free(index) if !model.live.is_empty() => {
            let element = model.live.swap_remove(index % model.live.len());
            raw!(pool.free(element.as_ptr())).unwrap();
            model.free();
        }
        Op::FreeTwice(index) if !model.live.is_empty() && model.min - model.reserve >= 2 => {
            let element = model.live.swap_remove(index % model.live.len());
            raw!(pool.free(element.as_ptr())).unwrap();
            model.free();
            assert!(matches!(raw!(pool.free(element.as_ptr())), Err(NotFreed::InReserve(_))));
        }
        Op::Free(_) | Op::FreeTwice(_) => {}
        Op::Resize(0) => assert!(pool.resize(0).is_err()),
        Op::Resize(min) => {
            pool.resize(min).unwrap();
            model.resize(min);
        }
        Op::Source(left) => {
            source.set(left);
            model.left = left;
        }
    }
    let stats = pool.stats();
    assert_eq!((stats.min, stats.reserve, stats.set_aside), (model.min, model.reserve, 0), "after {op:?}");
    assert_eq!(source.out(), model.live.len() + model.reserve as usize, "after {op:?}");
    pool.check().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_pool_is_a_number_and_a_set(ops in ops(), min in 1_u32..8) {
        with_slabs(|slabs| {
            let source = Source::of(u64::from(min));
            let pool = numbers(slabs, min, &source).unwrap();
            let mut model = Model { min, reserve: min, left: 0, live: Vec::new() };
            for op in &ops {
                step(&pool, &source, &mut model, *op);
            }
            for element in model.live {
                raw!(pool.free(element.as_ptr())).unwrap();
            }
            pool.check().unwrap();
            pool.destroy().map_err(|(_, why)| why).unwrap();
            assert_eq!(source.out(), 0);
        });
    }
}
