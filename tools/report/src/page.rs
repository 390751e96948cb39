//! The page: charts, tables of the same numbers, and the record itself.

use crate::charts::{self, CALLS, KINDS, ORDERS};
use crate::record::{Record, free_pages, number, numbers, text};
use serde_json::{Value, json};

const STYLE: &str = include_str!("style.css");

/// The page; `table` is Markdown with the benchmarks' rows.
pub fn page(record: &Record, table: &str) -> Result<String, String> {
    let zone = charts::largest_zone(record);
    let rows = benchmark_rows(table);
    let machine = format!(
        "Quarry {} on {} CPUs, {} rounds of a stress on all of them. Every figure is the kernel's own, printed in that run by <code>record</code>.",
        escape(record.of("machine").next().map_or("", |line| text(line, "version"))),
        record.machine("cpus"),
        record.machine("rounds"),
    );
    let kinds_there: String = record.of("blocks").map(|line| text(line, "kinds")).collect();
    let kinds =
        KINDS.iter().filter(|(letter, ..)| kinds_there.contains(*letter)).map(|(_, name, color)| (*name, *color));
    let order_names: Vec<String> =
        ORDERS.iter().map(|order| format!("order {order}, {}", charts::bytes(4096 << order))).collect();
    let orders = order_names.iter().enumerate().map(|(color, name)| (name.as_str(), color));
    let mut body = String::new();
    section(
        &mut body,
        "Physical memory",
        "Each cell is a block of 2 MiB in one round, in the colour of most of its pages.",
        &charts::memory(record)?,
        &legend(kinds),
        "",
    );
    section(
        &mut body,
        "Fragmentation",
        &format!(
            "Free memory of the zone {} that a request of each order cannot use, as its blocks are too small.",
            escape(&zone)
        ),
        &charts::fragmentation(record, &zone)?,
        &legend(orders),
        &index_table(record, &zone),
    );
    section(
        &mut body,
        "Duration of allocations",
        "Ticks of the machine's counter, in classes that double. Under an emulator they are the host's time.",
        &charts::latency(record)?,
        &legend(CALLS.into_iter().filter(|(call, _)| *call != "refused")),
        "",
    );
    section(
        &mut body,
        "Occupancy of the slabs",
        "After the stress: objects in use, and free ones that the caches keep.",
        &charts::slabs(record)?,
        &legend([("in use", 1), ("free", 9)]),
        "",
    );
    section(
        &mut body,
        "Work of each CPU",
        "Allocations that each CPU made.",
        &charts::cpus(record)?,
        &legend(CALLS),
        "",
    );
    section(
        &mut body,
        "Address map",
        "Regions of the kernel's half, by the logarithm of their sizes.",
        &charts::address_map(record)?,
        "",
        "",
    );
    if rows.is_empty() {
        body += "<section><h2>Benchmarks</h2><p>No table was there: <code>make bench</code> makes it.</p></section>";
    } else {
        section(
            &mut body,
            "Benchmarks",
            "Retired instructions, by their logarithm.",
            &charts::benchmarks(&rows)?,
            &legend([("Quarry", 0), ("Linux", 3), ("best peer", 2)]),
            "",
        );
    }
    let shown: Vec<Value> =
        rows.iter().map(|(name, figures)| json!({"record": "benchmark", "name": name, "figures": figures})).collect();
    let data = Value::Array(record.lines.iter().cloned().chain(shown).collect()).to_string();
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Quarry: report of a run</title><style>{STYLE}</style></head><body><main><h1>Report of a run</h1><p>{machine}</p>{body}</main>\n\
         <script type=\"application/json\" id=\"record\">{}</script></body></html>\n",
        // Nothing in it may end the element.
        data.replace('<', "\\u003c")
    ))
}

fn section(out: &mut String, title: &str, words: &str, chart: &str, legend: &str, more: &str) {
    *out += &format!("<section><h2>{title}</h2><p>{words}</p>{legend}<figure>{chart}</figure>{more}</section>");
}

fn legend<'a>(entries: impl IntoIterator<Item = (&'a str, usize)>) -> String {
    let items: String = entries
        .into_iter()
        .map(|(name, color)| format!("<li><i style=\"background:var(--c{color})\"></i>{}</li>", escape(name)))
        .collect();
    format!("<ul class=\"legend\">{items}</ul>")
}

/// Free blocks and Linux's index for every order: at first, with the fewest free pages, at last.
fn index_table(record: &Record, zone: &str) -> String {
    let lines = record.of_zone(zone);
    let fewest = lines.iter().min_by_key(|line| free_pages(line));
    let (Some(first), Some(peak), Some(last)) = (lines.first(), fewest, lines.last()) else {
        return String::new();
    };
    let mut out = "<table><thead><tr><th>order</th>".to_owned();
    for order in 0..=10 {
        out += &format!("<th>{order}</th>");
    }
    out += "</tr></thead><tbody>";
    for (name, line) in [("at first", first), ("with the fewest free pages", peak), ("at last", last)] {
        for (what, member) in [("free blocks", "blocks"), ("fragmentation index", "fragmentation")] {
            out += &format!("<tr><th>{what}, {name} (round {})</th>", number(line, "round"));
            for value in numbers(line, member) {
                // A request could be served: there is nothing to index.
                let shown =
                    if member == "fragmentation" && value == 2000 { "–".to_owned() } else { value.to_string() };
                out += &format!("<td>{shown}</td>");
            }
            out += "</tr>";
        }
    }
    let at_any_time = record.of("peak").next().map_or(0, |line| number(line, "free_pages"));
    out += &format!(
        "</tbody></table><p>Free pages: {} at first, {} at the end of that round, {} at last; fewest after any call of any CPU: {at_any_time}.</p>",
        free_pages(first),
        free_pages(peak),
        free_pages(last)
    );
    out + "<p>The index is Linux's: towards 1,000 fragmentation is why a request fails, towards 0 lack of memory; – where it is served.</p>"
}

/// Rows of a Markdown table: the operation, and the figures of Quarry, Linux and the best peer.
fn benchmark_rows(table: &str) -> Vec<(String, [Option<f64>; 3])> {
    let rows = table
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    let mut places = None;
    let mut found = Vec::new();
    for cells in rows {
        let place = |name: &str| cells.iter().position(|cell| cell.starts_with(name));
        if let (Some(ours), Some(linux)) = (place("Quarry"), place("Linux")) {
            places = Some((ours, linux, place("best peer")));
            continue;
        }
        let Some((ours, linux, peer)) = places else { continue };
        let figure = |at: usize| {
            let digits: String = cells.get(at)?.split_whitespace().next()?.chars().filter(|c| *c != ',').collect();
            digits.parse::<f64>().ok()
        };
        if let Some(first) = figure(ours) {
            found.push((
                cells.first().copied().unwrap_or("").to_owned(),
                [Some(first), figure(linux), peer.and_then(figure)],
            ));
        }
    }
    found
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
