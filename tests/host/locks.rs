//! The order of locks: docs/locks.md says what the code says, and what is against the order is found.

use core::panic::Location;
use quarry::arch::host;
use quarry::arch::host::Spin;
use quarry::sync::class::{Class, Console, Embedder, Hotplug, Interrupts, LOCK_CLASSES, SlabNode, SlabRegistry, Zone};
use quarry::sync::{HeldLocks, LockContext, OrderedLock, Violation};
use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

fn here() -> &'static Location<'static> {
    Location::caller()
}

#[test]
fn the_page_lists_the_classes_of_the_code_in_their_order() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/locks.md");
    let page = fs::read_to_string(page).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| level "));
    let listed: Vec<[String; 3]> = rows
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [level, class, interrupts, protects] = cells[..] else { panic!("four cells: {row}") };
            assert!(!protects.is_empty(), "it protects nothing: {row}");
            [level, class, interrupts].map(str::to_owned)
        })
        .collect();
    let declared: Vec<[String; 3]> = LOCK_CLASSES
        .iter()
        .map(|class| {
            let interrupts = format!("{:?}", class.interrupts).to_lowercase();
            [class.level.to_string(), class.name.to_owned(), interrupts]
        })
        .collect();
    assert_eq!(listed, declared);
    assert!(LOCK_CLASSES.iter().map(|class| class.name).collect::<BTreeSet<_>>().len() == LOCK_CLASSES.len());
}

/// Every file under `folder`, with its text.
fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn there_is_no_lock_without_a_class_and_no_class_without_a_lock() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let order = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sync/class.rs")).unwrap();
    let types = order.lines().filter_map(|line| line.trim().split_once(" = \"")).map(|(name, _)| name);
    let types: Vec<&str> = types.filter(|name| name.chars().all(char::is_alphanumeric)).collect();
    assert_eq!(types.len(), LOCK_CLASSES.len());
    for name in types {
        let used = |text: &str| {
            let uses = [format!("class::{name},"), format!("class::{name}>"), format!("{name}, ")];
            uses.iter().any(|form| text.contains(form))
        };
        let users = files.iter().filter(|(path, text)| !path.ends_with("sync/class.rs") && used(text));
        assert!(users.count() > 0, "no lock is of class {name}");
    }
    for (path, text) in &files {
        // The lock of a process's areas sleeps, so that it comes before all others: `might_sleep` asserts that none is held.
        let sleeps = path.ends_with("mm/user/map_lock.rs");
        // The lock around a process's memory is held for a whole turn of its thread, and taken for writing with no lock held.
        let turn = path.ends_with("kernel/process/spaces.rs");
        // Read while a page of the object is allocated, and never waited for: the one writer is the last to know the object.
        let object = path.ends_with("kernel/process/shared.rs");
        let own = path.ends_with("sync/ordered.rs") || path.contains("arch/host/") || sleeps || turn || object;
        for lock in ["SpinMutex", "spin::mutex", "spin::Mutex", "RwLock", "TicketMutex"] {
            assert!(own || !text.contains(lock), "{path} has a lock without a place in the order: {lock}");
        }
    }
}

#[test]
fn what_may_be_taken_inside_of_what() {
    let held = HeldLocks::new();
    held.enforce(true);
    held.take(SlabNode::CLASS, 0x10, here()).unwrap();
    let try_take = |class, address| held.may_take(class, address, LockContext::Unknown, here());
    assert!(try_take(Zone::CLASS, 0x20).is_ok(), "further down");
    assert!(matches!(try_take(SlabRegistry::CLASS, 0x20), Err(Violation::Order(..))), "further up");
    assert!(matches!(try_take(SlabNode::CLASS, 0x20), Err(Violation::Order(..))), "of the same kind");
    assert!(matches!(try_take(SlabNode::CLASS, 0x10), Err(Violation::Double(..))), "the same");
    held.give(SlabNode::CLASS, 0x10, LockContext::Unknown).unwrap();
    assert!(try_take(SlabRegistry::CLASS, 0x20).is_ok());
    assert!(try_take(SlabNode::CLASS, 0x10).is_ok());
}

#[test]
fn every_class_counts_against_every_other_by_its_place() {
    for (outer_place, outer) in LOCK_CLASSES.iter().enumerate() {
        assert_eq!(usize::from(outer.level), outer_place);
        for (inner_place, inner) in LOCK_CLASSES.iter().enumerate() {
            let held = HeldLocks::new();
            held.enforce(true);
            held.take(outer, 8, here()).unwrap();
            let allowed = held.may_take(inner, 16, LockContext::Unknown, here()).is_ok();
            let embedder = inner_place == 0 && outer_place == 0;
            assert_eq!(allowed, inner_place > outer_place || embedder, "{} inside of {}", inner.name, outer.name);
        }
    }
}

