//! Resources of a device's driver, released in reverse order when the device goes (Linux: `drivers/base/devres.c`).

use crate::addr::{PhysAddr, VirtAddr, to_usize};
use crate::gfp::Gfp;
use crate::mm::alloc::{Allocator, KBox, Refused, Stateless};
use crate::mm::slab::SlabAllocError;
use core::alloc::Layout;
use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

/// Header in front of each entry.
#[repr(C, align(32))]
struct Node {
    /// The entry that was kept before.
    below: Option<NonNull<Self>>,
    /// Releases the entry, its memory included.
    release: unsafe fn(NonNull<Self>),
    /// Above the low [`STAMP`] bits a number that grows with each entry; in them the bytes of memory behind the node, and above
    /// [`BYTES`] bits the kind of an entry that has a key.
    stamp: u64,
    /// Address of an entry that is memory; the key of an entry that has one; null for other entries.
    memory: *mut u8,
}

/// Bits for the number of bytes behind a node, and with them bits for its kind.
const BYTES: u32 = 12;
const STAMP: u32 = 16;

impl Node {
    const fn serial(&self) -> u64 {
        self.stamp >> STAMP
    }

    const fn bytes(&self) -> usize {
        (self.stamp & ((1 << BYTES) - 1)) as usize
    }

    /// [`Key::kind`], or 0 for an entry without a key.
    const fn kind(&self) -> u64 {
        self.stamp >> BYTES & 0xf
    }
}

/// The name by which a single value is released before its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    /// A mapping, by its address.
    Mapping(VirtAddr),
    /// Requested addresses, by the first of them.
    Region(PhysAddr),
}

impl Key {
    const fn kind(self) -> u64 {
        match self {
            Self::Mapping(_) => 1,
            Self::Region(_) => 2,
        }
    }

    const fn word(self) -> *mut u8 {
        let number = match self {
            Self::Mapping(at) => at.get(),
            Self::Region(start) => start.get(),
        };
        ptr::without_provenance_mut(to_usize(number))
    }
}

/// An entry that is a value.
#[repr(C)]
struct Entry<T> {
    node: Node,
    value: T,
}

/// Bytes of a node: memory behind it is aligned to that number.
const HEADER: usize = size_of::<Node>();
/// Larger memory has a block of its own, aligned as `kmalloc` does it.
const BEHIND_MAX: usize = 4096 - HEADER;

const _: () = assert!(HEADER == align_of::<Node>() && BEHIND_MAX < 1 << BYTES && BYTES + 4 == STAMP);

/// Resources of one device: values of any types, memory, actions. They are released last kept first, by [`Devres::release_all`]
/// or when this is dropped. Examples are mapped registers, requested regions, and any value that releases itself when dropped.
///
/// Keeping needs memory, releasing never does. There is no lock: it may move from CPU to CPU, and is used by one at a time.
///
/// # Invariants
///
/// - `DEV-1`: an entry is neither moved nor changed until it is released; that needs `&mut`, or is a raw call.
/// - `DEV-2`: the nodes from `top` on belong to this value alone, each with its release function, in descending order of
///   serials.
pub struct Devres<A: Allocator + Stateless> {
    top: Cell<Option<NonNull<Node>>>,
    serial: Cell<u64>,
    /// Values of any type that is `Send`.
    owns: PhantomData<A>,
}

// SAFETY: DEV-2: the entries belong to this value alone, and every value in them is `Send`.
unsafe impl<A: Allocator + Stateless + Send> Send for Devres<A> {}

/// The start of an open group: resources that are added from here on belong to it (Linux: an open `devres_group`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark(u64);

/// A closed group: the resources that were added between two moments (Linux: a closed `devres_group`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Group {
    from: Mark,
    to: Mark,
}

/// Memory with this address does not belong to the device: nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotKept(pub VirtAddr);

impl fmt::Display for NotKept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is no memory of the device", self.0)
    }
}

impl core::error::Error for NotKept {}

/// The device has no value with this key: nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoKey(pub Key);

