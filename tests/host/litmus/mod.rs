//! Litmus tests: the protocols by which CPUs share tables and start each other, over every execution that the architecture
//! permits (`machine.rs`), complete and with each barrier left out (`programs.rs` has them as `src` has them).

mod machine;
mod programs;

use machine::Litmus;
use std::fs;

/// The protocol has no bad execution.
fn holds(litmus: &Litmus) {
    let (wrong, moments) = litmus.explore();
    assert!(wrong.is_empty(), "{wrong:?} in {moments} moments");
    println!("{moments} moments");
}

/// Tests of one protocol: complete, and with each of the named instructions left out, or its acquire or release.
macro_rules! protocol {
    ($name:ident, $($left_out:ident: $label:literal => $wrong:literal),* $(,)?) => {
        mod $name {
            #[test]
            fn complete_has_no_bad_execution() {
                super::holds(&super::programs::$name());
            }
            $(
                #[test]
                fn $left_out() {
                    let (wrong, moments) = super::programs::$name().without($label).explore();
                    assert!(wrong.contains($wrong), "{wrong:?} in {moments} moments");
                }
            )*
        }
    };
}

protocol!(publish,
    without_the_dsb_the_cpu_that_mapped_it_faults: "dsb ishst" => "the CPU that mapped it faults",
    without_the_isb_the_cpu_that_mapped_it_faults: "isb" => "the CPU that mapped it faults",
    without_the_acquire_old_data_are_read: "acquire" => "a CPU reads old data",
    without_the_handler_a_fault_from_before_counts: "handler of spurious faults" => "a CPU that heard of it faults twice",
);
protocol!(publish_table,
    without_the_dsb_a_walker_sees_the_frame_as_it_was:
        "dsb ishst" => "a walker sees what the frame held before it was a table",
);
protocol!(unmap,
    without_the_dsb_before_it_the_invalidation_comes_too_early:
        "dsb ishst" => "a CPU writes into memory that has a new owner",
    without_the_invalidation_a_translation_stays: "tlbi" => "a CPU writes into memory that has a new owner",
    without_the_dsb_behind_it_nobody_has_waited: "dsb ish" => "a CPU writes into memory that has a new owner",
    without_the_isb_an_instruction_keeps_its_translation: "isb" => "the CPU that unmapped it still reads it",
);
protocol!(unmap_table,
    without_the_dsb_before_it_the_invalidation_comes_too_early:
        "dsb ishst" => "a walker goes through a frame that is no table any more",
    with_the_last_level_alone_a_cached_table_stays:
        "any level: tlbi" => "a walker goes through a frame that is no table any more",
    without_the_dsb_behind_it_nobody_has_waited: "dsb ish" => "a walker goes through a frame that is no table any more",
);
protocol!(break_before_make,
    without_the_break_there_are_two_translations: "break" => "two translations at once",
    without_the_dsb_before_it_the_invalidation_comes_too_early: "dsb ishst" => "two translations at once",
    without_the_invalidation_there_are_two_translations: "tlbi" => "two translations at once",
    without_the_dsb_behind_it_nobody_has_waited: "dsb ish" => "two translations at once",
    without_the_dsb_of_the_make_its_cpu_faults: "dsb ishst of the make" => "the CPU that made it faults",
    without_the_isb_of_the_make_its_cpu_faults: "isb of the make" => "the CPU that made it faults",
);
protocol!(hold,
    without_the_acquire_of_is_held_older_data_are_seen:
        "acquire of is_held" => "what it did before is not there when it is held",
    without_the_release_of_the_arrival_it_faults_before: "stlr" => "the other CPU faults before it is held",
    without_the_isb_of_wait_here_it_faults_after: "isb of wait_here" => "the other CPU faults after it was held",
    without_the_dsb_before_it_the_invalidation_comes_too_early: "dsb ishst" => "two translations at once",
    without_the_invalidation_there_are_two_translations: "tlbi" => "two translations at once",
    without_the_dsb_behind_it_nobody_has_waited: "dsb ish" => "two translations at once",
);
protocol!(spin_table,
    without_the_clean_of_the_table_it_is_old: "clean of the table" => "the CPU that starts reads an old table",
    without_the_dsb_behind_the_table_it_comes_after_the_word:
        "dsb behind the table" => "the CPU that starts reads an old table",
    without_the_clean_of_the_word_it_is_never_seen: "clean of the word" => "a CPU waits for ever",
    without_the_dsb_behind_the_word_the_event_comes_first: "dsb behind the word" => "a CPU waits for ever",
    without_the_event_the_cpu_sleeps_on: "sev" => "a CPU waits for ever",
);

