//! Every tree, NOP variant and mutant of the corpus, through the tool that prints what the kernel understands, against
//! the answers of libfdt.

use super::builder::{corpus, corpus_tree};
use quarry::fdt::{Tree, precheck};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;

fn lines(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(corpus().join(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The tool's line of JSON, or its line of error.
fn memmap(file: &PathBuf) -> Result<Value, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_memmap")).arg(file).output().unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    match output.status.code() {
        Some(0) => {
            assert_eq!((stdout.lines().count(), stderr.as_str()), (1, ""), "{file:?}");
            Ok(serde_json::from_str(&stdout).unwrap())
        }
        Some(1) => {
            assert_eq!((stdout.as_str(), stderr.lines().count()), ("", 1), "{file:?}");
            Err(stderr)
        }
        other => panic!("{file:?}: {other:?} {stderr}"),
    }
}

#[test]
#[cfg_attr(miri, ignore = "starts processes")]
fn every_real_tree_gives_libfdts_answers() {
    let truths = lines("truth.jsonl");
    assert_eq!(truths.len(), 61);
    for truth in truths {
        let name = truth["file"].as_str().unwrap();
        let folder = if name.starts_with("nop-") { "nop" } else { "boards" };
        let answer = memmap(&corpus().join(folder).join(name)).unwrap();
        for key in ["usable", "memreserve", "reserved", "reserved_dynamic", "free_static", "cpus", "psci"] {
            assert_eq!(answer[key], truth[key], "{name}: {key}");
        }
        assert_eq!(answer["chosen"].is_null(), truth["chosen"].is_null(), "{name}");
        for key in ["stdout_node", "bootargs"] {
            // Where the truth has no such member, its value is null.
            assert_eq!(answer["chosen"][key], truth["chosen"][key], "{name}: {key}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes too long")]
fn every_real_tree_has_the_shape_that_libfdt_counted() {
    for truth in lines("truth.jsonl") {
        let name = truth["file"].as_str().unwrap().strip_suffix(".dtb.gz").unwrap().to_owned();
        let mut blob = corpus_tree(&name);
        let header = precheck(&blob).unwrap();
        let counts = header.counts();
        // libfdt counts the root as the first level.
        let levels = counts.depth + 1;
        let shape = json!([header.totalsize(), counts.nodes, counts.properties, counts.nops, levels]);
        let expected = ["totalsize", "nodes", "props", "nops", "max_depth"].map(|key| &truth[key]);
        assert_eq!(shape, json!(expected), "{name}");
        let tree = Tree::new(&mut blob).unwrap();
        assert_eq!(json!(tree.model()), truth["model"], "{name}");
        assert_eq!(json!(tree.root().compatible().collect::<Vec<_>>()), truth["compatible"], "{name}");
        let cells = tree.root().cells();
        assert_eq!(json!([cells.address, cells.size]), truth["root_cells"], "{name}");
        let stdout = tree.chosen().and_then(|chosen| chosen.stdout());
        let options = stdout.and_then(|stdout| stdout.options);
        if stdout.is_some() {
            assert_eq!(json!(options), truth["chosen"]["stdout_opts"], "{name}");
        }
        assert!(!tree.report().to_string().is_empty());
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes too long")]
fn every_real_tree_has_the_nodes_children_and_properties_that_the_crate_finds() {
    for truth in lines("truth.jsonl") {
        let name = truth["file"].as_str().unwrap().strip_suffix(".dtb.gz").unwrap().to_owned();
        let mut blob = corpus_tree(&name);
        let tree = Tree::new(&mut blob).unwrap();
        let other = ::fdt::Fdt::new(tree.blob()).unwrap();
        let mut nodes = 0;
        // The crate calls the root "/".
        for (ours, theirs) in tree.nodes().zip(other.all_nodes()).skip(1) {
            assert_eq!(ours.name(), theirs.name, "{name}");
            let properties: Vec<_> = ours.properties().map(|property| (property.name, property.value)).collect();
            let wanted: Vec<_> = theirs.properties().map(|property| (property.name, property.value)).collect();
            assert_eq!(properties, wanted, "{name}: {ours:?}");
            // Of several children with one name the offset tells which is which.
            let children: Vec<_> = ours.children().map(|child| child.name().as_ptr()).collect();
            let wanted: Vec<_> = theirs.children().map(|child| child.name.as_ptr()).collect();
            assert_eq!(children, wanted, "{name}: {ours:?}");
            for (property, value) in properties {
                let first = theirs.properties().find(|other| other.name == property).unwrap().value;
                assert_eq!(ours.property(property).unwrap().value, first, "{name}: {ours:?} {property}, {value:?}");
            }
            nodes += 1;
        }
        let counted = truth["nodes"].as_u64().unwrap() as usize;
        assert_eq!((nodes + 1, tree.nodes().count(), other.all_nodes().count()), (counted, counted, counted), "{name}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "starts processes")]
fn every_mutant_is_refused_or_answered_as_stated() {
    let mutants = lines("mutants.jsonl");
    assert_eq!(mutants.len(), 462);
    let file = std::env::temp_dir().join(format!("quarry-mutant-{}.dtb", std::process::id()));
    for mutant in mutants {
        let id = &mutant["id"];
        let mut blob = corpus_tree(mutant["seed"].as_str().unwrap().strip_suffix(".dtb").unwrap());
        blob.truncate(mutant["len"].as_u64().unwrap() as usize);
        for patch in mutant["patch"].as_array().unwrap() {
            let (offset, hex) = (patch[0].as_u64().unwrap() as usize, patch[1].as_str().unwrap());
            for (index, byte) in hex.as_bytes().chunks(2).enumerate() {
                blob[offset + index] = u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 16).unwrap();
            }
        }
        std::fs::write(&file, &blob).unwrap();
        let answer = memmap(&file);
        match mutant["expect"].as_str().unwrap() {
            "reject" => assert!(answer.is_err(), "{id}"),
            "accept" => agrees(&answer.unwrap(), &mutant["truth"], id),
            "either" => {}
            other => panic!("{id}: expects {other}"),
        }
    }
    std::fs::remove_file(&file).unwrap();
}

fn agrees(answer: &Value, truth: &Value, id: &Value) {
    for key in ["usable", "memreserve", "free_static", "reserved_dynamic"] {
        assert_eq!(answer[key], truth[key], "{id}: {key}");
    }
    assert_eq!(answer["cpus"]["count"], truth["cpus"], "{id}");
    for key in ["stdout_node", "bootargs"] {
        assert_eq!(answer["chosen"][key], truth[key], "{id}: {key}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "starts processes")]
fn the_tool_says_what_is_wrong_in_one_line() {
    let missing = memmap(&PathBuf::from("/nonexistent.dtb")).unwrap_err();
    assert!(missing.contains("/nonexistent.dtb"), "{missing}");
    let not_a_tree = memmap(&PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))).unwrap_err();
    assert!(not_a_tree.contains("magic"), "{not_a_tree}");
    let usage = Command::new(env!("CARGO_BIN_EXE_memmap")).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}
