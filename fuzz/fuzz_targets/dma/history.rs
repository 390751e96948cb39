//! Any bytes as a history of DMA on a simulated machine: buffers are mapped, synced in part and unmapped, bounced where a
//! device does not reach them or they share a cache line, coherent blocks and blocks of pools come and go, and after each step
//! the caches do what they like. Device and CPU must see what a model says that they see.

use quarry::addr::{DmaAddr, Order, PhysAddr, PhysRange, VirtAddr};
use quarry::arch::host::{CachedRam, SimDevice, Window};
use quarry::gfp::Gfp;
use quarry::hal::cache::DataCache;
use quarry::mm::alloc::Stateless;
use quarry::mm::dma::{
    Bidirectional, CoherentBlock, Device, DeviceSpec, Dma, DmaError, DmaHal, DmaPool, DmaWindow, FromDevice, PoolShape,
    SgEntry, ToDevice,
};
use quarry::mm::page::PageMap;
use quarry::mm::zone::PageHal;

/// Where the devices find RAM, as those of a Pi do.
const BUS: u64 = 0xc000_0000;
/// Buffers, which lie so far apart that none shares a cache line with another.
const PLACES: u64 = 16;
const APART: u64 = 16 << 10;
/// Blocks of coherent memory, and of each pool, at a time.
const BLOCKS: usize = 8;

/// Makes a call whose promise this file keeps: what it names is the history's own, and is not used once it is given back.
macro_rules! promised {
    ($call:expr) => {{
        // SAFETY: named above; the model knows what is mapped or allocated, and nothing else is passed.
        unsafe { $call }
    }};
}

/// Calls a method by a direction that is known when running.
macro_rules! by {
    ($way:expr, $dma:ident.$method:ident($($arg:expr),*)) => {
        match $way {
            Way::To => promised!($dma.$method::<ToDevice>($($arg),*)),
            Way::From => promised!($dma.$method::<FromDevice>($($arg),*)),
            Way::Both => promised!($dma.$method::<Bidirectional>($($arg),*)),
        }
    };
}

/// The bytes that decide what happens. A history ends with them.
struct Choices<'d>(&'d [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `limit`, which is at most 65,536.
    fn below(&mut self, limit: u64) -> u64 {
        (u64::from(self.byte()) << 8 | u64::from(self.byte())) % limit
    }

    /// Bytes that differ from one another and from those before.
    fn content(&mut self, size: u64) -> Vec<u8> {
        let (first, step) = (self.byte(), self.byte() | 1);
        (0..size).map(|index| first.wrapping_add(step.wrapping_mul((index ^ index >> 8) as u8))).collect()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    To,
    From,
    Both,
}

/// Bytes of RAM as a CPU sees them.
#[derive(Clone, Copy)]
struct Bytes {
    at: VirtAddr,
    size: u64,
}

impl Bytes {
    fn write(self, from: &[u8]) {
        let start = self.at.as_ptr::<u8>();
        from.iter().enumerate().for_each(|(at, byte)| promised!(start.wrapping_add(at).write_volatile(*byte)));
    }

    fn read(self) -> Vec<u8> {
        let start = self.at.as_ptr::<u8>();
        (0..self.size as usize).map(|at| promised!(start.wrapping_add(at).read_volatile())).collect()
    }
}

/// A streaming mapping, with what the buffer must hold when it ends.
struct Mapped {
    start: PhysAddr,
    way: Way,
    bus: DmaAddr,
    device: usize,
    content: Vec<u8>,
    /// What a device does not write of such a mapping is zero in the end.
    bounced: bool,
    /// The entry of its list, if it was mapped by one.
    entry: Option<SgEntry>,
}

/// A block that CPU and device both have, with its size and content.
struct Shared {
    block: CoherentBlock,
    device: usize,
    content: Vec<u8>,
}

/// What a history runs on.
struct World<'w, 'a, H: DmaHal<'a>> {
    dma: &'w Dma<'a, H>,
    ram: &'w CachedRam,
    devices: &'w [Device; 3],
    tools: [SimDevice; 3],
    /// The first buffer.
    base: PhysAddr,
    /// Bytes that must not be shared with others.
    granule: u64,
}

