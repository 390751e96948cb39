//! Page tables: descriptors and operands by arithmetic, everything else on the simulated machine.

mod descriptor;
mod operand;
