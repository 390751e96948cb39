//! ELF files of programs: what is loaded, and that no file makes the loader map what a program may not have.

use quarry::addr::{PAGE_SIZE, UserAddr, UserRange, to_usize};
use quarry::kernel::process::elf::{ElfError, Image, MAX_SEGMENTS};
use quarry::mm::user::map::VmFlags;

const LOAD: u32 = 1;
const R: u32 = 4;
const W: u32 = 2;
const X: u32 = 1;

/// One program header.
#[derive(Clone, Copy)]
struct Header {
    kind: u32,
    flags: u32,
    offset: u64,
    addr: u64,
    in_file: u64,
    in_memory: u64,
    align: u64,
}

impl Header {
    const fn load(flags: u32, offset: u64, addr: u64, in_file: u64, in_memory: u64) -> Self {
        Self { kind: LOAD, flags, offset, addr, in_file, in_memory, align: 0x1000 }
    }
}

/// An ELF file with these program headers, and three pages behind them, each byte of which is the low byte of its place.
fn file(headers: &[Header]) -> Vec<u8> {
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = |bytes: &mut Vec<u8>, value: u16| bytes.extend(value.to_le_bytes());
    let word = |bytes: &mut Vec<u8>, value: u32| bytes.extend(value.to_le_bytes());
    let long = |bytes: &mut Vec<u8>, value: u64| bytes.extend(value.to_le_bytes());
    half(&mut bytes, 2);
    half(&mut bytes, 183);
    word(&mut bytes, 1);
    long(&mut bytes, 0x40_0010);
    long(&mut bytes, 64);
    long(&mut bytes, 0);
    word(&mut bytes, 0);
    half(&mut bytes, 64);
    half(&mut bytes, 56);
    half(&mut bytes, u16::try_from(headers.len()).unwrap());
    half(&mut bytes, 64);
    half(&mut bytes, 0);
    half(&mut bytes, 0);
    for header in headers {
        word(&mut bytes, header.kind);
        word(&mut bytes, header.flags);
        for value in [header.offset, header.addr, header.addr, header.in_file, header.in_memory, header.align] {
            long(&mut bytes, value);
        }
    }
    while bytes.len() < 3 * to_usize(PAGE_SIZE) {
        bytes.push(u8::try_from(bytes.len() % 256).unwrap());
    }
    bytes
}

/// Text, constants and data, the last with more memory than bytes.
const GOOD: [Header; 3] = [
    Header::load(R | X, 0, 0x40_0000, 0x800, 0x800),
    Header::load(R, 0x1000, 0x41_1000, 0x900, 0x900),
    Header::load(R | W, 0x2010, 0x42_2010, 0x20, 0x3000),
];

fn room() -> UserRange {
    UserRange::new(UserAddr::new(0x1_0000), UserAddr::new(0x7fff_0000_0000)).unwrap()
}

fn read(file: &[u8]) -> Result<Image<'_>, ElfError> {
    Image::new(file, room())
}

#[test]
fn a_program_is_read_as_its_headers_say() {
    let bytes = file(&GOOD);
    let image = read(&bytes).unwrap();
    assert_eq!(image.entry(), UserAddr::new(0x40_0010));
    let segments: Vec<_> = image.segments().collect();
    let ranges: Vec<_> = segments.iter().map(|one| (one.range.start().get(), one.range.end().get())).collect();
    assert_eq!(ranges, [(0x40_0000, 0x40_1000), (0x41_1000, 0x41_2000), (0x42_2000, 0x42_6000)]);
    let access: Vec<_> = segments.iter().map(|one| one.access).collect();
    assert_eq!(access, [VmFlags::READ | VmFlags::EXEC, VmFlags::READ, VmFlags::READ | VmFlags::WRITE]);
    assert_eq!((segments[2].start.get(), segments[2].bytes), (0x42_2010, &bytes[0x2010..0x2030]));
    assert_eq!(image.end(), UserAddr::new(0x42_6000));
}

/// The error for [`GOOD`] with one header changed.
fn refusal(number: usize, change: impl FnOnce(&mut Header)) -> Option<ElfError> {
    let mut headers = GOOD;
    change(headers.get_mut(number).unwrap());
    read(&file(&headers)).err()
}