impl<'a, H: DmaHal<'a>> World<'_, 'a, H> {
    fn bytes(&self, start: PhysAddr, size: u64) -> Bytes {
        Bytes { at: self.ram.linear(start), size }
    }

    /// The caches do what they like with the lines of a mapping, and of the memory that the device accesses for it.
    fn stir(&self, mapped: &Mapped) {
        let size = mapped.content.len() as u64;
        let other = PhysAddr::new(mapped.bus.get() - BUS + self.ram.range().start().get());
        for start in [mapped.start, other] {
            if let Some(range) = PhysRange::from_size(start, size) {
                self.ram.stir_range(range);
            }
        }
    }

    /// Maps the buffer at a place, or returns `None` where the slots are taken or out of reach.
    fn map(&self, place: u64, choices: &mut Choices<'_>) -> Option<Mapped> {
        let kind = choices.byte();
        let size = 1 + choices.below(if kind & 1 == 0 { 200 } else { 6000 });
        let size = if kind & 2 == 0 { size.next_multiple_of(self.granule) } else { size };
        let offset = if kind & 4 == 0 { 0 } else { choices.below(4096) };
        let start = PhysAddr::new(self.base.get() + place * APART + offset);
        let way = [Way::To, Way::From, Way::Both][usize::from(kind >> 3) % 3];
        let (device, list) = (usize::from(choices.byte() % 3), kind & 0x80 != 0);
        let content = choices.content(size);
        let buffer = self.bytes(start, size);
        buffer.write(&content);
        let (dma, to) = (self.dma, &self.devices[device]);
        let used = dma.bounce_stats().used;
        let mut entries = [SgEntry::new(buffer.at, size as u32)];
        let bus = if list {
            by!(way, dma.map_sg(to, &mut entries)).map(|()| entries[0].bus())
        } else {
            by!(way, dma.map_single(to, buffer.at, size))
        };
        let bounced = dma.bounce_stats().used != used;
        let whole = (start.get() | size) & (self.granule - 1) == 0;
        match bus {
            Ok(bus) => {
                let reached = device != 2 || start.get() + size <= self.base.get() + PLACES / 2 * APART;
                let shares = device != 1 && way != Way::To && !whole;
                assert_eq!(bounced, !reached || shares, "a copy is made where it is needed, and nowhere else");
                let entry = list.then_some(entries[0]);
                Some(Mapped { start, way, bus, device, content, bounced, entry })
            }
            Err(DmaError::BounceFull(_)) => {
                assert!(!bounced, "nothing has changed");
                None
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// One step in the life of a mapping: whether it goes on.
    fn step(&self, mapped: &mut Mapped, choices: &mut Choices<'_>) -> bool {
        let tool = &self.tools[mapped.device];
        let size = mapped.content.len() as u64;
        let kind = choices.byte();
        let from = choices.below(size);
        let bytes = 1 + choices.below(size - from);
        let bus = DmaAddr::new(mapped.bus.get() + from);
        let span = from as usize..(from + bytes) as usize;
        match kind % 5 {
            0 | 1 if mapped.way != Way::To => {
                let new = choices.content(bytes);
                tool.write(self.ram, bus, &new).expect("the device reaches its mapping");
                mapped.content[span].copy_from_slice(&new);
            }
            2 if mapped.way != Way::From => {
                let mut seen = vec![0; bytes as usize];
                tool.read(self.ram, bus, &mut seen).expect("the device reaches its mapping");
                assert!(seen == mapped.content[span], "the device reads what is not there");
            }
            3 => self.sync(mapped, (from, bytes), choices),
            _ => {
                self.end(mapped);
                return false;
            }
        }
        self.stir(mapped);
        true
    }

    /// The CPU has a part for a while: whole lines, so that nothing of the device's is in them.
    fn sync(&self, mapped: &mut Mapped, (from, bytes): (u64, u64), choices: &mut Choices<'_>) {
        let (dma, device, size) = (self.dma, &self.devices[mapped.device], mapped.content.len() as u64);
        let (from, end) = (from & !(self.granule - 1), (from + bytes).next_multiple_of(self.granule).min(size));
        let (bus, span) = (DmaAddr::new(mapped.bus.get() + from), from as usize..end as usize);
        let part = self.bytes(PhysAddr::new(mapped.start.get() + from), end - from);
        by!(mapped.way, dma.sync_for_cpu(device, bus, part.size)).expect("it is mapped");
        if mapped.way == Way::Both || (mapped.way == Way::From && !mapped.bounced) {
            assert!(part.read() == mapped.content[span.clone()], "the CPU reads what is not there");
        }
        if mapped.way != Way::From {
            let new = choices.content(part.size);
            part.write(&new);
            mapped.content[span].copy_from_slice(&new);
        }
        by!(mapped.way, dma.sync_for_device(device, bus, part.size)).expect("it is mapped");
    }

    /// Unmaps, and compares.
    fn end(&self, mapped: &Mapped) {
        let (dma, device, size) = (self.dma, &self.devices[mapped.device], mapped.content.len() as u64);
        if mapped.way == Way::From && mapped.bounced {
            // Nothing is left out, which would be zero.
            let tool = &self.tools[mapped.device];
            tool.write(self.ram, mapped.bus, &mapped.content).expect("the device reaches its mapping");
        }
        self.stir(mapped);
        let buffer = self.bytes(mapped.start, size);
        match mapped.entry {
            Some(entry) => by!(mapped.way, dma.unmap_sg(device, &[entry])),
            None => by!(mapped.way, dma.unmap_single(device, mapped.bus, size)),
        }
        .expect("it is mapped");
        assert!(buffer.read() == mapped.content, "the buffer does not hold what was transferred");
    }

    /// CPU and device write to a shared block by turns, and each sees it at once.
    fn share(&self, shared: &mut Shared, choices: &mut Choices<'_>) {
        let (tool, size) = (&self.tools[shared.device], shared.content.len() as u64);
        let new = choices.content(size);
        let mut seen = vec![0; new.len()];
        let bytes = Bytes { at: shared.block.addr, size };
        assert!(bytes.read() == shared.content, "a shared block changed by itself");
        if choices.byte() & 1 == 0 {
            bytes.write(&new);
            tool.read(self.ram, shared.block.bus, &mut seen).expect("the device reaches the block");
        } else {
            tool.write(self.ram, shared.block.bus, &new).expect("the device reaches the block");
            seen = bytes.read();
        }
        assert!(seen == new, "CPU and device see different contents of a shared block");
        shared.content = new;
    }
}

/// Runs a history on `dma`, whose memory is `ram` and which has some bounce slots; everything is given back in the end.
pub(crate) fn run<'a, H: DmaHal<'a>, A: Stateless>(dma: &Dma<'a, H>, ram: &CachedRam, data: &[u8]) {
    let pages = dma.hal().pages();
    let order = Order::for_bytes(PLACES * APART).expect("a quarter of a MiB");
    let page = pages.alloc_pages(Gfp::KERNEL, order).expect("memory for the buffers");
    let base = pages.hal().map().phys(page);
    let window = DmaWindow { bus: DmaAddr::new(BUS), cpu: ram.range() };
    let make = |coherent| {
        let spec = DeviceSpec::new("nic@0").with_coherent(coherent).with_window(window);
        dma.device(&spec.expect("one window"))
    };
    let mut devices = [make(false), make(true), make(false)];
    // The last device does not reach the upper half of the buffers; the slots lie below them.
    let reach = BUS + (base.get() - ram.range().start().get()) + PLACES / 2 * APART - 1;
    dma.set_mask(&mut devices[2], reach).expect("RAM in reach");
    let tool = |device: &Device| SimDevice {
        windows: vec![Window { bus: window.bus, cpu: window.cpu }],
        mask: device.mask(),
        snoops: device.is_coherent(),
    };
    let tools = [tool(&devices[0]), tool(&devices[1]), tool(&devices[2])];
    let world = World { dma, ram, devices: &devices, tools, base, granule: dma.hal().cache().granule() };
    let shape = PoolShape { size: 72, align: 8, boundary: 4096, poison: false };
    let pool = |device| DmaPool::<H, A>::new(dma, &devices[device], "history", shape).expect("a good shape");
    let pools = [pool(0), pool(1)];
    let mut mappings: [Option<Mapped>; PLACES as usize] = [const { None }; PLACES as usize];
    let (mut blocks, mut pooled): (Vec<Shared>, Vec<Shared>) = (Vec::new(), Vec::new());
    let mut choices = Choices(data);
    while !choices.0.is_empty() {
        let kind = choices.byte();
        match kind % 8 {
            0 => {
                let (device, size) = (usize::from(kind >> 3) % 2, 1 + choices.below(20_000));
                if blocks.len() < BLOCKS {
                    let block = dma.alloc_coherent(&devices[device], size, Gfp::KERNEL).expect("memory");
                    blocks.push(Shared { block, device, content: vec![0; size as usize] });
                } else {
                    let Shared { block, device, content } = blocks.swap_remove(usize::from(kind >> 4) % BLOCKS);
                    promised!(dma.free_coherent(&devices[device], content.len() as u64, block)).expect("allocated");
                }
            }
            1 => {
                let device = usize::from(kind >> 3) % 2;
                if pooled.len() < BLOCKS {
                    let block = pools[device].alloc(Gfp::KERNEL | Gfp::ZERO).expect("memory");
                    pooled.push(Shared { block, device, content: vec![0; shape.size as usize] });
                } else {
                    let Shared { block, device, .. } = pooled.swap_remove(usize::from(kind >> 4) % BLOCKS);
                    promised!(pools[device].free(block)).expect("allocated");
                }
            }
            2 => {
                let all = blocks.len() + pooled.len();
                let index = usize::from(kind >> 3);
                if let Some(shared) = blocks.iter_mut().chain(&mut pooled).nth(index % all.max(1)) {
                    world.share(shared, &mut choices);
                }
            }
            _ => {
                let place = u64::from(choices.byte()) % PLACES;
                let slot = &mut mappings[place as usize];
                match slot {
                    None => *slot = world.map(place, &mut choices),
                    Some(mapped) => {
                        if !world.step(mapped, &mut choices) {
                            *slot = None;
                        }
                    }
                }
            }
        }
        dma.check().unwrap_or_else(|broken| panic!("{broken}"));
    }
    mappings.iter().flatten().for_each(|mapped| world.end(mapped));
    for Shared { block, device, content } in blocks {
        promised!(dma.free_coherent(&devices[device], content.len() as u64, block)).expect("allocated");
    }
    for Shared { block, device, .. } in pooled {
        promised!(pools[device].free(block)).expect("allocated");
    }
    for pool in pools {
        pool.check().unwrap_or_else(|broken| panic!("{broken}"));
        pool.destroy().expect("all blocks are back");
    }
    promised!(pages.free_pages(page, order)).expect("nothing maps the buffers");
    assert_eq!(dma.bounce_stats().used, 0, "a bounce slot is lost");
    dma.trim_reserves();
    assert_eq!(dma.reserved_pages().1, 0, "coherent memory is lost");
    assert_eq!(ram.violations(), Vec::<String>::new());
}
