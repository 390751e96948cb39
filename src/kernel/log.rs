//! The body of the `log` crate's macros: one line a message on the console, with time, level and module.

use super::bootargs::BootArgs;
use super::log_level::LogArguments;
use super::{console, report_json};
use crate::driver::timer;
use core::fmt;
use log::{Level, LevelFilter, Log, Metadata, Record, info, warn};

struct ConsoleLog;

static LOG: ConsoleLog = ConsoleLog;

impl Log for ConsoleLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            if record.level() == Level::Error {
                report_json::misuse(*record.args());
            }
            let module = record.target();
            let module = module.strip_prefix("quarry::").unwrap_or(module);
            console::print(format_args!("[{}] {:<5} {module}: {}\n", TimeStamp::now(), record.level(), record.args()));
        }
    }

    fn flush(&self) {
        console::flush();
    }
}

/// Directs the log to the console, with [`LevelFilter::Info`] until [`apply`] has read the boot arguments.
pub fn init() {
    // The logger can be set once; a second call finds the same one in place.
    let _ = log::set_logger(&LOG);
    log::set_max_level(LevelFilter::Info);
}

/// Sets the level that the boot arguments ask for.
pub fn apply(args: BootArgs<'_>) {
    let arguments = LogArguments::parse(args);
    log::set_max_level(arguments.filter);
    if let Some(refused) = arguments.refused {
        warn!("boot argument `{refused}` names no log level");
    }
    if arguments.filter != LevelFilter::Info {
        info!("log level {}", arguments.filter);
    }
}

/// Seconds and microseconds on the virtual counter, as Linux prints them.
struct TimeStamp(u64);

impl TimeStamp {
    fn now() -> Self {
        Self(timer::microseconds())
    }
}

impl fmt::Display for TimeStamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:5}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}
