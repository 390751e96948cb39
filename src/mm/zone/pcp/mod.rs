//! The data of one CPU, which it alone changes: lists of free blocks of the usual orders, the reserve behind them, and counts
//! of the pages that went over them.
#![forbid(unsafe_code)]

mod lists;
mod pages;
mod reserve;
mod traffic;

pub use pages::CpuPages;
pub(super) use pages::PcpRoom;
pub use traffic::Traffic;

pub(super) use traffic::zone_of;
