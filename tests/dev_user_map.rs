#![allow(missing_docs, clippy::all, dead_code)]
#[path = "host/behaviours.rs"]
mod behaviours;
#[path = "host/layering.rs"]
mod layering;
#[path = "host/may_sleep.rs"]
mod may_sleep;
#[path = "host/misuse.rs"]
mod misuse;
#[path = "host/random.rs"]
mod random;
#[path = "host/user_map/mod.rs"]
mod user_map;
