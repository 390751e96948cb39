//! `quarry-report page LOG TABLE OUT`: the lines that `record` printed at the prompt, and a table of benchmarks, as one HTML page.
//! `quarry-report check DOM LOG LIGHT DARK`: what a browser has made of the page, and its two pictures.
//! `quarry-report picture LOG FROM OUT [TO]`: the console's text from the first line with FROM on, as an SVG of a terminal; up to
//! before the next line with TO.

mod charts;
mod check;
mod page;
mod picture;
mod record;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["page", log, table, out] => read(log).and_then(|log| {
            let record = record::Record::read(&log)?;
            // Without benchmarks the page says so.
            let table = std::fs::read_to_string(table).unwrap_or_default();
            write(out, &page::page(&record, &table)?)
        }),
        ["check", dom, log, light, dark] => read(log).and_then(|log| {
            println!("the page: {}", check::check(&read(dom)?, &log)?);
            let bytes = |path: &str| std::fs::read(path).map_err(|error| format!("{path}: {error}"));
            check::pictures(&bytes(light)?, &bytes(dark)?)
        }),
        ["picture", log, from, out] => read(log).and_then(|log| write(out, &picture::picture(&log, from, None)?)),
        ["picture", log, from, out, to] => {
            read(log).and_then(|log| write(out, &picture::picture(&log, from, Some(to))?))
        }
        _ => {
            Err("usage: quarry-report page LOG TABLE OUT | check DOM LOG LIGHT DARK | picture LOG FROM OUT [TO]".to_owned())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("quarry-report: {why}");
            ExitCode::FAILURE
        }
    }
}

fn read(path: &str) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    Ok(String::from_utf8_lossy(&bytes).replace('\r', ""))
}

fn write(path: &str, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{path}: {error}"))
}
