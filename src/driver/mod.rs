//! L4: drivers that the reference kernel needs: UART, interrupt controller, timer, watchdog.

#[cfg(target_os = "none")]
pub mod gic;
pub mod gicv3;
#[cfg(target_os = "none")]
pub mod timer;
#[cfg(target_os = "none")]
pub mod uart;
pub mod waker;
#[cfg(target_os = "none")]
pub mod watchdog;
