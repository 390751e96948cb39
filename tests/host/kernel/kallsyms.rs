use proptest::prelude::*;
use quarry::kernel::kallsyms::{EncodeError, SymbolTable, encode};
use std::collections::BTreeMap;

fn owned(symbols: &[(u64, &str)]) -> Vec<(u64, String)> {
    symbols.iter().map(|&(offset, name)| (offset, name.to_owned())).collect()
}

fn name_at(table: &[u8], offset: u64) -> Option<String> {
    SymbolTable::new(table)?.lookup(offset).map(|found| found.to_string())
}

#[test]
fn an_address_is_found_in_the_symbol_before_it() {
    let symbols = [(0x40, "_start"), (0x100, "core::fmt::write"), (0x180, "<A as core::fmt::Display>::fmt")];
    let table = encode(&owned(&symbols), 0x200).unwrap();
    assert_eq!(name_at(&table, 0x3f), None, "before the first");
    assert_eq!(name_at(&table, 0x40).unwrap(), "_start+0x0/0xc0");
    assert_eq!(name_at(&table, 0xff).unwrap(), "_start+0xbf/0xc0");
    assert_eq!(name_at(&table, 0x100).unwrap(), "core::fmt::write+0x0/0x80");
    assert_eq!(name_at(&table, 0x1ff).unwrap(), "<A as core::fmt::Display>::fmt+0x7f/0x80");
    assert_eq!(name_at(&table, 0x200), None, "behind the last");
    assert_eq!(name_at(&table, u64::MAX), None);
}

#[test]
fn a_symbol_is_found_by_its_whole_name() {
    let symbols =
        [(0x40, "_start"), (0x100, "core::fmt::write"), (0x180, "core::fmt::write_str"), (0x1a0, "core::fmt")];
    let table = encode(&owned(&symbols), 0x200).unwrap();
    let table = SymbolTable::new(&table).unwrap();
    for (offset, name) in symbols {
        assert_eq!(table.find(name), Some(offset), "{name}");
    }
    for name in ["", "core", "core::fmt::", "core::fmt::writ", "core::fmt::write_", "_start "] {
        assert_eq!(table.find(name), None, "{name}");
    }
    let all: Vec<(u64, String)> = table.symbols().map(|(offset, name)| (offset, name.to_string())).collect();
    assert_eq!(all, owned(&symbols));
}

#[test]
fn of_several_names_the_shortest_is_kept() {
    let table = encode(&owned(&[(8, "a_long_alias"), (8, "name"), (8, "nbme"), (8, "another")]), 16).unwrap();
    assert_eq!(SymbolTable::new(&table).unwrap().len(), 1);
    assert_eq!(name_at(&table, 8).unwrap(), "name+0x0/0x8");
}

#[test]
fn a_table_without_symbols_knows_nothing() {
    let table = encode(&[], 0).unwrap();
    assert!(SymbolTable::new(&table).unwrap().is_empty());
    assert_eq!(name_at(&table, 0), None);
}

#[test]
fn room_that_was_never_filled_holds_no_table() {
    assert!(SymbolTable::new(&[]).is_none());
    assert!(SymbolTable::new(&[0; 4096]).is_none());
}

#[test]
fn a_symbol_behind_the_end_is_refused() {
    assert_eq!(encode(&owned(&[(16, "late")]), 16), Err(EncodeError::BehindEnd { offset: 16 }));
    assert_eq!(encode(&[], 1 << 32), Err(EncodeError::TooLarge));
}

#[test]
fn repeated_words_cost_little() {
    let symbols: Vec<_> = (0..2000)
        .map(|i| (i * 64, format!("<quarry::mm::zone::Zone{} as core::fmt::Display>::fmt", i % 100)))
        .collect();
    let table = encode(&symbols, 2000 * 64).unwrap();
    assert!(table.len() < 2000 * 18, "{} bytes for 2000 symbols", table.len());
}

/// Names as demangled symbols have them, and others.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z_]{1,8}(::[A-Za-z_]{1,10}){0,4}",
        "<[a-z]{1,5}::[A-Z][a-z]{1,5}<T> as [a-z]{1,5}::[A-Z][a-z]{1,5}>::[a-z]{1,5}::\\{closure#[0-9]\\}",
        "\\PC{1,20}",
    ]
}

proptest! {
    #[test]
    fn every_name_comes_back(symbols in prop::collection::btree_map(0_u64..0x10_0000, name(), 1..200)) {
        let end = 0x10_0000;
        let listed: Vec<_> = symbols.iter().rev().map(|(&offset, name)| (offset, name.clone())).collect();
        let table = encode(&listed, end).unwrap();
        let reader = SymbolTable::new(&table).unwrap();
        prop_assert_eq!(reader.len(), symbols.len());
        let starts: Vec<u64> = symbols.keys().copied().collect();
        for (at, (&offset, name)) in symbols.iter().enumerate() {
            let next = starts.get(at + 1).copied().unwrap_or(end);
            for probe in [offset, (offset + next) / 2, next - 1] {
                let found = reader.lookup(probe).unwrap();
                prop_assert_eq!(&found.name.to_string(), name);
                prop_assert_eq!(u64::from(found.offset), probe - offset);
                prop_assert_eq!(u64::from(found.size), next - offset);
            }
        }
        prop_assert!(starts[0] == 0 || reader.lookup(starts[0] - 1).is_none());
    }

    /// A damaged table gives wrong names or none, and never a panic or a walk without end.
    #[test]
    fn a_damaged_table_is_survived(
        symbols in prop::collection::btree_map(0_u64..0x1000, name(), 1..60),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        probes in prop::collection::vec(0_u64..0x1200, 8),
    ) {
        let listed: Vec<_> = symbols.into_iter().collect();
        let mut table = encode(&listed, 0x1000).unwrap();
        for (at, byte) in damage {
            let at = at.index(table.len());
            table[at] = byte;
        }
        for bytes in [table.as_slice(), &table[..cut.index(table.len())]] {
            for &probe in &probes {
                let text = name_at(bytes, probe).unwrap_or_default();
                prop_assert!(text.len() <= 64 * (bytes.len() + 64));
            }
        }
    }

    #[test]
    fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..300), probe: u64) {
        for (slot, magic) in bytes.iter_mut().zip(*b"QSY1") {
            *slot = magic;
        }
        let _ = name_at(&bytes, probe);
        let _ = name_at(&bytes, probe % 300);
    }
}

#[test]
fn the_size_of_names_is_counted_in_tokens_not_letters() {
    let mut sizes = BTreeMap::new();
    for repeat in [1, 64] {
        let symbols: Vec<_> =
            (0..repeat).map(|i| (i * 4, "a_rather_long_identifier_that_is_stored_once".to_owned())).collect();
        sizes.insert(repeat, encode(&symbols, repeat * 4).unwrap().len());
    }
    assert!(sizes[&64] - sizes[&1] < 64 * 8);
}
