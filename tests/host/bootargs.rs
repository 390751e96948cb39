//! Boot arguments: words, and sizes in them.

use quarry::addr::{Bytes, PhysAddr};
use quarry::kernel::bootargs::{ARGUMENTS, BootArgs, Kind, parse_number, parse_place, parse_size, parse_switch};
use quarry::mm::memblock::ContiguousRequest;

#[test]
fn arguments_are_words() {
    let args = BootArgs::new("memory=1  mem=200M a=b=c quarry.batch mem=100M");
    assert_eq!((args.value("mem"), args.value("a"), args.value("m")), (Some("100M"), Some("b=c"), None));
    assert!(args.flag("quarry.batch") && !args.flag("batch") && !args.flag("mem"));
    assert_eq!(args.size("mem"), Ok(Some(100 << 20)));
    assert_eq!(args.size("swap"), Ok(None));
    assert_eq!(BootArgs::new("mem=lots").size("mem"), Err("lots"));
}

#[test]
fn sizes_have_units_and_limits() {
    for (text, size) in [("0", 0), ("4096", 4096), ("0x1000", 4096), ("4k", 4096), ("2G", 2 << 30), ("1T", 1 << 40)] {
        assert_eq!(parse_size(text), Some(size), "{text}");
    }
    for text in ["_", "0x_", "_1", "1_", "1__0", "0x_1", "0x1_", "_K", "1_K", "+1", "0b1", "0o7", "1e3", "٣"] {
        assert_eq!((parse_size(text), parse_number(text)), (None, None), "{text}");
    }
    for text in ["", "M", "-1", "1.5G", "1 G", "0x", "0xg", "18446744073709551616", "16777216T", "200M,x", "é"] {
        assert_eq!(parse_size(text), None, "{text}");
    }
    assert_eq!(parse_number("0xffff_8000_8000_0000"), Some(0xffff_8000_8000_0000));
    assert_eq!(
        (parse_number("1_000"), parse_number("0XfF"), parse_size("1_0k")),
        (Some(1000), Some(255), Some(10 << 10))
    );
    assert_eq!(parse_number("18446744073709551615"), Some(u64::MAX));
}

#[test]
fn places_are_a_size_and_where() {
    let place = |size, start: Option<u64>, end: Option<u64>| {
        Some(ContiguousRequest { size, start: start.map(PhysAddr::new), end: end.map(PhysAddr::new) })
    };
    assert_eq!(parse_place("64M"), place(64 << 20, None, None));
    assert_eq!(parse_place("0"), place(0, None, None));
    assert_eq!(parse_place("64M@1G"), place(64 << 20, Some(1 << 30), None));
    assert_eq!(parse_place("16M@0x48000000-0x4c000000"), place(16 << 20, Some(0x4800_0000), Some(0x4c00_0000)));
    for text in ["", "@", "64M@", "@1G", "64M@1G-", "64M@1G-1G", "64M@1G-512M", "64M-1G", "64M@1G-2G-3G", "64M@1G@2G"] {
        assert_eq!(parse_place(text), None, "{text}");
    }
    let args = BootArgs::new("cma=lots cma=8M@2G cma=-1");
    assert_eq!(args.place("cma"), place(8 << 20, Some(2 << 30), None));
    assert_eq!(args.complaints().count(), 2);
    assert_eq!(BootArgs::new("cma").complaints().count(), 1);
}

#[test]
fn switches_have_linuxs_words() {
    for (text, switch) in [("1", true), ("y", true), ("on", true), ("0", false), ("N", false), ("off", false)] {
        assert_eq!(parse_switch(text), Some(switch), "{text}");
    }
    for text in ["", "maybe", "yes", "2", "o", "onn"] {
        assert_eq!(parse_switch(text), None, "{text}");
    }
}

fn words(line: &str) -> Vec<(&str, Option<&str>)> {
    BootArgs::new(line).words().map(|word| (word.name, word.value)).collect()
}

#[test]
fn quotes_hold_a_word_together() {
    let line = "dyndbg=\"file a.c mem=64M +p\" quarry.batch";
    assert_eq!(words(line), [("dyndbg", Some("file a.c mem=64M +p")), ("quarry.batch", None)]);
    assert_eq!(BootArgs::new(line).size("mem"), Ok(None));
    assert_eq!(words("\"a=b c\"\td"), [("a", Some("b c")), ("d", None)]);
    assert_eq!(words("a=x\"y z\"w mem=1M"), [("a", Some("x\"y z\"w")), ("mem", Some("1M"))]);
    assert_eq!(words("mem=\"64M\""), [("mem", Some("64M"))]);
    // A quote that is not closed reaches to the end, as in Linux.
    assert_eq!(words("a \"b mem=1M"), [("a", None), ("b mem", Some("1M"))]);
    assert_eq!(words("a=\"b mem=1M"), [("a", Some("b mem=1M"))]);
    assert_eq!(words(" \t\n "), []);
}

#[test]
fn what_follows_two_dashes_is_for_the_first_process() {
    assert_eq!(words("a --b -- mem=64M quiet"), [("a", None), ("--b", None)]);
    assert_eq!(BootArgs::new("quarry.batch -- mem=lots").size("mem"), Ok(None));
}

