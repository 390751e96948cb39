//! L4: drivers that the reference kernel needs: UART, interrupt controller, timer.

pub mod gic;
pub mod timer;
pub mod uart;
