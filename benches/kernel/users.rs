//! Processes: a system call and back, copies, strings, the change from one address space to another.

use crate::meter::{Figures, Meter, Unable};
use crate::rows::{QUARRY, Row};
use core::hint::black_box;
use quarry::addr::{PAGE_BYTES, PAGE_SIZE, PhysAddr, UserAddr, VirtAddr, VirtRange};
use quarry::arch::aarch64::icache;
use quarry::arch::aarch64::user::{UserFrame, enter_user};
use quarry::arch::aarch64::user_exit::UserExit;
use quarry::gfp::Gfp;
use quarry::global::{self, BuddyFrames, KernelMmu};
use quarry::hal::mmu::Asid;
use quarry::hal::prot::{Access, Prot};
use quarry::mm::layout::phys_to_virt;
use quarry::mm::pgtable::{MapFlags, PageTable, Space};
use quarry::mm::user::asid::AsidSlot;

/// The rows.
pub(crate) const ROWS: &[Row] = &[
    Row { name: "syscall/none", by: QUARRY, run: syscall },
    Row { name: "copy_to_user/64", by: QUARRY, run: copy_to_user::<64> },
    Row { name: "copy_to_user/4096", by: QUARRY, run: copy_to_user::<4096> },
    Row { name: "copy_from_user/64", by: QUARRY, run: copy_from_user::<64> },
    Row { name: "copy_from_user/4096", by: QUARRY, run: copy_from_user::<4096> },
    Row { name: "strncpy_from_user/16", by: QUARRY, run: strncpy_from_user },
    Row { name: "switch_mm", by: QUARRY, run: switch_mm },
];

/// Where the process has its only page.
const AT: UserAddr = UserAddr::new(0x40_0000);

/// A process of one page. It stays for good: the machine ends after the rows.
struct Process {
    tables: PageTable<KernelMmu>,
    slot: AsidSlot,
}

impl Process {
    fn new() -> Result<Self, Unable> {
        Self::with_page(Access::ReadWrite, &[])
    }

    /// Its page has these words first.
    fn with_page(access: Access, words: &[u32]) -> Result<Self, Unable> {
        let kernel = global::kernel_tables().ok_or("no tables")?;
        let frames = &BuddyFrames::ATOMIC;
        let tables = raw!(PageTable::new(*kernel.mmu(), frames, Space::User(Asid::new(0)))).map_err(|_| "no tables")?;
        let page = global::alloc_page(Gfp::KERNEL.union(Gfp::ZERO)).map_err(|_| "no page")?;
        let memory: PhysAddr = global::page_to_phys(page);
        let own = phys_to_virt(memory).ok_or("no linear map")?;
        for (word, number) in words.iter().zip(0..PAGE_BYTES / 4) {
            let place = own.as_ptr::<u32>().wrapping_add(number);
            // SAFETY: inside the page, which is the benchmark's own.
            unsafe { place.write(*word) };
        }
        icache::sync(VirtRange::from_size(own, PAGE_SIZE).ok_or("no range")?);
        let range = VirtRange::from_size(VirtAddr::new(AT.get()), PAGE_SIZE).ok_or("no range")?;
        let prot = Prot::user(access).with_dirty(true);
        raw!(tables.map(frames, range, memory, prot, MapFlags::empty())).map_err(|_| "not mapped")?;
        Ok(Self { tables, slot: AsidSlot::new() })
    }

    fn enter(&self) -> Result<(), Unable> {
        raw!(global::switch_mm(self.tables.root(), &self.slot)).map_err(|_| "no number")
    }
}

/// From one `SVC` to the next: the branch between them is one of the instructions.
fn syscall(meter: &mut Meter) -> Result<Figures, Unable> {
    // 1: svc #0; b 1b
    let process = Process::with_page(Access::Execute, &[0xd400_0001, 0x17ff_ffff])?;
    process.enter()?;
    let mut frame = UserFrame::new(AT, AT);
    let mut done = true;
    let figures = meter.measure(|| done &= enter_user(black_box(&mut frame)) == UserExit::Syscall(0));
    done &= frame.pc.offset_from(AT) == Some(4);
    // A trace steps the kernel alone: at EL0 the step is what ends the call.
    done |= meter.is_tracing();
    global::leave_mm();
    if done { Ok(figures) } else { Err("no system call") }
}

fn copy_to_user<const BYTES: usize>(meter: &mut Meter) -> Result<Figures, Unable> {
    let (process, from) = (Process::new()?, [0x5a; BYTES]);
    process.enter()?;
    let mut done = true;
    let figures = meter.measure(|| done &= global::copy_to_user(black_box(AT), black_box(&from)).is_ok());
    let mut back = [0; BYTES];
    done &= global::copy_from_user(&mut back, AT).is_ok() && back == from;
    global::leave_mm();
    if done { Ok(figures) } else { Err("the copy differs") }
}

fn copy_from_user<const BYTES: usize>(meter: &mut Meter) -> Result<Figures, Unable> {
    let (process, from, mut to) = (Process::new()?, [0xa5; BYTES], [0; BYTES]);
    process.enter()?;
    let mut done = global::copy_to_user(AT, &from).is_ok();
    let figures = meter.measure(|| done &= global::copy_from_user(black_box(&mut to), black_box(AT)).is_ok());
    done &= to == from;
    global::leave_mm();
    if done { Ok(figures) } else { Err("the copy differs") }
}

fn strncpy_from_user(meter: &mut Meter) -> Result<Figures, Unable> {
    let (process, mut to) = (Process::new()?, [0; 64]);
    process.enter()?;
    let mut done = global::copy_to_user(AT, b"sixteen letters!\0").is_ok();
    let figures = meter.measure(|| done &= global::strncpy_from_user(black_box(&mut to), black_box(AT)) == Ok(16));
    done &= to.starts_with(b"sixteen letters!\0");
    global::leave_mm();
    if done { Ok(figures) } else { Err("the string differs") }
}

fn switch_mm(meter: &mut Meter) -> Result<Figures, Unable> {
    let processes = [Process::new()?, Process::new()?];
    processes.iter().try_for_each(Process::enter)?;
    let (mut done, mut turn) = (true, 0_usize);
    let figures = meter.measure(|| {
        turn ^= 1;
        let [first, second] = &processes;
        let next = if turn == 0 { first } else { second };
        done &= raw!(global::switch_mm(black_box(next.tables.root()), black_box(&next.slot))).is_ok();
    });
    done &= global::current_mm() == processes.get(turn).map(|process| process.tables.root());
    global::leave_mm();
    if done { Ok(figures) } else { Err("not the tables that were wanted") }
}
