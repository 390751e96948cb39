//! This kernel's DMA: mapping and unmapping together, syncing, allocating and freeing together. The devices are none that
//! QEMU has: what is measured is what the CPU does.

use crate::meter::{Figures, Meter, Unable};
use crate::rows::{QUARRY, Row};
use core::hint::black_box;
use quarry::addr::{Address as _, DmaAddr, Order, VirtAddr};
use quarry::gfp::Gfp;
use quarry::global;
use quarry::mm::dma::{Device, DeviceSpec, Direction, FromDevice, PoolShape, SgEntry, ToDevice};

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    Row { name: "dma_map_single/64_to", by: QUARRY, run: single::<ToDevice, 64, false> },
    Row { name: "dma_map_single/64_from", by: QUARRY, run: single::<FromDevice, 64, false> },
    Row { name: "dma_map_single/4096_to", by: QUARRY, run: single::<ToDevice, 4096, false> },
    Row { name: "dma_map_single/4096_from", by: QUARRY, run: single::<FromDevice, 4096, false> },
    Row { name: "dma_map_single/4096_coherent", by: QUARRY, run: single::<ToDevice, 4096, true> },
    Row { name: "dma_sync/4096_for_cpu", by: QUARRY, run: |meter| sync(meter, false) },
    Row { name: "dma_sync/4096_for_device", by: QUARRY, run: |meter| sync(meter, true) },
    Row { name: "dma_map_sg/16_to", by: QUARRY, run: list::<false> },
    Row { name: "dma_map_sg/16_coherent", by: QUARRY, run: list::<true> },
    Row { name: "dma_pool/64", by: QUARRY, run: pool },
    Row { name: "dma_alloc_coherent/4096", by: QUARRY, run: coherent::<4096, false> },
    Row { name: "dma_alloc_coherent/4096_coherent", by: QUARRY, run: coherent::<4096, true> },
    Row { name: "dma_alloc_coherent/65536", by: QUARRY, run: coherent::<65536, false> },
    Row { name: "dma_bounce/4096_to", by: QUARRY, run: bounce::<ToDevice> },
    Row { name: "dma_bounce/4096_from", by: QUARRY, run: bounce::<FromDevice> },
];

/// Hides three values from the compiler without a way through memory: a driver has them in registers.
#[inline(always)]
fn opaque(device: &Device, mut at: u64, mut size: u64) -> (&Device, u64, u64) {
    let mut device = &raw const *device;
    // SAFETY: no instruction at all.
    unsafe {
        core::arch::asm!("/* {0} {1} {2} */", inout(reg) device, inout(reg) at, inout(reg) size,
            options(readonly, nostack, preserves_flags));
    }
    // SAFETY: the same reference.
    (unsafe { &*device }, at, size)
}

fn device(coherent: bool) -> Device {
    global::dma_device(&DeviceSpec::new("bench").with_coherent(coherent))
}

/// Runs `f` with the address of a block of pages.
fn with_pages(order: u8, f: impl FnOnce(VirtAddr) -> Result<Figures, Unable>) -> Result<Figures, Unable> {
    let order = Order::new(order).ok_or("no such order")?;
    let block = global::get_free_pages(Gfp::KERNEL, order).map_err(|_| "no pages")?.at();
    let figures = f(block);
    raw!(global::try_free_pages(block, order)).map_err(|_| "free_pages failed")?;
    figures
}

fn pair<D: Direction>(meter: &mut Meter, device: &Device, at: VirtAddr, size: u64) -> Result<Figures, Unable> {
    let mut done = true;
    let figures = meter.measure(|| {
        let (device, at, size) = opaque(device, at.get(), size);
        match raw!(global::dma_map_single::<D>(device, VirtAddr::new(at), size)) {
            Ok(bus) => {
                if raw!(global::dma_unmap_single::<D>(device, bus, size)).is_err() {
                    done = false;
                }
            }
            Err(_) => done = false,
        }
    });
    if done { Ok(figures) } else { Err("dma_map_single or dma_unmap_single failed") }
}

