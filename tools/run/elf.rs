//! Reading the kernel's ELF file: the flat Image, and the registry of tests.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use object::elf::{PF_W, PF_X, PT_LOAD};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{LittleEndian, Object, ObjectSegment, ObjectSymbol, SymbolKind};

use crate::a53::{self, Moved};
use crate::kallsyms::{self, Filled};
use crate::registry::{self, Test};

/// A kernel as the linker left it, with its own symbol table filled in, and without sequences that Cortex-A53 gets wrong.
pub(crate) struct Kernel {
    file: Vec<u8>,
    symbols: Option<Filled>,
    moved: Option<Moved>,
}

impl Kernel {
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let in_file = |e| format!("{}: {e}", path.display());
        let file = fs::read(path).map_err(|e| in_file(e.to_string()))?;
        let mut kernel = Self { file, symbols: None, moved: None };
        kernel.parse().map_err(in_file)?;
        kernel.moved = a53::fix(&mut kernel.file).map_err(in_file)?;
        kernel.symbols = kallsyms::fill(&mut kernel.file).map_err(in_file)?;
        Ok(kernel)
    }

    /// The whole file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.file
    }

    /// The same kernel with other instructions: each a virtual address of its executable part, and the word there.
    pub(crate) fn patched(&self, words: &[(u64, u32)]) -> Result<Self, String> {
        let elf = self.parse()?;
        let mut file = self.file.clone();
        for &(at, word) in words {
            let place =
                elf.elf_program_headers().iter().filter(|h| h.p_flags(LittleEndian) & PF_X != 0).find_map(|h| {
                    let inside =
                        at.checked_sub(h.p_vaddr(LittleEndian)).filter(|&inside| inside < h.p_filesz(LittleEndian))?;
                    usize::try_from(h.p_offset(LittleEndian) + inside).ok()
                });
            let bytes = place.and_then(|place| file.get_mut(place..)?.first_chunk_mut());
            *bytes.ok_or_else(|| format!("{at:#x} is no code of the image"))? = word.to_le_bytes();
        }
        Ok(Self { file, symbols: self.symbols, moved: self.moved })
    }

    fn parse(&self) -> Result<ElfFile64<'_, LittleEndian>, String> {
        let elf = ElfFile64::parse(self.file.as_slice()).map_err(|e| e.to_string())?;
        if elf.elf_header().e_machine(LittleEndian) != object::elf::EM_AARCH64 {
            return Err("not an AArch64 ELF file".to_owned());
        }
        Ok(elf)
    }

    /// The flat Image: every loadable segment at its physical address, zeros between them, BSS left out.
    pub(crate) fn image(&self) -> Result<Image, String> {
        let elf = self.parse()?;
        let mut parts = Vec::new();
        for header in elf.elf_program_headers().iter().filter(|h| h.p_type(LittleEndian) == PT_LOAD) {
            let data =
                header.data(LittleEndian, self.file.as_slice()).map_err(|()| "a segment lies outside the file")?;
            if header.p_memsz(LittleEndian) > 0 {
                parts.push((header.p_paddr(LittleEndian), data, header.p_memsz(LittleEndian)));
            }
        }
        let base = parts.iter().map(|&(addr, ..)| addr).min().ok_or("no loadable segment")?;
        let mut image = Image { bytes: Vec::new(), memory_size: 0 };
        for (addr, data, memory_size) in parts {
            let start = usize::try_from(addr - base).map_err(|e| e.to_string())?;
            image.memory_size = image.memory_size.max(start as u64 + memory_size);
            if image.memory_size > 1 << 30 {
                return Err("the image spans more than 1 GiB of physical addresses".to_owned());
            }
            let end = start + data.len();
            if image.bytes.len() < end {
                image.bytes.resize(end, 0);
            }
            image.bytes.get_mut(start..end).ok_or("a segment is out of bounds")?.copy_from_slice(data);
        }
        Ok(image)
    }

    /// One line on what the image is made of.
    pub(crate) fn sizes(&self) -> Result<String, String> {
        let elf = self.parse()?;
        let mut line = String::from("image:");
        for header in elf.elf_program_headers().iter().filter(|h| h.p_type(LittleEndian) == PT_LOAD) {
            let name = match header.p_flags(LittleEndian) {
                flags if flags & PF_X != 0 => "text",
                flags if flags & PF_W != 0 => "data, BSS and stacks",
                _ => "rodata",
            };
            let _ = write!(line, " {name} {},", kib(header.p_memsz(LittleEndian)));
        }
        if let Some(Filled { used, room }) = self.symbols {
            let _ = write!(line, " symbol table {} of {},", kib(used as u64), kib(room as u64));
        }
        let image = self.image()?;
        let _ = write!(line, " flat {} (in memory {})", kib(image.bytes.len() as u64), kib(image.memory_size));
        Ok(line)
    }

    /// Gives the kernel boot arguments of its own, which count instead of the loader's.
    pub(crate) fn set_arguments(&mut self, arguments: &str) -> Result<(), String> {
        let (start, end) = (self.symbol("__bootargs_start")?, self.symbol("__bootargs_end")?);
        let room = usize::try_from(end - start).map_err(|e| e.to_string())?;
        if arguments.len() >= room {
            return Err(format!("the image has room for {room} bytes of boot arguments, not for {}", arguments.len()));
        }
        let mut bytes = arguments.as_bytes().to_vec();
        bytes.resize(room, 0);
        self.put(start, &bytes)
    }

    /// Lets the boot stub drive the green LED of a Pi 4, and of no other board.
    pub(crate) fn set_act_led(&mut self) -> Result<(), String> {
        self.put(self.symbol("__act_led")?, &1_u32.to_le_bytes())
    }

    fn put(&mut self, addr: u64, bytes: &[u8]) -> Result<(), String> {
        let offset = self.parse()?.elf_program_headers().iter().find_map(|header| {
            let into = addr.checked_sub(header.p_vaddr(LittleEndian))?;
            let end = into.checked_add(bytes.len() as u64)?;
            let inside = header.p_type(LittleEndian) == PT_LOAD && end <= header.p_filesz(LittleEndian);
            usize::try_from(header.p_offset(LittleEndian) + into).ok().filter(|_| inside)
        });
        let place = offset.and_then(|offset| self.file.get_mut(offset..offset + bytes.len()));
        place.ok_or_else(|| format!("{addr:#x} is not in the file"))?.copy_from_slice(bytes);
        Ok(())
    }

    /// One line on the errata of Cortex-A53 that were looked for.
    pub(crate) fn a53(&self) -> Result<String, String> {
        let Moved { places, instructions } = self.moved.ok_or("the image has no room for veneers")?;
        Ok(format!(
            "Cortex-A53: {instructions} instructions; 835769: {places} places moved out of the way; 843419: none left"
        ))
    }

    /// The address of a symbol.
    pub(crate) fn symbol(&self, name: &str) -> Result<u64, String> {
        let symbol = self.parse()?.symbol_by_name(name).map(|symbol| symbol.address());
        symbol.ok_or_else(|| format!("the image has no symbol {name}"))
    }

    /// Its executable part.
    pub(crate) fn code(&self) -> Result<Code<'_>, String> {
        let elf = self.parse()?;
        let headers = elf.elf_program_headers().iter().filter(|h| h.p_flags(LittleEndian) & PF_X != 0);
        let parts = headers.map(|header| {
            let data =
                header.data(LittleEndian, self.file.as_slice()).map_err(|()| "a segment lies outside the file")?;
            Ok((header.p_vaddr(LittleEndian), data))
        });
        let functions = elf.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text);
        let functions =
            functions.filter_map(|symbol| Some((symbol.address(), kallsyms::readable(symbol.name().ok()?)?)));
        let parts = parts.collect::<Result<_, &str>>()?;
        Ok(Code { parts, exchanged: self.alternatives()?, functions: functions.collect() })
    }

    /// Instructions that the kernel exchanges when it knows its CPUs, by address: those that take the others' places. (The other
    /// side is `src/arch/aarch64/alternative.rs`.)
    fn alternatives(&self) -> Result<BTreeMap<u64, u32>, String> {
        let names = ["__start_quarry_alternatives", "__stop_quarry_alternatives"];
        let [Ok(start), Ok(end)] = names.map(|name| self.symbol(name)) else { return Ok(BTreeMap::new()) };
        let elf = self.parse()?;
        let size = end.saturating_sub(start);
        let table = elf.segments().find_map(|segment| segment.data_range(start, size).ok().flatten());
        let table = table.ok_or("the table of alternatives is not in the file")?;
        let words: Vec<u64> = table.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let low = |word: u64| u32::try_from(word & u64::from(u32::MAX)).unwrap_or_default();
        Ok(words.as_chunks::<2>().0.iter().map(|[at, word]| (*at, low(*word))).collect())
    }

    /// The registered tests, by name; `None` if the file was linked without any.
    pub(crate) fn tests(&self) -> Result<Option<Vec<Test>>, String> {
        let elf = self.parse()?;
        let symbol = |name| elf.symbol_by_name(name).map(|symbol| symbol.address());
        let (Some(start), Some(end)) = (symbol("__ktests_start"), symbol("__ktests_end")) else { return Ok(None) };
        if end <= start {
            return Ok(None);
        }
        let data = |addr, len| {
            elf.segments()
                .find_map(|segment| segment.data_range(addr, len).ok().flatten())
                .ok_or_else(|| format!("the registry of tests points to {addr:#x}, which is not in the file"))
        };
        let (records, rest) = data(start, end - start)?.as_chunks::<{ registry::RECORD }>();
        if !rest.is_empty() {
            return Err("the registry of tests does not hold whole records".to_owned());
        }
        let mut tests = Vec::new();
        for (number, record) in records.iter().enumerate() {
            let ((addr, len), has_body) = registry::split(record);
            let text = std::str::from_utf8(data(addr, len)?).map_err(|e| format!("test {number}: {e}"))?;
            tests.push(Test::parse(number, text, has_body)?);
        }
        // The linker's order is nobody's; the numbers keep it.
        tests.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some([twice, _]) = tests.array_windows().find(|[a, b]| a.name == b.name) {
            return Err(format!("two tests are called {}", twice.name));
        }
        Ok(Some(tests))
    }
}

