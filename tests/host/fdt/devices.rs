//! Everything else that is asked of a tree: paths, the console, addresses, DMA limits, CPUs, firmware, interrupts.

use super::builder::{Builder, corpus_tree};
use quarry::addr::{PhysAddr, PhysRange};
use quarry::fdt::{Conduit, EnableMethod, FdtError, Node, Tree};

fn range(base: u64, size: u64) -> PhysRange {
    PhysRange::from_size(PhysAddr::new(base), size).unwrap()
}

fn first_range(node: Node<'_, '_>) -> Result<PhysRange, FdtError> {
    node.phys_ranges().next().unwrap()
}

#[test]
fn paths_are_found_with_and_without_unit_address_and_printed_in_full() {
    let blob = Builder::root(1, 1)
        .begin("bus@1")
        .begin("dev@10")
        .end()
        .begin("dev@20")
        .begin("leaf")
        .end()
        .end()
        .end()
        .begin("bus@2")
        .begin("only")
        .end()
        .end()
        .finish();
    let tree = Tree::from_read_only(&blob).unwrap();
    let found = |path: &str| tree.find(path).map(|node| node.path().to_string());
    assert_eq!(found("/").as_deref(), Some("/"));
    assert_eq!(found("/bus@2/only").as_deref(), Some("/bus@2/only"));
    assert_eq!(found("/bus/dev").as_deref(), Some("/bus@1/dev@10"));
    assert_eq!(found("//bus@1//dev@20/leaf/").as_deref(), Some("/bus@1/dev@20/leaf"));
    for missing in ["", "bus@1", "/bus@1/dev@1", "/bus@3", "/bus/only", "/dev"] {
        assert_eq!(found(missing), None, "{missing}");
    }
}

// The root's first children are kept in an index, the others are not.
#[test]
fn a_root_has_as_many_children_as_it_has_whatever_is_below_them() {
    for count in [0_u32, 1, 2, 63, 64, 65, 66, 200] {
        let tree = (0..count).fold(Builder::root(1, 1).str("name-like", "c0"), |tree, number| {
            let tree =
                tree.begin(&format!("c{number}")).cells("number", &[number]).begin("deep").begin("deeper").end().end();
            tree.begin("beside").end().end()
        });
        let blob = tree.finish();
        let tree = Tree::from_read_only(&blob).unwrap();
        let names: Vec<_> = tree.root().children().map(Node::name).collect();
        assert_eq!(names, (0..count).map(|number| format!("c{number}")).collect::<Vec<_>>());
        for (number, child) in (0..).zip(tree.root().children()) {
            assert_eq!(child.u32("number"), Some(number));
            assert_eq!(child.children().map(Node::name).collect::<Vec<_>>(), ["deep", "beside"]);
            assert_eq!(child.child("deep").unwrap().child("deeper").unwrap().parent(), child.child("deep"));
            assert_eq!(child.parent(), Some(tree.root()));
            assert_eq!(tree.find(&format!("/c{number}")), Some(child));
        }
        assert_eq!(tree.root().child(&format!("c{count}")), None);
        assert_eq!(tree.nodes().count() as u32, 1 + 4 * count);
    }
}

