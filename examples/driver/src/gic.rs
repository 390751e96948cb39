//! Interrupts: a GICv2, and a handler for each line that a driver asks for.

use arm_gic::gicv2::GicV2;
use arm_gic::{IntId, InterruptGroup, Trigger};
use quarry::boot::set_interrupt_handler;
use quarry::fdt::{Node, Tree};
use quarry::prelude::*;
use spin::Mutex;

/// Handler of an interrupt: with interrupts masked; the device's line is low when it returns.
pub type Handler = fn();

/// Lines that may be asked for, by INTID.
const LINES: usize = 128;
static HANDLERS: Mutex<[Option<Handler>; LINES]> = Mutex::new([None; LINES]);
static GIC: spin::Once<(VirtAddr, VirtAddr)> = spin::Once::new();

/// The controller's registers as the crate `arm-gic` wants them.
fn gic() -> Option<GicV2<'static>> {
    let (distributor, cpu_interface) = *GIC.get()?;
    // SAFETY: mapped for good by `init`; one CPU, and masked, so that one value is in use at a time.
    Some(unsafe { GicV2::new(distributor.as_ptr(), cpu_interface.as_ptr()) })
}

/// Maps the controller that the tree names, and lets interrupts in.
pub fn init(tree: &Tree<'_>) -> Result<(), &'static str> {
    let node = tree.find_by(|node| node.is_compatible("arm,cortex-a15-gic")).ok_or("no GICv2")?;
    let mut ranges = node.phys_ranges().flatten();
    let (Some(distributor), Some(cpu_interface)) = (ranges.next(), ranges.next()) else { return Err("no registers") };
    let map = |range: PhysRange| ioremap(range.start(), range.size()).map_err(|_| "no addresses");
    GIC.call_once(|| (map(distributor).unwrap_or(VirtAddr::ZERO), map(cpu_interface).unwrap_or(VirtAddr::ZERO)));
    let mut gic = gic().ok_or("not mapped")?;
    gic.setup();
    gic.enable_group0(true);
    set_interrupt_handler(|| {
        let Some(mut gic) = self::gic() else { return };
        let Some(intid) = gic.get_and_acknowledge_interrupt(InterruptGroup::Group0) else { return };
        let handler = HANDLERS.lock().get(u32::from(intid) as usize).copied().flatten();
        if let Some(handler) = handler {
            handler();
        }
        gic.end_interrupt(intid, InterruptGroup::Group0);
    });
    Ok(())
}

/// Calls `handler` for the first interrupt of `node`, until the driver gives back what it has.
pub fn request_irq(device: &Devres, node: Node<'_, '_>, handler: Handler) -> Result<(), &'static str> {
    let intid = node.interrupts().flatten().next().and_then(|line| line.gic_intid()).ok_or("no interrupt")?;
    *HANDLERS.lock().get_mut(intid as usize).ok_or("an interrupt beyond the table")? = Some(handler);
    let line = IntId::spi(intid - 32);
    let mut gic = gic().ok_or("no controller")?;
    gic.set_interrupt_priority(line, 0x80);
    // virtio-mmio has edges, says virt's tree.
    gic.set_trigger(line, Trigger::Edge);
    gic.enable_interrupt(line, true).map_err(|_| "refused")?;
    let release = move || {
        if let Some(mut gic) = self::gic() {
            let _ = gic.enable_interrupt(IntId::spi(intid - 32), false);
        }
        if let Some(place) = HANDLERS.lock().get_mut(intid as usize) {
            *place = None;
        }
    };
    devm_add_action_or_reset(device, release).map_err(|_| "no memory")
}

/// Sleeps until `done`, which an interrupt brings about.
pub fn wait_until(done: impl Fn() -> bool) {
    while !done() {
        // SAFETY: WFI wakes for a pending interrupt that is masked too, so none is lost between the look and the sleep; it is
        // taken between the two writes of DAIF.
        unsafe { core::arch::asm!("wfi", "msr daifclr, #2", "isb", "msr daifset, #2") };
    }
}
