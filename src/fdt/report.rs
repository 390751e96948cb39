//! Summary of the parsed tree, for the boot log and the prompt.

use super::error::FdtError;
use super::node::Node;
use super::tree::Tree;
use core::fmt;

impl<'a> Tree<'a> {
    /// Summary of the whole machine, one fact a line, to print. A line says so where a fact cannot be read.
    #[must_use]
    pub fn report(&self) -> Report<'_, 'a> {
        Report { tree: self }
    }
}

impl<'t, 'a> Node<'t, 'a> {
    /// Summary of one device, to print: its CPU addresses, its interrupts, its own memory.
    #[must_use]
    pub fn description(self) -> Description<'t, 'a> {
        Description { node: self }
    }
}

/// See [`Tree::report`].
#[derive(Clone, Copy)]
pub struct Report<'t, 'a> {
    tree: &'t Tree<'a>,
}

/// See [`Node::description`].
#[derive(Clone, Copy)]
pub struct Description<'t, 'a> {
    node: Node<'t, 'a>,
}

impl fmt::Display for Report<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.board(f)?;
        self.memory(f)?;
        self.chosen(f)?;
        self.cpus(f)?;
        self.interrupts(f)?;
        for range in self.tree.dma_ranges() {
            match range {
                Ok(range) => writeln!(f, "dma {:?}: {} is {}", range.bus, range.device, range.cpu)?,
                Err(error) => writeln!(f, "dma: {}", self.tree.locate(error))?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Description<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.node;
        write!(f, "{node:?}")?;
        if !node.is_enabled() {
            f.write_str(" (disabled)")?;
        }
        ranges(f, node.tree(), node.phys_ranges())?;
        for interrupt in node.interrupts() {
            match interrupt {
                Ok(interrupt) => write!(f, " irq {:?}", interrupt.specifier())?,
                Err(error) => write!(f, " irq ({})", node.tree().locate(error))?,
            }
        }
        ranges(f, node.tree(), node.memory_regions().map(|region| region.map(|region| region.name())))
    }
}

/// The ranges of a list, each behind a space.
fn ranges<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    tree: &Tree<'_>,
    list: impl Iterator<Item = Result<T, FdtError>>,
) -> fmt::Result {
    for range in list {
        match range {
            Ok(range) => write!(f, " {range}")?,
            // Nothing is wrong with an address that only its bus knows, such as a CPU's number.
            Err(FdtError::NotTranslatable { address, .. }) => write!(f, " bus {address:#x}")?,
            Err(error) => write!(f, " ({})", tree.locate(error))?,
        }
    }
    Ok(())
}

/// A property that is a number, if it is present.
fn number(
    f: &mut fmt::Formatter<'_>,
    tree: &Tree<'_>,
    name: &str,
    value: Result<Option<u64>, FdtError>,
) -> fmt::Result {
    match value {
        Ok(Some(value)) => write!(f, " {name} {value:#x}"),
        Ok(None) => Ok(()),
        Err(error) => write!(f, " {name} ({})", tree.locate(error)),
    }
}

impl Report<'_, '_> {
    fn board(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.tree.header().counts();
        writeln!(f, "model {:?}, {} nodes, {} properties", self.tree.model(), counts.nodes, counts.properties)?;
        self.tree.root().compatible().try_for_each(|name| writeln!(f, "compatible {name}"))
    }

    fn memory(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")?;
        ranges(f, self.tree, self.tree.memory())?;
        f.write_str("\nmemreserve")?;
        ranges(f, self.tree, self.tree.reservations())?;
        writeln!(f)?;
        for region in self.tree.reserved_memory() {
            write!(f, "reserved {}", region.name())?;
            let flags = [
                ("disabled", !region.is_enabled()),
                ("no-map", region.is_no_map()),
                ("reusable", region.is_reusable()),
                ("cma-default", region.is_cma_default()),
                ("dynamic", region.is_dynamic()),
            ];
            for (name, _) in flags.iter().filter(|(_, is_set)| *is_set) {
                write!(f, " {name}")?;
            }
            ranges(f, self.tree, region.ranges())?;
            number(f, self.tree, "size", region.size())?;
            number(f, self.tree, "alignment", region.alignment())?;
            if region.node().has("alloc-ranges") {
                f.write_str(" within")?;
                ranges(f, self.tree, region.alloc_ranges())?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn chosen(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(chosen) = self.tree.chosen() else { return writeln!(f, "no /chosen") };
        match chosen.stdout() {
            Some(stdout) => writeln!(f, "stdout {:?} options {:?}", stdout.node, stdout.options)?,
            None => writeln!(f, "no stdout")?,
        }
        match chosen.bootargs() {
            Some(line) => {
                let line = line.split(|&byte| byte == 0).next().unwrap_or_default();
                writeln!(f, "bootargs \"{}\"", line.escape_ascii())?;
            }
            None => writeln!(f, "no bootargs")?,
        }
        match chosen.initrd() {
            Ok(Some(range)) => writeln!(f, "initrd {range}")?,
            Ok(None) => {}
            Err(error) => writeln!(f, "initrd ({})", self.tree.locate(error))?,
        }
        // The seeds are secrets: only whether they are there.
        let seed_len = chosen.rng_seed().map_or(0, <[u8]>::len);
        writeln!(f, "kaslr-seed {}, rng-seed {seed_len} bytes", chosen.kaslr_seed().is_some())
    }

    fn cpus(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for cpu in self.tree.cpus() {
            writeln!(f, "cpu {:x?} enabled {} method {:?}", cpu.mpidr(), cpu.is_enabled(), cpu.enable_method())?;
        }
        match self.tree.psci() {
            Some(psci) => writeln!(
                f,
                "psci {:?} by {:?}, standard functions {}, cpu_on {:x?}",
                psci.node(),
                psci.conduit(),
                psci.has_standard_functions(),
                psci.function("cpu_on")
            ),
            None => writeln!(f, "no psci"),
        }
    }

    fn interrupts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for controller in self.tree.interrupt_controllers() {
            writeln!(f, "interrupt controller {controller:?}")?;
        }
        for interrupt in self.tree.timer_interrupts() {
            match interrupt {
                Ok(interrupt) => {
                    writeln!(f, "timer interrupt {:?} flags {:?}", interrupt.gic_intid(), interrupt.gic_flags())?;
                }
                Err(error) => writeln!(f, "timer interrupt ({})", self.tree.locate(error))?,
            }
        }
        Ok(())
    }
}
