//! Memory that the device tree sets aside: mapped by the devices that own it, and refused to everybody else.

use super::remap::on_a_machine_with;
use crate::fdt::Builder;
use crate::memblock::reserved_ranges;
use crate::vmalloc::kernel::{Kernel, RAM};
use quarry::addr::{CpuId, PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
use quarry::arch::host::{Config, Who};
use quarry::fdt::{FdtError, Node, ReservedMemory, Tree};
use quarry::hal::prot::{Access, MemoryType, Prot};
use quarry::mm::io::{IoError, IoSpace, RegionError, ReservedMap, ReservedRange, ReservedRegion};
use quarry::mm::layout;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// RAM of the tree. The simulated machine has no descriptors of it, as if it were all left out.
const BANK: u64 = 0x10_0000_0000;
const FIRMWARE: u64 = BANK + MIB;
const ODD: u64 = BANK + 3 * MIB + 0x800;
const ORPHAN: u64 = BANK + 4 * MIB;
/// Behind all RAM.
const ROM: u64 = 0x20_0000_0000;
/// Where the dynamic region may be.
const WINDOW: u64 = BANK + 32 * MIB;
/// Pages of the machine's own RAM, which is reserved and mapped.
const POOL: u64 = RAM + MIB;

/// Cells of a pair of numbers of two cells each.
fn cells(start: u64, size: u64) -> [u32; 4] {
    #[expect(clippy::cast_possible_truncation, reason = "a cell is half of the number")]
    let halves = |number: u64| [(number >> 32) as u32, number as u32];
    let ([a, b], [c, d]) = (halves(start), halves(size));
    [a, b, c, d]
}

/// A tree with one of each kind.
fn blob() -> Vec<u8> {
    let fixed = |tree: Builder, name: &str, phandle: u32, reg: &[u32]| {
        tree.begin(name).cells("reg", reg).cells("phandle", &[phandle])
    };
    let tree = Builder::root(2, 2).memory("memory@1000000000", &cells(BANK, 64 * MIB));
    let tree = tree.begin("reserved-memory").cells("#address-cells", &[2]).cells("#size-cells", &[2]).flag("ranges");
    let tree = fixed(tree, "firmware@1000100000", 1, &cells(FIRMWARE, MIB)).flag("no-map").end();
    let tree = fixed(tree, "odd@1000300800", 2, &cells(ODD, 0x400)).flag("no-map").end();
    let tree = tree.begin("scratch").cells("phandle", &[3]).cells("size", &[0, 64 << 10]).flag("no-map");
    let tree = tree.cells("alignment", &[0, 64 << 10]).cells("alloc-ranges", &cells(WINDOW, 16 * MIB)).end();
    let tree = fixed(tree, "orphan@1000400000", 4, &cells(ORPHAN, 64 * KIB)).flag("no-map").end();
    let tree = fixed(tree, "pool@8000100000", 5, &cells(POOL, MIB)).end();
    let tree = fixed(tree, "off@1000600000", 6, &cells(BANK + 6 * MIB, MIB)).flag("no-map");
    let tree = tree.str("status", "disabled").end();
    let tree = tree.begin("huge").cells("phandle", &[7]).cells("size", &[1, 0]).flag("no-map").end();
    let two = [cells(ROM, 64 * KIB), cells(ROM + MIB, 64 * KIB)].concat();
    let tree = fixed(tree, "rom@2000000000", 8, &two).flag("no-map").end().end();
    let device = |tree: Builder, name: &str, regions: &[u32]| tree.begin(name).cells("memory-region", regions).end();
    let tree = device(tree, "gpu", &[1, 3, 2, 8, 5]);
    let tree = tree.begin("dsp").cells("memory-region", &[1]).str("memory-region-names", "code").end();
    let tree = device(tree, "lost", &[99, 6, 7]);
    tree.begin("plain").end().finish()
}

/// A tree as it is when the machine runs: there for good.
fn tree_of(blob: Vec<u8>) -> &'static Tree<'static> {
    Box::leak(Box::new(Tree::from_read_only(blob.leak()).unwrap()))
}

/// Result of discovery on it.
fn ranges_of(tree: &Tree<'static>) -> Vec<ReservedRange> {
    reserved_ranges(tree, PhysRange::EMPTY)
}

type Io<'s, 'm> = IoSpace<'s, 'm, Kernel<'m>>;

fn on_a_machine(f: impl FnOnce(&'static Tree<'static>, &Io<'_, '_>)) {
    let tree = tree_of(blob());
    let ranges: &'static [ReservedRange] = ranges_of(tree).leak();
    on_a_machine_with(Config::CORTEX_A72, ReservedMap::new(tree, ranges), |_, io| f(tree, io));
}

fn node(tree: &'static Tree<'static>, path: &str) -> Node<'static, 'static> {
    tree.find(path).unwrap()
}

fn range(start: u64, size: u64) -> PhysRange {
    PhysRange::from_size(PhysAddr::new(start), size).unwrap()
}

/// Asks in nobody's name.
fn stranger(io: &Io<'_, '_>, start: u64, size: u64) -> Result<VirtAddr, IoError> {
    io.ioremap(PhysAddr::new(start), size, MemoryType::NonCacheable)
}

/// Asks in the name of an owner, for all of its region.
fn owner<'m>(io: &Io<'_, 'm>, region: &ReservedRegion<'m>, memory: MemoryType) -> Result<VirtAddr, IoError> {
    let prot = Prot::kernel(Access::ReadWrite).with_memory(memory).unwrap();
    io.ioremap_region(region, region.range().start(), region.range().size(), prot)
}

