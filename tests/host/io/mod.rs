//! Device memory: registers that record what is done to them, mappings on a machine whose TLBs keep what they have, and
//! permissions of areas with their second mapping; and who has which addresses.

mod devres;
mod early;
mod mmio;
mod remap;
mod reserved;
mod resource;
mod set_memory;
mod uncached;
