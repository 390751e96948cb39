//! The numbers that mark the entries of a user address space in the TLB (ASIDs), and which of them each CPU uses.
//!
//! There are 256 or 65,536 numbers and any number of address spaces, so numbers are handed out by **generations**. An address
//! space keeps the number that it got until the numbers run out. Then a new generation begins (**rollover**): only what the CPUs
//! use at that moment stays taken, every other space gets a new number when it runs next, and each CPU drops its whole TLB
//! before it changes its address space next. So the rollover itself interrupts nobody. The rules are Linux's
//! (`arch/arm64/mm/context.c`):
//!
//! - [`AsidCpu`] has the number that its CPU uses (`active`). The fast path replaces it by compare-exchange, and the rollover
//!   swaps it for zero. Either the rollover sees the new number and keeps it taken, or the fast path finds the zero and takes
//!   the slow path, behind the rollover's lock.
//! - A number that a rollover finds in use is **reserved** for its CPU until that CPU has changed to a space of the new
//!   generation. A space whose number is reserved keeps the number in the next generation.
//! - Each CPU drops its own TLB. One broadcast invalidation at the rollover would be cheaper, and too early: a CPU that has
//!   just stated its next number still has the tables of the last space in `TTBR0_EL1`, under a number that the rollover takes
//!   for free, and may fetch translations of it after the broadcast.
//!
//! Number 0 belongs to the empty table, which a CPU has while it runs no process.
//!
//! # Invariants
//!
//! - `ASID-1`: there are more numbers than CPUs, number 0 not counted, so that a rollover leaves a number free.
//! - `ASID-2`: the number that a CPU uses, and the number reserved for it, are marked as taken.
//! - `ASID-3`: no two address spaces have the same number in one generation.
//! - `ASID-4`: a CPU uses a number of an older generation only as long as its flush is pending.
#![forbid(unsafe_code)]

use crate::addr::CpuId;
use crate::hal::mmu::Asid;
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The numbers of a CPU with 8-bit ASIDs.
pub const NUMBERS_8_BIT: u32 = 1 << 8;
/// The numbers of a CPU with 16-bit ASIDs.
pub const NUMBERS_16_BIT: u32 = 1 << 16;
/// A generation is a multiple of this: the low half of an id is the number.
const GENERATION: u64 = 1 << 16;
const WORDS: usize = (NUMBERS_16_BIT / 64) as usize;

/// A 64-bit word that CPUs share. There are others than [`AtomicU64`] where a model checker runs the allocator. No access
/// orders others: the lock does, and read-modify-writes of one word have one order.
pub trait AsidWord {
    /// The value.
    fn load(&self) -> u64;

    /// Sets the value.
    fn store(&self, value: u64);

    /// Replaces `current` by `new`: whether it did.
    fn compare_exchange(&self, current: u64, new: u64) -> bool;

    /// Sets the value and returns the one before.
    fn swap(&self, value: u64) -> u64;
}

impl AsidWord for AtomicU64 {
    #[inline(always)]
    fn load(&self) -> u64 {
        Self::load(self, Ordering::Relaxed)
    }

    #[inline(always)]
    fn store(&self, value: u64) {
        Self::store(self, value, Ordering::Relaxed);
    }