#[test]
fn the_owner_maps_its_region_and_everybody_else_is_refused() {
    on_a_machine(|tree, io| {
        let region = io.memory_region(node(tree, "/gpu"), 0).unwrap();
        assert_eq!((region.range(), region.device()), (range(FIRMWARE, MIB), "gpu"));
        assert_eq!(region.to_string(), format!("the no-map region firmware@1000100000 {} of gpu", region.range()));
        let mapped = owner(io, &region, MemoryType::NonCacheable).unwrap();
        assert_eq!(io.iter().next().map(|mapping| mapping.phys), Some(region.range()));
        // From each side, within, around; for every type, mapped already or not.
        let asked = [(FIRMWARE, 1), (FIRMWARE - 1, 2), (FIRMWARE + MIB - 1, 2), (FIRMWARE - MIB, 4 * MIB)];
        for (start, size) in asked {
            let pages = range(start, size).align_outwards(PAGE_SIZE).unwrap();
            let refused = stranger(io, start, size);
            assert_eq!(refused, Err(IoError::NoMap(pages, region.first())), "{size:#x} bytes from {start:#x}");
            let said = refused.unwrap_err().to_string();
            let expected = format!("{pages} touches the no-map region firmware@1000100000 {}", region.range());
            assert!(said.starts_with(&expected), "{said}");
        }
        let start = PhysAddr::new(FIRMWARE);
        for memory in MemoryType::ALL {
            assert!(matches!(io.ioremap(start, 8, memory), Err(IoError::NoMap(..))));
            let prot = Prot::KERNEL_DEVICE.with_access(Access::ReadOnly).unwrap().with_memory(memory).unwrap();
            assert!(matches!(io.ioremap_prot(start, 8, prot), Err(IoError::NoMap(..))));
        }
        for memory in [MemoryType::WriteBack, MemoryType::WriteThrough, MemoryType::NonCacheable] {
            assert!(matches!(io.memremap(start, 8, memory), Err(IoError::NoMap(..))));
        }
        // The memory directly before and behind it has no owner.
        for (start, size) in [(FIRMWARE - PAGE_SIZE, PAGE_SIZE), (FIRMWARE + MIB, 1)] {
            raw!(io.iounmap(stranger(io, start, size).unwrap())).unwrap();
        }
        raw!(io.memunmap(mapped)).unwrap();
        assert!(matches!(stranger(io, FIRMWARE, 8), Err(IoError::NoMap(..))), "its owner's also when it is not mapped");
    });
}

