//! The table of processes and threads: who there is, whose child, and what each thread waits for. Nothing here sleeps, and no
//! memory is allocated: both tables have their length, so that a process that makes others without end gets an error.
#![forbid(unsafe_code)]

use super::Ended;
use super::errno::Errno;
use crate::addr::UserAddr;
use crate::arch::aarch64::cpu::Relax;
use crate::arch::aarch64::user::UserFrame;
use crate::ds::rbtree::Broken;
use crate::global::{self, KernelPages, SpinLock};
use crate::sync::LockGuard;
use core::fmt;

/// The most processes that there may be, ended ones included for which nobody has waited.
pub const MAX_PROCESSES: usize = 64;
/// The most threads of all processes.
pub const MAX_THREADS: usize = 128;
/// Files that a process may have open, beside its three of the console.
pub(super) const MAX_FILES: usize = 4;

/// The number of a process, one that has not been used before. Zero is the kernel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Pid(pub u32);

impl Pid {
    /// The parent of the processes that nobody waits for.
    pub const NOBODY: Self = Self(0);
    /// The parent of the processes that the kernel starts and waits for.
    pub const KERNEL: Self = Self(u32::MAX);
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(if *self == Self::KERNEL { &0 } else { &self.0 }, f)
    }
}

/// The place of a process in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place(pub(super) usize);

/// The place of a thread in its table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ThreadPlace(usize);

/// The name of a program, cut after 15 bytes (Linux: `comm`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    bytes: [u8; 15],
    len: u8,
}

impl Name {
    const NONE: Self = Self { bytes: [0; 15], len: 0 };

    pub(super) fn new(text: &str) -> Self {
        let mut name = Self::NONE;
        for (place, byte) in name.bytes.iter_mut().zip(text.bytes().filter(u8::is_ascii)) {
            *place = byte;
            name.len += 1;
        }
        name
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes.get(..usize::from(self.len)).unwrap_or_default();
        f.pad(core::str::from_utf8(bytes).unwrap_or("?"))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The state of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ProcessState {
    /// The place is free.
    Free,
    /// It has threads, or gets its first one.
    Alive,
    /// Its last thread has ended, and its memory is being given back.
    Ending,
    /// It has nothing left but its end, for which its parent has not waited yet.
    Zombie(Ended),
}

/// One process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process {
    pub(super) pid: Pid,
    pub(super) parent: Pid,
    pub(super) name: Name,
    pub(super) state: ProcessState,
    pub(super) threads: u32,
    /// The end that was decided; its threads end at their next return to the kernel.
    pub(super) dying: Option<Ended>,
    /// The next byte of each open file. All are `/proc/self/maps`.
    pub(super) files: [Option<u64>; MAX_FILES],
}

impl Process {
    /// Whether it is alive, or its memory is still being given back.
    const fn has_memory(&self) -> bool {
        matches!(self.state, ProcessState::Alive | ProcessState::Ending)
    }
}

/// The state of a thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ThreadState {
    Free,
    /// It is being made.
    Starting,
    Ready,
    Running,
    /// Until a child of its process ends.
    Waiting,
}

#[derive(Clone)]
struct Thread {
    state: ThreadState,
    process: Place,
    tid: u32,
    frame: UserFrame,
    /// Where its number is cleared at its end; zero for nowhere.
    clear: UserAddr,
}

/// A thread on its way to a CPU.
pub(super) struct Turn {
    pub(super) thread: ThreadPlace,
    pub(super) place: Place,
    pub(super) pid: Pid,
    pub(super) tid: u32,
    pub(super) frame: UserFrame,
    pub(super) clear: UserAddr,
}

/// The answer to a thread that waits for a child.
pub(super) enum Waited {
    /// The child that has ended.
    Child(Pid, Ended),
    /// None has ended, and the thread does not want to wait.
    NotYet,
    /// The thread sleeps; it makes the call again when it is woken.
    Asleep,
}

