//! Requests of drivers: `devm_kzalloc/BYTES` with the release of its group, `request_mem_region/BYTES` with its release.

use crate::meter::{Figures, Meter, Unable};
use crate::rows::{QUARRY, Row};
use core::hint::black_box;
use quarry::addr::PhysAddr;
use quarry::gfp::Gfp;
use quarry::global::{self, Devres};

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    Row { name: "devm_kzalloc/64", by: QUARRY, run: devm_kzalloc },
    Row { name: "request_mem_region/4096", by: QUARRY, run: request_mem_region },
];

fn devm_kzalloc(meter: &mut Meter) -> Result<Figures, Unable> {
    let mut device = Devres::new();
    // Something that stays.
    device.keep(7_u64, Gfp::KERNEL).map_err(|_| "no memory")?;
    let mut done = true;
    let figures = meter.measure(|| {
        let group = global::devres_open_group(&device);
        done &= black_box(global::devm_kzalloc(&device, 64, Gfp::KERNEL)).is_ok();
        let group = global::devres_close_group(&device, group);
        global::devres_release_group(&mut device, group);
    });
    if done && device.count() == 1 { Ok(figures) } else { Err("devm_kzalloc failed, or was not released") }
}

/// Addresses of virt that no device has: behind those of the platform bus.
const NOBODYS: PhysAddr = PhysAddr::new(0x0e00_0000);

fn request_mem_region(meter: &mut Meter) -> Result<Figures, Unable> {
    let mut done = true;
    let figures = meter.measure(|| {
        done &= global::request_mem_region(black_box(NOBODYS), 4096, "bench").is_ok();
        done &= global::release_mem_region(black_box(NOBODYS), 4096).is_ok();
    });
    if done { Ok(figures) } else { Err("request_mem_region or its release failed") }
}
