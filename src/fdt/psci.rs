//! The firmware interface that starts and stops CPUs (Arm DEN 0022; Linux: bindings/arm/psci.yaml).

use super::node::Node;
use super::tree::Tree;

/// Values of `compatible`, the newest first.
const COMPATIBLE: [&str; 3] = ["arm,psci-1.0", "arm,psci-0.2", V0_1];
const V0_1: &str = "arm,psci";

impl<'a> Tree<'a> {
    /// The usable node that is compatible with any version of PSCI, as [`find_by`](Self::find_by) finds it; `None` if the tree
    /// has none.
    #[must_use]
    pub fn psci(&self) -> Option<Psci<'_, 'a>> {
        self.find_by(|node| Psci::from_node(node).is_some() && node.is_available()).and_then(Psci::from_node)
    }
}

/// Instruction that calls the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// By `SMC`, into EL3.
    Smc,
    /// By `HVC`, into EL2.
    Hvc,
}

/// A PSCI node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Psci<'t, 'a> {
    node: Node<'t, 'a>,
}

impl<'t, 'a> Psci<'t, 'a> {
    /// The interface that `node` stands for; `None` if it stands for another.
    #[must_use]
    pub fn from_node(node: Node<'t, 'a>) -> Option<Self> {
        node.compatible().any(|name| COMPATIBLE.contains(&name)).then_some(Self { node })
    }

    /// The node.
    #[must_use]
    pub fn node(self) -> Node<'t, 'a> {
        self.node
    }

    /// Instruction that calls the firmware; `None` if the tree names none or an unknown one.
    #[must_use]
    pub fn conduit(self) -> Option<Conduit> {
        match self.node.str("method")? {
            "smc" => Some(Conduit::Smc),
            "hvc" => Some(Conduit::Hvc),
            _ => None,
        }
    }

    /// Whether firmware uses the function numbers that PSCI 0.2 fixed. Where it does not, each number is in the tree:
    /// see [`function`](Self::function).
    #[must_use]
    pub fn has_standard_functions(self) -> bool {
        self.node.compatible().any(|name| name != V0_1 && COMPATIBLE.contains(&name))
    }

    /// The number that the tree states for a function of PSCI 0.1: `cpu_on`, `cpu_off`, `cpu_suspend` or `migrate`.
    #[must_use]
    pub fn function(self, name: &str) -> Option<u32> {
        self.node.u32(name)
    }
}
