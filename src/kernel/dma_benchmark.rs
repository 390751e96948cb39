//! How long mapping and unmapping takes, on several CPUs at once (Linux: `kernel/dma/map_benchmark.c`).

use super::cpus::run_everywhere;
use crate::addr::{Address as _, Order, PAGE_SIZE, VirtAddr};
use crate::arch::aarch64::counter;
use crate::arch::aarch64::cpu::Relax;
use crate::gfp::Gfp;
use crate::global::{self, online_cpus};
use crate::hal::patience::{Patience, elapsed};
use crate::mm::dma::{Bidirectional, Device, DeviceSpec, Direction, DmaDirection, DmaError, FromDevice, ToDevice};
use crate::sync::Once;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

/// Parameters of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DmaBenchmark {
    /// CPUs that map at the same time, at least one.
    pub threads: u32,
    /// How long, 1 to [`MAX_SECONDS`](Self::MAX_SECONDS).
    pub seconds: u32,
    /// Pages of a buffer, 1 to [`MAX_GRANULE`](Self::MAX_GRANULE).
    pub granule: u32,
    /// Address lines of the device, 20 to 64.
    pub bits: u32,
    /// Direction of the transfers.
    pub direction: DmaDirection,
    /// Whether the device snoops the caches.
    pub coherent: bool,
}

/// Reason why a run did not begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BenchmarkError {
    /// No thread, or more than CPUs are online.
    Threads(u32),
    /// No second, or more than [`DmaBenchmark::MAX_SECONDS`].
    Seconds(u32),
    /// No page, or more than [`DmaBenchmark::MAX_GRANULE`].
    Granule(u32),
    /// Fewer than 20 address lines or more than 64.
    Bits(u32),
    /// A buffer could not be had or mapped.
    Dma(DmaError),
    /// No memory for a buffer.
    NoMemory,
    /// The run sleeps, and its caller may not, which has been reported.
    Atomic,
}

impl fmt::Display for BenchmarkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threads(count) => write!(f, "{count} threads: from 1 to as many as CPUs are online"),
            Self::Seconds(count) => write!(f, "{count} seconds: from 1 to {}", DmaBenchmark::MAX_SECONDS),
            Self::Granule(count) => write!(f, "{count} pages: from 1 to {}", DmaBenchmark::MAX_GRANULE),
            Self::Bits(count) => write!(f, "{count} address lines: from 20 to 64"),
            Self::Dma(error) => error.fmt(f),
            Self::NoMemory => f.write_str("no memory for a buffer"),
            Self::Atomic => f.write_str("the run sleeps, and sleeping is not allowed here"),
        }
    }
}

impl core::error::Error for BenchmarkError {}

/// Mean and standard deviation, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Latency {
    /// The mean.
    pub mean: u64,
    /// The standard deviation.
    pub deviation: u64,
}

/// Result of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DmaLatency {
    /// Buffers that were mapped and unmapped, on all CPUs.
    pub loops: u64,
    /// Time of a map call.
    pub map: Latency,
    /// Time of an unmap call.
    pub unmap: Latency,
}

impl fmt::Display for DmaLatency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { loops, map, unmap } = self;
        writeln!(f, "{loops} buffers: map {} ns (standard deviation {} ns)", map.mean, map.deviation)?;
        write!(f, "unmap {} ns (standard deviation {} ns)", unmap.mean, unmap.deviation)
    }
}

/// Sums that all CPUs add to, in ticks of the counter.
#[derive(Default)]
struct Sums {
    ticks: AtomicU64,
    squares: AtomicU64,
}

impl Sums {
    fn add(&self, ticks: u64) {
        self.ticks.fetch_add(ticks, Ordering::Relaxed);
        self.squares.fetch_add(ticks.saturating_mul(ticks), Ordering::Relaxed);
    }

    fn latency(&self, loops: u64) -> Latency {
        let nanoseconds = |ticks: u64| ticks.saturating_mul(1_000_000_000) / counter::frequency();
        let loops = loops.max(1);
        let (ticks, squares) = (self.ticks.load(Ordering::Relaxed), self.squares.load(Ordering::Relaxed));
        // E(x²) - E(x)², in ticks of which a thousandth counts.
        let mean = ticks.saturating_mul(1000) / loops;
        let variance = (squares.saturating_mul(1_000_000) / loops).saturating_sub(mean.saturating_mul(mean));
        Latency { mean: nanoseconds(mean) / 1000, deviation: nanoseconds(variance.isqrt()) / 1000 }
    }
}

