//! I/O ports: the window through which a PCI host shows the port space of its bus, and Linux's names for it. Arm has no port
//! instructions: a port is an address in the window, Device-nGnRE (Linux: `include/asm-generic/io.h`, `PCI_IOBASE`).

use super::io::{ioremap, readb, readl, readw, writeb, writel, writew};
use super::{KernelPages, try_iounmap};
use crate::addr::{PhysAddr, PhysRange, VirtAddr};
use crate::arch::aarch64::cpu::Relax;
use crate::mm::io::IoError;
use crate::mm::io::resource::{Request, ResourceError, ResourceFlags, ResourceId, Resources, Span};
use crate::sync::Once;
use core::fmt;

/// Address of the window, and its number of ports.
#[derive(Clone, Copy, Debug)]
struct Window {
    base: VirtAddr,
    ports: u64,
}

static WINDOW: Once<Window, Relax> = Once::new();

/// The tree of requested I/O ports (Linux: `ioport_resource`).
static IOPORTS: Resources<'static, KernelPages> =
    Resources::new(KernelPages(()), Span::ALL, "PCI IO", ResourceFlags::IO);

/// Reason why a port was not accessed, or not granted. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PortError {
    /// This machine has no ports: its device tree names no window.
    NoPorts,
    /// The access, or the request, exceeds the last port.
    Beyond {
        /// Its first port.
        port: u64,
        /// Number of ports of the machine.
        ports: u64,
    },
    /// The port is not a multiple of the access's width.
    Unaligned(u64),
    /// Some of these ports have an owner.
    Resource(ResourceError<'static>),
    /// The window cannot be mapped.
    Map(IoError),
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPorts => f.write_str("this machine has no I/O ports"),
            Self::Beyond { port, ports } => write!(f, "port {port:#x} of {ports:#x} ports"),
            Self::Unaligned(port) => write!(f, "port {port:#x} is not aligned to the access"),
            Self::Resource(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for PortError {}

/// Maps the window of the machine's PCI host, whose first address is port 0. Boot CPU; the first call counts.
///
/// # Errors
///
/// [`PortError::Map`], [`PortError::Resource`].
pub fn ioports_init(window: PhysRange) -> Result<(), PortError> {
    let base = ioremap(window.start(), window.size()).map_err(PortError::Map)?;
    let mine = Window { base, ports: window.size() };
    if WINDOW.call_once(|| mine).base != base {
        // SAFETY: mapped above, and nobody knows of it.
        return unsafe { try_iounmap(base) }.map_err(PortError::Map);
    }
    Ok(())
}

/// The tree of this machine's ports.
#[must_use]
pub fn ioport_resource() -> &'static Resources<'static, KernelPages> {
    &IOPORTS
}

fn window() -> Result<Window, PortError> {
    WINDOW.get().copied().ok_or(PortError::NoPorts)
}

/// The ports from `start` on, `count` of them; all must exist.
fn span(start: u64, count: u64) -> Result<Span, PortError> {
    let Window { ports, .. } = window()?;
    let fits = start.checked_add(count).is_some_and(|end| end <= ports);
    let span = Span::from_size(PhysAddr::new(start), count).filter(|_| fits);
    span.ok_or(PortError::Beyond { port: start, ports })
}

/// Requests ports: nobody else gets them until they are released (Linux: `request_region`). Any context.
///
/// # Errors
///
/// [`PortError::NoPorts`], [`PortError::Beyond`], [`PortError::Resource`].
pub fn request_region(start: u64, count: u64, name: &'static str) -> Result<ResourceId, PortError> {
    let request = Request { span: span(start, count)?, name, flags: ResourceFlags::IO };
    IOPORTS.request_region(&request).map_err(PortError::Resource)
}

/// Releases ports of [`request_region`] (Linux: `release_region`). Any context; needs no memory.
///
/// # Errors
///
/// [`PortError`], also logged, if this is not exactly a requested range.
pub fn release_region(start: u64, count: u64) -> Result<(), PortError> {
    let released = span(start, count).and_then(|span| IOPORTS.release_region(span).map_err(PortError::Resource));
    released.inspect_err(|error| log::error!("release_region({start:#x}, {count:#x}): {error}"))
}

/// Address of a port.
fn port_at(port: u64, width: u64) -> Result<VirtAddr, PortError> {
    let Window { base, ports } = window()?;
    if port.checked_add(width).is_none_or(|end| end > ports) {
        return Err(PortError::Beyond { port, ports });
    }
    if !port.is_multiple_of(width) {
        return Err(PortError::Unaligned(port));
    }
    Ok(VirtAddr::new(base.get().wrapping_add(port)))
}

macro_rules! accesses {
    ($($word:ident: $in:ident by $read:ident, $out:ident by $write:ident;)*) => {$(
        /// Reads a port; no later access is ordered before it. Any context.
        ///
        /// # Errors
        ///
        /// [`PortError::NoPorts`], [`PortError::Beyond`], [`PortError::Unaligned`]; nothing is read then.
        ///
        /// # Safety
        ///
        /// Reading this port does no harm.
        pub unsafe fn $in(port: u64) -> Result<$word, PortError> {
            let at = port_at(port, size_of::<$word>() as u64)?;
            // SAFETY: a port inside the window, which is mapped for good; by `# Safety`, reading it does no harm.
            Ok(unsafe { $read(at) })
        }

        /// Writes a port, after all earlier writes to memory. Any context.
        ///
        /// # Errors
        ///
        /// As for reading it; nothing is written then.
        ///
        /// # Safety
        ///
        /// Writing this to the port breaks no promise that others rely on.
        pub unsafe fn $out(value: $word, port: u64) -> Result<(), PortError> {
            let at = port_at(port, size_of::<$word>() as u64)?;
            // SAFETY: as for reading.
            unsafe { $write(value, at) };
            Ok(())
        }
    )*};
}

accesses! {
    u8: inb by readb, outb by writeb;
    u16: inw by readw, outw by writew;
    u32: inl by readl, outl by writel;
}

/// Ports that this value owns until it is dropped.
#[derive(Debug)]
#[must_use = "dropped, it is released"]
pub struct PortRegion {
    id: ResourceId,
    span: Span,
}

impl PortRegion {
    /// Requests `count` ports from `start` on; see [`request_region`].
    ///
    /// # Errors
    ///
    /// Those of [`request_region`].
    pub fn request(start: u64, count: u64, name: &'static str) -> Result<Self, PortError> {
        let span = span(start, count)?;
        Ok(Self { id: request_region(start, count, name)?, span })
    }

    /// The ports.
    #[must_use]
    pub const fn span(&self) -> Span {
        self.span
    }
}

impl Drop for PortRegion {
    fn drop(&mut self) {
        // By its name, which nobody else's range can have.
        if let Err(error) = IOPORTS.release(self.id) {
            log::error!("ports {} are not released: {error}", self.span);
        }
    }
}
