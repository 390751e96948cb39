//! The boot arguments: `name=value` words and flags, as the loader put them in `/chosen/bootargs`.
#![forbid(unsafe_code)]

/// The words of a command line. Unknown words are somebody else's business.
#[derive(Clone, Copy, Debug)]
pub struct BootArgs<'a>(&'a str);

impl<'a> BootArgs<'a> {
    /// Reads `text`, words separated by blanks.
    #[must_use]
    pub const fn new(text: &'a str) -> Self {
        Self(text)
    }

    /// The whole line.
    #[must_use]
    pub const fn text(self) -> &'a str {
        self.0
    }

    /// Whether the word `name` stands alone in the line.
    #[must_use]
    pub fn flag(self, name: &str) -> bool {
        self.0.split_ascii_whitespace().any(|word| word == name)
    }

    /// The value of the last `name=value`.
    #[must_use]
    pub fn value(self, name: &str) -> Option<&'a str> {
        self.0.split_ascii_whitespace().rev().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    /// The value of the last `name=SIZE` in bytes: decimal or `0x…`, with an optional `K`, `M`, `G` or `T`.
    ///
    /// # Errors
    ///
    /// The text of a value that is no size.
    pub fn size(self, name: &str) -> Result<Option<u64>, &'a str> {
        self.value(name).map(|text| parse_size(text).ok_or(text)).transpose()
    }
}

/// A number of bytes: decimal or `0x…`, with an optional `K`, `M`, `G` or `T` (powers of 1024). `None` for anything else
/// and for what does not fit 64 bits.
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

/// A number, decimal or `0x…` (underscores allowed).
#[must_use]
pub fn parse_number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None => (text, 10),
    };
    if digits.is_empty() {
        return None;
    }
    digits.bytes().filter(|&byte| byte != b'_').try_fold(0_u64, |number, byte| {
        let digit = char::from(byte).to_digit(radix)?;
        number.checked_mul(u64::from(radix))?.checked_add(u64::from(digit))
    })
}
