//! L4: the machines. `aarch64` is the real one (its descriptor arithmetic builds everywhere), `host` the simulated one.

pub mod aarch64;
#[cfg(feature = "host")]
pub mod host;
