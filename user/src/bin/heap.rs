//! `malloc` at random: every byte of every block is its owner's; small blocks are of `brk`, large ones of `mmap`.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;
use quarry_user::heap::{self, MMAP_THRESHOLD, Malloc};
use quarry_user::{Arguments, call, println};

quarry_user::program!(main);

#[global_allocator]
static MALLOC: Malloc = Malloc;

struct Block {
    at: *mut u8,
    bytes: usize,
    value: u8,
}

impl Block {
    fn fill(&self, from: usize) {
        for number in from..self.bytes {
            // SAFETY: the block has so many bytes.
            unsafe { self.at.add(number).write_volatile(self.value.wrapping_add(number as u8)) };
        }
    }

    fn is_whole(&self, bytes: usize) -> bool {
        (0..bytes).all(|number| {
            // SAFETY: the block has so many bytes.
            let found = unsafe { self.at.add(number).read_volatile() };
            found == self.value.wrapping_add(number as u8)
        })
    }
}

fn main(_: Arguments) -> i32 {
    // SAFETY: it asks.
    let start = unsafe { call::brk(0) };
    let mut random: u64 = 42;
    let mut draw = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let mut blocks: Vec<Block> = Vec::new();
    let (mut small, mut large) = (0, 0);
    for round in 0..4000_usize {
        match draw(8) {
            0..4 => {
                let bytes = if draw(16) == 0 { MMAP_THRESHOLD - 1 + draw(200_000) } else { 1 + draw(3000) };
                let at = heap::malloc(bytes);
                assert!(!at.is_null() && at.addr().is_multiple_of(16));
                // SAFETY: it asks.
                let in_heap = (start..unsafe { call::brk(0) }).contains(&at.addr());
                assert_eq!(in_heap, bytes < MMAP_THRESHOLD, "{bytes} bytes at {at:?}");
                if in_heap {
                    small += 1
                } else {
                    large += 1
                }
                let block = Block { at, bytes, value: round as u8 };
                block.fill(0);
                blocks.push(block);
            }
            4..7 if !blocks.is_empty() => {
                let block = blocks.swap_remove(draw(blocks.len()));
                assert!(block.is_whole(block.bytes), "{} bytes at {:?}", block.bytes, block.at);
                // SAFETY: it is used no more.
                unsafe { heap::free(block.at) };
            }
            _ if !blocks.is_empty() => {
                let number = draw(blocks.len());
                let bytes = 1 + draw(300_000);
                if let Some(block) = blocks.get_mut(number) {
                    // SAFETY: the old address is used no more.
                    block.at = unsafe { heap::realloc(block.at, bytes) };
                    let kept = block.bytes.min(bytes);
                    assert!(!block.at.is_null() && block.is_whole(kept));
                    block.bytes = bytes;
                    block.fill(kept);
                }
            }
            _ => {}
        }
    }
    assert!(blocks.iter().all(|block| block.is_whole(block.bytes)));
    blocks.drain(..).for_each(|block| {
        // SAFETY: it is used no more.
        unsafe { heap::free(block.at) }
    });
    let words: BTreeMap<_, _> = (0..500_u32).map(|number| (number, format!("word {number}"))).collect();
    assert_eq!(words.get(&499).map(|text| text.as_str()), Some("word 499"));
    println!("{small} blocks of brk and {large} of mmap, every byte whole");
    0
}
