//! Lines of a report, as Linux's SLUB prints them: the error, its place, the caller, the object's owners, the slab, the object,
//! and the bytes around it.
#![forbid(unsafe_code)]

use super::super::cache::{Cache, Place};
use super::super::error::{InUse, Misuse};
use super::super::object::{Object, WORD};
use super::super::words::{Book, NIL};
use super::super::{SlabAllocator, SlabHal};
use super::pattern::byte_at;
use super::track::{Event, Track};
use crate::addr::VirtAddr;
use crate::hal::patience::elapsed;
use crate::mm::page::PageMap;
use core::fmt;

/// Bytes of an object that a report shows.
const SHOWN: u32 = 256;
/// Bytes before a slot that a report shows.
const BEFORE: u32 = 16;
/// Bytes in a line.
const ROW: u32 = 16;
/// Objects in use that the report of a cache's destruction names.
const NAMED: usize = 16;

/// An address in the code, as the machine prints one.
pub(super) struct Code<'h, H>(pub(super) &'h H, pub(super) VirtAddr);

impl<H: SlabHal> fmt::Display for Code<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_code(self.1, f)
    }
}

/// Bytes of memory: in hexadecimal, and as text.
struct Row(Object, u32, u32);

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(start, from, len) = *self;
        for offset in 0..ROW {
            match offset < len {
                true => write!(f, "{:02x} ", start.byte(from + offset))?,
                false => f.write_str("   ")?,
            }
        }
        f.write_str(" ")?;
        for offset in 0..len {
            let byte = start.byte(from + offset);
            let shown = if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' };
            write!(f, "{shown}")?;
        }
        Ok(())
    }
}

