//! Any bytes as calls of an allocator: allocate, free and resize with sizes and alignments, on two CPUs; each block
//! keeps its bytes, lies where it must and shares none with another.
#![no_main]

mod machine;

use libfuzzer_sys::fuzz_target;
use machine::{Machine, run_on, slabs};
use quarry::gfp::Gfp;
use quarry::mm::alloc::Allocator;
use quarry::mm::slab::SlabAllocator;
use std::alloc::Layout;
use std::ptr::NonNull;

/// Blocks at a time.
const LIVE: usize = 256;

enum Action {
    Alloc { layout: Layout, zero: bool },
    Dealloc(usize),
    Realloc(usize, usize),
    Cpu(u32),
}

/// One action of five bytes.
fn action([kind, align, index, low, high]: [u8; 5]) -> Action {
    let size = usize::from(u16::from_le_bytes([low, high])).max(1);
    match kind % 8 {
        0..=2 => match Layout::from_size_align(size, 1 << (align % 13)) {
            Ok(layout) => Action::Alloc { layout, zero: kind & 8 != 0 },
            Err(_) => Action::Cpu(0),
        },
        3..=4 => Action::Dealloc(index.into()),
        5..=6 => Action::Realloc(index.into(), size),
        _ => Action::Cpu(u32::from(index) % 2),
    }
}

struct Live {
    at: NonNull<u8>,
    layout: Layout,
}

impl Live {
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the block is this one's, and as large.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.layout.size()) }
    }

    fn free(mut self, slabs: &SlabAllocator<'static, Machine>) {
        assert!(self.bytes().iter().all(|byte| *byte == 0xab));
        self.bytes().fill(0xcd);
        // SAFETY: given out with this layout, and not used afterwards.
        unsafe { slabs.free(self.at, self.layout) };
    }
}

fuzz_target!(|data: &[u8]| {
    let slabs = slabs();
    let mut live: Vec<Live> = Vec::new();
    for piece in data.as_chunks().0 {
        match action(*piece) {
            Action::Alloc { layout, zero } if live.len() < LIVE => {
                let gfp = if zero { Gfp::KERNEL | Gfp::ZERO } else { Gfp::KERNEL };
                let at = slabs.allocate(layout, gfp).expect("there is memory for all of them");
                assert!(at.addr().get().is_multiple_of(layout.align()));
                let mut block = Live { at, layout };
                assert!(!zero || block.bytes().iter().all(|byte| *byte == 0));
                block.bytes().fill(0xab);
                live.push(block);
            }
            Action::Dealloc(index) if index < live.len() => live.swap_remove(index).free(slabs),
            Action::Realloc(index, size) => {
                let Some(block) = live.get_mut(index) else { continue };
                let Ok(new) = Layout::from_size_align(size, block.layout.align()) else { continue };
                // SAFETY: given out with this layout; the old pointer is forgotten.
                block.at = unsafe { slabs.resize(block.at, block.layout, new, Gfp::KERNEL) }.expect("memory");
                let kept = block.layout.size().min(size);
                block.layout = new;
                assert!(block.at.addr().get().is_multiple_of(new.align()));
                assert!(block.bytes().iter().take(kept).all(|byte| *byte == 0xab));
                block.bytes().fill(0xab);
            }
            Action::Cpu(cpu) => run_on(cpu),
            Action::Alloc { .. } | Action::Dealloc(_) => {}
        }
    }
    for block in live {
        block.free(slabs);
    }
    machine::check(slabs);
});
