//! Blobs that break a rule: each is refused, and the error says which rule and where.

use super::builder::{
    Builder, END, END_NODE, LAST_COMPATIBLE, OFF_RESERVE_MAP, OFF_STRINGS, OFF_STRUCT, PROP, SIZE_STRINGS, SIZE_STRUCT,
    TOTALSIZE, VERSION, patch, word,
};
use quarry::fdt::{Block, FdtError, MAX_DEPTH, MAX_PROPERTY_NAME, MAX_TOTALSIZE, Tree, precheck, totalsize};

fn sound() -> Vec<u8> {
    Builder::root(2, 2).str("model", "sound").memory("memory@0", &[0, 0, 0, 0x1000]).finish()
}

/// The offset of the structure block, where the root begins.
fn structure(blob: &[u8]) -> usize {
    word(blob, OFF_STRUCT) as usize
}

fn refused_with_header(offset: usize, value: u32) -> FdtError {
    let mut blob = sound();
    patch(&mut blob, offset, value);
    precheck(&blob).unwrap_err()
}

// Behaviour 51
#[test]
fn fewer_bytes_than_a_header_are_refused_at_every_length() {
    let blob = sound();
    for len in 0..40 {
        let short: Box<[u8]> = blob[..len].into();
        assert_eq!(precheck(&short), Err(FdtError::NoHeader { len }));
    }
}

// Behaviour 51
#[test]
fn wrong_magic_is_named() {
    assert_eq!(refused_with_header(0, 0x5441_0001), FdtError::BadMagic { found: 0x5441_0001 });
    assert_eq!(totalsize(&[5, 0, 0, 0, 0, 0, 0, 0]), Err(FdtError::BadMagic { found: 0x0500_0000 }));
}

// Behaviour 51
#[test]
fn only_version_17_and_what_is_compatible_with_it_are_read() {
    let refused = |version, last_compatible| FdtError::BadVersion { version, last_compatible };
    assert_eq!(refused_with_header(VERSION, 16), refused(16, 16));
    assert_eq!(refused_with_header(LAST_COMPATIBLE, 18), refused(17, 18));
    let mut newer = sound();
    patch(&mut newer, VERSION, 99);
    assert!(precheck(&newer).is_ok());
}

// Behaviour 52
#[test]
fn a_totalsize_beyond_the_buffer_is_refused_at_every_cut() {
    let blob = sound();
    for len in 40..blob.len() {
        let cut: Box<[u8]> = blob[..len].into();
        assert_eq!(precheck(&cut), Err(FdtError::Truncated { totalsize: blob.len() as u32, len }));
    }
}

// Behaviour 52
#[test]
fn a_totalsize_that_lies_is_refused() {
    for lie in [0, 8, 39, MAX_TOTALSIZE + 1, u32::MAX] {
        assert_eq!(refused_with_header(TOTALSIZE, lie), FdtError::BadTotalSize { totalsize: lie });
        let mut first = [0xd0, 0x0d, 0xfe, 0xed, 0, 0, 0, 0];
        first[4..].copy_from_slice(&lie.to_be_bytes());
        assert_eq!(totalsize(&first), Err(FdtError::BadTotalSize { totalsize: lie }));
    }
    // Smaller than what its own header says of the blocks.
    let strings = word(&sound(), OFF_STRINGS);
    let refused = refused_with_header(TOTALSIZE, sound().len() as u32 - 1);
    assert_eq!(refused, FdtError::BlockOutside { block: Block::Strings, offset: strings });
}

#[test]
fn what_follows_the_tree_in_the_buffer_is_neither_read_nor_written() {
    let mut blob = Builder::root(2, 2).nop().finish();
    let len = blob.len();
    blob.extend([0xaa; 64]);
    assert_eq!(Tree::new(&mut blob).unwrap().blob().len(), len);
    assert_eq!(blob[len..], [0xaa; 64]);
}

#[test]
fn blocks_outside_misaligned_or_overlapping_are_refused() {
    let blob = sound();
    let (structure, strings) = (word(&blob, OFF_STRUCT), word(&blob, OFF_STRINGS));
    let outside = |block, offset| FdtError::BlockOutside { block, offset };
    let misaligned = |block, offset| FdtError::BlockMisaligned { block, offset };
    let overlap = |first, second| FdtError::BlocksOverlap { first, second };
    let far = u32::MAX - 3;
    assert_eq!(refused_with_header(OFF_STRUCT, far), outside(Block::Structure, far));
    assert_eq!(refused_with_header(SIZE_STRUCT, u32::MAX), outside(Block::Structure, structure));
    assert_eq!(refused_with_header(OFF_STRINGS, far), outside(Block::Strings, far));
    assert_eq!(refused_with_header(SIZE_STRINGS, u32::MAX), outside(Block::Strings, strings));
    assert_eq!(refused_with_header(OFF_RESERVE_MAP, far - 4), outside(Block::ReserveMap, far - 4));
    assert_eq!(refused_with_header(OFF_STRUCT, structure + 2), misaligned(Block::Structure, structure + 2));
    assert_eq!(refused_with_header(OFF_RESERVE_MAP, 44), misaligned(Block::ReserveMap, 44));
    assert_eq!(refused_with_header(OFF_RESERVE_MAP, 32), overlap(Block::Header, Block::ReserveMap));
    assert_eq!(refused_with_header(OFF_STRINGS, structure), overlap(Block::Structure, Block::Strings));
}

