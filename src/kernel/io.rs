//! Device memory at boot and at the prompt.

use super::bootargs::parse_number;
use super::cpus::hold_others;
use crate::addr::{PhysAddr, VirtAddr, VirtRange};
use crate::arch::aarch64::features::IdRegisters;
use crate::arch::aarch64::{at, probe};
use crate::hal::prot::{Access, MemoryType, Prot};
use crate::instance;
use crate::kprintln;
use crate::mm::layout::{FIXMAP_END, FIXMAP_START};
use ::log::{info, warn};

/// Lets device memory be mapped. Boot CPU, once, when the kernel's own devices are.
pub(super) fn init(cpu: &IdRegisters) {
    let fixmap = VirtRange::new(VirtAddr::new(FIXMAP_START), VirtAddr::new(FIXMAP_END)).unwrap_or_default();
    if let Err(error) = instance::io_init(cpu.physical_bits(), fixmap) {
        warn!("device memory: {error}");
    }
    instance::set_cpu_holder(hold_others);
    if let Err(error) = instance::set_memory_init() {
        warn!("the linear map cannot be split: {error}");
    }
    let early: u64 = instance::io_space().iter().map(|mapping| mapping.phys.size()).sum();
    info!("device memory: up to {} bits, {} KiB mapped while booting", cpu.physical_bits(), early >> 10);
}

/// The short names of the memory types, by number.
const TYPES: [&str; 8] = ["ngnrne", "ngnre", "ngre", "gre", "wc", "wt", "wb", "wbt"];

/// `ioremap PHYS SIZE [TYPE]`: maps device memory, and says how.
pub(super) fn map(words: &str) {
    let mut words = words.split_whitespace();
    let (phys, size) = (words.next().and_then(parse_number), words.next().and_then(parse_number));
    let memory = match words.next() {
        None => Some(MemoryType::DeviceNGnRE),
        Some(word) => MemoryType::ALL.into_iter().zip(TYPES).find(|(_, name)| *name == word).map(|(memory, _)| memory),
    };
    let (Some(phys), Some(size), Some(memory)) = (phys, size, memory) else {
        return kprintln!("ioremap PHYS SIZE [{}]", TYPES.join("|"));
    };
    let prot = Prot::kernel(Access::ReadWrite).with_memory(memory);
    match prot.map(|prot| instance::ioremap_prot(PhysAddr::new(phys), size, prot)) {
        Ok(Ok(addr)) => kprintln!("{addr}"),
        Ok(Err(error)) => kprintln!("{error}"),
        Err(error) => kprintln!("{error}"),
    }
}

/// `iounmap ADDR`.
pub(super) fn unmap(word: &str) {
    match parse_number(word).map(|addr| instance::io_space().iounmap(VirtAddr::new(addr))) {
        Some(Ok(())) => {}
        Some(Err(error)) => kprintln!("{error}"),
        None => kprintln!("the address that ioremap printed"),
    }
}

/// `iomaps`: every live mapping.
pub(super) fn list() {
    for mapping in instance::io_space().iter() {
        kprintln!("{mapping}");
    }
}

/// `readl ADDR`: four bytes, in one access, which a register may want.
pub(super) fn read(word: &str) {
    let Some(addr) = parse_number(word).map(VirtAddr::new).filter(|addr| addr.is_aligned(4)) else {
        return kprintln!("an address that is a multiple of 4");
    };
    match probe::load_u32(addr) {
        Some(value) => kprintln!("{addr}: {value:#010x}"),
        None => kprintln!("{addr} cannot be read"),
    }
}

/// What the areas and the CPU know of an address.
pub(super) fn what(addr: VirtAddr) {
    if let Some(area) = instance::vmap_space().find(addr) {
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
