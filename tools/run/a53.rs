//! Two errata of Cortex-A53 that only a program's instructions can avoid, looked for in the finished image.
//!
//! 835769: a 64-bit multiply-accumulate directly behind a load or store may compute a wrong sum. The compiler has a feature
//! against it, which it takes only with a warning for each crate, and which would not reach the code of `core` that comes
//! compiled; LLVM's linker has nothing. So the image is changed where its symbol table is filled in, as GNU's linker changes
//! it: the multiply-accumulate moves into a veneer, and a branch takes its place.
//!
//! 843419: an `ADRP` in the last two words of a page may give a wrong address to a load or store behind it. The linker changes
//! these places (`--fix-cortex-a53-843419`); here they are only looked for.
//!
//! Sequences as GNU's and LLVM's linkers know them (`aarch64_erratum_sequence` in bfd/elfnn-aarch64.c,
//! `is843419ErratumSequence` in lld/ELF/AArch64ErrataFix.cpp).

use object::elf::{PF_X, PT_LOAD};
use object::read::elf::{ElfFile64, ProgramHeader};
use object::{LittleEndian, Object, ObjectSymbol};
use std::collections::BTreeMap;

/// Bytes of a veneer: the instruction, and the way back.
const VENEER: u64 = 8;

/// Result of looking through an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Moved {
    /// Multiply-accumulates that stood directly behind a load or store, and now stand in a veneer.
    pub(crate) places: usize,
    /// Instructions that were looked at.
    pub(crate) instructions: usize,
}

/// A run of instructions in the file.
struct Code {
    addr: u64,
    offset: usize,
    words: Vec<u32>,
}

/// Moves every multiply-accumulate that 835769 reaches into a veneer; `None` if the image has no room for veneers, as those of
/// other kernels.
///
/// # Errors
///
/// In words, if the room is too small, if a place cannot be changed, or if a sequence of either erratum is left.
pub(crate) fn fix(file: &mut [u8]) -> Result<Option<Moved>, String> {
    let (code, [start, end, idmap, idmap_end], sequences) = {
        let elf = ElfFile64::<LittleEndian>::parse(&*file).map_err(|e| e.to_string())?;
        let address = |name| elf.symbol_by_name(name).map(|symbol| symbol.address());
        let names = ["__a53_veneers_start", "__a53_veneers_end", "__idmap_text_start", "__idmap_text_end"].map(address);
        let [Some(start), Some(end), Some(idmap), Some(idmap_end)] = names else { return Ok(None) };
        let places = [address("__start_quarry_rseq"), address("__stop_quarry_rseq")];
        (code(&elf, file)?, [start, end, idmap, idmap_end], restartable(&elf, file, places)?)
    };
    let mut places = 0;
    // The first one's room stays empty, so that no load stands before the first.
    let mut veneer = start + VENEER;
    for run in &code {
        for place in find_835769(&run.words) {
            let (at, accumulate) = (run.addr + 4 * place as u64, run.words.get(place).copied().unwrap_or_default());
            if (idmap..idmap_end).contains(&at) || sequences.iter().any(|(first, last)| (*first..*last).contains(&at)) {
                return Err(format!("erratum 835769 at {at:#x}: no veneer can be reached from there"));
            }
            if veneer + VENEER > end {
                return Err(format!(
                    "more places of erratum 835769 than the {} veneers of linker.ld",
                    (end - start) / VENEER
                ));
            }
            let offset = offset_of(&code, veneer).ok_or("the veneers lie outside the file")?;
            put(file, offset, accumulate)?;
            put(file, offset + 4, branch(veneer + 4, at + 4)?)?;
            put(file, run.offset + 4 * place, branch(at, veneer)?)?;
            veneer += VENEER;
            places += 1;
        }
    }
    let elf = ElfFile64::<LittleEndian>::parse(&*file).map_err(|e| e.to_string())?;
    let now = self::code(&elf, file)?;
    for run in &now {
        if let Some(place) = find_835769(&run.words).next() {
            return Err(format!("erratum 835769 is left at {:#x}", run.addr + 4 * place as u64));
        }
        if let Some(place) = find_843419(run.addr, &run.words).next() {
            let at = run.addr + 4 * place as u64;
            return Err(format!("erratum 843419 at {at:#x}: link with --fix-cortex-a53-843419"));
        }
    }
    Ok(Some(Moved { places, instructions: now.iter().map(|run| run.words.len()).sum() }))
}

