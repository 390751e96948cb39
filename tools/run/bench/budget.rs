//! The budget of each row: `benches/budget.tsv` holds every figure as it was last accepted, with the functions in which the
//! operation spent its instructions. `make test` counts again, and names the functions that grew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::row::Row;
use super::{OURS, Results};

/// By how much a row may exceed its budget, in percent: as much as the layout of the code moves it.
const SLACK: f64 = 3.0;

/// Text above the lines of the file.
const HEAD: &str = "\
# Instructions of every row, as `make budget` last counted them (no peers in the image, profile `release`). `make test` fails
# when a row takes more than 3 % more, and names the functions that grew. A lower figure is a change of its line; a higher
# one needs its reason in the last field: `make budget REASON='…'` writes it there.
# Fields, separated by tabs: row, instructions, instructions by function (of one traced operation; `;` between two, `-` where
# the operation is too long to trace), reason of the last raise (`-`: none).
";

/// One line of the file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Budget {
    instructions: f64,
    functions: BTreeMap<String, u64>,
    reason: String,
}

/// All lines of the file, by row.
pub(crate) type Budgets = BTreeMap<String, Budget>;

impl Budget {
    fn parse(fields: &[&str]) -> Option<Self> {
        let [instructions, functions, reason] = fields else { return None };
        let part = |part: &str| part.split_once(' ').and_then(|(n, name)| Some((name.to_owned(), n.parse().ok()?)));
        let functions = match *functions {
            "-" => BTreeMap::new(),
            parts => parts.split("; ").map(part).collect::<Option<_>>()?,
        };
        Some(Self { instructions: instructions.parse().ok()?, functions, reason: (*reason).to_owned() })
    }

    /// Whether a figure is above the budget by more than the slack.
    fn is_exceeded(&self, figure: f64) -> bool {
        figure > self.instructions * (1.0 + SLACK / 100.0)
    }
}

/// Reads the file; one that is not there is empty.
pub(crate) fn read(path: &Path) -> Result<Budgets, String> {
    if !path.exists() {
        return Ok(Budgets::new());
    }
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let budget = |(at, line): (usize, &str)| {
        let fields: Vec<&str> = line.split('\t').collect();
        let read = fields.split_first().and_then(|(name, rest)| Some(((*name).to_owned(), Budget::parse(rest)?)));
        read.ok_or_else(|| format!("{}:{}: {line:?}", path.display(), at + 1))
    };
    lines.map(budget).collect()
}

/// The file's text.
pub(crate) fn written(budgets: &Budgets) -> String {
    let mut text = HEAD.to_owned();
    for (name, Budget { instructions, functions, reason }) in budgets {
        let mut parts: Vec<String> = functions.iter().map(|(name, n)| format!("{n} {name}")).collect();
        if parts.is_empty() {
            parts.push("-".to_owned());
        }
        let _ = writeln!(text, "{name}\t{instructions}\t{}\t{reason}", parts.join("; "));
    }
    text
}

/// The rows of ours among `rows` that are above their budget, or that have none.
pub(crate) fn exceeded<'r>(budgets: &Budgets, rows: &'r [Row]) -> Vec<&'r Row> {
    let is_exceeded = |row: &&Row| {
        row.by == OURS && budgets.get(&row.name).is_none_or(|budget| budget.is_exceeded(row.figures.value()))
    };
    rows.iter().filter(is_exceeded).collect()
}

/// The budgets of rows that were not counted though every row was: their names are stale.
pub(crate) fn stale<'b>(budgets: &'b Budgets, rows: &[Row]) -> Vec<&'b str> {
    budgets
        .keys()
        .map(String::as_str)
        .filter(|name| !rows.iter().any(|row| row.by == OURS && row.name == *name))
        .collect()
}

/// Message about a row that is above its budget: by how much, and which functions grew.
pub(crate) fn complaint(budgets: &Budgets, row: &Row, names: &BTreeMap<u64, String>) -> String {
    let figure = row.figures.value();
    let Some(budget) = budgets.get(&row.name) else {
        return format!("{} has no line in benches/budget.tsv: it takes {figure}", row.name);
    };
    let percent = (figure / budget.instructions - 1.0) * 100.0;
    let mut text =
        format!("{} grew by {percent:.1} %, from {} to {figure} instructions:", row.name, budget.instructions);
    let mut grown: Vec<(u64, u64, String)> = functions(row, names)
        .into_iter()
        .map(|(name, now)| (now, budget.functions.get(&name).copied().unwrap_or(0), name))
        .filter(|(now, before, _)| now > before)
        .collect();
    grown.sort_by_key(|(now, before, _)| before.wrapping_sub(*now));
    for (now, before, name) in &grown {
        let _ = write!(text, "\n    {before} -> {now}  {name}");
    }
    if grown.is_empty() {
        text += "\n    in no function of the one operation that was traced";
    }
    text
}

