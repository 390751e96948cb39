"""Quarry's structures for gdb: pretty-printers, and commands that mirror the prompt.

    gdb-multiarch -x tools/gdb/quarry.py ELF

works on a stopped or crashed machine (`target remote`) and on a core that QEMU's `dump-guest-memory` has written
(`quarry core FILE`). `help quarry` has the commands, docs/debugging.md the tour.

The offsets of fields come from the types in the ELF's DWARF. The layout of a word that is one integer to the compiler (the state
of a page, an entry of a table, flags) comes from the constants of the source that defines it.
"""

import os
import re
import sys

import gdb

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import core  # noqa: E402
import source  # noqa: E402
from structures import (  # noqa: E402
    address_of, Area, AREA_FLAGS, areas, Book, Cache, caches, DESC, entry, GFP, kernel_root, linear, names, number,
    PAGE_SHIFT, PAGE_SIZE, Pages, process_of, processes, SLAB_FLAGS, State, virtual, VMA_FLAGS, walk,
)

# --- commands -------------------------------------------------------------------------------------------------------------

def number_of(argument):
    try:
        return int(argument, 0)
    except ValueError:
        pass
    # A symbol, a register, an expression: in Rust, or in C, which knows the assembly's names.
    symbol = gdb.lookup_global_symbol(argument) or gdb.lookup_static_symbol(argument)
    value = symbol.value() if symbol else evaluate(argument)
    if value.type.strip_typedefs().code in (gdb.TYPE_CODE_INT, gdb.TYPE_CODE_PTR):
        return int(value) & (1 << 64) - 1
    return address_of(value)


def evaluate(expression):
    try:
        with gdb.with_parameter("language", "rust"):
            return gdb.parse_and_eval(expression)
    except gdb.error:
        with gdb.with_parameter("language", "c"):
            return gdb.parse_and_eval(expression)


def need(words, usage):
    if len(words) != 1:
        raise gdb.GdbError(f"usage: quarry {usage}")
    return number_of(words[0])


def need_place(words, usage):
    """An address, and the number of a process or None."""
    if len(words) not in (1, 2):
        raise gdb.GdbError(f"usage: quarry {usage}")
    return number_of(words[0]), number_of(words[1]) if len(words) == 2 else None


def frame_of(number, pages):
    """The frame that an address of the linear map, a physical address or a frame number names."""
    phys = linear(number)
    if phys is not None:
        return phys >> PAGE_SHIFT
    for pfn in (number, number >> PAGE_SHIFT):
        if pages.has(pfn):
            return pfn
    raise gdb.GdbError(f"{number:#x} is no address in the linear map or of RAM, and no frame number")


def print_page(pfn, pages):
    if not pages.has(pfn):
        print(f"pfn {pfn:#x} has no descriptor: no RAM is near")
        return
    head = pages.head(pfn)
    if head is None:
        print(f"pfn {pfn:#x}: in no block, which damages the map (PAGE-1)")
        return
    descriptor, state = pages.descriptor(head), pages.state(head)
    print(f"pfn {pfn:#x} at {pfn << PAGE_SHIFT:#x}: {state}")
    print(f"  block of {1 << state.order} pages from pfn {head:#x}, {state.memory}, owner {number(descriptor['owner']):#x}")
    print(f"  descriptor at {address_of(descriptor):#x}")
    if state.name() == "Slab":
        book = Book(number(descriptor["owner"]))
        cache = next((cache for cache in caches() if cache.id == book.cache), None)
        name = cache.name if cache else f"number {book.cache}"
        print(f"  slab of cache {name}: {book.in_use} of {book.objects} objects taken")


# The lowest address that a process may map.
NEAR_ZERO = 64 << 10


def is_user(address):
    return not address >> 55 & 1


def print_what(address, pid):
    # No process has memory near zero: there, a null pointer is more likely.
    is_of_process = is_user(address) and not address >> 48 and (pid is not None or address >= NEAR_ZERO and processes())
    process = process_of(pid) if is_of_process else None
    if process is None:
        print(f"{address:#x} is {place(address)}")
    else:
        print(f"{address:#x} is in {process}: {user_place(address, process)}")
    if process is None and is_user(address):
        print("in neither half" if address >> 48 else "in the user half; nothing is mapped there")
        return
    level, _, raw = list(walk(address, process and process.root))[-1]
    phys = linear(address)
    if raw & DESC["VALID"]:
        print(entry(raw, level))
        if process is not None:
            size = PAGE_SIZE << 9 * (3 - level)
            phys = (raw & DESC["ADDRESS"] & -size) + address % size
    else:
        print("nothing is mapped there")
    if phys is not None:
        print_page(phys >> PAGE_SHIFT, Pages())


