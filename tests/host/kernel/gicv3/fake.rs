//! A GICv3 in software: a distributor, redistributors in several regions, a CPU interface for each CPU; with one security state, or
//! with two, seen from the non-secure one. It panics at what the architecture leaves unpredictable: a change of what is enabled,
//! an access to the interface that is not there yet, a write that follows one which has not ended.

use quarry::driver::gicv3::{Barrier, Block, CpuRegister, Registers};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

pub(super) const FREQUENCY: u64 = 10_000;
/// Shared interrupts: 32 to 159.
const LINES: u32 = 4;

/// How the counter that a CPU reads goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Clock {
    /// By so much with each look.
    Steps(u64),
    Still,
    /// Back by so much with each look.
    Back(u64),
}

/// One of the interrupts.
#[derive(Clone, Copy, Default)]
struct Interrupt {
    is_enabled: bool,
    is_pending: bool,
    is_active: bool,
    is_edge: bool,
    /// Firmware's; or, with one security state, still in group 0.
    is_secure: bool,
    priority: u8,
    route: u64,
}

/// The interrupts of one block, with the bit for writes that have not ended.
struct Part {
    interrupts: Vec<Interrupt>,
    /// Reads until a write has ended.
    rwp: Cell<Option<u32>>,
}

impl Part {
    fn new(count: u32, secure: bool) -> Self {
        let leftover = Interrupt {
            is_enabled: true,
            is_active: true,
            is_edge: true,
            is_secure: !secure,
            priority: 0xff,
            ..Interrupt::default()
        };
        Self { interrupts: vec![leftover; count as usize], rwp: Cell::new(None) }
    }
}

pub(super) struct Redistributor {
    affinity: u64,
    has_virtual_lpis: bool,
    part: Part,
    /// `GICR_WAKER`: what was asked for, and whether the redistributor has followed.
    asked_asleep: bool,
    pub(super) is_asleep: bool,
}

impl Redistributor {
    pub(super) fn new(affinity: u64, has_virtual_lpis: bool, secure: bool) -> Self {
        let part = Part::new(32, secure);
        // Firmware, where there is one, has woken it already.
        Self { affinity, has_virtual_lpis, part, asked_asleep: !secure, is_asleep: !secure }
    }

    fn size(&self) -> u64 {
        if self.has_virtual_lpis { 256 << 10 } else { 128 << 10 }
    }
}

#[derive(Default)]
struct Interface {
    sre: u64,
    /// The same, once an ISB has come.
    has_registers: bool,
    pmr: u64,
    group1: u64,
    group1_in_effect: bool,
    ctlr: u64,
    active: Vec<u32>,
}

pub(super) struct Fake {
    /// Two security states, the controller set up by firmware, and the kernel in the non-secure one.
    secure: bool,
    control: Cell<u32>,
    distributor: RefCell<Part>,
    pub(super) regions: RefCell<Vec<Vec<Redistributor>>>,
    interfaces: RefCell<Vec<Interface>>,
    affinities: Vec<u64>,
    /// The CPU that executes.
    pub(super) cpu: Cell<usize>,
    /// The CPU interface's registers cannot be had.
    pub(super) locked: Cell<bool>,
    /// Reads for which a write goes on, and the write, counted from the first, that never ends.
    pub(super) slow: Cell<u32>,
    pub(super) hangs_at: Cell<Option<usize>>,
    pub(super) waits: Cell<usize>,
    /// Whether redistributors do what `GICR_WAKER` asks.
    pub(super) follows: Cell<bool>,
    pub(super) clock: Cell<Clock>,
    pub(super) now: Cell<u64>,
    pub(super) looks: Cell<u64>,
    /// Stores that no barrier has completed.
    pub(super) unordered: Cell<bool>,
}