impl<H: SlabHal> SlabAllocator<'_, H> {
    /// Reports misuse by the caller's caller. Any context; a cache's lock may be held.
    #[cold]
    #[inline(never)]
    pub fn report(&self, misuse: &Misuse) {
        self.report_from(misuse, self.hal().return_address());
    }

    /// Reports misuse in a call that returns to `caller`, zero if that is unknown. Any context; a cache's lock may be held.
    ///
    /// # Panics
    ///
    /// Panics if [`SlabOptions::panic_on_misuse`](super::super::SlabOptions::panic_on_misuse) says so.
    #[cold]
    pub fn report_from(&self, misuse: &Misuse, caller: VirtAddr) {
        self.hal().misuse(misuse);
        self.print_report(misuse, caller);
        if self.panics_on_misuse() {
            #[expect(clippy::panic, reason = "what the boot argument asks for")]
            {
                panic!("slab: {misuse}");
            }
        }
    }

    /// Whether misuse ends the kernel: of objects, and in the raw calls above of everything else.
    pub(crate) fn panics_on_misuse(&self) -> bool {
        self.panic_on_misuse.load(core::sync::atomic::Ordering::Relaxed)
    }

    fn print_report(&self, misuse: &Misuse, caller: VirtAddr) {
        let hal = self.hal();
        let line = |line: fmt::Arguments<'_>| hal.print(line);
        line(format_args!("============================================================================="));
        match misuse {
            // The line below names the place.
            Misuse::Overwritten { cache, what, .. } => line(format_args!("BUG {cache}: {what} overwritten")),
            misuse if misuse.cache().is_none() => line(format_args!("BUG slab: {misuse}")),
            misuse => line(format_args!("BUG {misuse}")),
        }
        line(format_args!("-----------------------------------------------------------------------------"));
        let place = misuse.at().and_then(|at| self.place(at));
        if let Misuse::Overwritten { at, end, found, expected, object, .. } = misuse {
            let start = place.as_ref().map_or(*object, |place| self.slab_start(place));
            let offset = at.get().wrapping_sub(start.get());
            line(format_args!("{at}-{end} @offset={offset}. First byte {found:#04x} instead of {expected:#04x}"));
        }
        if caller != VirtAddr::ZERO {
            line(format_args!("Called from {}", Code(hal, caller)));
        }
        if let Some(place) = place {
            self.print_place(&place);
        }
    }

    fn slab_start(&self, place: &Place<'_, H>) -> VirtAddr {
        self.hal().to_virt(self.hal().map().phys(place.head))
    }

    /// Prints everything about an object.
    fn print_place(&self, place: &Place<'_, H>) {
        let (cache, slot) = (place.cache, place.object);
        let shape = &cache.shape;
        self.print_users(cache, slot);
        let map = self.hal().map();
        let descriptor = map.get(place.head);
        let book = Book::from_raw(descriptor.owner());
        let slab = self.slab(cache, place.head, book);
        let first = if book.first == NIL { VirtAddr::ZERO } else { slab.object_of(cache, book.first.into()).addr() };
        let pages = descriptor.state().order().pages();
        self.hal().print(format_args!(
            "Slab {} objects={} used={} fp={first} pages={pages}",
            slab.start, book.objects, book.in_use
        ));
        let next = match self.next_free(cache, slab, book, slot) {
            Some(NIL) => VirtAddr::ZERO,
            Some(next) => slab.object_of(cache, next.into()).addr(),
            None => VirtAddr::ZERO,
        };
        let object = byte_at(slot, shape.object);
        let offset = object.get().wrapping_sub(slab.start.get());
        self.hal().print(format_args!("Object {object} @offset={offset} fp={next}"));
        if slot.addr() > slab.start {
            let before = VirtAddr::new(slot.addr().get().wrapping_sub(BEFORE.into()));
            self.print_bytes("Bytes b4", Object::of_array(before), 0, BEFORE);
        }
        self.print_bytes("Redzone", slot, 0, shape.object.min(SHOWN));
        self.print_bytes("Object", slot, shape.object, shape.object_size.min(SHOWN));
        if shape.asked != 0 {
            let end = shape.object + shape.object_size;
            self.print_bytes("Redzone", slot, end, shape.red_zone + WORD - end);
        }
        if cache.is_debugged() {
            self.print_bytes("Padding", slot, shape.padding, (shape.size - shape.padding).min(SHOWN));
        }
    }

    /// Prints the callers that allocated and freed an object, if they are recorded.
    fn print_users(&self, cache: &Cache<H>, slot: Object) {
        for (what, event) in [("Allocated", Event::Alloc), ("Freed", Event::Free)] {
            let Some(track) = Track::load(&cache.shape, slot, event) else { continue };
            let age = elapsed(track.when, self.hal().ticks());
            let code = Code(self.hal(), track.caller);
            self.hal().print(format_args!("{what} in {code} age={age} cpu={}", track.cpu));
        }
    }

    fn print_bytes(&self, what: &str, start: Object, from: u32, len: u32) {
        let mut offset = 0;
        while offset < len {
            let at = byte_at(start, from + offset);
            let row = Row(start, from + offset, (len - offset).min(ROW));
            self.hal().print(format_args!("{what:<8} {at}: {row}"));
            offset += ROW;
        }
    }

    /// Prints the repair of damage.
    pub(super) fn fixed(&self, cache: &Cache<H>, what: fmt::Arguments<'_>) {
        self.hal().print(format_args!("FIX {}: {what}", cache.name));
    }

    /// Reports that a cache cannot be destroyed, and names the objects that are in use.
    pub(in crate::mm::slab) fn report_in_use(&self, cache: &Cache<H>, left: &InUse, caller: VirtAddr) {
        let remaining = Misuse::Remaining { cache: cache.name, objects: left.objects, first: left.first };
        self.report_from(&remaining, caller);
        let mut named = 0;
        self.for_each_used(cache, |slab, slot| {
            if named < NAMED {
                let object = byte_at(slot, cache.shape.object);
                let offset = object.get().wrapping_sub(slab.get());
                self.hal().print(format_args!("Object {object} @offset={offset}"));
                self.print_users(cache, slot);
            }
            named += 1;
        });
    }
}
