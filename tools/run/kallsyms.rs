//! Fills the room for the symbol table (`src/kernel/kallsyms`) in a linked kernel from its own ELF symbols.

use object::elf::{PF_X, PT_LOAD};
use object::read::elf::{ElfFile64, ProgramHeader};
use object::{LittleEndian, Object, ObjectSegment, ObjectSymbol, SegmentFlags, SymbolKind};
use quarry::kernel::kallsyms;
use rustc_demangle::demangle;

/// Longer names are cut: what a backtrace needs stands at their start.
const LONGEST_NAME: usize = 160;

/// Result of filling the room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Filled {
    /// Bytes that the table takes.
    pub(crate) used: usize,
    /// Bytes that the image has for it.
    pub(crate) room: usize,
}

/// Writes the symbol table into the ELF file `file`; `None` if it has no room for one. Filling it again changes nothing.
///
/// # Errors
///
/// In words, if the file is not a kernel that can be read, or the room is too small.
pub(crate) fn fill(file: &mut [u8]) -> Result<Option<Filled>, String> {
    let elf = ElfFile64::<LittleEndian>::parse(&*file).map_err(|e| e.to_string())?;
    let address = |name| elf.symbol_by_name(name).map(|symbol| symbol.address());
    let (Some(image), Some(text_end), Some(start), Some(end)) =
        (address("_text"), address("_etext"), address("__kallsyms_start"), address("__kallsyms_end"))
    else {
        return Ok(None);
    };
    if start >= end {
        return Ok(None);
    }
    let executable: Vec<_> = elf
        .segments()
        .filter(|segment| matches!(segment.flags(), SegmentFlags::Elf { p_flags } if p_flags & PF_X != 0))
        .map(|segment| segment.address()..segment.address() + segment.size())
        .collect();
    let symbols: Vec<(u64, String)> = elf
        .symbols()
        .filter(|symbol| matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Unknown))
        .filter(|symbol| executable.iter().any(|range| range.contains(&symbol.address())))
        .filter(|symbol| (image..text_end).contains(&symbol.address()))
        .filter_map(|symbol| Some((symbol.address() - image, readable(symbol.name().ok()?)?)))
        .collect();
    let table = kallsyms::encode(&symbols, text_end - image).map_err(|e| e.to_string())?;
    let room = usize::try_from(end - start).map_err(|e| e.to_string())?;
    if table.len() > room {
        return Err(format!(
            "the symbol table needs {} bytes, and the image has room for {room}: see ROOM in src/kernel/symbol.rs",
            table.len()
        ));
    }
    let offset = file_offset(&elf, start, room)?;
    let bytes = file.get_mut(offset..offset + room).ok_or("the room for the symbol table lies outside the file")?;
    let (filled, rest) = bytes.split_at_mut(table.len());
    filled.copy_from_slice(&table);
    rest.fill(0);
    Ok(Some(Filled { used: table.len(), room }))
}

/// A symbol's name as a person writes it; `None` for the marks that assemblers leave between code and data.
pub(crate) fn readable(name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with(['$', '.']) {
        return None;
    }
    let mut name = format!("{:#}", demangle(name));
    if let Some((cut, _)) = name.char_indices().nth(LONGEST_NAME) {
        name.truncate(cut);
        name.push_str("...");
    }
    Some(name)
}

/// Where in the file the `len` bytes at virtual address `start` lie.
fn file_offset(elf: &ElfFile64<'_, LittleEndian>, start: u64, len: usize) -> Result<usize, String> {
    elf.elf_program_headers()
        .iter()
        .filter(|header| header.p_type(LittleEndian) == PT_LOAD)
        .find_map(|header| {
            let into = start.checked_sub(header.p_vaddr(LittleEndian))?;
            let fits = into.checked_add(len as u64)? <= header.p_filesz(LittleEndian);
            usize::try_from(header.p_offset(LittleEndian) + into).ok().filter(|_| fits)
        })
        .ok_or_else(|| "the room for the symbol table is not in the file".to_owned())
}
