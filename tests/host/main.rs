//! Host tests: the same library on a desk machine, against models and the simulated machine.
#![expect(
    clippy::unwrap_used,
    reason = "a test's own helpers panic as the test does; clippy knows only #[test] for one"
)]

/// A raw call of a test: on what it owns itself, or with a name that the call has to refuse.
macro_rules! raw {
    ($call:expr) => {{
        // SAFETY: what is named is the caller's own and not used afterwards, or nobody's, and refused.
        unsafe { $call }
    }};
}

#[cfg(test)]
mod alloc;
mod assembly;
mod behaviours;
mod bootargs;
mod circles;
// Reads the sources.
#[cfg(test)]
mod dma;
#[cfg(all(test, not(miri)))]
mod embedding;
mod errata;
mod fault_inject;
mod fdt;
mod features;
// Reads the pages and the sources.
#[cfg(all(test, not(miri)))]
mod guide;
#[cfg(test)]
mod io;
mod kernel;
mod layering;
#[cfg(test)]
mod litmus;
mod locks;
// Starts programs, which Miri cannot.
#[cfg(not(miri))]
mod machine_setup;
// Reads the sources.
#[cfg(all(test, not(miri)))]
mod may_sleep;
#[cfg(test)]
mod memblock;
#[cfg(test)]
mod mempool;
mod misuse;
mod owner_map;
#[cfg(test)]
mod pages;
mod percpu;
mod pgtable;
// Reads the sources.
#[cfg(all(test, not(miri)))]
mod pictures;
#[cfg(test)]
mod promises;
mod random;
// Reads the sources.
#[cfg(not(miri))]
mod raw_calls;
// Reads the sources.
#[cfg(not(miri))]
mod raw_face;
#[cfg(test)]
mod rbtree;
// Reads the sources.
#[cfg(all(test, not(miri)))]
mod session;
#[cfg(test)]
mod single;
#[cfg(test)]
mod slab;
// The model checker switches stacks, which Miri cannot.
#[cfg(all(test, not(miri)))]
mod sleep;
mod struct_page;
mod tags;
#[cfg(test)]
mod threads;
mod trap;
#[cfg(test)]
mod user_access;
#[cfg(test)]
mod user_asid;
#[cfg(test)]
mod user_map;
#[cfg(test)]
mod user_pages;
#[cfg(test)]
mod vmalloc;
// As above.
#[cfg(all(test, not(miri)))]
mod wait;
// Reads the sources.
#[cfg(not(miri))]
mod words;
