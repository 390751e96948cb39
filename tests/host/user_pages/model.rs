//! Random histories over four spaces and four CPUs, against a model of what every page holds.

use super::machine::{CPUS, Kernel, Space, on_a_machine, page, pages, run_on};
use crate::random::Random;
use quarry::addr::{Order, to_usize};
use quarry::arch::host::{Config, Visibility};
use quarry::gfp::Gfp;
use quarry::hal::prot::Access;
use quarry::mm::user::pages::{Backing, FaultAccess, FaultError, PagesError, Pinned, Sharing};
use std::sync::atomic::Ordering;

const SPACES: usize = 4;
/// Pages of a space that histories touch: parts of two tables.
const PAGES: u64 = 96;
/// The first of them: 48 pages before the end of a table.
const FIRST: u64 = 512 - PAGES / 2;
/// Where they may be moved to and back from.
const ELSEWHERE: u64 = 4096 + 37;

/// Kinds of pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cell {
    /// Its first word.
    Value(u64),
    Guard,
}

struct Modelled {
    space: Space,
    cells: Vec<Cell>,
    access: Vec<Access>,
    pinned: Vec<(u64, Pinned<super::machine::Handle>)>,
}

impl Modelled {
    fn new(kernel: &'static Kernel, asid: u16) -> Self {
        let cells = vec![Cell::Value(0); to_usize(PAGES)];
        Self { space: kernel.space(asid), cells, access: vec![Access::ReadWrite; to_usize(PAGES)], pinned: Vec::new() }
    }

    /// The area around a page: what has the same permission.
    fn area(&self, n: u64, largest: Order) -> Backing {
        let access = self.access[to_usize(n)];
        let same = |n: &u64| self.access[to_usize(*n)] == access;
        let first = (0..=n).rev().take_while(same).last().unwrap();
        let last = (n..PAGES).take_while(same).last().unwrap();
        Backing { range: pages(FIRST + first, last - first + 1), access, sharing: Sharing::Private, largest }
    }

    /// Pages whose content the model knows and a pin does not hold.
    fn clear(&mut self, first: u64, count: u64, keep_guards: bool) {
        for cell in &mut self.cells[to_usize(first)..to_usize(first + count)] {
            if !(keep_guards && *cell == Cell::Guard) {
                *cell = Cell::Value(0);
            }
        }
    }
}

fn span(random: &mut Random) -> (u64, u64) {
    let first = random.below(PAGES);
    (first, 1 + random.below((PAGES - first).min(24)))
}

/// A history of `steps` steps. Every so many allocations one fails, if `failing`.
fn history(config: Config, seed: u64, steps: u64, failing: Option<u64>) {
    println!("seed {seed:#x}, {steps} steps, failing {failing:?}");
    on_a_machine(config, |kernel| {
        let mut random = Random(seed);
        let mut next = 1;
        let mut spaces: Vec<Modelled> = (10_u16..).take(SPACES).map(|asid| Modelled::new(kernel, asid)).collect();
        let mut failures = 0;
        kernel.pages.set_careful(failing.is_some());
        for step in 0..steps {
            if let Some(every) = failing {
                let hal = kernel.pages.hal();
                if random.below(every) == 0 {
                    hal.until_failure.store(random.below(3), Ordering::Relaxed);
                    kernel.sim.fail_allocation_after(Some(random.below(3)));
                } else {
                    hal.until_failure.store(u64::MAX, Ordering::Relaxed);
                    kernel.sim.fail_allocation_after(None);
                }
            }
            run_on(u32::try_from(random.below(u64::from(CPUS))).unwrap());
            let who = to_usize(random.below(SPACES as u64));
            failures += u64::from(one_step(kernel, &mut random, &mut spaces, who, &mut next).is_err());
            if step % (steps / 40).max(1) == 0 {
                kernel.sim.fail_allocation_after(None);
                let all: Vec<&Space> = spaces.iter().map(|one| &one.space).collect();
                kernel.check(&all);
            }
        }
        kernel.sim.fail_allocation_after(None);
        kernel.pages.hal().until_failure.store(u64::MAX, Ordering::Relaxed);
        kernel.pages.set_careful(false);
        let all: Vec<&Space> = spaces.iter().map(|one| &one.space).collect();
        kernel.check(&all);
        assert_eq!(failing.is_some(), failures > 0);
        // Every page, read by some CPU.
        for one in &spaces {
            for n in 0..PAGES {
                expect(kernel, one, n);
            }
        }
        let (ended, pins): (Vec<_>, Vec<_>) = spaces.into_iter().map(|one| (one.space, one.pinned)).unzip();
        kernel.end(ended);
        drop(pins);
    });
}

fn expect(kernel: &'static Kernel, one: &Modelled, n: u64) {
    let area = one.area(n, Order::ZERO);
    match (one.cells[to_usize(n)], kernel.load(&one.space, page(FIRST + n), &area)) {
        (_, Err(FaultError::OutOfMemory)) => {}
        (Cell::Guard, found) => assert_eq!(found, Err(FaultError::Guard(page(FIRST + n))), "page {n}"),
        (Cell::Value(value), found) => assert_eq!(found.map(|(value, _)| value), Ok(value), "page {n}"),
    }
}