def user_place(address, process):
    """The area of a process that an address is in, in words."""
    for area in process.areas():
        start, end = number(area["start"]), number(area["end"])
        if start <= address < end:
            return f"area {vma(area)}"
        if address < start:
            return f"in no area; {start - address:#x} bytes below {vma(area)}"
    return "above every area"


def place(address):
    """The kernel's own map of addresses, in words."""
    if address < NEAR_ZERO:
        return "near address zero, as behind a null pointer"
    for area in areas():
        if area.start <= address < area.end:
            guard = address - area.start >= area.size()
            return f"{'guard page after' if guard else 'in'} vmalloc area {area}"
    symbol = gdb.execute(f"info symbol {address:#x}", to_string=True).strip()
    if not symbol.startswith("No symbol"):
        return f"in the kernel: {symbol}"
    for name, start, end in source.regions():
        if start <= address < end:
            return f"in the region {name}"
    return "in no region of the kernel's address map"


def print_slabs(wanted):
    pages = Pages()
    if wanted is None:
        print(f"{'name':<20} {'in use':>7} {'objects':>7} {'size':>6} {'slabs':>6} {'pages':>6}")
    shown = 0
    for cache in caches():
        if wanted is None:
            print(f"{cache.name:<20} {cache.in_use(pages):>7} {cache.objects:>7} {cache.size:>6} {cache.slabs:>6} "
                  f"{cache.pages:>6}")
        elif cache.name == wanted:
            shown += 1
            print(f"cache {cache.name} at {cache.address:#x}: objects of {cache.object_size} bytes, one each "
                  f"{cache.size} bytes, flags {names(cache.flags, SLAB_FLAGS)}")
            print(f"  {cache.in_use(pages)} of {cache.objects} objects in use, in {cache.slabs} slabs of "
                  f"{1 << cache.order} pages or fewer")
            print(f"  free at hand: {cache.arrays()} by CPU, {cache.depot} in the depot")
            for pfn, book in cache.partial_slabs(pages):
                print(f"  slab at {virtual(pfn << PAGE_SHIFT):#x}: {book.in_use} of {book.objects} objects taken")
    if wanted is not None and not shown:
        raise gdb.GdbError(f"no cache {wanted!r}; `quarry slab` lists them")


def print_walk(address, pid):
    if is_user(address) and address >> 48:
        raise gdb.GdbError(f"{address:#x} is in neither half of the addresses: no table maps it")
    process = process_of(pid) if is_user(address) else None
    if process is not None:
        print(f"tables of {process} at {process.root:#x}")
    for level, index, raw in walk(address, process and process.root):
        print(f"level {level}, entry {index}: {raw:#018x} {entry(raw, level)}")


def print_areas():
    for area in areas():
        print(area)


def print_vmas():
    found = processes()
    for process in found:
        print(f"{process}:")
        for area in process.areas():
            print(f"  {vma(area)}")
    if not found:
        print("no process has a space")


def vma(value):
    return (f"{number(value['start']):#x}-{number(value['end']):#x} offset {number(value['offset']):#x} "
            f"{names(number(value['flags']), VMA_FLAGS)}")


