//! U-Boot as the boot loader (package `u-boot-qemu`): what to type at its prompt, and when.

use crate::typing::Typing;
use std::path::{Path, PathBuf};

/// Where Debian puts it; `QUARRY_UBOOT` names another file.
const FIRMWARE: &str = "/usr/lib/u-boot/qemu_arm64/u-boot.bin";

/// U-Boot's prompt while it waits for a key instead of booting.
const COUNTDOWN: &str = "Hit any key to stop autoboot";
/// Its prompt.
const PROMPT: &str = "\n=> ";

/// U-Boot's file, if there is one.
pub(crate) fn firmware() -> Result<PathBuf, String> {
    let path = std::env::var_os("QUARRY_UBOOT").map_or_else(|| FIRMWARE.into(), PathBuf::from);
    if Path::new(&path).is_file() {
        return Ok(path);
    }
    Err(format!("{}: no U-Boot there; install the package u-boot-qemu", path.display()))
}

/// A key at the countdown, then the commands that start the Image at `addr`, with the device tree that QEMU gave to U-Boot.
pub(crate) fn script(addr: u64, bootargs: &str) -> Typing {
    let commands = [format!("setenv bootargs '{bootargs}'\n"), format!("booti {addr:#x} - $fdtcontroladdr\n")];
    Typing {
        prompts: &[PROMPT],
        countdown: Some(COUNTDOWN),
        pieces: commands.map(String::into_bytes).to_vec(),
        answered: 0,
    }
}
