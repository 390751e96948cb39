//! The results as Markdown: an overview with the recorded figures and the targets beside ours, and every row in detail.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::figures::Recorded;
use super::row::{Executed, Row};
use super::{OURS, Results};

/// A mapping of fewer pages than this does not meet its target by dropping the whole TLB.
const FULL_INVALIDATION: u64 = 512;

/// One line an operation of ours, or a group of them that has one target; of a group, the dearest.
pub(crate) fn overview(results: &Results, recorded: &[Recorded], whole: bool) -> String {
    let mut lines = vec![
        ["operation", "Quarry", "target", "", "Linux", "best peer here", "recorded peer", "limit"].map(str::to_owned),
    ];
    let number = |value: Option<f64>| value.map_or("-".to_owned(), grouped);
    let is_ours = |row: &&Row| row.by == OURS;
    let mut shown: Vec<&Recorded> = Vec::new();
    for row in results.rows.iter().filter(is_ours) {
        let Some(known) = recorded.iter().find(|known| known.covers(&row.name)) else {
            let mut line = [const { String::new() }; 8];
            line[..3].clone_from_slice(&[row.name.clone(), grouped(row.figures.value()), "no figure".to_owned()]);
            line[5] = best_peer(results, &|name| name == row.name);
            lines.push(line);
            continue;
        };
        if shown.contains(&known) {
            continue;
        }
        shown.push(known);
        let group: Vec<&Row> = results.rows.iter().filter(is_ours).filter(|row| known.covers(&row.name)).collect();
        lines.push([
            known.shown(),
            number(group.iter().map(|row| row.figures.value()).max_by(f64::total_cmp)),
            known.target.map_or("-".to_owned(), |target| format!("≤ {}", grouped(target))),
            verdicts(&group, &results.unable, known),
            number(known.linux),
            best_peer(results, &|name| known.covers(name)),
            number(known.peer),
            number(known.limit),
        ]);
    }
    let mut text = format!(
        "Retired instructions on QEMU's `{}`; Linux 6.12/7.2 on the same emulator. Of several sizes, the dearest.\n\n{}",
        results.cpu,
        markdown(&lines)
    );
    let missing: Vec<&Recorded> = recorded.iter().filter(|known| !shown.contains(known)).collect();
    if whole && !missing.is_empty() {
        text += "\nNot measured yet:\n\n";
        let titles = ["operation", "target", "Linux", "best peer here", "recorded peer", "note"];
        let mut lines = vec![titles.map(str::to_owned)];
        for known in missing {
            let peer = best_peer(results, &|name| known.covers(name));
            let ours = results.unable.iter().find(|(name, by, _)| by == OURS && known.covers(name));
            let note = ours.map_or(known.note.clone(), |(name, _, why)| format!("{name} failed: {why}"));
            lines.push([known.shown(), number(known.target), number(known.linux), peer, number(known.peer), note]);
        }
        text += &markdown(&lines);
    }
    text
}

/// Every row, with its samples and what it executed.
pub(crate) fn details(results: &Results) -> String {
    let mut lines = vec![
        [
            "operation",
            "implementation",
            "batch mean",
            "min",
            "median",
            "p99",
            "max",
            "n",
            "traced",
            "DSB",
            "TLBI",
            "exclusives",
            "DC",
        ]
        .map(str::to_owned),
    ];
    for row in &results.rows {
        let figures = &row.figures;
        let executed = |show: &dyn Fn(&Executed) -> String| row.executed.as_ref().map_or("-".to_owned(), show);
        let kinds = |counts: &BTreeMap<String, u64>| match counts.is_empty() {
            true => "0".to_owned(),
            false => counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", "),
        };
        lines.push([
            row.name.clone(),
            format!("{} {}", row.by, row.version),
            figures.mean_of_batch().to_owned(),
            figures.min.clone(),
            figures.median.clone(),
            figures.p99.clone(),
            figures.max.clone(),
            figures.n.to_string(),
            executed(&|e| e.instructions.to_string()),
            executed(&|e| e.dsb.to_string()),
            executed(&|e| kinds(&e.tlbi)),
            executed(&|e| (e.exclusives + e.atomics).to_string()),
            executed(&|e| kinds(&e.dc)),
        ]);
    }
    let mut text = String::from("Every row; `traced` and what follows are of one whole operation:\n\n");
    text += &markdown(&lines);
    for (name, by, why) in &results.unable {
        let _ = writeln!(text, "\nNo figure for {name} by {by}: {why}.");
    }
    for condition in &results.conditions {
        let _ = writeln!(text, "\nConditions: {condition}.");
    }
    text
}

