//! Access to mapped registers.

use super::AccessError;
use crate::addr::{VirtAddr, VirtRange, to_usize};
use crate::hal::io::{IoBus, IoWord, Width};

/// A layout of registers to which references may be made: types of `tock-registers`, as a rule made by its `register_structs!`.
///
/// Accesses through it are the compiler's volatile ones and have no barriers, as the `_relaxed` ones of [`Mmio`].
///
/// # Safety
///
/// Every field is a register type with interior mutability, or padding that is never touched, and every bit pattern is
/// valid.
pub unsafe trait RegisterBlock {}

/// Mapped registers: `size` bytes from an address on, of which at least `SIZE` are known at compile time.
///
/// Each access is one instruction of its width, in program order with other accesses to the same device. Those with plain
/// names also keep their order with memory (Linux: Documentation/memory-barriers.txt, "Kernel I/O barrier effects"):
///
/// | | before | after |
/// |---|---|---|
/// | `readb` … `readq` | | DMB OSHLD, and a branch that depends on the value |
/// | `writeb` … `writeq` | DMB OSHST | |
/// | `…_relaxed`, strings, blocks | | |
///
/// There are two ways to access the registers. With an offset known at compile time, [`Mmio::read`] and [`Mmio::write`] cost
/// the access and nothing else, and an access outside does not compile:
///
/// ```
/// # use quarry::hal::io::IoBus;
/// # use quarry::mm::io::Mmio;
/// fn peripheral_id<B: IoBus>(rtc: &Mmio<B, 0x1000>) -> u32 {
///     rtc.read::<u32, 0xfe0>()
/// }
/// ```
///
/// ```
/// # use quarry::arch::host::Recorder;
/// # use quarry::mm::io::Mmio;
/// # let recorder = Recorder::new(0x1000);
/// // SAFETY: the recorder stands for the registers, and outlives them.
/// let registers = unsafe { Mmio::new(&recorder, recorder.range()) };
/// let rtc = registers.sized::<0x1000>()?;
/// rtc.read::<u32, 0xffc>();
/// # Ok::<(), quarry::mm::io::AccessError>(())
/// ```
///
/// ```compile_fail,E0080
/// # use quarry::arch::host::Recorder;
/// # use quarry::mm::io::Mmio;
/// # let recorder = Recorder::new(0x1000);
/// # let registers = unsafe { Mmio::new(&recorder, recorder.range()) };
/// # let rtc = registers.sized::<0x1000>()?;
/// rtc.read::<u32, 0x1000>();
/// # Ok::<(), quarry::mm::io::AccessError>(())
/// ```
///
/// With a computed offset, `readl(offset)` and its sisters check it and return an error.
///
/// # Invariants
///
/// - `MMIO-1`: the `size` bytes from `start` on are mapped, and stay so while the value lives; the value's owner is responsible
///   for reading and writing them.
/// - `MMIO-2`: `size` is at least `SIZE`; if that is not zero, `start` is a multiple of 8.
#[derive(Debug)]
pub struct Mmio<B, const SIZE: u64 = 0> {
    bus: B,
    start: VirtAddr,
    size: u64,
}

/// Accesses of one width by Linux's names.
macro_rules! accesses {
    ($word:ident: $read:ident $read_relaxed:ident $write:ident $write_relaxed:ident $read_string:ident $write_string:ident) => {
        /// Reads the register at `offset`; no later access is ordered before it.
        ///
        /// # Errors
        ///
        /// [`AccessError`]; nothing has been accessed then.
        #[inline]
        pub fn $read(&self, offset: u64) -> Result<$word, AccessError> {
            let value = self.$read_relaxed(offset)?;
            self.bus.order_after_load(value);
            Ok(value)
        }

        /// The same without the barrier.
        ///
        /// # Errors
        ///
        /// [`AccessError`]; nothing has been accessed then.
        #[inline]
        pub fn $read_relaxed(&self, offset: u64) -> Result<$word, AccessError> {
            self.place(offset, $word::WIDTH).map(|at| self.load(at))
        }

        /// Writes the register at `offset`, after all earlier writes to memory. The value comes first, as in Linux and in the
        /// calls of `global`.
        ///
        /// # Errors
        ///
        /// [`AccessError`]; nothing has been accessed then.
        #[inline]
        pub fn $write(&self, value: $word, offset: u64) -> Result<(), AccessError> {
            let at = self.place(offset, $word::WIDTH)?;
            self.bus.order_before_store();
            self.store(at, value);
            Ok(())
        }

        /// The same without the barrier.
        ///
        /// # Errors
        ///
        /// [`AccessError`]; nothing has been accessed then.
        #[inline]
        pub fn $write_relaxed(&self, value: $word, offset: u64) -> Result<(), AccessError> {
            self.place(offset, $word::WIDTH).map(|at| self.store(at, value))
        }

        /// Reads the register at `offset` repeatedly, for a FIFO. No barrier.
        ///
        /// # Errors
        ///
        /// [`AccessError`]; nothing has been accessed then.
        pub fn $read_string(&self, offset: u64, into: &mut [$word]) -> Result<(), AccessError> {
            let at = self.place(offset, $word::WIDTH)?;
            into.iter_mut().for_each(|word| *word = self.load(at));
            Ok(())
        }

        /// Writes to the register at `offset` repeatedly. No barrier.
        ///
        /// # Errors
        ///
        /// [`AccessError`]; nothing has been accessed then.
        pub fn $write_string(&self, offset: u64, from: &[$word]) -> Result<(), AccessError> {
            let at = self.place(offset, $word::WIDTH)?;
            from.iter().for_each(|word| self.store(at, *word));
            Ok(())
        }
    };
}