impl Fake {
    /// Redistributors by region: affinity, and whether it has the frames for virtual LPIs.
    pub(super) fn new(secure: bool, regions: &[&[(u64, bool)]]) -> Self {
        let affinities: Vec<u64> = regions.iter().copied().flatten().map(|(affinity, _)| *affinity).collect();
        let redistributors = |region: &&[(u64, bool)]| {
            region.iter().map(|(affinity, wide)| Redistributor::new(*affinity, *wide, secure)).collect()
        };
        let mut distributor = Part::new(32 * LINES + 32, secure);
        // What firmware keeps for itself is off in the view of the others.
        distributor.interrupts[50].is_secure = true;
        Self {
            secure,
            // One state: all groups on, affinity routing off. Two: as firmware leaves it.
            control: Cell::new(if secure { 1 << 4 | 1 << 1 } else { 3 }),
            distributor: RefCell::new(distributor),
            regions: RefCell::new(regions.iter().map(redistributors).collect()),
            // EOImode as a hypervisor may leave it.
            interfaces: RefCell::new(
                affinities.iter().map(|_| Interface { ctlr: 2, ..Interface::default() }).collect(),
            ),
            affinities,
            cpu: Cell::new(0),
            locked: Cell::new(false),
            slow: Cell::new(0),
            hangs_at: Cell::new(None),
            waits: Cell::new(0),
            follows: Cell::new(true),
            clock: Cell::new(Clock::Steps(1)),
            now: Cell::new(u64::MAX - 5000),
            looks: Cell::new(0),
            unordered: Cell::new(false),
        }
    }

    pub(super) fn on<T>(&self, cpu: usize, body: impl FnOnce(&Self) -> T) -> T {
        self.cpu.set(cpu);
        body(self)
    }

    /// A line of a device goes up.
    pub(super) fn raise(&self, intid: u32) {
        self.distributor.borrow_mut().interrupts[intid as usize].is_pending = true;
    }

    /// Whether shared interrupt `intid` is enabled, by an edge.
    pub(super) fn shared(&self, intid: u32) -> (bool, bool) {
        let found = self.distributor.borrow().interrupts[intid as usize];
        (found.is_enabled, found.is_edge)
    }

    /// A write whose effect takes its time.
    fn begin(&self, part: &Part) {
        let number = self.waits.get();
        self.waits.set(number + 1);
        let hangs = self.hangs_at.get() == Some(number) || part.rwp.get() == Some(u32::MAX);
        part.rwp.set(Some(if hangs { u32::MAX } else { self.slow.get() }));
    }

    fn is_pending(&self, part: &Part) -> bool {
        match part.rwp.get() {
            None => false,
            Some(u32::MAX) => true,
            Some(0) => {
                part.rwp.set(None);
                false
            }
            Some(left) => {
                part.rwp.set(Some(left - 1));
                true
            }
        }
    }

    fn find<T>(&self, region: usize, offset: u64, body: impl FnOnce(&mut Redistributor, u64, bool) -> T) -> Option<T> {
        let mut regions = self.regions.borrow_mut();
        let region = regions.get_mut(region)?;
        let count = region.len();
        let mut at = 0;
        for (number, redistributor) in region.iter_mut().enumerate() {
            let size = redistributor.size();
            if (at..at + size).contains(&offset) {
                return Some(body(redistributor, offset - at, number + 1 == count));
            }
            at += size;
        }
        None
    }

    /// One bit for each interrupt of the word, or what else a register of `field` holds.
    fn read_bits(&self, part: &Part, offset: u64) -> u32 {
        let bit = |word: u64, of: &dyn Fn(&Interrupt) -> bool| {
            let first = word as usize * 32;
            let interrupts = part.interrupts.iter().skip(first).take(32);
            interrupts.enumerate().fold(0, |sum, (n, one)| sum | u32::from(self.is_ours(one) && of(one)) << n)
        };
        match offset {
            0x80..0x100 if self.secure => 0,
            0x80..0x100 => bit((offset - 0x80) / 4, &|one| !one.is_secure),
            0x100..0x180 => bit((offset - 0x100) / 4, &|one| one.is_enabled),
            0x180..0x200 => bit((offset - 0x180) / 4, &|one| one.is_enabled),
            0xc00..0xd00 => {
                let first = (offset - 0xc00) as usize * 4;
                let interrupts = part.interrupts.iter().skip(first).take(16);
                interrupts
                    .enumerate()
                    .fold(0, |sum, (n, one)| sum | u32::from(self.is_ours(one) && one.is_edge) << (2 * n + 1))
            }
            _ => panic!("nobody reads {offset:#x}"),
        }
    }

