//! A block device through the crate `virtio-drivers`, with this crate's DMA as its `Hal`: that is all it takes.

use crate::console::say;
use core::ptr::NonNull;
use quarry::fdt::Node;
use quarry::prelude::*;
use spin::{Mutex, Once};
use virtio_drivers::device::blk::{SECTOR_SIZE, VirtIOBlk};
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::mmio::MmioTransport;
use virtio_drivers::transport::{DeviceStatus, Transport};
use virtio_drivers::{BufferDirection, Hal};

/// The crate's `Hal` has no notion of a device, so that it is the one that is driven now.
static DEVICE: Mutex<Option<&'static Device>> = Mutex::new(None);

fn device() -> &'static Device {
    DEVICE.lock().expect("set before the driver")
}

/// Buffers on a stack are no memory for devices (their map is refused): the crate has its headers there.
struct Copy {
    bus: u64,
    block: NonNull<u8>,
}
// SAFETY: memory of `kmalloc`, which belongs to the entry.
unsafe impl Send for Copy {}
static COPIES: Mutex<[Option<Copy>; 8]> = Mutex::new([const { None }; 8]);

struct Quarry;

/// Maps memory by the crate's name of the direction.
unsafe fn map(at: NonNull<u8>, size: u64, direction: BufferDirection) -> Result<DmaAddr, DmaError> {
    let device = device();
    // SAFETY: `Hal::share`, for every arm: the buffer is there until it is unshared.
    match direction {
        BufferDirection::DriverToDevice => unsafe { dma_map_single::<ToDevice>(device, at, size) },
        BufferDirection::DeviceToDriver => unsafe { dma_map_single::<FromDevice>(device, at, size) },
        BufferDirection::Both => unsafe { dma_map_single::<Bidirectional>(device, at, size) },
    }
}

unsafe fn unmap(bus: DmaAddr, size: u64, direction: BufferDirection) -> Result<(), DmaError> {
    let device = device();
    // SAFETY: `Hal::unshare`, for every arm: the buffer was shared with this size and direction.
    match direction {
        BufferDirection::DriverToDevice => unsafe { dma_unmap_single::<ToDevice>(device, bus, size) },
        BufferDirection::DeviceToDriver => unsafe { dma_unmap_single::<FromDevice>(device, bus, size) },
        BufferDirection::Both => unsafe { dma_unmap_single::<Bidirectional>(device, bus, size) },
    }
}

