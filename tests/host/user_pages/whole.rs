//! Whole address spaces on the machine: areas, pages and numbers in the TLB together, and what can go wrong below them.

use super::machine::{AnyCpu, CPUS, Handle, Kept, Kernel, PagesOf, cpu, on_a_machine, run_on};
use quarry::addr::{CpuId, Order, PAGE_SIZE, Pfn, PhysAddr, UserAddr, VirtAddr, to_usize};
use quarry::arch::host::{Config, SimFrames, Spin, Who};
use quarry::ds::rbtree::{Chain, Node, Owned};
use quarry::gfp::Gfp;
use quarry::hal::Internal;
use quarry::hal::mmu::Asid;
use quarry::hal::prot::MemoryType;
use quarry::hal::wait::{Atomic, Context, Scope, Wait, WaitQueue, Waited};
use quarry::mm::page::Page;
use quarry::mm::user::asid::{AsidAllocator, AsidCpu, AsidHal, AsidNumbers};
use quarry::mm::user::map::{
    FilePage, Limits, MapError, MapLayout, MmapRequest, MremapRequest, NewArea, NoFilePage, ObjectId, Objects, Place,
    Placement, VmFlags, Vma, VmaSource,
};
use quarry::mm::user::pages::{FaultAccess, UserHal};
use quarry::mm::user::{AddressSpace, SpaceFault};
use quarry::mm::zone::PageAllocator;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) const R: VmFlags = VmFlags::READ;
pub(super) const RW: VmFlags = VmFlags::READ.union(VmFlags::WRITE);
pub(super) const RX: VmFlags = VmFlags::READ.union(VmFlags::EXEC);
pub(super) const NONE: VmFlags = VmFlags::empty();

const fn object(number: u64) -> ObjectId {
    match NonZeroU64::new(number) {
        Some(number) => ObjectId(number),
        None => unreachable!(),
    }
}

/// A file that maps registers, from [`REGISTERS`] on.
pub(super) const DEVICE: ObjectId = object(1);
pub(super) const REGISTERS: PhysAddr = PhysAddr::new(0x900_0000);
/// A file that maps [`GIVEN`].
pub(super) const PAGES: ObjectId = object(2);
/// A file whose pages are those of [`GIVEN`], each mapped when it is accessed first.
pub(super) const LAZY: ObjectId = object(3);

std::thread_local! {
    /// Pages that a driver gives away.
    pub(super) static GIVEN: RefCell<Vec<Page>> = const { RefCell::new(Vec::new()) };
}

fn given(_: u64, number: u64) -> Option<Page> {
    GIVEN.with_borrow(|given| given.get(to_usize(number)).copied())
}

/// The part of a machine below its spaces that is neither pages nor tables.
pub(super) struct Lower {
    pub(super) kernel: &'static Kernel,
    spare: RefCell<Chain<'static, Vma>>,
    /// Records that are out.
    pub(super) records: Cell<u64>,
    /// So many records can be had.
    records_left: Cell<u64>,
    pub(super) references: RefCell<HashMap<ObjectId, i64>>,
    /// Numbers.
    cpus: Vec<AsidCpu>,
    numbers: RefCell<AsidNumbers>,
    /// CPUs keep their TLBs at a rollover.
    pub(super) no_flush: Cell<bool>,
}

/// The machine of a space.
#[derive(Clone, Copy)]
pub(super) struct Under(pub(super) &'static Lower);

pub(super) type Whole = AddressSpace<'static, Under>;

// SAFETY: as for `Handle`, to which all of it goes.
unsafe impl UserHal for Under {
    type Mmu = AnyCpu;
    type Frames = SimFrames;
    type Pages = PagesOf;
    type Relax = Spin;

    fn mmu(&self) -> AnyCpu {
        Handle(self.0.kernel).mmu()
    }

    fn frames(&self, gfp: Gfp) -> SimFrames {
        Handle(self.0.kernel).frames(gfp)
    }

    fn pages(&self) -> &PageAllocator<PagesOf> {
        &self.0.kernel.pages
    }

    fn zero_page(&self) -> Pfn {
        Handle(self.0.kernel).zero_page()
    }

    fn copy_page(&self, internal: Internal, from: PhysAddr, to: PhysAddr) {
        Handle(self.0.kernel).copy_page(internal, from, to);
    }

    fn sync_instructions(&self, start: PhysAddr, pages: u64) {
        Handle(self.0.kernel).sync_instructions(start, pages);
    }
}

impl VmaSource<'static> for Under {
    fn take(&self, _: Gfp) -> Option<Owned<'static, Vma>> {
        let left = self.0.records_left.get();
        self.0.records_left.set(left.wrapping_sub(u64::from(left != u64::MAX)));
        if left == 0 {
            return None;
        }
        self.0.records.set(self.0.records.get() + 1);
        let spare = self.0.spare.borrow_mut().pop_front();
        Some(spare.unwrap_or_else(|| Owned::new(Box::leak(Box::new(Node::new(Vma::new()))))))
    }

    fn give(&self, record: Owned<'static, Vma>) {
        self.0.records.set(self.0.records.get() - 1);
        self.0.spare.borrow_mut().push_front(record);
    }
}

