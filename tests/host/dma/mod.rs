//! Memory that devices access by themselves, on RAM behind a data cache that does whatever a cache may do.

mod cache;