/// What one barrier does, another does as well: leaving out one of them changes nothing, leaving out both does.
#[test]
fn barriers_that_are_doubled_are_needed_together() {
    type Doubled = (fn() -> Litmus, &'static str, &'static str);
    let doubled: [Doubled; 3] = [
        (programs::break_before_make, "isb", "isb of the make"),
        (programs::hold, "release", "dsb ishst of the make"),
        (programs::hold, "ldaxr", "isb of wait_here"),
    ];
    for (litmus, one, other) in doubled {
        holds(&litmus().without(one));
        assert!(!litmus().without(one).without(other).explore().0.is_empty(), "without {one} and {other}");
    }
}

/// The text of a function of `src`.
fn body(file: &str, function: &str) -> String {
    let path = format!("{}/src/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path).expect("the source is there");
    let start = ["(", "<"].iter().find_map(|open| text.find(&format!("fn {function}{open}")));
    let start = start.unwrap_or_else(|| panic!("{file} has no {function}"));
    let indent = text[..start].rfind('\n').map_or("", |line| {
        let line = &text[line + 1..start];
        &line[..line.len() - line.trim_start().len()]
    });
    let end = text[start..].find(&format!("\n{indent}}}")).expect("a function ends");
    text[start..start + end].to_owned()
}

/// The programs mirror functions of `src`: a change of the order there is made here too.
#[test]
fn the_programs_are_those_of_the_source() {
    let sequences: [(&str, &str, &[&str]); 12] = [
        ("arch/aarch64/tlb.rs", "publish", &["\"dsb ishst\", \"isb\""]),
        ("arch/aarch64/tlb.rs", "order_before_invalidate", &["\"dsb ishst\""]),
        ("arch/aarch64/tlb.rs", "complete", &["complete_invalidation!()"]),
        ("arch/aarch64/mmu.rs", "publish_table", &["tlb::order_before_invalidate()"]),
        ("mm/pgtable/map.rs", "map_blocks", &["self.mmu.publish()"]),
        ("mm/pgtable/table.rs", "link", &["mmu.publish_table()", "compare_exchange"]),
        ("mm/pgtable/gather.rs", "flush_leaf", &["order_before_invalidate()", "invalidate(", "complete()"]),
        (
            "arch/aarch64/break_window.rs",
            "rebuild",
            &[
                "bic",
                "str",
                "dsb ishst",
                "tlbi vmalle1is",
                "complete_invalidation!()",
                "orr",
                "str",
                "dsb ishst",
                "isb",
            ],
        ),
        ("arch/aarch64/stop_machine.rs", "wait_here", &["stlr", "ldaxr", "wfe", "isb"]),
        ("arch/aarch64/stop_machine.rs", "is_held", &["Ordering::Acquire"]),
        ("arch/aarch64/stop_machine.rs", "release", &["Ordering::Release", "send_event()"]),
        ("arch/aarch64/spin_table.rs", "release", &["write_volatile", "clean_and_invalidate_to_poc(", "send_event()"]),
    ];
    for (file, function, parts) in sequences {
        let body = body(file, function);
        let mut rest = body.as_str();
        for part in parts {
            let at = rest.find(part).unwrap_or_else(|| panic!("{file}: {function} has no {part:?} there any more"));
            rest = &rest[at + part.len()..];
        }
    }
    // What `complete` is made of: a DSB, and a branch that is exchanged for an ISB where no CPU needs more.
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let alternative = fs::read_to_string(root.join("src/arch/aarch64/alternative.rs")).unwrap();
    const ISB: &str = "d5033fdf";
    let mut rest = alternative.as_str();
    for part in
        ["macro_rules! complete_invalidation", "\"dsb ish", "771: b 772f", "tlbi", "dsb ish", "isb", "771b, 0x1", ISB]
    {
        let at = rest.find(part).unwrap_or_else(|| panic!("complete_invalidation has no {part:?} there any more"));
        rest = &rest[at + part.len()..];
    }
    let clean = body("arch/aarch64/cache.rs", "clean_and_invalidate_to_poc");
    assert!(clean.contains("dc c") && clean.rfind("dsb sy") > clean.rfind("dc c"), "DC, then DSB");
}
