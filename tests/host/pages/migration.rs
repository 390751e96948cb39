//! A thread that migrates to another CPU at every instruction where interrupts are open.

use super::machine::{MIB, Reclaiming, run_on};
use super::reclaim::{Cache, alloc, exhaust, finish};
use super::{Spec, blocks, order};
use quarry::addr::{CpuId, Order};
use quarry::gfp::Gfp;
use quarry::hal::cpu::PerCpu;
use quarry::hal::wait::{Context, Scope};
use quarry::mm::page::Page;
use quarry::mm::zone::{AllocError, PageBatch, scoped_gfp};
use quarry::sync;
use std::sync::atomic::Ordering;

const CPUS: u32 = 3;

fn machine() -> Reclaiming {
    Spec::of_size(32 * MIB).cpus(CPUS).with_reclaimer()
}

/// Runs `f` in a thread that migrates between CPUs, all of which run meanwhile. This one is played again afterwards.
fn everywhere<R>(machine: Reclaiming, f: impl FnOnce() -> R) -> R {
    let set_online = |online| (1..CPUS).for_each(|cpu| machine.pages.hal().set_online(cpu, online));
    let here = machine.pages.hal().cpu().get();
    set_online(true);
    let answer = machine.pages.hal().in_migrant(f);
    set_online(false);
    run_on(here);
    answer
}

/// Pages on the lists of every CPU.
fn fill_lists(machine: Reclaiming) {
    for cpu in 0..CPUS {
        run_on(cpu);
        for o in [0, 3] {
            let taken: Vec<Page> = (0..20).map(|_| machine.pages.alloc_pages(Gfp::ATOMIC, order(o)).unwrap()).collect();
            super::give_back(machine.pages, taken, order(o));
        }
        assert_ne!(machine.pages.pages_on_lists(CpuId::new(cpu)), 0);
    }
    run_on(0);
}

fn lists_are_empty(machine: Reclaiming) -> bool {
    (0..CPUS).all(|cpu| machine.pages.pages_on_lists(CpuId::new(cpu)) == 0)
}

#[test]
fn the_lists_of_every_cpu_are_emptied_wherever_the_thread_goes() {
    let machine = machine();
    for start in 0..CPUS {
        fill_lists(machine);
        run_on(start);
        everywhere(machine, || machine.pages.drain_all());
        assert!(lists_are_empty(machine), "begun on CPU {start}");
    }
    run_on(0);
    machine.pages.check().unwrap();
}

#[test]
fn a_scope_goes_where_its_thread_goes() {
    let machine = machine();
    let hal = machine.pages.hal();
    everywhere(machine, || {
        for scope in [Scope::Lock, Scope::Reclaim, Scope::Interrupt, Scope::Deferred, Scope::NoFs, Scope::Memalloc] {
            let mut seen = [false; CPUS as usize];
            let guard = sync::enter(hal, scope);
            while seen.contains(&false) {
                // Each look moves the thread on.
                assert!(hal.is_inside(scope), "{scope:?} is left behind");
                assert_eq!(hal.atomic().is_some(), scope.forbids_waiting(), "{scope:?}");
                let [cpu] = hal.cpus_inside(scope)[..] else { panic!("{scope:?} is on {:?}", hal.cpus_inside(scope)) };
                seen[cpu as usize] = true;
            }
            drop(guard);
            assert_eq!((hal.atomic(), hal.cpus_inside(scope)), (None, vec![]));
        }
    });
    for cpu in 0..CPUS {
        run_on(cpu);
        assert!(!hal.scopes_are_open(), "CPU {cpu}");
        assert_eq!(hal.atomic(), None);
    }
    run_on(0);
}

// The rules of a scope are those of the thread: on the CPU that it has left, waiting is legal and file systems are called.
#[test]
fn what_a_scope_forbids_is_forbidden_wherever_the_thread_goes() {
    let machine = machine();
    let hal = machine.pages.hal();
    let reports = || hal.watcher.atomic_sleeps.load(Ordering::Relaxed);
    let mut taken = Vec::new();
    everywhere(machine, || {
        let reclaims = sync::enter(hal, Scope::Reclaim);
        for wanted in 1..20 {
            taken.push(alloc(machine, Gfp::KERNEL, 0).unwrap());
            assert_eq!(reports(), wanted, "inside a reclaimer nobody waits");
        }
        drop(reclaims);
        let no_fs = sync::enter(hal, Scope::NoFs);
        for _ in 0..20 {
            assert_eq!(scoped_gfp(hal, Gfp::KERNEL), Gfp::NOFS);
            taken.push(alloc(machine, Gfp::KERNEL, 0).unwrap());
        }
        drop(no_fs);
        assert_eq!(scoped_gfp(hal, Gfp::KERNEL), Gfp::KERNEL);
    });
    assert_eq!(reports(), 19);
    finish(machine, taken);
}

#[test]
fn pages_come_and_go_wherever_the_thread_goes() {
    let machine = machine();
    let pages = machine.pages;
    let before = blocks(pages);
    everywhere(machine, || {
        let mut batch = PageBatch::<50>::new();
        let mut taken = Vec::new();
        for round in 0..200_u8 {
            let o = order(round % 11);
            taken.push((pages.alloc_pages(Gfp::KERNEL, o).unwrap(), o));
            if round % 3 == 0 {
                let (page, o) = taken.swap_remove(usize::from(round) % taken.len());
                raw!(pages.free_pages(page, o)).unwrap();
            }
            if round % 16 == 0 {
                assert_eq!(pages.alloc_pages_bulk(Gfp::KERNEL, &mut batch).unwrap(), 50);
                raw!(pages.free_pages_bulk(&mut batch)).unwrap();
            }
            if taken.len() > 8 {
                let (page, o) = taken.remove(0);
                raw!(pages.free_pages_cold(page, o)).unwrap();
            }
        }
        taken.into_iter().for_each(|(page, o)| raw!(pages.free_pages(page, o)).unwrap());
    });
    assert_eq!(blocks(pages), before);
    pages.check().unwrap();
}

#[test]
fn reclaim_goes_on_wherever_the_thread_goes() {
    let machine = machine();
    let hal = machine.pages.hal();
    let cache = Cache::new(machine);
    let place = machine.reclaim.shrinkers().register(hal, cache).unwrap();
    let mut taken = exhaust(machine);
    cache.pages.lock().unwrap().extend(taken.split_off(taken.len() - 500));
    everywhere(machine, || {
        for _ in 0..500 {
            taken.push(alloc(machine, Gfp::KERNEL, 0).unwrap());
        }
        assert_eq!(cache.len(), 0);
        assert_eq!(alloc(machine, Gfp::KERNEL, 0), Err(AllocError::OutOfMemory));
        let _ = machine.reclaim.balance(machine.pages);
        machine.reclaim.shrinkers().unregister(hal, place).unwrap();
        super::give_back(machine.pages, taken.drain(..100), Order::ZERO);
    });
    for cpu in 0..CPUS {
        run_on(cpu);
        assert!(!hal.scopes_are_open(), "CPU {cpu}");
    }
    run_on(0);
    finish(machine, taken);
}
