//! The boot arguments: `name=value` words and flags, as the loader put them in `/chosen/bootargs`.
//!
//! Words are split as Linux splits them (`lib/cmdline.c`, `kernel/params.c`): at blanks, but not inside double quotes, which
//! may enclose a value or a whole word and are not part of it; `-` and `_` in a name are the same; the words after `--` are for
//! the first process.
#![forbid(unsafe_code)]

use crate::addr::PhysAddr;
use crate::mm::memblock::ContiguousRequest;
use core::fmt;

/// Type of an argument's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Bytes: see [`parse_size`].
    Size,
    /// See [`parse_number`].
    Number,
    /// See [`parse_place`].
    Place,
    /// See [`parse_switch`].
    Switch,
    /// The form of reports: `text`, or `json` for a line of JSON behind each.
    Form,
    /// No value.
    Flag,
}

/// Every argument whose value is of one of these kinds. Those that are a language of their own (`slab_debug=`, `fail_…=`,
/// `log=`, `loglevel=`) are refused, where they have to be, by who reads them. `mem=` with a wrong value ends booting.
pub const ARGUMENTS: [(&str, Kind); 27] = [
    ("mem", Kind::Size),
    ("vmalloc", Kind::Size),
    ("dma_zone", Kind::Size),
    ("coherent_pool", Kind::Size),
    ("cma", Kind::Place),
    ("dma_debug", Kind::Number),
    ("swiotlb", Kind::Number),
    ("maxcpus", Kind::Number),
    ("min_free_kbytes", Kind::Number),
    ("watermark_scale_factor", Kind::Number),
    ("watermark_boost_factor", Kind::Number),
    ("kasan.stack_ring_size", Kind::Number),
    ("kasan", Kind::Switch),
    ("init_on_alloc", Kind::Switch),
    ("init_on_free", Kind::Switch),
    ("page_poison", Kind::Switch),
    ("debug_pagealloc", Kind::Switch),
    ("panic_on_warn", Kind::Switch),
    ("report", Kind::Form),
    ("lines", Kind::Number),
    ("columns", Kind::Number),
    ("ktest.resume", Kind::Flag),
    ("no_color", Kind::Flag),
    ("nosmp", Kind::Flag),
    ("quarry.batch", Kind::Flag),
    ("quarry.tour", Kind::Flag),
    ("semihosting", Kind::Flag),
];

/// A word of the line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word<'a> {
    /// As it stands, without quotes around the whole.
    pub text: &'a str,
    /// The part before the first `=`, or all of it.
    pub name: &'a str,
    /// The part behind the first `=`, without quotes around it.
    pub value: Option<&'a str>,
}

/// The words of a command line. Unknown words are left to other readers.
#[derive(Clone, Copy)]
pub struct BootArgs<'a>(&'a [u8]);

/// A part of the line that is ignored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Complaint<'a> {
    /// A word is not UTF-8.
    NotText(&'a [u8]),
    /// The value of an argument is not of its kind.
    BadValue(Word<'a>, Kind),
    /// An argument lacks its value.
    NoValue(Word<'a>, Kind),
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Size => "a size (a number, and K, M, G or T)",
            Self::Number => "a number",
            Self::Place => "SIZE, SIZE@START or SIZE@START-END",
            Self::Switch => "on or off",
            Self::Form => "text or json",
            Self::Flag => "nothing",
        }
    }

    fn accepts(self, value: &str) -> bool {
        match self {
            Self::Size => parse_size(value).is_some(),
            Self::Number => parse_number(value).is_some(),
            Self::Place => parse_place(value).is_some(),
            Self::Switch => parse_switch(value).is_some(),
            Self::Form => matches!(value, "text" | "json"),
            Self::Flag => false,
        }
    }
}

impl fmt::Display for Complaint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotText(word) => write!(f, "boot argument \"{}\" is no text: not heard", word.escape_ascii()),
            Self::BadValue(word, Kind::Flag) => {
                write!(f, "boot argument {} takes no value: not heard", word.text.escape_debug())
            }
            Self::BadValue(word, kind) | Self::NoValue(word, kind) => {
                write!(f, "boot argument {} has to be {}: not heard", word.text.escape_debug(), kind.name())
            }
        }
    }
}

impl fmt::Display for BootArgs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            write!(f, "{}{}", chunk.valid(), chunk.invalid().escape_ascii())?;
        }
        Ok(())
    }
}

impl fmt::Debug for BootArgs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl<'a> BootArgs<'a> {
    /// Reads `line`, up to its first NUL.
    #[must_use]
    pub fn new(line: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        let line = line.as_ref();
        Self(line.split(|&byte| byte == 0).next().unwrap_or_default())
    }

