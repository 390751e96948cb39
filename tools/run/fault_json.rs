//! The lines of JSON that a kernel with `report=json` prints: each has to be one, with the members that
//! `docs/fault-reports.md` states for its kind.

use serde_json::Value;

/// The beginning of such a line.
const BEGIN: &str = "{\"report\":";

/// Frames of one function in a stack that has overflowed.
const RECURSION: u64 = 20;

/// Reads every report on a console. There has to be one at least.
pub(crate) fn check(console: &str) -> Result<(), String> {
    let mut lines = console.lines().filter(|line| line.starts_with(BEGIN)).peekable();
    if lines.peek().is_none() {
        return Err("the console shows no report in JSON".to_owned());
    }
    lines.try_for_each(|line| read(line).map_err(|why| format!("{why} in the report {line}")))
}

fn read(line: &str) -> Result<(), String> {
    let report: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let kind = text(&report, "report")?;
    number(&report, "cpu")?;
    number(&report, "microseconds")?;
    match kind {
        "fault" => {
            for name in ["cause", "syndrome"] {
                text(&report, name)?;
            }
            for name in ["sp", "spsr", "esr", "far"] {
                hex(report.get(name).unwrap_or(&Value::Null))?;
            }
            for name in ["pc", "lr"] {
                symbol(report.get(name).unwrap_or(&Value::Null))?;
            }
            let registers = list(&report, "x")?;
            if registers.len() != 31 {
                return Err(format!("{} registers", registers.len()));
            }
            registers.iter().try_for_each(|value| hex(value).map(drop))?;
            if report.get("address").is_some() {
                list(&report, "about")?.iter().try_for_each(|note| {
                    note.as_str().filter(|note| !note.is_empty()).map(drop).ok_or("an empty description".to_owned())
                })?;
            }
            backtrace(&report)?;
            // In the tests a stack overflows by a recursion, whose frames are one entry.
            let often = |caller: &Value| number(caller, "times").is_ok_and(|times| times >= RECURSION);
            match text(&report, "cause")?.starts_with("stack overflow")
                && !list(&report, "backtrace")?.iter().any(often)
            {
                true => Err("a recursion that is not told as one".to_owned()),
                false => Ok(()),
            }
        }
        "panic" => {
            text(&report, "message")?;
            text(&report, "place")?;
            backtrace(&report)
        }
        "misuse" => {
            text(&report, "message")?;
            backtrace(&report)
        }
        "second" | "nested" => text(&report, "message").map(drop),
        _ => Err(format!("unknown kind {kind:?}")),
    }
}

fn text<'a>(report: &'a Value, name: &str) -> Result<&'a str, String> {
    report[name].as_str().ok_or_else(|| format!("no text {name:?}"))
}

fn number(report: &Value, name: &str) -> Result<u64, String> {
    report[name].as_u64().ok_or_else(|| format!("no number {name:?}"))
}

fn list<'a>(report: &'a Value, name: &str) -> Result<&'a Vec<Value>, String> {
    report[name].as_array().ok_or_else(|| format!("no array {name:?}"))
}

fn hex(value: &Value) -> Result<u64, String> {
    let digits = value.as_str().and_then(|text| text.strip_prefix("0x"));
    digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or_else(|| format!("no 0x… but {value}"))
}

/// An address of code, with its function where one is known.
fn symbol(value: &Value) -> Result<(), String> {
    hex(&value["at"])?;
    if value.get("function").is_some() {
        text(value, "function")?;
        // A return address may be the end of its function.
        if number(value, "offset")? > number(value, "size")? {
            return Err(format!("an offset beyond the function: {value}"));
        }
    }
    Ok(())
}

fn backtrace(report: &Value) -> Result<(), String> {
    let callers = list(report, "backtrace")?;
    if callers.is_empty() {
        return Err("an empty backtrace".to_owned());
    }
    callers.iter().try_for_each(|caller| {
        symbol(caller)?;
        number(caller, "times").and_then(|times| if times == 0 { Err("no times".to_owned()) } else { Ok(()) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PANIC: &str = r#"{"report":"panic","cpu":1,"microseconds":5,"message":"\"no\"\n","place":"a.rs:1:2","backtrace":[{"at":"0xffff","function":"f","offset":4,"size":4,"times":1},{"at":"0x1","times":2}]}"#;

    #[test]
    fn a_report_is_read_and_its_members_are_missed() {
        check(&format!("text\n{PANIC}\nmore\n")).unwrap();
        for (part, without) in [
            ("\"cpu\":1,", ""),
            ("panic", "pain"),
            ("\"message\":", "\"massage\":"),
            ("0xffff", "65535"),
            ("\"size\":4", "\"size\":3"),
            (",\"times\":2", ""),
            ("]}", "}"),
            ("\\\"no", "\"no"),
        ] {
            let damaged = PANIC.replace(part, without);
            assert_ne!(damaged, PANIC);
            assert!(check(&damaged).is_err(), "{damaged}");
        }
        let overflow = |times: u32| {
            let symbol = r#"{"at":"0x1","function":"f","offset":4,"size":4"#;
            let x = [r#""0x0""#; 31].join(",");
            format!(
                r#"{{"report":"fault","cpu":0,"microseconds":5,"cause":"stack overflow","syndrome":"s","sp":"0x1","spsr":"0x1","esr":"0x1","far":"0x1","pc":{symbol}}},"lr":{symbol}}},"x":[{x}],"backtrace":[{symbol},"times":{times}}}]}}"#
            ) + "\n"
        };
        check(&overflow(64)).unwrap();
        assert!(check(&overflow(1)).unwrap_err().starts_with("a recursion that is not told as one"));
        assert_eq!(check("no report\n"), Err("the console shows no report in JSON".to_owned()));
    }
}
