//! The charts. Each is drawn by `plotters` in stand-in colours, for which the page's style has the real ones, light and dark.

use crate::record::{Record, free_pages, number, numbers, text};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

const WIDTH: u32 = 960;
const INK: RGBColor = RGBColor(1, 1, 1);
const MUTED: RGBColor = RGBColor(2, 2, 2);
const LINE: RGBColor = RGBColor(3, 3, 3);
/// Stand-ins of the colours of series: the style has `--c0` to `--c9`.
const SERIES: [RGBColor; 10] = [
    RGBColor(16, 0, 0),
    RGBColor(16, 1, 0),
    RGBColor(16, 2, 0),
    RGBColor(16, 3, 0),
    RGBColor(16, 4, 0),
    RGBColor(16, 5, 0),
    RGBColor(16, 6, 0),
    RGBColor(16, 7, 0),
    RGBColor(16, 8, 0),
    RGBColor(16, 9, 0),
];

/// Kinds of a block by its letter: name, and the number of its colour.
pub const KINDS: [(char, &str, usize); 11] = [
    ('.', "free", 9),
    ('b', "pages", 0),
    ('s', "slab", 1),
    ('k', "large kmalloc", 2),
    ('v', "vmalloc", 3),
    ('t', "page tables", 4),
    ('u', "user", 5),
    ('d', "DMA", 6),
    ('c', "per CPU", 7),
    ('r', "reserved", 8),
    ('-', "no RAM", 8),
];

fn svg(height: u32, label: &str, draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String, String> {
    let mut out = String::new();
    {
        let area = SVGBackend::with_string(&mut out, (WIDTH, height)).into_drawing_area();
        draw(&area).and_then(|()| Ok(area.present()?)).map_err(|error| format!("{label}: {error}"))?;
    }
    for (color, name) in [(INK, "ink"), (MUTED, "muted"), (LINE, "line")] {
        out = out.replace(&hex(color), &format!("var(--{name})"));
    }
    for (number, color) in SERIES.iter().enumerate() {
        out = out.replace(&hex(*color), &format!("var(--c{number})"));
    }
    // Scales with the page, and is read out.
    Ok(out.replacen("<svg width=", &format!("<svg role=\"img\" aria-label=\"{label}\" data-width="), 1).replacen(
        " height=",
        " data-height=",
        1,
    ))
}

fn hex(RGBColor(r, g, b): RGBColor) -> String {
    format!("#{r:02X}{g:02X}{b:02X}")
}

fn font(color: RGBColor, at: HPos) -> TextStyle<'static> {
    ("sans-serif", 13).into_font().color(&color).pos(Pos::new(at, VPos::Center))
}

fn put(area: &Area<'_>, text: &str, x: i32, y: i32, color: RGBColor, at: HPos) -> Drawn {
    Ok(area.draw(&Text::new(text.to_owned(), (x, y), font(color, at)))?)
}

fn bar(area: &Area<'_>, from: (i32, i32), to: (i32, i32), color: usize) -> Drawn {
    Ok(area.draw(&Rectangle::new([from, to], SERIES[color].filled()))?)
}

/// The kind of each block over the rounds: time to the right, addresses upwards.
pub fn memory(record: &Record) -> Result<String, String> {
    let rounds: Vec<&str> = record.of("blocks").map(|line| text(line, "kinds")).collect();
    let blocks = rounds.iter().map(|kinds| kinds.len()).max().unwrap_or(1).max(1) as i32;
    let (left, top) = (90, 8);
    let cell = (420 / blocks).clamp(2, 9);
    let width = ((WIDTH as i32 - left - 10) / rounds.len().max(1) as i32).max(2);
    svg((top + blocks * cell + 30) as u32, "physical memory over time", |area| {
        for (round, kinds) in rounds.iter().enumerate() {
            for (block, kind) in kinds.chars().enumerate() {
                let color = KINDS.iter().find(|(letter, ..)| *letter == kind).map_or(8, |(.., color)| *color);
                let (x, y) = (left + round as i32 * width, top + (blocks - 1 - block as i32) * cell);
                bar(area, (x, y), (x + width - 1, y + cell - 1), color)?;
            }
        }
        let bytes = record.machine("block_bytes") >> 20;
        put(area, &format!("{} MiB", bytes * blocks as u64), left - 8, top + 8, MUTED, HPos::Right)?;
        put(area, "lowest RAM", left - 8, top + blocks * cell - 8, MUTED, HPos::Right)?;
        let bottom = top + blocks * cell + 14;
        put(area, "before", left, bottom, MUTED, HPos::Left)?;
        let last = left + rounds.len() as i32 * width;
        put(area, "all given back", last, bottom, MUTED, HPos::Right)?;
        put(area, "rounds of the stress →", (left + last) / 2, bottom, MUTED, HPos::Center)
    })
}

