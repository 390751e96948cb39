//! A simulated CPU's way to the memory of the process that it runs: each access goes through its TLB with the rights of EL0, a
//! word at a time, and what faults is shown to a handler first.

use super::cpu::SimCpu;
use super::fault::{Fault, Intent, Who};
use super::machine::State;
use crate::addr::{PhysAddr, UserAddr, VirtAddr, to_usize};
use crate::hal::user::{Exchange, StringEnd, UserAccess};
use std::fmt;
use std::sync::Arc;

/// How often the handler may say that it has resolved a fault, before that is taken for a mistake.
const TRIES: u32 = 16;

/// Resolves a fault of an access, a store if the second argument says so: whether it did.
pub type SimFaultHandler = Arc<dyn Fn(Fault, bool) -> bool + Send + Sync>;

/// The memory of the process that a simulated CPU runs.
#[derive(Clone)]
pub struct SimUser {
    cpu: SimCpu,
    handler: Option<SimFaultHandler>,
}

impl fmt::Debug for SimUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimUser").finish_non_exhaustive()
    }
}

impl SimUser {
    /// That of `cpu`, on which every fault is an error.
    #[must_use]
    pub const fn new(cpu: SimCpu) -> Self {
        Self { cpu, handler: None }
    }

    /// The same, with a handler of faults.
    #[must_use]
    pub fn with_handler(self, handler: SimFaultHandler) -> Self {
        Self { handler: Some(handler), ..self }
    }

    /// Runs `f` on the word that holds the byte at `at`, in one step with the access.
    fn with_word<R>(&self, at: UserAddr, intent: Intent, f: impl Fn(&mut State, u64) -> R) -> Option<R> {
        let addr = VirtAddr::new(at.get());
        for _ in 0..TRIES {
            let mut state = self.cpu.machine().lock();
            let kind = match state.access(self.cpu.index(), addr, Who::User, intent) {
                Ok(phys) => return Some(f(&mut state, PhysAddr::get(phys) & !7)),
                Err(kind) => kind,
            };
            drop(state);
            if !self.handler.as_ref().is_some_and(|handler| handler(Fault { addr, kind }, intent == Intent::Store)) {
                return None;
            }
        }
        None
    }

    /// Copies to the front of `to` what one word has of it: how many bytes.
    fn load_part(&self, to: &mut [u8], from: UserAddr) -> Option<usize> {
        let word = self.with_word(from, Intent::Load, |state, word| state.memory.newest(word))?.to_le_bytes();
        let there = word.get(to_usize(from.offset_in(8))..).unwrap_or_default();
        Some(to.iter_mut().zip(there).map(|(to, from)| *to = *from).count())
    }

    /// The same the other way.
    fn store_part(&self, to: UserAddr, from: &[u8]) -> Option<usize> {
        self.with_word(to, Intent::Store, |state, word| {
            let mut bytes = state.memory.newest(word).to_le_bytes();
            let there = bytes.get_mut(to_usize(to.offset_in(8))..).unwrap_or_default();
            let count = there.iter_mut().zip(from).map(|(to, from)| *to = *from).count();
            state.memory.show(word, u64::from_le_bytes(bytes));
            count
        })
    }

    fn exchange(&self, at: UserAddr, size: usize, expected: u64, new: u64) -> Exchange<u64> {
        let shift = 8 * at.offset_in(8);
        let mask = if size == 8 { u64::MAX } else { 0xffff_ffff << shift };
        let found = self.with_word(at, Intent::Store, |state, word| {
            let old = state.memory.newest(word);
            let value = (old & mask) >> shift;
            if value == expected {
                state.memory.show(word, old & !mask | new << shift & mask);
            }
            value
        });
        found.map_or(Exchange::Fault, Exchange::Found)
    }
}

// SAFETY: the machine is a model; what is written is written to the model's memory, or to the slices of the caller.
unsafe impl UserAccess for SimUser {
    unsafe fn copy_in(&self, to: &mut [u8], from: UserAddr) -> usize {
        let mut done = 0;
        while let Some(rest) = to.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.load_part(rest, UserAddr::new(from.get() + done as u64)) {
                Some(count) => done += count,
                None => break,
            }
        }
        to.len() - done
    }

    unsafe fn copy_out(&self, to: UserAddr, from: &[u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = from.get(done..).filter(|rest| !rest.is_empty()) {
            match self.store_part(UserAddr::new(to.get() + done as u64), rest) {
                Some(count) => done += count,
                None => break,
            }
        }
        from.len() - done
    }

    unsafe fn clear(&self, to: UserAddr, bytes: usize) -> usize {
        let mut left = bytes;
        while left != 0 {
            let at = UserAddr::new(to.get() + (bytes - left) as u64);
            match self.store_part(at, [0; 8].get(..left.min(8)).unwrap_or_default()) {
                Some(count) => left -= count,
                None => break,
            }
        }
        left
    }

    unsafe fn copy_string(&self, to: &mut [u8], from: UserAddr) -> (usize, StringEnd) {
        for (done, place) in to.iter_mut().enumerate() {
            let at = UserAddr::new(from.get() + done as u64);
            match self.load_part(std::slice::from_mut(place), at) {
                Some(_) if *place == 0 => return (done, StringEnd::Nul),
                Some(_) => {}
                None => return (done, StringEnd::Fault),
            }
        }
        (to.len(), StringEnd::Full)
    }

    unsafe fn load(&self, from: UserAddr, size: usize) -> Option<u64> {
        let mut bytes = [0; 8];
        // SAFETY: `UserAccess::load`: the bytes lie below `USER_END`, which `copy_in` asks for.
        let left = unsafe { self.copy_in(bytes.get_mut(..size)?, from) };
        (left == 0).then(|| u64::from_le_bytes(bytes))
    }

    unsafe fn store(&self, to: UserAddr, size: usize, value: u64) -> bool {
        // SAFETY: `UserAccess::store`: the bytes lie below `USER_END`, which `copy_out` asks for.
        value.to_le_bytes().get(..size).is_some_and(|bytes| unsafe { self.copy_out(to, bytes) } == 0)
    }

    unsafe fn compare_exchange_u32(&self, at: UserAddr, expected: u32, new: u32) -> Exchange<u32> {
        match self.exchange(at, 4, expected.into(), new.into()) {
            #[expect(clippy::cast_possible_truncation, reason = "masked to 32 bits")]
            Exchange::Found(found) => Exchange::Found(found as u32),
            Exchange::Fault => Exchange::Fault,
            Exchange::Contended => Exchange::Contended,
        }
    }

    unsafe fn compare_exchange_u64(&self, at: UserAddr, expected: u64, new: u64) -> Exchange<u64> {
        self.exchange(at, 8, expected, new)
    }
}
