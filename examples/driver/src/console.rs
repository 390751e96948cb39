//! Text out, and the way out.

use core::fmt;
use quarry::prelude::*;

static UART: spin::Once<IoMem<0x1000>> = spin::Once::new();

/// Requests and maps the serial port of `virt`.
pub fn open() {
    // SAFETY: the board's serial port, which nobody else drives.
    let uart = unsafe { IoMem::request(PhysAddr::new(0x900_0000), 0x1000, MemoryType::DeviceNGnRE, "uart") };
    if let Ok(uart) = uart {
        UART.call_once(|| uart);
    }
}

pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let uart = UART.get().ok_or(fmt::Error)?;
        text.bytes().for_each(|byte| uart.write::<u32, 0>(byte.into()));
        Ok(())
    }
}

macro_rules! say {
    ($($what:tt)*) => { { let _ = core::fmt::Write::write_fmt(&mut $crate::console::Console, format_args!($($what)*)); } };
}
pub(crate) use say;

/// PSCI's SYSTEM_OFF.
pub fn power_off() -> ! {
    // SAFETY: the machine ends here.
    unsafe { core::arch::asm!("hvc #0", in("x0") 0x8400_0008_u64, options(noreturn)) }
}