/// The runs of instructions of an image: its executable segments without the data between them, which the assembler's mapping
/// symbols tell.
fn code(elf: &ElfFile64<'_, LittleEndian>, file: &[u8]) -> Result<Vec<Code>, String> {
    // By address: whether data begin there. Of several at one address code wins, as data of no size do.
    let mut marks = BTreeMap::new();
    for symbol in elf.symbols() {
        let name = symbol.name().unwrap_or_default();
        let mark = |kind: &str| name == kind || name.strip_prefix(kind).is_some_and(|rest| rest.starts_with('.'));
        if mark("$d") {
            marks.entry(symbol.address()).or_insert(true);
        } else if mark("$x") {
            marks.insert(symbol.address(), false);
        }
    }
    let mut runs = Vec::new();
    for header in elf.elf_program_headers() {
        if header.p_type(LittleEndian) != PT_LOAD || header.p_flags(LittleEndian) & PF_X == 0 {
            continue;
        }
        let offset = usize::try_from(header.p_offset(LittleEndian)).map_err(|e| e.to_string())?;
        let size = usize::try_from(header.p_filesz(LittleEndian)).map_err(|e| e.to_string())?;
        let start = header.p_vaddr(LittleEndian);
        let bytes = file.get(offset..offset.saturating_add(size)).ok_or("a segment lies outside the file")?;
        let mut is_data = marks.range(..start).next_back().is_some_and(|(_, data)| *data);
        let mut run: Option<Code> = None;
        for (word, number) in bytes.as_chunks::<4>().0.iter().zip(0..) {
            let addr = start + 4 * number as u64;
            is_data = marks.get(&addr).copied().unwrap_or(is_data);
            if is_data {
                runs.extend(run.take());
                continue;
            }
            let new = || Code { addr, offset: offset + 4 * number, words: Vec::new() };
            run.get_or_insert_with(new).words.push(u32::from_le_bytes(*word));
        }
        runs.extend(run);
    }
    Ok(runs)
}

/// The restartable sequences, first and last address: an interrupt in a veneer would not start them again.
fn restartable(
    elf: &ElfFile64<'_, LittleEndian>,
    file: &[u8],
    places: [Option<u64>; 2],
) -> Result<Vec<(u64, u64)>, String> {
    let [Some(start), Some(end)] = places else { return Ok(Vec::new()) };
    let outside = || "the restartable sequences are not in the file".to_owned();
    let header = elf.elf_program_headers().iter().find(|header| {
        let first = header.p_vaddr(LittleEndian);
        header.p_type(LittleEndian) == PT_LOAD && (first..first + header.p_filesz(LittleEndian)).contains(&start)
    });
    let header = header.ok_or_else(outside)?;
    let into = header.p_offset(LittleEndian) + (start - header.p_vaddr(LittleEndian));
    let into = usize::try_from(into).map_err(|e| e.to_string())?;
    let size = usize::try_from(end.saturating_sub(start)).map_err(|e| e.to_string())?;
    let bytes = file.get(into..into.saturating_add(size)).ok_or_else(outside)?;
    let words: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    Ok(words.as_chunks::<3>().0.iter().map(|[first, last, _]| (*first, *last)).collect())
}

fn offset_of(code: &[Code], addr: u64) -> Option<usize> {
    let run = code.iter().find(|run| (run.addr..run.addr + 4 * run.words.len() as u64).contains(&addr))?;
    Some(run.offset + usize::try_from(addr - run.addr).ok()?)
}

fn put(file: &mut [u8], offset: usize, word: u32) -> Result<(), String> {
    let place = file.get_mut(offset..).and_then(|rest| rest.first_chunk_mut::<4>());
    *place.ok_or("a place lies outside the file")? = word.to_le_bytes();
    Ok(())
}

/// `b to`, at `from`.
fn branch(from: u64, to: u64) -> Result<u32, String> {
    let words = (to.wrapping_sub(from).cast_signed()) >> 2;
    if !(-(1 << 25)..1 << 25).contains(&words) {
        return Err(format!("{to:#x} is too far from {from:#x} for a branch"));
    }
    let [a, b, c, d, ..] = words.to_le_bytes();
    Ok(0x1400_0000 | u32::from_le_bytes([a, b, c, d]) & 0x03ff_ffff)
}

