//! L4: drivers that the reference kernel needs: UART, interrupt controller, timer.

pub mod timer;
pub mod uart;