/// The run that all CPUs take part in.
struct Run<'d> {
    device: &'d Device,
    bytes: u64,
    limit: u64,
    loops: AtomicU64,
    map: Sums,
    unmap: Sums,
}

impl Run<'_> {
    fn on_this_cpu<D: Direction>(&self, at: VirtAddr) -> Result<(), DmaError> {
        let mut patience = Patience::new(counter::ticks(), self.limit);
        while patience.is_left(counter::ticks()) {
            if D::TO_DEVICE {
                // SAFETY: the buffer is this CPU's. A driver writes what it sends, so that lines are dirty.
                unsafe { at.as_ptr::<u8>().write_bytes(0x66, crate::addr::to_usize(self.bytes)) };
            }
            let begun = counter::ticks();
            // SAFETY: the buffer is this CPU's, and no device is there.
            let bus = unsafe { global::dma_map_single::<D>(self.device, at, self.bytes) }?;
            let mapped = counter::ticks();
            self.map.add(elapsed(begun, mapped));
            // SAFETY: mapped by the call above.
            unsafe { global::dma_unmap_single::<D>(self.device, bus, self.bytes) }?;
            self.unmap.add(elapsed(mapped, counter::ticks()));
            self.loops.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn on_one(&self, direction: DmaDirection) -> Result<(), BenchmarkError> {
        let order = Order::for_bytes(self.bytes).ok_or(BenchmarkError::NoMemory)?;
        let at = global::get_free_pages(Gfp::KERNEL, order).map_err(|_| BenchmarkError::NoMemory)?.at();
        let done = match direction {
            DmaDirection::ToDevice => self.on_this_cpu::<ToDevice>(at),
            DmaDirection::FromDevice => self.on_this_cpu::<FromDevice>(at),
            DmaDirection::Bidirectional => self.on_this_cpu::<Bidirectional>(at),
        };
        // SAFETY: allocated above, and not mapped any more.
        unsafe { global::free_pages(at, order) };
        done.map_err(BenchmarkError::Dma)
    }
}

impl DmaBenchmark {
    /// The longest run, in seconds.
    pub const MAX_SECONDS: u32 = 300;
    /// The largest buffer, in pages: 4 MiB.
    pub const MAX_GRANULE: u32 = 1024;

    /// Runs the benchmark on the first CPUs for the requested time. Only where sleeping is allowed: it waits for other CPUs.
    ///
    /// # Errors
    ///
    /// [`BenchmarkError`]: a parameter out of its range, which is said before anything is done; or the first failure of a CPU.
    pub fn run(self) -> Result<DmaLatency, BenchmarkError> {
        global::might_sleep("dma_map_benchmark").map_err(|_| BenchmarkError::Atomic)?;
        let Self { threads, seconds, granule, bits, direction, coherent } = self;
        let cpus = u32::try_from(online_cpus().count()).unwrap_or(u32::MAX);
        if threads == 0 || threads > cpus {
            return Err(BenchmarkError::Threads(threads));
        }
        if seconds == 0 || seconds > Self::MAX_SECONDS {
            return Err(BenchmarkError::Seconds(seconds));
        }
        if granule == 0 || granule > Self::MAX_GRANULE {
            return Err(BenchmarkError::Granule(granule));
        }
        if !(20..=64).contains(&bits) {
            return Err(BenchmarkError::Bits(bits));
        }
        let mut device = global::dma_device(&DeviceSpec::new("dma_map_benchmark").with_coherent(coherent));
        global::dma_set_mask(&mut device, global::dma_bit_mask(bits)).map_err(BenchmarkError::Dma)?;
        let run = Run {
            device: &device,
            bytes: u64::from(granule) * PAGE_SIZE,
            limit: u64::from(seconds) * counter::frequency(),
            loops: AtomicU64::new(0),
            map: Sums::default(),
            unmap: Sums::default(),
        };
        let failed = Once::<BenchmarkError, Relax>::new();
        let joined = AtomicU64::new(0);
        run_everywhere(&|_| {
            if joined.fetch_add(1, Ordering::Relaxed) < u64::from(threads)
                && let Err(error) = run.on_one(direction)
            {
                failed.call_once(|| error);
            }
        });
        if let Some(error) = failed.get() {
            return Err(*error);
        }
        let loops = run.loops.load(Ordering::Relaxed);
        Ok(DmaLatency { loops, map: run.map.latency(loops), unmap: run.unmap.latency(loops) })
    }
}
