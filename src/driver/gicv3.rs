//! The protocol of a GICv3 with affinity routing (Arm IHI 0069H): what is written where, in which order, and what is waited for.
//! It knows registers by block and offset alone, so that a test can be the controller.
//!
//! The kernel is in the non-secure state, or in the only one that there is. Where there are two, the registers of groups and
//! `GICR_WAKER` read as zero and ignore writes, and interrupts that firmware kept for itself cannot be enabled: nothing here
//! takes for granted that a write had an effect.
#![forbid(unsafe_code)]

use super::waker::{self, Power, Unresponsive, WakeRegister};
use crate::hal::patience::{Patience, wait_until};
use core::fmt;

/// Registers in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Block {
    /// The distributor's.
    Distributor,
    /// Region of redistributors with this number.
    Region(usize),
}

/// Registers of the CPU interface, each CPU's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CpuRegister {
    /// `ICC_CTLR_EL1`
    Ctlr,
    /// `ICC_EOIR1_EL1`
    Eoir1,
    /// `ICC_IAR1_EL1`
    Iar1,
    /// `ICC_IGRPEN1_EL1`
    Igrpen1,
    /// `ICC_PMR_EL1`
    Pmr,
    /// `ICC_SGI1R_EL1`
    Sgi1r,
    /// `ICC_SRE_EL1`
    Sre,
}

/// Barriers between accesses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Barrier {
    /// `DSB ISHST`
    Stores,
    /// `DSB SY`
    All,
    /// `ISB`
    Instructions,
}

/// A controller's registers, and the CPU that accesses them. An offset beyond the block reads as zero and ignores writes.
pub trait Registers {
    /// Reads 32 bits at `offset`.
    fn read(&self, block: Block, offset: u64) -> u32;
    /// Writes them.
    fn write(&self, block: Block, offset: u64, value: u32);
    /// Reads 64 bits at `offset`, in one access.
    fn read_wide(&self, block: Block, offset: u64) -> u64;
    /// Writes them.
    fn write_wide(&self, block: Block, offset: u64, value: u64);
    /// Bytes of a block.
    fn size(&self, block: Block) -> u64;
    /// Reads a register of this CPU's interface.
    fn cpu_read(&self, register: CpuRegister) -> u64;
    /// Writes it. In effect after [`Barrier::Instructions`].
    fn cpu_write(&self, register: CpuRegister, value: u64);
    /// Affinity of this CPU, as in `MPIDR_EL1`.
    fn affinity(&self) -> u64;
    /// Waits for earlier accesses.
    fn barrier(&self, barrier: Barrier);
    /// The counter.
    fn ticks(&self) -> u64;
    /// Ticks per second.
    fn frequency(&self) -> u64;
}

/// Reason why a controller did not do what it was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Gicv3Error {
    /// No redistributor in the regions belongs to this CPU.
    NoRedistributor,
    /// A higher exception level keeps the CPU interface's registers to itself: `ICC_SRE_EL1.SRE` stays zero.
    NoCpuInterface,
    /// `ICC_SGI1R_EL1` cannot name a CPU of this affinity: its lowest field is 16 or more.
    Unreachable(u64),
    /// The redistributor of this CPU did not wake, or go to sleep, in time.
    Asleep(Unresponsive),
    /// A write had not reached all of the controller in time: the register that says so has this value.
    Pending(u32),
    /// The controller does not have the interrupt, or the secure state keeps it.
    Refused,
}

impl fmt::Display for Gicv3Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRedistributor => f.write_str("no redistributor belongs to this CPU"),
            Self::NoCpuInterface => f.write_str("firmware keeps the CPU interface to itself: ICC_SRE_EL1.SRE is 0"),
            Self::Unreachable(affinity) => write!(f, "affinity {affinity:#x} is out of reach of other CPUs"),
            Self::Asleep(error) => error.fmt(f),
            Self::Pending(register) => {
                write!(f, "a write to the controller does not end: its control register is {register:#x}")
            }
            Self::Refused => f.write_str("the controller refuses the interrupt"),
        }
    }
}

impl core::error::Error for Gicv3Error {}