#[test]
fn a_no_map_region_that_the_linear_map_holds_is_none() {
    let tree = tree_of(blob());
    let no_map = |image| {
        let ranges = reserved_ranges(tree, image);
        ranges.iter().filter(|reserved| !reserved.no_map).map(|reserved| reserved.name).collect::<Vec<_>>()
    };
    assert_eq!(no_map(range(BANK + 8 * MIB, MIB)), ["pool@8000100000"]);
    assert_eq!(no_map(range(FIRMWARE + MIB / 2, MIB)), ["firmware@1000100000", "pool@8000100000"]);
}

#[test]
fn what_no_device_names_is_mapped_by_nobody() {
    on_a_machine(|tree, io| {
        assert!(
            matches!(stranger(io, ORPHAN, 4), Err(IoError::NoMap(_, region)) if region.name == "orphan@1000400000")
        );
        // Nor by the owner of something else.
        let region = io.memory_region(node(tree, "/dsp"), 0).unwrap();
        let refused = io.ioremap_region(&region, PhysAddr::new(ORPHAN), 4, Prot::KERNEL_DEVICE);
        assert_eq!(refused, Err(IoError::OutsideRegion(range(ORPHAN, 4), region.first())));
        assert_eq!(
            refused.unwrap_err().to_string(),
            format!("{} is not inside the no-map region firmware@1000100000 {}", range(ORPHAN, 4), region.range())
        );
    });
}

#[test]
fn an_owner_maps_any_part_of_its_region_and_nothing_beyond_it() {
    on_a_machine(|tree, io| {
        let region = io.memory_region(node(tree, "/gpu"), 0).unwrap();
        let map = |start: u64, size| io.ioremap_region(&region, PhysAddr::new(start), size, Prot::KERNEL_DEVICE);
        for (start, size) in [(FIRMWARE, 1), (FIRMWARE + 0x123, 8), (FIRMWARE + MIB - 1, 1), (FIRMWARE, MIB)] {
            let addr = map(start, size).unwrap();
            assert_eq!(addr.offset_in(PAGE_SIZE), start % PAGE_SIZE);
            raw!(io.iounmap(addr)).unwrap();
        }
        for (start, size) in [(FIRMWARE - 1, 2), (FIRMWARE + MIB - 1, 2), (FIRMWARE, MIB + 1), (BANK, 64 * MIB)] {
            assert_eq!(map(start, size), Err(IoError::OutsideRegion(range(start, size), region.first())));
        }
        assert_eq!(map(FIRMWARE, 0), Err(IoError::Empty));
        assert_eq!(map(FIRMWARE, u64::MAX), Err(IoError::Wraps(PhysAddr::new(FIRMWARE), u64::MAX)));
        let refused = |prot| io.ioremap_region(&region, PhysAddr::new(FIRMWARE), 8, prot);
        assert_eq!(refused(Prot::KERNEL_RX), Err(IoError::BadProt));
        assert_eq!(refused(Prot::user(Access::ReadWrite)), Err(IoError::BadProt));
        // A region of two ranges has nothing between them.
        let rom = io.memory_region(node(tree, "/gpu"), 3).unwrap();
        assert_eq!(rom.ranges().len(), 2);
        let map = |start: u64, size| io.ioremap_region(&rom, PhysAddr::new(start), size, Prot::KERNEL_DEVICE);
        for start in [ROM, ROM + MIB] {
            raw!(io.iounmap(map(start, 64 * KIB).unwrap())).unwrap();
            assert!(matches!(stranger(io, start, 1), Err(IoError::NoMap(..))), "outside of all RAM, too");
        }
        assert!(matches!(map(ROM, MIB + 1), Err(IoError::OutsideRegion(..))));
        assert!(matches!(map(ROM + 64 * KIB, 1), Err(IoError::OutsideRegion(..))));
    });
}

