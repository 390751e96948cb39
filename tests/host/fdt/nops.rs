//! FDT_NOP tokens are squeezed out, and nothing else changes.

use super::builder::{Builder, corpus_tree};
use quarry::fdt::{FdtError, Tree, precheck};

#[test]
fn a_read_only_blob_with_nops_is_refused_with_their_count() {
    let blob = Builder::root(2, 2).nop().begin("child").nop().end().nop().finish();
    assert_eq!(Tree::from_read_only(&blob).unwrap_err(), FdtError::HasNops { count: 3 });
}

#[test]
fn nops_are_found_in_every_place_that_the_grammar_knows() {
    let with = |nop: bool| {
        let maybe = |tree: Builder| if nop { tree.nop().nop() } else { tree };
        let tree = maybe(Builder::default()).begin("");
        let tree = maybe(maybe(tree).str("model", "a")).begin("one");
        let tree = maybe(maybe(maybe(tree).flag("x").end()).begin("two").end()).end();
        maybe(tree).token(super::builder::END).assemble()
    };
    let (mut noisy, plain) = (with(true), with(false));
    let tree = Tree::new(&mut noisy).unwrap();
    let expected = Tree::from_read_only(&plain).unwrap();
    assert_eq!(tree.header().counts(), expected.header().counts());
    assert_eq!(tree.report().to_string(), expected.report().to_string());
}

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn a_squeezed_blob_passes_the_check_again_and_stays_as_it_is() {
    for name in ["qemu-raspi4b", "uboot-qemu-raspi4b", "nop-hip07-d05", "nop-qemu-virt-numa2"] {
        let mut blob = corpus_tree(name);
        let before = precheck(&blob).unwrap().counts();
        assert!(before.nops > 0, "{name}");
        let squeezing = Tree::new(&mut blob).unwrap();
        let (first, header) = (squeezing.report().to_string(), *squeezing.header());
        let squeezed = blob.clone();
        assert_eq!(precheck(&blob), Ok(header), "{name}");
        let after = header.counts();
        assert_eq!((after.nops, after.nodes, after.properties), (0, before.nodes, before.properties), "{name}");
        assert_eq!(Tree::new(&mut blob).unwrap().report().to_string(), first, "{name}");
        assert_eq!(blob, squeezed, "{name}");
    }
}

#[test]
fn a_blob_that_is_refused_is_not_touched() {
    let mut blob = Builder::root(2, 2).nop().token(7).finish();
    let before = blob.clone();
    assert!(Tree::new(&mut blob).is_err());
    assert_eq!(blob, before);
}
