//! The cases of Linux's `lib/test_vmalloc.c`, by name, with memory behind the areas.

use crate::vmalloc::{at, leaves_nothing, read, scattered, write};
use alloc::vec::Vec;
use quarry::addr::{Address, PAGE_SIZE, VirtAddr, to_usize};
use quarry::gfp::Gfp;
use quarry::global;
use quarry::hal::prot::Prot;
use quarry::ktest;
use quarry::mm::vmalloc::{AreaError, AreaRequest, VmFlags, VmallocError, VmallocRequest};

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn vmalloc(pages: u64) -> VirtAddr {
    let addr = global::vmalloc(to_usize(pages * PAGE_SIZE)).expect("memory").at();
    write(addr, addr.get());
    addr
}

fn vfree(addr: VirtAddr) {
    assert_eq!(read(addr), addr.get(), "nobody else has written there");
    raw!(global::try_vfree(addr)).expect("an area");
}

/// Aligned to `align`.
fn aligned(pages: u64, align: u64) -> Result<VirtAddr, VmallocError> {
    let request = VmallocRequest { align, ..VmallocRequest::new(pages * PAGE_SIZE, Gfp::KERNEL) };
    let addr = global::vmap_space().vmalloc(&request)?;
    write(addr, addr.get());
    Ok(addr)
}

// Behaviour 229
ktest!(fix_size, timeout = 60);
fn fix_size() {
    leaves_nothing(|| {
        for _ in 0..10_000 {
            vfree(vmalloc(3));
        }
    });
}

// Behaviour 231
ktest!(full_fit, timeout = 60);
fn full_fit() {
    leaves_nothing(|| {
        let junk: Vec<VirtAddr> = (0..4_000).map(|_| vmalloc(1)).collect();
        let top = junk.iter().copied().max().expect("some");
        for addr in junk.iter().step_by(2) {
            vfree(*addr);
        }
        global::vmap_space().purge_all();
        for _ in 0..10_000 {
            let addr = vmalloc(1);
            assert!(addr < top, "it fits into a hole");
            vfree(addr);
        }
        for addr in junk.iter().skip(1).step_by(2) {
            vfree(*addr);
        }
    });
}

// Behaviour 232
ktest!(long_busy_list, timeout = 60);
fn long_busy_list() {
    leaves_nothing(|| {
        let busy: Vec<VirtAddr> = (0..15_000).map(|_| vmalloc(1)).collect();
        for _ in 0..2_000 {
            let (large, small) = (vmalloc(100), vmalloc(1));
            vfree(large);
            vfree(small);
        }
        for addr in busy {
            vfree(addr);
        }
    });
}

ktest!(random_size, timeout = 60);
fn random_size() {
    leaves_nothing(|| {
        let (mut random, mut live) = (Random(0x9e37_79b9), Vec::new());
        for _ in 0..4_000 {
            live.push(vmalloc(1 + random.below(100)));
            if live.len() == 16 {
                vfree(live.swap_remove(usize::try_from(random.below(16)).expect("small")));
            }
        }
        live.into_iter().for_each(vfree);
    });
}

// Behaviour 234
ktest!(fix_align, timeout = 60);
fn fix_align() {
    leaves_nothing(|| {
        for _ in 0..10_000 {
            let addr = aligned(5, 32 << 10).expect("memory");
            assert!(addr.is_aligned(32 << 10));
            vfree(addr);
        }
    });
}

// Behaviour 235
ktest!(random_size_align, timeout = 60);
fn random_size_align() {
    leaves_nothing(|| {
        let mut random = Random(77);
        for _ in 0..10_000 {
            let align = 1 << random.below(23);
            let addr = aligned(1 + random.below(10), align).expect("memory");
            assert!(addr.is_aligned(align));
            vfree(addr);
        }
    });
}

// Behaviour 236: it fails from some shift on, and neither wraps nor hangs.
ktest!(align_shift);
fn align_shift() {
    leaves_nothing(|| {
        let mut failed = false;
        for shift in 0..64 {
            match aligned(1, 1 << shift) {
                Ok(addr) => {
                    assert!(!failed && addr.is_aligned(1 << shift));
                    vfree(addr);
                }
                Err(error) => {
                    assert!(matches!(error, VmallocError::Area(AreaError::Exhausted)), "{error}");
                    failed = true;
                }
            }
        }
        assert!(failed);
    });
}

