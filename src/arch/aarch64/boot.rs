//! The assembly boot stub, the values it hands over, and the symbols of `linker.ld`. It calls `quarry_boot_main` and
//! `quarry_secondary_main`, which `crate::boot` defines, or the reference kernel.

use crate::addr::{PhysAddr, PhysRange, Range, VirtAddr, VirtRange};
use core::arch::global_asm;

global_asm!(
    include_str!("../../../boot/head.S"),
    include_str!("../../../boot/el.S"),
    include_str!("../../../boot/gic.S"),
    include_str!("../../../boot/secondary.S"),
    include_str!("../../../boot/tables.S"),
    include_str!("../../../boot/mmu.S"),
    MAIR = const 0xff_ff_bb_44_0c_08_04_00_u64,
    SECONDARIES = sym super::secondary::SECONDARIES,
);

macro_rules! linker_symbols {
    ($($(#[$doc:meta])* $function:ident = $symbol:ident;)*) => {
        unsafe extern "C" {
            $(static $symbol: u8;)*
        }
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $function() -> VirtAddr {
                VirtAddr::of(&raw const $symbol)
            }
        )*
    };
}

linker_symbols! {
    /// First byte of the image, the Image header.
    image_start = _text;
    /// One past the last byte of the image, BSS and boot stacks included.
    image_end = _end;
    /// One past the executable part, which starts the image.
    text_end = _etext;
    /// First byte of read-only data.
    rodata_start = __start_rodata;
    /// One past the read-only data.
    rodata_end = __end_rodata;
    /// First byte of the room for the symbol table, in read-only data.
    kallsyms_start = __kallsyms_start;
    /// One past the room for the symbol table.
    kallsyms_end = __kallsyms_end;
    /// First byte of the room for boot arguments, in read-only data.
    bootargs_start = __bootargs_start;
    /// One past the room for boot arguments.
    bootargs_end = __bootargs_end;
    /// First byte of a page of the image that nobody clears.
    not_cleared = __not_cleared;
    /// First byte of writable data.
    data_start = _sdata;
    /// One past the initialised data: the end of the flat Image.
    data_end = _edata;
    /// One past the tables of the identity map.
    idmap_tables_end = __pgtables_end;
    /// First byte that only booting needs.
    init_start = __init_begin;
    /// First byte of the room for regions of memory, in what only booting needs; not cleared.
    init_regions_start = __init_regions_start;
    /// One past the room for regions of memory.
    init_regions_end = __init_regions_end;
    /// One past the bytes that only booting needs.
    init_end = __init_end;
    /// The unmapped page below the boot stack.
    boot_stack_guard = __boot_stack_guard;
    /// Lowest byte of the boot stack.
    boot_stack_bottom = __boot_stack_bottom;
    /// One past the highest byte of the boot stack.
    boot_stack_top = __boot_stack_top;
    /// The unmapped page below the overflow stack.
    overflow_stack_guard = __overflow_stack_guard;
    /// Lowest byte of the stack on which an overflow is reported.
    overflow_stack_bottom = __overflow_stack_bottom;
    /// One past the highest byte of the overflow stack.
    overflow_stack_top = __overflow_stack_top;
    /// The table that TTBR0 holds when there is no user space: all zero, read-only.
    empty_table = __empty_table;
    /// The tables of the identity map, root first.
    idmap_tables = __idmap_pgd;
    /// The page that the identity map maps.
    idmap_text = __idmap_text_start;
    /// The last-level tables of the fixmap and the device-tree window.
    fixmap_tables = __fixmap_pte;
    /// The routine that exchanges TTBR1, in the idmap page.
    idmap_replace_routine = idmap_replace_ttbr1;
    /// Entry point of a CPU that the kernel starts, with its MMU off.
    secondary_entry_point = secondary_entry;
}

unsafe extern "C" {
    fn replace_ttbr1(tables: PhysAddr, empty: PhysAddr, idmap: PhysAddr, routine: PhysAddr);
}

/// Place of the image, and the boot loader's values.
#[derive(Clone, Copy, Debug)]
pub struct BootInfo {
    /// x0 at entry: the device tree's physical address if the loader kept the protocol.
    pub device_tree: PhysAddr,
    /// Physical address of the image's first byte.
    pub image: PhysAddr,
    /// Exception level at entry: 1, 2 or 3.
    pub entry_level: u8,
    /// Virtual counter at entry.
    pub entry_count: u64,
}

impl BootInfo {
    /// The values that the stub passes to its first Rust function.
    #[must_use]
    pub const fn new(device_tree: u64, image: u64, level: u64, count: u64) -> Self {
        Self {
            device_tree: PhysAddr::new(device_tree),
            image: PhysAddr::new(image),
            entry_level: (level & 3) as u8,
            entry_count: count,
        }
    }

    /// The image's physical range, BSS and boot stacks included.
    #[must_use]
    pub fn image_range(&self) -> PhysRange {
        let size = image_end().get() - image_start().get();
        Range::<PhysAddr>::from_size(self.image, size).unwrap_or_default()
    }

    /// The physical address of something in the image.
    #[must_use]
    pub fn image_phys(&self, virt: VirtAddr) -> PhysAddr {
        PhysAddr::new(virt.get().wrapping_sub(image_start().get()).wrapping_add(self.image.get()))
    }

    /// Place of the tree with an ELF loader that passes no pointer, on QEMU's virt machine: at the start of RAM, 2 MiB below
    /// the image (QEMU `hw/arm/boot.c`, `arm_load_dtb` with no kernel header).
    #[must_use]
    pub fn elf_device_tree(&self) -> PhysAddr {
        PhysAddr::new(self.image.get().saturating_sub(2 << 20))
    }
}

/// The boot arguments that a tool has put into the image (`quarry-run image --append=`), instead of those of the loader; `None` if
/// it has put none there.
#[must_use]
pub fn built_in_arguments() -> Option<&'static [u8]> {
    let (start, end) = (bootargs_start(), bootargs_end());
    let size = crate::addr::to_usize(end.get().saturating_sub(start.get()));
    // SAFETY: the linker script puts both symbols around bytes of read-only data. They are found by the symbols, not by their
    // name: the compiler would take the zeros for granted.
    let room = unsafe { core::slice::from_raw_parts(start.as_ptr::<u8>(), size) };
    room.first().is_some_and(|first| *first != 0).then_some(room)
}