#[test]
fn interrupts_are_as_the_class_wants() {
    use LockContext::{Handler, Masked, Unknown, Unmasked};
    let held = HeldLocks::new();
    held.enforce(true);
    for class in LOCK_CLASSES {
        let allowed =
            [Unmasked, Masked, Handler, Unknown].map(|context| held.may_take(class, 8, context, here()).is_ok());
        let expected = match class.interrupts {
            Interrupts::Masked => [false, true, true, true],
            Interrupts::Unmasked => [true, false, false, true],
            Interrupts::Either => [true, true, false, true],
        };
        assert_eq!(allowed, expected, "{}", class.name);
    }
    held.take(Zone::CLASS, 8, here()).unwrap();
    assert!(matches!(held.give(Zone::CLASS, 8, Unmasked), Err(Violation::Unmasked(_))));
    assert_eq!(held.iter().count(), 0, "given back all the same");
    held.take(Hotplug::CLASS, 8, here()).unwrap();
    assert!(held.give(Hotplug::CLASS, 8, Unmasked).is_ok());
}

#[test]
fn until_booting_is_over_only_a_deadlock_counts() {
    let held = HeldLocks::new();
    held.take(Console::CLASS, 8, here()).unwrap();
    assert!(held.may_take(Hotplug::CLASS, 16, LockContext::Masked, here()).is_ok());
    assert!(matches!(held.may_take(Console::CLASS, 8, LockContext::Masked, here()), Err(Violation::Double(..))));
}

#[test]
fn locks_are_given_back_in_any_order_and_too_many_are_refused() {
    let held = HeldLocks::new();
    let mut most = 0;
    while held.take(Embedder::CLASS, 8 * most, here()).is_ok() {
        most += 1;
    }
    assert!((8..100).contains(&most));
    for number in (0..most).step_by(2).chain((1..most).step_by(2)) {
        held.give(Embedder::CLASS, 8 * number, LockContext::Unknown).unwrap();
        assert!(held.iter().all(|left| left.class() == Embedder::CLASS));
    }
    assert_eq!(held.iter().count(), 0);
    assert!(held.take(Embedder::CLASS, 8, here()).is_ok(), "there is room again");
    assert!(held.give(Embedder::CLASS, 16, LockContext::Unknown).is_ok(), "what is not held is not given back");
    assert_eq!(held.iter().count(), 1);
}

fn panic_of(body: impl FnOnce() + std::panic::UnwindSafe) -> String {
    let payload = catch_unwind(body).unwrap_err();
    payload.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn threads_are_held_to_the_order_and_the_report_names_both_places() {
    let report = panic_of(|| {
        let (zone, node) = (OrderedLock::<_, Zone, Spin>::new(()), OrderedLock::<_, SlabNode, Spin>::new(()));
        let _outer = zone.lock();
        let _inner = node.lock();
    });
    assert!(report.starts_with("lock order: \"slab node\" (level "), "{report}");
    assert_eq!(report.matches("tests/host/locks.rs:").count(), 2, "{report}");
    let report = panic_of(|| {
        let zone = OrderedLock::<_, Zone, Spin>::new(());
        let _first = zone.lock();
        let _second = zone.lock();
    });
    assert!(report.starts_with("deadlock: lock \"zone\" at 0x"), "{report}");
    assert_eq!(report.matches("tests/host/locks.rs:").count(), 2, "{report}");
    host::with_held(&mut |held, _| assert_eq!(held.iter().count(), 0, "unwinding gives locks back"));
}

#[test]
fn a_lock_that_is_tried_is_held_and_counts() {
    let zone = OrderedLock::<_, Zone, Spin>::new(1);
    let node = OrderedLock::<_, SlabNode, Spin>::new(2);
    let outer = zone.lock();
    assert!(zone.try_lock().is_none());
    let inner = node.try_lock().expect("nobody waits, so any order will do");
    drop(outer);
    let again = zone.lock_inside(&inner);
    assert_eq!(*again + *inner, 3);
}

// A lock that is given back first although it was taken first hides nothing.
#[test]
fn locks_given_back_out_of_order_leave_the_others_held() {
    let held = HeldLocks::new();
    held.enforce(true);
    for (class, address) in [(SlabRegistry::CLASS, 0x10), (SlabNode::CLASS, 0x20), (Zone::CLASS, 0x30)] {
        held.take(class, address, here()).unwrap();
    }
    held.give(SlabRegistry::CLASS, 0x10, LockContext::Unknown).unwrap();
    let names: Vec<&str> = held.iter().map(|held| held.class().name).collect();
    assert_eq!(names, [SlabNode::CLASS.name, Zone::CLASS.name]);
    let again = |class, address| held.may_take(class, address, LockContext::Unknown, here());
    assert!(matches!(again(SlabNode::CLASS, 0x20), Err(Violation::Double(..))));
    assert!(matches!(again(Zone::CLASS, 0x30), Err(Violation::Double(..))));
    assert!(matches!(again(SlabNode::CLASS, 0x40), Err(Violation::Order(..))));
    held.give(SlabNode::CLASS, 0x20, LockContext::Unknown).unwrap();
    assert!(matches!(again(Zone::CLASS, 0x30), Err(Violation::Double(..))));
    held.give(Zone::CLASS, 0x30, LockContext::Unknown).unwrap();
    assert!(again(SlabRegistry::CLASS, 0x10).is_ok());
}
