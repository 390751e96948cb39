//! Device memory: registers that record what is done to them, mappings on a machine whose TLBs keep what they have, and
//! permissions of areas with their second mapping.

mod mmio;
mod remap;
mod set_memory;