const fn field(word: u32, lsb: u32) -> u32 {
    word >> lsb & 0x1f
}

/// Loads, stores and prefetches of all kinds (Arm ARM C4.1: bits 28 to 25 are x1x0).
const fn is_memory(word: u32) -> bool {
    word >> 25 & 0b0101 == 0b0100
}

/// MADD, MSUB and their widening forms, 64 bits, with something to add to.
const fn is_accumulate(word: u32) -> bool {
    word >> 24 == 0x9b && matches!(word >> 21 & 7, 0b000 | 0b001 | 0b101) && field(word, 10) != 31
}

/// The integer registers that a load writes, where it is sure to be one; another answer than the truth only costs a veneer.
fn loaded(word: u32) -> [Option<u32>; 2] {
    let (vector, rt) = (word >> 26 & 1 == 1, field(word, 0));
    let pair = word >> 27 & 7 == 0b101 && word >> 22 & 1 == 1;
    let literal = word >> 27 & 7 == 0b011 && word >> 24 & 3 == 0 && word >> 30 != 0b11;
    // A register with an immediate, before or behind, or with a register; atomics (bit 21 set, bits 11:10 clear) left out.
    let atomic = word >> 24 & 3 == 0 && word >> 21 & 1 == 1 && word >> 10 & 3 == 0;
    let prefetch = word >> 30 == 0b11 && word >> 22 & 3 == 0b10;
    let register = word >> 27 & 7 == 0b111 && word >> 22 & 3 != 0 && !atomic && !prefetch;
    let known = |register: u32| Some(register).filter(|register| *register != 31);
    match () {
        () if vector => [None, None],
        () if pair => [known(rt), known(field(word, 10))],
        () if literal || register => [known(rt), None],
        () => [None, None],
    }
}

/// Multiply-accumulates directly behind a load or store whose result they do not need, by their numbers.
fn find_835769(words: &[u32]) -> impl Iterator<Item = usize> + '_ {
    words.array_windows().zip(1..).filter_map(|([memory, accumulate], place)| {
        let operands = [5, 10, 16].map(|lsb| field(*accumulate, lsb));
        let needed = loaded(*memory).into_iter().flatten().any(|register| operands.contains(&register));
        (is_memory(*memory) && is_accumulate(*accumulate) && !needed).then_some(place)
    })
}

/// The `ADRP`s of the sequences of 843419, by their numbers.
fn find_843419(addr: u64, words: &[u32]) -> impl Iterator<Item = usize> + '_ {
    words.iter().enumerate().filter_map(move |(place, adrp)| {
        let last_words = addr.wrapping_add(4 * place as u64) & 0xfff >= 0xff8;
        if !last_words || *adrp & 0x9f00_0000 != 0x9000_0000 {
            return None;
        }
        let page = field(*adrp, 0);
        let behind = |steps: usize| words.get(place + steps).copied().unwrap_or_default();
        let [second, third, fourth] = [1, 2, 3].map(behind);
        let uses = |word: u32| word & 0x3b00_0000 == 0x3900_0000 && field(word, 5) == page;
        let load_of_pair = second >> 27 & 7 == 0b101 && second >> 22 & 1 == 1;
        let writes = loaded(second).contains(&Some(page)) || written_back(second) == Some(page);
        let reached = uses(third) || uses(fourth) && !is_branch(third);
        (is_memory(second) && !load_of_pair && !writes && reached).then_some(place)
    })
}

/// B, BL, BR, BLR, RET and their like, and the conditional ones.
const fn is_branch(word: u32) -> bool {
    let by_register_or_flags = matches!(word >> 25, 0b110_1011 | 0b010_1010);
    let tested = matches!(word >> 25 & 0x3f, 0b01_1010 | 0b01_1011);
    by_register_or_flags || tested || word >> 26 & 0x1f == 0b0_0101
}