fn single<D: Direction, const BYTES: u64, const COHERENT: bool>(meter: &mut Meter) -> Result<Figures, Unable> {
    let device = device(COHERENT);
    with_pages(0, |at| pair::<D>(meter, &device, at, BYTES))
}

fn sync(meter: &mut Meter, for_device: bool) -> Result<Figures, Unable> {
    let device = device(false);
    with_pages(0, |at| {
        let bus = raw!(global::dma_map_single::<FromDevice>(&device, at, 4096)).map_err(|_| "dma_map_single failed")?;
        let mut done = true;
        let figures = meter.measure(|| {
            let (device, bus, size) = opaque(&device, bus.get(), 4096);
            let bus = DmaAddr::new(bus);
            let failed = match for_device {
                true => raw!(global::dma_sync_single_for_device::<FromDevice>(device, bus, size)).is_err(),
                false => raw!(global::dma_sync_single_for_cpu::<FromDevice>(device, bus, size)).is_err(),
            };
            if failed {
                done = false;
            }
        });
        done &= raw!(global::dma_unmap_single::<FromDevice>(&device, bus, 4096)).is_ok();
        if done { Ok(figures) } else { Err("syncing failed") }
    })
}

fn list<const COHERENT: bool>(meter: &mut Meter) -> Result<Figures, Unable> {
    let device = device(COHERENT);
    with_pages(5, |at| {
        // Every other page, so that no two are one.
        let mut list: [SgEntry; 16] =
            core::array::from_fn(|index| SgEntry::new(VirtAddr::new(at.get() + index as u64 * 8192), 4096));
        let mut done = true;
        let figures = meter.measure(|| {
            done &= raw!(global::dma_map_sg::<ToDevice>(black_box(&device), black_box(&mut list))).is_ok();
            done &= raw!(global::dma_unmap_sg::<ToDevice>(black_box(&device), black_box(&list))).is_ok();
        });
        if done { Ok(figures) } else { Err("dma_map_sg or dma_unmap_sg failed") }
    })
}

fn coherent<const BYTES: u64, const COHERENT: bool>(meter: &mut Meter) -> Result<Figures, Unable> {
    let device = device(COHERENT);
    let mut done = true;
    let figures = meter.measure(|| {
        match global::dma_alloc_coherent(black_box(&device), black_box(BYTES), black_box(Gfp::KERNEL)) {
            Ok(block) => {
                done &= raw!(global::dma_free_coherent(black_box(&device), black_box(BYTES), black_box(block))).is_ok();
            }
            Err(_) => done = false,
        }
    });
    if done { Ok(figures) } else { Err("dma_alloc_coherent or dma_free_coherent failed") }
}

fn pool(meter: &mut Meter) -> Result<Figures, Unable> {
    let device = device(false);
    let shape = PoolShape { size: 64, align: 64, boundary: 0, poison: false };
    let pool = global::dma_pool_create("bench", &device, shape).map_err(|_| "dma_pool_create failed")?;
    let mut done = true;
    let figures = meter.measure(|| match black_box(&pool).alloc(black_box(Gfp::KERNEL)) {
        Ok(block) => done &= raw!(black_box(&pool).free(black_box(block))).is_ok(),
        Err(_) => done = false,
    });
    if done { Ok(figures) } else { Err("dma_pool_alloc or dma_pool_free failed") }
}

fn bounce<D: Direction>(meter: &mut Meter) -> Result<Figures, Unable> {
    let mut device = device(false);
    with_pages(1, |at| {
        // Out of reach: the mask ends where the bounce slots do, below the buffer; or else it shares its first line.
        let slots = global::bounce_stats();
        let phys = global::virt_to_phys(at).ok_or("no linear map")?;
        if slots.slots == 0 || global::dma_set_mask(&mut device, phys.get() - 1).is_err() {
            return Err("no bounce slots");
        }
        let bus = raw!(global::dma_map_single::<D>(&device, at, 4096)).map_err(|_| "the slots are out of reach")?;
        if bus == DmaAddr::new(phys.get()) {
            return Err("nothing is bounced");
        }
        raw!(global::dma_unmap_single::<D>(&device, bus, 4096)).map_err(|_| "dma_unmap_single failed")?;
        pair::<D>(meter, &device, at, 4096)
    })
}
