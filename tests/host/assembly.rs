//! Checks of the boot stub by reading its source: every routine states its contract, and nothing that runs with the MMU off
//! makes an exclusive access.

use std::fs;

const FILES: [&str; 8] = ["head", "el", "gic", "secondary", "tables", "mmu", "vectors", "user"];
/// Those that run with the MMU on.
const LATER: [&str; 2] = ["vectors", "user"];

fn lines(name: &str) -> Vec<String> {
    let path = format!("{}/boot/{name}.S", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

/// The mnemonic of a line, without its label and comment.
fn mnemonic(line: &str) -> &str {
    let code = line.split("//").next().unwrap_or("");
    let code = code.rsplit_once(':').map_or(code, |(_, rest)| rest);
    code.split_whitespace().next().unwrap_or("")
}

fn is_exclusive(mnemonic: &str) -> bool {
    let families = ["ldx", "ldax", "stx", "stlx", "cas", "swp", "ldadd", "ldclr", "ldset", "ldeor", "ldsmax", "ldumin"];
    families.iter().any(|family| mnemonic.starts_with(family))
}

#[test]
fn nothing_is_exclusive_before_the_mmu_is_on() {
    for name in FILES.iter().filter(|name| !LATER.contains(name)) {
        for line in lines(name) {
            assert!(!is_exclusive(mnemonic(&line)), "{name}.S: {line}");
        }
    }
    assert!(is_exclusive(mnemonic("1:\tldaxr x0, [x1]\t// locked")));
    assert!(is_exclusive(mnemonic("\tswpal x0, x1, [x2]")) && !is_exclusive(mnemonic("\tldp x0, x1, [x2]")));
}

#[test]
fn every_global_routine_states_its_contract() {
    let mut routines = 0;
    for name in FILES {
        let lines = lines(name);
        let is_data = |symbol: &str| symbol.starts_with("__");
        for (number, line) in lines.iter().enumerate() {
            let Some(symbol) = line.trim().strip_prefix(".global").map(str::trim) else { continue };
            if is_data(symbol) || ["_head", "park", "exception_vectors", "exception_vectors_end"].contains(&symbol) {
                continue;
            }
            routines += 1;
            let comment: Vec<_> =
                lines[..number].iter().rev().take_while(|line| line.starts_with("//")).map(String::as_str).collect();
            let text = comment.join("\n");
            assert!(text.contains("in:") || text.contains("state:"), "{name}.S: {symbol} has no contract above it");
        }
    }
    assert!(routines >= 8, "{routines} routines found");
}