/// All processes.
///
/// # Invariants
///
/// - `PROC-1`: `threads` of a process is the number of threads that have its place.
/// - `PROC-2`: a process without threads is free, a zombie, or on its way from the last thread to either.
/// - `PROC-3`: no two have one number; a parent is alive, the kernel or nobody.
pub(super) struct Table {
    processes: [Process; MAX_PROCESSES],
    threads: [Thread; MAX_THREADS],
    last: u32,
    /// The thread that had its turn last.
    cursor: usize,
}

impl Table {
    #[expect(clippy::large_stack_arrays, reason = "the value of a static")]
    pub(super) const fn new() -> Self {
        const FREE: Process = Process {
            pid: Pid::NOBODY,
            parent: Pid::NOBODY,
            name: Name::NONE,
            state: ProcessState::Free,
            threads: 0,
            dying: None,
            files: [None; MAX_FILES],
        };
        Self {
            processes: [FREE; MAX_PROCESSES],
            threads: [const {
                Thread {
                    state: ThreadState::Free,
                    process: Place(0),
                    tid: 0,
                    frame: UserFrame::new(UserAddr::new(0), UserAddr::new(0)),
                    clear: UserAddr::new(0),
                }
            }; MAX_THREADS],
            last: 0,
            cursor: 0,
        }
    }

    /// The process at a place.
    pub(super) fn at(&mut self, place: Place) -> Option<&mut Process> {
        self.processes.get_mut(place.0).filter(|process| process.state != ProcessState::Free)
    }

    /// The processes that there are, with their places.
    pub(super) fn all(&self) -> impl Iterator<Item = (Place, &Process)> {
        let places = (0..).map(Place).zip(&self.processes);
        places.filter(|(_, process)| process.state != ProcessState::Free)
    }

    /// The place of a process.
    pub(super) fn find(&self, pid: Pid) -> Option<Place> {
        self.all().find(|(_, process)| process.pid == pid).map(|(place, _)| place)
    }

    /// Whether any process is alive.
    pub(super) fn is_anybody_alive(&self) -> bool {
        self.all().any(|(_, process)| process.has_memory())
    }

    /// Whether the process of this number is alive.
    pub(super) fn is_alive(&self, pid: Pid) -> bool {
        self.all().any(|(_, process)| process.pid == pid && process.has_memory())
    }

    /// A number that no process or thread has.
    fn number(&mut self) -> u32 {
        loop {
            self.last = if self.last >= i32::MAX.cast_unsigned() { 1 } else { self.last + 1 };
            let taken = self.all().any(|(_, process)| process.pid.0 == self.last)
                || self.threads.iter().any(|thread| thread.state != ThreadState::Free && thread.tid == self.last);
            if !taken {
                return self.last;
            }
        }
    }

    /// A place for a new process and its first thread.
    pub(super) fn reserve(&mut self, parent: Pid, name: Name) -> Result<(Place, Pid, ThreadPlace), Errno> {
        let free = self.processes.iter().position(|process| process.state == ProcessState::Free);
        let place = Place(free.ok_or(Errno::AGAIN)?);
        let thread = self.free_thread().ok_or(Errno::AGAIN)?;
        let pid = Pid(self.number());
        if let Some(process) = self.processes.get_mut(place.0) {
            *process = Process {
                pid,
                parent,
                name,
                state: ProcessState::Alive,
                threads: 1,
                dying: None,
                files: [None; MAX_FILES],
            };
        }
        self.set_thread(thread, place, pid.0);
        Ok((place, pid, thread))
    }

    /// A place for another thread of a process.
    pub(super) fn reserve_thread(&mut self, place: Place) -> Result<(u32, ThreadPlace), Errno> {
        let thread = self.free_thread().ok_or(Errno::AGAIN)?;
        let tid = self.number();
        // INVARIANT: PROC-1.
        self.at(place).ok_or(Errno::AGAIN)?.threads += 1;
        self.set_thread(thread, place, tid);
        Ok((tid, thread))
    }