impl Objects for Under {
    fn mmap(&self, object: ObjectId, area: &mut NewArea) -> Result<(), MapError> {
        match object {
            DEVICE => raw!(area.io_remap_pfn_range(Pfn::containing(REGISTERS), MemoryType::DeviceNGnRE)),
            PAGES => raw!(area.vm_map_pages(0, GIVEN.with_borrow(|given| given.len() as u64), given))?,
            LAZY => {}
            _ => return Err(MapError::File(19)),
        }
        Ok(())
    }

    fn fault(&self, object: ObjectId, index: u64, gfp: Gfp) -> Result<FilePage, NoFilePage> {
        let page = given(0, index).filter(|_| object == LAZY).ok_or(NoFilePage::NothingThere)?;
        // An object that allocates says so.
        let pages = &self.0.kernel.pages;
        let probe = pages.alloc_pages(gfp, Order::ZERO).map_err(|_| NoFilePage::NoMemory)?;
        raw!(pages.free_pages(probe, Order::ZERO)).expect("just allocated");
        Ok(raw!(FilePage::new(page)))
    }

    fn get(&self, object: ObjectId) {
        *self.0.references.borrow_mut().entry(object).or_default() += 1;
    }

    fn put(&self, object: ObjectId) {
        *self.0.references.borrow_mut().entry(object).or_default() -= 1;
    }
}

impl Wait for Under {
    fn wait(&self, _: &WaitQueue, condition: &mut dyn FnMut() -> bool) -> Waited {
        // One thread plays all CPUs.
        if condition() { Waited::Woken } else { Waited::WouldNeverWake }
    }

    fn wake(&self, _: &WaitQueue) {}
}

impl Context for Under {
    fn enter(&self, _: Scope) {}

    fn leave(&self, _: Scope) {}

    fn is_inside(&self, _: Scope) -> bool {
        false
    }

    fn atomic(&self) -> Option<Atomic> {
        None
    }
}

impl AsidHal for Under {
    type Word = AtomicU64;

    fn local(&self) -> Option<&AsidCpu> {
        self.of(cpu())
    }

    fn of(&self, cpu: CpuId) -> Option<&AsidCpu> {
        self.0.cpus.get(to_usize(u64::from(cpu.get())))
    }

    fn cpus(&self) -> u32 {
        CPUS
    }

    fn locked<R>(&self, f: impl FnOnce(&mut AsidNumbers) -> R) -> R {
        f(&mut self.0.numbers.borrow_mut())
    }

    fn flush_local(&self) {
        if !self.0.no_flush.get() {
            self.0.kernel.sim.cpu(cpu()).invalidate_local();
        }
    }

    fn order_before_walks(&self) {
        use quarry::hal::mmu::Mmu;
        self.0.kernel.sim.cpu(cpu()).complete();
    }
}

/// A machine with whole spaces.
pub(super) struct World {
    pub(super) under: Under,
    pub(super) kernel: &'static Kernel,
    pub(super) asids: AsidAllocator<Under>,
    /// The root that each CPU walks.
    running: RefCell<[Option<PhysAddr>; CPUS as usize]>,
    /// A space keeps its number for good.
    pub(super) stale_numbers: Cell<bool>,
}

/// Runs `f` on a machine with this many numbers for spaces, and sees that all is free in the end.
pub(super) fn on_a_world(config: Config, numbers: u32, f: impl FnOnce(&World)) {
    on_a_machine(config, |kernel| {
        let lower = Kept::new(Lower {
            kernel,
            spare: RefCell::new(Chain::new()),
            records: Cell::new(0),
            records_left: Cell::new(u64::MAX),
            references: RefCell::default(),
            cpus: (0..CPUS).map(|_| AsidCpu::default()).collect(),
            numbers: RefCell::new(AsidNumbers::new()),
            no_flush: Cell::new(false),
        });
        let under = Under(lower.get());
        let world = World {
            under,
            kernel,
            asids: AsidAllocator::new(under, numbers).unwrap(),
            running: RefCell::new([None; CPUS as usize]),
            stale_numbers: Cell::new(false),
        };
        f(&world);
        assert_eq!(under.0.records.get(), 0, "records of areas are back");
        assert!(under.0.references.borrow().values().all(|count| *count == 0), "and references to objects");
    });
}

pub(super) const LAYOUT: MapLayout = MapLayout {
    mmap_min: UserAddr::new(0x1_0000),
    task_size: UserAddr::new(1 << 48),
    mmap_base: UserAddr::new(0x7fff_0000_0000),
    placement: Placement::TopDown,
};

