//! The tree's description of devices that access memory by themselves.

use super::builder::{Builder, corpus_tree};
use quarry::addr::{DmaAddr, PhysAddr, PhysRange};
use quarry::fdt::{FdtError, Tree};
use quarry::mm::dma::{DeviceSpec, DmaError, SpecError};

/// The windows of a device, as (bus, CPU, size).
fn windows(tree: &Tree<'_>, path: &str) -> Result<Vec<(u64, u64, u64)>, FdtError> {
    let node = tree.find(path).unwrap();
    node.dma_windows()
        .map(|window| window.map(|window| (window.device.get(), window.cpu.start().get(), window.cpu.size())))
        .collect()
}

// Behaviour 319
#[test]
fn the_nearest_bus_with_entries_says_what_a_device_reaches_through_those_above() {
    let blob = Builder::root(1, 1)
        .begin("soc")
        .cells("#address-cells", &[1])
        .cells("#size-cells", &[1])
        .cells("ranges", &[0x7e00_0000, 0xfe00_0000, 0x100_0000])
        .cells("dma-ranges", &[0xc000_0000, 0, 0x4000_0000])
        .begin("plain@1")
        .end()
        .begin("bridge@2")
        .cells("#address-cells", &[1])
        .cells("#size-cells", &[1])
        .flag("dma-ranges")
        .begin("behind@3")
        .end()
        .end()
        .begin("window@4")
        .cells("#address-cells", &[1])
        .cells("#size-cells", &[1])
        .cells("dma-ranges", &[0x1000, 0xc010_0000, 0x10000, 0x20000, 0xc080_0000, 0x1000])
        .begin("nested@5")
        .end()
        .end()
        .begin("astray@6")
        .cells("#address-cells", &[1])
        .cells("#size-cells", &[1])
        .cells("dma-ranges", &[0, 0x1000_0000, 0x1000])
        .begin("lost@7")
        .end()
        .end()
        .end()
        .begin("free@8")
        .end()
        .finish();
    let tree = Tree::from_read_only(&blob).unwrap();
    let whole = Ok(vec![(0xc000_0000, 0, 0x4000_0000)]);
    assert_eq!(windows(&tree, "/soc/plain@1"), whole);
    assert_eq!(windows(&tree, "/soc/bridge@2/behind@3"), whole, "an empty list changes nothing");
    let nested = vec![(0x1000, 0x10_0000, 0x10000), (0x20000, 0x80_0000, 0x1000)];
    assert_eq!(windows(&tree, "/soc/window@4/nested@5"), Ok(nested));
    assert!(matches!(windows(&tree, "/soc/astray@6/lost@7"), Err(FdtError::NotTranslatable { .. })));
    assert_eq!(windows(&tree, "/free@8"), Ok(Vec::new()), "no limit");
    let lost = DeviceSpec::from_node(tree.find("/soc/astray@6/lost@7").unwrap());
    assert!(matches!(lost, Err(SpecError::Tree(FdtError::NotTranslatable { .. }))));
    assert!(DeviceSpec::from_node(tree.find("/soc/window@4/nested@5").unwrap()).is_ok());
}

#[test]
fn a_device_is_coherent_if_it_or_a_bus_above_says_so() {
    let blob = Builder::root(1, 1)
        .begin("soc")
        .flag("dma-coherent")
        .begin("inherits")
        .end()
        .begin("not")
        .flag("dma-noncoherent")
        .begin("below")
        .end()
        .end()
        .end()
        .begin("alone")
        .flag("dma-coherent")
        .end()
        .begin("silent")
        .end()
        .finish();
    let tree = Tree::from_read_only(&blob).unwrap();
    let coherent = |path| tree.find(path).unwrap().is_dma_coherent();
    assert_eq!(
        ["/soc", "/soc/inherits", "/soc/not", "/soc/not/below", "/alone", "/silent"].map(coherent),
        [true, true, false, false, true, false]
    );
    let spec = DeviceSpec::from_node(tree.find("/alone").unwrap()).unwrap();
    assert!(spec.coherent && spec.name == "alone");
}

#[test]
fn more_windows_than_a_device_can_have_are_refused() {
    let entries: Vec<u32> = (0..5).flat_map(|n| [n << 28, n << 24, 0x1000]).collect();
    let blob = Builder::root(1, 1)
        .begin("soc")
        .cells("#address-cells", &[1])
        .cells("#size-cells", &[1])
        .cells("dma-ranges", &entries)
        .begin("dev")
        .end()
        .end()
        .finish();
    let tree = Tree::from_read_only(&blob).unwrap();
    let spec = DeviceSpec::from_node(tree.find("/soc/dev").unwrap());
    assert_eq!(spec.err(), Some(SpecError::Windows(DmaError::TooManyWindows)));
}

// Behaviour 319
#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn every_device_of_a_pi_4_can_be_described() {
    let mut blob = corpus_tree("bcm2711-rpi-4-b");
    let tree = Tree::new(&mut blob).unwrap();
    let dma = tree.compatible_nodes("brcm,bcm2835-dma").next().unwrap();
    let windows: Vec<_> = dma.dma_windows().map(Result::unwrap).map(|window| (window.device, window.cpu)).collect();
    let first = PhysRange::from_size(PhysAddr::ZERO, 0x4000_0000).unwrap();
    assert_eq!(windows, [(DmaAddr::new(0xc000_0000), first)]);
    let described = tree.nodes().filter(|node| node.has("reg") && DeviceSpec::from_node(*node).is_ok()).count();
    let devices = tree.nodes().filter(|node| node.has("reg")).count();
    assert!(described + 5 > devices, "{described} of {devices}");
}
