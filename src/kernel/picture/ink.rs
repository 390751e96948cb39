//! Colour, letter and name of a use of memory.
#![forbid(unsafe_code)]

/// How cells of one use are drawn, and the name that the legend gives them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ink {
    /// Letter where there are no colours, ASCII. A capital one becomes a small one in a cell that has other uses too.
    pub letter: u8,
    /// Number of the colour in a terminal's palette of 256.
    pub colour: u8,
    /// Name in the legend.
    pub name: &'static str,
}
