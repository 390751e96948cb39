//! Host tests: the same library on a desk machine, against models and the simulated machine.

mod fdt;
mod features;
mod layering;
#[cfg(test)]
mod memblock;
mod pgtable;