// SAFETY: coherent memory is zeroed, page aligned, and nobody else's; buffers are mapped for the time that they are shared.
unsafe impl Hal for Quarry {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (u64, NonNull<u8>) {
        match dma_alloc_coherent(device(), pages as u64 * PAGE_SIZE, Gfp::KERNEL) {
            Ok(block) => (block.bus.get(), NonNull::new(block.addr.as_ptr()).expect("a kernel address")),
            // An error for the crate.
            Err(_) => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(paddr: u64, vaddr: NonNull<u8>, pages: usize) -> i32 {
        let block = CoherentBlock { addr: vaddr.at(), bus: DmaAddr::new(paddr) };
        // SAFETY: the crate's promise: of `dma_alloc`, and not in use.
        unsafe { dma_free_coherent(device(), pages as u64 * PAGE_SIZE, block) }.map_or(-1, |()| 0)
    }

    unsafe fn mmio_phys_to_virt(_: u64, _: usize) -> NonNull<u8> {
        unreachable!("only the PCI transport asks")
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> u64 {
        let (at, size) = (buffer.cast::<u8>(), buffer.len());
        // SAFETY: the crate's promise: the buffer is nobody else's until it is unshared.
        match unsafe { map(at, size as u64, direction) } {
            Ok(bus) => bus.get(),
            Err(DmaError::NotLinear(_)) => {
                let block = kmalloc(size, Gfp::KERNEL).expect("memory for a header");
                // SAFETY: both have `size` bytes.
                unsafe { block.copy_from_nonoverlapping(at, size) };
                // SAFETY: the block is this entry's.
                let bus = unsafe { map(block, size as u64, direction) }.expect("memory of kmalloc").get();
                let mut copies = COPIES.lock();
                *copies.iter_mut().find(|place| place.is_none()).expect("few headers at a time") =
                    Some(Copy { bus, block });
                bus
            }
            Err(error) => panic!("{error}"),
        }
    }

    unsafe fn unshare(paddr: u64, buffer: NonNull<[u8]>, direction: BufferDirection) {
        // SAFETY: mapped by `share`, with this size and direction.
        unsafe { unmap(DmaAddr::new(paddr), buffer.len() as u64, direction) }.expect("mapped");
        let mut copies = COPIES.lock();
        let place = copies.iter_mut().find(|place| place.as_ref().is_some_and(|copy| copy.bus == paddr));
        if let Some(copy) = place.and_then(Option::take) {
            if direction != BufferDirection::DriverToDevice {
                // SAFETY: both have the buffer's bytes.
                unsafe { copy.block.copy_to_nonoverlapping(buffer.cast(), buffer.len()) };
            }
            // SAFETY: allocated by `share`, and unmapped.
            unsafe { kfree(copy.block) };
        }
    }
}

fn pattern(seed: usize, index: usize) -> u8 {
    (seed * 131 + index * 7 + index / 256) as u8
}

/// Writes, reads back and compares, with buffers that are aligned and not, near and out of reach.
fn exercise(disk: &mut VirtIOBlk<Quarry, MmioTransport<'_>>, name: &str) {
    for (sectors, shift) in [(1, 0), (1, 3), (8, 0), (9, 1), (64, 5)] {
        let size = sectors * SECTOR_SIZE;
        let mut buffer = KVec::<u8>::from_elem(0, size + 16, Gfp::KERNEL).expect("memory");
        buffer.iter_mut().enumerate().for_each(|(index, byte)| *byte = pattern(sectors, index));
        disk.write_blocks(sectors, &buffer[shift..shift + size]).expect("written");
        buffer.fill(0xa5);
        disk.read_blocks(sectors, &mut buffer[shift..shift + size]).expect("read");
        let right = |(index, byte): (usize, &u8)| {
            *byte == if (shift..shift + size).contains(&index) { pattern(sectors, index) } else { 0xa5 }
        };
        assert!(buffer.iter().enumerate().all(right), "{sectors} sectors at {shift}");
    }
    disk.flush().expect("flushed");
    say!(
        "disk: {name}: 5 buffers written and read back, at most {} slots at a time\n",
        quarry::global::bounce_stats().most
    );
}

bitflags::bitflags! {
    /// The one feature that is asked for here.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Features: u64 {
        const VERSION_1 = 1 << 32;
    }
}

/// A read of so many segments, scattered over pages: through the crate's queue, as its block driver sends three.
fn segments(transport: &mut MmioTransport<'_>, queue: &mut VirtQueue<Quarry, 256>, count: usize) {
    // Type 0 reads; the sector comes behind a reserved word.
    let mut header = KVec::<u8>::from_elem(0, 16, Gfp::KERNEL).expect("memory");
    header[8..].copy_from_slice(&64_u64.to_le_bytes());
    let mut data = KVec::<KVec<u8>>::new();
    for _ in 0..count {
        data.push(KVec::from_elem(0xa5, SECTOR_SIZE, Gfp::KERNEL).expect("memory"), Gfp::KERNEL).expect("memory");
    }
    let mut status = KVec::<u8>::from_elem(0xff, 1, Gfp::KERNEL).expect("memory");
    let mut parts: [&mut [u8]; 129] = core::array::from_fn(|_| &mut [][..]);
    let wanted = parts.iter_mut().zip(data.iter_mut().map(|part| &mut part[..]).chain([&mut status[..]]));
    wanted.for_each(|(place, part)| *place = part);
    queue.add_notify_wait_pop(&[&header[..]], &mut parts[..=count], transport).expect("answered");
    assert_eq!(status[0], 0, "the device says that all is well");
    // Contents that `exercise` wrote to sectors 64 to 127.
    for (sector, part) in data.iter().enumerate().take(64) {
        assert!(
            part.iter().enumerate().all(|(at, byte)| *byte == pattern(64, sector * SECTOR_SIZE + at + 5)),
            "{sector}"
        );
    }
}

/// Drives the disk of a node: as it is, as a device that does not snoop, and as one that reaches 31 bits.
pub fn run(node: Node<'_, '_>) -> Result<(), &'static str> {
    static DEVICES: [Once<Device>; 3] = [const { Once::new() }; 3];
    let range = node.phys_ranges().flatten().next().ok_or("no registers")?;
    let resources = Devres::new();
    // SAFETY: the device is this driver's.
    let window = unsafe { devm_ioremap_resource(&resources, range.start(), range.size(), "virtio-blk") };
    let window = window.map_err(|_| "the registers are somebody else's")?;
    let header = NonNull::new(window.start().as_ptr()).ok_or("no address")?;
    // SAFETY: the window of the device, mapped until `resources` goes; one transport at a time.
    let transport = || unsafe { MmioTransport::new(header, range.size() as usize) }.map_err(|_| "no virtio device");

    for (place, name) in DEVICES.iter().zip(["as the tree says", "does not snoop", "reaches 31 bits"]) {
        let spec = DeviceSpec::from_node(node).map_err(|_| "a node that describes no device")?;
        let mut made = dma_device(&spec.with_coherent(name != "does not snoop"));
        let bits = if name == "reaches 31 bits" { 31 } else { 64 };
        dma_set_mask_and_coherent(&mut made, dma_bit_mask(bits)).map_err(|_| "no memory in reach")?;
        *DEVICE.lock() = Some(place.call_once(|| made));
        let mut disk = VirtIOBlk::<Quarry, _>::new(transport()?).map_err(|_| "no disk")?;
        exercise(&mut disk, name);
        drop(disk);
        // One to 128 segments.
        let mut transport = transport()?;
        transport.begin_init(Features::VERSION_1);
        let mut queue = VirtQueue::<Quarry, 256>::new(&mut transport, 0, false, false).map_err(|_| "no queue")?;
        transport.finish_init();
        [1, 2, 3, 17, 64, 127, 128].into_iter().for_each(|count| segments(&mut transport, &mut queue, count));
        transport.set_status(DeviceStatus::empty());
        drop(queue);
        say!("disk: {name}: 1 to 128 segments\n");
    }
    Ok(())
}
