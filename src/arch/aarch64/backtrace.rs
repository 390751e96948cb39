//! Walking the frame records (AAPCS64 §6.4.6): x29 points to the pair {caller's x29, return address}.
//!
//! A record is read only if it lies in a stack that the kernel knows, so a corrupt frame pointer ends the walk and
//! never faults. The walk crosses exceptions, because the vectors leave a record of their own.

use crate::addr::{VirtAddr, VirtRange};

/// The longest walk: the number of records for which a kernel stack and an overflow stack have room.
pub const MAX_FRAMES: usize = 3 << 10;

/// Interface of the walk to the machine.
pub trait StackMemory {
    /// The bounds of the stack that holds `addr`, or `None` if none does.
    fn stack_around(&self, addr: VirtAddr) -> Option<VirtRange>;

    /// The eight bytes at `addr`, which is a multiple of 8 and lies with all eight in a range that
    /// [`StackMemory::stack_around`] returned.
    fn load(&self, addr: VirtAddr) -> u64;

    /// Whether `pc` lies in the exception vectors, whose caller is interrupted code.
    fn in_vectors(&self, pc: VirtAddr) -> bool;
}

/// Way in which control left a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// By a call: `pc` is the instruction behind it.
    Call,
    /// By an exception: `pc` is the instruction that was interrupted.
    Exception,
}

/// One function that has not returned yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Address at which it continues.
    pub pc: VirtAddr,
    /// Way in which control left it.
    pub left: Left,
}

impl Frame {
    /// An address that lies in the function for sure: a call may be its last instruction.
    #[must_use]
    pub const fn lookup_address(self) -> VirtAddr {
        match self.left {
            Left::Exception => self.pc,
            Left::Call => VirtAddr::new(self.pc.get().wrapping_sub(4)),
        }
    }
}

/// The walk, innermost frame first. It ends at a record that is outside every stack, misaligned, or not above the one
/// before on the same stack; at a zero return address; or after [`MAX_FRAMES`].
#[derive(Debug)]
pub struct Backtrace<M> {
    memory: M,
    record: VirtAddr,
    stack: Option<VirtRange>,
    from_vectors: bool,
    left: usize,
}

impl<M: StackMemory> Backtrace<M> {
    /// A walk that starts with the record at `fp`.
    pub const fn new(memory: M, fp: VirtAddr) -> Self {
        Self { memory, record: fp, stack: None, from_vectors: false, left: MAX_FRAMES }
    }
}

impl<M: StackMemory> Iterator for Backtrace<M> {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        self.left = self.left.checked_sub(1)?;
        let record = self.record;
        if !record.is_aligned(8) {
            return None;
        }
        let stack = self.memory.stack_around(record)?;
        let whole = VirtRange::from_size(record, 16)?;
        if !stack.contains_range(whole) {
            return None;
        }
        let next = VirtAddr::new(self.memory.load(record));
        let pc = VirtAddr::new(self.memory.load(record.checked_add(8)?));
        if pc == VirtAddr::ZERO {
            return None;
        }
        // A caller's record lies above on the same stack; another stack is entered only by an exception, so the walk back
        // reaches a stack that it has not just left.
        let goes_up = next > record || !stack.contains(next);
        let comes_back = self.stack.is_some_and(|before| before != stack && before.contains(next));
        let left = if self.from_vectors { Left::Exception } else { Left::Call };
        self.from_vectors = self.memory.in_vectors(pc);
        self.stack = Some(stack);
        self.record = if goes_up && !comes_back { next } else { VirtAddr::ZERO };
        Some(Frame { pc, left })
    }
}