/// The kernel's translation tables are replaced by those at `tables`.
///
/// # Safety
///
/// `tables` maps everything that the running code uses (text, stack, data, devices) where it is mapped now; exceptions
/// are masked; no other CPU runs on the old tables.
pub unsafe fn switch_tables(boot: &BootInfo, tables: PhysAddr) {
    // SAFETY: by `# Safety` `tables` maps all that runs; the other three are the image's own, from the linker script.
    unsafe {
        replace_ttbr1(
            tables,
            boot.image_phys(empty_table()),
            boot.image_phys(idmap_tables()),
            boot.image_phys(idmap_replace_routine()),
        );
    }
}

/// The parts of the image, by permission: name, range, executable, writable.
#[must_use]
pub fn image_sections() -> [(&'static str, VirtRange); 5] {
    let range = |start, end| Range::<VirtAddr>::new(start, end).unwrap_or_default();
    [
        ("text", range(image_start(), text_end())),
        ("rodata", range(rodata_start(), rodata_end())),
        ("data", range(data_start(), boot_stack_guard())),
        ("boot stack", range(boot_stack_bottom(), boot_stack_top())),
        ("overflow stack", range(overflow_stack_bottom(), overflow_stack_top())),
    ]
}

/// The parts of the image: name and range. The pages between them and after them are padding and guards; what only booting
/// needed is left out.
#[must_use]
pub fn image_parts() -> [(&'static str, VirtRange); 9] {
    let range = |start, end| Range::<VirtAddr>::new(start, end).unwrap_or_default();
    [
        // The later parts lie inside of these two, and count where they do.
        ("padding, guard pages", range(image_start(), init_start())),
        ("padding, guard pages", range(init_end(), image_end())),
        ("text", range(image_start(), text_end())),
        ("rodata", range(rodata_start(), rodata_end())),
        ("data", range(data_start(), data_end())),
        ("bss", range(data_end(), idmap_tables())),
        ("identity map", range(idmap_tables(), idmap_tables_end())),
        ("boot stack", range(boot_stack_bottom(), boot_stack_top())),
        ("overflow stack", range(overflow_stack_bottom(), overflow_stack_top())),
    ]
}