fn kib(bytes: u64) -> String {
    format!("{} KiB", bytes.div_ceil(1024))
}

/// The executable segments and the functions in them, by address.
pub(crate) struct Code<'a> {
    parts: Vec<(u64, &'a [u8])>,
    exchanged: BTreeMap<u64, u32>,
    pub(crate) functions: BTreeMap<u64, String>,
}

impl Code<'_> {
    /// The instruction at `addr`, on a machine whose CPUs need no workaround.
    pub(crate) fn word(&self, addr: u64) -> Option<u32> {
        if let Some(word) = self.exchanged.get(&addr) {
            return Some(*word);
        }
        self.parts.iter().find_map(|(start, bytes)| {
            let offset = usize::try_from(addr.checked_sub(*start)?).ok()?;
            bytes.get(offset..)?.first_chunk().copied().map(u32::from_le_bytes)
        })
    }

    /// Where the function that `addr` lies in starts.
    pub(crate) fn function(&self, addr: u64) -> u64 {
        self.functions.range(..=addr).next_back().map_or(0, |(&start, _)| start)
    }
}

/// A flat kernel image.
pub(crate) struct Image {
    pub(crate) bytes: Vec<u8>,
    /// Bytes that the kernel occupies in memory, BSS included.
    pub(crate) memory_size: u64,
}

impl Image {
    /// The image with garbage where BSS will be, as a boot loader may leave it.
    pub(crate) fn with_dirty_bss(mut self) -> Vec<u8> {
        self.bytes.resize(usize::try_from(self.memory_size).unwrap_or(usize::MAX).max(self.bytes.len()), 0xa5);
        self.bytes
    }
}
