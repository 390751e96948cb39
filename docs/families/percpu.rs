use core::sync::atomic::{AtomicU64, Ordering};
use quarry::prelude::*;

/// Memory for each CPU: as a value, and by the raw calls.
pub fn example() -> Result<(), Error> {
    let counts = PerCpu::new(Gfp::KERNEL, |_| AtomicU64::new(0))?;
    counts.with_this_cpu(|count| count.fetch_add(1, Ordering::Relaxed));
    assert_eq!(counts.iter().map(|(_, count)| count.load(Ordering::Relaxed)).sum::<u64>(), 1);

    let words = alloc_percpu(8, 8)?;
    let first = per_cpu_ptr(words, CpuId::BOOT).as_ptr::<u64>();
    // SAFETY: a word of this allocation, which is ours.
    assert_eq!(unsafe { first.read() }, 0);
    // SAFETY: ours, and not used afterwards on any CPU.
    unsafe { free_percpu(words) };
    Ok(())
}
