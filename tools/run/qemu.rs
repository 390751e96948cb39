//! From a specification to QEMU's command line.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::elf::Kernel;
use crate::machine::{Board, Loader, Spec};
use crate::scratch::Scratch;
use crate::typing::Typing;
use crate::{trampoline, tree, uboot};

/// Where `raw` and `uboot` put the Image on virt unless told: not where QEMU itself would.
const RAW_ADDR: u64 = 0x4820_0000;
/// Where a Pi's firmware puts it.
const PI_ADDR: u64 = 0x20_0000;

/// Use of the console.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Console {
    /// A person's terminal, with QEMU's keys (Ctrl-A X leaves).
    Person,
    /// Output only, or a script's input.
    Script,
}

/// A machine that is ready to start, with the files that it reads.
pub(crate) struct Machine {
    pub(crate) command: Command,
    /// Text to type.
    pub(crate) typing: Option<Typing>,
    /// Held until the machine is gone.
    _scratch: Scratch,
}

/// Image to boot.
pub(crate) struct Program<'a> {
    pub(crate) kernel: &'a Kernel,
}

/// Prepares `spec` to boot `program` with `words` among its bootargs.
pub(crate) fn machine(spec: &Spec, program: &Program<'_>, words: &str, console: Console) -> Result<Machine, String> {
    if spec.kvm && !(cfg!(target_arch = "aarch64") && Path::new("/dev/kvm").exists()) {
        return Err("accel=kvm needs a host of 64-bit Arm with /dev/kvm (docs/testing.md)".to_owned());
    }
    let scratch = Scratch::new()?;
    let bootargs = bootargs(spec, words);
    let mut command = hardware(spec, console);
    let image = || program.kernel.image();
    let mut typing = Some(&spec.typed).filter(|typed| !typed.is_empty()).cloned().map(Typing::at_the_prompt);
    match spec.loader {
        Loader::Image => {
            command.arg("-kernel").arg(scratch.write("Image", &image()?.bytes)?);
        }
        Loader::Elf => {
            command.arg("-kernel").arg(scratch.write("kernel.elf", program.kernel.bytes())?);
        }
        Loader::Uboot => {
            let addr = spec.addr.unwrap_or(RAW_ADDR);
            command.arg("-bios").arg(uboot::firmware()?);
            place(&mut command, &scratch.write("Image", &image()?.bytes)?, addr);
            typing = Some(uboot::script(addr, &bootargs));
        }
        Loader::Raw => raw(spec, &mut command, image()?, &bootargs, &scratch)?,
    }
    if spec.loader != Loader::Uboot && !bootargs.is_empty() {
        command.arg("-append").arg(&bootargs);
    }
    if let Some(dtb) = spec.dtb.as_deref().filter(|_| spec.fdt_at.is_none()) {
        command.arg("-dtb").arg(tree::plain(dtb, &scratch)?);
    }
    if let Some(initrd) = &spec.initrd {
        command.arg("-initrd").arg(tree::in_package(initrd));
    }
    Ok(Machine { command, typing, _scratch: scratch })
}

/// The Image by hand at `addr`, entered by our own instructions.
fn raw(
    spec: &Spec,
    command: &mut Command,
    image: crate::elf::Image,
    bootargs: &str,
    scratch: &Scratch,
) -> Result<(), String> {
    let addr = spec.addr.unwrap_or(if spec.board == Board::Virt { RAW_ADDR } else { PI_ADDR });
    let code = trampoline::code(addr, spec);
    let code = scratch.write("trampoline", &code)?;
    command.arg("-kernel").arg(&code);
    if let Some(fdt_at) = spec.fdt_at {
        let mut tree = match &spec.dtb {
            Some(dtb) => tree::plain(dtb, scratch)?,
            None => {
                let mut bare = hardware(spec, Console::Script);
                bare.arg("-kernel").arg(&code);
                tree::dump(bare, &machine_option(spec), scratch)?
            }
        };
        if !bootargs.is_empty() {
            tree = tree::with_bootargs(&tree, bootargs, scratch)?;
        }
        if let Some(clock) = spec.clock {
            tree = tree::with_clock(&tree, clock, scratch)?;
        }
        if let Some(bytes) = spec.fdt_cut {
            tree = tree::cut(&tree, bytes, scratch)?;
        }
        place(command, &tree, fdt_at);
    }
    let image = if spec.dirty { image.with_dirty_bss() } else { image.bytes };
    place(command, &scratch.write("Image", &image)?, addr);
    Ok(())
}