/// Which of the things below that can fail is to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scarce {
    Records,
    Tables,
    Pages,
}

impl World {
    pub(super) fn space(&self) -> Whole {
        AddressSpace::new(self.under, LAYOUT, Limits::DEFAULT, Gfp::KERNEL).unwrap()
    }

    /// After so many successes one allocation of this kind fails; `None`: none does.
    pub(super) fn fail_after(&self, what: Scarce, successes: Option<u64>) {
        let count = successes.unwrap_or(u64::MAX);
        match what {
            Scarce::Records => self.under.0.records_left.set(count),
            Scarce::Tables => self.kernel.sim.fail_allocation_after(successes),
            Scarce::Pages => self.kernel.pages.hal().until_failure.store(count, Ordering::Relaxed),
        }
        self.kernel.pages.set_careful(successes.is_some() && what == Scarce::Pages);
    }

    pub(super) fn nothing_fails(&self) {
        for what in [Scarce::Records, Scarce::Tables, Scarce::Pages] {
            self.fail_after(what, None);
        }
    }

    /// Puts a space into TTBR0 of the CPU that this thread plays.
    pub(super) fn enter(&self, space: &Whole) {
        let this = to_usize(u64::from(cpu().get()));
        let old = space.asid().asid().filter(|_| self.stale_numbers.get());
        let asid = old.unwrap_or_else(|| {
            let note = &mut |asid: Asid| raw!(space.pages().set_asid(asid));
            self.asids.activate_noting(space.asid(), note).expect("a number")
        });
        self.kernel.sim.set_ttbr0(cpu(), space.root(), asid);
        self.running.borrow_mut()[this] = Some(space.root());
    }

    /// All CPUs run the space.
    pub(super) fn enter_everywhere(&self, space: &Whole) {
        let playing = cpu().get();
        for cpu in 0..CPUS {
            run_on(cpu);
            self.enter(space);
        }
        run_on(playing);
    }

    /// Ends a space: CPUs that run it leave it first.
    pub(super) fn end(&self, space: Whole) {
        for (cpu, running) in (0..).zip(self.running.borrow_mut().iter_mut()) {
            if *running == Some(space.root()) {
                self.kernel.sim.clear_ttbr0(CpuId::new(cpu));
                *running = None;
            }
        }
        drop(space);
    }

    /// One access of the CPU that this thread plays, with the faults that it takes.
    pub(super) fn access(&self, space: &Whole, at: u64, access: FaultAccess, value: u64) -> Result<u64, SpaceFault> {
        self.enter(space);
        let (virt, sim) = (VirtAddr::new(at), self.kernel.sim.cpu(cpu()));
        for _ in 0..8 {
            let done = match access {
                FaultAccess::Read => sim.load(virt, Who::User).ok(),
                FaultAccess::Write => sim.store(virt, Who::User, value).ok().map(|()| value),
                FaultAccess::Execute => sim.fetch(virt, Who::User).ok().map(|at| self.kernel.sim.peek(at)),
            };
            if let Some(found) = done {
                return Ok(found);
            }
            space.fault(UserAddr::new(at), access, Gfp::KERNEL | Gfp::NOWARN)?;
        }
        panic!("{at:#x} faults for ever");
    }

    pub(super) fn load(&self, space: &Whole, at: u64) -> Result<u64, SpaceFault> {
        self.access(space, at, FaultAccess::Read, 0)
    }

    pub(super) fn store(&self, space: &Whole, at: u64, value: u64) -> Result<(), SpaceFault> {
        self.access(space, at, FaultAccess::Write, value).map(|_| ())
    }

    /// All invariants of all spaces.
    pub(super) fn check(&self, spaces: &[&Whole]) {
        for space in spaces {
            space.check().unwrap_or_else(|broken| panic!("{broken}"));
        }
        let pages: Vec<_> = spaces.iter().map(|space| space.pages()).collect();
        quarry::mm::user::pages::check(&pages, |_, _| false).unwrap_or_else(|broken| panic!("{broken}"));
        self.kernel.check_quiet();
    }
}

/// Private anonymous memory at a fixed place.
pub(super) fn map(space: &Whole, at: u64, pages: u64, access: VmFlags) {
    let request = MmapRequest::anonymous(pages * PAGE_SIZE, access).at(Place::FixedNoReplace(UserAddr::new(at)));
    space.mmap(&request).unwrap();
}

/// Moves `pages` pages to a fixed place.
pub(super) fn move_to(space: &Whole, from: u64, pages: u64, to: u64) -> Result<UserAddr, MapError> {
    let size = pages * PAGE_SIZE;
    space.mremap(&MremapRequest {
        addr: UserAddr::new(from),
        old_size: size,
        new_size: size,
        may_move: true,
        to: Some(UserAddr::new(to)),
    })
}
