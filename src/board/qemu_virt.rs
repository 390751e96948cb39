//! QEMU's `virt` machine (QEMU `hw/arm/virt.c`, the memory map `base_memmap`).

use super::fallback_uart::FallbackUart;
use crate::addr::PhysAddr;

pub(super) const COMPATIBLE: &str = "linux,dummy-virt";
pub(super) const RAM_START: PhysAddr = PhysAddr::new(0x4000_0000);
pub(super) const UARTS: [FallbackUart; 1] =
    [FallbackUart { compatible: "arm,pl011", registers: PhysAddr::new(0x0900_0000), enabled: None }];