impl fmt::Display for NoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Key::Mapping(at) => write!(f, "{at} is no mapping of the device"),
            Key::Region(start) => write!(f, "{start} is no region of the device"),
        }
    }
}

impl core::error::Error for NoKey {}

/// Memory in a block of its own.
struct Block<A: Allocator + Stateless> {
    at: NonNull<u8>,
    layout: Layout,
    allocator: PhantomData<A>,
}

// SAFETY: the block belongs to it alone.
unsafe impl<A: Allocator + Stateless> Send for Block<A> {}

impl<A: Allocator + Stateless> Drop for Block<A> {
    fn drop(&mut self) {
        // SAFETY: allocated by `memory` with this layout, and nobody uses it any more (DEV-1).
        unsafe { A::THE.free(self.at, self.layout) };
    }
}

/// Runs a function when it is dropped.
struct Action<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for Action<F> {
    fn drop(&mut self) {
        if let Some(action) = self.0.take() {
            action();
        }
    }
}

impl<A: Allocator + Stateless> Default for Devres<A> {
    fn default() -> Self {
        Self::new()
    }
}

/// Drops an entry that is a value.
///
/// # Safety
///
/// `node` is the first field of an `Entry<T>` that was a box of `A`, and nobody uses it afterwards.
unsafe fn release_value<T, A: Allocator + Stateless>(node: NonNull<Node>) {
    // SAFETY: by this function's `# Safety`, `node` starts an entry that was a box of `A`, and nobody uses it afterwards.
    drop(unsafe { KBox::<Entry<T>, A>::from_raw(node.cast().as_ptr()) });
}

/// The layout of a node and of memory behind it.
fn layout_behind(bytes: usize) -> Result<Layout, SlabAllocError> {
    let size = bytes.checked_add(HEADER).ok_or(SlabAllocError::Overflow)?;
    Layout::from_size_align(size, align_of::<Node>()).map_err(|_| SlabAllocError::Overflow)
}

/// Frees an entry that is memory.
///
/// # Safety
///
/// `node` starts a block of `A` with [`layout_behind`] its bytes, and nobody uses it afterwards.
unsafe fn release_memory<A: Allocator + Stateless>(node: NonNull<Node>) {
    // SAFETY: by this function's `# Safety`, `node` starts a block that nobody has freed yet.
    let bytes = unsafe { node.as_ref() }.bytes();
    if let Ok(layout) = layout_behind(bytes) {
        // SAFETY: by this function's `# Safety`, the block is of `A`, has this layout, and nobody uses it afterwards.
        unsafe { A::THE.free(node.cast(), layout) };
    }
}