#[test]
fn a_reserve_map_without_end_is_refused() {
    let mut blob = sound();
    let map = word(&blob, OFF_RESERVE_MAP) as usize;
    blob[map + 8..].fill(0x11);
    let outside = FdtError::BlockOutside { block: Block::ReserveMap, offset: map as u32 };
    assert_eq!(precheck(&blob), Err(outside));
}

// Behaviour 54
#[test]
fn a_node_name_that_does_not_end_in_the_block_is_refused() {
    let blob = Builder::default().token(super::builder::BEGIN_NODE).bytes(b"never").bytes(b"ends").assemble();
    // Padding would end the name: cut the block where the name is still going on.
    let mut blob = blob;
    patch(&mut blob, SIZE_STRUCT, 8);
    assert_eq!(precheck(&blob), Err(FdtError::BadNodeName { offset: structure(&blob) }));
}

#[test]
fn node_names_are_printable_without_slash_and_only_the_roots_is_empty() {
    let child = |name: &str| precheck(&Builder::root(2, 2).begin(name).end().finish()).map(|_| ());
    for name in ["a/b", "", "with space", "\u{7f}", "\u{e9}"] {
        assert!(matches!(child(name), Err(FdtError::BadNodeName { .. })), "{name:?}");
    }
    assert_eq!(child("a,b.c_d+e-f@1,2"), Ok(()));
    assert!(matches!(precheck(&Builder::default().begin("root").finish()), Err(FdtError::BadNodeName { .. })));
}

// Behaviour 54
#[test]
fn a_value_that_runs_out_of_the_block_is_refused() {
    let blob = Builder::default().begin("").flag("x").token(PROP).token(13).token(0).bytes(&[0; 4]).finish();
    assert!(matches!(precheck(&blob), Err(FdtError::ValueOutside { len: 13, .. })), "{:?}", precheck(&blob));
}

// Behaviour 55
#[test]
fn a_length_of_all_ones_does_not_wrap() {
    for len in [u32::MAX, u32::MAX - 1, u32::MAX - 3, u32::MAX - 11, i32::MAX as u32] {
        let blob = Builder::root(2, 2).token(PROP).token(len).token(0).finish();
        let refused = precheck(&blob).unwrap_err();
        assert!(matches!(refused, FdtError::ValueOutside { len: found, .. } if found == len), "{refused:?}");
    }
}

// Behaviour 54
#[test]
fn a_block_without_end_token_is_refused_at_every_cut() {
    let blob = sound();
    for size in (0..word(&blob, SIZE_STRUCT)).step_by(4) {
        let mut cut = blob.clone();
        patch(&mut cut, SIZE_STRUCT, size);
        let refused = precheck(&cut).unwrap_err();
        let expected = matches!(
            refused,
            FdtError::UnexpectedEnd { .. } | FdtError::ValueOutside { .. } | FdtError::BadNodeName { .. }
        );
        assert!(expected, "{size}: {refused:?}");
    }
}

#[test]
fn tokens_out_of_place_are_refused() {
    let refused = |blob: Vec<u8>| precheck(&blob).unwrap_err();
    let misplaced = |blob: Vec<u8>, token: u32| {
        let error = refused(blob);
        assert!(matches!(error, FdtError::MisplacedToken { found, .. } if found == token), "{error:?}");
    };
    misplaced(Builder::default().token(END).assemble(), END);
    misplaced(Builder::default().end().assemble(), END_NODE);
    misplaced(Builder::default().prop("before", &[]).assemble(), PROP);
    misplaced(Builder::root(2, 2).token(END).assemble(), END);
    misplaced(Builder::root(2, 2).begin("child").end().prop("late", &[]).finish(), PROP);
    misplaced(Builder::root(2, 2).end().begin("").end().token(END).assemble(), super::builder::BEGIN_NODE);
    misplaced(Builder::root(2, 2).end().end().token(END).assemble(), END_NODE);
    assert!(matches!(refused(Builder::root(2, 2).token(7).finish()), FdtError::BadToken { found: 7, .. }));
}