/// Where the instructions of each traced row were executed: its functions, the dearest first.
pub(crate) fn profile(results: &Results, functions: &BTreeMap<u64, String>) -> String {
    let mut text = String::new();
    for row in &results.rows {
        let Some(executed) = &row.executed else { continue };
        let _ = writeln!(text, "{} by {}: {} instructions", row.name, row.by, executed.instructions);
        let mut parts: Vec<(u64, u64)> = executed.by_function.iter().map(|(&start, &count)| (count, start)).collect();
        parts.sort_by(|a, b| b.cmp(a));
        for (count, start) in parts {
            let _ = writeln!(text, "{count:>10}  {}", functions.get(&start).map_or("?", String::as_str));
        }
    }
    text
}

/// Whether a row meets its target.
fn verdict(row: &Row, known: &Recorded) -> &'static str {
    let Some(target) = known.target else { return "" };
    let pages = row.name.strip_prefix("map_unmap/").and_then(|pages| pages.parse::<u64>().ok());
    let drops_all = row.executed.as_ref().is_some_and(Executed::invalidates_everything);
    if drops_all && pages.is_some_and(|pages| pages < FULL_INVALIDATION) {
        return "not met: drops the whole TLB";
    }
    if row.figures.value() <= target { "met" } else { "not met" }
}

/// Whether a group of rows meets its target, and which of several do not; one without a figure does not.
fn verdicts(group: &[&Row], unable: &[(String, String, String)], known: &Recorded) -> String {
    let failed = unable.iter().filter(|(name, by, _)| by == OURS && known.covers(name));
    let verdicts = group.iter().map(|row| (row.name.as_str(), verdict(row, known)));
    let all: Vec<(&str, &str)> = verdicts.chain(failed.map(|(name, ..)| (name.as_str(), "not met"))).collect();
    let missed: Vec<&str> =
        all.iter().filter(|(_, verdict)| verdict.starts_with("not")).map(|&(name, _)| name).collect();
    match (all.as_slice(), missed.as_slice()) {
        ([(_, only)], _) | ([(_, only), ..], []) => (*only).to_owned(),
        _ => {
            let parameters: Vec<&str> = missed.iter().filter_map(|name| name.rsplit('/').next()).collect();
            format!("not met: {}", parameters.join(", "))
        }
    }
}

/// The cheapest other implementation of this run that has figures for every row that `covered` names, by its dearest.
fn best_peer(results: &Results, covered: &dyn Fn(&str) -> bool) -> String {
    let rows = || results.rows.iter().filter(|row| covered(&row.name));
    let names: BTreeSet<&str> = rows().map(|row| row.name.as_str()).collect();
    let mut peers: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for row in rows().filter(|row| row.by != OURS) {
        peers.entry(&row.by).or_default().push(row.figures.value());
    }
    let dearest = |values: Vec<f64>| values.into_iter().fold(f64::NEG_INFINITY, f64::max);
    let complete = peers.into_iter().filter(|(_, values)| values.len() == names.len());
    let best = complete.map(|(by, values)| (dearest(values), by)).min_by(|(a, _), (b, _)| a.total_cmp(b));
    best.map_or("-".to_owned(), |(value, by)| format!("{} ({by})", grouped(value)))
}