// Offsets (§12.8, §12.10). Those from IGROUPR to ICFGR are the same in a redistributor, behind `PRIVATE`.
const CTLR: u64 = 0x0;
const GICD_TYPER: u64 = 0x4;
const IGROUPR: u64 = 0x80;
const ISENABLER: u64 = 0x100;
const ICENABLER: u64 = 0x180;
const ICACTIVER: u64 = 0x380;
const IPRIORITYR: u64 = 0x400;
const ICFGR: u64 = 0xc00;
const GICD_ICENABLER_E: u64 = 0x1400;
const GICD_IROUTER: u64 = 0x6000;
const GICR_TYPER: u64 = 0x8;
const GICR_WAKER: u64 = 0x14;
const PRIVATE: u64 = 0x1_0000;

/// Bytes from one redistributor to the next; twice that where it has the frames for virtual LPIs (§12.10).
const REDISTRIBUTOR_SIZE: u64 = 128 << 10;

/// `GICD_CTLR.RWP`: a write has not reached everything yet.
const GICD_RWP: u32 = 1 << 31;
/// `GICR_CTLR.RWP`
const GICR_RWP: u32 = 1 << 3;
/// `GICD_CTLR.ARE_NS`, and `ARE` where there is one security state.
const AFFINITY_ROUTING: u32 = 1 << 4;
/// `GICD_CTLR.EnableGrp1A`, and `EnableGrp1` where there is one security state.
const ENABLE_GROUP1: u32 = 1 << 1;
/// All that enables a group, in either view.
const ENABLES: u32 = 7;
const ALL: u32 = u32::MAX;
/// Four interrupts of the same priority, below the mask of `ICC_PMR_EL1` in both views.
const PRIORITIES: u32 = 0x8080_8080;
/// The lowest INTID of a shared interrupt.
const FIRST_SHARED: u32 = 32;
/// The lowest INTID that is not one of the interrupts between CPUs.
const FIRST_PRIVATE_DEVICE: u32 = 16;
/// INTIDs from this on say that nothing is pending, or not for this state.
const FIRST_SPECIAL: u32 = 1020;
/// The lowest affinity field of CPUs that the list of targets can name is below this (§12.11.44, without a range selector).
const SGI_TARGETS: u64 = 16;

/// The redistributor of a CPU.
#[derive(Clone, Copy)]
struct Redistributor {
    region: Block,
    at: u64,
    typer: u64,
}

/// Brings the distributor into a known state: every shared interrupt off, in group 1, at one priority, by its level; affinity
/// routing on. Once, on the boot CPU.
///
/// # Errors
///
/// [`Gicv3Error::Pending`].
pub fn init(gic: &impl Registers) -> Result<(), Gicv3Error> {
    let block = Block::Distributor;
    let control = gic.read(block, CTLR) & !(ENABLES | GICD_RWP);
    gic.write(block, CTLR, control);
    let typer = gic.read(block, GICD_TYPER);
    let lines = u64::from(typer & 0x1f);
    for line in 1..=lines {
        gic.write(block, ICENABLER + 4 * line, ALL);
    }
    // The extended range is used by nobody; a loader may have.
    if typer & 1 << 8 != 0 {
        for line in 0..=u64::from(typer >> 27) {
            gic.write(block, GICD_ICENABLER_E + 4 * line, ALL);
        }
    }
    // Affinity routing wants the groups off, and triggers and groups want their interrupts off.
    distributor_settled(gic)?;
    gic.write(block, CTLR, control | AFFINITY_ROUTING);
    distributor_settled(gic)?;
    for line in 1..=lines {
        gic.write(block, ICACTIVER + 4 * line, ALL);
        gic.write(block, IGROUPR + 4 * line, ALL);
        for word in 8 * line..8 * (line + 1) {
            gic.write(block, IPRIORITYR + 4 * word, PRIORITIES);
        }
        for word in 2 * line..2 * (line + 1) {
            gic.write(block, ICFGR + 4 * word, 0);
        }
    }
    gic.write(block, CTLR, control | AFFINITY_ROUTING | ENABLE_GROUP1);
    distributor_settled(gic)
}