class Quarry(gdb.Command):
    """Commands that mirror the kernel's prompt:

quarry page ADDR|PFN   use of a frame: address in the linear map, physical address, frame number
quarry what ADDR [PID] owner of an address, and how it is mapped
quarry slab [NAME]     the caches of the slab allocator, or one of them with its partial slabs
quarry pt ADDR [PID]   the entries of the tables for an address, level by level
quarry areas           the areas of vmalloc, and who asked for them
quarry vmas            the areas of each process
quarry core FILE       opens a core of QEMU's dump-guest-memory; the file gets the kernel's addresses

A user address is one of the process whose memory the selected CPU sees, or of the process PID."""

    def __init__(self):
        super().__init__("quarry", gdb.COMMAND_DATA)

    def complete(self, line, _):
        words = line.split(" ")
        if len(words) == 1:
            return [name for name in COMMANDS if name.startswith(words[0])]
        if words[0] == "slab":
            return [cache.name for cache in caches() if cache.name.startswith(words[-1])]
        return gdb.COMPLETE_FILENAME if words[0] == "core" else gdb.COMPLETE_SYMBOL

    def invoke(self, argument, _):
        words = gdb.string_to_argv(argument)
        run = COMMANDS.get(words[0]) if words else None
        if run is None:
            raise gdb.GdbError("usage: quarry " + "|".join(COMMANDS))
        try:
            run(words[1:])
        except gdb.MemoryError as error:
            raise gdb.GdbError(f"{error}; is the machine stopped, and has it booted so far?") from None


def run_page(words):
    pages = Pages()
    print_page(frame_of(need(words, "page ADDR|PFN"), pages), pages)


def run_slab(words):
    if len(words) > 1:
        raise gdb.GdbError("usage: quarry slab [NAME]")
    print_slabs(words[0] if words else None)


def run_core(words):
    if len(words) != 1:
        raise gdb.GdbError("usage: quarry core FILE")
    elf = gdb.current_progspace().filename
    root = kernel_root()
    print(core.give_addresses(words[0], elf, address_of(root), virtual(0), DESC))
    gdb.execute(f"target core {words[0]}")


COMMANDS = {
    "page": run_page,
    "what": lambda words: print_what(*need_place(words, "what ADDR [PID]")),
    "slab": run_slab,
    "pt": lambda words: print_walk(*need_place(words, "pt ADDR [PID]")),
    "areas": lambda words: print_areas(),
    "vmas": lambda words: print_vmas(),
    "core": run_core,
}


# --- pretty-printers ------------------------------------------------------------------------------------------------------

class Printer:
    """Shows a value as the text that `show` makes of it; a broken one as gdb does."""

    def __init__(self, value, show):
        self.value, self.show = value, show

    def to_string(self):
        return self.show(self.value)


def show_page(value):
    return (f"PageDescriptor({State(number(value['state']))}, next {number(value['next']):#x}, "
            f"prev {number(value['prev']):#x}, aux {number(value['aux']):#x}, owner {number(value['owner']):#x})")


def show_cache(value):
    cache = Cache(value)
    return f"Cache({cache.name}, {cache.object_size} bytes, {cache.objects} objects in {cache.slabs} slabs)"


PRINTERS = [
    (re.compile(r"^quarry::mm::page::meta::PageDescriptor$"), show_page),
    (re.compile(r"^quarry::mm::page::flags::PageState$"), lambda value: f"PageState({State(number(value))})"),
    (re.compile(r"^quarry::mm::slab::cache::Cache<"), show_cache),
    (re.compile(r"^quarry::mm::vmalloc::area::Area$"), lambda value: f"Area({Area(value)})"),
    (re.compile(r"^quarry::mm::user::map::vma::Vma$"), lambda value: f"Vma({vma(value)})"),
    (re.compile(r"^quarry::gfp::Gfp$"), lambda value: f"Gfp({names(number(value), GFP)})"),
    (re.compile(r"^quarry::mm::vmalloc::flags::VmFlags$"), lambda value: f"VmFlags({names(number(value), AREA_FLAGS)})"),
    (re.compile(r"^quarry::mm::user::map::flags::VmFlags$"), lambda value: f"VmFlags({names(number(value), VMA_FLAGS)})"),
    (re.compile(r"^quarry::hal::entry::RawEntry$"), lambda value: f"RawEntry({entry(number(value), 3)})"),
    (re.compile(r"^quarry::addr::types::(PhysAddr|VirtAddr|UserAddr|DmaAddr)$"), lambda value: f"{number(value):#x}"),
]


def printer_for(value):
    kind = value.type.strip_typedefs()
    if kind.code == gdb.TYPE_CODE_STRUCT and kind.name:
        for pattern, show in PRINTERS:
            if pattern.match(kind.name):
                return Printer(value, show)
    return None


gdb.pretty_printers.insert(0, printer_for)
Quarry()
