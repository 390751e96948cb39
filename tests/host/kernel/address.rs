//! Addresses as they are typed.

use quarry::addr::{Pfn, PhysAddr, VirtAddr};
use quarry::kernel::address::{NoAddress, Typed};

#[test]
fn an_address_has_four_forms() {
    assert_eq!(Typed::parse("0xffff_8000_8000_0000"), Ok(Typed::Virtual(VirtAddr::new(0xffff_8000_8000_0000))));
    assert_eq!(Typed::parse("4096"), Ok(Typed::Virtual(VirtAddr::new(4096))));
    assert_eq!(Typed::parse("phys:0x40000000"), Ok(Typed::Physical(PhysAddr::new(0x4000_0000))));
    assert_eq!(Typed::parse("pfn:262144"), Ok(Typed::Frame(Pfn::new(0x4_0000))));
    assert_eq!(Typed::parse("exception_vectors"), Ok(Typed::Symbol("exception_vectors", 0)));
    assert_eq!(Typed::parse("<a::B as core::C>::d+0x1c"), Err(NoAddress), "a line has words");
    assert_eq!(Typed::parse("a::b::c+0x1c"), Ok(Typed::Symbol("a::b::c", 0x1c)));
}

#[test]
fn text_that_is_no_address_is_refused_with_the_forms() {
    for text in [
        "",
        "0xzz",
        "1 2",
        "phys:",
        "phys:x",
        "phys:0x1_0000_0000_0000_0000",
        "pfn:-1",
        "pfn:0x10000000000000",
        "name+",
        "name+x",
        "\u{e9}",
    ] {
        assert_eq!(Typed::parse(text), Err(NoAddress), "{text:?}");
    }
    let told = NoAddress.to_string();
    let examples = told.split_once("such as ").expect("examples").1.replace(" or ", ", ");
    assert_eq!(examples.split(", ").count(), 4);
    for example in examples.split(", ") {
        assert!(Typed::parse(example).is_ok(), "{example:?} is an example of an address");
    }
}
