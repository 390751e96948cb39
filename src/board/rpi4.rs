//! Raspberry Pi 4 (BCM2711 ARM Peripherals, low-peripheral mode: bus 0x7e00_0000 is physical 0xfe00_0000).

use super::fallback_uart::FallbackUart;
use crate::addr::PhysAddr;

pub(super) const COMPATIBLE: &str = "brcm,bcm2711";
// The mini-UART answers only while AUX_ENABLES (0xfe21_5004) bit 0 is set.
pub(super) const UARTS: [FallbackUart; 2] = [
    FallbackUart { compatible: "arm,pl011", registers: PhysAddr::new(0xfe20_1000), enabled: None },
    FallbackUart { compatible: "brcm,bcm2835-aux-uart", registers: PhysAddr::new(0xfe21_5040), enabled: Some((4, 1)) },
];
