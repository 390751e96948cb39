//! Which memory the program of an ELF file needs: every header checked before anything is mapped.
#![forbid(unsafe_code)]

use crate::addr::{PAGE_SIZE, UserAddr, UserRange, to_usize};
use crate::mm::user::map::VmFlags;
use core::fmt;
use elf::abi;
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::segment::ProgramHeader;
use elf::{ElfBytes, ParseError};

/// Segments that a program may load.
pub const MAX_SEGMENTS: usize = 8;

/// Reason why a file is no program that can be started. Nothing has been mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ElfError {
    /// It does not begin with the four bytes of an ELF file.
    NoElf,
    /// A header or table that is cut off, or that the parser does not know.
    Damaged,
    /// It is not of 64 bits, little-endian.
    Format,
    /// It is for another machine; the number of `e_machine`.
    Machine(u16),
    /// It is no program with fixed addresses (`ET_EXEC`); the number of `e_type`.
    Kind(u16),
    /// It has no segment to load.
    Nothing,
    /// It has more segments than [`MAX_SEGMENTS`].
    TooMany,
    /// It asks for an interpreter or for dynamic linking.
    Dynamic,
    /// It asks for thread-local storage, which its runtime would have to make.
    ThreadLocal,
    /// Its stack is to be executable.
    ExecutableStack,
    /// A segment may be written to and executed (W^X).
    WriteExec(UserAddr),
    /// A segment has more bytes in the file than in memory.
    FileLarger(UserAddr),
    /// A segment's bytes are not inside the file.
    Truncated(UserAddr),
    /// A segment is not inside the memory of a program.
    Wild(UserAddr),
    /// The place in the file and the address of a segment differ within their pages, or `p_align` is no power of two.
    Misaligned(UserAddr),
    /// A segment shares a page with the one before it, or lies below it.
    Overlap(UserAddr),
    /// The first instruction is not in an executable segment, or not aligned.
    Entry(UserAddr),
}

impl fmt::Display for ElfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoElf => f.write_str("no ELF file"),
            Self::Damaged => f.write_str("the ELF headers are damaged"),
            Self::Format => f.write_str("not a 64-bit little-endian ELF file"),
            Self::Machine(number) => write!(f, "a program for machine {number}, not AArch64"),
            Self::Kind(number) => write!(f, "ELF type {number}, not a program with fixed addresses"),
            Self::Nothing => f.write_str("no segment to load"),
            Self::TooMany => write!(f, "more than {MAX_SEGMENTS} segments to load"),
            Self::Dynamic => f.write_str("a program that needs dynamic linking"),
            Self::ThreadLocal => f.write_str("a program with thread-local storage"),
            Self::ExecutableStack => f.write_str("a program with an executable stack"),
            Self::WriteExec(at) => write!(f, "the segment at {at} is writable and executable (W^X)"),
            Self::FileLarger(at) => write!(f, "the segment at {at} has more bytes in the file than in memory"),
            Self::Truncated(at) => write!(f, "the bytes of the segment at {at} are not inside the file"),
            Self::Wild(at) => write!(f, "the segment at {at} is not inside the memory of a program"),
            Self::Misaligned(at) => write!(f, "the segment at {at} is not aligned as its place in the file"),
            Self::Overlap(at) => write!(f, "the segment at {at} overlaps the one before it"),
            Self::Entry(at) => write!(f, "the entry point {at} is no instruction of the program"),
        }
    }
}

impl core::error::Error for ElfError {}

/// A segment to load.
///
/// # Invariants
///
/// - `ELF-1`: `bytes` fit into `range` from `start` on, and `start` is in its first page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment<'f> {
    /// The pages that it has to itself.
    pub range: UserRange,
    /// Where its bytes begin.
    pub start: UserAddr,
    /// Its bytes in the file; what follows them in `range` is zero.
    pub bytes: &'f [u8],
    /// Access of the program: read at least, never write and execute.
    pub access: VmFlags,
}

/// A program, as its headers describe it.
///
/// # Invariants
///
/// - `ELF-2`: segments rise, no two share a page, all lie in the room that was given, and none is writable and executable.
/// - `ELF-3`: `entry` lies in an executable segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Image<'f> {
    entry: UserAddr,
    segments: [Option<Segment<'f>>; MAX_SEGMENTS],
    end: UserAddr,
}

