//! The benchmark of mappings, on one CPU and on four.

use log::info;
use quarry::kernel::dma_benchmark::{BenchmarkError, DmaBenchmark, DmaLatency};
use quarry::ktest;
use quarry::mm::dma::DmaDirection;

const RUN: DmaBenchmark =
    DmaBenchmark { threads: 1, seconds: 1, granule: 1, bits: 64, direction: DmaDirection::ToDevice, coherent: false };

// Behaviour 324
ktest!(mapping_is_timed_on_one_cpu_and_on_four, machine = "smp=4", timeout = 120, report = "map_latency: ");
fn mapping_is_timed_on_one_cpu_and_on_four() {
    for (threads, granule, direction) in
        [(1, 1, DmaDirection::ToDevice), (1, 1024, DmaDirection::FromDevice), (4, 16, DmaDirection::Bidirectional)]
    {
        let run = DmaBenchmark { threads, granule, direction, ..RUN };
        let latency = run.run().expect("memory");
        info!("map_latency: {threads} CPUs, {granule} pages, {direction:?}: {latency}");
        let DmaLatency { loops, map, unmap } = latency;
        assert!(loops >= u64::from(threads) && map.mean > 0 && unmap.mean > 0, "{latency:?}");
    }
}

// Behaviour 324
ktest!(
    parameters_out_of_range_are_refused,
    machine = "smp=2",
    report = "sleeping function called in atomic context (interrupts are masked): dma_map_benchmark"
);
fn parameters_out_of_range_are_refused() {
    for threads in [0, 3, u32::MAX] {
        assert_eq!(DmaBenchmark { threads, ..RUN }.run(), Err(BenchmarkError::Threads(threads)));
    }
    for seconds in [0, DmaBenchmark::MAX_SECONDS + 1] {
        assert_eq!(DmaBenchmark { seconds, ..RUN }.run(), Err(BenchmarkError::Seconds(seconds)));
    }
    for granule in [0, DmaBenchmark::MAX_GRANULE + 1] {
        assert_eq!(DmaBenchmark { granule, ..RUN }.run(), Err(BenchmarkError::Granule(granule)));
    }
    for bits in [0, 19, 65] {
        assert_eq!(DmaBenchmark { bits, ..RUN }.run(), Err(BenchmarkError::Bits(bits)));
    }
    let masked = quarry::arch::aarch64::irq::local_irq_save();
    assert_eq!(RUN.run(), Err(BenchmarkError::Atomic));
    drop(masked);
}