/// Lets this CPU take interrupts; its private ones are off. Answers with its affinity, for [`send`]. Interrupts masked.
///
/// # Errors
///
/// All but [`Gicv3Error::Refused`].
pub fn init_cpu(gic: &impl Registers) -> Result<u64, Gicv3Error> {
    let own = own_redistributor(gic)?;
    gic.cpu_write(CpuRegister::Sre, gic.cpu_read(CpuRegister::Sre) | 1);
    gic.barrier(Barrier::Instructions);
    if gic.cpu_read(CpuRegister::Sre) & 1 == 0 {
        return Err(Gicv3Error::NoCpuInterface);
    }
    set_power(gic, own, Power::Awake)?;
    // One write ends an interrupt, no matter which EOImode a loader or the previous kernel chose.
    gic.cpu_write(CpuRegister::Ctlr, 0);
    let private = own.at + PRIVATE;
    // Extended private interrupts have a register for each 32, too.
    for line in 0..=(own.typer >> 27 & 0x1f).min(2) {
        gic.write(own.region, private + ICENABLER + 4 * line, ALL);
    }
    own_settled(gic, own)?;
    gic.write(own.region, private + ICACTIVER, ALL);
    gic.write(own.region, private + IGROUPR, ALL);
    for word in 0..8 {
        gic.write(own.region, private + IPRIORITYR + 4 * word, PRIORITIES);
    }
    gic.write(own.region, private + ICFGR + 4, 0);
    gic.cpu_write(CpuRegister::Pmr, 0xff);
    gic.cpu_write(CpuRegister::Igrpen1, 1);
    gic.barrier(Barrier::Instructions);
    let affinity = gic.affinity();
    if affinity & 0xff < SGI_TARGETS { Ok(affinity) } else { Err(Gicv3Error::Unreachable(affinity)) }
}

/// This CPU takes no interrupts from now on. Masked.
///
/// # Errors
///
/// [`Gicv3Error::NoRedistributor`], [`Gicv3Error::Asleep`]; it takes none all the same.
pub fn leave_cpu(gic: &impl Registers) -> Result<(), Gicv3Error> {
    gic.cpu_write(CpuRegister::Igrpen1, 0);
    gic.barrier(Barrier::Instructions);
    set_power(gic, own_redistributor(gic)?, Power::Asleep)
}

/// Makes the interrupt `intid`, below 16, pending on the CPU with `affinity`, as [`init_cpu`] answered there. The handler sees all
/// earlier stores. Any context; takes no lock.
pub fn send(gic: &impl Registers, intid: u32, affinity: u64) {
    let [aff0, aff1, aff2, _, aff3, ..] = affinity.to_le_bytes();
    let field = |value: u8, at: u32| u64::from(value) << at;
    let word = field(aff3, 48) | field(aff2, 32) | u64::from(intid & 0xf) << 24 | field(aff1, 16) | 1 << (aff0 & 0xf);
    // The interrupt is on its way when this returns (Linux: `gic_ipi_send_mask`).
    gic.barrier(Barrier::Stores);
    gic.cpu_write(CpuRegister::Sgi1r, word);
    gic.barrier(Barrier::Instructions);
}

/// Lets `intid` through to this CPU. Holding the controller's lock.
///
/// # Errors
///
/// [`Gicv3Error::Refused`], [`Gicv3Error::NoRedistributor`].
pub fn enable(gic: &impl Registers, intid: u32, is_edge: bool) -> Result<(), Gicv3Error> {
    let (block, base) = place_of(gic, intid)?;
    if intid >= FIRST_PRIVATE_DEVICE {
        let at = base + ICFGR + 4 * u64::from(intid / 16);
        let bit = 2 << (intid % 16 * 2);
        let before = gic.read(block, at);
        gic.write(block, at, if is_edge { before | bit } else { before & !bit });
    }
    if intid >= FIRST_SHARED {
        gic.write_wide(block, GICD_IROUTER + 8 * u64::from(intid), gic.affinity());
    }
    let (word, bit) = (4 * u64::from(intid / 32), 1 << (intid % 32));
    gic.write(block, base + ISENABLER + word, bit);
    // One of the secure state ignores it.
    if gic.read(block, base + ISENABLER + word) & bit == 0 {
        return Err(Gicv3Error::Refused);
    }
    Ok(())
}

/// Holds `intid` back; none is on its way from the controller any more. Holding the controller's lock.
///
/// # Errors
///
/// [`Gicv3Error::Pending`]: one may still be on its way. Otherwise as for [`enable`].
pub fn disable(gic: &impl Registers, intid: u32) -> Result<(), Gicv3Error> {
    let (block, base) = place_of(gic, intid)?;
    gic.write(block, base + ICENABLER + 4 * u64::from(intid / 32), 1 << (intid % 32));
    match block {
        Block::Distributor => distributor_settled(gic),
        Block::Region(_) => settled(gic, block, base - PRIVATE + CTLR, GICR_RWP),
    }
}