    #[inline(always)]
    fn compare_exchange(&self, current: u64, new: u64) -> bool {
        Self::compare_exchange(self, current, new, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    #[inline(always)]
    fn swap(&self, value: u64) -> u64 {
        Self::swap(self, value, Ordering::Relaxed)
    }
}

/// The interface of the allocator of ASIDs to a machine.
pub trait AsidHal {
    /// The words that its CPUs share.
    type Word: AsidWord;

    /// The allocator state of the CPU that executes the call; `None` if it has none yet. Called with interrupts masked.
    fn local(&self) -> Option<&AsidCpu<Self::Word>>;

    /// The allocator state of any CPU; `None` for one that this machine does not have.
    fn of(&self, cpu: CpuId) -> Option<&AsidCpu<Self::Word>>;

    /// One past the highest CPU number of this machine.
    fn cpus(&self) -> u32;

    /// Runs `f` with the lock of the numbers held, interrupts masked.
    fn locked<R>(&self, f: impl FnOnce(&mut AsidNumbers) -> R) -> R;

    /// Drops every translation that this CPU holds, and waits for that (`TLBI VMALLE1`; `DSB NSH`; `ISB`).
    fn flush_local(&self);

    /// Every CPU sees this CPU's earlier stores before this CPU walks a table that it switches to from now on (`DSB ISH`).
    fn order_before_walks(&self);
}

/// The allocator's state of one CPU.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct AsidCpu<W = AtomicU64> {
    /// The id that the CPU uses; 0 since the last rollover.
    active: W,
    /// The id that it used at the last rollover. Only with the lock held.
    reserved: W,
    /// Not 0 if it must drop its TLB before it uses another number. Only with the lock held.
    flush_pending: W,
}

impl AsidCpu {
    /// A CPU that has run no process.
    #[must_use]
    pub const fn new() -> Self {
        Self { active: AtomicU64::new(0), reserved: AtomicU64::new(0), flush_pending: AtomicU64::new(0) }
    }
}

/// The id of an address space: the number that it got last, and the generation of that (Linux: `mm_context_t::id`).
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct AsidSlot<W = AtomicU64>(W);

impl AsidSlot {
    /// An address space that has never run.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }
}

impl<W: AsidWord> AsidSlot<W> {
    /// The number to invalidate translations of this space with; `None` if it has never run, so that no TLB knows it.
    ///
    /// Read it after the barrier that follows the change of the tables ([`Mmu::order_before_invalidate`]). If the space gets
    /// a new number meanwhile, no CPU has an entry under the new number that is older than the change.
    ///
    /// [`Mmu::order_before_invalidate`]: crate::hal::mmu::Mmu::order_before_invalidate
    #[must_use]
    #[inline]
    pub fn asid(&self) -> Option<Asid> {
        Some(self.0.load()).filter(|id| *id != 0).map(number)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is the number")]
const fn number(id: u64) -> Asid {
    Asid::new(id as u16)
}

/// Which numbers are taken in this generation. Behind the lock.
pub struct AsidNumbers {
    taken: [u64; WORDS],
    /// Where the search for a free number starts.
    next: u32,
}

impl AsidNumbers {
    /// All numbers free, but the one of the empty table.
    #[must_use]
    pub const fn new() -> Self {
        let mut taken = [0; WORDS];
        let [first, ..] = &mut taken;
        *first = 1;
        Self { taken, next: 1 }
    }

    fn is_taken(&self, asid: Asid) -> bool {
        let word = self.taken.get(usize::from(asid.get() / 64)).copied().unwrap_or(u64::MAX);
        word >> (asid.get() % 64) & 1 != 0
    }

    /// Marks a number as taken: whether it was free.
    fn take(&mut self, asid: Asid) -> bool {
        let bit = 1 << (asid.get() % 64);
        match self.taken.get_mut(usize::from(asid.get() / 64)) {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                true
            }
            _ => false,
        }
    }

    fn clear(&mut self) {
        self.taken.fill(0);
        self.take(Asid::new(0));
        self.next = 1;
    }

    /// Takes the lowest free number of those below `numbers`, from where the last search ended.
    fn take_next(&mut self, numbers: u32) -> Option<Asid> {
        let start = self.next / 64;
        let words = self.taken.iter().zip(0_u32..).skip(start as usize).take_while(|(_, word)| word * 64 < numbers);
        let free = words.filter(|(word, _)| **word != u64::MAX).map(|(word, at)| at * 64 + word.trailing_ones()).next();
        let free = free.filter(|free| *free < numbers)?;
        self.next = free;
        let asid = Asid::new(u16::try_from(free).ok()?);
        self.take(asid).then_some(asid)
    }
}

impl Default for AsidNumbers {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for AsidNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taken: u32 = self.taken.iter().map(|word| word.count_ones()).sum();
        f.debug_struct("AsidNumbers").field("taken", &taken).field("next", &self.next).finish()
    }
}

/// Reason why the numbers cannot be handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AsidError {
    /// There are no more numbers than CPUs: a rollover could leave none free.
    TooFewNumbers,
    /// This CPU has no data yet: it does not take part.
    NoCpuData,
    /// This CPU's registers do not translate the lower half as user tables want it: 48 bits, pages of 4 KiB.
    LowerHalf,
    /// A rule is broken: its tag.
    Broken(&'static str),
}

impl fmt::Display for AsidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFewNumbers => f.write_str("there are no more address space numbers than CPUs"),
            Self::NoCpuData => f.write_str("this CPU has no data yet"),
            Self::LowerHalf => f.write_str("TCR_EL1 does not translate 48-bit addresses by TTBR0_EL1 and its ASID"),
            Self::Broken(rule) => write!(f, "{rule} is broken"),
        }
    }
}

impl core::error::Error for AsidError {}