/// A number with its thousands apart: `12,345`, `0.73`.
fn grouped(value: f64) -> String {
    if value < 100.0 && value.fract() != 0.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A table whose columns line up in plain text as well; all but the first are numbers as a rule.
fn markdown<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or_default().max(3)).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(text, "| {cell:<width$} ");
        }
        text += "|\n";
        if number == 0 {
            for width in &widths {
                let _ = write!(text, "|-{:-<width$}-", "");
            }
            text += "|\n";
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::row::Figures;
    use crate::bench::trace::Overhead;

    fn row(name: &str, by: &str, mean: &str, tlbi: &str) -> Row {
        let fields = ["batch", "1", "1", mean, mean, mean, mean, mean, "1", mean, "1", "0"];
        let executed = Executed { tlbi: [(tlbi.to_owned(), 1)].into(), ..Executed::default() };
        Row {
            number: Some(0),
            name: name.into(),
            by: by.into(),
            version: String::new(),
            unit: "instructions".into(),
            figures: Figures::parse(&fields).unwrap(),
            executed: Some(executed),
        }
    }

    fn no_results() -> Results {
        Results {
            cpu: "max".into(),
            rows: Vec::new(),
            unable: Vec::new(),
            conditions: Vec::new(),
            overhead: Overhead::default(),
            begun: None,
        }
    }

    fn known(name: &str, target: f64) -> Recorded {
        Recorded { name: name.into(), linux: None, peer: None, limit: None, target: Some(target), note: String::new() }
    }

    #[test]
    fn a_target_is_met_by_its_value_and_by_address() {
        let one = "map_unmap/1";
        assert_eq!(verdict(&row(one, OURS, "167", "vaale1is"), &known(one, 167.0)), "met");
        assert_eq!(verdict(&row(one, OURS, "167.01", "vaale1is"), &known(one, 167.0)), "not met");
        assert!(verdict(&row(one, OURS, "10", "vmalle1is"), &known(one, 167.0)).starts_with("not met"));
        assert_eq!(verdict(&row("map_unmap/512", OURS, "10", "vmalle1is"), &known(one, 167.0)), "met");
    }

    #[test]
    fn rows_that_nobody_recorded_and_rows_that_nobody_measured_are_shown_as_such() {
        let rows = vec![row("a", OURS, "5", "x"), row("a", "slow", "9", "x"), row("a", "quick", "7", "x")];
        let results = Results { rows, ..no_results() };
        let text = overview(&results, &[known("b", 3.0)], true);
        assert!(text.contains("no figure") && text.contains("7 (quick)"), "{text}");
        assert!(text.split_once("Not measured yet").unwrap().1.contains("| b "), "{text}");
        assert!(!overview(&results, &[known("b", 3.0)], false).contains("Not measured"));
    }

    #[test]
    fn a_group_shows_its_dearest_row_and_names_those_that_miss() {
        let rows = vec![
            row("k/8", OURS, "5", "x"),
            row("k/16", OURS, "7", "x"),
            row("k/8", "quick", "1", "x"),
            row("k/16", "quick", "9", "x"),
            row("k/8", "half", "1", "x"),
        ];
        let mut results = Results { rows, ..no_results() };
        let text = overview(&results, &[known("k/8..16", 6.0)], true);
        let line = text.lines().find(|line| line.contains("k/8")).unwrap();
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        assert_eq!(cells.get(1..7).unwrap(), ["k/8 … 16", "7", "≤ 6", "not met: 16", "-", "9 (quick)"]);
        assert!(!text.contains("Not measured"), "{text}");

        results.unable.push(("k/12".into(), OURS.into(), "full".into()));
        results.unable.push(("l/1".into(), OURS.into(), "full".into()));
        let text = overview(&results, &[known("k/8..16", 6.0), known("l/1", 6.0)], true);
        assert!(text.contains("not met: 16, 12") && text.contains("l/1 failed: full"), "{text}");
    }

    #[test]
    fn thousands_are_apart() {
        assert_eq!(
            [0.0, 999.0, 1_000.0, 37_000_000.0, 0.78, 43.5].map(grouped),
            ["0", "999", "1,000", "37,000,000", "0.78", "43.50"]
        );
    }
}