    /// Whether there is no word.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.trim_ascii().is_empty()
    }

    /// The words that are text, in order.
    pub fn words(self) -> impl Iterator<Item = Word<'a>> {
        self.pieces().filter_map(Word::new)
    }

    /// Whether the line has the word `name` without a value.
    #[must_use]
    pub fn flag(self, name: &str) -> bool {
        self.words().any(|word| word.value.is_none() && is_name(word.name, name))
    }

    /// The value of the last `name=value`.
    #[must_use]
    pub fn value(self, name: &str) -> Option<&'a str> {
        self.values(name).last()
    }

    /// The value of the last `name=SIZE` in bytes: see [`parse_size`].
    ///
    /// # Errors
    ///
    /// The text of the last value, if it is not a size.
    pub fn size(self, name: &str) -> Result<Option<u64>, &'a str> {
        self.value(name).map(|text| parse_size(text).ok_or(text)).transpose()
    }

    /// The last valid `name=SIZE`, in bytes.
    #[must_use]
    pub fn any_size(self, name: &str) -> Option<u64> {
        self.values(name).filter_map(parse_size).last()
    }

    /// The last valid `name=NUMBER`.
    #[must_use]
    pub fn number(self, name: &str) -> Option<u64> {
        self.values(name).filter_map(parse_number).last()
    }

    /// The last `name=SIZE[@START[-END]]` that is one.
    #[must_use]
    pub fn place(self, name: &str) -> Option<ContiguousRequest> {
        self.values(name).filter_map(parse_place).last()
    }

    /// The last `name=on` or `name=off`; without one, off.
    #[must_use]
    pub fn switch(self, name: &str) -> bool {
        self.values(name).filter_map(parse_switch).last().unwrap_or(false)
    }

    /// Whether the last `name=text` or `name=json` says JSON; without one, text.
    #[must_use]
    pub fn json(self, name: &str) -> bool {
        self.values(name).filter(|value| Kind::Form.accepts(value)).last() == Some("json")
    }

    /// Parts of the line that are ignored.
    pub fn complaints(self) -> impl Iterator<Item = Complaint<'a>> {
        self.pieces().filter_map(|piece| {
            let Some(word) = Word::new(piece) else { return Some(Complaint::NotText(piece)) };
            let (_, kind) = *ARGUMENTS.iter().find(|(name, _)| is_name(word.name, name))?;
            match word.value {
                None if kind == Kind::Flag => None,
                None => Some(Complaint::NoValue(word, kind)),
                Some(value) if kind.accepts(value) || is_name(word.name, "mem") => None,
                Some(_) => Some(Complaint::BadValue(word, kind)),
            }
        })
    }

    fn values(self, name: &str) -> impl Iterator<Item = &'a str> {
        self.words().filter(move |word| is_name(word.name, name)).filter_map(|word| word.value)
    }

    /// The words as they stand, with their quotes, up to `--`.
    fn pieces(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.0;
        let pieces = core::iter::from_fn(move || {
            rest = rest.trim_ascii_start();
            let mut quoted = false;
            let end = rest.iter().position(|&byte| {
                quoted ^= byte == b'"';
                byte.is_ascii_whitespace() && !quoted
            });
            let (piece, behind) = rest.split_at(end.unwrap_or(rest.len()));
            rest = behind;
            (!piece.is_empty()).then_some(piece)
        });
        pieces.take_while(|piece| *piece != b"--")
    }
}

impl<'a> Word<'a> {
    /// Decodes the word `piece`; `None` if it is not UTF-8.
    fn new(piece: &'a [u8]) -> Option<Self> {
        let text = without_quotes(core::str::from_utf8(piece).ok()?);
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(without_quotes(value))),
            None => (text, None),
        };
        Some(Self { text, name, value })
    }
}

/// `text` without the quotes around it; a missing one at the end is accepted.
fn without_quotes(text: &str) -> &str {
    text.strip_prefix('"').map_or(text, |inside| inside.strip_suffix('"').unwrap_or(inside))
}

/// Whether a word is called `name`, in which `-` and `_` are the same.
fn is_name(word: &str, name: &str) -> bool {
    let dash = |byte: u8| if byte == b'-' { b'_' } else { byte };
    word.len() == name.len() && word.bytes().map(dash).eq(name.bytes().map(dash))
}

/// A number of bytes: decimal or `0x…`, with an optional `K`, `M`, `G` or `T` (powers of 1024). `None` for anything else, and
/// for a number that does not fit 64 bits.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (text.get(..text.len() - 1)?, 10),
        b'm' | b'M' => (text.get(..text.len() - 1)?, 20),
        b'g' | b'G' => (text.get(..text.len() - 1)?, 30),
        b't' | b'T' => (text.get(..text.len() - 1)?, 40),
        _ => (text, 0),
    };
    parse_number(digits)?.checked_mul(1 << shift)
}

/// How many bytes, and where (Linux: `cma=`): `SIZE`, `SIZE@START` for one place, `SIZE@START-END` for somewhere in a range.
/// `None` for anything else, and for an end that is not behind the start.
#[must_use]
pub fn parse_place(text: &str) -> Option<ContiguousRequest> {
    let (size, place) = text.split_once('@').map_or((text, None), |(size, place)| (size, Some(place)));
    let size = parse_size(size)?;
    let Some(place) = place else { return Some(ContiguousRequest { size, start: None, end: None }) };
    let (start, end) = place.split_once('-').map_or((place, None), |(start, end)| (start, Some(end)));
    let start = parse_size(start)?;
    let end = end.map(|end| parse_size(end).filter(|end| *end > start).ok_or(())).transpose().ok()?;
    Some(ContiguousRequest { size, start: Some(PhysAddr::new(start)), end: end.map(PhysAddr::new) })
}

/// A number, decimal or `0x…`; an underscore may stand between two digits. `None` for anything else and for what does not
/// fit 64 bits.
#[must_use]
pub fn parse_number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None => (text, 10),
    };
    digits.split('_').try_fold(0, |number: u64, group| {
        if group.is_empty() {
            return None;
        }
        group.chars().try_fold(number, |number, digit| {
            number.checked_mul(u64::from(radix))?.checked_add(u64::from(digit.to_digit(radix)?))
        })
    })
}

/// On or off, in Linux's words (`kstrtobool`). `None` for anything else.
#[must_use]
pub fn parse_switch(text: &str) -> Option<bool> {
    match text {
        "1" | "y" | "Y" | "t" | "T" | "on" | "On" | "ON" => Some(true),
        "0" | "n" | "N" | "f" | "F" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}
