//! The mini-UART of the BCM2835 family (BCM2711 ARM Peripherals, §2.2), as the firmware has set it up.

use crate::addr::VirtAddr;
use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::registers::{ReadOnly, ReadWrite};
use tock_registers::{register_bitfields, register_structs};

register_bitfields! {
    u32,
    /// AUX_MU_LSR_REG
    LineStatus [
        DATA_READY OFFSET(0) NUMBITS(1) [],
        CAN_SEND OFFSET(5) NUMBITS(1) [],
        IDLE OFFSET(6) NUMBITS(1) []
    ]
}

register_structs! {
    Registers {
        (0x00 => io: ReadWrite<u32>),
        (0x04 => _interrupts_and_line: [u32; 4]),
        (0x14 => line_status: ReadOnly<u32, LineStatus::Register>),
        (0x18 => _rest: [u32; 10]),
        (0x40 => @END),
    }
}

/// A mini-UART. Its baud rate hangs on the core clock, which only the firmware knows: it is used as it was found.
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

    pub(super) fn receive(self) -> Option<u8> {
        if !self.registers().line_status.is_set(LineStatus::DATA_READY) {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "the byte is bits 7:0")]
        Some(self.registers().io.get() as u8)
    }

    pub(super) fn is_idle(self) -> bool {
        self.registers().line_status.is_set(LineStatus::IDLE)
    }

    fn registers(self) -> &'static Registers {
        // SAFETY: MINI-1, and the registers are cells of their own, so that shared references are what they are for.
        unsafe { &*self.base.as_ptr::<Registers>() }
    }
}
