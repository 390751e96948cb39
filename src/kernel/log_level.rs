//! Which log messages are shown, as the boot arguments say it.
//!
//! Linux's words: `loglevel=N`, `quiet`, `debug`, `ignore_loglevel`; and by name `log=LEVEL`. The last one counts.

use super::bootargs::{BootArgs, Word};
use log::LevelFilter;

/// Boot arguments about the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogArguments<'a> {
    /// The least severe level that is shown.
    pub filter: LevelFilter,
    /// The first argument that names the log but no level that exists.
    pub refused: Option<&'a str>,
}

impl<'a> LogArguments<'a> {
    /// Reads the boot arguments. Other arguments are skipped.
    #[must_use]
    pub fn parse(args: BootArgs<'a>) -> Self {
        let mut parsed = Self { filter: LevelFilter::Info, refused: None };
        for word in args.words() {
            match level_of(word) {
                Argument::Level(filter) => parsed.filter = filter,
                Argument::Refused => parsed.refused = parsed.refused.or(Some(word.text)),
                Argument::Other => {}
            }
        }
        parsed
    }
}

enum Argument {
    Level(LevelFilter),
    Refused,
    Other,
}

fn level_of(word: Word<'_>) -> Argument {
    let level = match (word.name, word.value) {
        (name, None) => match name {
            "quiet" => Some(LevelFilter::Error),
            "debug" => Some(LevelFilter::Debug),
            "ignore_loglevel" => Some(LevelFilter::Trace),
            _ => return Argument::Other,
        },
        ("log", Some(name)) => name.parse().ok(),
        ("loglevel", Some(number)) => number.parse().ok().map(level_of_number),
        _ => return Argument::Other,
    };
    level.map_or(Argument::Refused, Argument::Level)
}

/// Linux shows messages more severe than the number: errors are 3, warnings 4, notices 5, information 6, debugging 7.
fn level_of_number(number: u32) -> LevelFilter {
    match number {
        0..=3 => LevelFilter::Off,
        4 => LevelFilter::Error,
        5 | 6 => LevelFilter::Warn,
        7 => LevelFilter::Info,
        8 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    }
}