    fn free_thread(&self) -> Option<ThreadPlace> {
        self.threads.iter().position(|thread| thread.state == ThreadState::Free).map(ThreadPlace)
    }

    fn set_thread(&mut self, thread: ThreadPlace, process: Place, tid: u32) {
        if let Some(thread) = self.threads.get_mut(thread.0) {
            (thread.state, thread.process, thread.tid) = (ThreadState::Starting, process, tid);
            thread.clear = UserAddr::new(0);
        }
    }

    /// A thread that has been made, or whose turn is over, may run.
    pub(super) fn make_ready(&mut self, thread: ThreadPlace, frame: &UserFrame, clear: UserAddr) {
        if let Some(thread) = self.threads.get_mut(thread.0) {
            thread.frame.clone_from(frame);
            thread.clear = clear;
            thread.state = ThreadState::Ready;
        }
    }

    /// The next thread that may run, in turn. One that waits and whose process is to die runs too, to its end.
    pub(super) fn next(&mut self) -> Option<Turn> {
        let dying = |place: Place| self.processes.get(place.0).is_some_and(|process| process.dying.is_some());
        let may_run = |thread: &Thread| match thread.state {
            ThreadState::Ready => true,
            ThreadState::Waiting => dying(thread.process),
            _ => false,
        };
        let order = (self.cursor + 1..MAX_THREADS).chain(0..=self.cursor);
        let number = order.into_iter().find(|number| self.threads.get(*number).is_some_and(may_run))?;
        self.cursor = number;
        let thread = self.threads.get_mut(number)?;
        thread.state = ThreadState::Running;
        let place = thread.process;
        let turn = (thread.tid, thread.frame.clone(), thread.clear);
        let pid = self.processes.get(place.0)?.pid;
        Some(Turn { thread: ThreadPlace(number), place, pid, tid: turn.0, frame: turn.1, clear: turn.2 })
    }

    /// Whether a thread could run.
    pub(super) fn is_anybody_ready(&self) -> bool {
        self.threads.iter().any(|thread| match thread.state {
            ThreadState::Ready => true,
            ThreadState::Waiting => self.processes.get(thread.process.0).is_some_and(|process| process.dying.is_some()),
            _ => false,
        })
    }

    /// The thread is no more. Whether it was the last of its process, whose memory can be given back then, by the caller; the
    /// process has ended as the thread has, if nothing else was decided.
    pub(super) fn end_thread(&mut self, thread: ThreadPlace, ended: Ended) -> Option<Place> {
        let thread = self.threads.get_mut(thread.0)?;
        let place = thread.process;
        thread.state = ThreadState::Free;
        let process = self.processes.get_mut(place.0)?;
        // INVARIANT: PROC-1, PROC-2.
        process.threads = process.threads.saturating_sub(1);
        if process.threads != 0 {
            return None;
        }
        process.state = ProcessState::Ending;
        process.dying.get_or_insert(ended);
        Some(place)
    }

    /// Decides how a process ends, unless that is decided already. Its threads end at their next return to the kernel.
    pub(super) fn condemn(&mut self, place: Place, ended: Ended) -> bool {
        match self.at(place) {
            Some(process) if process.state == ProcessState::Alive => {
                let first = process.dying.is_none();
                process.dying.get_or_insert(ended);
                first
            }
            _ => false,
        }
    }

