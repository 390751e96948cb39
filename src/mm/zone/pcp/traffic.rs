//! Pages that went out and came back, and the zone of a per-CPU list that they went over.
#![forbid(unsafe_code)]

use crate::mm::page::ZoneId;

/// Pages that went out and came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Pages allocated.
    pub allocated: u64,
    /// Pages freed.
    pub freed: u64,
}

/// The zone of a per-CPU list.
pub(in crate::mm::zone) const fn zone_of(list: usize) -> ZoneId {
    #[expect(clippy::cast_possible_truncation, reason = "lists are few")]
    match ZoneId::new((list >> 2) as u8) {
        Some(zone) => zone,
        None => ZoneId::PREFERRED,
    }
}
