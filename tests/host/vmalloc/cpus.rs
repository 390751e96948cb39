//! Several CPUs at once.

use super::machine::{Machine, memory, run_on};
use super::{all_free, alloc, free, of_pages, space};
use crate::random::Random;
use quarry::addr::VirtAddr;
use quarry::mm::vmalloc::VmFlags;
use std::sync::Mutex;

const ROUNDS: u64 = if cfg!(miri) { 40 } else { 30_000 };

#[test]
fn cpus_allocate_and_free_side_by_side() {
    let mut nodes = memory(60_000);
    let space = space(Machine::new(4, &mut nodes), 1 << 20);
    let shared: Mutex<Vec<VirtAddr>> = Mutex::default();
    std::thread::scope(|scope| {
        for cpu in 0..4 {
            let (space, shared) = (&space, &shared);
            scope.spawn(move || {
                run_on(cpu);
                let mut random = Random(u64::from(cpu) + 9);
                for _ in 0..ROUNDS {
                    let area = alloc(space, &of_pages(1 + random.below(12))).unwrap();
                    assert_eq!(space.find(area.start()), Some(area.info()));
                    // Some are freed by another CPU.
                    let start = if random.below(2) == 0 {
                        let mut waiting = shared.lock().unwrap();
                        waiting.push(area.start());
                        let any = usize::try_from(random.below(waiting.len() as u64)).unwrap();
                        waiting.swap_remove(any)
                    } else {
                        area.start()
                    };
                    free(space, start);
                }
            });
        }
    });
    run_on(0);
    all_free(&space);
}

#[test]
fn two_cpus_free_one_area_once() {
    let mut nodes = memory(256);
    let space = space(Machine::new(2, &mut nodes), 1 << 12);
    for _ in 0..if cfg!(miri) { 5 } else { 500 } {
        let start = alloc(&space, &of_pages(1)).unwrap().start();
        let freed: usize = std::thread::scope(|scope| {
            let both = [0, 1].map(|cpu| {
                let space = &space;
                scope.spawn(move || {
                    run_on(cpu);
                    raw!(space.remove(start, VmFlags::empty())).map(|area| space.retire(area)).is_ok()
                })
            });
            both.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
        });
        assert_eq!(freed, 1);
    }
    all_free(&space);
}