// Behaviour 292
#[test]
fn devices_that_share_a_region_map_it_with_one_type() {
    on_a_machine(|tree, io| {
        let [gpu, dsp] = ["/gpu", "/dsp"].map(|path| io.memory_region(node(tree, path), 0).unwrap());
        let first = owner(io, &gpu, MemoryType::NonCacheable).unwrap();
        let refused = owner(io, &dsp, MemoryType::WriteBack);
        assert!(
            matches!(refused, Err(IoError::Conflict(MemoryType::WriteBack, other)) if other.virt == first),
            "{refused:?}"
        );
        let second = owner(io, &dsp, MemoryType::NonCacheable).unwrap();
        assert_ne!(first, second);
        raw!(io.iounmap(first)).unwrap();
        assert!(matches!(owner(io, &gpu, MemoryType::WriteBack), Err(IoError::Conflict(..))), "the other is alive");
        raw!(io.iounmap(second)).unwrap();
        for memory in MemoryType::ALL {
            raw!(io.iounmap(owner(io, &dsp, memory).unwrap())).unwrap();
        }
    });
}

#[test]
fn a_region_that_was_placed_while_booting_has_its_owner_too() {
    on_a_machine(|tree, io| {
        let region = io.memory_region(node(tree, "/gpu"), 1).unwrap();
        let place = region.range();
        assert_eq!((region.first().name, place.size(), place.start().offset_in(64 * KIB)), ("scratch", 64 * KIB, 0));
        assert!(range(WINDOW, 16 * MIB).contains_range(place));
        assert!(matches!(stranger(io, place.start().get(), 4), Err(IoError::NoMap(..))));
        let mapped = owner(io, &region, MemoryType::WriteBack).unwrap();
        raw!(io.iounmap(mapped)).unwrap();
    });
}

#[test]
fn a_page_of_which_a_region_has_a_part_is_no_strangers() {
    on_a_machine(|tree, io| {
        let page = ODD & !(PAGE_SIZE - 1);
        for (start, size) in [(page, 1), (page + PAGE_SIZE - 1, 1), (ODD, 0x400)] {
            assert!(
                matches!(stranger(io, start, size), Err(IoError::NoMap(_, region)) if region.node != 0),
                "{start:#x}"
            );
        }
        let region = io.memory_region(node(tree, "/gpu"), 2).unwrap();
        assert!(io.ioremap_region(&region, PhysAddr::new(page), 8, Prot::KERNEL_DEVICE).is_err(), "not to the byte");
        raw!(io.iounmap(owner(io, &region, MemoryType::DeviceNGnRE).unwrap())).unwrap();
    });
}

#[test]
fn what_names_no_region_is_told_why() {
    on_a_machine(|tree, io| {
        let ask = |path: &str, index| io.memory_region(node(tree, path), index).unwrap_err();
        assert_eq!(ask("/gpu", 5), RegionError::NoIndex { device: "gpu", index: 5 });
        assert_eq!(ask("/dsp", 1).to_string(), "dsp has no memory-region 1");
        assert_eq!(ask("/plain", 0), RegionError::NoIndex { device: "plain", index: 0 });
        let error = FdtError::NoSuchPhandle { node: node(tree, "/lost").offset(), phandle: 99 };
        assert_eq!(ask("/lost", 0), RegionError::LeadsNowhere { device: "lost", index: 0, error });
        assert!(ask("/lost", 0).to_string().starts_with("memory-region 0 of lost: "));
        assert_eq!(ask("/lost", 1), RegionError::Disabled { region: "off@1000600000" });
        assert_eq!(ask("/lost", 1).to_string(), "the reserved region off@1000600000 is disabled");
        assert_eq!(ask("/lost", 2), RegionError::NoPlace { region: "huge" });
        assert_eq!(ask("/lost", 2).to_string(), "there was no room for the reserved region huge");
        // A disabled region is ordinary memory.
        raw!(io.iounmap(stranger(io, BANK + 6 * MIB, 8).unwrap())).unwrap();
        let twin = tree_of(blob());
        let refused = io.memory_region(node(twin, "/gpu"), 0);
        assert_eq!(refused, Err(RegionError::AnotherTree));
        assert_eq!(refused.unwrap_err().to_string(), "the node is of another device tree than this machine's");
    });
}

