//! `/cpus`: which CPUs there are, and how each is started.

use super::cells::Cells;
use super::error::FdtError;
use super::node::Node;
use super::reg::take_number;
use super::tree::Tree;
use crate::addr::{PhysAddr, PhysRange};

impl<'a> Tree<'a> {
    /// The CPUs in the order of the blob, disabled ones too: the children of `/cpus` that are called `cpu` or have
    /// `device_type = "cpu"`.
    pub fn cpus(&self) -> impl Iterator<Item = Cpu<'_, 'a>> {
        self.root().child(CPUS).into_iter().flat_map(Cpu::children_of)
    }
}

pub(super) const CPUS: &str = "cpus";

/// A CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu<'t, 'a> {
    node: Node<'t, 'a>,
    cells: Cells,
}

/// Method of starting a CPU (Linux: Documentation/devicetree/bindings/arm/cpus.yaml).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnableMethod {
    /// By a call to firmware: see [`Tree::psci`].
    Psci,
    /// By writing the entry point to an address that the CPU polls.
    SpinTable {
        /// Address to which the 64-bit entry point is written.
        release: PhysAddr,
    },
    /// In a way that we do not know.
    Unknown,
}

impl<'t, 'a> Cpu<'t, 'a> {
    /// The CPUs below `parent`, which is `/cpus`, in the order of the blob, disabled ones too.
    pub fn children_of(parent: Node<'t, 'a>) -> impl Iterator<Item = Self> {
        let cells = parent.cells();
        let is_cpu = |node: &Node<'_, '_>| node.base_name() == "cpu" || node.str("device_type") == Some("cpu");
        parent.children().filter(is_cpu).map(move |node| Self { node, cells })
    }

    /// The word of a spin table that starts the CPU, if it is enabled and has one.
    #[must_use]
    pub fn release_word(self) -> Option<PhysRange> {
        match self.enable_method() {
            Ok(Some(EnableMethod::SpinTable { release })) if self.is_enabled() => PhysRange::from_size(release, 8),
            _ => None,
        }
    }

    /// The node.
    #[must_use]
    pub fn node(self) -> Node<'t, 'a> {
        self.node
    }

    /// Whether the CPU may be used.
    #[must_use]
    pub fn is_enabled(self) -> bool {
        self.node.is_enabled()
    }

    /// The affinity fields of the CPU's `MPIDR_EL1`.
    ///
    /// # Errors
    ///
    /// [`FdtError::BadValue`] if `reg` is absent or is not one number of the width that `/cpus` states.
    pub fn mpidr(self) -> Result<u64, FdtError> {
        let bad = FdtError::BadValue { node: self.node.offset(), property: "reg" };
        let property = self.node.property("reg").ok_or(bad)?;
        let mut list = property.cells();
        match take_number(&mut list, self.cells.address) {
            Some(mpidr) if property.value.len() == self.cells.address as usize * 4 && self.cells.address > 0 => {
                Ok(mpidr)
            }
            _ => Err(bad),
        }
    }

    /// Method of starting the CPU; `None` if the tree does not say.
    ///
    /// # Errors
    ///
    /// [`FdtError::BadValue`] if a spin table has no readable release address.
    pub fn enable_method(self) -> Result<Option<EnableMethod>, FdtError> {
        let bad = FdtError::BadValue { node: self.node.offset(), property: "cpu-release-addr" };
        match self.node.str("enable-method") {
            None => Ok(None),
            Some("psci") => Ok(Some(EnableMethod::Psci)),
            Some("spin-table") => {
                let release = self.node.property("cpu-release-addr").and_then(|property| property.number());
                Ok(Some(EnableMethod::SpinTable { release: PhysAddr::new(release.ok_or(bad)?) }))
            }
            Some(_) => Ok(Some(EnableMethod::Unknown)),
        }
    }
}