impl<'f> Image<'f> {
    /// Reads the headers of `file`, whose segments have to lie in `room`. Any context; no memory is allocated.
    ///
    /// # Errors
    ///
    /// [`ElfError`]: the rule that the file breaks. Sources: the ELF specification, chapter "Program Header"; ELF for
    /// the Arm 64-bit Architecture (AAELF64); Linux's `load_elf_binary`.
    pub fn new(file: &'f [u8], room: UserRange) -> Result<Self, ElfError> {
        let parsed = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(refusal)?;
        let header = parsed.ehdr;
        if header.class != Class::ELF64 {
            return Err(ElfError::Format);
        }
        if header.e_machine != abi::EM_AARCH64 {
            return Err(ElfError::Machine(header.e_machine));
        }
        if header.e_type != abi::ET_EXEC {
            return Err(ElfError::Kind(header.e_type));
        }
        let table = parsed.segments().ok_or(ElfError::Nothing)?;
        let mut image =
            Self { entry: UserAddr::new(header.e_entry), segments: [None; MAX_SEGMENTS], end: room.start() };
        let mut places = image.segments.iter_mut();
        for segment in table.iter() {
            match segment.p_type {
                abi::PT_LOAD if segment.p_memsz != 0 || segment.p_filesz != 0 => {
                    // INVARIANT: ELF-2.
                    let loaded = load(file, &segment, UserRange::new(image.end, room.end()), room)?;
                    image.end = loaded.range.end();
                    *places.next().ok_or(ElfError::TooMany)? = Some(loaded);
                }
                abi::PT_INTERP | abi::PT_DYNAMIC => return Err(ElfError::Dynamic),
                abi::PT_TLS => return Err(ElfError::ThreadLocal),
                abi::PT_GNU_STACK if segment.p_flags & abi::PF_X != 0 => return Err(ElfError::ExecutableStack),
                _ => {}
            }
        }
        if image.segments().next().is_none() {
            return Err(ElfError::Nothing);
        }
        // INVARIANT: ELF-3.
        let starts_in = |segment: &Segment<'_>| {
            segment.access.contains(VmFlags::EXEC)
                && image.entry >= segment.start
                && image.entry.get().wrapping_sub(segment.start.get()) < segment.bytes.len() as u64
        };
        if !image.entry.is_aligned(4) || !image.segments().any(starts_in) {
            return Err(ElfError::Entry(image.entry));
        }
        Ok(image)
    }

    /// The first instruction.
    #[must_use]
    pub const fn entry(&self) -> UserAddr {
        self.entry
    }

    /// The segments by rising address.
    pub fn segments(&self) -> impl Iterator<Item = &Segment<'f>> {
        self.segments.iter().flatten()
    }

    /// The end of the last segment: the heap begins behind it.
    #[must_use]
    pub const fn end(&self) -> UserAddr {
        self.end
    }
}

fn refusal(error: ParseError) -> ElfError {
    match error {
        ParseError::BadMagic(_) => ElfError::NoElf,
        ParseError::UnsupportedElfClass(_) | ParseError::UnsupportedElfEndianness(_) => ElfError::Format,
        _ => ElfError::Damaged,
    }
}

/// Checks one segment, which has to lie in `rest`: the part of `room` behind the segments before it.
fn load<'f>(
    file: &'f [u8],
    header: &ProgramHeader,
    rest: Option<UserRange>,
    room: UserRange,
) -> Result<Segment<'f>, ElfError> {
    let start = UserAddr::new(header.p_vaddr);
    let mut access = VmFlags::READ;
    if header.p_flags & abi::PF_W != 0 {
        access |= VmFlags::WRITE;
    }
    if header.p_flags & abi::PF_X != 0 {
        access |= VmFlags::EXEC;
    }
    if access.is_write_exec() {
        return Err(ElfError::WriteExec(start));
    }
    if header.p_filesz > header.p_memsz {
        return Err(ElfError::FileLarger(start));
    }
    let range = UserRange::from_size(start, header.p_memsz).and_then(|range| range.align_outwards(PAGE_SIZE));
    let range = range.filter(|range| room.contains_range(*range)).ok_or(ElfError::Wild(start))?;
    let aligned = header.p_align <= 1 || header.p_align.is_power_of_two();
    if !aligned || header.p_offset % PAGE_SIZE != header.p_vaddr % PAGE_SIZE {
        return Err(ElfError::Misaligned(start));
    }
    if !rest.is_some_and(|rest| rest.contains_range(range)) {
        return Err(ElfError::Overlap(start));
    }
    let end = header.p_offset.checked_add(header.p_filesz).filter(|end| *end <= file.len() as u64);
    let bytes = end.and_then(|end| file.get(to_usize(header.p_offset)..to_usize(end)));
    // INVARIANT: ELF-1.
    Ok(Segment { range, start, bytes: bytes.ok_or(ElfError::Truncated(start))?, access })
}
