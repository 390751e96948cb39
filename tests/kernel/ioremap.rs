//! Mapping device memory on the machine: memory types as descriptors and the CPU have them, how many entries a mapping
//! takes, and what is refused.

use crate::io::device;
use core::ops::ControlFlow;
use quarry::addr::{Address, PAGE_BYTES, PAGE_SIZE, PhysAddr, PhysRange, VirtAddr, VirtRange};
use quarry::arch::aarch64::at;
use quarry::arch::aarch64::mair::attribute;
use quarry::gfp::Gfp;
use quarry::global;
use quarry::hal::entry::Entry;
use quarry::hal::level::LeafLevel;
use quarry::hal::prot::{Access, MemoryType, Prot};
use quarry::kernel::ktest::{FaultKind, expect_fault};
use quarry::kernel::{init, prompt};
use quarry::ktest;
use quarry::mm::io::IoError;
use quarry::mm::vmalloc::{AreaError, VmFlags, VmallocError};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The windows of memory behind the PCI host, 32 and 64 bits: nothing answers there, and mapping harms nothing.
fn pci_windows() -> [PhysRange; 2] {
    let tree = &init::machine().expect("tests run after booting").tree;
    let node = tree.compatible_nodes("pci-host-ecam-generic").next().expect("virt has one");
    let cells: alloc::vec::Vec<u64> = node.property("ranges").expect("windows").cells().map(u64::from).collect();
    // Three cells of PCI address, of which the first says what kind, two of CPU address, two of size.
    let window = |kind| {
        let mut rows =
            cells.chunks_exact(7).filter(move |row| row.first().is_some_and(|first| first >> 24 & 3 == kind));
        let row = rows.next().expect("such a window");
        let [_, _, _, high, low, size_high, size_low] = row else { panic!("seven cells") };
        PhysRange::from_size(PhysAddr::new(high << 32 | low), size_high << 32 | size_low).expect("no wrap")
    };
    [window(2), window(3)]
}

/// The entries of a mapping by size, and how many of them belong to contiguous groups: 1 GiB, 2 MiB, 4 KiB, grouped.
fn entries(start: VirtAddr, size: u64) -> [usize; 4] {
    let range = VirtRange::from_size(start, size).and_then(|range| range.align_outwards(PAGE_SIZE));
    let mut found = [0; 4];
    let [huge, large, small, grouped] = &mut found;
    let _ = global::kernel_tables().expect("the final tables").walk(range.expect("no wrap"), |visit| {
        if let Entry::Leaf(leaf) = visit.entry {
            *match leaf.level {
                LeafLevel::Pud => &mut *huge,
                LeafLevel::Pmd => &mut *large,
                LeafLevel::Pte => &mut *small,
            } += 1;
            *grouped += usize::from(leaf.contiguous);
        }
        ControlFlow::<()>::Continue(())
    });
    found
}

/// Live mappings, and areas.
fn live() -> (usize, usize) {
    global::io_space().check().expect("the mappings' invariants");
    global::vmap_space().check().expect("the areas' invariants");
    (global::io_space().iter().count(), global::vmap_space().iter().count())
}

