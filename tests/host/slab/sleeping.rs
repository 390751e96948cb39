//! Functions that may sleep: each says so, and refuses where that is not legal before it changes anything.

use super::*;
use machine::in_interrupt;
use quarry::mm::alloc::{Cache as Typed, Constructed, ConstructedCache};
use quarry::mm::slab::{CreateError, DestroyError, SlabFlags};
use quarry::mm::zone::SleepsInAtomic;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the functions of the slab layer are.
const SOURCES: [&str; 3] = ["src/mm/slab", "src/mm/alloc", "src/global"];
/// The documentation phrase of each function that may sleep.
const WORDS: &str = "where sleeping is allowed";

struct Value {
    #[expect(dead_code, reason = "a type without bytes has no cache")]
    number: u64,
}

impl Constructed for Value {
    fn construct() -> Self {
        Self { number: 1 }
    }
}

/// The files of the slab layer, by their path.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = SOURCES.iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else {
                let name = entry.strip_prefix(root.join("src")).unwrap().to_str().unwrap().to_owned();
                // Of the statics, what is about objects.
                if !name.starts_with("global") || ["global/slab.rs", "global/alloc.rs"].contains(&name.as_str()) {
                    files.push((name, fs::read_to_string(entry).unwrap()));
                }
            }
        }
    }
    files
}

/// The functions whose documentation says that they may sleep: file and name.
fn documented() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (file, text) in sources() {
        let mut words = String::new();
        for line in text.lines().map(str::trim) {
            if let Some(comment) = line.strip_prefix("///") {
                words.push_str(comment);
            } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| !line.starts_with("//")) {
                let name = rest.split(['(', '<']).next().unwrap();
                if words.to_lowercase().contains(WORDS) {
                    found.insert(format!("{file} {name}"));
                }
                words.clear();
            } else if !line.starts_with("#[") && !line.starts_with("// ") {
                words.clear();
            }
        }
    }
    found
}

/// The names that the functions give to the helper.
fn asserted() -> BTreeSet<String> {
    let texts = sources();
    let calls = texts.iter().flat_map(|(_, text)| text.split("might_sleep(\"").skip(1));
    calls.map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn what_may_sleep_refuses_in_atomic_context_before_it_changes_anything() {
    let reported = RefCell::new(BTreeSet::new());
    Spec::of_size(16 << 20).run(|slabs| {
        // With something to give back.
        let cache = slabs.create(&spec("test", 64)).unwrap();
        let objects = take(slabs, cache.cache(), 500);
        give(slabs, cache.cache(), objects);
        let typed = Typed::<u64, _>::create_in("typed", SlabFlags::empty(), slabs).unwrap();
        let made = ConstructedCache::<Value, _>::create_in("made", SlabFlags::empty(), slabs).unwrap();
        let (cache, typed, made) = (RefCell::new(Some(cache)), RefCell::new(Some(typed)), RefCell::new(Some(made)));
        let refusal = |call| SleepsInAtomic { call };
        let create = CreateError::Atomic(refusal("SlabAllocator::create"));
        let destroy = DestroyError::Atomic(refusal("SlabAllocator::destroy"));
        // The phrase of a call that only forwards is that of its target.
        let calls: [(&[&str], &dyn Fn()); 10] = [
            (&["mm/slab/calls/registry.rs create", "mm/alloc/kmem.rs create", "global/slab.rs create"], &|| {
                assert_eq!(slabs.create(&spec("none", 64)).map(|_| ()).unwrap_err(), create);
            }),
            (&["mm/alloc/cache.rs create", "mm/alloc/cache.rs create_in"], &|| {
                let none = Typed::<u32, _>::create_in("none", SlabFlags::empty(), slabs);
                assert_eq!(none.map(|_| ()).unwrap_err(), create);
            }),
            (&[], &|| {
                let none = ConstructedCache::<Value, _>::create_in("none", SlabFlags::empty(), slabs);
                assert_eq!(none.map(|_| ()).unwrap_err(), create);
            }),
            (&["mm/slab/calls/registry.rs destroy", "mm/alloc/kmem.rs destroy", "global/slab.rs destroy"], &|| {
                let (back, why) = slabs.destroy(cache.take().unwrap()).unwrap_err();
                assert_eq!(why, destroy);
                cache.replace(Some(back));
            }),
            (&["mm/alloc/cache.rs destroy"], &|| {
                let (back, why) = typed.take().unwrap().destroy().unwrap_err();
                assert_eq!(why, destroy);
                typed.replace(Some(back));
                let (back, why) = made.take().unwrap().destroy().unwrap_err();
                assert_eq!(why, destroy);
                made.replace(Some(back));
            }),
            (&["mm/slab/depot/shrink.rs shrink", "global/slab.rs shrink"], &|| {
                assert!(!slabs.shrink(cache.borrow().as_ref().unwrap().cache()));
            }),
            (&["mm/slab/depot/shrink.rs shrink_all"], &|| assert!(!slabs.shrink_all())),
            (&["mm/slab/calls/registry.rs for_each"], &|| {
                let refused = slabs.for_each(|cache| panic!("{}", cache.name()));
                assert_eq!(refused, Err(refusal("SlabAllocator::for_each")));
            }),
            (&["mm/slab/views/check.rs check"], &|| assert_eq!(slabs.check().unwrap_err().tag, "CONTEXT")),
            (&["mm/slab/views/slabinfo.rs slabinfo"], &|| {
                let lines = slabs.slabinfo().to_string();
                assert_eq!(
                    lines.lines().nth(2),
                    Some("SlabAllocator::for_each may sleep, and was called in atomic context")
                );
            }),
        ];
        let state = || {
            let cache = cache.borrow();
            let mut all = Vec::new();
            slabs.for_each(|cache| all.push((cache.name(), format!("{:?}", slabs.info(cache))))).unwrap();
            (slabs.info(cache.as_ref().unwrap().cache()), all, slabs.pages().free_page_count())
        };
        let mut named = BTreeSet::new();
        for (names, call) in calls {
            let before = state();
            in_interrupt(call);
            assert_eq!(state(), before, "{names:?}");
            let calls = std::mem::take(&mut *slabs.hal().atomic_calls.lock().unwrap());
            assert!(!calls.is_empty(), "{names:?}");
            reported.borrow_mut().extend(calls.into_iter().map(str::to_owned));
            named.extend(names.iter().map(|name| (*name).to_owned()));
        }
        assert_eq!(named, documented(), "the list here, and what the documentation says");
        // And where it is legal they do what they are for.
        assert!(slabs.shrink(cache.borrow().as_ref().unwrap().cache()));
        slabs.destroy(cache.take().unwrap()).unwrap();
        typed.take().unwrap().destroy().unwrap();
        assert!(made.take().unwrap().destroy().is_ok());
        assert!(slabs.hal().atomic_calls.lock().unwrap().is_empty());
    });
    assert_eq!(reported.into_inner(), asserted(), "every assertion has been met");
}
