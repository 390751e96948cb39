//! The machine that a test asks for: words such as `cpu=max smp=4 mem=512M gic=3 secure`, parsed and checked.
//! `docs/testing.md` lists them.

use crate::typing;
use std::fmt;
use std::path::PathBuf;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The boards that QEMU can be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Board {
    Virt,
    Raspi4b,
}

/// How the kernel gets into the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Loader {
    /// QEMU loads the flat Image by its header: x0 = device tree, EL2 or EL1.
    Image,
    /// QEMU loads the ELF file: x0 = 0, the highest exception level there is.
    Elf,
    /// U-Boot starts the Image with `booti`.
    Uboot,
    /// The Image is placed at `addr`, and a few instructions of ours enter it there.
    Raw,
}

/// A machine and the way into it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one word of the specification, independent of the others")]
pub(crate) struct Spec {
    pub(crate) board: Board,
    pub(crate) cpu: String,
    pub(crate) smp: u32,
    pub(crate) mem: u64,
    pub(crate) numa: Vec<u64>,
    pub(crate) gic: Option<String>,
    pub(crate) virtualization: bool,
    pub(crate) secure: bool,
    pub(crate) mte: bool,
    pub(crate) highmem: bool,
    /// One virtual nanosecond for each instruction: counts are exact and one thread runs all CPUs.
    pub(crate) icount: bool,
    /// The host's own CPU executes the kernel, by KVM.
    pub(crate) kvm: bool,
    pub(crate) loader: Loader,
    /// Where `raw` and `uboot` put the Image.
    pub(crate) addr: Option<u64>,
    /// Value of x0 with `raw`; without it, QEMU's, or `fdt_at`.
    pub x0: Option<u64>,
    /// Where `raw` puts the device tree, unread by QEMU.
    pub(crate) fdt_at: Option<u64>,
    /// How many bytes of the tree `fdt_at` places; without it, all.
    pub(crate) fdt_cut: Option<u64>,
    /// `raw` enters with garbage in x1 to x30, SP and BSS, and SError unmasked.
    pub(crate) dirty: bool,
    /// Whether the CPU has the 4 KiB granule; without it `raw` enters at EL1 under an EL2 that says so.
    pub(crate) granule: bool,
    /// `CNTFRQ_EL0` is zero when `raw` enters, and the device tree states this frequency instead.
    pub(crate) clock: Option<u32>,
    pub(crate) dtb: Option<PathBuf>,
    pub(crate) initrd: Option<PathBuf>,
    pub(crate) append: String,
    /// Whether bootargs reach the kernel at all.
    pub(crate) bootargs: bool,
    pub(crate) semihosting: bool,
    /// Which of the board's serial ports is the console: the Pi's mini-UART is 1.
    pub(crate) serial: usize,
    /// Text typed at the kernel's prompt, a piece each time that it is there.
    pub(crate) typed: Vec<Vec<u8>>,
    /// The machine must print nothing: its console is not where the kernel could guess it.
    pub(crate) silent: bool,
    /// After its reports the machine stands still: nothing more comes, and it does not leave.
    pub(crate) stays: bool,
    /// The test shares its boot with no other.
    pub(crate) alone: bool,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            board: Board::Virt,
            cpu: "cortex-a72".to_owned(),
            smp: 1,
            mem: 256 * MIB,
            numa: Vec::new(),
            gic: None,
            virtualization: false,
            secure: false,
            mte: false,
            highmem: true,
            icount: false,
            kvm: false,
            loader: Loader::Image,
            addr: None,
            x0: None,
            fdt_at: None,
            fdt_cut: None,
            dirty: false,
            granule: true,
            clock: None,
            dtb: None,
            initrd: None,
            append: String::new(),
            bootargs: true,
            semihosting: true,
            serial: 0,
            typed: Vec::new(),
            silent: false,
            stays: false,
            alone: false,
        }
    }
}

