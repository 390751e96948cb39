//! Device registers as accessed by instructions: one load or store of 1, 2, 4 or 8 bytes, and the barriers that order it with
//! other accesses.

use crate::addr::VirtAddr;

/// Bytes of one access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// One.
    Byte,
    /// Two.
    Half,
    /// Four.
    Word,
    /// Eight.
    Double,
}

impl Width {
    /// The number.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
            Self::Double => 8,
        }
    }
}

mod sealed {
    pub trait Sealed {}
}

/// Type of one access: `u8`, `u16`, `u32` or `u64`. Devices are little-endian, as this kernel is.
pub trait IoWord: Copy + sealed::Sealed {
    /// Bytes.
    const WIDTH: Width;

    /// Converts from the low bits.
    fn from_bits(bits: u64) -> Self;

    /// Converts into the low bits.
    fn to_bits(self) -> u64;
}

macro_rules! word {
    ($word:ident, $width:ident, $of:expr) => {
        impl sealed::Sealed for $word {}

        impl IoWord for $word {
            const WIDTH: Width = Width::$width;

            #[inline(always)]
            fn from_bits(bits: u64) -> Self {
                $of(bits)
            }

            #[inline(always)]
            fn to_bits(self) -> u64 {
                self.into()
            }
        }
    };
}

word!(u8, Byte, |bits: u64| bits.to_le_bytes()[0]);
word!(u16, Half, |bits: u64| {
    let [a, b, ..] = bits.to_le_bytes();
    u16::from_le_bytes([a, b])
});
word!(u32, Word, |bits: u64| {
    let [a, b, c, d, ..] = bits.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
});
word!(u64, Double, |bits: u64| bits);

/// Access of a machine to device registers.
///
/// # Safety
///
/// [`IoBus::load`] and [`IoBus::store`] are exactly one access of the word's width, by an instruction that does nothing
/// else: no pair, no writeback, which cannot be emulated under virtualisation (Arm ARM D17.2.37, `ISS.ISV`).
pub unsafe trait IoBus {
    /// Reads a register.
    ///
    /// # Safety
    ///
    /// `at` is mapped, a multiple of the width, and reading it does no harm.
    unsafe fn load<W: IoWord>(&self, at: VirtAddr) -> W;

    /// Writes a register.
    ///
    /// # Safety
    ///
    /// As for [`IoBus::load`], for writing.
    unsafe fn store<W: IoWord>(&self, at: VirtAddr, value: W);

    /// No later access, to memory or to a device, and no later instruction that could be seen to have happened, comes
    /// before the load of `value` (Linux: `__io_ar`).
    fn order_after_load<W: IoWord>(&self, value: W);

    /// Devices see every earlier write to memory before the store that follows (Linux: `__io_bw`).
    fn order_before_store(&self);
}

// SAFETY: the promises are those of the bus behind the reference.
unsafe impl<B: IoBus> IoBus for &B {
    unsafe fn load<W: IoWord>(&self, at: VirtAddr) -> W {
        // SAFETY: `IoBus::load`: `at` is mapped, a multiple of the width, and reading it does no harm.
        unsafe { (**self).load(at) }
    }

    unsafe fn store<W: IoWord>(&self, at: VirtAddr, value: W) {
        // SAFETY: `IoBus::store`: `at` is mapped, a multiple of the width, and writing it does no harm.
        unsafe { (**self).store(at, value) };
    }

    fn order_after_load<W: IoWord>(&self, value: W) {
        (**self).order_after_load(value);
    }

    fn order_before_store(&self) {
        (**self).order_before_store();
    }
}
