//! The mini-UART of the BCM2835 family (BCM2711 ARM Peripherals, §2.2), as the firmware has set it up.

use super::line::Received;
use crate::addr::VirtAddr;
use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::registers::{ReadOnly, ReadWrite};
use tock_registers::{register_bitfields, register_structs};

register_bitfields! {
    u32,
    /// AUX_MU_IER_REG
    Enabled [
        RECEIVE OFFSET(0) NUMBITS(1) [],
        LINE_STATUS OFFSET(2) NUMBITS(1) []
    ],
    /// AUX_MU_LSR_REG
    LineStatus [
        DATA_READY OFFSET(0) NUMBITS(1) [],
        OVERRUN OFFSET(1) NUMBITS(1) [],
        CAN_SEND OFFSET(5) NUMBITS(1) [],
        IDLE OFFSET(6) NUMBITS(1) []
    ]
}

register_structs! {
    Registers {
        (0x00 => io: ReadWrite<u32>),
        (0x04 => interrupts: ReadWrite<u32, Enabled::Register>),
        (0x08 => _line: [u32; 3]),
        (0x14 => line_status: ReadOnly<u32, LineStatus::Register>),
        (0x18 => _rest: [u32; 10]),
        (0x40 => @END),
    }
}

/// A mini-UART. Its baud rate hangs on the core clock, which only the firmware knows: it is used unchanged.
///
/// # Invariants
///
/// - `MINI-1`: the registers of a mini-UART are mapped at `base`, not zero, as Device memory, for ever.
#[derive(Clone, Copy, Debug)]
pub(super) struct MiniUart {
    base: VirtAddr,
}

impl MiniUart {
    /// Opens the port.
    ///
    /// # Safety
    ///
    /// As for `super::Uart::open`.
    pub(super) unsafe fn open(base: VirtAddr) -> Self {
        // INVARIANT: MINI-1 by the caller's contract.
        Self { base }
    }

    pub(super) fn can_send(self) -> bool {
        self.registers().line_status.is_set(LineStatus::CAN_SEND)
    }

    pub(super) fn send(self, byte: u8) {
        self.registers().io.set(u32::from(byte));
    }

    pub(super) fn receive(self) -> Received {
        // Reading the register forgets the overrun.
        let status = self.registers().line_status.extract();
        #[expect(clippy::cast_possible_truncation, reason = "the byte is bits 7:0")]
        let byte = status.is_set(LineStatus::DATA_READY).then(|| self.registers().io.get() as u8);
        match byte {
            _ if status.is_set(LineStatus::OVERRUN) => Received::Overrun(byte),
            Some(byte) => Received::Byte(byte),
            None => Received::Nothing,
        }
    }

    /// On the first byte. Bits 0 and 2 are as on a 8250, which the manual has wrong (Linux: 8250_bcm2835aux.c).
    pub(super) fn interrupt_on_input(self) {
        self.registers().interrupts.write(Enabled::RECEIVE::SET + Enabled::LINE_STATUS::SET);
    }

    pub(super) fn is_idle(self) -> bool {
        self.registers().line_status.is_set(LineStatus::IDLE)
    }

    fn registers(self) -> &'static Registers {
        // SAFETY: MINI-1, and the registers are cells of their own, so shared references are enough.
        unsafe { &*self.base.as_ptr::<Registers>() }
    }
}