    /// Whether the kernel sees the interrupt at all.
    fn is_ours(&self, one: &Interrupt) -> bool {
        !(self.secure && one.is_secure)
    }

    fn write_bits(&self, part: &mut Part, offset: u64, value: u32) {
        // One interrupt after the other may be disabled; what wants them disabled comes after that.
        let waits = !(0x180..0x200).contains(&offset) && part.rwp.get().is_some();
        assert!(!waits, "{offset:#x} is written before the last write has ended");
        let secure = self.secure;
        let each = |part: &mut Part, first: usize, change: &dyn Fn(&mut Interrupt)| {
            let chosen =
                part.interrupts.iter_mut().skip(first).take(32).enumerate().filter(|(n, _)| value >> n & 1 != 0);
            chosen.map(|(_, one)| one).filter(|one| !(secure && one.is_secure)).for_each(change);
        };
        let first = |start: u64| (offset - start) as usize * 8;
        match offset {
            0x80..0x100 if secure => {}
            0x80..0x100 => {
                let mut interrupts = part.interrupts.iter_mut().skip(first(0x80)).take(32).enumerate();
                interrupts.by_ref().for_each(|(n, one)| {
                    assert!(!one.is_enabled, "the group of what is enabled");
                    one.is_secure = value >> n & 1 == 0;
                });
            }
            0x100..0x180 => each(part, first(0x100), &|one| one.is_enabled = true),
            0x180..0x200 => {
                each(part, first(0x180), &|one| one.is_enabled = false);
                self.begin(part);
            }
            0x380..0x400 => each(part, first(0x380), &|one| one.is_active = false),
            0x400..0x800 => {
                let interrupts = part.interrupts.iter_mut().skip((offset - 0x400) as usize).take(4);
                for (one, priority) in interrupts.zip(value.to_le_bytes()).filter(|(one, _)| !(secure && one.is_secure))
                {
                    assert!(!one.is_enabled, "the priority of what is enabled");
                    // The lower half of the priorities is what the non-secure state has.
                    one.priority = if secure { 0x80 | priority >> 1 } else { priority };
                }
            }
            0xc00..0xd00 => {
                let interrupts = part.interrupts.iter_mut().skip((offset - 0xc00) as usize * 4).take(16).enumerate();
                for (n, one) in interrupts.filter(|(_, one)| !(secure && one.is_secure)) {
                    let is_edge = value >> (2 * n + 1) & 1 != 0;
                    assert!(!one.is_enabled || one.is_edge == is_edge, "the trigger of what is enabled");
                    one.is_edge = is_edge;
                }
            }
            _ => panic!("nobody writes {offset:#x}"),
        }
    }

    fn write_control(&self, value: u32) {
        let (before, part) = (self.control.get(), self.distributor.borrow());
        assert!(part.rwp.get().is_none(), "GICD_CTLR is written before the last write has ended");
        let routing_changes = (before ^ value) & 1 << 4 != 0;
        assert!(
            !routing_changes || before & 7 == 0 && value & 7 == 0,
            "affinity routing changes while a group is enabled"
        );
        self.control.set(value & 0x17);
        self.begin(&part);
    }