/// Hands out the numbers. See the module.
#[derive(Debug)]
pub struct AsidAllocator<H: AsidHal> {
    hal: H,
    /// A multiple of [`GENERATION`]; 0 until there are numbers.
    generation: H::Word,
    /// How many there are. Written before the generation, with the lock held.
    numbers: AtomicU32,
}

impl<H: AsidHal<Word = AtomicU64>> AsidAllocator<H> {
    /// An allocator of `numbers` numbers, 0 among them: [`NUMBERS_8_BIT`] or [`NUMBERS_16_BIT`], what the least able CPU has.
    ///
    /// # Errors
    ///
    /// [`AsidError::TooFewNumbers`].
    pub fn new(hal: H, numbers: u32) -> Result<Self, AsidError> {
        Self::with_word(hal, numbers, AtomicU64::new(0))
    }
}

impl<H: AsidHal> AsidAllocator<H> {
    /// [`AsidAllocator::new`] with a word of the machine's kind.
    ///
    /// # Errors
    ///
    /// [`AsidError::TooFewNumbers`].
    pub fn with_word(hal: H, numbers: u32, generation: H::Word) -> Result<Self, AsidError> {
        let allocator = Self::without_numbers(hal, generation);
        allocator.start(numbers)?;
        Ok(allocator)
    }

    /// An allocator for a static: no space gets a number before [`AsidAllocator::start`]. `generation` is 0.
    pub const fn without_numbers(hal: H, generation: H::Word) -> Self {
        Self { hal, generation, numbers: AtomicU32::new(0) }
    }

    /// Says how many numbers there are; see [`AsidAllocator::new`]. The first call counts. Any context.
    ///
    /// # Errors
    ///
    /// [`AsidError::TooFewNumbers`].
    pub fn start(&self, numbers: u32) -> Result<(), AsidError> {
        let numbers = numbers.min(NUMBERS_16_BIT);
        // INVARIANT: ASID-1: number 0, one for each CPU, and one more.
        if numbers < self.hal.cpus().saturating_add(2) {
            return Err(AsidError::TooFewNumbers);
        }
        self.hal.locked(|_| {
            if self.numbers() == 0 {
                self.numbers.store(numbers, Ordering::Relaxed);
                self.generation.store(GENERATION);
            }
        });
        Ok(())
    }

    /// The machine.
    pub const fn hal(&self) -> &H {
        &self.hal
    }

    /// How many numbers there are; 0 before [`AsidAllocator::start`].
    pub fn numbers(&self) -> u32 {
        self.numbers.load(Ordering::Relaxed)
    }

    /// How often the numbers have run out.
    pub fn rollovers(&self) -> u64 {
        (self.generation.load() / GENERATION).saturating_sub(1)
    }

    #[inline(always)]
    fn is_current(&self, id: u64) -> bool {
        (id ^ self.generation.load()) < GENERATION
    }

    /// The number that this CPU runs the space of `slot` with from now on: the caller writes it to `TTBR0_EL1`, together with
    /// the space's root, before it unmasks interrupts. `None` on a CPU that has no data yet, and before there are numbers.
    /// Interrupts masked.
    ///
    /// The fast path, where the space has a number of this generation, takes no lock; otherwise O(numbers / 64).
    #[inline(always)]
    pub fn activate(&self, slot: &AsidSlot<H::Word>) -> Option<Asid> {
        self.activate_noting(slot, &mut |_| {})
    }

    /// [`AsidAllocator::activate`], and if the space gets a number, `note` is told before any CPU uses it: for page tables that
    /// keep the number that they invalidate with. With the lock of the numbers held, interrupts masked.
    #[inline(always)]
    pub fn activate_noting(&self, slot: &AsidSlot<H::Word>, note: &mut dyn FnMut(Asid)) -> Option<Asid> {
        let cpu = self.hal.local()?;
        let id = slot.0.load();
        let active = cpu.active.load();
        // INVARIANT: ASID-4: zero since the last rollover, whose flush is then pending.
        if active != 0 && self.is_current(id) && cpu.active.compare_exchange(active, id) {
            return Some(number(id));
        }
        self.activate_slow(cpu, slot, note)
    }