/// The orders whose lines are shown.
pub const ORDERS: [usize; 5] = [1, 3, 5, 7, 9];

/// The zone that has the most free pages at first.
pub fn largest_zone(record: &Record) -> String {
    let first = record.of("free").filter(|line| number(line, "round") == 0);
    first.max_by_key(|line| free_pages(line)).map_or("", |line| text(line, "zone")).to_owned()
}

/// Free memory that a request of an order cannot use, over the rounds.
pub fn fragmentation(record: &Record, zone: &str) -> Result<String, String> {
    let lines = record.of_zone(zone);
    let rounds = lines.len().max(2) as u64 - 1;
    svg(300, "fragmentation by order", |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(34)
            .y_label_area_size(56)
            .build_cartesian_2d(0..rounds, 0.0..100.0)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(LINE)
            .light_line_style(TRANSPARENT)
            .axis_style(LINE)
            .y_labels(5)
            .x_labels(10)
            .label_style(font(MUTED, HPos::Center))
            .x_desc("round")
            .y_desc("% of free memory")
            .axis_desc_style(("sans-serif", 13).into_font().color(&MUTED))
            .draw()?;
        for (series, order) in ORDERS.iter().enumerate() {
            let points = lines.iter().enumerate().map(|(round, line)| {
                (round as u64, numbers(line, "unusable").get(*order).copied().unwrap_or(0) as f64 / 10.0)
            });
            chart.draw_series(LineSeries::new(points, SERIES[series].stroke_width(2)))?;
        }
        Ok(())
    })
}

/// A row of horizontal bars: name, parts with colours, and the text behind.
struct Row {
    name: String,
    parts: Vec<(u64, usize)>,
    note: String,
}

fn rows(label: &str, rows: impl Iterator<Item = Row>, logarithmic: bool) -> Result<String, String> {
    let rows: Vec<Row> = rows.collect();
    let scale = |value: u64| if logarithmic { (value as f64 + 1.0).log2() } else { value as f64 };
    let total = |row: &Row| scale(row.parts.iter().map(|(value, _)| value).sum());
    let most = rows.iter().map(total).fold(1.0, f64::max);
    let (left, right, height) = (190, 260, 24);
    svg((rows.len() as i32 * height + 12) as u32, label, |area| {
        for (number, row) in rows.iter().enumerate() {
            let y = 6 + number as i32 * height;
            put(area, &row.name, left - 10, y + height / 2, INK, HPos::Right)?;
            let room = f64::from(WIDTH as i32 - left - right);
            let (mut sum, mut x) = (0, left);
            for (value, color) in &row.parts {
                sum += value;
                let end = left + (scale(sum) / most * room) as i32;
                if end > x {
                    bar(area, (x, y + 4), (end, y + height - 4), *color)?;
                }
                x = end.max(x);
            }
            put(area, &row.note, x + 8, y + height / 2, MUTED, HPos::Left)?;
        }
        Ok(())
    })
}

/// The regions of the address map, by the logarithm of their sizes.
pub fn address_map(record: &Record) -> Result<String, String> {
    let regions =
        record.of("address_map").next().and_then(|line| line["regions"].as_array()).cloned().unwrap_or_default();
    let address = |line: &serde_json::Value, name| {
        u64::from_str_radix(text(line, name).trim_start_matches("0x"), 16).unwrap_or(0)
    };
    let row = |region: &serde_json::Value| {
        let size = address(region, "end").saturating_sub(address(region, "start"));
        Row {
            name: text(region, "name").to_owned(),
            parts: vec![(size >> 12, 0)],
            note: format!("{} from {}", bytes(size), text(region, "start")),
        }
    };
    rows("address map", regions.iter().map(row), true)
}

/// The caches with the most memory: objects in use, and free ones.
pub fn slabs(record: &Record) -> Result<String, String> {
    let mut caches: Vec<_> = record.of("cache").filter(|line| number(line, "pages") != 0).collect();
    caches.sort_by_key(|line| std::cmp::Reverse(number(line, "pages")));
    let row = |line: &serde_json::Value| {
        let (active, objects, size) = (number(line, "active"), number(line, "objects"), number(line, "object_bytes"));
        let (memory, slabs) = (bytes(number(line, "pages") << 12), number(line, "slabs"));
        Row {
            name: text(line, "name").to_owned(),
            parts: vec![(active * size, 1), (objects.saturating_sub(active) * size, 9)],
            note: format!("{active} of {objects}, {memory} in {slabs} slabs"),
        }
    };
    rows("occupancy of the slabs", caches.into_iter().take(16).map(row), false)
}

