//! The scripted sessions at the prompt (`tests/kernel`) leave nothing out: each command of docs/prompt.md is typed, each key is
//! pressed, and each message of the commands is on a console that a test compares. Messages that no machine of the tests can
//! provoke are named here, with the reason.

use std::fs;
use std::path::{Path, PathBuf};

/// The bytes of each key of docs/prompt.md, as the sessions write them.
const KEYS: &[(&str, &str)] = &[
    ("←", "\\x1b[D"),
    ("→", "\\x1b[C"),
    ("Ctrl-B", "\\x02"),
    ("Ctrl-F", "\\x06"),
    ("Home", "\\x1b[H"),
    ("End", "\\x1b[F"),
    ("Ctrl-A", "\\x01"),
    ("Ctrl-E", "\\x05"),
    ("↑", "\\x1b[A"),
    ("↓", "\\x1b[B"),
    ("Ctrl-P", "\\x10"),
    ("Ctrl-N", "\\x0e"),
    ("Backspace", "\\x7f"),
    ("Delete", "\\x1b[3~"),
    ("Ctrl-U", "\\x15"),
    ("Ctrl-K", "\\x0b"),
    ("Ctrl-W", "\\x17"),
    ("Tab", "\\t"),
    ("Ctrl-C", "\\x03"),
    ("Ctrl-D", "\\x04"),
    ("Ctrl-L", "\\x0c"),
];

/// Files whose messages a person at the prompt sees.
const SPEAKERS: &[&str] = &[
    "src/kernel/prompt",
    "src/kernel/map",
    "src/kernel/line",
    "src/kernel/process/commands.rs",
    "src/kernel/process/show.rs",
    "src/kernel/process/start.rs",
    "src/kernel/address.rs",
    "src/kernel/dma.rs",
    "src/kernel/errata.rs",
    "src/kernel/fault_injection.rs",
    "src/kernel/gfp_names.rs",
    "src/kernel/io.rs",
    "src/kernel/record.rs",
    "src/kernel/reserved.rs",
    "src/kernel/screen.rs",
    "src/kernel/top.rs",
    "src/kernel/whereabouts.rs",
];

/// Messages that no session shows: a part of each, and the reason.
const UNSEEN: &[(&str, &str)] = &[
    ("this build does not record which locks", "the tests are built with debug assertions"),
    ("this build does not check locks", "as above"),
    ("not written: the store faulted", "a mapping has to change between two lines"),
    (": not caught on this machine", "a check has to be broken"),
    ("starting a process sleeps", "the prompt may always sleep; of the call it is an error that other tests see"),
    ("\r          \r", "the runner takes carriage returns off the console; the blanks are compared"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let found = entries.map(|entry| entry.unwrap().path());
    found
        .filter(|path| path.is_dir() || path.extension().is_some_and(|end| end == "rs"))
        .flat_map(|path| sources(&path))
        .collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The sources of the kernel's tests.
fn sessions() -> String {
    sources(&root().join("tests/kernel")).iter().map(|path| read(path)).collect()
}

/// String literals that stand behind `begin`, as they are written in the source.
fn literals<'t>(text: &'t str, begin: &str) -> Vec<&'t str> {
    text.match_indices(begin).filter_map(|(at, _)| literal(&text[at + begin.len()..])).collect()
}

/// The inside of the literal whose first quote is behind.
fn literal(rest: &str) -> Option<&str> {
    let mut is_escaped = false;
    let end = rest.char_indices().find(|(_, letter)| {
        let ends = *letter == '"' && !is_escaped;
        is_escaped = *letter == '\\' && !is_escaped;
        ends
    });
    end.map(|(end, _)| &rest[..end])
}

/// A literal's text: its line feeds, carriage returns, quotes and the letters of its numbers.
fn unescaped(literal: &str) -> String {
    let mut text = String::new();
    let mut letters = literal.chars();
    while let Some(letter) = letters.next() {
        match (letter, letter == '\\') {
            (_, false) => text.push(letter),
            (_, true) => match letters.next() {
                Some('n') => text.push('\n'),
                Some('r') => text.push('\r'),
                Some('t') => text.push('\t'),
                Some('x') => {
                    let digits: String = letters.by_ref().take(2).collect();
                    text.push(char::from(u8::from_str_radix(&digits, 16).unwrap_or(b'?')));
                }
                // The next line's indentation is no part of it.
                Some('\n') => letters = letters.as_str().trim_start().chars(),
                Some(other) => text.push(other),
                None => {}
            },
        }
    }
    text
}

/// Everything that the sessions type, escaped as in a machine's words.
fn typed(sessions: &str) -> Vec<String> {
    let machines = literals(sessions, "machine = \"");
    let machines = machines.iter().filter_map(|machine| machine.split_once("type='"));
    machines.map(|(_, typed)| unescaped(typed.split('\'').next().unwrap_or_default())).collect()
}

/// The first words of the lines that are typed, or run by a test that imitates the prompt.
fn commands(sessions: &str) -> Vec<String> {
    let lines = typed(sessions);
    let lines = lines.iter().flat_map(|typed| typed.split('|')).flat_map(|piece| piece.split("\\r"));
    let run = literals(sessions, "prompt::execute(machine(), \"");
    let commands = lines.chain(run).flat_map(|line| line.split(';'));
    commands.filter_map(|command| command.split_whitespace().next()).map(str::to_owned).collect()
}

