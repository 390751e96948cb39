//! The guide in docs/ is complete and true: every page is in the index, every link reaches a file and a heading, the
//! architecture names files and functions that exist, and the README's figures are rows of docs/performance.md.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names in a directory.
fn names(dir: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(dir)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The pages of the guide, as paths from the root.
fn pages() -> Vec<String> {
    let docs = names("docs").into_iter().filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}"));
    ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(str::to_owned).into_iter().chain(docs).collect()
}

/// A page without its fenced blocks.
fn without_blocks(page: &str) -> String {
    let parts = page.split("\n```").step_by(2);
    parts.map(|part| part.split_once('\n').map_or(part, |(_, rest)| rest)).collect::<Vec<_>>().join("\n")
}

/// Text between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Whether a source text defines a function, a macro or, in assembly, a label of this name.
fn defines(text: &str, name: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let begins = [format!("fn {name}"), format!("macro_rules! {name}")];
    begins.iter().any(|start| text.match_indices(start).any(|(at, _)| ends(&text[at + start.len()..])))
        || text.lines().any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')))
}

/// Errors in the tables of steps: a row has the file in its second cell, and functions of that file in its third.
fn missing_steps(page: &str, source: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut missing = Vec::new();
    for line in page.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.split(" | ").collect();
        let (Some(file), Some(functions)) = (cells.get(1), cells.get(2)) else { continue };
        let Some(file) = file.strip_prefix('`').and_then(|file| file.strip_suffix('`')).filter(|f| !f.contains('`'))
        else {
            continue;
        };
        let Some(text) = source(file) else {
            missing.push(format!("{file} does not exist"));
            continue;
        };
        missing.extend(
            quoted(functions)
                .iter()
                .filter(|name| !defines(&text, name))
                .map(|name| format!("{file}: no function {name}")),
        );
    }
    missing
}

#[test]
fn the_architecture_names_what_exists() {
    let page = read("docs/architecture.md");
    let missing = missing_steps(&page, |file| fs::read_to_string(root().join(file)).ok());
    assert!(missing.is_empty(), "docs/architecture.md:\n{}", missing.join("\n"));
    let steps = page.lines().filter(|line| line.contains(" | `src/") || line.contains(" | `boot/")).count();
    assert!(steps > 50, "{steps} steps");
    for path in quoted(&without_blocks(&page)) {
        let is_path = ["src/", "boot/", "tests/", "docs/"].iter().any(|top| path.starts_with(top));
        assert!(!is_path || root().join(path).exists(), "docs/architecture.md names {path}");
    }
    // Seen to find a file and a function that are gone.
    let planted = "| step | `a.rs` | `there`, `gone` | x |\n| step | `b.rs` | `f` | x |\n";
    let source = |file: &str| (file == "a.rs").then(|| "fn there_too() {}\nfn there() {}".to_owned());
    assert_eq!(missing_steps(planted, source), ["a.rs: no function gone", "b.rs does not exist"]);
    assert!(defines("start:\n b .", "start") && !defines("fn starts() {}", "start"));
}

#[test]
fn the_architecture_has_every_module() {
    let page = read("docs/architecture.md");
    for name in names("src") {
        let path = if name.ends_with(".rs") { format!("src/{name}") } else { format!("src/{name}/") };
        let is_root = ["lib.rs", "main.rs"].contains(&name.as_str());
        assert!(is_root || page.contains(&path), "docs/architecture.md lacks {path}");
    }
    for name in names("src/mm").iter().map(|name| name.trim_end_matches(".rs")).filter(|name| *name != "mod") {
        assert!(page.contains(&format!("| `{name}` |")), "docs/architecture.md lacks mm::{name}");
    }
}

#[test]
fn the_index_has_every_page_once() {
    let index = read("docs/README.md");
    let is_page = |name: &&String| name.ends_with(".md") && !["README.md", "SUMMARY.md"].contains(&name.as_str());
    for name in names("docs").iter().filter(is_page) {
        let rows = index.matches(&format!("| [{name}]({name}) |")).count();
        assert_eq!(rows, 1, "docs/README.md lists {name} {rows} times");
    }
}