// Behaviour 290
ktest!(every_memory_type_is_in_the_descriptor_and_in_the_cpu, machine a72 = "", machine max = "cpu=max", machine mte = "cpu=max mte");
fn every_memory_type_is_in_the_descriptor_and_in_the_cpu() {
    let before = live();
    let flash = device("cfi-flash", 1);
    let (phys, size) = (flash.start(), flash.size());
    let write_back = |phys, size| global::memremap(phys, size, MemoryType::WriteBack).map(Address::at);
    let tagged = |phys, size| {
        let prot = Prot::KERNEL_RW.with_memory(MemoryType::WriteBackTagged).expect("not executable");
        global::ioremap_prot(phys, size, prot)
    };
    type Map<'f> = &'f dyn Fn(PhysAddr, u64) -> Result<VirtAddr, IoError>;
    let calls: [(MemoryType, Map<'_>); 8] = [
        (MemoryType::DeviceNGnRnE, &global::ioremap_np),
        (MemoryType::DeviceNGnRE, &global::ioremap),
        (MemoryType::DeviceNGRE, &global::ioremap_ngre),
        (MemoryType::DeviceGRE, &global::ioremap_gre),
        (MemoryType::NonCacheable, &global::ioremap_wc),
        (MemoryType::WriteThrough, &global::ioremap_wt),
        (MemoryType::WriteBack, &write_back),
        (MemoryType::WriteBackTagged, &tagged),
    ];
    for (memory, map) in calls {
        let addr = map(phys, size).expect("nobody has mapped it");
        let leaf = global::kernel_tables().expect("the final tables").translate(addr).expect("mapped").leaf;
        assert_eq!(leaf.prot, Prot::KERNEL_RW.with_memory(memory).expect("not executable"), "PXN, UXN, not for EL0");
        for offset in [0, 8, size - 8] {
            let par = at::translate(addr.checked_add(offset).expect("no wrap")).expect("the CPU can read it");
            assert_eq!(par.phys.offset_from(phys), Some(offset));
            let expected = [false, true].map(|tags| attribute(memory, tags));
            assert!(expected.contains(&par.attribute), "{}: {:#04x}", memory.name(), par.attribute);
        }
        raw!(global::try_iounmap(addr)).expect("what was returned");
        assert!(at::translate(addr).is_none(), "no CPU translates it");
    }
    assert_eq!(live(), before);
}

// Behaviour 289
ktest!(a_mapping_takes_as_few_entries_as_it_can);
fn a_mapping_takes_as_few_entries_as_it_can() {
    let before = live();
    let [low, high] = pci_windows();
    let cases = [
        (low.start().get(), 1, [0, 0, 1, 0]),
        (low.start().get() + 0xffc, 8, [0, 0, 2, 0]),
        (low.start().get() + PAGE_SIZE - 1, 2, [0, 0, 2, 0]),
        (low.start().get(), 64 * KIB, [0, 0, 16, 16]),
        (low.start().get() + 60 * KIB, 72 * KIB, [0, 0, 18, 16]),
        (low.start().get(), 2 * MIB, [0, 1, 0, 0]),
        (low.start().get() + MIB, 8 * MIB, [0, 3, 512, 512]),
        (low.start().get() + 0x123, 4 * MIB, [0, 2, 1, 0]),
        (low.start().get(), 32 * MIB, [0, 16, 0, 16]),
        (high.start().get(), GIB, [1, 0, 0, 0]),
        (high.start().get(), 3 * GIB + 2 * MIB, [3, 1, 0, 0]),
        (high.start().get() + GIB - 4 * MIB, 2 * GIB + 8 * MIB, [2, 4, 0, 0]),
    ];
    for (phys, size, expected) in cases {
        let addr = global::ioremap(PhysAddr::new(phys), size).expect("device memory");
        assert_eq!(entries(addr, size), expected, "{size:#x} bytes from {phys:#x}");
        assert_eq!(addr.offset_in(PAGE_SIZE), phys % PAGE_SIZE);
        for offset in [0, size / 2, size - 1] {
            let par = at::translate(addr.checked_add(offset).expect("no wrap")).expect("mapped");
            assert_eq!(par.phys.get(), phys + offset);
        }
        let area = global::vmap_space().find(addr).expect("an area");
        assert!(area.phys == Some(PhysAddr::new(phys)) && area.flags.contains(VmFlags::IOREMAP));
        assert!(area.caller.is_some_and(|caller| caller.file().ends_with("ioremap.rs")));
        let first = VirtAddr::new(area.range.start().get() | addr.offset_in(PAGE_SIZE));
        assert!(first == addr || matches!(raw!(global::try_iounmap(first)), Err(IoError::NotThePointer(..))));
        raw!(global::try_iounmap(addr)).expect("what was returned");
        assert_eq!(entries(addr, size), [0; 4]);
    }
    assert_eq!(live(), before);
}

// Behaviours 286 and 287
ktest!(what_is_no_device_memory_is_refused);
fn what_is_no_device_memory_is_refused() {
    let before = live();
    let phys = |raw| PhysAddr::new(raw);
    // What `mem=` leaves of it.
    let ram = global::memblock().memory().regions().first().expect("some").range;
    let page = global::page_to_phys(global::alloc_page(Gfp::KERNEL).expect("memory"));
    assert!(matches!(global::ioremap(page, 4), Err(IoError::Ram(_))));
    assert!(matches!(global::ioremap_wc(ram.start(), ram.size()), Err(IoError::Ram(_))));
    // A page of it at either end; some machines have nothing below their RAM.
    let below = ram.start().get().checked_sub(PAGE_SIZE).map(phys);
    assert!(below.is_none_or(|below| matches!(global::ioremap(below, PAGE_SIZE + 1), Err(IoError::Ram(_)))));
    assert!(matches!(global::ioremap(phys(ram.end().get() - 1), 2 * PAGE_SIZE), Err(IoError::Ram(_))), "{ram}");
    let linear = global::memremap(page, PAGE_SIZE, MemoryType::WriteBack).expect("RAM is there").at();
    assert_eq!(Some(linear), global::phys_to_virt(page));
    raw!(global::try_memunmap(linear)).expect("nothing to do");
    assert!(matches!(global::memremap(page, PAGE_SIZE, MemoryType::WriteThrough), Err(IoError::Ram(_))));
    let straddles = |at| matches!(global::memremap(at, 2 * PAGE_SIZE, MemoryType::WriteBack), Err(IoError::Ram(_)));
    assert!(below.is_none_or(straddles));
    assert!(matches!(global::memremap(page, 1, MemoryType::DeviceGRE), Err(IoError::NotMemory(_))));
    assert_eq!(global::ioremap(phys(0), 0), Err(IoError::Empty));
    assert_eq!(global::ioremap(phys(u64::MAX), 2), Err(IoError::Wraps(phys(u64::MAX), 2)));
    let bits = init::machine().expect("booted").cpu.physical_bits();
    for start in [1 << bits, (1 << bits) - PAGE_SIZE] {
        assert!(matches!(global::ioremap(phys(start), PAGE_SIZE + 1), Err(IoError::BeyondPhysical(..))));
    }
    let code = Prot::KERNEL_RX;
    assert_eq!(global::ioremap_prot(pci_windows()[0].start(), PAGE_SIZE, code), Err(IoError::BadProt));
    let user = Prot::user(Access::ReadOnly);
    assert_eq!(global::ioremap_prot(pci_windows()[0].start(), PAGE_SIZE, user), Err(IoError::BadProt));
    assert_eq!(live(), before);
}

// Behaviour 292
ktest!(one_range_has_one_memory_type);
fn one_range_has_one_memory_type() {
    let before = live();
    let [window, _] = pci_windows();
    let first = global::ioremap(window.start(), 16 * PAGE_SIZE).expect("device memory");
    let second = global::ioremap(window.start(), 16 * PAGE_SIZE).expect("the same type");
    assert_ne!(first, second);
    let inside = PhysAddr::new(window.start().get() + 15 * PAGE_SIZE + 8);
    for refused in [global::ioremap_wc(inside, 1), global::ioremap_np(inside, GIB / 4)] {
        assert!(matches!(refused, Err(IoError::Conflict(_, other)) if other.memory == MemoryType::DeviceNGnRE));
    }
    raw!(global::try_iounmap(first)).expect("what was returned");
    assert!(global::ioremap_wc(inside, 1).is_err(), "the second is alive");
    assert!(at::translate(second).is_some() && at::translate(first).is_none());
    raw!(global::try_iounmap(second)).expect("what was returned");
    let other = global::ioremap_wc(inside, 1).expect("nobody has it now");
    raw!(global::try_iounmap(other)).expect("what was returned");
    // The console's port is mapped since early boot.
    let port = device("arm,pl011", 0);
    assert!(matches!(global::ioremap_wc(port.start(), 4), Err(IoError::Conflict(..))));
    let again = global::ioremap(port.start(), port.size()).expect("the same type");
    // SAFETY: the port's flag register, which reading does not change.
    let flags = unsafe { global::readl(again.checked_add(0x18).expect("no wrap")) };
    assert_eq!(flags & 0x80, 0x80, "the transmit FIFO is empty");
    raw!(global::try_iounmap(again)).expect("what was returned");
    assert_eq!(live(), before);
}

// Behaviours 241 and 291
ktest!(only_what_ioremap_returned_is_unmapped);
fn only_what_ioremap_returned_is_unmapped() {
    let before = live();
    let window = pci_windows()[0];
    let addr = global::ioremap(PhysAddr::new(window.start().get() + 0x10), 3 * PAGE_SIZE).expect("device memory");
    assert!(matches!(raw!(global::try_vfree(addr)), Err(VmallocError::Area(AreaError::NotTheStart(..)))));
    assert!(matches!(
        raw!(global::try_vfree(addr.align_down(PAGE_SIZE))),
        Err(VmallocError::Area(AreaError::WrongKind(_)))
    ));
    assert!(matches!(
        raw!(global::try_vunmap(addr.align_down(PAGE_SIZE))),
        Err(VmallocError::Area(AreaError::WrongKind(_)))
    ));
    for wrong in [addr.get() - 0x10, addr.get() + 1, addr.get() + PAGE_SIZE, addr.get() + 4 * PAGE_SIZE - 0x10] {
        assert!(
            matches!(raw!(global::try_iounmap(VirtAddr::new(wrong))), Err(IoError::NotThePointer(..))),
            "{wrong:#x}"
        );
    }
    assert!(at::translate(addr).is_some());
    let memory = global::vmalloc(PAGE_BYTES).expect("memory").at();
    assert!(matches!(raw!(global::try_iounmap(memory)), Err(IoError::Area(AreaError::WrongKind(_)))));
    raw!(global::try_vfree(memory)).expect("an area");
    let linear = global::phys_to_virt(PhysAddr::ZERO).expect("in the linear map");
    assert!(matches!(raw!(global::try_iounmap(linear)), Err(IoError::Area(AreaError::NoArea(_)))));
    raw!(global::try_iounmap(addr)).expect("what was returned");
    assert!(matches!(raw!(global::try_iounmap(addr)), Err(IoError::Area(AreaError::NoArea(_)))), "twice");
    assert_eq!(raw!(global::try_iounmap(VirtAddr::ZERO)), Ok(()));
    global::vmap_space().purge_all();
    assert_eq!(live(), before);
}

ktest!(an_unmapped_register_faults);
fn an_unmapped_register_faults() {
    let clock = global::ioremap(device("arm,pl031", 0).start(), PAGE_SIZE).expect("device memory");
    // SAFETY: the clock's data register.
    assert_ne!(unsafe { global::readl(clock) }, 0);
    raw!(global::try_iounmap(clock)).expect("what was returned");
    expect_fault(FaultKind::Translation(quarry::arch::aarch64::esr::Access::Read), clock);
    // SAFETY: the clock's data register.
    let _ = unsafe { global::readl(clock) };
}

ktest!(a_read_only_register_cannot_be_written, report = "in vmalloc area", report = "tests/kernel/ioremap.rs");
fn a_read_only_register_cannot_be_written() {
    let prot = Prot::KERNEL_DEVICE.with_access(Access::ReadOnly).expect("not executable");
    let clock = global::ioremap_prot(device("arm,pl031", 0).start(), PAGE_SIZE, prot).expect("device memory");
    // SAFETY: the clock's data register.
    assert_ne!(unsafe { global::readl(clock) }, 0);
    // SAFETY: takes a fault, and the machine ends.
    unsafe { global::writel(0, clock) };
}

// Behaviour 296: behind the last device of the PCI window nothing answers.
ktest!(reading_where_nothing_answers_is_reported, report = "external abort");
fn reading_where_nothing_answers_is_reported() {
    let clock = device("arm,pl031", 0);
    let nobody = PhysAddr::new(device("qemu,fw-cfg-mmio", 0).start().get() + 0x8000);
    assert_ne!(nobody, clock.start());
    let addr = global::ioremap(nobody, PAGE_SIZE).expect("no RAM");
    // SAFETY: takes an abort, and the machine ends.
    let _ = unsafe { global::readl(addr) };
}

ktest!(
    the_prompt_maps_and_reads_registers,
    report = "0xffff8001",
    report = "DEVICE/nGnRE",
    report = "RAM",
    report = "ioremap PHYS SIZE",
    report = "in the area"
);
fn the_prompt_maps_and_reads_registers() {
    let machine = init::machine().expect("booted");
    let run = |line: &str| prompt::execute(machine, line);
    run(&alloc::format!("ioremap {:#x} 0x1000", device("arm,pl031", 0).start()));
    run("iomaps");
    run("ioremap 0x40000000 4");
    run("ioremap 0x40000000 4 fast");
    let addr = global::vmap_space().iter().find(|area| area.flags.contains(VmFlags::IOREMAP)).expect("mapped");
    run(&alloc::format!("what {}", addr.range.start()));
    run(&alloc::format!("readl {:#x}", addr.range.start().get() + 0xfe0));
    run(&alloc::format!("iounmap {}", addr.range.start()));
}
