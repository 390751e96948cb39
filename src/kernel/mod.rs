//! L6: the reference kernel: order of boot, log, panic, tests, prompt.

mod init;
