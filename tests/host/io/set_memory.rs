//! Permissions of areas on a machine whose TLBs keep what they have, with the linear map beside.

use crate::random::Random;
use crate::vmalloc::kernel::{Kernel, RAM, Vmalloc, at_rest, with_machine};
use quarry::addr::{CpuId, Order, PAGE_SIZE, PhysAddr, VirtAddr, VirtRange};
use quarry::arch::host::{Config, Who};
use quarry::gfp::Gfp;
use quarry::hal::mmu::{BbmLevel, Mmu};
use quarry::hal::prot::{Access, Prot};
use quarry::mm::layout;
use quarry::mm::pgtable::{LivePolicy, MapFlags, UnmapFlags, wx};
use quarry::mm::vmalloc::{AreaError, Permission, SetMemoryError, SetMemoryHal, VmFlags, VmallocError, VmallocRequest};
use quarry::mm::zone::FreeError;
use std::sync::atomic::Ordering;

const MIB: u64 = 1 << 20;

// SAFETY: one thread runs, and nothing uses what the tables map.
unsafe impl<'m> SetMemoryHal<'m> for Kernel<'m> {
    fn change_live(&self, f: &mut dyn FnMut(LivePolicy) -> Result<(), SetMemoryError>) -> Result<(), SetMemoryError> {
        if self.in_handler.load(Ordering::Relaxed) {
            return Err(SetMemoryError::InInterrupt);
        }
        match self.table.mmu().bbm_level() {
            BbmLevel::Two => f(LivePolicy::BbmLevel2),
            _ => f(LivePolicy::BreakBeforeMake),
        }
    }

    fn sync_instructions(&self, range: VirtRange) {
        // Not writable any more when the instruction cache is told.
        let found = self.table.translate(range.start()).unwrap();
        let alias = layout::phys_to_virt(found.phys).unwrap();
        assert!(!self.table.translate(alias).unwrap().leaf.prot.is_writable());
    }
}

