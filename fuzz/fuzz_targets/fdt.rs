//! Any bytes as a device tree: check them, squeeze out the NOPs, and ask everything that the kernel asks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quarry::fdt::{FdtError, Tree, precheck};
use std::fmt::{self, Write as _};

/// Nodes of which everything is asked.
const DESCRIBED: usize = 32;

/// Takes text and forgets it.
struct Nothing;

impl fmt::Write for Nothing {
    fn write_str(&mut self, _: &str) -> fmt::Result {
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let checked = precheck(data);
    let read_only = Tree::from_read_only(data);
    let mut blob = data.to_vec();
    let squeezed = Tree::new(&mut blob);
    match (checked, &read_only, &squeezed) {
        (Err(error), Err(same), Err(again)) => assert!(error == *same && error == *again),
        (Ok(header), Err(FdtError::HasNops { count }), Ok(_)) => assert_eq!(header.counts().nops, *count),
        (Ok(_), Ok(_), Ok(_)) => {}
        other => panic!("the doors disagree: {other:?}"),
    }
    if let Ok(tree) = squeezed {
        let _ = write!(Nothing, "{}", tree.report());
        // Each node's description walks the tree several times: the first few nodes are enough.
        for node in tree.nodes().take(DESCRIBED) {
            let _ = write!(Nothing, "{}", node.description());
            assert_eq!(tree.node_at(node.offset()), Some(node));
        }
        // What has been squeezed passes again, unchanged.
        let header = *tree.header();
        assert_eq!(precheck(&blob), Ok(header));
    }
});
