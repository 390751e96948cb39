//! Contents of the physical address space, entered at boot: RAM and the kernel's parts of it, and the devices of the device
//! tree.

use crate::addr::{PAGE_SIZE, PhysRange};
use crate::arch::aarch64::boot::{self, BootInfo};
use crate::boot::early_map::EarlyMap;
use crate::fdt::Tree;
use crate::global;
use crate::mm::io::ReservedRange;
use crate::mm::io::resource::{Request, ResourceError, ResourceFlags, ResourceId, Span};
use crate::mm::memblock::BOOT_ONLY;
use crate::mm::vmalloc::VmFlags;
use alloc::vec::Vec;
use log::{info, warn};

/// RAM: nobody requests it here.
const RAM: ResourceFlags = ResourceFlags::MEM.union(ResourceFlags::SYSRAM).union(ResourceFlags::BUSY);
/// A range that has an owner.
const TAKEN: ResourceFlags = ResourceFlags::MEM.union(ResourceFlags::BUSY);

type Entered = Result<(), ResourceError<'static>>;

/// Fills the tree. Boot CPU, once, when memory can be allocated. Returns the place of the first PCI host in the device tree, if
/// there is one: this function visits all nodes.
pub(super) fn init(boot: &BootInfo, tree: &Tree<'static>, early: &EarlyMap) -> Option<usize> {
    if let Err(error) = enter_ram(boot) {
        warn!("resources: RAM: {error}");
    }
    let mut pci = None;
    let refused = enter_devices(tree, &mut pci) + enter_reserved();
    if refused != 0 {
        warn!("resources: {refused} ranges of the device tree lie across others and were left out");
    }
    if let Err(error) = enter_own(early) {
        warn!("resources: the kernel's own devices: {error}");
    }
    info!("resources: {} ranges", global::iomem_resource().with(|tree| tree.len()));
    pci
}

/// Enters RAM, with the image and the other reserved ranges in it.
fn enter_ram(boot: &BootInfo) -> Entered {
    let resources = global::iomem_resource();
    // Copied, since entering takes memory.
    let (banks, reserved) = {
        let memblock = global::memblock();
        let banks: Vec<_> = memblock.memory().regions().to_vec();
        // Memory that only booting needed was given to the page allocator.
        let for_good = memblock.reserved().regions().iter().filter(|region| region.owner != Some(BOOT_ONLY));
        let reserved: Vec<_> = for_good.map(|region| region.range).collect();
        (banks, reserved)
    };
    let mut ram = Vec::new();
    for bank in banks {
        let Some(span) = Span::of(bank.range) else { continue };
        let (name, flags) = if bank.is_mapped() { ("System RAM", RAM) } else { ("reserved", TAKEN) };
        let id = resources.enter(|tree| tree.request(tree.root(), &Request { span, name, flags }))?;
        if bank.is_mapped() {
            ram.push(id);
        }
    }
    for (name, part) in boot::image_parts() {
        let name = match name {
            "text" => "Kernel code",
            "rodata" => "Kernel rodata",
            "data" => "Kernel data",
            "bss" => "Kernel bss",
            _ => continue,
        };
        let part = PhysRange::from_size(boot.image_phys(part.start()), part.size()).and_then(Span::of);
        if let Some(span) = part {
            resources.insert(&Request { span, name, flags: TAKEN })?;
        }
    }
    reserved.into_iter().filter_map(Span::of).try_for_each(|span| reserve(&ram, span))?;
    Ok(())
}

fn reserve(ram: &[ResourceId], span: Span) -> Entered {
    let request = Request { span, name: "reserved", flags: TAKEN };
    for bank in ram {
        global::iomem_resource().enter(|tree| tree.reserve_with_split(*bank, &request))?;
    }
    Ok(())
}

/// Enters the registers and memories of every enabled device that the CPU reaches, by the name of its node. Returns the number
/// left out because they lie across others. `pci` becomes the place of the first node with the name of a PCI host (Devicetree
/// Specification 2.2.2).
fn enter_devices(tree: &Tree<'static>, pci: &mut Option<usize>) -> usize {
    let mut refused = 0;
    // Copied, since entering takes memory.
    let banks: Vec<_> = global::memblock().memory().regions().iter().map(|bank| bank.range).collect();
    tree.for_each_range(&mut |bus, node, range| {
        if pci.is_none() && matches!(node.base_name(), "pci" | "pcie") {
            *pci = Some(node.offset());
        }
        let Ok(range) = range else { return };
        // RAM exists already. Few other ranges lie in it.
        let is_memory = banks.iter().any(|bank| bank.overlaps(range)) && node.str("device_type") == Some("memory");
        if is_memory || bus.name() == "reserved-memory" {
            return;
        }
        if let Some(span) = Span::of(range) {
            let request = Request { span, name: node.name(), flags: ResourceFlags::MEM };
            refused += usize::from(global::iomem_resource().insert(&request).is_err());
        }
    });
    refused
}

/// Enters the ranges that the device tree reserves, by the names of the nodes, inside the existing ranges: busy for all but
/// their owner. Returns the number of ranges that overlap others partly.
fn enter_reserved() -> usize {
    let resources = global::iomem_resource();
    let enter = |reserved: &ReservedRange| {
        let span = Span::of(reserved.range).ok_or(ResourceError::NoSpan)?;
        let request = Request { span, name: reserved.name, flags: TAKEN };
        resources.enter(|tree| tree.request(tree.at(span.start()).map_or(tree.root(), |inner| inner.id), &request))
    };
    global::io_space().reserved().ranges().iter().filter(|reserved| enter(reserved).is_err()).count()
}

/// Devices that the kernel drives since before it had a tree: it owns these registers.
fn enter_own(early: &EarlyMap) -> Entered {
    let areas = global::vmap_space().iter().filter(|area| area.flags.contains(VmFlags::IOREMAP));
    let areas = areas.filter_map(|area| PhysRange::from_size(area.phys?, area.range.size() - PAGE_SIZE));
    for span in early.devices().chain(areas).filter_map(Span::of) {
        let request = Request { span, name: "kernel", flags: ResourceFlags::MEM };
        global::iomem_resource().request_region(&request)?;
    }
    Ok(())
}
