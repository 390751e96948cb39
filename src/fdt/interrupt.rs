//! Interrupts: the controller that each line of a device goes to, and the line's number there.

use super::error::FdtError;
use super::node::Node;
use super::tree::Tree;
use super::value::Property;

/// The most cells in an interrupt's specifier that we hold; GICs use three or four.
const MAX_SPECIFIER: usize = 4;

impl<'a> Tree<'a> {
    /// The interrupt controllers that are enabled, in the order of the blob.
    pub fn interrupt_controllers(&self) -> impl Iterator<Item = Node<'_, 'a>> {
        self.nodes().filter(|node| node.has("interrupt-controller") && node.is_enabled())
    }

    /// The interrupts of the architected timer, in the order of its binding: secure EL1, non-secure EL1, virtual, EL2
    /// physical, and EL2 virtual where there is one (Linux: bindings/timer/arm,arch_timer.yaml).
    pub fn timer_interrupts(&self) -> impl Iterator<Item = Result<Interrupt<'_, 'a>, FdtError>> {
        self.timer().into_iter().flat_map(Node::interrupts)
    }

    /// Ticks a second of the architected timer, where the firmware has left that to the tree: `clock-frequency`.
    #[must_use]
    pub fn timer_frequency(&self) -> Option<u32> {
        self.timer().and_then(|timer| timer.u32("clock-frequency")).filter(|frequency| *frequency != 0)
    }

    fn timer(&self) -> Option<Node<'_, 'a>> {
        self.find_by(|node| {
            node.compatible().any(|name| matches!(name, "arm,armv8-timer" | "arm,armv7-timer")) && node.is_enabled()
        })
    }
}

/// An interrupt line of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt<'t, 'a> {
    /// The controller that it goes to.
    pub controller: Node<'t, 'a>,
    specifier: [u32; MAX_SPECIFIER],
    cells: usize,
}

impl Interrupt<'_, '_> {
    /// The cells by which the controller knows the line.
    #[must_use]
    pub fn specifier(&self) -> &[u32] {
        self.specifier.get(..self.cells).unwrap_or_default()
    }

    /// The INTID, if the controller is a GIC: shared interrupts (first cell 0) begin at 32, private ones (1) at 16.
    /// `None` for kinds and numbers that a GIC does not have (Linux: bindings/interrupt-controller/arm,gic-v3.yaml).
    #[must_use]
    pub fn gic_intid(&self) -> Option<u32> {
        match *self.specifier() {
            [0, number @ 0..=987, _, ..] => Some(32 + number),
            [1, number @ 0..=15, _, ..] => Some(16 + number),
            _ => None,
        }
    }

    /// The trigger flags, if the controller is a GIC: 1 and 2 are edges, 4 and 8 levels.
    #[must_use]
    pub fn gic_flags(&self) -> Option<u32> {
        self.specifier().get(2).map(|flags| flags & 0xf)
    }
}

/// The list of a device's interrupts, partly read.
struct Interrupts<'t, 'a, I> {
    node: Node<'t, 'a>,
    cells: I,
    /// The one controller of a plain `interrupts` list; `None` where each entry names its own.
    controller: Option<Node<'t, 'a>>,
    property: &'static str,
    done: bool,
}

impl<'t, 'a, I: Iterator<Item = u32> + Clone> Interrupts<'t, 'a, I> {
    fn read(&mut self) -> Result<Option<Interrupt<'t, 'a>>, FdtError> {
        let node = self.node.offset();
        let bad = FdtError::BadValue { node, property: self.property };
        if self.cells.clone().next().is_none() {
            return Ok(None);
        }
        let controller = match self.controller {
            Some(controller) => controller,
            None => {
                let phandle = self.cells.next().ok_or(bad)?;
                self.node.tree().find_phandle(phandle).ok_or(FdtError::NoSuchPhandle { node, phandle })?
            }
        };
        let cells = controller.u32("#interrupt-cells").ok_or(bad)? as usize;
        let mut specifier = [0; MAX_SPECIFIER];
        let slots = specifier.get_mut(..cells).ok_or(FdtError::WideCells { node: controller.offset() })?;
        if slots.is_empty() {
            return Err(bad);
        }
        for slot in slots {
            *slot = self.cells.next().ok_or(bad)?;
        }
        Ok(Some(Interrupt { controller, specifier, cells }))
    }
}

impl<'t, 'a, I: Iterator<Item = u32> + Clone> Iterator for Interrupts<'t, 'a, I> {
    type Item = Result<Interrupt<'t, 'a>, FdtError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.read().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}

impl<'t, 'a> Node<'t, 'a> {
    /// The node that receives the node's interrupts: the `interrupt-parent` of the node or of the nearest node above that has
    /// one, or a node above that has `#interrupt-cells` itself and lies nearer. That is a controller or, on some buses, a
    /// nexus, whose `interrupt-map` is not followed.
    #[must_use]
    pub fn interrupt_parent(self) -> Option<Self> {
        for (level, node) in self.upwards().enumerate() {
            if level > 0 && node.has("#interrupt-cells") {
                return Some(node);
            }
            if let Some(phandle) = node.u32("interrupt-parent") {
                return self.tree().find_phandle(phandle);
            }
        }
        None
    }

    /// The node's interrupts, from `interrupts-extended` or else `interrupts`; nothing if it has none or no controller.
    ///
    /// An item is [`FdtError::NoSuchPhandle`], [`FdtError::BadValue`] or [`FdtError::WideCells`] where the list cannot
    /// be followed; it is then the last.
    pub fn interrupts(self) -> impl Iterator<Item = Result<Interrupt<'t, 'a>, FdtError>> {
        let extended = self.property("interrupts-extended");
        let (property, list) = match extended {
            Some(list) => ("interrupts-extended", Some(list)),
            None => ("interrupts", self.property("interrupts")),
        };
        let controller = if extended.is_some() { None } else { self.interrupt_parent() };
        // A plain list without a controller cannot be read as one that names its controllers.
        let orphan = extended.is_none() && controller.is_none();
        let list = Property { name: property, value: list.map_or(&[], |list| list.value) };
        Interrupts { node: self, cells: list.cells(), controller, property, done: orphan }
    }
}
