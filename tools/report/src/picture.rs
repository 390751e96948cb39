//! The text of a console as an SVG: a terminal, with the sixteen colours and the 24-bit ones of its escape sequences.

use std::fmt::Write as _;

const ROWS: usize = 48;
const COLUMNS: usize = 120;
const INK: &str = "#c8ccd4";
const PALETTE: [&str; 16] = [
    "#3b4048", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#d7dae0", "#5c6370", "#ff8f98",
    "#b5e890", "#ffd98f", "#8cc8ff", "#dd9aff", "#7fdbe6", "#ffffff",
];

#[derive(Clone, PartialEq, Default)]
struct Look {
    ink: Option<String>,
    paper: Option<String>,
    bold: bool,
}

/// The lines from the first one with `from` in it on, up to before the first one behind with `to` in it.
pub fn picture(console: &str, from: &str, to: Option<&str>) -> Result<String, String> {
    let lines: Vec<&str> = console.lines().collect();
    let first =
        lines.iter().position(|line| line.contains(from)).ok_or(format!("the console does not show {from:?}"))?;
    let mut rows: Vec<Vec<(char, Look)>> = Vec::new();
    let mut look = Look::default();
    for line in &lines[first..] {
        if !rows.is_empty() && to.is_some_and(|to| line.contains(to)) {
            break;
        }
        let cells = cells(line, &mut look);
        if cells.is_empty() {
            rows.push(Vec::new());
        }
        rows.extend(cells.chunks(COLUMNS).map(<[(char, Look)]>::to_vec));
        if rows.len() >= ROWS {
            rows.truncate(ROWS);
            break;
        }
    }
    while rows.last().is_some_and(Vec::is_empty) {
        rows.pop();
    }
    let columns = rows.iter().map(Vec::len).max().unwrap_or(1).max(80);
    let (width, height) = (columns as f64 * 8.4 + 32.0, rows.len() as f64 * 18.0 + 28.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"ui-monospace,DejaVu Sans Mono,Menlo,Consolas,monospace\" \
         font-size=\"14\"><rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#1e2127\"/>\n"
    );
    for (number, row) in rows.iter().enumerate() {
        let y = 14.0 + number as f64 * 18.0;
        for (start, run) in runs(row) {
            let (x, wide) = (16.0 + start as f64 * 8.4, run.len() as f64 * 8.4);
            let look = &run[0].1;
            if let Some(paper) = &look.paper {
                let _ = write!(
                    out,
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"18.2\" fill=\"{paper}\"/>"
                );
            }
            if run.iter().any(|(letter, _)| block(*letter).is_some()) {
                blocks(&mut out, run, (x, y), look.ink.as_deref().unwrap_or(INK));
            }
            let text: String = run.iter().map(|(letter, _)| if block(*letter).is_some() { ' ' } else { *letter }).collect();
            if text.trim().is_empty() {
                continue;
            }
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let ink = look.ink.as_deref().unwrap_or(INK);
            let bold = if look.bold { " font-weight=\"bold\"" } else { "" };
            // With its length stated, columns stay in line whatever font there is.
            let _ = write!(
                out,
                "<text x=\"{x:.1}\" y=\"{:.1}\" textLength=\"{wide:.1}\" lengthAdjust=\"spacingAndGlyphs\" xml:space=\"preserve\" fill=\"{ink}\"{bold}>{text}</text>",
                y + 14.0
            );
        }
        out.push('\n');
    }
    Ok(out + "</svg>\n")
}

/// Upper edge and height of a letter that is a block, in a row of 18.
const fn block(letter: char) -> Option<(f64, f64)> {
    match letter {
        '█' => Some((0.0, 18.0)),
        '▀' => Some((0.0, 9.0)),
        '▄' => Some((9.0, 9.0)),
        '■' => Some((4.0, 10.0)),
        _ => None,
    }
}

/// Draws the blocks of a run as rectangles: fonts leave gaps between theirs.
fn blocks(out: &mut String, run: &[(char, Look)], (x, y): (f64, f64), ink: &str) {
    let mut at = x;
    for same in run.chunk_by(|one, next| one.0 == next.0) {
        let wide = same.len() as f64 * 8.4;
        if let Some((from, high)) = block(same[0].0) {
            let _ = write!(
                out,
                "<rect x=\"{at:.1}\" y=\"{:.1}\" width=\"{wide:.1}\" height=\"{high}\" fill=\"{ink}\" shape-rendering=\"crispEdges\"/>",
                y + from
            );
        }
        at += wide;
    }
}

/// Neighbours of one look, with the column of the first.
fn runs(row: &[(char, Look)]) -> Vec<(usize, &[(char, Look)])> {
    let mut start = 0;
    row.chunk_by(|one, next| one.1 == next.1)
        .map(|run| {
            let at = start;
            start += run.len();
            (at, run)
        })
        .collect()
}

fn cells(line: &str, look: &mut Look) -> Vec<(char, Look)> {
    let mut cells = Vec::new();
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        if letter != '\u{1b}' {
            if !letter.is_control() {
                cells.push((letter, look.clone()));
            }
            continue;
        }
        if letters.next() != Some('[') {
            continue;
        }
        let mut codes = String::new();
        let end = letters.by_ref().find(|letter| {
            codes.push(*letter);
            letter.is_ascii_alphabetic()
        });
        codes.pop();
        if end == Some('m') {
            apply(&codes, look);
        }
    }
    cells
}

fn apply(codes: &str, look: &mut Look) {
    let mut codes = codes.split(';').map(|code| code.parse::<usize>().unwrap_or(0));
    while let Some(code) = codes.next() {
        match code {
            0 => *look = Look::default(),
            1 => look.bold = true,
            30..=37 => look.ink = Some(PALETTE[code - 30].to_owned()),
            90..=97 => look.ink = Some(PALETTE[code - 82].to_owned()),
            40..=47 => look.paper = Some(PALETTE[code - 40].to_owned()),
            100..=107 => look.paper = Some(PALETTE[code - 92].to_owned()),
            39 => look.ink = None,
            49 => look.paper = None,
            38 | 48 => {
                let color = match codes.next() {
                    Some(5) => codes.next().map(indexed),
                    Some(2) => {
                        let (r, g, b) = (codes.next(), codes.next(), codes.next());
                        r.zip(g).zip(b).map(|((r, g), b)| format!("#{r:02x}{g:02x}{b:02x}"))
                    }
                    _ => None,
                };
                if code == 38 { look.ink = color } else { look.paper = color }
            }
            _ => {}
        }
    }
}

/// The colour of a number of the 256.
fn indexed(number: usize) -> String {
    match number {
        0..16 => PALETTE[number].to_owned(),
        16..232 => {
            let level = |part: usize| if part == 0 { 0 } else { 55 + part * 40 };
            let at = number - 16;
            format!("#{:02x}{:02x}{:02x}", level(at / 36), level(at / 6 % 6), level(at % 6))
        }
        _ => {
            let grey = 8 + (number.min(255) - 232) * 10;
            format!("#{grey:02x}{grey:02x}{grey:02x}")
        }
    }
}