// Behaviour 56
#[test]
fn a_property_name_outside_the_strings_is_refused() {
    let blob = |name: u32| Builder::default().begin("").flag("x").token(PROP).token(0).token(name).finish();
    let strings = word(&blob(0), SIZE_STRINGS);
    assert!(precheck(&blob(0)).is_ok());
    for name in [strings, strings + 1, u32::MAX] {
        let refused = precheck(&blob(name)).unwrap_err();
        assert!(matches!(refused, FdtError::BadPropertyName { name: found, .. } if found == name), "{refused:?}");
    }
    // The last byte is the terminator: an empty name.
    assert!(matches!(precheck(&blob(strings - 1)), Err(FdtError::BadPropertyName { .. })));
}

// Behaviour 56
#[test]
fn a_property_name_that_does_not_end_in_the_strings_is_refused() {
    let mut blob = sound();
    let strings = word(&blob, SIZE_STRINGS);
    patch(&mut blob, SIZE_STRINGS, strings - 1);
    assert!(matches!(precheck(&blob), Err(FdtError::BadPropertyName { .. })));
}

#[test]
fn property_names_have_a_longest_length() {
    let tree = |len: usize| precheck(&Builder::root(2, 2).flag(&"x".repeat(len)).finish()).map(|_| ());
    assert_eq!(tree(MAX_PROPERTY_NAME), Ok(()));
    assert!(matches!(tree(MAX_PROPERTY_NAME + 1), Err(FdtError::BadPropertyName { .. })));
}

fn nested(levels: u32) -> Vec<u8> {
    let down = (0..levels).fold(Builder::root(2, 2), |tree, _| tree.begin("n"));
    (0..levels).fold(down, |tree, _| tree.end()).finish()
}

// Behaviour 57
#[test]
fn ten_thousand_levels_are_refused_on_a_small_stack() {
    let blob = nested(10_000);
    let work = move || precheck(&blob).unwrap_err();
    let refused = std::thread::Builder::new().stack_size(16 << 10).spawn(work).unwrap().join().unwrap();
    assert!(matches!(refused, FdtError::TooDeep { .. }), "{refused:?}");
}

// Behaviour 57
#[test]
fn the_deepest_tree_that_is_accepted_can_be_asked_everything_on_a_small_stack() {
    assert!(matches!(precheck(&nested(MAX_DEPTH + 1)), Err(FdtError::TooDeep { .. })));
    let mut blob = nested(MAX_DEPTH);
    let work = move || {
        let tree = Tree::new(&mut blob).unwrap();
        assert_eq!(tree.header().counts().depth, MAX_DEPTH);
        let deepest = tree.nodes().last().unwrap();
        (deepest.path().to_string(), format!("{}{}", tree.report(), deepest.description()))
    };
    let (path, _) = std::thread::Builder::new().stack_size(16 << 10).spawn(work).unwrap().join().unwrap();
    assert_eq!(path, "/n".repeat(MAX_DEPTH as usize));
}

#[test]
fn cell_counts_that_no_bus_has_are_refused() {
    let bad =
        |blob: Vec<u8>| assert!(matches!(precheck(&blob), Err(FdtError::BadCells { .. })), "{:?}", precheck(&blob));
    let at_root = |name: &str, value: &[u8]| Builder::default().begin("").prop(name, value).finish();
    let below = |name: &str, value: &[u8]| Builder::root(2, 2).begin("bus").prop(name, value).end().finish();
    for name in ["#address-cells", "#size-cells"] {
        for count in [0u32, 3, 4, u32::MAX] {
            bad(at_root(name, &count.to_be_bytes()));
        }
        bad(below(name, &5u32.to_be_bytes()));
        for width in [0, 2, 3, 8] {
            bad(at_root(name, &[0; 8][..width]));
            bad(below(name, &[0; 8][..width]));
        }
        for count in 0..=4u32 {
            assert!(precheck(&below(name, &count.to_be_bytes())).is_ok());
        }
    }
}

// The names that were checked are remembered; what depends on the value is checked each time.
#[test]
fn a_name_that_was_sound_once_does_not_make_a_value_sound() {
    let mut blob = Builder::root(1, 1).begin("bus").cells("#address-cells", &[5]).end().finish();
    let value = blob.windows(4).rposition(|word| word == 5_u32.to_be_bytes()).unwrap();
    // The same string as the root's: the first of the block.
    patch(&mut blob, value - 4, 0);
    assert!(matches!(precheck(&blob), Err(FdtError::BadCells { .. })), "{:?}", precheck(&blob));
    patch(&mut blob, value, 3);
    assert!(precheck(&blob).is_ok());
}