impl<A: Allocator + Stateless> Devres<A> {
    /// Nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { top: Cell::new(None), serial: Cell::new(0), owns: PhantomData }
    }

    /// A node for the next entry.
    fn node(&self, tag: u64, memory: *mut u8, release: unsafe fn(NonNull<Node>)) -> Node {
        let serial = self.serial.get() + 1;
        self.serial.set(serial);
        Node { below: self.top.get(), release, stamp: serial << STAMP | tag, memory }
    }

    /// Makes a value the newest entry.
    fn push<T: Send>(&self, value: T, (kind, memory): (u64, *mut u8), gfp: Gfp) -> Result<&T, Refused<T>> {
        let room = match KBox::<Entry<T>, A>::uninit(gfp) {
            Ok(room) => room,
            Err(error) => return Err(Refused { value, error }),
        };
        let entry = room.write(Entry { node: self.node(kind << BYTES, memory, release_value::<T, A>), value });
        // SAFETY: a box is not null.
        let entry = unsafe { NonNull::new_unchecked(KBox::into_raw(entry)) };
        // INVARIANT: DEV-2: the newest.
        self.top.set(Some(entry.cast()));
        // SAFETY: DEV-1: the box is kept, untouched, and is dropped only with `&mut`, when this borrow is over.
        Ok(unsafe { &(*entry.as_ptr()).value })
    }

    /// Keeps a value, to be used as long as this is borrowed. Context as `gfp` says.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`]; the value has been dropped then.
    pub fn keep<T: Send + 'static>(&self, value: T, gfp: Gfp) -> Result<&T, SlabAllocError> {
        self.push(value, (0, ptr::null_mut()), gfp).map_err(|refused| refused.error)
    }

    /// [`Devres::keep`] of a value that [`Devres::release_key`] may release before its turn. Context as `gfp` says.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`]; the value has been dropped then.
    pub fn keep_by<T: Send + 'static>(&self, key: Key, value: T, gfp: Gfp) -> Result<&T, SlabAllocError> {
        self.push(value, (key.kind(), key.word()), gfp).map_err(|refused| refused.error)
    }

    /// Releases the newest value with this key before its turn. O(entries kept since). Any context in which it may be dropped.
    ///
    /// # Errors
    ///
    /// [`NoKey`]: nothing has changed then.
    pub fn release_key(&mut self, key: Key) -> Result<(), NoKey> {
        let kept = self.unlink(|node| node.kind() == key.kind() && node.memory == key.word());
        let node = kept.ok_or(NoKey(key))?;
        // SAFETY: DEV-2: nothing points to it any more; and no reference to the value is left, by `&mut`.
        unsafe { release(node) };
        Ok(())
    }

    /// Allocates memory that belongs to the device (Linux: `devm_kmalloc`; with [`Gfp::ZERO`], `devm_kzalloc`), up to
    /// [`KMALLOC_MAX_SIZE`](crate::mm::slab::KMALLOC_MAX_SIZE). It is aligned to 32 bytes, from 4 KiB on to a page. For 0 bytes
    /// it returns an address that may not be used. Context as `gfp` says.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`].
    pub fn memory(&self, bytes: usize, gfp: Gfp) -> Result<NonNull<u8>, SlabAllocError> {
        if bytes > BEHIND_MAX {
            let layout = Layout::from_size_align(bytes, 8).map_err(|_| SlabAllocError::Overflow)?;
            let at = A::THE.allocate(layout, gfp)?;
            let block = Block::<A> { at, layout, allocator: PhantomData };
            return self.push(block, (0, at.as_ptr()), gfp - Gfp::ZERO).map(|_| at).map_err(|refused| refused.error);
        }
        let place = A::THE.allocate(layout_behind(bytes)?, gfp)?.cast::<Node>();
        // SAFETY: that many bytes lie behind the node, or it is its end.
        let memory = unsafe { place.cast::<u8>().add(HEADER) };
        // SAFETY: fresh, large enough and aligned for it.
        unsafe { place.write(self.node(bytes as u64, memory.as_ptr(), release_memory::<A>)) };
        // INVARIANT: DEV-2: the newest.
        self.top.set(Some(place));
        Ok(memory)
    }

    /// Runs `action` when the device releases its resources, in its turn (Linux: `devm_add_action_or_reset`). Context as `gfp`
    /// says.
    ///
    /// # Errors
    ///
    /// [`SlabAllocError`]; the action has run then.
    pub fn action(&self, action: impl FnOnce() + Send + 'static, gfp: Gfp) -> Result<(), SlabAllocError> {
        self.keep(Action(Some(action)), gfp).map(drop)
    }

    /// The same, but without memory it returns the action, which has not run (Linux: `devm_add_action`).
    ///
    /// # Errors
    ///
    /// The action, and [`SlabAllocError`].
    pub fn try_action<F: FnOnce() + Send + 'static>(&self, action: F, gfp: Gfp) -> Result<(), Refused<Option<F>>> {
        self.push(Action(Some(action)), (0, ptr::null_mut()), gfp)
            .map(drop)
            .map_err(|mut refused| Refused { value: refused.value.0.take(), error: refused.error })
    }

    /// Current position, for [`Devres::release_to`] and [`Devres::close`] (Linux: `devres_open_group`).
    #[must_use]
    pub const fn mark(&self) -> Mark {
        Mark(self.serial.get())
    }

    /// The resources kept since `mark` and none kept afterwards, for [`Devres::release_group`] (Linux: `devres_close_group`).
    #[must_use]
    pub const fn close(&self, mark: Mark) -> Group {
        Group { from: mark, to: self.mark() }
    }

    /// Releases the resources kept since `mark`, last kept first (Linux: `devres_release_group`). Any context in which the
    /// values may be dropped.
    pub fn release_to(&mut self, mark: Mark) {
        while let Some(top) = self.top.get() {
            // SAFETY: DEV-2.
            let node = unsafe { top.as_ref() };
            if node.serial() <= mark.0 {
                return;
            }
            // Unlinked before it is dropped: no drop runs inside another.
            self.top.set(node.below);
            // SAFETY: DEV-2: nothing points to it any more.
            unsafe { release(top) };
        }
    }

    /// Releases the remaining resources of a group, last kept first (Linux: `devres_release_group`). O(entries kept since). Any
    /// context in which the values may be dropped.
    pub fn release_group(&mut self, group: Group) {
        while let Some(node) = self.unlink(|node| (group.from.0 + 1..=group.to.0).contains(&node.serial())) {
            // SAFETY: DEV-2: nothing points to it any more.
            unsafe { release(node) };
        }
    }

    /// Drops everything, last kept first.
    pub fn release_all(&mut self) {
        self.release_to(Mark(0));
    }

    /// Runs `probe`, which sets a device up: if it fails, the resources that it has kept are released, last kept first.
    ///
    /// # Errors
    ///
    /// The error of `probe`.
    pub fn probe<R, E>(&mut self, probe: impl FnOnce(&Self) -> Result<R, E>) -> Result<R, E> {
        let mark = self.mark();
        let outcome = probe(self);
        if outcome.is_err() {
            self.release_to(mark);
        }
        outcome
    }

    /// Takes the newest entry out that `is_wanted`.
    fn unlink(&self, is_wanted: impl Fn(&Node) -> bool) -> Option<NonNull<Node>> {
        let (mut above, mut next) = (None::<NonNull<Node>>, self.top.get());
        while let Some(at) = next {
            // SAFETY: DEV-2.
            let node = unsafe { at.as_ref() };
            if is_wanted(node) {
                match above {
                    // SAFETY: DEV-2; nobody has a reference to a node.
                    Some(mut above) => unsafe { above.as_mut() }.below = node.below,
                    None => self.top.set(node.below),
                }
                return Some(at);
            }
            (above, next) = (Some(at), node.below);
        }
        None
    }

    /// Number of entries. O(entries).
    #[must_use]
    pub fn count(&self) -> usize {
        let (mut count, mut next) = (0, self.top.get());
        while let Some(at) = next {
            count += 1;
            // SAFETY: DEV-2.
            next = unsafe { at.as_ref() }.below;
        }
        count
    }

    /// [`Self::free_memory`] for callers inside this crate, which own what they name or pass on their caller's promise.
    pub(crate) fn do_free_memory(&self, memory: *mut u8) -> Result<(), NotKept> {
        let kept = self.unlink(|node| !memory.is_null() && node.kind() == 0 && node.memory == memory);
        let node = kept.ok_or(NotKept(VirtAddr::of(memory)))?;
        // SAFETY: DEV-2: nothing points to it any more, and nobody uses it, as the caller of the raw call promises.
        unsafe { release(node) };
        Ok(())
    }
}

/// Releases an entry.
///
/// # Safety
///
/// It is one, and nothing points to it any more.
unsafe fn release(node: NonNull<Node>) {
    // SAFETY: by this function's `# Safety`, it is a node, and nothing points to it any more.
    let give_back = unsafe { node.as_ref() }.release;
    // SAFETY: DEV-2: it is the entry's own.
    unsafe { give_back(node) };
}

impl<A: Allocator + Stateless> Drop for Devres<A> {
    fn drop(&mut self) {
        self.release_all();
    }
}

impl<A: Allocator + Stateless> fmt::Debug for Devres<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Devres").field("kept", &self.count()).finish_non_exhaustive()
    }
}
