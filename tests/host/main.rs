//! Host tests: the same library on a desk machine, against models and the simulated machine.

mod bootargs;
mod fdt;
mod features;
mod kernel;
mod layering;
mod machine_setup;
#[cfg(test)]
mod memblock;
mod memory_map;
mod pgtable;
mod trap;