// Strings are looked at eight bytes at a time.
#[test]
fn strings_of_every_length_end_where_they_end() {
    for length in 0..40 {
        let text = "x".repeat(length);
        for rest in ["", "y", "yyyyyyyyyyyyyyyy"] {
            let value = [text.as_bytes(), &[0], rest.as_bytes(), &[0]].concat();
            let name = format!("n{text}");
            let blob = Builder::root(1, 1).begin(&name).prop("p", &value).prop("compatible", &value).end().finish();
            let tree = Tree::from_read_only(&blob).unwrap();
            let node = tree.find(&format!("/{name}")).unwrap();
            assert_eq!((node.name(), node.str("p")), (name.as_str(), Some(text.as_str())));
            assert_eq!(node.compatible().collect::<Vec<_>>(), [text.as_str(), rest]);
            assert!(node.is_compatible(&text) && node.is_compatible(rest) && !node.is_compatible("x y"));
        }
        // Without an end it is none, whatever lies behind.
        let blob = Builder::root(1, 1).prop("p", text.as_bytes()).prop("status", text.as_bytes()).finish();
        let tree = Tree::from_read_only(&blob).unwrap();
        assert_eq!((tree.root().str("p"), tree.root().is_enabled()), (None, false));
    }
    for (status, is_enabled) in
        [(&b"okay\0"[..], true), (b"ok\0", true), (b"okay", false), (b"okay2\0", false), (b"\0", false)]
    {
        let blob = Builder::root(1, 1).prop("status", status).finish();
        assert_eq!(Tree::from_read_only(&blob).unwrap().root().is_enabled(), is_enabled, "{status:?}");
    }
    // Bytes that a sum over eight of them could take for an end.
    for byte in [0x01, 0x7f, 0x80, 0xff] {
        let blob = Builder::root(1, 1).prop("p", &[byte, byte, byte, byte, byte, byte, byte, byte, 0]).finish();
        let tree = Tree::from_read_only(&blob).unwrap();
        let found = tree.root().property("p").unwrap();
        assert_eq!(found.strings().count(), usize::from(byte < 0x80), "{byte:#x}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn every_node_of_a_real_tree_is_found_by_its_printed_path_and_knows_its_parent() {
    let mut blob = corpus_tree("uboot-qemu-virt-m4G");
    let tree = Tree::new(&mut blob).unwrap();
    let mut count = 0;
    for node in tree.nodes() {
        assert_eq!(tree.find(&node.path().to_string()), Some(node));
        assert_eq!(tree.node_at(node.offset()), Some(node));
        for child in node.children() {
            assert_eq!(child.parent(), Some(node));
        }
        count += 1;
    }
    assert_eq!(count, tree.header().counts().nodes);
    assert_eq!(tree.root().parent(), None);
}

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn one_pass_finds_what_each_node_says() {
    for board in ["uboot-qemu-virt-m4G", "bcm2711-rpi-4-b", "qemu-raspi4b"] {
        let mut blob = corpus_tree(board);
        let tree = Tree::new(&mut blob).unwrap();
        let mut found = Vec::new();
        tree.for_each_range(&mut |bus, node, range| {
            assert_eq!(node.parent(), Some(bus));
            found.push((node, range));
        });
        let available = tree.nodes().filter(|node| node.parent().is_some() && node.is_available());
        let each: Vec<_> = available.flat_map(|node| node.phys_ranges().map(move |range| (node, range))).collect();
        assert_eq!(found, each, "{board}");
        assert!(found.iter().filter(|(_, range)| range.is_ok()).count() > 20, "{board}");
    }
}

fn console(stdout: &str, aliases: &[(&str, &str)]) -> Vec<u8> {
    let tree = Builder::root(1, 1).begin("soc").begin("uart@10").begin("port").end().end().end().begin("aliases");
    let tree = aliases.iter().fold(tree, |tree, (alias, path)| tree.str(alias, path)).end();
    tree.begin("chosen").str("stdout-path", stdout).end().finish()
}

#[test]
fn stdout_resolves_aliases_and_cuts_options() {
    let aliases = [("serial0", "/soc/uart@10"), ("gone", "/soc/uart@11"), ("twice", "serial0")];
    let stdout = |value: &str| {
        let blob = console(value, &aliases);
        let tree = Tree::from_read_only(&blob).unwrap();
        let stdout = tree.chosen().unwrap().stdout()?;
        Some((stdout.node.path().to_string(), stdout.options.map(str::to_owned)))
    };
    let uart = |options: Option<&str>| Some(("/soc/uart@10".to_owned(), options.map(str::to_owned)));
    assert_eq!(stdout("serial0:115200n8"), uart(Some("115200n8")));
    assert_eq!(stdout("serial0"), uart(None));
    assert_eq!(stdout("/soc/uart@10:9600"), uart(Some("9600")));
    assert_eq!(stdout("serial0:"), uart(Some("")));
    assert_eq!(stdout("serial0/port").unwrap().0, "/soc/uart@10/port");
    for dead_end in ["", ":", "serial1", "gone", "twice", "serial0/none", "/soc/uart@11:115200"] {
        assert_eq!(stdout(dead_end), None, "{dead_end}");
    }
}

#[test]
fn an_alias_that_names_itself_ends() {
    // The `fdt` crate's own search follows these for ever.
    let blob = console("/x/y", &[("a", "a"), ("/x/y", "/x/y")]);
    let tree = Tree::from_read_only(&blob).unwrap();
    assert_eq!(tree.chosen().unwrap().stdout(), None);
    assert_eq!(tree.resolve("a"), None);
}

#[test]
fn chosen_gives_bootargs_initrd_and_seeds() {
    let chosen = |tree: fn(Builder) -> Builder| tree(Builder::root(2, 2).begin("chosen")).end().finish();
    let blob = chosen(|node| {
        let node = node.str("bootargs", "a=1 b").cells("linux,initrd-start", &[0x4400_0000]);
        let node = node.cells("linux,initrd-end", &[0, 0x4401_18f8]).cells("kaslr-seed", &[1, 2]);
        node.prop("rng-seed", &[9; 32])
    });
    let tree = Tree::from_read_only(&blob).unwrap();
    let chosen_node = tree.chosen().unwrap();
    assert_eq!(chosen_node.bootargs(), Some(&b"a=1 b\0"[..]));
    assert_eq!(chosen_node.initrd(), Ok(Some(range(0x4400_0000, 71928))));
    assert_eq!((chosen_node.kaslr_seed(), chosen_node.rng_seed()), (Some(0x1_0000_0002), Some(&[9; 32][..])));
    let initrd = |blob: Vec<u8>| Tree::from_read_only(&blob).unwrap().chosen().unwrap().initrd();
    assert_eq!(initrd(chosen(|node| node)), Ok(None));
    let (start, end) = ("linux,initrd-start", "linux,initrd-end");
    let without = |wanted| move |error| matches!(error, FdtError::Missing { property, .. } if property == wanted);
    let bad = |wanted| move |error| matches!(error, FdtError::BadValue { property, .. } if property == wanted);
    let refused = |make: fn(Builder) -> Builder| initrd(chosen(make)).unwrap_err();
    assert!(without(end)(refused(|node| node.cells("linux,initrd-start", &[1]))));
    assert!(without(start)(refused(|node| node.cells("linux,initrd-end", &[1]))));
    assert!(bad(end)(refused(|node| node.cells("linux,initrd-start", &[2]).cells("linux,initrd-end", &[0, 0, 3]))));
    assert!(bad(start)(refused(|node| node.flag("linux,initrd-start").cells("linux,initrd-end", &[3]))));
    let reversed = refused(|node| node.cells("linux,initrd-start", &[2]).cells("linux,initrd-end", &[1]));
    assert!(matches!(reversed, FdtError::Reversed { property: "linux,initrd-end", .. }));
    assert_eq!(initrd(chosen(|node| node.cells("linux,initrd-start", &[2]).cells("linux,initrd-end", &[2]))), Ok(None));
    assert!(Tree::from_read_only(&Builder::root(2, 2).finish()).unwrap().chosen().is_none());
}

#[test]
fn strings_without_terminator_are_none() {
    let blob = Builder::root(2, 2).prop("model", b"abc").begin("chosen").prop("bootargs", b"abc").end().finish();
    let tree = Tree::from_read_only(&blob).unwrap();
    assert_eq!(tree.model(), None);
    assert_eq!(tree.chosen().unwrap().bootargs(), Some(&b"abc"[..]), "but for the one that need not be text");
}

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn a_pi_4s_devices_lie_where_the_cpu_finds_them() {
    let mut blob = corpus_tree("qemu-raspi4b");
    let tree = Tree::new(&mut blob).unwrap();
    let at = |path: &str| first_range(tree.find(path).unwrap());
    assert_eq!(at("/soc/serial@7e201000"), Ok(range(0xfe20_1000, 0x200)));
    assert_eq!(at("/soc/serial@7e215040"), Ok(range(0xfe21_5040, 0x40)));
    // The second window of /soc.
    assert_eq!(at("/soc/interrupt-controller@40041000"), Ok(range(0xff84_1000, 0x1000)));
}

fn buses() -> Vec<u8> {
    Builder::root(2, 2)
        .begin("soc")
        .cells("#address-cells", &[1])
        .cells("#size-cells", &[1])
        .cells("ranges", &[0x7e00_0000, 0, 0xfe00_0000, 0x180_0000])
        .cells("dma-ranges", &[0xc000_0000, 1, 0, 0x4000_0000])
        .begin("same")
        .cells("#address-cells", &[1])
        .cells("#size-cells", &[1])
        .flag("ranges")
        .flag("dma-ranges")
        .begin("dev@7e201000")
        .cells("reg", &[0x7e20_1000, 0x200, 0x7f7f_ffff, 1])
        .end()
        .begin("past@7f7fffff")
        .cells("reg", &[0x7f7f_ffff, 2])
        .end()
        .end()
        .begin("hidden")
        .cells("#address-cells", &[1])
        .cells("#size-cells", &[0])
        .begin("i2c@5")
        .cells("reg", &[5])
        .end()
        .end()
        .begin("inner")
        .cells("#address-cells", &[1])
        .cells("#size-cells", &[1])
        .cells("dma-ranges", &[0, 0xc100_0000, 0x1000, 0x8000, 0xd000_0000, 0x1000])
        .end()
        .begin("pci")
        .cells("#address-cells", &[3])
        .cells("#size-cells", &[2])
        .cells("dma-ranges", &[0x200_0000, 4, 0, 0xc000_0000, 0, 0x3000_0000])
        .begin("card")
        .cells("reg", &[0, 0, 0, 0, 0])
        .end()
        .end()
        .end()
        .finish()
}

#[test]
fn addresses_are_translated_through_every_bus() {
    let blob = buses();
    let tree = Tree::from_read_only(&blob).unwrap();
    let dev = tree.find("/soc/same/dev@7e201000").unwrap();
    let ranges: Vec<_> = dev.phys_ranges().collect();
    assert_eq!(ranges, [Ok(range(0xfe20_1000, 0x200)), Ok(range(0xff7f_ffff, 1))]);
}

#[test]
fn what_the_cpu_cannot_reach_is_an_error() {
    let blob = buses();
    let tree = Tree::from_read_only(&blob).unwrap();
    let refused = |path: &str| {
        let node = tree.find(path).unwrap();
        (first_range(node).unwrap_err(), node.offset())
    };
    let (error, node) = refused("/soc/same/past@7f7fffff");
    assert_eq!(error, FdtError::NotTranslatable { node, address: 0x7f7f_ffff });
    let (error, node) = refused("/soc/hidden/i2c@5");
    assert_eq!(error, FdtError::NotTranslatable { node, address: 5 });
    let (error, node) = refused("/soc/pci/card");
    assert_eq!(error, FdtError::WideCells { node });
}

#[test]
fn dma_windows_give_the_device_and_the_cpu_side() {
    let blob = buses();
    let tree = Tree::from_read_only(&blob).unwrap();
    let windows: Vec<_> = tree
        .dma_ranges()
        .map(|window| window.map(|window| (window.bus.name(), window.device.get(), window.cpu)))
        .collect();
    let inner = tree.find("/soc/inner").unwrap().offset();
    let expected = [
        Ok(("soc", 0xc000_0000, range(0x1_0000_0000, 0x4000_0000))),
        Ok(("inner", 0, range(0x1_0100_0000, 0x1000))),
        Ok(("inner", 0x8000, range(0x1_1000_0000, 0x1000))),
        Ok(("pci", 0x4_0000_0000, range(0x1_0000_0000, 0x3000_0000))),
    ];
    assert_eq!(windows, expected, "inner at {inner:#x}");
}

// Behaviour 71, the part that the tree states
#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn a_pi_4s_dma_limits_are_stated() {
    let mut blob = corpus_tree("bcm2711-rpi-4-b");
    let tree = Tree::new(&mut blob).unwrap();
    let windows: Vec<_> =
        tree.dma_ranges().map(Result::unwrap).map(|w| (w.bus.name(), w.device.get(), w.cpu)).collect();
    let expected = [
        ("soc", 0xc000_0000, range(0, 0x4000_0000)),
        ("emmc2bus", 0xc000_0000, range(0, 0x4000_0000)),
        ("pcie@7d500000", 0, range(0, 0xc000_0000)),
    ];
    assert_eq!(windows, expected);
}

#[test]
fn a_disabled_bus_sets_no_dma_limit() {
    let window = [0, 0, 0, 0x1000_0000];
    let bus = |tree: Builder| tree.cells("#address-cells", &[1]).cells("#size-cells", &[1]);
    let blob = bus(bus(Builder::root(2, 1).begin("outer").str("status", "disabled")).begin("inner"))
        .cells("dma-ranges", &window[1..])
        .end()
        .end()
        .finish();
    assert_eq!(Tree::from_read_only(&blob).unwrap().dma_ranges().count(), 0);
}

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn cpus_state_their_affinity_and_how_they_start() {
    let mut blob = corpus_tree("bcm2711-rpi-4-b");
    let tree = Tree::new(&mut blob).unwrap();
    let cpus: Vec<_> = tree.cpus().map(|cpu| (cpu.mpidr().unwrap(), cpu.enable_method().unwrap())).collect();
    let expected = [0, 1, 2, 3].map(|id| (id, Some(EnableMethod::SpinTable { release: PhysAddr::new(0xd8 + 8 * id) })));
    assert_eq!(cpus, expected);
    assert_eq!(tree.psci(), None);

    let mut blob = corpus_tree("hip07-d05");
    let tree = Tree::new(&mut blob).unwrap();
    let cpus: Vec<_> = tree.cpus().map(|cpu| cpu.mpidr().unwrap()).collect();
    assert_eq!((cpus.len(), cpus[0], cpus[63]), (64, 0x10000, 0x70303));
    assert!(tree.cpus().all(|cpu| cpu.enable_method() == Ok(Some(EnableMethod::Psci))));
}

#[test]
fn a_cpu_with_an_unreadable_number_or_release_address_is_an_error() {
    let cpu = |node: fn(Builder) -> Builder| {
        let cpus = Builder::root(2, 2).begin("cpus").cells("#address-cells", &[1]).cells("#size-cells", &[0]);
        node(cpus.begin("cpu@0").str("enable-method", "spin-table")).end().end().finish()
    };
    for blob in [cpu(|node| node), cpu(|node| node.cells("reg", &[0, 1]).cells("cpu-release-addr", &[1, 2, 3]))] {
        let tree = Tree::from_read_only(&blob).unwrap();
        let cpu = tree.cpus().next().unwrap();
        assert!(matches!(cpu.mpidr(), Err(FdtError::BadValue { property: "reg", .. })));
        assert!(matches!(cpu.enable_method(), Err(FdtError::BadValue { property: "cpu-release-addr", .. })));
    }
}

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn psci_is_found_wherever_it_lies() {
    for (name, path, conduit) in [
        ("qemu-virt-m128M", "/psci", Some(Conduit::Hvc)),
        ("qemu-virt-el2", "/psci", Some(Conduit::Smc)),
        ("k3-am67a-beagley-ai", "/firmware/psci", Some(Conduit::Smc)),
        ("nop-qemu-virt-m128M", "/psci", None),
    ] {
        let mut blob = corpus_tree(name);
        let tree = Tree::new(&mut blob).unwrap();
        let psci = tree.psci().unwrap();
        assert_eq!((psci.node().path().to_string().as_str(), psci.conduit()), (path, conduit), "{name}");
        assert!(psci.has_standard_functions());
    }
}

#[test]
fn psci_0_1_states_its_function_numbers() {
    let blob = Builder::root(2, 2)
        .begin("psci")
        .str("compatible", "arm,psci")
        .str("method", "smc")
        .cells("cpu_on", &[0x8400_0003])
        .end()
        .finish();
    let tree = Tree::from_read_only(&blob).unwrap();
    let psci = tree.psci().unwrap();
    assert!(!psci.has_standard_functions());
    assert_eq!((psci.function("cpu_on"), psci.function("cpu_off")), (Some(0x8400_0003), None));
}

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn timer_interrupts_are_named_as_the_gic_names_them() {
    for name in ["qemu-virt-m128M", "qemu-raspi4b"] {
        let mut blob = corpus_tree(name);
        let tree = Tree::new(&mut blob).unwrap();
        let interrupts: Vec<_> = tree.timer_interrupts().map(Result::unwrap).collect();
        let numbers: Vec<_> = interrupts.iter().map(|interrupt| interrupt.gic_intid().unwrap()).collect();
        assert_eq!(numbers, [29, 30, 27, 26], "{name}");
        assert!(interrupts.iter().all(|interrupt| interrupt.controller.has("interrupt-controller")));
        assert!(tree.interrupt_controllers().any(|controller| controller == interrupts[0].controller));
    }
}

#[test]
fn interrupts_follow_the_nearest_parent_or_their_own_list() {
    let blob = Builder::root(1, 1)
        .cells("interrupt-parent", &[1])
        .begin("gic")
        .flag("interrupt-controller")
        .cells("#interrupt-cells", &[3])
        .cells("phandle", &[1])
        .end()
        .begin("combiner")
        .flag("interrupt-controller")
        .cells("#interrupt-cells", &[2])
        .cells("phandle", &[2])
        .begin("inside")
        .cells("interrupts", &[7, 4])
        .end()
        .end()
        .begin("nexus")
        .cells("#interrupt-cells", &[1])
        .begin("card")
        .cells("interrupts", &[15])
        .end()
        .end()
        .begin("plain")
        .cells("interrupts", &[0, 121, 4, 1, 13, 0xf08])
        .end()
        .begin("own")
        .cells("interrupts-extended", &[2, 5, 6, 1, 0, 988, 1])
        .end()
        .begin("short")
        .cells("interrupts", &[0, 1, 4, 0, 2])
        .end()
        .begin("dead")
        .cells("interrupts-extended", &[9, 0])
        .end()
        .finish();
    let tree = Tree::from_read_only(&blob).unwrap();
    let lines = |path: &str| -> Vec<_> {
        let list = tree.find(path).unwrap().interrupts();
        list.map(|line| line.map(|line| (line.controller.name(), line.specifier().to_vec(), line.gic_intid())))
            .collect()
    };
    assert_eq!(lines("/plain"), [Ok(("gic", vec![0, 121, 4], Some(153))), Ok(("gic", vec![1, 13, 0xf08], Some(29)))]);
    assert_eq!(lines("/combiner/inside"), [Ok(("combiner", vec![7, 4], None))]);
    assert_eq!(lines("/nexus/card"), [Ok(("nexus", vec![15], None))]);
    assert_eq!(lines("/own"), [Ok(("combiner", vec![5, 6], None)), Ok(("gic", vec![0, 988, 1], None))]);
    let short = lines("/short");
    assert_eq!((short.len(), short[0].is_ok(), short[1].is_err()), (2, true, true));
    assert!(matches!(lines("/dead")[..], [Err(FdtError::NoSuchPhandle { phandle: 9, .. })]));
    assert_eq!(lines("/gic"), []);
}

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn the_board_is_named() {
    let mut blob = corpus_tree("rpi4-fw-2gb");
    let tree = Tree::new(&mut blob).unwrap();
    assert_eq!(tree.model(), Some("Raspberry Pi 4 Model B"));
    assert!(tree.root().is_compatible("brcm,bcm2711") && !tree.root().is_compatible("brcm,bcm271"));
    let uarts: Vec<_> = tree.compatible_nodes("arm,pl011").map(Node::name).collect();
    assert_eq!(uarts.first(), Some(&"serial@7e201000"));
}
