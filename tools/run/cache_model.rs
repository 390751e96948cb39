//! `quarry-run cache-model PLUGIN ELF`: boots every way there is under the model of the caches (`tools/cache-model`), which
//! must have nothing to say; and then again, each time with one instruction of the boot path's maintenance left out, which
//! it must report. An instruction is left out by a NOP in the linked image, so nothing is built anew.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::boot::BATCH;
use crate::console::{Event, Running};
use crate::elf::Kernel;
use crate::machine::Spec;
use crate::qemu::{self, Console, Program};

/// How long a machine may take.
const LIMIT: Duration = Duration::from_secs(60);
const NOP: u32 = 0xd503_201f;
/// What the plugin's lines begin with.
const MARK: &str = "cache-model: ";
/// Status with which the plugin ends a machine that it has something to say of.
const FOUND: i32 = 3;
/// How far behind an instruction the barrier that completes it is looked for.
const NEAR: u64 = 48;

/// A way to boot.
struct Scenario {
    name: &'static str,
    machine: &'static str,
    /// A kernel test to run, for what only a test does.
    test: Option<&'static str>,
    /// How often a CPU's MMU goes on.
    starts: u32,
}

const fn boot(name: &'static str, machine: &'static str, starts: u32) -> Scenario {
    Scenario { name, machine, test: None, starts }
}

/// All of them on CPUs whose copies of memory are loads and stores, so that the model sees them.
const SCENARIOS: [Scenario; 11] = [
    boot("image_el1_four_cpus", "smp=4", 4),
    boot("image_el2_gicv3", "smp=4 virtualization gic=3", 4),
    boot("image_el3_firmware", "smp=2 secure", 2),
    boot("elf_el1", "loader=elf", 1),
    boot("elf_el3_four_cpus", "smp=4 loader=elf secure virtualization", 1),
    boot("uboot", "smp=2 loader=uboot", 2),
    boot("uboot_el2", "loader=uboot virtualization", 1),
    boot("raw_dirty", "smp=2 loader=raw dirty", 2),
    boot("tree_across_pages", "loader=raw fdt_at=0x44000ff8", 1),
    boot("pi_spin_table", "board=raspi4b serial=1 dtb=tests/data/dtb/boards/bcm2711-rpi-4-b.dtb.gz", 4),
    // One CPU goes offline by PSCI and comes back.
    Scenario { name: "cpu_off_and_on", machine: "smp=4", test: Some("cpus::every_cpu_ticks::four"), starts: 5 },
];

/// Scenarios in which the plants are looked for: the way from EL1, and what only the spin table does.
const PLANTED_IN: [&str; 2] = ["image_el1_four_cpus", "pi_spin_table"];

/// What a machine said under the model.
struct Seen {
    findings: Vec<String>,
    /// Executed instructions of maintenance, by their distance from the start of the image.
    executed: BTreeMap<u64, String>,
    end: Option<String>,
    status: Option<i32>,
    /// For the report of a failure.
    log: String,
}

fn run(scenario: &Scenario, plugin: &str, kernel: &Kernel, stop: bool) -> Result<Seen, String> {
    let words = match scenario.test {
        None => BATCH.to_owned(),
        Some(name) => {
            let tests = kernel.tests()?.unwrap_or_default();
            let test =
                tests.iter().find(|test| test.name == name).ok_or_else(|| format!("no test {name} in the file"))?;
            format!("ktest={}", test.number)
        }
    };
    let spec = Spec::parse(scenario.machine)?;
    let mut machine = qemu::machine(&spec, &Program { kernel }, &words, Console::Script)?;
    let parameters = format!("{plugin},image={},list=on", kernel.image()?.bytes.len());
    let parameters = if stop { parameters + ",stop=on" } else { parameters };
    // With one thread for all CPUs, QEMU 10.0 tells a plugin the CPU that translated an instruction, not the one that executes it.
    machine.command.args(["-accel", "tcg,thread=multi", "-plugin", &parameters]);
    let mut running = Running::start(machine)?;
    let deadline = running.deadline(LIMIT);
    let status = loop {
        match running.wait(&deadline)? {
            Event::Text => {}
            Event::Ended(status) => break status.code(),
            Event::TimedOut => break None,
        }
    };
    let mut seen = Seen { findings: Vec::new(), executed: BTreeMap::new(), end: None, status, log: String::new() };
    for line in running.remarks.lines().filter_map(|line| line.strip_prefix(MARK)) {
        if let Some(executed) = line.strip_prefix("executed: image+0x") {
            let (offset, what) = executed.split_once(' ').unwrap_or((executed, ""));
            let offset = u64::from_str_radix(offset, 16).map_err(|e| format!("{line:?}: {e}"))?;
            // The count stands last.
            let what = what.rsplit_once(' ').map_or(what, |(what, _)| what);
            seen.executed.insert(offset, what.to_owned());
        } else if let Some(end) = line.strip_prefix("end: ") {
            seen.end = Some(end.to_owned());
        } else if !line.starts_with("executed: ") {
            seen.findings.push(line.to_owned());
        }
    }
    seen.log = format!("{}\n{}{}", running.command, running.text, running.remarks);
    Ok(seen)
}

