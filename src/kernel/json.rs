//! JSON text (RFC 8259) that is written as it comes: nothing is collected, so that a report needs no memory for it.
#![forbid(unsafe_code)]

use core::fmt::{self, Display, Write};

/// A value as a JSON string, of the text that it prints.
#[derive(Clone, Copy, Debug)]
pub struct Text<T>(pub T);

impl<T: Display> Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        write!(Escaped(f), "{}", self.0)?;
        f.write_char('"')
    }
}

/// Writes the inside of a string.
struct Escaped<'o>(&'o mut dyn Write);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|letter| self.write_char(letter))
    }

    fn write_char(&mut self, letter: char) -> fmt::Result {
        match letter {
            '"' | '\\' => write!(self.0, "\\{letter}"),
            '\n' => self.0.write_str("\\n"),
            // A line of JSON stays one line, also for readers that end lines at U+2028 or U+0085.
            _ if letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}') => {
                write!(self.0, "\\u{:04x}", u32::from(letter))
            }
            _ => self.0.write_char(letter),
        }
    }
}

/// An object that is being written. Each error is one of the writer.
pub struct Object<'o> {
    out: &'o mut dyn Write,
    any: bool,
}

/// An array that is being written. Each error is one of the writer.
pub struct Array<'o> {
    out: &'o mut dyn Write,
    any: bool,
}

impl<'o> Object<'o> {
    /// Begins an object.
    ///
    /// # Errors
    ///
    /// Those of `out`, as in every function here.
    pub fn begin(out: &'o mut dyn Write) -> Result<Self, fmt::Error> {
        out.write_char('{')?;
        Ok(Self { out, any: false })
    }

    fn name(&mut self, name: &str) -> fmt::Result {
        separate(self.out, &mut self.any)?;
        write!(self.out, "{}:", Text(name))
    }

    /// Adds a string, of the text that `value` prints.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn text(&mut self, name: &str, value: impl Display) -> fmt::Result {
        self.name(name)?;
        write!(self.out, "{}", Text(value))
    }

    /// Adds a number.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn number(&mut self, name: &str, value: u64) -> fmt::Result {
        self.name(name)?;
        write!(self.out, "{value}")
    }

    /// Adds an object, which `fill` fills.
    ///
    /// # Errors
    ///
    /// Those of the writer and of `fill`.
    pub fn object(&mut self, name: &str, fill: impl FnOnce(&mut Object<'_>) -> fmt::Result) -> fmt::Result {
        self.name(name)?;
        let mut inside = Object::begin(self.out)?;
        fill(&mut inside)?;
        inside.end()
    }

    /// Adds an array, which `fill` fills.
    ///
    /// # Errors
    ///
    /// Those of the writer and of `fill`.
    pub fn array(&mut self, name: &str, fill: impl FnOnce(&mut Array<'_>) -> fmt::Result) -> fmt::Result {
        self.name(name)?;
        let mut inside = Array::begin(self.out)?;
        fill(&mut inside)?;
        inside.end()
    }

    /// Ends the object.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn end(self) -> fmt::Result {
        self.out.write_char('}')
    }
}

impl<'o> Array<'o> {
    fn begin(out: &'o mut dyn Write) -> Result<Self, fmt::Error> {
        out.write_char('[')?;
        Ok(Self { out, any: false })
    }

    /// Adds a string, of the text that `value` prints.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn text(&mut self, value: impl Display) -> fmt::Result {
        separate(self.out, &mut self.any)?;
        write!(self.out, "{}", Text(value))
    }

    /// Adds the string that `write` writes, unless it writes nothing.
    ///
    /// # Errors
    ///
    /// Those of the writer and of `write`.
    pub fn text_if_any(&mut self, write: impl FnOnce(&mut dyn Write) -> fmt::Result) -> fmt::Result {
        let mut late = Late { array: self, begun: false };
        let written = write(&mut late);
        if late.begun {
            // Also behind an error, so that the line can be read up to there.
            self.out.write_char('"')?;
        }
        written
    }

    /// Adds a number.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn number(&mut self, value: u64) -> fmt::Result {
        separate(self.out, &mut self.any)?;
        write!(self.out, "{value}")
    }

    /// Adds an object, which `fill` fills.
    ///
    /// # Errors
    ///
    /// Those of the writer and of `fill`.
    pub fn object(&mut self, fill: impl FnOnce(&mut Object<'_>) -> fmt::Result) -> fmt::Result {
        separate(self.out, &mut self.any)?;
        let mut inside = Object::begin(self.out)?;
        fill(&mut inside)?;
        inside.end()
    }

    fn end(self) -> fmt::Result {
        self.out.write_char(']')
    }
}

/// Begins a string of an array with its first text.
struct Late<'a, 'o> {
    array: &'a mut Array<'o>,
    begun: bool,
}

impl Write for Late<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !self.begun && !text.is_empty() {
            self.begun = true;
            separate(self.array.out, &mut self.array.any)?;
            self.array.out.write_char('"')?;
        }
        Escaped(self.array.out).write_str(text)
    }
}

fn separate(out: &mut dyn Write, any: &mut bool) -> fmt::Result {
    if core::mem::replace(any, true) { out.write_char(',') } else { Ok(()) }
}

impl fmt::Debug for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Object")
    }
}

impl fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Array")
    }
}
