//! Random histories: buffers of all sizes and places, both kinds of devices, all directions, on a cache that does what it likes.

use super::machine::{BUS, Buffer, MIB, Machine, device, hardware, on_a_machine, ram};
use crate::random::Random;
use crate::vmalloc::kernel::RAM;
use quarry::addr::{DmaAddr, PhysAddr};
use quarry::mm::dma::{Bidirectional, Device, Direction, DmaError, FromDevice, ToDevice};

#[derive(Clone, Copy, PartialEq)]
enum Way {
    To,
    From,
    Both,
}

/// A mapping, with what the buffer must hold when it ends.
struct Mapped {
    buffer: Buffer,
    way: Way,
    bus: DmaAddr,
    device: usize,
    content: Vec<u8>,
    /// Whether unwritten bytes are undefined: zero or what was there.
    bounced: bool,
}

fn map<D: Direction>(dma: &Machine<'_, '_>, device: &Device, buffer: &Buffer) -> Result<DmaAddr, DmaError> {
    raw!(dma.map_single::<D>(device, buffer.addr(dma), buffer.size))
}

/// Calls a method by a direction that is known when running.
macro_rules! by {
    ($way:expr, $dma:ident.$method:ident($($arg:expr),*)) => {
        match $way {
            Way::To => raw!($dma.$method::<ToDevice>($($arg),*)),
            Way::From => raw!($dma.$method::<FromDevice>($($arg),*)),
            Way::Both => raw!($dma.$method::<Bidirectional>($($arg),*)),
        }
    };
}

fn history(line: u64, seed: u64, rounds: u64) {
    on_a_machine(line, seed, |dma| {
        let mut random = Random(seed * 2 + 1);
        dma.set_up_bounce(6).unwrap();
        let mut devices = [device(dma, false), device(dma, true), device(dma, false)];
        dma.set_mask(&mut devices[2], BUS + 16 * MIB - 1).unwrap();
        let tools = [0, 1, 2].map(|index: usize| hardware(dma, &devices[index]));
        // Sixteen places that do not meet, some out of reach of the last device.
        let place = |index: u64| RAM + if index < 8 { 8 * MIB } else { 40 * MIB } + index * 16384;
        let mut live: Vec<Option<Mapped>> = (0..16).map(|_| None).collect();
        let mut full = 0;
        for round in 0..rounds {
            let index = random.below(16);
            let byte = |random: &mut Random| random.below(256) as u8;
            let slot = &mut live[index as usize];
            match slot {
                None => {
                    let most = if random.below(2) == 0 { 200 } else { 6000 };
                    let size = 1 + random.below(most);
                    let start = place(index) + if random.below(2) == 0 { 0 } else { random.below(4096) };
                    let size = if random.below(2) == 0 { size.next_multiple_of(line) } else { size };
                    let buffer = Buffer { start: PhysAddr::new(start), size: size.min(8192) };
                    let content: Vec<u8> = (0..buffer.size).map(|_| byte(&mut random)).collect();
                    buffer.fill(dma, |at| content[at as usize]);
                    let way = [Way::To, Way::From, Way::Both][random.below(3) as usize];
                    let which = random.below(3) as usize;
                    let used = dma.bounce_stats().used;
                    let mapped = match way {
                        Way::To => map::<ToDevice>(dma, &devices[which], &buffer),
                        Way::From => map::<FromDevice>(dma, &devices[which], &buffer),
                        Way::Both => map::<Bidirectional>(dma, &devices[which], &buffer),
                    };
                    match mapped {
                        Ok(bus) => {
                            let bounced = dma.bounce_stats().used != used;
                            *slot = Some(Mapped { buffer, way, bus, device: which, content, bounced });
                        }
                        Err(DmaError::BounceFull(_)) => full += 1,
                        Err(other) => panic!("{other}"),
                    }
                }
                Some(mapped) => {
                    let (device, tool) = (&devices[mapped.device], &tools[mapped.device]);
                    let size = mapped.buffer.size;
                    let from = random.below(size);
                    let bytes = 1 + random.below(size - from);
                    let bus = DmaAddr::new(mapped.bus.get() + from);
                    let span = from as usize..(from + bytes) as usize;
                    match random.below(5) {
                        0 | 1 if mapped.way != Way::To => {
                            let new: Vec<u8> = (0..bytes).map(|_| byte(&mut random)).collect();
                            tool.write(ram(dma), bus, &new).unwrap();
                            mapped.content[span].copy_from_slice(&new);
                        }
                        2 if mapped.way != Way::From => {
                            let mut seen = vec![0; bytes as usize];
                            tool.read(ram(dma), bus, &mut seen).unwrap();
                            assert!(seen == mapped.content[span], "the device reads, round {round}, seed {seed}");
                        }
                        3 => {
                            // The CPU has a part: whole lines, so that nobody else's are in them.
                            let lines = (from / line * line, (from + bytes).next_multiple_of(line).min(size));
                            let part = mapped.buffer.part(lines.0, lines.1 - lines.0);
                            let bus = DmaAddr::new(mapped.bus.get() + lines.0);
                            by!(mapped.way, dma.sync_for_cpu(device, bus, part.size)).unwrap();
                            let span = lines.0 as usize..lines.1 as usize;
                            let known = mapped.way == Way::Both || (mapped.way == Way::From && !mapped.bounced);
                            if known {
                                assert!(part.read(dma) == mapped.content[span.clone()], "the CPU reads, seed {seed}");
                            }
                            if mapped.way != Way::From {
                                let new: Vec<u8> = (0..part.size).map(|_| byte(&mut random)).collect();
                                part.fill(dma, |at| new[at as usize]);
                                mapped.content[span].copy_from_slice(&new);
                            }
                            by!(mapped.way, dma.sync_for_device(device, bus, part.size)).unwrap();
                        }
                        _ => {
                            if mapped.way == Way::From && mapped.bounced {
                                // What the device leaves out is zero: so nothing is left out.
                                tool.write(ram(dma), mapped.bus, &mapped.content).unwrap();
                            }
                            mapped.buffer.stir_both(dma, mapped.bus);
                            by!(mapped.way, dma.unmap_single(device, mapped.bus, size)).unwrap();
                            assert!(mapped.buffer.read(dma) == mapped.content, "the CPU reads at last, seed {seed}");
                            *slot = None;
                        }
                    }
                    if let Some(mapped) = slot {
                        mapped.buffer.stir_both(dma, mapped.bus);
                    }
                }
            }
            if round % 64 == 0 {
                dma.check().unwrap();
            }
        }
        for mapped in live.into_iter().flatten() {
            let device = &devices[mapped.device];
            by!(mapped.way, dma.unmap_single(device, mapped.bus, mapped.buffer.size)).unwrap();
        }
        assert!(full > 0 || rounds < 400, "the slots run out at times");
    });
}

// Behaviours 299, 309, 314, 315, 316 and 317
#[test]
fn buffers_hold_what_they_must_after_any_history() {
    let seeds = if cfg!(miri) { 1 } else { 24 };
    for seed in 0..seeds {
        history([16, 32, 64, 128][seed as usize % 4], seed + 1, if cfg!(miri) { 20 } else { 500 });
    }
}