#[test]
fn the_book_has_the_chapters_of_the_index_in_its_order() {
    let pages = |text: &str| -> Vec<String> {
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        targets.filter(|target| !target.starts_with("..")).map(str::to_owned).collect()
    };
    let (index, summary) = (read("docs/README.md"), read("docs/SUMMARY.md"));
    let rows: String = index.lines().filter(|line| line.starts_with("| [")).collect();
    let chapters = pages(&summary);
    assert_eq!(chapters.first().map(String::as_str), Some("README.md"));
    assert_eq!(pages(&rows), chapters[1..]);
}

/// The anchor that a heading has on the sites that render Markdown.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

/// Targets of the links of a page, those to other sites left out.
fn links(page: &str) -> Vec<String> {
    let prose: String = page.split('`').step_by(2).collect();
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next().map(str::to_owned));
    targets.filter(|target| !target.contains("://")).collect()
}

/// Links of a page at `path` that reach nothing.
fn dead_links(path: &str, page: &str, read: impl Fn(&Path) -> Option<String>) -> Vec<String> {
    let dir = Path::new(path).parent().unwrap_or(Path::new(""));
    let is_dead = |target: &String| {
        let (file, part) = target.split_once('#').unwrap_or((target, ""));
        let text = if file.is_empty() { Some(page.to_owned()) } else { read(&normal(&dir.join(file))) };
        text.is_none_or(|text| !part.is_empty() && !anchors(&text).contains(part))
    };
    links(page).into_iter().filter(is_dead).map(|target| format!("{path}: {target}")).collect()
}

/// A path without `..`.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        if part.as_os_str() == ".." {
            out.pop();
        } else {
            out.push(part);
        }
    }
    out
}

#[test]
fn every_link_reaches_a_page_and_a_heading() {
    let text = |path: &Path| {
        let path = root().join(path);
        // Pictures and directories exist or not; they have no headings.
        path.exists().then(|| fs::read_to_string(path).unwrap_or_default())
    };
    let mut seen = 0;
    let mut dead = Vec::new();
    for path in pages() {
        let page = without_blocks(&read(&path));
        seen += links(&page).len();
        dead.extend(dead_links(&path, &page, text));
    }
    assert!(dead.is_empty(), "links to nothing:\n{}", dead.join("\n"));
    assert!(seen > 60, "{seen} links");
    // Seen to find a file that is gone, and a heading that is gone.
    let planted =
        "# A page\n[a](../b.md) [b](c.md) [c](#a-page) [d](#gone) [e](../b.md#two-words) `[x](y)` [f](https://x)";
    let other = |path: &Path| (path == Path::new("b.md")).then(|| "## Two `words`".to_owned());
    assert_eq!(dead_links("docs/a.md", planted, other), ["docs/a.md: c.md", "docs/a.md: #gone"]);
}

/// A text in which each `{…}` of a format string is `…`.
fn with_gaps(text: &str) -> String {
    let mut out = String::new();
    for (number, part) in text.split('{').enumerate() {
        match part.split_once('}') {
            Some((inside, rest)) if number > 0 && inside.len() < 12 && !inside.contains('\n') => {
                out += "…";
                out += rest;
            }
            _ => out += part,
        }
    }
    out
}

