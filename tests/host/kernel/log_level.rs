use log::LevelFilter::{self, Debug, Error, Info, Off, Trace, Warn};
use quarry::kernel::bootargs::BootArgs;
use quarry::kernel::log_level::LogArguments;

fn filter(bootargs: &str) -> LevelFilter {
    let arguments = LogArguments::parse(BootArgs::new(bootargs));
    assert_eq!(arguments.refused, None, "{bootargs}");
    arguments.filter
}

#[test]
fn without_a_word_about_it_information_is_shown() {
    assert_eq!(filter(""), Info);
    assert_eq!(filter("console=ttyAMA0 root=/dev/vda logarithm=2 xlog=off log debugfs"), Info);
}

#[test]
fn levels_have_linuxs_numbers() {
    let expected = [Off, Off, Off, Off, Error, Warn, Warn, Info, Debug, Trace, Trace];
    for (number, level) in expected.into_iter().enumerate() {
        assert_eq!(filter(&format!("loglevel={number}")), level, "loglevel={number}");
    }
    assert_eq!(filter("loglevel=4294967295"), Trace);
}

#[test]
fn levels_have_names() {
    for (name, level) in [
        ("off", Off),
        ("error", Error),
        ("warn", Warn),
        ("info", Info),
        ("debug", Debug),
        ("trace", Trace),
        ("DEBUG", Debug),
    ] {
        assert_eq!(filter(&format!("log={name}")), level);
    }
    assert_eq!(filter("quiet"), Error);
    assert_eq!(filter("debug"), Debug);
    assert_eq!(filter("ignore_loglevel"), Trace);
}

#[test]
fn the_last_word_counts() {
    assert_eq!(filter("quiet mem=1G log=debug"), Debug);
    assert_eq!(filter("log=debug\tquiet"), Error);
}

#[test]
fn a_level_that_does_not_exist_is_named_and_changes_nothing() {
    for bad in ["log=", "log=loud", "loglevel=", "loglevel=-1", "loglevel=x", "loglevel=4294967296", "log=debug,info"] {
        let bootargs = format!("log=warn {bad} mem=1G log=also-bad");
        let arguments = LogArguments::parse(BootArgs::new(&bootargs));
        assert_eq!((arguments.filter, arguments.refused), (Warn, Some(bad)));
    }
}

#[test]
fn what_stands_in_quotes_is_no_word_about_the_log() {
    assert_eq!(filter("dyndbg=\"file a.c quiet loglevel=0\""), Info);
    assert_eq!(filter("\"log=debug\""), Debug);
    assert_eq!(filter("log=\"debug\" -- quiet"), Debug);
}