/// Whether an access lies in the first `size` bytes, at a multiple of its width.
const fn fits(offset: u64, width: Width, size: u64) -> bool {
    size >= width.bytes() && offset <= size - width.bytes() && offset.is_multiple_of(width.bytes())
}

impl<B: IoBus> Mmio<B> {
    /// The registers in `range`.
    ///
    /// # Safety
    ///
    /// `MMIO-1`: `range` is mapped as device memory or uncached, by `bus`'s lights, as long as the value lives.
    pub const unsafe fn new(bus: B, range: VirtRange) -> Self {
        // INVARIANT: MMIO-1 is the caller's promise; MMIO-2 as SIZE is 0.
        Self { bus, start: range.start(), size: range.size() }
    }

    /// The same with `SIZE` bytes known at compile time.
    ///
    /// # Errors
    ///
    /// [`AccessError::Outside`] if there are fewer, [`AccessError::Misplaced`] if the start is not a multiple of 8; the value
    /// is dropped then, and the mapping stays.
    pub fn sized<const SIZE: u64>(self) -> Result<Mmio<B, SIZE>, AccessError> {
        if self.size < SIZE {
            return Err(AccessError::Outside { offset: 0, bytes: SIZE, size: self.size });
        }
        if !self.start.is_aligned(Width::Double.bytes()) {
            return Err(AccessError::Misplaced(self.start, Width::Double.bytes()));
        }
        // INVARIANT: MMIO-2 by the comparisons.
        Ok(Mmio { bus: self.bus, start: self.start, size: self.size })
    }
}

impl<B: IoBus, const SIZE: u64> Mmio<B, SIZE> {
    /// Number of bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The address of the first byte.
    #[must_use]
    pub const fn start(&self) -> VirtAddr {
        self.start
    }

    /// Address of `bytes` bytes at `offset`.
    #[inline]
    fn part(&self, offset: u64, bytes: u64) -> Result<VirtAddr, AccessError> {
        if offset > self.size || bytes > self.size - offset {
            return Err(AccessError::Outside { offset, bytes, size: self.size });
        }
        // By MMIO-1 the region does not wrap.
        Ok(VirtAddr::new(self.start.get().wrapping_add(offset)))
    }

    /// Address of an access at `offset`.
    #[inline]
    fn place(&self, offset: u64, width: Width) -> Result<VirtAddr, AccessError> {
        let at = self.part(offset, width.bytes())?;
        if at.is_aligned(width.bytes()) { Ok(at) } else { Err(AccessError::Unaligned(at, width)) }
    }

    /// Reads at an address of the region.
    #[inline(always)]
    fn load<W: IoWord>(&self, at: VirtAddr) -> W {
        // SAFETY: MMIO-1: `at` comes from `place`, or is a multiple of the width in a part.
        unsafe { self.bus.load(at) }
    }

    /// Writes at an address of the region.
    #[inline(always)]
    fn store<W: IoWord>(&self, at: VirtAddr, value: W) {
        // SAFETY: as for `load`.
        unsafe { self.bus.store(at, value) };
    }

    /// Address of an access with an offset known at compile time.
    #[inline(always)]
    const fn known<W: IoWord, const OFFSET: u64>(&self) -> VirtAddr {
        const { assert!(fits(OFFSET, W::WIDTH, SIZE), "an access outside the registers, or at no multiple of its width") };
        // By MMIO-2 in the region, and aligned.
        VirtAddr::new(self.start.get().wrapping_add(OFFSET))
    }

    /// Reads the register at `OFFSET`; no later access is ordered before it.
    #[inline]
    pub fn read<W: IoWord, const OFFSET: u64>(&self) -> W {
        let value = self.read_relaxed::<W, OFFSET>();
        self.bus.order_after_load(value);
        value
    }