/// The budgets after a run: those of its rows anew. One may only be raised with a reason.
pub(crate) fn renewed(
    budgets: &Budgets,
    results: &Results,
    names: &BTreeMap<u64, String>,
    reason: &str,
) -> Result<Budgets, String> {
    let mut renewed = budgets.clone();
    for row in results.rows.iter().filter(|row| row.by == OURS) {
        let figure = row.figures.value();
        let before = budgets.get(&row.name);
        let is_raise = before.is_some_and(|budget| figure > budget.instructions);
        if is_raise && reason.is_empty() {
            return Err(format!("{}\nto raise it, say why: make budget REASON='…'", complaint(budgets, row, names)));
        }
        let reason = match before {
            Some(budget) if !is_raise => budget.reason.clone(),
            Some(budget) => format!("{} -> {figure}: {reason}", budget.instructions),
            None => "-".to_owned(),
        };
        renewed.insert(row.name.clone(), Budget { instructions: figure, functions: functions(row, names), reason });
    }
    Ok(renewed)
}

/// In which functions the traced operation of a row spent its instructions, by name.
fn functions(row: &Row, names: &BTreeMap<u64, String>) -> BTreeMap<String, u64> {
    let mut functions = BTreeMap::new();
    for (start, count) in row.executed.iter().flat_map(|executed| &executed.by_function) {
        let name = names.get(start).map_or("?", String::as_str);
        *functions.entry(name.replace(['\t', ';'], " ")).or_default() += count;
    }
    functions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::row::{Executed, Figures};
    use crate::bench::trace::Overhead;

    fn budgets(instructions: f64) -> Budgets {
        let functions = [("quarry::alloc".to_owned(), 30), ("quarry::free".to_owned(), 70)].into();
        [("pair/1".to_owned(), Budget { instructions, functions, reason: "-".to_owned() })].into()
    }

    fn row(name: &str, figure: f64) -> Row {
        Row {
            number: Some(0),
            name: name.to_owned(),
            by: OURS.to_owned(),
            version: String::new(),
            unit: "instructions".to_owned(),
            figures: Figures::of(vec![figure], 2),
            executed: Some(Executed { by_function: [(16, 30), (32, 80)].into(), ..Executed::default() }),
        }
    }

    fn names() -> BTreeMap<u64, String> {
        [(16, "quarry::alloc".to_owned()), (32, "quarry::free".to_owned())].into()
    }

    fn results(rows: Vec<Row>) -> Results {
        Results {
            cpu: String::new(),
            rows,
            unable: Vec::new(),
            conditions: Vec::new(),
            overhead: Overhead::default(),
            begun: None,
        }
    }

    #[test]
    fn a_row_may_exceed_its_budget_by_the_slack_and_no_more() {
        let is_exceeded = |figure| exceeded(&budgets(100.0), &[row("pair/1", figure)]).len() == 1;
        assert_eq!([90.0, 100.0, 103.0, 103.01].map(is_exceeded), [false, false, false, true]);
    }

    #[test]
    fn a_row_without_a_line_and_a_line_without_a_row_are_said() {
        assert_eq!(exceeded(&budgets(100.0), &[row("other", 1.0)]).len(), 1);
        assert!(complaint(&budgets(100.0), &row("other", 1.0), &names()).contains("no line in"));
        assert_eq!(stale(&budgets(100.0), &[row("other", 1.0)]), ["pair/1"]);
    }

    #[test]
    fn the_functions_that_grew_are_named_and_no_others() {
        let text = complaint(&budgets(100.0), &row("pair/1", 110.0), &names());
        assert_eq!(text, "pair/1 grew by 10.0 %, from 100 to 110 instructions:\n    70 -> 80  quarry::free");
    }

    #[test]
    fn the_file_is_read_as_it_was_written() {
        let budgets = renewed(&budgets(100.0), &results(vec![row("pair/1", 99.5)]), &names(), "").unwrap();
        let text = written(&budgets);
        assert!(text.ends_with("\npair/1\t99.5\t30 quarry::alloc; 80 quarry::free\t-\n"), "{text}");
        let fields: Vec<&str> = text.lines().last().unwrap().split('\t').collect();
        assert_eq!(Budget::parse(&fields[1..]), budgets.get("pair/1").cloned());
        assert_eq!(Budget::parse(&["1", "- x", "-"]), None);
    }

    #[test]
    fn a_raise_needs_a_reason_and_keeps_it() {
        let higher = results(vec![row("pair/1", 101.0)]);
        assert!(renewed(&budgets(100.0), &higher, &names(), "").unwrap_err().contains("say why"));
        let raised = renewed(&budgets(100.0), &higher, &names(), "checks more").unwrap();
        assert_eq!(raised["pair/1"].reason, "100 -> 101: checks more");
        let lowered = renewed(&raised, &results(vec![row("pair/1", 90.0)]), &names(), "").unwrap();
        assert_eq!(
            (lowered["pair/1"].instructions, lowered["pair/1"].reason.as_str()),
            (90.0, "100 -> 101: checks more")
        );
    }
}
