//! A drawing of boxes and text as SVG, written by hand: the pictures are simple, and their text must stay the same from run
//! to run.

use std::fmt::Write as _;

/// Colours by meaning, light enough for black text.
#[derive(Clone, Copy)]
pub(super) enum Fill {
    White,
    Grey,
    Blue,
    Green,
    Yellow,
    Orange,
    Violet,
}

impl Fill {
    const fn name(self) -> &'static str {
        match self {
            Self::White => "#ffffff",
            Self::Grey => "#ececec",
            Self::Blue => "#bcd7ee",
            Self::Green => "#cfe3c8",
            Self::Yellow => "#f0e6c8",
            Self::Orange => "#f4d9b0",
            Self::Violet => "#d9d2ec",
        }
    }
}

/// Where a text stands relative to its point.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A picture under construction, in pixels from the upper left corner.
pub(super) struct Svg {
    body: String,
    width: u32,
    height: u32,
}

impl Svg {
    pub(super) fn new(width: u32, height: u32, title: &str) -> Self {
        let mut svg = Self { body: String::new(), width, height };
        svg.text(16, 24, Anchor::Start, true, title);
        svg
    }

    pub(super) fn rect(&mut self, x: u32, y: u32, width: u32, height: u32, fill: Fill) {
        let fill = fill.name();
        let _ = writeln!(
            self.body,
            r##"  <rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}" stroke="#333"/>"##
        );
    }

    pub(super) fn line(&mut self, (x1, y1): (u32, u32), (x2, y2): (u32, u32)) {
        let _ = writeln!(self.body, r##"  <line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#333"/>"##);
    }

    pub(super) fn text(&mut self, x: u32, y: u32, anchor: Anchor, bold: bool, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let weight = if bold { r#" font-weight="bold""# } else { "" };
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let _ = writeln!(self.body, r#"  <text x="{x}" y="{y}" text-anchor="{anchor}"{weight}>{text}</text>"#);
    }

    /// A box with a text in its middle.
    pub(super) fn labelled(&mut self, x: u32, y: u32, width: u32, height: u32, fill: Fill, text: &str) {
        self.rect(x, y, width, height, fill);
        self.text(x + width / 2, y + height / 2 + 4, Anchor::Middle, false, text);
    }

    pub(super) fn finish(self) -> String {
        let Self { body, width, height } = self;
        format!(
            "<!-- Made by tests/host/pictures from the code's own constants; QUARRY_BLESS=1 makes it anew. -->\n\
             <svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             font-family=\"ui-monospace, Menlo, Consolas, monospace\" font-size=\"12\" fill=\"#111\">\n  \
             <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n{body}</svg>\n"
        )
    }
}