#[test]
fn a_region_of_mapped_ram_is_where_the_linear_map_has_it() {
    // Memory that the page allocator has is nobody's to map, whatever the tree says.
    on_a_machine(|tree, io| {
        let lent = RegionError::Lent { region: "pool@8000100000" };
        assert_eq!(io.memory_region(node(tree, "/gpu"), 4), Err(lent));
    });
    crate::vmalloc::kernel::with_reserved(Config::CORTEX_A72, range(POOL, MIB), |space| {
        let tree = tree_of(blob());
        let io = &IoSpace::new(space);
        io.set_up(PhysAddr::new(1 << 44), ReservedMap::new(tree, ranges_of(tree).leak()));
        let region = io.memory_region(node(tree, "/gpu"), 4).unwrap();
        assert!(!region.first().no_map);
        let addr = owner(io, &region, MemoryType::WriteBack).unwrap();
        assert_eq!(Some(addr), layout::phys_to_virt(PhysAddr::new(POOL)));
        raw!(io.memunmap(addr)).unwrap();
        assert!(matches!(owner(io, &region, MemoryType::NonCacheable), Err(IoError::Ram(_))));
        assert!(matches!(stranger(io, POOL, 8), Err(IoError::Ram(_))), "as RAM, not as somebody's");
    });
}

#[test]
fn a_mapping_of_an_owner_is_as_any_other() {
    crate::vmalloc::kernel::with_machine(Config::CORTEX_A72, |space| {
        let io = IoSpace::new(space);
        let tree = tree_of(blob());
        assert_eq!(io.memory_region(node(tree, "/gpu"), 0), Err(RegionError::NotReady));
        assert_eq!(io.reserved().ranges(), []);
        let ranges: &'static [ReservedRange] = ranges_of(tree).leak();
        io.set_up(PhysAddr::new(1 << 44), ReservedMap::new(tree, ranges));
        let region = io.memory_region(node(tree, "/gpu"), 0).unwrap();
        let addr = owner(&io, &region, MemoryType::DeviceNGnRE).unwrap();
        let cpu = space.hal().machine.cpu(CpuId::new(1));
        cpu.load(addr, Who::Kernel).unwrap();
        let found = space.hal().table.translate(addr).unwrap();
        assert_eq!((found.phys, found.leaf.prot), (region.range().start(), Prot::KERNEL_DEVICE));
        assert!(space.find(addr).unwrap().caller.unwrap().file().ends_with("reserved.rs"));
        raw!(io.iounmap(addr)).unwrap();
        assert!(cpu.load(addr, Who::Kernel).is_err());
        io.check().unwrap();
    });
}

#[test]
fn the_owners_of_a_region_are_found_in_the_tree() {
    let tree = tree_of(blob());
    let owners = |index: usize| -> Vec<_> {
        tree.reserved_memory().nth(index).unwrap().owners().map(|node| node.path().to_string()).collect()
    };
    assert_eq!(owners(0), ["/gpu", "/dsp"]);
    assert_eq!((owners(2), owners(3)), (vec!["/gpu".to_string()], vec![]));
    let gpu = node(tree, "/gpu");
    assert_eq!(gpu.memory_region(2).unwrap().map(ReservedMemory::name), Ok("odd@1000300800"));
    let index = |name| node(tree, "/dsp").memory_region_index(name);
    assert_eq!((index("code"), index("data"), gpu.memory_region_index("code")), (Some(0), None, None));
    assert!(gpu.memory_region(5).is_none() && node(tree, "/plain").memory_region(0).is_none());
}
