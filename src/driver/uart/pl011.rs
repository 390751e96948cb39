//! The Arm PL011 (Arm DDI 0183), through crate `arm-pl011-uart`, whose register block is made anew for each access so
//! that the handle can be copied.

use super::line::{Line, Received};
use crate::addr::VirtAddr;
use arm_pl011_uart::{
    DataBits, Error, FifoLevel, Interrupts, LineConfig, PL011Registers, Parity, StopBits, Uart, UniqueMmioPointer,
};
use core::ptr::NonNull;
use safe_mmio::fields::ReadPure;

/// Offset of the control register, UARTCR.
const CONTROL: u64 = 0x30;
/// UARTCR: transmitter on, port on.
const CONTROL_ON: u32 = 1 << 8 | 1 << 0;

/// A PL011.
///
/// # Invariants
///
/// - `PL011-1`: the registers of a PL011 are mapped at `base`, not zero, as Device memory, for ever.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pl011 {
    base: VirtAddr,
}

impl Pl011 {
    /// Opens the port; sets it up with `line` only if it is switched off. A `line` that the port cannot do leaves it off.
    ///
    /// # Safety
    ///
    /// As for `super::Uart::open`.
    pub(super) unsafe fn open(base: VirtAddr, line: Line) -> Self {
        // INVARIANT: PL011-1 by the caller's contract.
        let port = Self { base };
        if port.control() & CONTROL_ON != CONTROL_ON {
            let config = LineConfig { data_bits: DataBits::Bits8, parity: Parity::None, stop_bits: StopBits::One };
            // A line that cannot be set is not worth ending the boot for: the port stays off and drops its bytes.
            let _ = port.registers().enable(config, line.baud, line.clock);
        }
        port
    }

    fn control(self) -> u32 {
        self.block::<ReadPure<u32>>(CONTROL).read()
    }

    pub(super) fn can_send(self) -> bool {
        !self.registers().is_tx_fifo_full()
    }

    pub(super) fn send(self, byte: u8) {
        self.registers().write_word(byte);
    }

    pub(super) fn receive(self) -> Received {
        match self.registers().read_word() {
            Ok(Some(byte)) => Received::Byte(byte),
            Ok(None) => {
                // An interrupt raised by an error or a pause stays raised although nothing is left to take.
                self.registers().clear_interrupts(Interrupts::RTI | Interrupts::OEI);
                Received::Nothing
            }
            // The crate keeps the byte to itself.
            Err(Error::Overrun) => Received::Overrun(None),
            Err(_) => Received::Damaged,
        }
    }

    /// On the first byte, or where the FIFO has a level, when no more come (§3.2.8: receive and receive timeout).
    pub(super) fn interrupt_on_input(self) {
        let mut registers = self.registers();
        registers.set_interrupt_fifo_levels(FifoLevel::Bytes4, FifoLevel::Bytes4);
        let input = Interrupts::RXI | Interrupts::RTI | Interrupts::OEI;
        registers.clear_interrupts(input);
        registers.set_interrupt_masks(input);
    }

    pub(super) fn is_idle(self) -> bool {
        !self.registers().is_busy()
    }

    fn registers(self) -> Uart<'static> {
        Uart::new(self.block::<PL011Registers>(0))
    }

    /// The registers of type `T` at `offset` in the block.
    fn block<T>(self, offset: u64) -> UniqueMmioPointer<'static, T> {
        let at = VirtAddr::new(self.base.get() + offset).as_ptr();
        // SAFETY: PL011-1: not zero.
        let at = unsafe { NonNull::new_unchecked(at) };
        // SAFETY: PL011-1. Another pointer to the same block can be alive on another CPU, or in code that a report has
        // interrupted for good; both only do single volatile accesses, which the device orders.
        unsafe { UniqueMmioPointer::new(at) }
    }
}