    /// The process has no memory any more: only its end is left, for the parent that may wait for it. Its children are
    /// nobody's.
    pub(super) fn finish(&mut self, place: Place) {
        let Some(&Process { pid, parent, dying, .. }) = self.processes.get(place.0) else { return };
        // INVARIANT: PROC-3.
        for process in self.processes.iter_mut().filter(|process| process.parent == pid) {
            process.parent = Pid::NOBODY;
            if matches!(process.state, ProcessState::Zombie(_)) {
                process.state = ProcessState::Free;
            }
        }
        if let Some(process) = self.processes.get_mut(place.0) {
            process.state = match parent {
                Pid::NOBODY => ProcessState::Free,
                _ => ProcessState::Zombie(dying.unwrap_or(Ended::Exited(0))),
            };
        }
        let Some(parent) = self.find(parent) else { return };
        for thread in self.threads.iter_mut() {
            if thread.state == ThreadState::Waiting && thread.process == parent {
                thread.state = ThreadState::Ready;
            }
        }
    }

    /// A place that was reserved is free again: the process could not be made.
    pub(super) fn cancel(&mut self, place: Place, thread: ThreadPlace) {
        if self.end_thread(thread, Ended::Exited(0)) == Some(place)
            && let Some(process) = self.processes.get_mut(place.0)
        {
            process.state = ProcessState::Free;
        }
    }

    /// Takes the end of a child of `parent`, of `wanted` if that is given. `Ok(None)` if none has ended yet.
    pub(super) fn reap(&mut self, parent: Pid, wanted: Option<Pid>) -> Result<Option<(Pid, Ended)>, Errno> {
        let mut has_children = false;
        for process in &mut self.processes {
            let is_child = process.state != ProcessState::Free && process.parent == parent;
            if !is_child || wanted.is_some_and(|wanted| wanted != process.pid) {
                continue;
            }
            has_children = true;
            if let ProcessState::Zombie(ended) = process.state {
                process.state = ProcessState::Free;
                return Ok(Some((process.pid, ended)));
            }
        }
        if has_children { Ok(None) } else { Err(Errno::CHILD) }
    }

    /// [`Table::reap`] for a thread, which sleeps until a child ends. It makes the system call again then: `again` is its frame
    /// for that.
    pub(super) fn wait(
        &mut self,
        turn: &Turn,
        wanted: Option<Pid>,
        may_sleep: bool,
        again: &UserFrame,
    ) -> Result<Waited, Errno> {
        if let Some((pid, ended)) = self.reap(turn.pid, wanted)? {
            return Ok(Waited::Child(pid, ended));
        }
        if !may_sleep {
            return Ok(Waited::NotYet);
        }
        if let Some(thread) = self.threads.get_mut(turn.thread.0) {
            thread.frame.clone_from(again);
            thread.clear = turn.clear;
            thread.state = ThreadState::Waiting;
        }
        Ok(Waited::Asleep)
    }

    /// Tests `PROC-1` to `PROC-3`: the tag of the first that does not hold.
    pub(super) fn check(&self) -> Result<(), Broken> {
        for (place, process) in self.all() {
            let own = |thread: &&Thread| thread.state != ThreadState::Free && thread.process == place;
            let threads = self.threads.iter().filter(own).count();
            if u32::try_from(threads) != Ok(process.threads) {
                return Err(Broken { tag: "PROC-1", what: "a process with another number of threads than it says" });
            }
            if process.threads == 0 && process.state == ProcessState::Alive {
                return Err(Broken { tag: "PROC-2", what: "a process that is alive without threads" });
            }
            if self.all().any(|(other, twin)| other != place && twin.pid == process.pid) {
                return Err(Broken { tag: "PROC-3", what: "two processes of one number" });
            }
            if !matches!(process.parent, Pid::NOBODY | Pid::KERNEL) && self.find(process.parent).is_none() {
                return Err(Broken { tag: "PROC-3", what: "a process whose parent is gone" });
            }
        }
        Ok(())
    }
}

static TABLE: SpinLock<Table> = global::spin_lock(Table::new());

/// The table of processes, locked: nothing sleeps until the guard is dropped.
pub(super) fn processes() -> LockGuard<'static, Table, KernelPages, Relax> {
    TABLE.lock()
}