/// The reason why a boot of the kernel as it is does not pass. Instructions that are exchanged are cleaned through a window that the
/// model does not know: two lines of each at unknown addresses at most.
fn fault(scenario: &Scenario, seen: &Seen, exchanged: u64) -> Option<String> {
    if let Some(finding) = seen.findings.first() {
        return Some(finding.clone());
    }
    if seen.status != Some(0) {
        return Some(format!("the machine ended with {:?}", seen.status));
    }
    let Some(end) = &seen.end else { return Some("the plugin never reported".to_owned()) };
    let starts = format!("; MMU on {} times,", scenario.starts);
    // It must have seen what it judges.
    let unknown =
        end.strip_suffix(" more at unknown addresses").and_then(|rest| rest.rsplit(' ').next()?.parse::<u64>().ok());
    let blind = !end.contains(&starts) || unknown.is_none_or(|unknown| unknown > exchanged);
    blind.then(|| format!("the model saw too little, or too much: {end}"))
}

/// One omission: its name, and the words of the image that change.
struct Plant {
    name: String,
    words: Vec<(u64, u32)>,
}

/// The places where maintenance is left out: by address from the start of the image.
fn plants(kernel: &Kernel, executed: &BTreeMap<u64, String>) -> Result<Vec<Plant>, String> {
    let text = kernel.symbol("_text")?;
    let code = kernel.code()?;
    let symbol = |name| kernel.symbol(name).map(|at| at - text);
    let idmap = symbol("__idmap_text_start")?;
    let early_end = symbol("__idmap_text_end")?;
    // The rest of the stub, which runs at the link address.
    let named = [("drop_idmap", symbol("drop_idmap")?), ("replace_ttbr1", symbol("replace_ttbr1")?)];
    let mut found = Vec::new();
    let name_of = |at: u64| code.functions.get(&code.function(at)).map_or("", String::as_str);
    // Where instructions are exchanged: whether fetches see what was stored there is beyond the model.
    let is_known = |&(offset, _): &(u64, &str)| !name_of(text + offset).contains("alternative::");
    let list: Vec<_> = executed.iter().map(|(&offset, what)| (offset, what.as_str())).filter(is_known).collect();
    for (index, &(offset, what)) in list.iter().enumerate() {
        let part = named.iter().find(|(_, start)| (*start..start + NEAR).contains(&offset));
        let near = |&&(before, _): &&(u64, &str)| offset.saturating_sub(before) < NEAR;
        let last = list
            .get(..index)
            .unwrap_or_default()
            .iter()
            .rev()
            .filter(near)
            .map(|&(_, what)| what)
            .find(|what| *what != "isb");
        // A barrier belongs to what it completes, or orders.
        let is_meant = match what {
            "isb" | "dc zva" => false,
            "dc civac" | "dc cvac" => true,
            "dsb" if matches!(last, Some("dc civac" | "dc cvac")) => true,
            "dsb" => last.is_some_and(|last| last != "dsb") && (offset < early_end || part.is_some()),
            _ => offset < early_end || part.is_some(),
        };
        if !is_meant {
            continue;
        }
        let place = part.map_or_else(
            || if (idmap..early_end).contains(&offset) { "idmap " } else { "" }.to_owned(),
            |(name, _)| format!("{name} "),
        );
        let mut plant = Plant { name: format!("{place}image+{offset:#x} {what}"), words: vec![(text + offset, NOP)] };
        // `dsb; ic iallu; dsb`: the second completes what the first is for, so both must go.
        if what == "dsb" && list.get(index + 2).is_some_and(|&(next, what)| what == "dsb" && next == offset + 8) {
            plant.name += ", and the next";
            plant.words.push((text + offset + 8, NOP));
        }
        found.push(plant);
    }
    // Each call of the routine that invalidates the early tables, and of the one that cleans for a CPU with its MMU off: the table
    // that it finds its stack in, and the word of a spin table, which it may see at any time.
    let invalidate = text + symbol("invalidate")?;
    let is_clean = |&&(offset, what): &&(u64, &str)| offset >= early_end && matches!(what, "dc civac" | "dc cvac");
    let cleans = list.iter().find(is_clean).map(|&(offset, _)| code.function(text + offset));
    for at in (text..text + symbol("_etext")?).step_by(4) {
        let Some(word) = code.word(at).filter(|word| word >> 26 == 0b10_0101) else { continue };
        let target = at.wrapping_add_signed(i64::from((word << 6).cast_signed() >> 6) * 4);
        let name = if target == invalidate {
            "bl invalidate"
        } else if Some(target) == cleans && name_of(at).contains("::cpus::start::") {
            "bl clean_and_invalidate_to_poc"
        } else {
            continue;
        };
        found.push(Plant { name: format!("image+{:#x} {name} in {}", at - text, name_of(at)), words: vec![(at, NOP)] });
    }
    for caller in ["::bring_up", "::release"] {
        if !found.iter().any(|plant| plant.name.ends_with(caller)) {
            return Err(format!("no clean is called in {caller}: what a CPU reads with its MMU off is not left out"));
        }
    }
    // Walks that bypass the caches: IRGN and ORGN of both halves, in the literal that TCR_EL1 is made of.
    const WALKS: u64 = 0xf << 8 | 0xf << 24;
    const CACHEABLE: u64 = 0x5 << 8 | 0x5 << 24;
    let literal = (text + idmap..text + early_end).step_by(4).find(|&at| {
        let [low, high] = [code.word(at), code.word(at + 4)].map(|word| u64::from(word.unwrap_or_default()));
        // TG1 tells it from other words.
        (high << 32 | low) & (WALKS | 3 << 30) == CACHEABLE | 2 << 30
    });
    let literal = literal.ok_or("no literal for TCR_EL1 in the idmap page")?;
    let low = code.word(literal).unwrap_or_default();
    let without = low & !u32::try_from(WALKS).unwrap_or_default();
    found.push(Plant { name: "walks past the caches in TCR_EL1".to_owned(), words: vec![(literal, without)] });
    Ok(found)
}

