//! Boot arguments: words, and sizes in them.

use quarry::kernel::bootargs::{BootArgs, parse_number, parse_size};
use quarry::kernel::bytes::Bytes;

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
    for text in ["", "M", "-1", "1.5G", "1 G", "0x", "0xg", "18446744073709551616", "16777216T", "200M,x", "é"] {
        assert_eq!(parse_size(text), None, "{text}");
    }
    assert_eq!(parse_number("0xffff_8000_8000_0000"), Some(0xffff_8000_8000_0000));
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
