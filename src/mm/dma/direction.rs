//! Which way data goes, as a type.
#![forbid(unsafe_code)]

mod sealed {
    pub trait Sealed {}
}

/// Which way data goes (Linux: `enum dma_data_direction`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DmaDirection {
    /// The device reads what the CPU wrote.
    ToDevice,
    /// The device writes, and the CPU reads it afterwards.
    FromDevice,
    /// Both.
    Bidirectional,
}

/// A [`DmaDirection`] as a type: what a call has to do is known when it is compiled.
pub trait Direction: sealed::Sealed + Copy + 'static {
    /// The direction.
    const DIRECTION: DmaDirection;
    /// Whether the device reads.
    const TO_DEVICE: bool = !matches!(Self::DIRECTION, DmaDirection::FromDevice);
    /// Whether the device writes.
    const FROM_DEVICE: bool = !matches!(Self::DIRECTION, DmaDirection::ToDevice);
}

/// The CPU may write to the buffer: [`ToDevice`] and [`Bidirectional`].
pub trait CpuWrites: Direction {}

/// The CPU may read what the device wrote: [`FromDevice`] and [`Bidirectional`].
pub trait CpuReads: Direction {}

/// The device reads what the CPU wrote.
#[derive(Clone, Copy, Debug)]
pub struct ToDevice;
/// The device writes, and the CPU reads it afterwards.
#[derive(Clone, Copy, Debug)]
pub struct FromDevice;
/// Both.
#[derive(Clone, Copy, Debug)]
pub struct Bidirectional;

impl sealed::Sealed for ToDevice {}
impl sealed::Sealed for FromDevice {}
impl sealed::Sealed for Bidirectional {}

impl Direction for ToDevice {
    const DIRECTION: DmaDirection = DmaDirection::ToDevice;
}
impl Direction for FromDevice {
    const DIRECTION: DmaDirection = DmaDirection::FromDevice;
}
impl Direction for Bidirectional {
    const DIRECTION: DmaDirection = DmaDirection::Bidirectional;
}

impl CpuWrites for ToDevice {}
impl CpuWrites for Bidirectional {}
impl CpuReads for FromDevice {}
impl CpuReads for Bidirectional {}