// 35,000 allocations of up to a quarter of a page each, aligned to up to 2 KiB: what they hold is looked at.
ktest!(pcpu, machine one = "", machine four = "smp=4 mem=512M", timeout = 120);
fn pcpu() {
    global::percpu_trim();
    let before = global::percpu_stats();
    let mut random = Random(0x7063_7075);
    let mut live = Vec::with_capacity(35_000);
    for _ in 0..35_000 {
        let (size, align) = (1 + random.below(PAGE_SIZE / 4), 1 << (1 + random.below(11)));
        let ptr = global::alloc_percpu(to_usize(size), to_usize(align)).expect("memory");
        for cpu in global::possible_cpus() {
            let at = global::per_cpu_ptr(ptr, cpu);
            assert!(at.is_aligned(align));
            let copy = at.as_ptr::<u8>();
            // SAFETY: allocated just now, so many bytes.
            let copy = unsafe { core::slice::from_raw_parts_mut(copy, usize::try_from(size).expect("small")) };
            assert!(copy.iter().all(|byte| *byte == 0), "zeroed");
            copy.fill(at.get().to_le_bytes()[1] ^ u8::try_from(cpu.get()).expect("few"));
        }
        live.push((ptr, size));
    }
    global::check_percpu().expect("sound");
    for (ptr, size) in live {
        for cpu in global::possible_cpus() {
            let at = global::per_cpu_ptr(ptr, cpu);
            // SAFETY: allocated above, so many bytes, and not freed yet.
            let copy = unsafe { core::slice::from_raw_parts(at.as_ptr::<u8>(), usize::try_from(size).expect("small")) };
            let byte = at.get().to_le_bytes()[1] ^ u8::try_from(cpu.get()).expect("few");
            assert!(copy.iter().all(|found| *found == byte), "nobody else has written there");
        }
        raw!(global::try_free_percpu(ptr)).expect("allocated");
    }
    global::percpu_trim();
    assert_eq!(global::percpu_stats(), before);
    global::check_percpu().expect("sound");
}

ktest!(vm_map_ram, timeout = 60);
fn vm_map_ram() {
    let pages = scattered(63);
    let mut random = Random(5);
    for _ in 0..10_000 {
        let count = 1 + usize::try_from(random.below(63)).expect("small");
        let list = pages.get(..count).expect("as many");
        let addr = global::vm_map_ram(list, Prot::KERNEL_RW).expect("addresses").at();
        let last = at(addr, (count as u64 - 1) * PAGE_SIZE);
        assert_eq!(read(last), read(global::page_address(*list.last().expect("one"))));
        raw!(global::try_vm_unmap_ram(addr, count)).expect("a mapping");
    }
    for page in pages {
        raw!(global::try_free_page(page)).expect("ours");
    }
    global::check_vmalloc().expect("sound");
}

ktest!(no_block, timeout = 60);
fn no_block() {
    leaves_nothing(|| {
        let mut random = Random(11);
        let flags = quarry::arch::aarch64::irq::local_irq_save_flags();
        for round in 0..4_000 {
            let gfp = if round % 2 == 0 { Gfp::NOWAIT } else { Gfp::ATOMIC };
            let addr = global::vmalloc_gfp(to_usize((1 + random.below(10)) * PAGE_SIZE), gfp).expect("memory").at();
            write(addr, addr.get());
            vfree(addr);
        }
        quarry::arch::aarch64::irq::local_irq_restore_flags(flags);
    });
}

// Areas alone, many of them, of a size that no pool keeps.
ktest!(a_hundred_thousand_areas_are_found_by_their_addresses, machine = "mem=512M", timeout = 120);
fn a_hundred_thousand_areas_are_found_by_their_addresses() {
    let space = global::vmap_space();
    let request = AreaRequest::new(PAGE_SIZE, VmFlags::MAP);
    let areas: Vec<VirtAddr> = (0..100_000).map(|_| space.alloc(&request).expect("addresses").start()).collect();
    for addr in &areas {
        assert_eq!(space.find(at(*addr, PAGE_SIZE + 1)).map(|area| area.range.start()), Some(*addr));
    }
    for addr in areas {
        raw!(space.recycle(space.remove(addr, VmFlags::MAP).expect("an area")));
    }
    global::check_vmalloc().expect("sound");
}