    #[cold]
    #[inline(never)]
    fn activate_slow(
        &self,
        cpu: &AsidCpu<H::Word>,
        slot: &AsidSlot<H::Word>,
        note: &mut dyn FnMut(Asid),
    ) -> Option<Asid> {
        let asid = self.hal.locked(|numbers| {
            if self.numbers() == 0 {
                return None;
            }
            let mut id = slot.0.load();
            if !self.is_current(id) {
                id = self.renew(numbers, id)?;
                note(number(id));
                // A CPU that finds the new id by the fast path runs with it at once.
                self.hal.order_before_walks();
                slot.0.store(id);
            }
            if cpu.flush_pending.swap(0) != 0 {
                self.hal.flush_local();
            }
            // INVARIANT: ASID-2: the number is taken since `renew`.
            cpu.active.store(id);
            Some(number(id))
        });
        // A CPU that changes the tables of this space reads the slot after its change is visible. If it has read the old
        // number, this CPU's walks under the new one see the change.
        self.hal.order_before_walks();
        asid
    }

    /// An id of this generation for a space that had `old`, or 0. With the lock held.
    fn renew(&self, numbers: &mut AsidNumbers, old: u64) -> Option<u64> {
        if old != 0 {
            let new = self.generation.load() | u64::from(number(old).get());
            // A CPU still runs with the number: the space keeps it.
            if self.update_reserved(old, new) {
                return Some(new);
            }
            // The same number again, where nobody has got it meanwhile.
            if numbers.take(number(old)) {
                return Some(new);
            }
        }
        // INVARIANT: ASID-3: each number is taken once in a generation.
        let asid = match numbers.take_next(self.numbers()) {
            Some(asid) => asid,
            None => {
                self.rollover(numbers);
                // ASID-1: there is one.
                numbers.take_next(self.numbers())?
            }
        };
        Some(self.generation.load() | u64::from(asid.get()))
    }

    /// Whether `old` is reserved for some CPU, and then it is `new` that is, for each of them.
    fn update_reserved(&self, old: u64, new: u64) -> bool {
        let mut found = false;
        for cpu in self.each_cpu().filter(|cpu| cpu.reserved.load() == old) {
            // For all of them: a second rollover may come before they change their space.
            cpu.reserved.store(new);
            found = true;
        }
        found
    }

    /// Begins a new generation. With the lock held.
    fn rollover(&self, numbers: &mut AsidNumbers) {
        self.generation.store(self.generation.load().wrapping_add(GENERATION));
        numbers.clear();
        for cpu in self.each_cpu() {
            let id = match cpu.active.swap(0) {
                // It has not changed its space since the last rollover.
                0 => cpu.reserved.load(),
                id => id,
            };
            // INVARIANT: ASID-2, ASID-4.
            numbers.take(number(id));
            cpu.reserved.store(id);
            cpu.flush_pending.store(1);
        }
    }

    fn each_cpu(&self) -> impl Iterator<Item = &AsidCpu<H::Word>> {
        (0..self.hal.cpus()).filter_map(|cpu| self.hal.of(CpuId::new(cpu)))
    }

    /// Checks the invariants that can be seen from here. The lock is held meanwhile.
    ///
    /// # Errors
    ///
    /// [`AsidError::Broken`] with the tag of the first one that does not hold.
    pub fn check_all(&self) -> Result<(), AsidError> {
        let broken = |rule, is_kept: bool| if is_kept { Ok(()) } else { Err(AsidError::Broken(rule)) };
        self.hal.locked(|numbers| {
            broken("ASID-1", self.numbers() == 0 || self.numbers() >= self.hal.cpus().saturating_add(2))?;
            broken("ASID-2", numbers.is_taken(Asid::new(0)))?;
            for cpu in self.each_cpu() {
                let (active, pending) = (cpu.active.load(), cpu.flush_pending.load() != 0);
                broken("ASID-2", active == 0 || numbers.is_taken(number(active)))?;
                broken("ASID-2", !pending || numbers.is_taken(number(cpu.reserved.load())))?;
                broken("ASID-4", active == 0 || self.is_current(active) && !pending)?;
            }
            Ok(())
        })
    }

    /// Whether `slots`, which are all address spaces that exist, have numbers of their own (`ASID-3`). O(n²), no memory.
    ///
    /// # Errors
    ///
    /// [`AsidError::Broken`].
    pub fn check_slots<'s>(&self, slots: impl Iterator<Item = &'s AsidSlot<H::Word>> + Clone) -> Result<(), AsidError>
    where
        H::Word: 's,
    {
        self.hal.locked(|numbers| {
            let mut ids = slots.map(|slot| slot.0.load()).filter(|id| self.is_current(*id));
            while let Some(id) = ids.next() {
                if !numbers.is_taken(number(id)) || ids.clone().any(|other| other == id) {
                    return Err(AsidError::Broken("ASID-3"));
                }
            }
            Ok(())
        })
    }
}
