//! RAM behind a data cache, and devices that access it past the cache.
//!
//! CPUs access the RAM through plain pointers, of which the model sees nothing. So it keeps two copies of the RAM and finds
//! out by comparing them: **A** is the copy that CPUs read and write, the linear map; **M** is memory, the copy that devices
//! see, and that a non-cacheable mapping of a CPU reads and writes. A line that the cache holds has a **snapshot** S, which is
//! A as it was when the line came or was last written back: A differs from S where the line is dirty. Of a line that the cache
//! does not hold A is the same as M, unless a CPU has written to it since: then the cache holds it now.
//!
//! As unkind as the architecture permits: at each [`CachedRam::step`], and before each access of a device, a dirty line may be
//! written back, a clean one may be dropped, and a line may be fetched without an access, if it has a cacheable mapping.
//! Maintenance that no barrier has completed may not have happened yet when a device reads. All by a seed.

use crate::addr::{DmaAddr, PAGE_SIZE, PhysAddr, PhysRange, VirtAddr, VirtRange, to_usize};
use crate::hal::Internal;
use crate::hal::cache::DataCache;
use std::alloc::Layout;
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Both copies are aligned to this, so that an address in A is aligned as its physical address is.
const ALIGN: u64 = 2 << 20;

/// The parameters of the simulated cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheConfig {
    /// Bytes of a line: a power of two from 16 to 2048.
    pub line: u64,
    /// Seed of the spontaneous events and of their times.
    pub seed: u64,
    /// Most events at a step.
    pub events: u32,
}

/// A maintenance operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CacheCounts {
    /// Lines cleaned, with those that were cleaned and invalidated.
    pub cleaned: u64,
    /// Lines invalidated, with those that were cleaned and invalidated.
    pub invalidated: u64,
    /// Barriers.
    pub barriers: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Op {
    Clean,
    Invalidate,
    CleanAndInvalidate,
}

struct State {
    /// For each line: whether the cache holds it.
    present: Vec<bool>,
    snapshot: Vec<u8>,
    /// For each page: whether the linear map has it, so that its lines may be fetched.
    cacheable: Vec<bool>,
    /// Maintenance that no barrier has completed, in its order.
    pending: VecDeque<(Op, usize)>,
    counts: CacheCounts,
    violations: Vec<String>,
    random: u64,
}

/// A copy of the RAM.
struct Copy {
    start: NonNull<u8>,
    size: usize,
    /// The allocation that it lies in.
    block: NonNull<u8>,
    layout: Layout,
}

impl Copy {
    fn new(size: u64) -> Self {
        // The start is aligned here: a zeroed block that the allocator aligns is written at once, and this one is hardly used.
        let layout = Layout::from_size_align(to_usize(size + ALIGN), 1).unwrap_or(Layout::new::<u64>());
        assert!(layout.size() as u64 == size + ALIGN && size != 0, "RAM of {size} bytes");
        // SAFETY: the size is not zero.
        let block = unsafe { std::alloc::alloc_zeroed(layout) };
        let Some(block) = NonNull::new(block) else { std::alloc::handle_alloc_error(layout) };
        let offset = block.as_ptr().align_offset(to_usize(ALIGN));
        assert!(offset <= to_usize(ALIGN), "an aligned place in {layout:?}");
        // SAFETY: inside the block, which is larger than the RAM by `ALIGN`.
        let start = unsafe { block.add(offset) };
        Self { start, size: to_usize(size), block, layout }
    }

    fn virt(&self) -> u64 {
        self.start.as_ptr().expose_provenance() as u64
    }

    const fn place(&self, at: usize) -> *mut u8 {
        self.start.as_ptr().wrapping_add(at)
    }

    fn read(&self, at: usize, into: &mut [u8]) {
        let size = into.len();
        assert!(at + size <= self.size, "reads outside RAM");
        // SAFETY: inside the copy by the assertion; `into` is the model's own.
        unsafe { self.place(at).copy_to_nonoverlapping(into.as_mut_ptr(), size) };
    }

    fn write(&self, at: usize, from: &[u8]) {
        assert!(at + from.len() <= self.size, "writes outside RAM");
        // SAFETY: inside the copy by the assertion; all code that runs on the model expects its memory to change this way.
        unsafe { self.place(at).copy_from_nonoverlapping(from.as_ptr(), from.len()) };
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { std::alloc::dealloc(self.block.as_ptr(), self.layout) };
    }
}