#[test]
fn every_error_says_what_and_where_in_one_line() {
    let blob = Builder::root(2, 2).token(7).finish();
    let said = precheck(&blob).unwrap_err().to_string();
    assert!(said.contains("0x7") && said.contains(&format!("{:#x}", word(&blob, OFF_STRINGS) - 12)), "{said}");
    assert!(!said.contains('\n'));
}

/// `/soc/bus@1` with what `f` puts into it; another node before and behind it.
fn in_a_bus(f: impl FnOnce(Builder) -> Builder) -> Vec<u8> {
    let tree = Builder::root(2, 2).str("model", "m").begin("before").begin("inner").end().end().nop();
    f(tree.begin("soc").flag("ranges").begin("bus@1").str("a", "b")).end().end().begin("behind").end().finish()
}

#[test]
fn an_error_names_the_node_by_its_path() {
    let said = |blob: Vec<u8>| precheck(&blob).unwrap_err().located(&blob).to_string();
    let cells = said(in_a_bus(|bus| bus.cells("#address-cells", &[5])));
    assert_eq!(cells, "/soc/bus@1: #address-cells or #size-cells is not one that we can hold");
    for (broken, what) in [
        (in_a_bus(|bus| bus.token(7)), "no token: 0x7"),
        (in_a_bus(|bus| bus.begin("child").end().str("late", "")), "is out of place"),
        (in_a_bus(|bus| bus.prop(&"n".repeat(MAX_PROPERTY_NAME + 1), &[])), "has a bad name"),
        (in_a_bus(|bus| bus.token(PROP).token(u32::MAX).token(0)), "more than there are"),
        (in_a_bus(|bus| bus.begin("a/b").end()), "has a bad name"),
    ] {
        let said = said(broken);
        assert!(said.starts_with("in /soc/bus@1: ") && said.contains(what), "{said}");
    }
    let below = |tree: Builder| said(tree.finish());
    assert!(below(Builder::root(2, 2).token(7)).starts_with("in /: "));
    let root = below(Builder::root(3, 2));
    assert_eq!(root, "/: #address-cells or #size-cells is not one that we can hold");
    let deep = said(nested(MAX_DEPTH + 1));
    assert!(deep.starts_with(&format!("in {}: node at", "/n".repeat(MAX_DEPTH as usize))), "{deep}");
    // An error outside all nodes prints as before.
    let mut blob = sound();
    patch(&mut blob, TOTALSIZE, 7);
    let error = precheck(&blob).unwrap_err();
    assert_eq!(
        (error.located(&blob).to_string(), error.located(&[]).to_string()),
        (error.to_string(), error.to_string())
    );
    assert_eq!(error.located(&blob).error(), error);
}

#[test]
fn an_error_of_a_property_names_the_node_by_its_path() {
    let mut blob = in_a_bus(|bus| bus.begin("device@2").cells("reg", &[1, 2]).str("enable-method", "spin-table").end());
    // NOPs are squeezed out first: the path is that of the tree as it is now.
    let tree = Tree::new(&mut blob).unwrap();
    let device = tree.find("/soc/bus@1/device@2").unwrap();
    let error = device.phys_ranges().next().unwrap().unwrap_err();
    assert_eq!(tree.locate(error).to_string(), "/soc/bus@1/device@2: bad value of reg");
    let (node, property) = (device.offset(), "x");
    for (error, what) in [
        (FdtError::WideCells { node }, "address or size wider than 64 bits"),
        (FdtError::Missing { node, property }, "no x"),
        (FdtError::Reversed { node, property }, "x lies before the start"),
        (FdtError::Wraps { node, base: 1, size: 2 }, "base 0x1 plus size 0x2 wraps"),
        (FdtError::NotTranslatable { node, address: 3 }, "bus address 0x3 is in no range of the bus"),
        (FdtError::NoSuchPhandle { node, phandle: 4 }, "no node has phandle 0x4"),
    ] {
        assert_eq!(tree.locate(error).to_string(), format!("/soc/bus@1/device@2: {what}"));
        assert_eq!(error.to_string(), format!("node at {node:#x}: {what}"));
    }
    assert_eq!(
        tree.locate(FdtError::BadValue { node: tree.root().offset(), property }).to_string(),
        "/: bad value of x"
    );
    let entry = FdtError::ReservationWraps { entry: 3, base: 1, size: 2 };
    assert_eq!(tree.locate(entry).to_string(), "/memreserve/ number 3: base 0x1 plus size 0x2 wraps");
}

#[test]
fn a_tree_that_is_refused_says_where() {
    let mut blob = in_a_bus(|bus| bus.cells("#size-cells", &[5]));
    let located = Tree::new_or_located(&mut blob).unwrap_err();
    assert!(located.to_string().starts_with("/soc/bus@1: "), "{located}");
    assert!(format!("{located:?}").starts_with("BadCells"), "{located:?}");
}