#[test]
fn dashes_and_underscores_are_the_same_in_names() {
    let args = BootArgs::new("init-on-alloc=1 min-free_kbytes=7");
    assert!(args.switch("init_on_alloc") && !args.switch("init_on_free"));
    assert_eq!(args.number("min_free_kbytes"), Some(7));
}

#[test]
fn a_line_that_is_no_text_is_heard_word_by_word() {
    let args = BootArgs::new(b"quarry.batch \xff\xfe x=\xc3\xa9 mem=1\xff vmalloc=2M\0kasan=on");
    assert!(args.flag("quarry.batch"));
    assert_eq!((args.value("x"), args.value("mem"), args.any_size("vmalloc")), (Some("\u{e9}"), None, Some(2 << 20)));
    assert!(!args.switch("kasan"), "the line ends at its first NUL");
    let said: Vec<_> = args.complaints().map(|complaint| complaint.to_string()).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("\"\\xff\\xfe\" is no text"), "{said:?}");
    assert!(said[1].contains("\"mem=1\\xff\" is no text"), "{said:?}");
    assert_eq!(args.to_string(), "quarry.batch \\xff\\xfe x=\u{e9} mem=1\\xff vmalloc=2M");
    assert!(BootArgs::new(b"  \0a").is_empty() && !args.is_empty());
}

#[test]
fn every_value_that_is_no_value_gets_a_line() {
    let complaints = |line: &str| BootArgs::new(line).complaints().map(|said| said.to_string()).collect::<Vec<_>>();
    for (name, kind) in ARGUMENTS {
        let (good, bad) = match kind {
            Kind::Size => ("=1M", "=x"),
            Kind::Number => ("=0x10", "=1M"),
            Kind::Place => ("=1M@2G-3G", "=1M@"),
            Kind::Switch => ("=off", "=maybe"),
            Kind::Form => ("=json", "=JSON"),
            Kind::Flag => ("", "=1"),
        };
        assert_eq!(complaints(&format!("a {name}{good} b=c")), [""; 0]);
        if name != "mem" {
            let said = complaints(&format!("a {name}{bad} b=c"));
            assert!(said.len() == 1 && said[0].contains(&format!("{name}{bad} ")), "{said:?}");
        }
        if kind != Kind::Flag {
            assert!(complaints(name)[0].contains(&format!("{name} has to be")), "{name} without a value");
            assert_eq!(complaints(&format!("{name}= x")).len(), usize::from(name != "mem"), "{name}");
        }
    }
    assert_eq!(
        complaints("dma_zone=x"),
        ["boot argument dma_zone=x has to be a size (a number, and K, M, G or T): not heard"]
    );
    assert_eq!(complaints("kasan=maybe kasan=on kasan=perhaps").len(), 2, "each");
    assert!(complaints("kasan=\"a\nb\"")[0].contains(r#"kasan=\"a\nb\" has"#), "in one line");
    assert_eq!(complaints("unknown=x memory=y kasan2=z mem=lots"), [""; 0]);
    // An ignored word does not cancel an earlier one.
    let args = BootArgs::new("kasan=on dma_zone=1M maxcpus=2 kasan=maybe dma_zone=x maxcpus=all");
    assert_eq!(
        (args.switch("kasan"), args.any_size("dma_zone"), args.number("maxcpus")),
        (true, Some(1 << 20), Some(2))
    );
    assert!(!BootArgs::new("kasan=on kasan=0").switch("kasan"));
    for (line, json) in [("", false), ("report=json report=xml", true), ("report=json report=text", false)] {
        assert_eq!(BootArgs::new(line).json("report"), json, "{line}");
    }
}

/// Every argument that the kernel asks for by kind is in the table, and of that kind.
#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn the_table_of_arguments_has_all_that_are_asked_for() {
    let kernel = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kernel");
    let mut asked = std::collections::BTreeSet::new();
    for file in std::fs::read_dir(kernel).unwrap().map(|file| file.unwrap().path()) {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        for (call, kind) in [
            ("size", Kind::Size),
            ("any_size", Kind::Size),
            ("number", Kind::Number),
            ("place", Kind::Place),
            ("switch", Kind::Switch),
            ("json", Kind::Form),
            ("flag", Kind::Flag),
        ] {
            for (at, found) in text.match_indices(&format!("args.{call}(")) {
                let name = text[at + found.len()..].split('"').nth(1).unwrap();
                assert!(ARGUMENTS.contains(&(name, kind)), "{name} in {}", file.display());
                asked.insert(name.to_owned());
            }
        }
    }
    assert_eq!(asked.len(), ARGUMENTS.len(), "{asked:?}");
}

#[test]
fn bytes_read_well() {
    for (bytes, text) in [
        (0, "0 bytes"),
        (13, "13 bytes"),
        (64 << 10, "64 KiB"),
        (948 << 20, "948 MiB"),
        (5 << 30, "5 GiB"),
        (1_046_784 << 10, "1022.2 MiB"),
        ((1 << 30) + 1, "1.0 GiB"),
        (u64::MAX, "17179869183.9 GiB"),
    ] {
        assert_eq!(Bytes(bytes).to_string(), text);
    }
}
