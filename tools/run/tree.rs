//! Device trees as files: unpacked, dumped from QEMU, given boot arguments (by `fdtput`, of `device-tree-compiler`).

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flate2::read::GzDecoder;

use crate::scratch::Scratch;

/// A path in a specification is relative to the package.
pub(crate) fn in_package(path: &Path) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The tree at `path` as a plain file; what ends in `.gz` is unpacked.
pub(crate) fn plain(path: &Path, scratch: &Scratch) -> Result<PathBuf, String> {
    let path = in_package(path);
    if !path.is_file() {
        return Err(format!("{}: no such file", path.display()));
    }
    if path.extension().is_none_or(|extension| extension != "gz") {
        return Ok(path);
    }
    let read = || -> io::Result<Vec<u8>> {
        let mut tree = Vec::new();
        GzDecoder::new(File::open(&path)?).read_to_end(&mut tree)?;
        Ok(tree)
    };
    scratch.write("plain.dtb", &read().map_err(|e| format!("{}: {e}", path.display()))?)
}

/// The tree that QEMU would hand over: `command` is the machine, complete with its kernel and arguments.
pub(crate) fn dump(mut command: Command, machine: &str, scratch: &Scratch) -> Result<PathBuf, String> {
    let out = scratch.path("qemu.dtb");
    // The last -machine wins over, and adds to, the earlier ones.
    run(command.arg("-machine").arg(format!("{machine},dumpdtb={}", out.display())).stdout(Stdio::null()))?;
    Ok(out)
}

/// A copy of `tree` with `bootargs` in /chosen.
pub(crate) fn with_bootargs(tree: &Path, bootargs: &str, scratch: &Scratch) -> Result<PathBuf, String> {
    let out = scratch.path("bootargs.dtb");
    fs::copy(tree, &out).map_err(|e| format!("{}: {e}", tree.display()))?;
    run(Command::new("fdtput").args(["-p", "-t", "s"]).arg(&out).args(["/chosen", "bootargs", bootargs]))?;
    Ok(out)
}

/// A copy of `tree` whose timer states its frequency.
pub(crate) fn with_clock(tree: &Path, frequency: u32, scratch: &Scratch) -> Result<PathBuf, String> {
    let out = scratch.path("clock.dtb");
    fs::copy(tree, &out).map_err(|e| format!("{}: {e}", tree.display()))?;
    let frequency = frequency.to_string();
    run(Command::new("fdtput").args(["-t", "u"]).arg(&out).args(["/timer", "clock-frequency", &frequency]))?;
    Ok(out)
}

/// The first `bytes` of `tree`.
pub(crate) fn cut(tree: &Path, bytes: u64, scratch: &Scratch) -> Result<PathBuf, String> {
    let out = scratch.path("cut.dtb");
    let copy = || -> io::Result<u64> { io::copy(&mut File::open(tree)?.take(bytes), &mut File::create(&out)?) };
    copy().map_err(|e| format!("{}: {e}", tree.display()))?;
    Ok(out)
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}, {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}
