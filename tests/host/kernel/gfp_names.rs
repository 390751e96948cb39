//! Allocation flags as they are typed.

use quarry::gfp::Gfp;
use quarry::kernel::gfp_names::{GfpNameError, names, parse};

#[test]
fn flags_are_named_with_and_without_linux_prefixes() {
    for (text, flags) in [
        ("", Gfp::KERNEL),
        ("KERNEL", Gfp::KERNEL),
        ("gfp_kernel", Gfp::KERNEL),
        ("GFP_ATOMIC|__GFP_ZERO", Gfp::ATOMIC | Gfp::ZERO),
        ("KERNEL | nowarn", Gfp::KERNEL | Gfp::NOWARN),
    ] {
        assert_eq!(parse(text), Ok(flags), "{text:?}");
    }
    for name in names() {
        assert!(!matches!(parse(name), Err(GfpNameError::Unknown(_))), "{name} is offered");
    }
}

#[test]
fn flags_that_are_none_or_contradict_each_other_are_refused() {
    for (text, word) in [("BANANA", "BANANA"), ("KERNEL|", ""), ("KERNEL||ZERO", ""), ("KERNEL,ZERO", "KERNEL,ZERO")] {
        assert_eq!(parse(text), Err(GfpNameError::Unknown(word)), "{text:?}");
    }
    assert!(matches!(parse("ATOMIC|NOFAIL"), Err(GfpNameError::Refused(_))));
}
