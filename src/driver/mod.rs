//! L4: drivers that the reference kernel needs: UART, interrupt controller, timer.
