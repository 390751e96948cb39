//! Pins of a page of user memory, in its state: areas map no block that has an owner, so the field of the mappings counts them.
#![forbid(unsafe_code)]

use super::{KIND, KIND_SHIFT, Kind, MAPPINGS, ORDER_SHIFT, PageState};

impl PageState {
    /// One pin of a page of user memory, which holds a reference. Areas map no claimed block, so the same bits count both.
    const ONE_PIN: u64 = Self::ONE_MAPPING | Self::ONE_REFERENCE;

    /// Pins of a page of user memory that its state counts.
    #[must_use]
    #[inline]
    pub(in crate::mm) const fn pins(self) -> u32 {
        self.mappings()
    }

    /// Whether this is a page of user memory by itself, of which the state counts no pin.
    #[inline(always)]
    pub(in crate::mm) const fn is_unpinned_user_page(self) -> bool {
        self.0 & (KIND | 0xf << ORDER_SHIFT | MAPPINGS) == (Kind::User as u64) << KIND_SHIFT
    }

    /// The same with its first pin, if it is a page of user memory by itself that has one reference, and no flag.
    #[inline(always)]
    pub(in crate::mm) const fn with_first_pin(self) -> Option<Self> {
        if self.is_alone() { Some(Self(self.0.wrapping_add(Self::ONE_PIN))) } else { None }
    }

    /// The state that [`PageState::with_first_pin`] made into this one, if it was that.
    #[inline(always)]
    pub(in crate::mm) const fn without_first_pin(self) -> Option<Self> {
        let less = Self(self.0.wrapping_sub(Self::ONE_PIN));
        if less.is_alone() { Some(less) } else { None }
    }

    #[inline(always)]
    const fn is_alone(self) -> bool {
        const ORIGIN: u64 = (1 << ORDER_SHIFT) - 1;
        self.0 & !ORIGIN == (Kind::User as u64) << KIND_SHIFT | Self::ONE_REFERENCE
    }

    /// The same with one pin more of a page of user memory by itself, if the state can count it.
    pub(in crate::mm) const fn with_one_pin(self) -> Option<Self> {
        let single = matches!(self.kind(), Kind::User) && self.raw_order() == 0;
        if !single || self.references() == 0 || self.pins() == Self::MAX_MAPPINGS {
            return None;
        }
        match self.0.checked_add(Self::ONE_PIN) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }

    /// The same with one pin less, if the state counts one of a page of user memory; its reference stays if it is the `last` one.
    pub(in crate::mm) const fn with_one_pin_less(self, last: bool) -> Option<Self> {
        if !matches!(self.kind(), Kind::User) || self.pins() == 0 {
            return None;
        }
        Some(Self(self.0.wrapping_sub(if last { Self::ONE_MAPPING } else { Self::ONE_PIN })))
    }
}
