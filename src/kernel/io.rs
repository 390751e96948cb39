//! Device memory at boot and at the prompt.

use super::address::{address, physical};
use super::bootargs::parse_number;
use crate::addr::{VirtAddr, VirtRange};
use crate::arch::aarch64::features::IdRegisters;
use crate::arch::aarch64::{at, probe};
use crate::boot::reserved::reserved_map;
use crate::fdt::Tree;
use crate::global;
use crate::hal::prot::{Access, MemoryType, Prot};
use crate::kprintln;
use crate::mm::layout::{FIXMAP_END, FIXMAP_START};
use crate::mm::memblock::Discovery;
use ::log::{info, warn};
use core::fmt;

/// Enables the mapping of device memory. Boot CPU, once, when the kernel's own devices are mapped and memory can be allocated.
pub(super) fn init(cpu: &IdRegisters, tree: &Tree<'static>, found: &Discovery) {
    let fixmap = VirtRange::new(VirtAddr::new(FIXMAP_START), VirtAddr::new(FIXMAP_END)).unwrap_or_default();
    let Ok(reserved) = reserved_map(tree, found) else {
        // Calls that map devices then fail as too early, which is better than mapping memory of another owner.
        return warn!("device memory: no memory to note what is reserved");
    };
    if let Err(error) = global::io_init(cpu.physical_bits(), fixmap, reserved) {
        warn!("device memory: {error}");
    }
    if let Err(error) = global::set_memory_init() {
        warn!("the linear map cannot be split: {error}");
    }
    let early: u64 = global::io_space().iter().map(|mapping| mapping.phys.size()).sum();
    info!("device memory: up to {} bits, {} KiB mapped while booting", cpu.physical_bits(), early >> 10);
}

/// The short names of the memory types, by number.
pub(super) const TYPES: [&str; 8] = ["ngnrne", "ngnre", "ngre", "gre", "wc", "wt", "wb", "wbt"];

/// The memory type that a word names; without one, that of `ioremap`.
pub(super) fn memory_type(word: Option<&str>) -> Option<MemoryType> {
    let Some(word) = word else { return Some(MemoryType::DeviceNGnRE) };
    MemoryType::ALL.into_iter().zip(TYPES).find(|(_, name)| *name == word).map(|(memory, _)| memory)
}

/// `ioremap PHYS SIZE [TYPE]`: maps device memory, and prints the mapping.
pub(super) fn map(words: &str) {
    let mut words = words.split_whitespace();
    let (phys, size) = (words.next().and_then(physical), words.next().and_then(parse_number));
    let (Some(phys), Some(size), Some(memory), None) = (phys, size, memory_type(words.next()), words.next()) else {
        return kprintln!("ioremap PHYS SIZE [{}], such as ioremap 0x9000000 0x1000", TYPES.join("|"));
    };
    let prot = Prot::kernel(Access::ReadWrite).with_memory(memory);
    match prot.map(|prot| global::ioremap_prot(phys, size, prot)) {
        Ok(Ok(addr)) => kprintln!("{addr}"),
        Ok(Err(error)) => kprintln!("{error}"),
        Err(error) => kprintln!("{error}"),
    }
}

/// `iounmap ADDR`: unmaps it.
pub(super) fn unmap(word: &str) {
    if word.is_empty() {
        return kprintln!("the address that ioremap printed, such as 0xffff800080010000; iomaps lists them");
    }
    let Some(addr) = address(word) else { return };
    match global::io_space().do_iounmap(addr) {
        // For the call, null is nothing to unmap (Linux); but a user who types it has made a mistake.
        Ok(()) if addr == VirtAddr::ZERO => kprintln!("nothing is mapped at address zero"),
        Ok(()) => kprintln!("unmapped"),
        Err(error) => kprintln!("{error}"),
    }
}

/// `iomaps`: every live mapping.
pub(super) fn list(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    global::io_space().iter().try_for_each(|mapping| writeln!(f, "{mapping}"))
}

/// `readl ADDR`: reads four bytes, in one access, as a register may require.
pub(super) fn read(word: &str) {
    let Some(addr) = address(word) else { return };
    if !addr.is_aligned(4) {
        return kprintln!("{addr} is not a multiple of 4, as the address of a register is");
    }
    match probe::load_u32(addr) {
        Some(value) => kprintln!("{addr}: {value:#010x}"),
        None => kprintln!("{addr} cannot be read"),
    }
}

/// Prints what the areas and the CPU know of an address.
pub(super) fn what(addr: VirtAddr) {
    if let Some(area) = global::vmap_space().find(addr) {
        match area.phys {
            Some(phys) => kprintln!("in the area {area}, of {phys}:{}", area.flags),
            None => kprintln!("in the area {area}:{}", area.flags),
        }
    }
    match at::translate(addr) {
        Some(par) => kprintln!("the CPU reads {} there, attribute {:#04x}", par.phys, par.attribute),
        None => kprintln!("the CPU cannot read there"),
    }
}