/// The base register that a load or store changes too.
fn written_back(word: u32) -> Option<u32> {
    let indexed = word >> 27 & 7 == 0b111 && word >> 24 & 3 == 0 && word >> 21 & 1 == 0 && word >> 10 & 1 == 1;
    let pair = word >> 27 & 7 == 0b101 && word >> 23 & 1 == 1;
    (indexed || pair).then_some(field(word, 5))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOP: u32 = 0xd503_201f;
    /// `madd x8, x9, x10, x11`
    const MADD: u32 = 0x9b0a_2d28;

    fn is_found(memory: u32, accumulate: u32) -> bool {
        find_835769(&[NOP, memory, accumulate, NOP]).eq([2])
    }

    #[test]
    fn a_planted_sequence_is_found() {
        for (memory, text) in [
            (0xf940_0001, "ldr x1, [x0]"),
            (0xf900_0001, "str x1, [x0]"),
            (0xf900_0009, "str x9, [x0]: a store writes no register"),
            (0xa940_0801, "ldp x1, x2, [x0]"),
            (0x3900_0001, "strb w1, [x0]"),
            (0xfd40_0001, "ldr d1, [x0]"),
            (0xfd40_0009, "ldr d9, [x0]: not x9"),
            (0xc85f_7c01, "ldxr x1, [x0]"),
            (0xf980_0000, "prfm pldl1keep, [x0]"),
            (0xf840_8401, "ldr x1, [x0], #8"),
            (0xf862_6801, "ldr x1, [x0, x2]"),
        ] {
            assert!(is_found(memory, MADD), "{text}");
        }
        for (accumulate, text) in [
            (0x9b0a_ad28, "msub x8, x9, x10, x11"),
            (0x9b2a_2d28, "smaddl x8, w9, w10, x11"),
            (0x9baa_2d28, "umaddl x8, w9, w10, x11"),
            (0x9baa_ad28, "umsubl x8, w9, w10, x11"),
        ] {
            assert!(is_found(0xf940_0001, accumulate), "{text}");
        }
    }

    #[test]
    fn other_sequences_are_left_alone() {
        for (memory, accumulate, text) in [
            (0xf940_0009, MADD, "ldr x9: the sum waits for it"),
            (0xf940_000a, MADD, "ldr x10"),
            (0xf940_000b, MADD, "ldr x11"),
            (0xa940_2c01, MADD, "ldp x1, x11"),
            (NOP, MADD, "no access"),
            (0x8b01_0000, MADD, "add x0, x0, x1"),
            (0xf940_0001, 0x9b0a_7d28, "mul x8, x9, x10"),
            (0xf940_0001, 0x1b0a_2d28, "madd w8, w9, w10, w11"),
            (0xf940_0001, 0x9bca_7d28, "umulh x8, x9, x10"),
            (0xf940_0001, NOP, "no sum"),
        ] {
            assert!(!is_found(memory, accumulate), "{text}");
        }
        assert_eq!(find_835769(&[0xf940_0001, NOP, MADD]).count(), 0, "not directly behind");
    }

    /// `adrp x0, .`; `str x1, [x2]`; `ldr x3, [x0, #8]`
    const PAGE: [u32; 3] = [0x9000_0000, 0xf900_0041, 0xf940_0403];

    #[test]
    fn an_adrp_at_the_end_of_a_page_is_found() {
        let [adrp, store, load] = PAGE;
        assert!(find_843419(0xff8, &PAGE).eq([0]) && find_843419(0x1ffc, &PAGE).eq([0]));
        assert!(find_843419(0xff4, &[NOP, adrp, store, NOP, load]).eq([1]), "one instruction may stand between");
        assert_eq!(find_843419(0xff4, &PAGE).count(), 0, "not among the last two words");
        assert_eq!(find_843419(0xff8, &[adrp, NOP, load]).count(), 0, "no access between");
        assert_eq!(find_843419(0xff8, &[adrp, store, 0x1400_0002, load]).count(), 0, "a branch between");
        assert_eq!(find_843419(0xff8, &[adrp, 0xf940_0040, load]).count(), 0, "ldr x0: another base");
        assert_eq!(find_843419(0xff8, &[adrp, store, 0xf940_0443]).count(), 0, "ldr x3, [x2, #8]: another base");
    }

    #[test]
    fn branches_reach_both_ways_and_no_further() {
        assert_eq!(branch(0x1000, 0x1008), Ok(0x1400_0002));
        assert_eq!(branch(0x1008, 0x1000), Ok(0x17ff_fffe));
        assert!(branch(0, 1 << 27).is_err() && branch(0, (1 << 27) - 4).is_ok());
    }
}