impl Spec {
    /// Reads a specification; every word must be known, and fit the others.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut spec = Self::default();
        for word in words(text)? {
            let (key, value) = word.split_once('=').unwrap_or((&word, ""));
            spec.set(key, value).map_err(|why| format!("machine {text:?}: {why}"))?;
        }
        spec.check().map_err(|why| format!("machine {text:?}: {why}"))?;
        Ok(spec)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let on = |name: &str| match value {
            "" | "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(format!("{name} is on or off, not {value:?}")),
        };
        match key {
            "board" => {
                self.board = match value {
                    "virt" => Board::Virt,
                    "raspi4b" => Board::Raspi4b,
                    _ => return Err(format!("no board {value:?}; there are virt and raspi4b")),
                }
            }
            "loader" => {
                self.loader = match value {
                    "image" => Loader::Image,
                    "elf" => Loader::Elf,
                    "uboot" => Loader::Uboot,
                    "raw" => Loader::Raw,
                    _ => return Err(format!("no loader {value:?}; there are image, elf, uboot and raw")),
                }
            }
            "cpu" => value.clone_into(&mut self.cpu),
            "smp" => self.smp = value.parse().map_err(|_| format!("smp={value} is not a number"))?,
            "mem" => self.mem = size(value)?,
            "numa" => {
                self.numa = value.split(',').map(size).collect::<Result<_, _>>()?;
                self.mem = self.numa.iter().sum();
            }
            "gic" => self.gic = Some(value.to_owned()),
            "virtualization" => self.virtualization = on(key)?,
            "secure" => self.secure = on(key)?,
            "mte" => self.mte = on(key)?,
            "highmem" => self.highmem = on(key)?,
            "icount" => self.icount = on(key)?,
            "accel" => {
                self.kvm = match value {
                    "kvm" => true,
                    "tcg" => false,
                    _ => return Err(format!("no accelerator {value:?}; there are kvm and tcg")),
                }
            }
            "addr" => self.addr = Some(number(value)?),
            "x0" => self.x0 = Some(number(value)?),
            "fdt_at" => self.fdt_at = Some(number(value)?),
            "fdt_cut" => self.fdt_cut = Some(number(value)?),
            "dirty" => self.dirty = on(key)?,
            "granule" => self.granule = on(key)?,
            "clock" => self.clock = Some(value.parse().map_err(|_| format!("clock={value} is not a number"))?),
            "dtb" => self.dtb = Some(value.into()),
            "initrd" => self.initrd = Some(value.into()),
            "append" => value.clone_into(&mut self.append),
            "bootargs" => self.bootargs = on(key)?,
            "semihosting" => self.semihosting = on(key)?,
            "serial" => self.serial = value.parse().ok().filter(|&port| port < 2).ok_or("serial is 0 or 1")?,
            "type" => self.typed = typing::pieces(value)?,
            "silent" => self.silent = on(key)?,
            "stays" => self.stays = on(key)?,
            "alone" => self.alone = on(key)?,
            _ => return Err(format!("unknown word {key:?}")),
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), String> {
        let raw = self.loader == Loader::Raw;
        if !raw && (self.x0.is_some() || self.fdt_at.is_some() || self.dirty) {
            return Err("x0, fdt_at and dirty need loader=raw".to_owned());
        }
        if !(self.granule || raw && self.virtualization) {
            return Err("granule=off needs loader=raw and virtualization".to_owned());
        }
        if self.clock.is_some() && !(self.virtualization && self.fdt_at.is_some()) {
            return Err("clock needs virtualization and fdt_at".to_owned());
        }
        if self.fdt_cut.is_some() && self.fdt_at.is_none() {
            return Err("fdt_cut needs fdt_at".to_owned());
        }
        if self.addr.is_some() && !matches!(self.loader, Loader::Raw | Loader::Uboot) {
            return Err("addr needs loader=raw or loader=uboot".to_owned());
        }
        if self.addr.is_some_and(|addr| addr % (2 * MIB) != 0) {
            return Err("addr must be a multiple of 2 MiB".to_owned());
        }
        if self.loader == Loader::Uboot && (self.board != Board::Virt || self.dtb.is_some() || self.initrd.is_some()) {
            return Err("loader=uboot knows the board virt, with QEMU's device tree and no initrd".to_owned());
        }
        if self.loader == Loader::Uboot && !self.typed.is_empty() {
            return Err("type is for machines that nothing else is typed to".to_owned());
        }
        if self.kvm {
            if self.board != Board::Virt || self.icount || self.secure || self.virtualization || self.mte {
                return Err("accel=kvm is the host's own CPU at EL1, on the board virt".to_owned());
            }
            // The host's CPU, its interrupt controller, and nobody who listens to semihosting.
            self.cpu = "host".to_owned();
            self.gic = Some("host".to_owned());
            self.semihosting = false;
        }
        if self.board == Board::Raspi4b {
            // QEMU models one such board: 2 GiB, four cores.
            (self.mem, self.smp) = (2 * GIB, 4);
            if !self.numa.is_empty() || self.gic.is_some() || self.virtualization || self.secure || self.mte {
                return Err("raspi4b is one fixed machine".to_owned());
            }
            if self.dtb.is_none() && !raw {
                return Err("raspi4b needs dtb=".to_owned());
            }
            if raw && self.fdt_at.is_some() && self.dtb.is_none() {
                return Err("raspi4b has no device tree of its own to place: fdt_at needs dtb=".to_owned());
            }
        }
        Ok(())
    }
}