/// The calls: name in the record, and the number of its colour.
pub const CALLS: [(&str, usize); 4] = [("kmalloc", 1), ("pages", 0), ("vmalloc", 3), ("refused", 2)];

fn color_of(call: &str) -> usize {
    CALLS.iter().find(|(name, _)| *name == call).map_or(8, |(_, color)| *color)
}

/// The calls of each CPU.
pub fn cpus(record: &Record) -> Result<String, String> {
    let row = |line: &serde_json::Value| {
        let share = (number(line, "busy_ticks") * 100).checked_div(number(line, "ticks")).unwrap_or(0);
        Row {
            name: format!("CPU {}", number(line, "cpu")),
            parts: CALLS.iter().map(|(name, color)| (number(line, name), *color)).collect(),
            note: format!("{} frees, {share} % of its time in calls", number(line, "frees")),
        }
    };
    rows("calls of each CPU", record.of("cpu").map(row), false)
}

/// How long allocations took: a group of bars for each class of durations.
pub fn latency(record: &Record) -> Result<String, String> {
    let per_tick = 1e9 / record.machine("ticks_per_second").max(1) as f64;
    let calls: Vec<(String, Vec<u64>)> =
        record.of("latency").map(|line| (text(line, "call").to_owned(), numbers(line, "classes"))).collect();
    let used = |class: &usize| calls.iter().any(|(_, row)| row.get(*class).is_some_and(|count| *count != 0));
    let (first, last) = ((0..32).find(used).unwrap_or(0), (0..32).rev().find(used).unwrap_or(0));
    let most = calls.iter().flat_map(|(_, row)| row).copied().max().unwrap_or(1).max(1) as f64;
    svg(300, "duration of allocations", |area| {
        let (left, bottom, height) = (60, 250, 230.0);
        let step = (WIDTH as i32 - left - 10) / (last - first + 1) as i32;
        let scale =
            |count: u64| if count == 0 { 0.0 } else { ((count as f64).log10() + 0.3) / (most.log10() + 0.3) * height };
        let mut power = 1;
        while power as f64 <= most {
            let y = bottom - scale(power) as i32;
            area.draw(&PathElement::new([(left, y), (WIDTH as i32 - 10, y)], LINE))?;
            put(area, &power.to_string(), left - 8, y, MUTED, HPos::Right)?;
            power *= 10;
        }
        for class in first..=last {
            let x = left + (class - first) as i32 * step;
            let width = (step - 10) / calls.len().max(1) as i32;
            for (number, (call, row)) in calls.iter().enumerate() {
                let count = row.get(class).copied().unwrap_or(0);
                let from = x + 5 + number as i32 * width;
                if count != 0 {
                    bar(area, (from, bottom - scale(count) as i32), (from + width - 2, bottom), color_of(call))?;
                }
            }
            // Labels of narrow groups would run into each other.
            if step >= 64 || (class - first) % 2 == 0 {
                let label = format!("< {}", time((1_u64 << class) as f64 * per_tick));
                put(area, &label, x + step / 2, bottom + 16, MUTED, HPos::Center)?;
            }
        }
        put(area, "calls (log.) by how long they took", left, 10, MUTED, HPos::Left)
    })
}

/// Rows of a table of benchmarks: the operation, ours, Linux's and the best peer's.
pub fn benchmarks(table: &[(String, [Option<f64>; 3])]) -> Result<String, String> {
    let bars = table.iter().flat_map(|(name, figures)| {
        let named = [("", 0), ("Linux", 3), ("peer", 2)];
        figures.iter().zip(named).filter_map(move |(figure, (who, color))| {
            let value = (*figure)? as u64;
            let name = if who.is_empty() { name.clone() } else { String::new() };
            let note = if who.is_empty() { value.to_string() } else { format!("{value} ({who})") };
            Some(Row { name, parts: vec![(value, color)], note })
        })
    });
    rows("benchmarks", bars, true)
}

fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.0} µs", ns / 1e3),
        ns => format!("{:.0} ms", ns / 1e6),
    }
}

/// Bytes with a unit.
pub fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count;
    let mut unit = 0;
    while value >= 10 << 10 && unit + 1 < units.len()
        || value >= 1 << 10 && value.is_multiple_of(1 << 10) && unit + 1 < units.len()
    {
        value >>= 10;
        unit += 1;
    }
    format!("{value} {}", units[unit])
}