/// Takes the pending interrupt of this CPU, if there is one.
pub fn acknowledge(gic: &impl Registers) -> Option<u32> {
    let intid =
        u32::try_from(gic.cpu_read(CpuRegister::Iar1) & 0xff_ffff).ok().filter(|intid| *intid < FIRST_SPECIAL)?;
    // The handler must see all writes before the interrupt was raised, and the acknowledgement must have taken effect
    // (Linux: `gic_read_iar`).
    gic.barrier(Barrier::All);
    Some(intid)
}

/// Ends the interrupt that this CPU took last.
pub fn end(gic: &impl Registers, intid: u32) {
    gic.cpu_write(CpuRegister::Eoir1, u64::from(intid));
    gic.barrier(Barrier::Instructions);
}

/// The registers from `IGROUPR` to `ICFGR` that `intid` has its bits in.
fn place_of(gic: &impl Registers, intid: u32) -> Result<(Block, u64), Gicv3Error> {
    if intid < FIRST_SHARED {
        return own_redistributor(gic).map(|own| (own.region, own.at + PRIVATE));
    }
    let end = FIRST_SHARED * ((gic.read(Block::Distributor, GICD_TYPER) & 0x1f) + 1);
    if intid < end.min(FIRST_SPECIAL) { Ok((Block::Distributor, 0)) } else { Err(Gicv3Error::Refused) }
}

/// The redistributor whose affinity is this CPU's own.
fn own_redistributor(gic: &impl Registers) -> Result<Redistributor, Gicv3Error> {
    let mut regions = (0..).map(Block::Region).take_while(|region| gic.size(*region) != 0);
    regions.find_map(|region| own_redistributor_in(gic, region)).ok_or(Gicv3Error::NoRedistributor)
}

/// That redistributor if it lies in a region, which ends with the last one that it has.
fn own_redistributor_in(gic: &impl Registers, region: Block) -> Option<Redistributor> {
    let mut at = 0_u64;
    while at.checked_add(REDISTRIBUTOR_SIZE)? <= gic.size(region) {
        let typer = gic.read_wide(region, at + GICR_TYPER);
        // Affinity fields 3 to 0, without the gap that MPIDR_EL1 has.
        let (low, high) = (typer >> 32 & 0xff_ffff, typer >> 56);
        if low | high << 32 == gic.affinity() {
            return Some(Redistributor { region, at, typer });
        }
        let (has_virtual_lpis, is_last) = (typer & 2 != 0, typer & 1 << 4 != 0);
        if is_last {
            return None;
        }
        at += if has_virtual_lpis { 2 * REDISTRIBUTOR_SIZE } else { REDISTRIBUTOR_SIZE };
    }
    None
}

/// Waits until the writes to the distributor have reached everything.
fn distributor_settled(gic: &impl Registers) -> Result<(), Gicv3Error> {
    settled(gic, Block::Distributor, CTLR, GICD_RWP)
}

/// Waits until the writes to this CPU's redistributor have.
fn own_settled(gic: &impl Registers, own: Redistributor) -> Result<(), Gicv3Error> {
    settled(gic, own.region, own.at + CTLR, GICR_RWP)
}

fn settled(gic: &impl Registers, block: Block, control: u64, pending: u32) -> Result<(), Gicv3Error> {
    let is_settled = || gic.read(block, control) & pending == 0;
    match wait_until(patience(gic), || gic.ticks(), is_settled, core::hint::spin_loop) {
        true => Ok(()),
        false => Err(Gicv3Error::Pending(gic.read(block, control))),
    }
}

/// Ticks that a controller may take: a tenth of a second.
fn patience(gic: &impl Registers) -> u64 {
    (gic.frequency() / 10).max(1)
}

fn set_power(gic: &impl Registers, own: Redistributor, wanted: Power) -> Result<(), Gicv3Error> {
    let mut patience = Patience::new(gic.ticks(), patience(gic));
    let is_patient = || patience.is_left(gic.ticks());
    waker::set_power(&mut Waker { gic, own }, wanted, is_patient).map_err(Gicv3Error::Asleep)
}

/// The wake register among the registers of a redistributor.
struct Waker<'a, R> {
    gic: &'a R,
    own: Redistributor,
}

impl<R: Registers> WakeRegister for Waker<'_, R> {
    fn read(&self) -> u32 {
        self.gic.read(self.own.region, self.own.at + GICR_WAKER)
    }

    fn write(&mut self, value: u32) {
        self.gic.write(self.own.region, self.own.at + GICR_WAKER, value);
    }
}
