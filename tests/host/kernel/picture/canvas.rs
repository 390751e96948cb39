//! Cells and legend.

use proptest::prelude::*;
use quarry::kernel::picture::{Band, COLUMNS, Canvas, Ink, Legend, Style};

const INKS: [Ink; 4] = [
    Ink { letter: b'A', colour: 1, name: "first" },
    Ink { letter: b'B', colour: 2, name: "second" },
    Ink { letter: b'C', colour: 3, name: "third" },
    Ink { letter: b'.', colour: 4, name: "none of these" },
];

fn band(start: u64, end: u64) -> Band {
    Band { name: "band", start, end }
}

fn canvas(style: Style, bands: &[Band], lines: u64) -> Canvas<'static, 4> {
    Canvas::new(&INKS, style, bands.iter().copied(), lines, 4).unwrap()
}

fn drawn(canvas: &mut Canvas<'_, 4>) -> String {
    let mut text = String::new();
    canvas.draw(&mut text).unwrap();
    text
}

/// `text` without the control sequences of colours.
fn visible(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let mut visible = parts.next().unwrap().to_owned();
    for part in parts {
        let (code, rest) = part.split_once('m').unwrap();
        assert!(code.starts_with('[') && code[1..].chars().all(|c| c.is_ascii_digit() || c == ';'), "{code:?}");
        visible.push_str(rest);
    }
    visible
}

/// The cells of a plain picture, without names and addresses.
fn letters(text: &str) -> String {
    text.lines().filter(|line| line.starts_with("0x")).map(|line| &line[15..]).collect()
}

#[test]
fn a_cell_shows_the_use_of_most_of_it() {
    let mut canvas = canvas(Style::Plain, &[band(0, 4 * COLUMNS)], 1);
    assert_eq!(canvas.cell(), 4);
    canvas.paint(0, 4, 0);
    canvas.paint(4, 5, 0);
    canvas.paint(5, 8, 1);
    canvas.paint(8, 12, 3);
    canvas.paint(14, 18, 2);
    // Of two uses with as much the first.
    canvas.paint(18, 20, 1);
    canvas.paint(4 * COLUMNS - 1, 4 * COLUMNS, 1);
    let cells = letters(&drawn(&mut canvas));
    assert_eq!(cells, format!("Ab.Cb{}B", " ".repeat(58)));
}

#[test]
fn a_picture_of_several_bands_fits_its_lines() {
    let bands = [band(0x1003, 0x9000), band(0x9000, 0x9001), band(0x8000_0000, 0x9000_0000)];
    for style in [Style::Plain, Style::Colour] {
        for lines in [3, 4, 5, 10, 100] {
            let mut canvas = canvas(style, &bands, lines);
            bands.iter().for_each(|band| canvas.paint(band.start, band.end, 0));
            assert_eq!(canvas.sum(), 0x9000 - 0x1003 + 1 + 0x1000_0000);
            let text = drawn(&mut canvas);
            let cells = text.lines().filter(|line| line.starts_with("0x")).count() as u64;
            assert!(cells <= lines, "{cells} lines, not {lines}");
            assert_eq!(text.lines().count() as u64, cells + 3, "each band has its name");
        }
    }
    // More bands than lines: each has one.
    assert_eq!(drawn(&mut canvas(Style::Plain, &bands, 1)).lines().count(), 6);
    // Every address that there is.
    assert_eq!(drawn(&mut canvas(Style::Colour, &[band(0, u64::MAX)], 2)).lines().count(), 3);
}

#[test]
fn halves_are_drawn_one_above_the_other() {
    let mut canvas = canvas(Style::Colour, &[band(0, 8 * COLUMNS)], 1);
    assert_eq!(canvas.cell(), 4);
    canvas.paint(0, 12, 0);
    canvas.paint(4 * COLUMNS, 4 * COLUMNS + 4, 1);
    canvas.paint(4 * COLUMNS + 12, 4 * COLUMNS + 16, 2);
    let text = drawn(&mut canvas);
    let line = text.lines().nth(1).unwrap();
    let blank = " ".repeat(60);
    let cells = "\x1b[38;5;1m\x1b[48;5;2m▀\x1b[0m\x1b[38;5;1m▀▀\x1b[38;5;3m▄\x1b[0m";
    assert_eq!(line, format!("0x000000000000 {cells}{blank}"));
}

#[test]
fn the_legend_has_every_use_that_is_there_and_its_exact_amount() {
    let mut text = String::new();
    Legend { inks: &INKS, sums: &[3 << 20, 0, 4097, 1 << 50], style: Style::Plain }.draw(&mut text).unwrap();
    let entry = |letter: &str, name: &str, amount: &str| {
        format!("{letter}  {name}{}{amount}", " ".repeat(35 - name.len() - amount.len()))
    };
    let first = [entry("A", "first", "3072 KiB"), entry("C", "third", "4097 bytes")].join("   ");
    assert_eq!(text, format!("{first}\n{}\n", entry(".", "none of these", "1099511627776 KiB")));
}

proptest! {
    /// Against a byte map: sums, cells, width, and the bytes of a terminal without colours.
    #[test]
    fn painting_is_exact(
        ends in prop::collection::btree_set(1_u64..3000, 2..8),
        strokes in prop::collection::vec((0_u64..3100, 0_u64..700, 0_usize..4), 0..40),
        lines in 1_u64..6,
        is_plain: bool,
    ) {
        let style = if is_plain { Style::Plain } else { Style::Colour };
        let ends: Vec<u64> = ends.into_iter().collect();
        let bands: Vec<Band> = ends.chunks_exact(2).map(|pair| band(pair[0], pair[1])).collect();
        let mut canvas = canvas(style, &bands, lines);
        let mut model = vec![None; 4000];
        let mut painted = 0;
        for (start, size, ink) in strokes {
            canvas.paint(start, start + size, ink);
            for byte in start.max(painted)..start + size {
                if bands.iter().any(|band| band.start <= byte && byte < band.end) {
                    model[usize::try_from(byte).unwrap()] = Some(ink);
                }
            }
            painted = painted.max(start + size);
        }
        for (ink, known) in INKS.iter().enumerate() {
            let bytes = model.iter().filter(|painted| **painted == Some(ink)).count() as u64;
            prop_assert_eq!(canvas.sums()[ink], bytes, "{}", known.name);
        }
        let text = drawn(&mut canvas);
        if is_plain {
            prop_assert!(text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)), "{:?}", text);
        }
        let shown = visible(&text);
        prop_assert!(shown.lines().all(|line| line.chars().count() < 80), "{}", shown);
        if is_plain {
            let mut cells = Vec::new();
            for band in &bands {
                let line = canvas.cell() * COLUMNS;
                let first = band.start / line * line;
                let end = band.end.div_ceil(line) * line;
                for cell in (first..end).step_by(usize::try_from(canvas.cell()).unwrap()) {
                    let bytes: Vec<usize> = (cell.max(band.start)..(cell + canvas.cell()).min(band.end))
                        .filter_map(|byte| model[usize::try_from(byte).unwrap()])
                        .collect();
                    let count = |ink: usize| bytes.iter().filter(|found| **found == ink).count();
                    let most = (0..INKS.len()).rev().max_by_key(|ink| count(*ink)).unwrap();
                    let letter = INKS[most].letter;
                    cells.push(char::from(match count(most) {
                        0 => b' ',
                        some if some == bytes.len() => letter,
                        _ => letter.to_ascii_lowercase(),
                    }));
                }
            }
            prop_assert_eq!(letters(&shown), cells.into_iter().collect::<String>());
        }
    }
}