/// RAM behind a data cache, which all CPUs share as far as anybody can tell, since theirs are coherent.
pub struct CachedRam {
    range: PhysRange,
    config: CacheConfig,
    cached: Copy,
    memory: Copy,
    state: Mutex<State>,
}

// SAFETY: the model accesses the copies under the lock; the pointers that are given out are the test's own affair.
unsafe impl Send for CachedRam {}
// SAFETY: the model accesses the copies under the lock.
unsafe impl Sync for CachedRam {}

impl State {
    /// A number below `bound`, at least 1.
    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        to_usize(self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound.max(1)
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

impl CachedRam {
    /// RAM at `range`, zero, of which the cache holds nothing.
    #[must_use]
    pub fn new(range: PhysRange, config: CacheConfig) -> Self {
        assert!(config.line.is_power_of_two() && (16..=2048).contains(&config.line), "CTR_EL0 states no such line");
        assert!(range.start().is_aligned(ALIGN) && range.size().is_multiple_of(PAGE_SIZE));
        let state = State {
            present: vec![false; to_usize(range.size() / config.line)],
            snapshot: vec![0; to_usize(range.size())],
            cacheable: vec![true; to_usize(range.size() / PAGE_SIZE)],
            pending: VecDeque::new(),
            counts: CacheCounts::default(),
            violations: Vec::new(),
            random: config.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        };
        let (cached, memory) = (Copy::new(range.size()), Copy::new(range.size()));
        Self { range, config, cached, memory, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses.
    #[must_use]
    pub const fn range(&self) -> PhysRange {
        self.range
    }

    /// Address of the RAM in the linear map: a pointer that may be used.
    #[must_use]
    pub fn linear(&self, phys: PhysAddr) -> VirtAddr {
        VirtAddr::new(self.cached.virt().wrapping_add(phys.get().wrapping_sub(self.range.start().get())))
    }

    /// Address of the RAM in a non-cacheable mapping.
    #[must_use]
    pub fn uncached(&self, phys: PhysAddr) -> VirtAddr {
        VirtAddr::new(self.memory.virt().wrapping_add(phys.get().wrapping_sub(self.range.start().get())))
    }

    /// The physical address behind one of the linear map.
    #[must_use]
    pub fn phys(&self, linear: VirtAddr) -> Option<PhysAddr> {
        self.phys_in(&self.cached, linear)
    }

    fn phys_in(&self, copy: &Copy, virt: VirtAddr) -> Option<PhysAddr> {
        let offset = virt.get().checked_sub(copy.virt())?;
        (offset < self.range.size()).then(|| PhysAddr::new(self.range.start().get() + offset))
    }

    fn offset(&self, range: PhysRange) -> Option<usize> {
        self.range.contains_range(range).then(|| to_usize(range.start().get() - self.range.start().get()))
    }

    /// The lines that share a byte with `range`.
    fn lines(&self, range: VirtRange) -> Option<std::ops::Range<usize>> {
        let last = VirtAddr::new(range.end().get().checked_sub(1)?);
        // By either mapping: maintenance is of the memory behind the address.
        let place = |virt| self.phys_in(&self.cached, virt).or_else(|| self.phys_in(&self.memory, virt));
        let line = |virt| Some(to_usize((place(virt)?.get() - self.range.start().get()) / self.config.line));
        Some(line(range.start())?..line(last)? + 1)
    }

    /// The bytes of a line in a copy.
    fn line_of(&self, copy: &Copy, line: usize) -> Vec<u8> {
        let mut bytes = vec![0; to_usize(self.config.line)];
        copy.read(line * bytes.len(), &mut bytes);
        bytes
    }

    fn snapshot<'s>(&self, state: &'s mut State, line: usize) -> &'s mut [u8] {
        let size = to_usize(self.config.line);
        state.snapshot.get_mut(line * size..(line + 1) * size).unwrap_or_default()
    }

    fn is_cacheable(&self, state: &State, line: usize) -> bool {
        let page = to_usize(line as u64 * self.config.line / PAGE_SIZE);
        state.cacheable.get(page).copied().unwrap_or(false)
    }

    fn is_present(state: &State, line: usize) -> bool {
        state.present.get(line).copied().unwrap_or(false)
    }

    fn set_present(state: &mut State, line: usize, present: bool) {
        if let Some(place) = state.present.get_mut(line) {
            *place = present;
        }
    }

    /// Notices what CPUs have written to a line that the cache did not hold.
    fn observe(&self, state: &mut State, line: usize) {
        if !Self::is_present(state, line) && self.is_cacheable(state, line) {
            let memory = self.line_of(&self.memory, line);
            if self.line_of(&self.cached, line) != memory {
                Self::set_present(state, line, true);
                self.snapshot(state, line).copy_from_slice(&memory);
            }
        }
    }

    fn is_dirty(&self, state: &mut State, line: usize) -> bool {
        self.observe(state, line);
        let cached = self.line_of(&self.cached, line);
        Self::is_present(state, line) && self.snapshot(state, line) != cached
    }

    fn write_back(&self, state: &mut State, line: usize) {
        if self.is_dirty(state, line) {
            let cached = self.line_of(&self.cached, line);
            self.memory.write(line * cached.len(), &cached);
            self.snapshot(state, line).copy_from_slice(&cached);
        }
    }

    fn drop_line(&self, state: &mut State, line: usize) {
        self.observe(state, line);
        Self::set_present(state, line, false);
        let memory = self.line_of(&self.memory, line);
        self.cached.write(line * memory.len(), &memory);
    }

    fn fetch(&self, state: &mut State, line: usize) {
        self.observe(state, line);
        if !Self::is_present(state, line) && self.is_cacheable(state, line) {
            Self::set_present(state, line, true);
            let cached = self.line_of(&self.cached, line);
            self.snapshot(state, line).copy_from_slice(&cached);
        }
    }

    fn perform(&self, state: &mut State, (op, line): (Op, usize)) {
        match op {
            Op::Clean => self.write_back(state, line),
            Op::Invalidate => {
                // Both are permitted: the line may have been written back just before.
                if state.coin() {
                    self.write_back(state, line);
                }
                self.drop_line(state, line);
            }
            Op::CleanAndInvalidate => {
                self.write_back(state, line);
                self.drop_line(state, line);
            }
        }
    }

    fn issue(&self, op: Op, range: VirtRange) {
        let mut state = self.lock();
        let Some(lines) = self.lines(range) else {
            state.violations.push(format!("maintenance of {range}, where nothing is mapped"));
            return;
        };
        for line in lines {
            if op != Op::Clean {
                state.counts.invalidated += 1;
            }
            if op != Op::Invalidate {
                state.counts.cleaned += 1;
            }
            state.pending.push_back((op, line));
        }
    }

    /// Spontaneous events of a line: it may be written back, dropped if it is clean, or fetched.
    fn stir(&self, state: &mut State, line: usize) {
        match state.below(4) {
            0 => self.write_back(state, line),
            1 if !self.is_dirty(state, line) => {
                if Self::is_present(state, line) {
                    self.drop_line(state, line);
                }
            }
            _ => self.fetch(state, line),
        }
    }

    /// Lets something happen, as it may at any time.
    pub fn step(&self) {
        let mut state = self.lock();
        let lines = state.present.len();
        for _ in 0..self.config.events {
            let line = state.below(lines);
            self.stir(&mut state, line);
        }
        if !state.pending.is_empty() && state.coin() {
            let next = state.pending.pop_front();
            next.into_iter().for_each(|op| self.perform(&mut state, op));
        }
    }

    /// Lets something happen to each line of a range, as it may at any time.
    pub fn stir_range(&self, range: PhysRange) {
        let Some(at) = self.offset(range) else { return };
        let line = to_usize(self.config.line);
        let mut state = self.lock();
        for line in at / line..(at + to_usize(range.size())).div_ceil(line) {
            self.stir(&mut state, line);
        }
    }

    /// Takes pages out of the linear map, or puts them back.
    pub fn set_cacheable(&self, range: PhysRange, cacheable: bool) {
        let Some(at) = self.offset(range) else { return };
        let (first, pages) = (at / to_usize(PAGE_SIZE), to_usize(range.size() / PAGE_SIZE));
        let line = to_usize(self.config.line);
        let mut state = self.lock();
        for line in at / line..(at + to_usize(range.size())) / line {
            if !cacheable {
                self.observe(&mut state, line);
            } else if !Self::is_present(&state, line) {
                self.drop_line(&mut state, line);
            }
        }
        for place in state.cacheable.iter_mut().skip(first).take(pages) {
            *place = cacheable;
        }
    }

    /// The maintenance operations requested so far.
    #[must_use]
    pub fn counts(&self) -> CacheCounts {
        self.lock().counts
    }

    /// Violations found so far.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// A device reads or writes memory. It accesses the bytes at `at` past the cache.
    fn by_device(&self, range: PhysRange, snoops: bool, access: impl FnOnce(usize, &Copy)) -> Option<()> {
        let at = self.offset(range)?;
        let size = to_usize(self.config.line);
        let lines = at / size..(at + to_usize(range.size())).div_ceil(size);
        let mut state = self.lock();
        // Some of what waits for a barrier has happened, and some has not.
        while !state.pending.is_empty() && state.coin() {
            let next = state.pending.pop_front();
            next.into_iter().for_each(|op| self.perform(&mut state, op));
        }
        for line in lines.clone() {
            self.observe(&mut state, line);
            if snoops {
                self.write_back(&mut state, line);
            }
        }
        access(at, &self.memory);
        for line in lines {
            if snoops || !Self::is_present(&state, line) {
                self.drop_line_to(&mut state, line, snoops);
            }
        }
        Some(())
    }

    /// Brings A up to what memory is now, for a line that the cache does not hold or that was snooped.
    fn drop_line_to(&self, state: &mut State, line: usize, snooped: bool) {
        let memory = self.line_of(&self.memory, line);
        if self.is_cacheable(state, line) {
            self.cached.write(line * memory.len(), &memory);
        }
        if snooped {
            self.snapshot(state, line).copy_from_slice(&memory);
        }
    }
}

// SAFETY: HAL-12: a model that does every operation, no sooner than it must.
unsafe impl DataCache for CachedRam {
    fn granule(&self) -> u64 {
        self.config.line
    }

    fn clean(&self, _: Internal, range: VirtRange) {
        self.issue(Op::Clean, range);
    }

    fn invalidate(&self, _: Internal, range: VirtRange) {
        self.issue(Op::Invalidate, range);
    }

    fn clean_and_invalidate(&self, _: Internal, range: VirtRange) {
        self.issue(Op::CleanAndInvalidate, range);
    }

    fn complete(&self) {
        let mut state = self.lock();
        state.counts.barriers += 1;
        while let Some(op) = state.pending.pop_front() {
            self.perform(&mut state, op);
        }
    }
}

/// Memory as a device finds it: an entry of `dma-ranges`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// Its address for the device.
    pub bus: DmaAddr,
    /// Its address for the CPU.
    pub cpu: PhysRange,
}

/// Reason why a device did not reach memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BusError {
    /// The device has too few address lines.
    Mask(DmaAddr),
    /// Nothing answers at the address.
    Nothing(DmaAddr),
}