    /// The interrupt that this CPU would take.
    fn pending(&self) -> Option<u32> {
        let (interfaces, regions) = (self.interfaces.borrow(), self.regions.borrow());
        let interface = &interfaces[self.cpu.get()];
        let affinity = self.affinity();
        let own = regions.iter().flatten().find(|one| one.affinity == affinity)?;
        if !interface.group1_in_effect || own.is_asleep || self.control.get() & (1 << 4 | 1 << 1) != 1 << 4 | 1 << 1 {
            return None;
        }
        let reaches = |one: &Interrupt| {
            one.is_pending
                && one.is_enabled
                && !one.is_active
                && !one.is_secure
                && u64::from(one.priority) < interface.pmr
        };
        let private = own.part.interrupts.iter().position(reaches);
        let distributor = self.distributor.borrow();
        let shared = distributor.interrupts.iter().enumerate().skip(32);
        let shared = shared.filter(|(_, one)| reaches(one) && one.route == affinity).map(|(n, _)| n).next();
        private.or(shared).map(|number| number as u32)
    }

    fn with_interrupt(&self, intid: u32, change: impl FnOnce(&mut Interrupt)) {
        if intid >= 32 {
            return change(&mut self.distributor.borrow_mut().interrupts[intid as usize]);
        }
        let affinity = self.affinity();
        let mut regions = self.regions.borrow_mut();
        let own = regions.iter_mut().flatten().find(|one| one.affinity == affinity).unwrap();
        change(&mut own.part.interrupts[intid as usize]);
    }

    fn send_sgi(&self, word: u64) {
        assert!(!self.unordered.get(), "the handler might not see what was stored before");
        let intid = (word >> 24 & 0xf) as usize;
        let path = (word >> 48 & 0xff) << 32 | (word >> 32 & 0xff) << 16 | (word >> 16 & 0xff) << 8;
        let targets: BTreeSet<u64> = (0..16).filter(|n| word >> n & 1 != 0).map(|n| path | n).collect();
        let mut sent = 0;
        for one in self.regions.borrow_mut().iter_mut().flatten().filter(|one| targets.contains(&one.affinity)) {
            one.part.interrupts[intid].is_pending = true;
            sent += 1;
        }
        assert_eq!(sent, 1, "{word:#x} names {sent} CPUs");
    }
}

impl Registers for Fake {
    fn read(&self, block: Block, offset: u64) -> u32 {
        match block {
            Block::Distributor => match offset {
                0 => {
                    let rwp = u32::from(self.is_pending(&self.distributor.borrow())) << 31;
                    self.control.get() | rwp | if self.secure { 0 } else { 1 << 6 }
                }
                4 => LINES,
                _ => self.read_bits(&self.distributor.borrow(), offset),
            },
            Block::Region(region) => {
                let read = |one: &mut Redistributor, at: u64, _| match at {
                    0 => u32::from(self.is_pending(&one.part)) << 3,
                    0x14 if self.secure => 0,
                    0x14 => {
                        let value = u32::from(one.asked_asleep) << 1 | u32::from(one.is_asleep) << 2;
                        if self.follows.get() {
                            one.is_asleep = one.asked_asleep;
                        }
                        value
                    }
                    0x1_0000.. => self.read_bits(&one.part, at - 0x1_0000),
                    _ => panic!("nobody reads {at:#x} of a redistributor"),
                };
                self.find(region, offset, read).unwrap()
            }
        }
    }

    fn write(&self, block: Block, offset: u64, value: u32) {
        match block {
            Block::Distributor if offset == 0 => self.write_control(value),
            Block::Distributor => {
                assert!(offset & 0x7f != 0 || offset >= 0x400, "{offset:#x} is a redistributor's");
                self.write_bits(&mut self.distributor.borrow_mut(), offset, value);
            }
            Block::Region(region) => {
                let affinity = self.affinity();
                let write = |one: &mut Redistributor, at: u64, _| {
                    assert_eq!(one.affinity, affinity, "another CPU's redistributor is written");
                    match at {
                        0x14 if self.secure => {}
                        0x14 => one.asked_asleep = value >> 1 & 1 != 0,
                        0x1_0000.. => self.write_bits(&mut one.part, at - 0x1_0000, value),
                        _ => panic!("nobody writes {at:#x} of a redistributor"),
                    }
                };
                self.find(region, offset, write).unwrap();
            }
        }
    }