/// The rows of a table of docs/prompt.md, from its heading on: the first cell.
fn rows(page: &str, heading: &str) -> Vec<String> {
    let (_, part) = page.split_once(heading).unwrap_or_else(|| panic!("docs/prompt.md has no {heading:?}"));
    let part = part.split("\n## ").next().unwrap_or_default();
    let cells = part.lines().filter_map(|line| line.strip_prefix("| ")).filter_map(|line| line.split(" | ").next());
    cells.filter(|cell| !["key", "command"].contains(cell)).map(str::to_owned).collect()
}

#[test]
fn every_command_is_typed() {
    let typed = commands(&sessions());
    let names = rows(&read(&root().join("docs/prompt.md")), "\n## Commands\n");
    let names: Vec<&str> = names.iter().filter_map(|cell| cell.trim_matches('`').split(' ').next()).collect();
    assert!(names.len() > 40, "{names:?}");
    let missing: Vec<_> = names.iter().filter(|name| !typed.iter().any(|word| word == *name)).collect();
    assert!(missing.is_empty(), "no session types {missing:?}");
}

#[test]
fn every_key_is_pressed() {
    let typed = typed(&sessions()).concat();
    let keys = rows(&read(&root().join("docs/prompt.md")), "\n## Keys\n");
    let keys: Vec<&str> = keys.iter().flat_map(|cell| cell.split(", ")).collect();
    assert_eq!(keys, KEYS.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "the keys of docs/prompt.md");
    let missing: Vec<_> = KEYS.iter().filter(|(_, bytes)| !typed.contains(bytes)).collect();
    assert!(missing.is_empty(), "no session presses {missing:?}");
}

/// The literal texts of a file's messages: of each the longest part between values.
fn messages(source: &str) -> Vec<String> {
    let source: String =
        source.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect();
    let mut found = Vec::new();
    for word in ["kprintln!(", "kprint!(", "writeln!(", "write!(", "write_str("] {
        for (at, _) in source.match_indices(word) {
            let inside = source[at + word.len()..].trim_start();
            // The writer stands in front.
            let inside = if word.starts_with("writ") && !inside.starts_with('"') {
                inside.split_once(',').map_or("", |(_, rest)| rest.trim_start())
            } else {
                inside
            };
            let Some(text) = inside.strip_prefix('"').and_then(literal).map(unescaped) else { continue };
            let parts = text.split('{').map(|part| part.split_once('}').map_or(part, |(_, behind)| behind));
            found.extend(
                parts.map(|part| part.trim_matches(['\n', ' ']).to_owned()).max_by_key(|part| part.chars().count()),
            );
        }
    }
    found
}

/// Letters that a report has to share with a message, unless the message is shorter.
const SHARED: usize = 14;

/// Whether a compared text shows a message.
fn shows(report: &str, message: &str) -> bool {
    let letters: Vec<char> = message.chars().collect();
    let length = SHARED.min(letters.len());
    letters.windows(length).any(|part| report.contains(&part.iter().collect::<String>()))
}

#[test]
fn every_message_is_provoked() {
    let sessions = sessions();
    let reports: Vec<String> = literals(&sessions, "report = \"").into_iter().map(unescaped).collect();
    let (mut missing, mut excused, mut count) = (Vec::new(), vec![false; UNSEEN.len()], 0);
    for path in SPEAKERS.iter().flat_map(|path| sources(&root().join(path))) {
        for message in messages(&read(&path)).into_iter().filter(|message| message.chars().count() >= 4) {
            count += 1;
            if reports.iter().any(|report| shows(report, &message)) {
                continue;
            }
            match UNSEEN.iter().position(|(part, _)| message.contains(part)) {
                Some(at) => excused[at] = true,
                None => missing.push(format!("{}: {message:?}", path.strip_prefix(root()).unwrap_or(&path).display())),
            }
        }
    }
    assert!(count > 120, "{count} messages were found");
    assert!(missing.is_empty(), "no session shows\n{}", missing.join("\n"));
    let stale: Vec<_> = UNSEEN.iter().zip(excused).filter(|(_, seen)| !seen).map(|((part, _), _)| part).collect();
    assert!(stale.is_empty(), "these are shown, or gone: {stale:?}");
}

#[test]
fn texts_are_found_in_sources() {
    let source = "kprintln!(\"no {x}; there are {}\", f);\n// kprintln!(\"nothing\")\nwriteln!(f, \"a \\\"b\\\" {y}\")?;\nkprintln!(\n    \"one \\\n     two\"\n)";
    assert_eq!(messages(source), ["; there are", "one two", "a \"b\""]);
    assert_eq!(typed("machine = \"smp=2 type='a\\\\r|b;c\\\\x01'\","), ["a\\r|b;c\\x01"]);
    assert_eq!(
        commands("machine = \"type='a 1\\\\r|b; c\\\\r'\", prompt::execute(machine(), \"d e\")"),
        ["a", "b", "c", "d"]
    );
    assert!(shows("there are some that are not", "some that are gone") && !shows("some that", "some that are gone"));
    assert_eq!(
        rows("\n## Keys\n\n| key | effect |\n|---|---|\n| A, B | x |\n\n## More\n| C | y |\n", "\n## Keys\n"),
        ["A, B"]
    );
}
