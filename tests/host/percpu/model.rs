//! Random histories against a map of every byte, on one CPU and on several at once.

use super::{PerCpu, with_allocator};
use crate::random::Random;
use crate::vmalloc::kernel::touch;
use crate::vmalloc::machine::run_on;
use quarry::addr::{CpuId, PAGE_SIZE, VirtAddr, to_usize};
use quarry::gfp::Gfp;
use quarry::mm::percpu::{PerCpuError, PerCpuPtr, UNIT_SIZE};
use std::collections::BTreeMap;
use std::sync::Mutex;

const GFP: Gfp = Gfp::KERNEL.union(Gfp::NOWARN);

/// Live allocations: where they begin in CPU 0's units, and their bytes.
#[derive(Default)]
struct Model(BTreeMap<u64, u64>);

impl Model {
    fn enter(&mut self, ptr: PerCpuPtr, size: u64) {
        let start = ptr.addr().get();
        let below = self.0.range(..start + size).next_back();
        assert!(below.is_none_or(|(at, bytes)| at + bytes <= start), "{start:#x} and {below:x?} overlap");
        self.0.insert(start, size);
    }
}

fn random_request(random: &mut Random) -> (u64, u64) {
    let size = match random.below(20) {
        0 => 1 + random.below(UNIT_SIZE),
        1..=4 => 1 + random.below(PAGE_SIZE),
        _ => 1 + random.below(200),
    };
    let align = 1
        << match random.below(8) {
            0 => random.below(13),
            _ => random.below(7),
        };
    (size, align)
}

fn step(percpu: &PerCpu<'_, '_>, live: &mut Vec<(PerCpuPtr, u64)>, model: &Mutex<Model>, random: &mut Random) {
    if live.len() < 40 && random.below(5) < 3 {
        let (size, align) = random_request(random);
        match percpu.alloc(size, align, GFP) {
            Ok(ptr) => {
                assert!(ptr.addr().is_aligned(align));
                model.lock().unwrap().enter(ptr, size);
                live.push((ptr, size));
            }
            Err(error) => assert_eq!(error, PerCpuError::OutOfMemory),
        }
    } else if !live.is_empty() {
        let (ptr, size) = live.swap_remove(to_usize(random.below(live.len() as u64)));
        // Gone from the model first: afterwards it is anybody's.
        assert_eq!(model.lock().unwrap().0.remove(&ptr.addr().get()), Some(size));
        raw!(percpu.free(ptr)).unwrap();
    }
}

// Behaviours 341 and 347.
#[test]
fn random_histories_agree_with_a_map_of_every_byte() {
    let steps = if cfg!(miri) { 100 } else { 20_000 };
    for seed in [1, 2, 3] {
        with_allocator(|space, percpu| {
            let (mut random, mut live, model) = (Random(seed), Vec::new(), Mutex::default());
            for index in 0..steps {
                step(percpu, &mut live, &model, &mut random);
                if index % 64 == 0 {
                    percpu.check().unwrap();
                    if let Some((ptr, size)) = live.last() {
                        let pages = (ptr.addr().offset_in(PAGE_SIZE) + size).div_ceil(PAGE_SIZE);
                        for cpu in [CpuId::BOOT, CpuId::new(1)] {
                            touch(space, VirtAddr::new(ptr.of(cpu).get()).align_down(PAGE_SIZE), pages);
                        }
                    }
                }
                if index % 1_000 == 999 {
                    percpu.trim();
                }
                // Not at each step: the figures are of what is really in use, so nothing stays parked.
                if index % 500 == 499 {
                    assert_eq!(percpu.stats().allocations, live.len());
                }
            }
            live.into_iter().for_each(|(ptr, _)| raw!(percpu.free(ptr)).unwrap());
        });
    }
}

#[test]
fn cpus_allocate_free_and_trim_at_once() {
    let steps = if cfg!(miri) { 30 } else { 5_000 };
    with_allocator(|_, percpu| {
        let model = Mutex::default();
        std::thread::scope(|scope| {
            for cpu in 0..2 {
                let model = &model;
                scope.spawn(move || {
                    run_on(cpu);
                    let (mut random, mut live) = (Random(77 + u64::from(cpu)), Vec::new());
                    for index in 0..steps {
                        step(percpu, &mut live, model, &mut random);
                        if index % 100 == 50 {
                            percpu.trim();
                        }
                    }
                    live.into_iter().for_each(|(ptr, _)| {
                        model.lock().unwrap().0.remove(&ptr.addr().get());
                        raw!(percpu.free(ptr)).unwrap();
                    });
                });
            }
        });
    });
}