/// Runs all of it, and prints it as libtest would. Whether all passed.
pub(crate) fn check(plugin: &str, elf: &Path) -> Result<bool, String> {
    let plugin = std::path::absolute(plugin).map_err(|e| format!("{plugin}: {e}"))?;
    let plugin = plugin.to_str().ok_or("the plugin's path is not UTF-8")?;
    let kernel = Kernel::read(elf)?;
    // Sixteen bytes for each; a line of data and one of instructions.
    let alternatives = |end| kernel.symbol(&format!("__{end}_quarry_alternatives"));
    let exchanged = (alternatives("stop")? - alternatives("start")?) / 16 * 2;
    let (mut passed, mut failed) = (0, 0);
    let begun = Instant::now();
    let mut tell = |name: &str, why: Option<String>, log: &str| {
        if let Some(why) = &why {
            failed += 1;
            println!("test cache_model::{name} ... FAILED\n    {why}\n{log}");
        } else {
            passed += 1;
            println!("test cache_model::{name} ... ok");
        }
    };
    let mut executed = BTreeMap::new();
    for scenario in &SCENARIOS {
        let seen = run(scenario, plugin, &kernel, false)?;
        tell(scenario.name, fault(scenario, &seen, exchanged), &seen.log);
        executed.extend(seen.executed);
    }
    for plant in plants(&kernel, &executed)? {
        let patched = kernel.patched(&plant.words)?;
        let mut reported = None;
        let mut log = String::new();
        for scenario in SCENARIOS.iter().filter(|scenario| PLANTED_IN.contains(&scenario.name)) {
            let seen = run(scenario, plugin, &patched, true)?;
            reported = seen.findings.first().filter(|_| seen.status == Some(FOUND)).cloned();
            if reported.is_some() {
                break;
            }
            log = seen.end.unwrap_or_default();
        }
        let name = format!("planted {}", plant.name);
        match reported {
            Some(finding) => tell(&format!("{name}: {finding}"), None, ""),
            None => tell(&name, Some("left out, and the model has nothing to say".to_owned()), &log),
        }
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; finished in {:.1}s",
        begun.elapsed().as_secs_f64()
    );
    Ok(failed == 0)
}