fn one_step(
    kernel: &'static Kernel,
    random: &mut Random,
    spaces: &mut [Modelled],
    who: usize,
    next: &mut u64,
) -> Result<(), PagesError> {
    let gfp = Gfp::KERNEL | Gfp::NOWARN;
    let n = random.below(PAGES);
    let largest = if random.below(4) == 0 { Backing::RUN } else { Order::ZERO };
    let one = &mut spaces[who];
    match random.below(100) {
        0..40 => {
            let area = one.area(n, largest);
            *next += 1;
            match kernel.store(&one.space, page(FIRST + n), &area, *next) {
                Ok(_) => {
                    assert!(area.permits(FaultAccess::Write) && one.cells[to_usize(n)] != Cell::Guard);
                    one.cells[to_usize(n)] = Cell::Value(*next);
                }
                Err(FaultError::Denied(_)) => assert!(!area.permits(FaultAccess::Write)),
                Err(FaultError::Guard(_)) => assert_eq!(one.cells[to_usize(n)], Cell::Guard),
                Err(error) => return Err(error.into()),
            }
        }
        40..70 => expect(kernel, one, n),
        70..76 => {
            let (first, count) = span(random);
            let range = pages(FIRST + first, count);
            let hole = if random.below(2) == 0 { range } else { pages(FIRST, PAGES) };
            one.space.unmap(range, hole, gfp)?;
            one.clear(first, count, false);
        }
        76..80 => {
            let (first, count) = span(random);
            one.space.discard(pages(FIRST + first, count), gfp)?;
            one.clear(first, count, true);
        }
        80..86 => {
            let (first, count) = span(random);
            let access =
                [Access::ReadOnly, Access::ReadWrite, Access::ReadWrite, Access::Execute][to_usize(random.below(4))];
            one.space.protect(pages(FIRST + first, count), access, Sharing::Private, gfp)?;
            one.access[to_usize(first)..to_usize(first + count)].fill(access);
        }
        86..88 => {
            let (first, count) = span(random);
            let on = random.below(3) != 0;
            one.space.guard(pages(FIRST + first, count), on, gfp)?;
            for cell in &mut one.cells[to_usize(first)..to_usize(first + count)] {
                *cell = match *cell {
                    _ if on => Cell::Guard,
                    Cell::Guard => Cell::Value(0),
                    value => value,
                };
            }
        }
        88..90 => {
            let area = one.area(n, largest);
            match one.space.populate(area.range, &area, gfp) {
                Err(PagesError::Fault(FaultError::Guard(_))) => {}
                other => other?,
            }
        }
        90..92 => {
            // There and back again.
            let (first, count) = span(random);
            let there = pages(ELSEWHERE + random.below(600), count);
            one.space.relocate(pages(FIRST + first, count), there.start(), gfp)?;
            kernel.sim.fail_allocation_after(None);
            one.space.relocate(there, page(FIRST + first), gfp)?;
        }
        92..95 => {
            let area = one.area(n, Order::ZERO);
            let write = random.below(2) == 0;
            match one.space.pin(page(FIRST + n), write, &area, gfp) {
                Ok(pinned) => {
                    let Cell::Value(value) = one.cells[to_usize(n)] else { panic!("a guard page is pinned") };
                    assert_eq!(kernel.sim.peek(pinned.phys()), value, "page {n}");
                    if write {
                        // A device.
                        *next += 1;
                        kernel.sim.poke(pinned.phys(), *next);
                        one.cells[to_usize(n)] = Cell::Value(*next);
                    }
                    if one.pinned.len() < 6 {
                        one.pinned.push((n, pinned));
                    }
                }
                Err(FaultError::OutOfMemory) => return Err(PagesError::OutOfMemory),
                Err(_) => {}
            }
        }
        95..97 => {
            if !one.pinned.is_empty() {
                let index = to_usize(random.below(one.pinned.len() as u64));
                one.pinned.swap_remove(index).1.unpin();
            }
        }
        _ => {
            // A child takes the place of another space.
            let child = (who + 1 + to_usize(random.below(SPACES as u64 - 1))) % SPACES;
            let asid = spaces[child].space.asid().get();
            let Ok(mut space) = quarry::mm::user::pages::UserPages::new(
                super::machine::Handle(kernel),
                quarry::hal::mmu::Asid::new(asid ^ 64),
                gfp,
            ) else {
                return Err(PagesError::OutOfMemory);
            };
            let forked = spaces[who].space.fork(&mut space, [(pages(FIRST, PAGES), Sharing::Private)], gfp);
            if forked.is_err() {
                space.destroy();
                return forked;
            }
            let (cells, access) = (spaces[who].cells.clone(), spaces[who].access.clone());
            kernel.run_everywhere(&spaces[who].space);
            let child = &mut spaces[child];
            let old = std::mem::replace(&mut child.space, space);
            (child.cells, child.access) = (cells, access);
            old.destroy();
            kernel.retire(quarry::hal::mmu::Asid::new(asid));
            // Devices go on with pages that their space has given up.
            let keep = random.below(2) == 0;
            if !keep {
                child.pinned.clear();
            }
        }
    }
    Ok(())
}

#[test]
fn random_histories_keep_every_byte_and_every_invariant() {
    let steps = |steps| if cfg!(miri) { 60 } else { steps };
    history(Config::CORTEX_A72, 0x5eed_0001, steps(15_000), None);
    history(Config { eager: false, ..Config::CORTEX_A72 }, 0x5eed_0002, steps(45_000), None);
    history(Config { visibility: Visibility::Mixed(3), ..Config::MAX }, 0x5eed_0003, steps(10_000), None);
}

#[test]
fn random_histories_in_which_allocations_fail_keep_every_byte() {
    let steps = |steps| if cfg!(miri) { 60 } else { steps };
    history(Config::CORTEX_A72, 0x5eed_0011, steps(6_000), Some(4));
    history(Config { eager: false, ..Config::MAX }, 0x5eed_0012, steps(24_000), Some(9));
}