    fn read_wide(&self, block: Block, offset: u64) -> u64 {
        let Block::Region(region) = block else { panic!("nobody reads 64 bits of the distributor") };
        let read = |one: &mut Redistributor, at: u64, is_last: bool| {
            assert_eq!(at, 8, "GICR_TYPER");
            let affinity = one.affinity & 0xff_ffff | one.affinity >> 32 << 24;
            affinity << 32 | u64::from(is_last) << 4 | u64::from(one.has_virtual_lpis) << 1
        };
        self.find(region, offset, read).unwrap()
    }

    fn write_wide(&self, block: Block, offset: u64, value: u64) {
        assert_eq!((block, offset & 7), (Block::Distributor, 0));
        assert!(self.control.get() & 1 << 4 != 0, "GICD_IROUTER without affinity routing");
        self.distributor.borrow_mut().interrupts[((offset - 0x6000) / 8) as usize].route = value;
    }

    fn size(&self, block: Block) -> u64 {
        match block {
            Block::Distributor => 64 << 10,
            Block::Region(region) => {
                self.regions.borrow().get(region).map_or(0, |region| region.iter().map(Redistributor::size).sum())
            }
        }
    }

    fn cpu_read(&self, register: CpuRegister) -> u64 {
        let pending = if register == CpuRegister::Iar1 { self.pending() } else { None };
        let mut interfaces = self.interfaces.borrow_mut();
        let own = &mut interfaces[self.cpu.get()];
        if register == CpuRegister::Sre {
            return own.sre;
        }
        assert!(own.has_registers, "{register:?} is undefined: no ISB since ICC_SRE_EL1");
        match register {
            CpuRegister::Iar1 => {
                let Some(intid) = pending else { return 1023 };
                own.active.push(intid);
                drop(interfaces);
                self.with_interrupt(intid, |one| (one.is_pending, one.is_active) = (false, true));
                u64::from(intid)
            }
            _ => panic!("nobody reads {register:?}"),
        }
    }

    fn cpu_write(&self, register: CpuRegister, value: u64) {
        let mut interfaces = self.interfaces.borrow_mut();
        let own = &mut interfaces[self.cpu.get()];
        if register == CpuRegister::Sre {
            own.sre = if self.locked.get() { 0 } else { value };
            return;
        }
        assert!(own.has_registers, "{register:?} is undefined: no ISB since ICC_SRE_EL1");
        match register {
            CpuRegister::Ctlr => own.ctlr = value,
            CpuRegister::Igrpen1 => own.group1 = value,
            CpuRegister::Pmr => own.pmr = value,
            CpuRegister::Eoir1 => {
                assert_eq!(own.active.pop().map(u64::from), Some(value), "the last taken is ended first");
                assert_eq!(own.ctlr, 0, "with EOImode set this would not end it");
                drop(interfaces);
                self.with_interrupt(value as u32, |one| one.is_active = false);
            }
            CpuRegister::Sgi1r => {
                drop(interfaces);
                self.send_sgi(value);
            }
            CpuRegister::Sre | CpuRegister::Iar1 => panic!("nobody writes {register:?}"),
        }
    }

    fn affinity(&self) -> u64 {
        self.affinities[self.cpu.get()]
    }

    fn barrier(&self, barrier: Barrier) {
        if barrier == Barrier::Instructions {
            let mut interfaces = self.interfaces.borrow_mut();
            let own = &mut interfaces[self.cpu.get()];
            own.has_registers = own.sre & 1 != 0;
            own.group1_in_effect = own.group1 & 1 != 0;
        } else {
            self.unordered.set(false);
        }
    }

    fn ticks(&self) -> u64 {
        self.looks.set(self.looks.get() + 1);
        let now = self.now.get();
        self.now.set(match self.clock.get() {
            Clock::Steps(step) => now.wrapping_add(step),
            Clock::Still => now,
            Clock::Back(step) => now.wrapping_sub(step),
        });
        self.now.get()
    }

    fn frequency(&self) -> u64 {
        FREQUENCY
    }
}