/// Runs `f` on a machine with a linear map of all its RAM, and sees that everything is as before in the end.
pub(super) fn on_a_machine(config: Config, f: impl FnOnce(&Vmalloc<'_>)) {
    with_machine(config, |space| {
        let (hal, free) = (space.hal(), space.hal().pages.free_page_count());
        let linear = VirtRange::from_size(layout::phys_to_virt(PhysAddr::new(RAM)).unwrap(), 64 * MIB).unwrap();
        raw!(hal.table.map(&hal.machine.frames(), linear, PhysAddr::new(RAM), Prot::KERNEL_RW, MapFlags::empty()))
            .unwrap();
        f(space);
        space.purge_all();
        let all = hal.table.translate(linear.start()).is_some();
        assert!(all && writable(space, linear), "the linear map is writable again");
        raw!(hal.table.unmap_and_flush(&hal.machine.frames(), linear, UnmapFlags::empty())).unwrap();
        at_rest(space, free);
    });
}

fn writable(space: &Vmalloc<'_>, range: VirtRange) -> bool {
    let pages = (0..range.size()).step_by(4096).map(|offset| VirtAddr::new(range.start().get() + offset));
    pages.into_iter().all(|page| space.hal().table.translate(page).is_some_and(|found| found.leaf.prot.is_writable()))
}

fn page(start: VirtAddr, number: u64) -> VirtAddr {
    VirtAddr::new(start.get() + number * PAGE_SIZE)
}

/// Accesses that every CPU can make at an address: read, write, execute.
fn can(space: &Vmalloc<'_>, addr: VirtAddr) -> (bool, bool, bool) {
    let of_cpu = |cpu| {
        let cpu = space.hal().machine.cpu(CpuId::new(cpu));
        let (load, store) = (cpu.load(addr, Who::Kernel).is_ok(), cpu.store(addr, Who::Kernel, 1).is_ok());
        (load, store, cpu.fetch(addr, Who::Kernel).is_ok())
    };
    let (first, second) = (of_cpu(0), of_cpu(1));
    assert_eq!(first, second, "the CPUs agree about {addr}");
    first
}

fn alias(space: &Vmalloc<'_>, addr: VirtAddr) -> VirtAddr {
    layout::phys_to_virt(space.hal().table.translate(addr).unwrap().phys).unwrap()
}

/// No rule broken so far, nothing writable and executable.
pub(super) fn sound(space: &Vmalloc<'_>) {
    wx::check(&[&space.hal().table]).unwrap_or_else(|error| panic!("{error}"));
    space.hal().machine.check().unwrap();
}

// Behaviours 245 and 250
#[test]
fn a_page_and_its_alias_change_together_and_nothing_else_does() {
    if cfg!(miri) {
        return;
    }
    for config in [Config::CORTEX_A72, Config::MAX] {
        on_a_machine(config, |space| {
            for pages in [1, 5, 16, 40, 512] {
                let addr = space.vmalloc(&VmallocRequest::new(pages * PAGE_SIZE, Gfp::KERNEL)).unwrap();
                let middle = pages / 2;
                let near = [middle.saturating_sub(1), middle, (middle + 1).min(pages - 1)];
                near.into_iter().for_each(|number| assert_eq!(can(space, page(addr, number)), (true, true, false)));
                raw!(space.set_memory(page(addr, middle), 1, Permission::ReadOnly)).unwrap();
                sound(space);
                for number in near {
                    let (here, writable) = (page(addr, number), number != middle);
                    assert_eq!(can(space, here), (true, writable, false));
                    assert_eq!(can(space, alias(space, here)), (true, writable, false));
                }
                raw!(space.set_memory(page(addr, middle), 1, Permission::ReadWrite)).unwrap();
                assert_eq!(can(space, alias(space, page(addr, middle))), (true, true, false));
                raw!(space.set_memory(addr, pages, Permission::ReadOnly)).unwrap();
                assert_eq!(can(space, page(addr, pages - 1)), (true, false, false));
                sound(space);
                raw!(space.vfree(addr)).unwrap();
                sound(space);
            }
        });
    }
}

// Behaviour 251
#[test]
fn nothing_is_writable_and_executable_at_any_time() {
    if cfg!(miri) {
        return;
    }
    on_a_machine(Config::CORTEX_A72, |space| {
        let addr = space.vmalloc(&VmallocRequest::new(2 * PAGE_SIZE, Gfp::KERNEL)).unwrap();
        let set = |to| raw!(space.set_memory(addr, 1, to));
        assert_eq!(set(Permission::Execute), Err(SetMemoryError::WritableExecutable(addr)));
        set(Permission::ReadOnly).unwrap();
        set(Permission::Execute).unwrap();
        sound(space);
        assert_eq!((can(space, addr), can(space, alias(space, addr))), ((true, false, true), (true, false, false)));
        assert_eq!(set(Permission::ReadWrite), Err(SetMemoryError::WritableExecutable(addr)));
        set(Permission::ReadOnly).unwrap();
        assert_eq!(can(space, addr), (true, false, true), "what is executable stays so");
        set(Permission::NoExecute).unwrap();
        assert_eq!((can(space, addr), can(space, alias(space, addr))), ((true, false, false), (true, false, false)));
        set(Permission::ReadWrite).unwrap();
        assert_eq!((can(space, addr), can(space, alias(space, addr))), ((true, true, false), (true, true, false)));
        raw!(space.vfree(addr)).unwrap();
        // Read-only from the start, with an alias that is not.
        let request = VmallocRequest { prot: Prot::KERNEL_RO, ..VmallocRequest::new(PAGE_SIZE, Gfp::KERNEL) };
        let code = space.vmalloc(&request).unwrap();
        assert_eq!(can(space, alias(space, code)), (true, true, false));
        raw!(space.set_memory(code, 1, Permission::Execute)).unwrap();
        assert_eq!((can(space, code), can(space, alias(space, code))), ((true, false, true), (true, false, false)));
        sound(space);
        raw!(space.vfree(code)).unwrap();
        assert_eq!(space.find(code), None);
    });
}

// Promise 4: no frame that becomes executable has, or gets, a mapping that could write to it.
#[test]
fn memory_that_becomes_executable_has_no_other_mapping() {
    if cfg!(miri) {
        return;
    }
    on_a_machine(Config::CORTEX_A72, |space| {
        let pages = &space.hal().pages;
        let area = space.vmalloc(&VmallocRequest::new(3 * PAGE_SIZE, Gfp::KERNEL)).unwrap();
        let code: Vec<_> = (0..3).map(|number| space.vmalloc_to_page(page(area, number)).unwrap()).collect();
        let elsewhere = || {
            for list in [&code[..], &code[1..2]] {
                for flags in [VmFlags::empty(), VmFlags::MAP_PUT_PAGES] {
                    let refused = space.vmap(list, flags, Prot::KERNEL_RW);
                    assert!(matches!(refused, Err(VmallocError::BadPage(FreeError::Claimed { .. }))), "{refused:?}");
                }
            }
        };
        elsewhere();
        for to in [Permission::ReadOnly, Permission::Execute] {
            raw!(space.set_memory(area, 3, to)).unwrap();
            elsewhere();
            sound(space);
        }
        raw!(space.vfree(area)).unwrap();
        // Nor does memory that is mapped become an area's, or an area of others' pages executable.
        let other = pages.alloc_pages(Gfp::KERNEL, Order::ZERO).unwrap();
        let mapping = space.vmap(&[other], VmFlags::empty(), Prot::KERNEL_RW).unwrap();
        assert!(matches!(space.vmap(&[other], VmFlags::MAP_PUT_PAGES, Prot::KERNEL_RO), Err(VmallocError::BadPage(_))));
        let refused = |at| raw!(space.set_memory(at, 1, Permission::Execute));
        assert!(matches!(refused(mapping), Err(SetMemoryError::Area(AreaError::WrongKind(_)))));
        raw!(space.vunmap(mapping)).unwrap();
        let given = space.vmap(&[other], VmFlags::MAP_PUT_PAGES, Prot::KERNEL_RO).unwrap();
        assert!(matches!(refused(given), Err(SetMemoryError::Area(AreaError::WrongKind(_)))));
        raw!(space.vfree(given)).unwrap();
    });
}

#[test]
fn random_changes_agree_with_a_model() {
    if cfg!(miri) {
        return;
    }
    for (seed, config) in [(1, Config::CORTEX_A72), (2, Config::MAX)] {
        on_a_machine(config, |space| {
            let mut random = Random(seed);
            for pages in [24_u64, 600] {
                let addr = space.vmalloc(&VmallocRequest::new(pages * PAGE_SIZE, Gfp::KERNEL)).unwrap();
                let mut model = vec![Access::ReadWrite; usize::try_from(pages).unwrap()];
                for _ in 0..60 {
                    let first = random.below(pages);
                    let count = 1 + random.below((pages - first).min(40));
                    let to = [Permission::ReadOnly, Permission::ReadWrite, Permission::Execute, Permission::NoExecute]
                        [usize::try_from(random.below(4)).unwrap()];
                    let part = usize::try_from(first).unwrap()..usize::try_from(first + count).unwrap();
                    let next = |access: &Access| match (to, *access) {
                        (Permission::ReadOnly, Access::ReadWrite) => Some(Access::ReadOnly),
                        (Permission::ReadWrite, Access::ReadOnly) => Some(Access::ReadWrite),
                        (Permission::NoExecute, Access::Execute) => Some(Access::ReadOnly),
                        (Permission::Execute, Access::ReadOnly) => Some(Access::Execute),
                        (Permission::Execute, Access::ReadWrite) | (Permission::ReadWrite, Access::Execute) => None,
                        (_, same) => Some(same),
                    };
                    let wanted: Option<Vec<Access>> = model[part.clone()].iter().map(next).collect();
                    let result = raw!(space.set_memory(page(addr, first), count, to));
                    assert_eq!(result.is_ok(), wanted.is_some(), "{result:?}");
                    model.splice(part.clone(), wanted.unwrap_or_else(|| model[part.clone()].to_vec()));
                    for (number, access) in (0..).zip(&model) {
                        let here = page(addr, number);
                        let found = space.hal().table.translate(here).unwrap().leaf.prot.access();
                        assert_eq!(found, *access, "page {number}");
                        let second = space.hal().table.translate(alias(space, here)).unwrap().leaf.prot;
                        assert_eq!(second.is_writable(), *access == Access::ReadWrite, "the alias of page {number}");
                    }
                    assert_eq!(can(space, page(addr, first)).1, model[part.start] == Access::ReadWrite);
                }
                sound(space);
                raw!(space.vfree(addr)).unwrap();
            }
        });
    }
}

#[test]
fn a_flush_left_out_is_noticed() {
    if cfg!(miri) {
        return;
    }
    with_machine(Config::CORTEX_A72, |space| {
        let hal = space.hal();
        let linear = VirtRange::from_size(layout::phys_to_virt(PhysAddr::new(RAM)).unwrap(), 64 * MIB).unwrap();
        let flags = MapFlags::NO_HUGE | MapFlags::NO_CONT;
        raw!(hal.table.map(&hal.machine.frames(), linear, PhysAddr::new(RAM), Prot::KERNEL_RW, flags)).unwrap();
        let addr = space.vmalloc(&VmallocRequest::new(PAGE_SIZE, Gfp::KERNEL)).unwrap();
        assert_eq!(can(space, addr), (true, true, false));
        hal.table.mmu().forget.store(true, Ordering::Relaxed);
        raw!(space.set_memory(addr, 1, Permission::ReadOnly)).unwrap();
        // A CPU that had the translation writes on, and the machine says so.
        assert!(hal.machine.cpu(CpuId::new(1)).store(addr, Who::Kernel, 1).is_ok());
        assert!(hal.machine.check().is_err());
    });
}

#[test]
fn what_cannot_be_changed_stays_as_it_is() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let addr = space.vmalloc(&VmallocRequest::new(4 * PAGE_SIZE, Gfp::KERNEL)).unwrap();
        let set = |first, pages| raw!(space.set_memory(page(addr, first), pages, Permission::ReadOnly));
        assert_eq!(set(0, 0), Err(SetMemoryError::Empty));
        for (first, pages) in [(0, 5), (3, 2), (4, 1), (0, u64::MAX)] {
            assert!(matches!(set(first, pages), Err(SetMemoryError::Outside(_))));
        }
        let odd = VirtAddr::new(addr.get() + 8);
        assert_eq!(raw!(space.set_memory(odd, 1, Permission::ReadOnly)), Err(SetMemoryError::Unaligned(odd)));
        let nowhere = page(addr, 1000);
        assert!(matches!(raw!(space.set_memory(nowhere, 1, Permission::ReadOnly)), Err(SetMemoryError::Area(_))));
        space.hal().in_handler.store(true, Ordering::Relaxed);
        assert_eq!(set(0, 1), Err(SetMemoryError::InInterrupt));
        space.hal().in_handler.store(false, Ordering::Relaxed);
        // No frame for the table that a block of the linear map must become.
        space.hal().machine.fail_allocation_after(Some(0));
        assert!(matches!(set(0, 1), Err(SetMemoryError::Tables(_))));
        space.hal().machine.fail_allocation_after(None);
        assert!((0..4).all(|number| can(space, page(addr, number)) == (true, true, false)));
        assert!(!space.find(addr).unwrap().flags.contains(VmFlags::FLUSH_RESET_PERMS));
        raw!(space.vfree(addr)).unwrap();
    });
}
