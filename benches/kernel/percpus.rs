//! Per-CPU memory: `alloc_percpu/BYTES`, allocation and free together, and `this_cpu_inc`.

use crate::meter::{Figures, Meter, Unable};
use crate::rows::{QUARRY, Row};
use core::hint::black_box;
use core::sync::atomic::AtomicU64;
use quarry::global;

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    Row { name: "alloc_percpu/8", by: QUARRY, run: alloc_percpu::<8> },
    Row { name: "alloc_percpu/64", by: QUARRY, run: alloc_percpu::<64> },
    Row { name: "this_cpu_inc", by: QUARRY, run: this_cpu_inc },
];

quarry::define_per_cpu! {
    static COUNT: AtomicU64 = AtomicU64::new(0);
}

fn alloc_percpu<const BYTES: usize>(meter: &mut Meter) -> Result<Figures, Unable> {
    // A chunk whose first page is there, as after the first allocation of any kernel.
    let warm = global::alloc_percpu(BYTES, 8).map_err(|_| "alloc_percpu failed")?;
    let mut done = true;
    let figures = meter.measure(|| match global::alloc_percpu(black_box(BYTES), 8) {
        Ok(ptr) => done &= raw!(global::try_free_percpu(black_box(ptr))).is_ok(),
        Err(_) => done = false,
    });
    done &= raw!(global::try_free_percpu(warm)).is_ok();
    if done { Ok(figures) } else { Err("alloc_percpu or free_percpu failed") }
}

fn this_cpu_inc(meter: &mut Meter) -> Result<Figures, Unable> {
    let before = global::this_cpu_read(&COUNT);
    let figures = meter.measure(|| global::this_cpu_inc(&COUNT));
    if global::this_cpu_read(&COUNT) != before { Ok(figures) } else { Err("nothing was counted") }
}
