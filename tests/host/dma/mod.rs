//! Memory that devices access by themselves, on RAM behind a data cache that does whatever a cache may do.
#![expect(clippy::cast_possible_truncation, reason = "patterns of bytes, and sizes that are small")]

mod bounce;
mod cache;
mod coherent;
mod contiguous;
mod damage;
mod debug;
mod device_pool;
mod devices;
mod history;
mod machine;
mod maintenance;
mod owned;
mod pool;
mod random;
mod restricted;
mod stream;
