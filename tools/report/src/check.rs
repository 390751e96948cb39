//! The test of a page that a browser has opened: its numbers are those of the console.

use crate::record::{Record, text};
use serde_json::Value;
use std::collections::BTreeMap;

/// Compares the document that a browser made of a page with the console that the page was made of.
pub fn check(dom: &str, console: &str) -> Result<String, String> {
    let record = Record::read(console)?;
    let inside = dom
        .split("id=\"record\">")
        .nth(1)
        .and_then(|rest| rest.split("</script>").next())
        .ok_or("no record in the page")?;
    let shown: Vec<Value> = serde_json::from_str(inside).map_err(|error| format!("the page's record: {error}"))?;
    let of_run: Vec<&Value> = shown.iter().filter(|line| line["record"] != "benchmark").collect();
    if of_run != record.lines.iter().collect::<Vec<_>>() {
        return Err("the page's record is not the console's".to_owned());
    }
    // Every reference to another place than the page would need the network.
    for word in ["src=", "href=", "url(", "@import"] {
        if dom.contains(word) {
            return Err(format!("the page has {word:?}"));
        }
    }
    let charts: Vec<&str> = dom.split("<svg").skip(1).filter_map(|rest| rest.split("</svg>").next()).collect();
    let chart = |label: &str| {
        charts
            .iter()
            .find(|chart| chart.contains(&format!("aria-label=\"{label}\"")))
            .ok_or(format!("no chart of the {label}"))
    };
    let cells: usize = record.of("blocks").map(|line| text(line, "kinds").chars().count()).sum();
    let drawn = chart("physical memory over time")?.matches("<rect").count();
    if drawn != cells || cells == 0 {
        return Err(format!("{drawn} cells of memory are drawn, not {cells}"));
    }
    fewest(&record, dom)?;
    let lines = chart("fragmentation by order")?.matches("<polyline").count();
    if lines < crate::charts::ORDERS.len() {
        return Err(format!("{lines} lines of fragmentation"));
    }
    for line in record.of("cache").filter(|line| line["name"] == "kmalloc-64") {
        let note = format!("{} of {}, ", line["active"], line["objects"]);
        if !chart("occupancy of the slabs")?.contains(&note) {
            return Err(format!("the slabs do not show {note:?}"));
        }
    }
    let cpus = record.of("cpu").count();
    for cpu in 0..cpus {
        if !chart("calls of each CPU")?.contains(&format!("CPU {cpu}")) {
            return Err(format!("CPU {cpu} is missing"));
        }
    }
    for label in ["duration of allocations", "address map"] {
        chart(label)?;
    }
    Ok(format!("{} records, {cells} cells, {} charts", record.lines.len(), charts.len()))
}

/// The table's round with the fewest free pages is the record's, and no round has fewer than the peak states.
fn fewest(record: &Record, dom: &str) -> Result<(), String> {
    let mut rounds: BTreeMap<u64, u64> = BTreeMap::new();
    let zone = crate::charts::largest_zone(record);
    for line in record.of("free").filter(|line| line["zone"] == zone.as_str()) {
        let blocks = line["blocks"].as_array().ok_or("free lists without blocks")?;
        let mut pages = 0;
        for (order, count) in blocks.iter().enumerate() {
            pages += count.as_u64().ok_or("a count that is no number")? * (1 << order);
        }
        rounds.insert(line["round"].as_u64().ok_or("free lists of no round")?, pages);
    }
    let (round, pages) = rounds.iter().min_by_key(|(_, pages)| **pages).ok_or("no free lists")?;
    let shown = format!("with the fewest free pages (round {round})");
    if !dom.contains(&shown) {
        return Err(format!("the table does not show {shown:?}"));
    }
    let peak = record.of("peak").next().and_then(|line| line["free_pages"].as_u64()).ok_or("no record of the peak")?;
    if record.of("free").all(|line| line["zone"] == zone.as_str()) && peak > *pages {
        return Err(format!("{peak} free pages at the fewest, and {pages} in round {round}"));
    }
    match dom.contains(&format!("{pages} at the end of that round")) && dom.contains(&format!("of any CPU: {peak}.")) {
        true => Ok(()),
        false => Err(format!("the page does not state {pages} and {peak} free pages")),
    }
}

/// Whether the two pictures, as files, differ and are no empty pages.
pub fn pictures(light: &[u8], dark: &[u8]) -> Result<(), String> {
    // A page of one colour is compressed to a few thousand bytes.
    if light.len() < 40_000 || dark.len() < 40_000 {
        return Err(format!("pictures of {} and {} bytes: nothing was drawn", light.len(), dark.len()));
    }
    if light == dark { Err("light and dark are the same".to_owned()) } else { Ok(()) }
}
