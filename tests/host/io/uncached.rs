//! Blocks that are uncached for a while: on a machine whose TLBs keep what they have, with the linear map beside.

use super::set_memory::{on_a_machine, sound};
use quarry::addr::{CpuId, Order, PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
use quarry::arch::host::{Config, FaultKind, Who};
use quarry::gfp::Gfp;
use quarry::hal::prot::MemoryType;
use quarry::mm::layout;
use quarry::mm::page::PageMap;
use quarry::mm::vmalloc::{AreaError, SetMemoryError, VmFlags};
use quarry::mm::zone::PageHal;
use std::sync::atomic::Ordering;

const MIB: u64 = 1 << 20;

/// The kind of fault, or what was loaded.
fn load(space: &crate::vmalloc::kernel::Vmalloc<'_>, addr: VirtAddr) -> Vec<Result<u64, FaultKind>> {
    (0..2)
        .map(|cpu| space.hal().machine.cpu(CpuId::new(cpu)).load(addr, Who::Kernel).map_err(|fault| fault.kind))
        .collect()
}

// Behaviour 326
#[test]
fn an_uncached_block_has_one_mapping_and_no_cpu_holds_another() {
    for config in [Config::CORTEX_A72, Config::MAX] {
        on_a_machine(config, |space| {
            let pages = &space.hal().pages;
            for order in [9, 10].map(|order| Order::new(order).unwrap()) {
                let page = pages.alloc_pages(Gfp::KERNEL, order).unwrap();
                let block = PhysRange::from_size(pages.hal().map().phys(page), order.bytes()).unwrap();
                let linear = layout::phys_to_virt(block.start()).unwrap();
                let last = VirtAddr::new(linear.get() + block.size() - 8);
                // Both CPUs hold it, and what lies on either side.
                let around = [linear.get() - PAGE_SIZE, linear.get() + block.size()].map(VirtAddr::new);
                let seen = |at: &VirtAddr| {
                    layout::virt_to_phys(*at).is_some_and(|phys| {
                        phys.get() < crate::vmalloc::kernel::RAM + 64 * MIB && phys.get() >= crate::vmalloc::kernel::RAM
                    })
                };
                let around: Vec<_> = around.into_iter().filter(seen).collect();
                [linear, last].iter().chain(&around).for_each(|at| assert!(load(space, *at).iter().all(Result::is_ok)));
                let uncached = raw!(space.uncache(block)).unwrap();
                sound(space);
                for at in [linear, last] {
                    assert!(load(space, at).iter().all(|seen| matches!(seen, Err(FaultKind::Translation(_)))), "{at}");
                }
                around.iter().for_each(|at| assert!(load(space, *at).iter().all(Result::is_ok)));
                let found = space.hal().table.translate(uncached.at).unwrap();
                assert_eq!((found.phys, found.leaf.prot.memory()), (block.start(), MemoryType::NonCacheable));
                assert!(found.leaf.prot.is_writable() && !found.leaf.prot.is_executable());
                assert!(load(space, uncached.at).iter().all(Result::is_ok));
                let info = space.find(uncached.at).unwrap();
                assert!(info.flags.contains(VmFlags::DMA_COHERENT) && info.phys == Some(block.start()));
                raw!(space.recache(block, uncached)).unwrap();
                sound(space);
                assert!(load(space, uncached.at).iter().all(Result::is_err));
                [linear, last].iter().for_each(|at| assert!(load(space, *at).iter().all(Result::is_ok)));
                assert_eq!(space.hal().table.translate(linear).unwrap().leaf.prot, uncached.linear);
                raw!(pages.free_pages(page, order)).unwrap();
            }
        });
    }
}

// Behaviour 497
#[test]
fn what_runs_out_on_the_way_leaves_everything_as_it_was() {
    on_a_machine(Config::CORTEX_A72, |space| {
        let hal = space.hal();
        let order = Order::new(9).unwrap();
        let page = hal.pages.alloc_pages(Gfp::KERNEL, order).unwrap();
        let block = PhysRange::from_size(hal.pages.hal().map().phys(page), order.bytes()).unwrap();
        let linear = layout::phys_to_virt(block.start()).unwrap();
        let mut failures = 0;
        let uncached = loop {
            hal.machine.fail_allocation_after(Some(failures));
            let result = raw!(space.uncache(block));
            hal.machine.fail_allocation_after(None);
            sound(space);
            match result {
                Ok(uncached) => break uncached,
                Err(SetMemoryError::Tables(_)) => failures += 1,
                Err(other) => panic!("{other}"),
            }
            assert!(load(space, linear).iter().all(Result::is_ok), "after {failures}");
            assert_eq!(space.iter().count(), 0);
        };
        assert!(failures >= 1, "{failures}");
        raw!(space.recache(block, uncached)).unwrap();
        hal.in_handler.store(true, Ordering::Relaxed);
        assert_eq!(raw!(space.uncache(block)), Err(SetMemoryError::InInterrupt));
        hal.in_handler.store(false, Ordering::Relaxed);
        let nowhere = raw!(space.recache(block, uncached));
        assert!(matches!(nowhere, Err(SetMemoryError::Area(AreaError::NoArea(_)))), "{nowhere:?}");
        let outside = PhysRange::from_size(PhysAddr::new(crate::vmalloc::kernel::RAM + 128 * MIB), 2 * MIB).unwrap();
        assert!(raw!(space.uncache(outside)).is_err());
        raw!(hal.pages.free_pages(page, order)).unwrap();
    });
}
