//! Accesses as a program makes them, and the faults that they may end in.
#![forbid(unsafe_code)]

use super::cpu::SimCpu;
use super::machine::State;
use super::memory::word_of;
use super::tlb::Loc;
use crate::addr::{PhysAddr, VirtAddr};
use crate::arch::aarch64::desc::{ACCESSED, AP_READ_ONLY};
use crate::hal::entry::Leaf;
use crate::hal::level::Level;
use crate::hal::prot::{Access, Privilege};

/// The exception level of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// EL1.
    Kernel,
    /// EL0.
    User,
}

/// Reason why an access ended in an exception.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// Nothing is mapped; the level at which the walk ended.
    Translation(Level),
    /// The access flag is clear.
    AccessFlag,
    /// The mapping does not permit it.
    Permission,
    /// Device memory was accessed unaligned.
    Alignment,
}

/// A fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The address accessed.
    pub addr: VirtAddr,
    /// Reason.
    pub kind: FaultKind,
}

/// The kind of an access.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Intent {
    Load,
    Store,
    Fetch,
}

impl State {
    /// The physical address of an access, from the TLB or by a walk, or the fault that it takes.
    pub(super) fn access(
        &mut self,
        cpu: usize,
        addr: VirtAddr,
        who: Who,
        intent: Intent,
    ) -> Result<PhysAddr, FaultKind> {
        let Some(root) = self.root_for(cpu, addr) else { return Err(FaultKind::Translation(Level::Pgd)) };
        let hit = self.cpus.get(cpu).and_then(|cpu| {
            cpu.tlb.hits(addr, root.asid).next().map(|cached| (cached.leaf, cached.phys_at(addr), cached.path.clone()))
        });
        let (mut leaf, phys, path) = match hit {
            Some(hit) => hit,
            None => {
                let walk = self.speculate(cpu, addr).ok_or(FaultKind::Translation(Level::Pgd))?;
                let leaf = walk.end.map_err(FaultKind::Translation)?;
                let offset = addr.offset_in(leaf.level.size());
                (leaf, PhysAddr::new(leaf.phys.get() + offset), walk.path)
            }
        };
        if let Some(level) = self.stale_fault(cpu, &path) {
            return Err(FaultKind::Translation(level));
        }
        if !leaf.prot.is_accessed() {
            if !self.config.hardware_access_flag {
                return Err(FaultKind::AccessFlag);
            }
            self.update_by_hardware(&path, |raw| raw | ACCESSED);
            leaf.prot = leaf.prot.with_accessed(true);
        }
        if intent == Intent::Store && leaf.prot.is_writable() && !leaf.prot.is_dirty() {
            if !self.config.hardware_dirty {
                return Err(FaultKind::Permission);
            }
            self.update_by_hardware(&path, |raw| raw & !AP_READ_ONLY);
        }
        if permits(&leaf, who, intent) { Ok(phys) } else { Err(FaultKind::Permission) }
    }

    /// Device memory takes aligned accesses only.
    fn is_alignment_right(&self, cpu: usize, addr: VirtAddr) -> bool {
        let asid = self.root_for(cpu, addr).and_then(|root| root.asid);
        let is_device =
            |cpu: &super::machine::Cpu| cpu.tlb.hits(addr, asid).any(|cached| cached.leaf.prot.memory().is_device());
        addr.is_aligned(8) || !self.cpus.get(cpu).is_some_and(is_device)
    }

    /// An entry changed by the CPU itself: atomic, and visible at once.
    fn update_by_hardware(&mut self, path: &[Loc], change: impl Fn(u64) -> u64) {
        if let Some(loc) = path.last() {
            let word = word_of(loc.table, loc.slot);
            let value = change(self.memory.newest(word));
            self.memory.show(word, value);
        }
    }
}

fn permits(leaf: &Leaf, who: Who, intent: Intent) -> bool {
    let user = leaf.prot.privilege() == Privilege::User;
    match (intent, leaf.prot.access()) {
        (Intent::Fetch, Access::Execute) => user == (who == Who::User),
        (Intent::Fetch, _) => false,
        (Intent::Load, _) | (Intent::Store, Access::ReadWrite) => user || who == Who::Kernel,
        (Intent::Store, _) => false,
    }
}

impl SimCpu {
    /// Runs `f` with the memory of an access, as one step: nothing comes between the translation and the access, as a DSB
    /// that completes an invalidation waits for accesses that used what it drops.
    fn attempt<R>(
        &self,
        addr: VirtAddr,
        who: Who,
        intent: Intent,
        f: impl FnOnce(&mut State, PhysAddr) -> R,
    ) -> Result<R, Fault> {
        let mut state = self.machine().lock();
        let phys = state.access(self.index(), addr, who, intent).map_err(|kind| Fault { addr, kind })?;
        if intent != Intent::Fetch && !state.is_alignment_right(self.index(), addr) {
            return Err(Fault { addr, kind: FaultKind::Alignment });
        }
        Ok(f(&mut state, phys))
    }

    /// Loads the eight bytes at `addr`.
    ///
    /// # Errors
    ///
    /// The fault that the load takes.
    pub fn load(&self, addr: VirtAddr, who: Who) -> Result<u64, Fault> {
        self.attempt(addr, who, Intent::Load, |state, phys| state.memory.newest(phys.get() & !7))
    }

    /// Stores eight bytes at `addr`.
    ///
    /// # Errors
    ///
    /// The fault that the store takes.
    pub fn store(&self, addr: VirtAddr, who: Who, value: u64) -> Result<(), Fault> {
        self.attempt(addr, who, Intent::Store, |state, phys| {
            state.memory.show(phys.get() & !7, value);
        })
    }

    /// Fetches an instruction from `addr`; returns the physical address that it came from.
    ///
    /// # Errors
    ///
    /// The fault that the fetch takes.
    pub fn fetch(&self, addr: VirtAddr, who: Who) -> Result<PhysAddr, Fault> {
        self.attempt(addr, who, Intent::Fetch, |_, phys| phys)
    }

    /// Lets the CPU fetch the translation of `addr`, as it may at any time.
    pub fn speculate(&self, addr: VirtAddr) {
        self.machine().lock().speculate(self.index(), addr);
    }
}