#[test]
fn the_lines_of_a_fault_report_are_those_that_are_printed() {
    let page = read("docs/fault-reports.md");
    let sources =
        ["report", "cause", "whereabouts"].map(|file| with_gaps(&read(&format!("src/kernel/{file}.rs")))).join("\n");
    let (people, tools) = page.split_once("## Reports for tools").unwrap();
    let rows = people.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    // `fault: …` with nothing else is explained in words.
    let shown: Vec<&str> = rows.filter(|text| *text != "fault: …" && !text.starts_with('x')).collect();
    assert!(shown.len() > 15, "{}", shown.len());
    for text in shown {
        assert!(sources.contains(text), "no report prints {text:?}");
    }
    assert_eq!(with_gaps("a {x:?} b {} c"), "a … b … c");
    // The members of a line of JSON: those of the page are those of the code, in both directions.
    let json = read("src/kernel/report_json.rs");
    let cells = tools.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let explained: BTreeSet<&str> = cells.flat_map(|cell| cell.trim_matches('`').split("`, `")).collect();
    let calls =
        ["text(\"", "number(\"", "object(\"", "array(\""].map(|call| json.split(call).skip(1)).into_iter().flatten();
    let written: BTreeSet<&str> = calls.filter_map(|rest| rest.split('"').next()).collect();
    // Those of a symbol and a caller are in the row of their object.
    let inside = ["at", "function", "offset", "size", "times"];
    assert!(inside.iter().all(|name| tools.contains(&format!("`{name}`")) && written.contains(name)));
    assert_eq!(explained, &written - &inside.into(), "docs/fault-reports.md and src/kernel/report_json.rs");
}

/// The table between the marks of the benchmarks.
fn measured(page: &str) -> Vec<String> {
    let block = page.split("<!-- bench:begin -->").nth(1).and_then(|rest| rest.split("<!-- bench:end -->").next());
    block.unwrap().lines().filter(|line| line.starts_with('|')).map(str::to_owned).collect()
}

#[test]
fn the_readme_has_eight_rows_of_the_table_of_performance() {
    let (few, all) = (measured(&read("README.md")), measured(&read("docs/performance.md")));
    assert_eq!(few.len(), 2 + 8, "a heading, a line, eight rows");
    for row in &few {
        assert!(all.contains(row), "docs/performance.md has no row {row}");
    }
}

/// The text between quotes behind `field: "`.
fn field<'t>(row: &'t str, field: &str) -> &'t str {
    let text = row.split_once(&format!("{field}: \"")).map_or("", |(_, rest)| rest);
    text.split_once('"').map_or("", |(text, _)| text)
}

fn sources(dir: &str) -> Vec<String> {
    let found = names(dir).into_iter().map(|name| format!("{dir}/{name}"));
    found.flat_map(|path| if root().join(&path).is_dir() { sources(&path) } else { vec![path] }).collect()
}

#[test]
fn the_page_of_the_prompt_has_every_command() {
    let page = read("docs/prompt.md");
    let mut commands = 0;
    for path in sources("src/kernel") {
        let text = read(&path);
        for row in text.split("Command {\n").skip(1).filter(|row| row.trim_start().starts_with("name: \"")) {
            let [name, arguments, help, example] =
                ["name", "arguments", "help", "example"].map(|name| field(row, name));
            assert_eq!(example.split([' ', '|']).next(), Some(name), "{path}: the example is of another command");
            let call = if arguments.is_empty() { name.to_owned() } else { format!("{name} {arguments}") };
            let [call, example] = [call.as_str(), example].map(|text| text.replace('|', "\\|"));
            let wanted = format!("| `{call}` | {help} | `{example}` |\n");
            assert!(page.contains(&wanted), "{path}: docs/prompt.md lacks\n{wanted}");
            commands += 1;
        }
    }
    assert!(commands >= 40, "{commands} commands were found");
    assert_eq!(
        page.lines().filter(|line| line.starts_with("| `") && line.matches("` |").count() == 2).count(),
        commands
    );
}

#[test]
fn each_kind_of_fault_at_the_prompt_is_a_misuse_of_the_table() {
    let (text, page) = (read("src/kernel/prompt/misuse.rs"), read("docs/misuse.md"));
    let table =
        text.split_once("const KINDS").and_then(|(_, rest)| rest.split_once("\n];")).map_or("", |(table, _)| table);
    let strings: Vec<&str> = table.split('"').skip(1).step_by(2).collect();
    for kind in strings.chunks(2) {
        let [name, about] = kind else { panic!("a name and a misuse: {kind:?}") };
        assert!(page.contains(&format!("\n| {about} | ")), "{name}: docs/misuse.md has no row {about:?}");
    }
    assert!(strings.len() >= 80, "{} strings", strings.len());
}