/// Splits at spaces; a value may be quoted: `append='loglevel=7 x'`.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let (mut word, mut quoted) = (String::new(), false);
    for c in text.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            _ => word.push(c),
        }
    }
    if quoted {
        return Err(format!("machine {text:?}: a quote is left open"));
    }
    if !word.is_empty() {
        words.push(word);
    }
    Ok(words)
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(&hex.replace('_', ""), 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text:?} is not a number"))
}

fn size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, 'K')) => (&text[..at], KIB),
        Some((at, 'M')) => (&text[..at], MIB),
        Some((at, 'G')) => (&text[..at], GIB),
        _ => return Err(format!("size {text:?} lacks K, M or G")),
    };
    number(digits)?.checked_mul(unit).filter(|&bytes| bytes > 0).ok_or_else(|| format!("size {text:?} is out of range"))
}

impl fmt::Display for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Virt => "virt",
            Self::Raspi4b => "raspi4b",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_kvm_the_cpu_is_the_hosts_and_nobody_listens_to_semihosting() {
        let spec = Spec::parse("mem=1G smp=4 accel=kvm").unwrap();
        assert_eq!((spec.cpu.as_str(), spec.gic.as_deref(), spec.semihosting), ("host", Some("host"), false));
        for wrong in ["accel=hvf", "accel=kvm icount", "accel=kvm secure", "accel=kvm board=raspi4b dtb=x"] {
            assert!(Spec::parse(wrong).is_err(), "{wrong} was taken");
        }
    }

    #[test]
    fn words_set_the_machine() {
        let spec = Spec::parse("cpu=max smp=4 mem=512M gic=3 virtualization secure mte append='a=1 b'").unwrap();
        assert_eq!((spec.cpu.as_str(), spec.smp, spec.mem), ("max", 4, 512 * MIB));
        assert_eq!(spec.gic.as_deref(), Some("3"));
        assert!(spec.virtualization && spec.secure && spec.mte);
        assert_eq!(spec.append, "a=1 b");
    }

    #[test]
    fn nothing_is_the_default_machine() {
        assert_eq!(Spec::parse("").unwrap(), Spec::default());
    }

    #[test]
    fn numa_nodes_add_up() {
        assert_eq!(Spec::parse("numa=128M,384M").unwrap().mem, 512 * MIB);
    }

    #[test]
    fn a_wrong_word_is_refused() {
        for wrong in [
            "cores=4",
            "smp=four",
            "mem=512",
            "mem=0M",
            "secure=maybe",
            "append='x",
            "x0=0x10",
            "addr=0x40200000",
            "loader=raw addr=0x40100000",
            "board=raspi4b",
            "board=raspi4b dtb=x.dtb gic=3",
            "loader=uboot initrd=x",
            "loader=raw fdt_cut=8",
            "loader=raw granule=off",
            "type='\\q'",
            "loader=uboot type='help'",
        ] {
            assert!(Spec::parse(wrong).is_err(), "{wrong:?} was taken");
        }
    }
}
