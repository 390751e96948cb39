//! The memory that the device tree reserves, with its owners: for reports and at the prompt.

use super::io;
use super::machine::{self, Machine};
use crate::fdt::ReservedMemory;
use crate::global;
use crate::kprintln;
use crate::mm::io::ReservedRange;
use core::fmt;

/// The paths of the devices whose `memory-region` names a region; a linear search of the tree.
pub(super) struct Owners(pub(super) ReservedRange);

impl fmt::Display for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = machine::machine().and_then(|machine| machine.tree.node_at(self.0.node));
        let mut owners = node.and_then(ReservedMemory::from_node).into_iter().flat_map(ReservedMemory::owners);
        match owners.next() {
            None => f.write_str("no device's memory-region names it"),
            Some(first) => {
                write!(f, "{}", first.path())?;
                owners.try_for_each(|owner| write!(f, ", {}", owner.path()))
            }
        }
    }
}

/// `regions`: every range, and its owners.
pub(super) fn list(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let reserved = global::io_space().reserved();
    reserved.ranges().iter().try_for_each(|reserved| writeln!(f, "{reserved}: {}", Owners(*reserved)))
}

/// `ioregion NODE [INDEX] [TYPE]`: maps a region in the name of the device that owns it.
pub(super) fn map(machine: &Machine, words: &str) {
    let mut words = words.split_whitespace();
    let (node, index) = (words.next().and_then(|path| machine.tree.resolve(path)), words.next().unwrap_or("0"));
    let (Some(node), Ok(index), Some(memory), None) =
        (node, index.parse(), io::memory_type(words.next()), words.next())
    else {
        return kprintln!("ioregion NODE [INDEX] [{}]", io::TYPES.join("|"));
    };
    match global::memory_region(node, index) {
        Ok(region) => match region.map(memory) {
            Ok(addr) => kprintln!("{addr}: {region}"),
            Err(error) => kprintln!("{error}"),
        },
        Err(error) => kprintln!("{error}"),
    }
}