    /// The same without the barrier.
    #[inline]
    pub fn read_relaxed<W: IoWord, const OFFSET: u64>(&self) -> W {
        self.load(self.known::<W, OFFSET>())
    }

    /// Writes the register at `OFFSET`, after all earlier writes to memory.
    #[inline]
    pub fn write<W: IoWord, const OFFSET: u64>(&self, value: W) {
        self.bus.order_before_store();
        self.write_relaxed::<W, OFFSET>(value);
    }

    /// The same without the barrier.
    #[inline]
    pub fn write_relaxed<W: IoWord, const OFFSET: u64>(&self, value: W) {
        self.store(self.known::<W, OFFSET>(), value);
    }

    accesses!(u8: readb readb_relaxed writeb writeb_relaxed readsb writesb);
    accesses!(u16: readw readw_relaxed writew writew_relaxed readsw writesw);
    accesses!(u32: readl readl_relaxed writel writel_relaxed readsl writesl);
    accesses!(u64: readq readq_relaxed writeq writeq_relaxed readsq writesq);

    /// Copies from the registers at `offset` on, eight bytes at a time where the address allows. No barrier.
    ///
    /// # Errors
    ///
    /// [`AccessError::Outside`]; nothing has been accessed then.
    pub fn memcpy_fromio(&self, into: &mut [u8], offset: u64) -> Result<(), AccessError> {
        let mut at = self.part(offset, into.len() as u64)?;
        let (head, rest) = into.split_at_mut(head_of(at, into.len()));
        let (words, tail) = rest.as_chunks_mut();
        for byte in head {
            *byte = self.load(step(&mut at, Width::Byte));
        }
        for word in words {
            *word = self.load::<u64>(step(&mut at, Width::Double)).to_le_bytes();
        }
        for byte in tail {
            *byte = self.load(step(&mut at, Width::Byte));
        }
        Ok(())
    }

    /// Copies to the registers at `offset` on, eight bytes at a time where the address allows. No barrier.
    ///
    /// # Errors
    ///
    /// [`AccessError::Outside`]; nothing has been accessed then.
    pub fn memcpy_toio(&self, offset: u64, from: &[u8]) -> Result<(), AccessError> {
        let mut at = self.part(offset, from.len() as u64)?;
        let (head, rest) = from.split_at(head_of(at, from.len()));
        let (words, tail) = rest.as_chunks();
        for byte in head {
            self.store(step(&mut at, Width::Byte), *byte);
        }
        for word in words {
            self.store(step(&mut at, Width::Double), u64::from_le_bytes(*word));
        }
        for byte in tail {
            self.store(step(&mut at, Width::Byte), *byte);
        }
        Ok(())
    }

    /// Writes `byte` to `count` bytes at `offset` on, eight at a time where the address allows. No barrier.
    ///
    /// # Errors
    ///
    /// [`AccessError::Outside`]; nothing has been accessed then.
    pub fn memset_io(&self, offset: u64, byte: u8, count: u64) -> Result<(), AccessError> {
        let mut at = self.part(offset, count)?;
        let end = VirtAddr::new(at.get().wrapping_add(count));
        let words_end = end.align_down(Width::Double.bytes());
        while at < end {
            if at.is_aligned(Width::Double.bytes()) && at < words_end {
                self.store(step(&mut at, Width::Double), u64::from_le_bytes([byte; 8]));
            } else {
                self.store(step(&mut at, Width::Byte), byte);
            }
        }
        Ok(())
    }

    /// The registers at `offset` as a block of typed ones.
    ///
    /// # Errors
    ///
    /// [`AccessError::Outside`] if the block is larger than the rest, [`AccessError::Misplaced`] if it is not aligned.
    pub fn registers<T: RegisterBlock>(&self, offset: u64) -> Result<&T, AccessError> {
        let at = self.part(offset, size_of::<T>() as u64)?;
        if !at.is_aligned(align_of::<T>() as u64) {
            return Err(AccessError::Misplaced(at, align_of::<T>() as u64));
        }
        // SAFETY: MMIO-1 for the part and the borrow; aligned by the comparison; valid and shareable by `RegisterBlock`.
        Ok(unsafe { &*at.as_ptr::<T>() })
    }
}

/// Bytes of `count` before the first multiple of 8.
fn head_of(at: VirtAddr, count: usize) -> usize {
    to_usize(at.get().wrapping_neg() & (Width::Double.bytes() - 1)).min(count)
}

/// The address, which goes on by one access.
fn step(at: &mut VirtAddr, width: Width) -> VirtAddr {
    let here = *at;
    *at = VirtAddr::new(here.get().wrapping_add(width.bytes()));
    here
}
