//! Text to the console, a line in one system call.

use crate::call;
use core::fmt::{self, Write};

/// Collects a line.
struct Line {
    bytes: [u8; 256],
    used: usize,
}

impl Line {
    fn flush(&mut self) {
        call::write(1, self.bytes.get(..self.used).unwrap_or_default()).ok();
        self.used = 0;
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.used == self.bytes.len() {
                self.flush();
            }
            if let Some(place) = self.bytes.get_mut(self.used) {
                *place = byte;
                self.used += 1;
            }
        }
        Ok(())
    }
}

/// Prints a line; for [`println!`](crate::println!).
pub fn line(text: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; 256], used: 0 };
    let _ = writeln!(line, "{text}");
    line.flush();
}

/// Prints a line on the console.
#[macro_export]
macro_rules! println {
    ($($text:tt)*) => {
        $crate::print::line(format_args!($($text)*))
    };
}