/// A device that accesses memory directly.
#[derive(Clone, Debug)]
pub struct SimDevice {
    /// Memory that it reaches, and the addresses there.
    pub windows: Vec<Window>,
    /// The highest address that it can say.
    pub mask: u64,
    /// Whether its accesses are coherent with the caches.
    pub snoops: bool,
}

impl SimDevice {
    fn find(&self, at: DmaAddr, size: usize) -> Result<PhysRange, BusError> {
        let last = at.get().checked_add((size as u64).saturating_sub(1)).ok_or(BusError::Nothing(at))?;
        if last > self.mask {
            return Err(BusError::Mask(at));
        }
        let place = |window: &Window| {
            let offset = at.get().checked_sub(window.bus.get())?;
            let range = PhysRange::from_size(window.cpu.start().checked_add(offset)?, size as u64)?;
            window.cpu.contains_range(range).then_some(range)
        };
        self.windows.iter().find_map(place).ok_or(BusError::Nothing(at))
    }

    /// The device reads memory.
    ///
    /// # Errors
    ///
    /// [`BusError`].
    pub fn read(&self, ram: &CachedRam, at: DmaAddr, into: &mut [u8]) -> Result<(), BusError> {
        ram.step();
        let range = self.find(at, into.len())?;
        ram.by_device(range, self.snoops, |at, memory| memory.read(at, into)).ok_or(BusError::Nothing(at))
    }

    /// The device writes memory.
    ///
    /// # Errors
    ///
    /// [`BusError`].
    pub fn write(&self, ram: &CachedRam, at: DmaAddr, from: &[u8]) -> Result<(), BusError> {
        ram.step();
        let range = self.find(at, from.len())?;
        ram.by_device(range, self.snoops, |at, memory| memory.write(at, from)).ok_or(BusError::Nothing(at))
    }
}
