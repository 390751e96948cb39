//! Random damage: with any bytes the reader answers or refuses, and reads nothing outside the buffer.

use super::builder::{Builder, NOP, SIZE_STRUCT, corpus_tree, patch, word};
use proptest::prelude::*;
use quarry::fdt::{Tree, precheck};

/// Cases of each property; Miri runs a thousand times slower.
const CASES: u32 = if cfg!(miri) { 2 } else { 3000 };

/// A small tree with one of everything.
fn everything() -> Vec<u8> {
    Builder::root(2, 1)
        .reservation(0, 0x1000)
        .reservation(0x8000_0000, 0x1234)
        .cells("interrupt-parent", &[1])
        .str("model", "m")
        .nop()
        .memory("memory@0", &[0, 0, 0x4000_0000, 1, 0, 0x8000_0000])
        .begin("aliases")
        .str("serial0", "/soc/uart@10")
        .end()
        .begin("chosen")
        .str("stdout-path", "serial0:115200n8")
        .str("bootargs", "quiet")
        .cells("kaslr-seed", &[1, 2])
        .cells("linux,initrd-start", &[0x100])
        .cells("linux,initrd-end", &[0, 0x200])
        .end()
        .begin("reserved-memory")
        .cells("#address-cells", &[2])
        .cells("#size-cells", &[1])
        .flag("ranges")
        .begin("a@1000")
        .cells("reg", &[0, 0x1000, 0x1000])
        .flag("no-map")
        .cells("phandle", &[2])
        .end()
        .begin("b")
        .cells("size", &[0x1000])
        .cells("alignment", &[0x1000])
        .cells("alloc-ranges", &[0, 0, 0x1000])
        .end()
        .end()
        .begin("cpus")
        .cells("#address-cells", &[1])
        .cells("#size-cells", &[0])
        .begin("cpu@0")
        .cells("reg", &[0])
        .str("enable-method", "spin-table")
        .cells("cpu-release-addr", &[0, 0xd8])
        .end()
        .begin("cpu@1")
        .cells("reg", &[1])
        .str("enable-method", "psci")
        .str("status", "disabled")
        .end()
        .end()
        .begin("psci")
        .str("compatible", "arm,psci-1.0")
        .str("method", "smc")
        .cells("cpu_on", &[3])
        .end()
        .begin("timer")
        .str("compatible", "arm,armv8-timer")
        .cells("interrupts", &[1, 13, 4, 1, 14, 4])
        .end()
        .begin("gic")
        .flag("interrupt-controller")
        .cells("#interrupt-cells", &[3])
        .cells("phandle", &[1])
        .end()
        .begin("soc")
        .cells("#address-cells", &[1])
        .cells("#size-cells", &[1])
        .cells("ranges", &[0, 0, 0xfe00_0000, 0x1000])
        .cells("dma-ranges", &[0, 0, 0, 0x4000_0000])
        .nop()
        .nop()
        .begin("uart@10")
        .cells("reg", &[0x10, 0x10])
        .cells("memory-region", &[2])
        .cells("interrupts-extended", &[1, 0, 5, 4])
        .end()
        .end()
        .finish()
}

/// Checks a blob and, where it is accepted, asks it everything. The copy is exactly as long as the blob, so that Miri
/// and the address sanitizer see a read past its end.
fn ask(blob: &[u8]) {
    let mut exact: Box<[u8]> = blob.into();
    if let Err(error) = precheck(&exact) {
        let said = error.located(&exact).to_string();
        assert!(!said.is_empty() && !said.contains('\n'), "{said:?}");
    } else {
        let tree = Tree::new(&mut exact).unwrap();
        tree.report().to_string();
        for node in tree.nodes().take(if cfg!(miri) { 3 } else { usize::MAX }) {
            node.description().to_string();
            assert_eq!(tree.node_at(node.offset()), Some(node));
        }
    }
}

/// Bytes and words worth writing into a tree.
fn damage(len: usize) -> impl Strategy<Value = Vec<(usize, Vec<u8>)>> {
    let words = prop_oneof![
        0..10u32,
        Just(0x10),
        Just(0x7fff_ffff),
        Just(u32::MAX),
        Just(u32::MAX - 3),
        Just(0x8000_0000),
        any::<u32>()
    ];
    let byte = (0..len, any::<u8>()).prop_map(|(offset, byte)| (offset, vec![byte]));
    let word = (0..len / 4, words).prop_map(|(index, word)| (index * 4, word.to_be_bytes().to_vec()));
    proptest::collection::vec(prop_oneof![byte, word], 1..6)
}

fn apply(mut blob: Vec<u8>, damage: Vec<(usize, Vec<u8>)>) -> Vec<u8> {
    for (offset, bytes) in damage {
        for (index, byte) in bytes.into_iter().enumerate() {
            if let Some(slot) = blob.get_mut(offset + index) {
                *slot = byte;
            }
        }
    }
    blob
}

#[test]
fn the_undamaged_tree_answers_everything() {
    let mut blob = everything();
    let tree = Tree::new(&mut blob).unwrap();
    let devices = tree.nodes().map(|node| node.description().to_string());
    let report: Vec<_> = tree.report().to_string().lines().map(str::to_owned).chain(devices).collect();
    let complaints: Vec<_> = report.iter().filter(|line| line.contains(" (")).collect();
    assert_eq!(complaints, ["/cpus/cpu@1 (disabled) bus 0x1"], "{report:#?}");
}

#[test]
fn every_word_of_a_tree_replaced_by_every_token_is_answered_or_refused() {
    let blob = everything();
    let step = if cfg!(miri) { 364 } else { 4 };
    for offset in (0..blob.len() - 3).step_by(step) {
        for value in [0, 1, 2, 3, 4, 9, u32::MAX] {
            let mut damaged = blob.clone();
            patch(&mut damaged, offset, value);
            ask(&damaged);
        }
    }
}

#[test]
fn a_tree_cut_anywhere_with_an_honest_totalsize_is_answered_or_refused() {
    let blob = everything();
    let step = if cfg!(miri) { 161 } else { 1 };
    for len in (40..blob.len()).step_by(step) {
        let mut cut = blob[..len].to_vec();
        patch(&mut cut, 4, len as u32);
        ask(&cut);
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes too long")]
fn blanking_any_token_but_the_last_of_a_real_tree_is_answered_or_refused() {
    let blob = corpus_tree("uboot-qemu-virt-m128M");
    let start = word(&blob, 8) as usize;
    for offset in (start..start + word(&blob, SIZE_STRUCT) as usize - 4).step_by(4) {
        let mut damaged = blob.clone();
        patch(&mut damaged, offset, NOP);
        ask(&damaged);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_made_tree_is_answered_or_refused(damage in damage(everything().len())) {
        ask(&apply(everything(), damage));
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads files")]
    fn a_damaged_real_tree_is_answered_or_refused(damage in damage(8192)) {
        ask(&apply(corpus_tree("uboot-qemu-virt-m128M"), damage));
    }

    #[test]
    fn any_bytes_behind_a_header_are_answered_or_refused(body in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut blob = Builder::root(1, 1).finish();
        blob.extend(body);
        let (len, structure) = (blob.len() as u32, word(&blob, 8));
        patch(&mut blob, 4, len);
        patch(&mut blob, 12, len);
        patch(&mut blob, 32, 0);
        patch(&mut blob, 36, (len - structure) & !3);
        ask(&blob);
    }
}