#[test]
fn each_rule_has_its_own_refusal() {
    let data = UserAddr::new(0x42_2010);
    assert_eq!(refusal(2, |one| one.flags |= X), Some(ElfError::WriteExec(data)));
    assert_eq!(refusal(2, |one| one.in_memory = 0x1f), Some(ElfError::FileLarger(data)));
    assert_eq!(refusal(2, |one| one.offset = 0x2011), Some(ElfError::Misaligned(data)));
    assert_eq!(refusal(2, |one| one.align = 0x1800), Some(ElfError::Misaligned(data)));
    assert_eq!(refusal(2, |one| (one.in_file, one.in_memory) = (0x1000, 0x1000)), Some(ElfError::Truncated(data)));
    assert_eq!(refusal(2, |one| one.offset = u64::MAX - 0xfef), Some(ElfError::Truncated(data)));
    assert_eq!(refusal(2, |one| one.in_memory = u64::MAX), Some(ElfError::Wild(data)));
    assert_eq!(refusal(2, |one| one.in_memory = 1 << 47), Some(ElfError::Wild(data)));
    let kernel = 0xffff_8000_8000_0010;
    assert_eq!(refusal(2, |one| one.addr = kernel), Some(ElfError::Wild(UserAddr::new(kernel))));
    assert_eq!(refusal(2, |one| one.addr = 0x10), Some(ElfError::Wild(UserAddr::new(0x10))));
    // In the last page of the one before it, inside it, and below it.
    for addr in [0x41_1f10, 0x41_1010, 0x3f_0010] {
        let found = refusal(2, |one| (one.addr, one.offset) = (addr, 0x2000 + addr % 0x1000));
        assert!(matches!(found, Some(ElfError::Overlap(_))), "{addr:#x}: {found:?}");
    }
    // The entry point is no longer in the text.
    assert_eq!(refusal(0, |one| one.flags = R), Some(ElfError::Entry(UserAddr::new(0x40_0010))));
    assert_eq!(
        refusal(0, |one| (one.in_file, one.in_memory) = (8, 8)),
        Some(ElfError::Entry(UserAddr::new(0x40_0010)))
    );
    for (kind, error) in [(2, ElfError::Dynamic), (3, ElfError::Dynamic), (7, ElfError::ThreadLocal)] {
        assert_eq!(refusal(1, |one| one.kind = kind), Some(error));
    }
    assert_eq!(refusal(1, |one| (one.kind, one.flags) = (0x6474_e551, R | W | X)), Some(ElfError::ExecutableStack));
    assert_eq!(refusal(1, |one| (one.kind, one.flags) = (0x6474_e551, R | W)), None);
    assert_eq!(read(&file(&[])).err(), Some(ElfError::Nothing));
    let many: Vec<_> =
        (0..=MAX_SEGMENTS as u64).map(|n| Header::load(R | X, 0, 0x40_0000 + n * 0x1000, 0x800, 0x800)).collect();
    assert_eq!(read(&file(&many)).err(), Some(ElfError::TooMany));
    assert!(read(&file(&many[1..])).is_err_and(|error| matches!(error, ElfError::Entry(_))));
    assert!(read(&file(&many[..MAX_SEGMENTS])).is_ok());
}

#[test]
fn a_header_of_another_kind_is_named() {
    let with = |place: usize, value: u8| {
        let mut bytes = file(&GOOD);
        bytes[place] = value;
        read(&bytes).err()
    };
    assert_eq!(with(0, 0), Some(ElfError::NoElf));
    // 32 bits, big-endian, shared object, x86-64, an odd entry point.
    assert_eq!((with(4, 1).is_some(), with(5, 2)), (true, Some(ElfError::Format)));
    assert_eq!(with(16, 3), Some(ElfError::Kind(3)));
    assert_eq!(with(18, 62), Some(ElfError::Machine(62)));
    assert_eq!(with(24, 0x11), Some(ElfError::Entry(UserAddr::new(0x40_0011))));
    assert_eq!(with(54, 55), Some(ElfError::Damaged));
}

/// Whatever a file says, an image keeps the invariants of one.
fn keeps_the_rules(file: &[u8]) -> bool {
    let Ok(image) = read(file) else { return false };
    let mut last = room().start();
    for segment in image.segments() {
        assert!(room().contains_range(segment.range) && segment.range.start() >= last, "{segment:?}");
        assert!(segment.range.start().is_aligned(PAGE_SIZE) && segment.range.end().is_aligned(PAGE_SIZE));
        assert!(!segment.access.contains(VmFlags::WRITE | VmFlags::EXEC), "{segment:?}");
        let size = segment.bytes.len() as u64;
        let inside = UserRange::from_size(segment.start, size).is_some_and(|bytes| segment.range.contains_range(bytes));
        assert!(inside && segment.start.get() - segment.range.start().get() < PAGE_SIZE, "{segment:?}");
        last = segment.range.end();
    }
    let has_entry =
        image.segments().any(|segment| segment.access.contains(VmFlags::EXEC) && segment.range.contains(image.entry()));
    assert!(has_entry && image.end() == last);
    true
}

#[test]
fn no_flipped_byte_and_no_length_gets_past_the_rules() {
    let good = file(&GOOD);
    assert!(keeps_the_rules(&good));
    let headers = 64 + 3 * 56;
    let mut accepted = 0;
    for place in 0..headers {
        for value in 0..=u8::MAX {
            let mut bytes = good.clone();
            bytes[place] = value;
            accepted += usize::from(keeps_the_rules(&bytes));
        }
    }
    // Most bytes of the headers count.
    assert!(accepted > headers && accepted < headers * 256 / 2, "{accepted}");
    for length in 0..good.len() {
        let whole = length >= 0x2030;
        assert_eq!(keeps_the_rules(&good[..length]), whole, "{length} bytes");
    }
}

#[test]
fn no_two_flipped_fields_get_past_the_rules() {
    let good = file(&GOOD);
    let mut random: u64 = 0x71_6172_7279;
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..3 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // A whole field of a program header becomes something of any magnitude.
            let place = 64 + to_usize((random >> 33) % (3 * 7)) * 8;
            let value = (random | 1) >> (random >> 57 & 63);
            bytes[place..place + 8].copy_from_slice(&value.to_le_bytes());
        }
        keeps_the_rules(&bytes);
    }
}