/// The boot arguments: what the machine's specification says, and what this boot is for.
fn bootargs(spec: &Spec, words: &str) -> String {
    if !spec.bootargs {
        return String::new();
    }
    let semihosting = if spec.semihosting { "semihosting" } else { "" };
    let more = std::env::var("QUARRY_APPEND").unwrap_or_default();
    [semihosting, &spec.append, &more, words]
        .iter()
        .filter(|part| !part.is_empty())
        .copied()
        .collect::<Vec<_>>()
        .join(" ")
}

/// QEMU with the machine's parts, without what it boots.
fn hardware(spec: &Spec, console: Console) -> Command {
    let mut command = Command::new(program());
    command.args(["-machine", &machine_option(spec)]);
    if spec.board == Board::Virt {
        command.args(["-cpu", &spec.cpu]);
    }
    command.args(["-smp", &spec.smp.to_string(), "-m", &format!("{}M", spec.mem >> 20)]);
    for (node, size) in spec.numa.iter().enumerate() {
        command.args(["-object", &format!("memory-backend-ram,id=node{node},size={}M", size >> 20)]);
        command.args(["-numa", &format!("node,nodeid={node},memdev=node{node}")]);
    }
    if spec.kvm {
        command.args(["-accel", "kvm"]);
    }
    if spec.icount {
        command.args(["-icount", "shift=0,sleep=off"]);
    }
    if spec.semihosting {
        command.args(["-semihosting-config", "enable=on,target=native"]);
    }
    // Without a network card QEMU needs no boot ROM for one; a reset ends the run.
    command.args(["-nic", "none", "-display", "none", "-no-reboot"]);
    for _ in 0..spec.serial {
        command.args(["-serial", "null"]);
    }
    match console {
        Console::Person => command.args(["-serial", "mon:stdio"]),
        Console::Script => command.args(["-serial", "stdio", "-monitor", "none"]),
    };
    command
}

/// Lets the machine restart when it wants to, instead of ending.
pub(crate) fn allow_restart(command: &mut Command) {
    // The last one wins.
    command.args(["-action", "reboot=reset"]);
}

fn machine_option(spec: &Spec) -> String {
    let mut option = spec.board.to_string();
    if let Some(gic) = &spec.gic {
        let _ = write!(option, ",gic-version={gic}");
    }
    for (on, word) in [
        (spec.virtualization, ",virtualization=on"),
        (spec.secure, ",secure=on"),
        (spec.mte, ",mte=on"),
        (!spec.highmem, ",highmem=off"),
    ] {
        option += if on { word } else { "" };
    }
    option
}

/// The emulator: `QUARRY_QEMU` names another one.
fn program() -> PathBuf {
    std::env::var_os("QUARRY_QEMU").map_or_else(|| "qemu-system-aarch64".into(), PathBuf::from)
}

fn place(command: &mut Command, file: &Path, addr: u64) {
    command.arg("-device").arg(format!("loader,file={},addr={addr:#x},force-raw=on", file.display()));
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| {
            let word = word.to_string_lossy();
            if word.contains(' ') { format!("'{word}'") } else { word.into_owned() }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(spec: &str) -> String {
        shown(&hardware(&Spec::parse(spec).unwrap(), Console::Script))
    }

    #[test]
    fn parts_become_options() {
        let all = line("cpu=max smp=4 mem=512M gic=3 virtualization secure mte icount highmem=off");
        assert!(all.contains("-machine virt,gic-version=3,virtualization=on,secure=on,mte=on,highmem=off -cpu max"));
        assert!(all.contains("-smp 4 -m 512M") && all.contains("-icount shift=0,sleep=off"));
        assert!(all.contains("-nic none"), "{all}");
    }

    #[test]
    fn nodes_have_their_own_memory() {
        let nodes = line("numa=128M,256M");
        assert!(
            nodes.contains("-m 384M -object memory-backend-ram,id=node0,size=128M -numa node,nodeid=0,memdev=node0")
        );
        assert!(nodes.contains("memory-backend-ram,id=node1,size=256M"), "{nodes}");
    }

    #[test]
    fn the_second_serial_port_can_be_the_console() {
        assert!(line("board=raspi4b loader=raw serial=1").contains("-serial null -serial stdio"));
        assert!(!line("").contains("-serial null"));
    }

    #[test]
    fn semihosting_is_offered_only_where_wanted() {
        let spec = Spec::parse("append=x semihosting=off").unwrap();
        assert_eq!(bootargs(&spec, "ktest=1"), "x ktest=1");
        assert!(!line("semihosting=off").contains("semihosting"));
        assert_eq!(bootargs(&Spec::default(), ""), "semihosting");
        assert_eq!(bootargs(&Spec::parse("bootargs=off").unwrap(), "ktest=1"), "");
    }
}
