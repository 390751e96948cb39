"""Quarry's structures for gdb: pretty-printers, and commands that mirror the prompt.

    gdb-multiarch -x tools/gdb/quarry.py ELF

works on a stopped or crashed machine (`target remote`) and on a core that QEMU's `dump-guest-memory` has written
(`quarry core FILE`). `help quarry` has the commands, docs/debugging.md the tour.

The offsets of fields come from the types in the ELF's DWARF. The layout of a word that is one integer to the compiler (the state
of a page, an entry of a table, flags) comes from the constants of the source that defines it.
"""

import os
import re
import struct
import sys

import gdb

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import core  # noqa: E402
import source  # noqa: E402

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT


# --- values -------------------------------------------------------------------------------------------------------------

def memory(address, size):
    """Bytes of the machine's memory; a gdb.MemoryError names the address."""
    return bytes(gdb.selected_inferior().read_memory(address & (1 << 64) - 1, size))


def word(address):
    return struct.unpack("<Q", memory(address, 8))[0]


def address_of(value):
    return int(value.address) & (1 << 64) - 1


def number(value):
    """The integer in a value: atomics, cells, newtypes, references and `Option`s of references are all their bytes."""
    try:
        return int.from_bytes(memory(address_of(value), value.type.sizeof), "little")
    except (gdb.error, TypeError):
        # In a register: down to the one field that has a size.
        while value.type.strip_typedefs().code in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION):
            value = next(value[field] for field in value.type.fields() if field.type.sizeof)
        return int(value) & (1 << 8 * value.type.sizeof) - 1


def dig(value, prefix):
    """The part of a value whose type's name begins so, however it is wrapped: in a lock, a cell, a `Once`."""
    waiting = [value]
    for _ in range(2000):
        if not waiting:
            break
        value = waiting.pop(0)
        kind = value.type.strip_typedefs()
        if kind.name and kind.name.startswith(prefix):
            return value
        if kind.code in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION):
            waiting += [value[field] for field in kind.fields() if not field.is_base_class]
    raise gdb.GdbError(f"there is no {prefix} in this kernel: its types have changed, or it was built without them")


def static(name):
    # `static` of the module: a global to the linker or not, as the optimiser has it.
    found = gdb.lookup_global_symbol(name) or gdb.lookup_static_symbol(name)
    if found is None:
        raise gdb.GdbError(f"no symbol {name}: load the kernel's ELF, built with debug=full (make gdb)")
    return found.value()


def type_named(name):
    try:
        return gdb.lookup_type(name)
    except gdb.error:
        raise gdb.GdbError(f"no type {name}: load the kernel's ELF, built with debug=full (make gdb)") from None


def at(address, name):
    return gdb.Value(address).cast(type_named(name).pointer()).dereference()


def elements(array):
    low, high = array.type.strip_typedefs().range()
    return [array[i] for i in range(low, high + 1)]


def text(value):
    """A `&str`."""
    return memory(number(value["data_ptr"]), number(value["length"])).decode("utf-8", "replace")


def variants(name):
    """The names of a plain enum, by number."""
    return {field.enumval: field.name.rsplit("::", 1)[-1] for field in type_named(name).fields()}


# --- words that are one integer to the compiler ---------------------------------------------------------------------------

LAYOUT = source.constants("src/mm/layout.rs")
STATE = source.constants("src/mm/page/flags.rs")
DESC = source.constants("src/arch/aarch64/desc.rs")
GFP = source.flags("src/gfp.rs", "Gfp")
AREA_FLAGS = source.flags("src/mm/vmalloc/flags.rs", "VmFlags")
VMA_FLAGS = source.flags("src/mm/user/map/flags.rs", "VmFlags")
SLAB_FLAGS = source.flags("src/mm/slab/flags.rs", "SlabFlags")
MEMORY_TYPES = source.variants("src/hal/prot.rs", "MemoryType")

PAGE = "quarry::mm::page::meta::PageDescriptor"
KIND = "quarry::mm::page::flags::Kind"
AREA = "quarry::mm::vmalloc::area::Area"
VMA = "quarry::mm::user::map::vma::Vma"
NODE = "quarry::ds::rbtree::node::Node<{}>"
TREE = "quarry::ds::rbtree::RbTree<"


def names(value, table):
    """The names of the bits in `value`; the largest combinations first, bits without a name in hexadecimal."""
    said = []
    for name, bits in sorted(table.items(), key=lambda item: (-bin(item[1]).count("1"), item[1])):
        if bits and value & bits == bits:
            said.append(name)
            value &= ~bits
    if value:
        said.append(hex(value))
    return " | ".join(said) or "0"


class State:
    """A `PageState`."""

    def __init__(self, raw):
        self.kind = raw >> STATE["KIND_SHIFT"] & 0xf
        self.order = raw >> STATE["ORDER_SHIFT"] & 0xf
        self.zone = raw >> STATE["ZONE_SHIFT"] & 3
        self.memory = MEMORY_TYPES[(raw & STATE["MEMORY"]) >> STATE["MEMORY_SHIFT"]]
        self.count = raw >> STATE["COUNT_SHIFT"]
        self.mappings = raw >> STATE["MAPPINGS_SHIFT"] & 0x3ff
        self.compound = bool(raw & STATE["COMPOUND"])

    def name(self):
        return variants(KIND).get(self.kind, f"kind {self.kind}")

    def is_head(self):
        return self.name() not in ("Inside", "Tail")

    def __str__(self):
        if not self.is_head():
            return self.name()
        said = f"{self.name()}, order {self.order}"
        if self.count:
            said += f", {self.count} reference{'s' if self.count > 1 else ''}"
        if self.mappings:
            said += f", mapped {self.mappings} times"
        return said + (", compound" if self.compound else "")


def entry(raw, level):
    """An entry of a page table in words."""
    if not raw & DESC["VALID"]:
        if raw & DESC["GUARD"]:
            return "guard"
        return "nothing" if raw == 0 else f"not valid: {raw:#x}"
    phys = raw & DESC["ADDRESS"]
    if level < 3 and raw & DESC["TABLE_OR_PAGE"]:
        return f"table at {phys:#x}"
    user = raw & DESC["AP_EL0"]
    writable = raw & DESC["DBM"] or not raw & DESC["AP_READ_ONLY"]
    executable = not raw & (DESC["UXN"] if user else DESC["PXN"])
    said = [{1: "1 GiB block", 2: "2 MiB block", 3: "page"}[level] + f" at {phys:#x}"]
    said.append("user" if user else "kernel")
    said.append("RW" if writable else "RX" if executable else "RO")
    said.append(MEMORY_TYPES[raw >> DESC["ATTR_SHIFT"] & 7])
    said += [word for bit, word in (("NOT_GLOBAL", "not global"), ("CONTIGUOUS", "contiguous")) if raw & DESC[bit]]
    if not raw & DESC["ACCESSED"]:
        said.append("not accessed")
    if writable and not raw & DESC["AP_READ_ONLY"]:
        said.append("dirty")
    return ", ".join(said)


# --- the kernel's structures ----------------------------------------------------------------------------------------------

def page_map():
    """The `Vmemmap` of the first CPU that has data."""
    for pointer in elements(static("quarry::global::cpu::LOCALS")):
        local = number(pointer)
        if local:
            return at(local, "quarry::global::cpu::CpuLocal")["map"]
    raise gdb.GdbError("there are no page descriptors yet: the kernel has not booted so far")


class Pages:
    def __init__(self):
        found = page_map()
        self.base, self.origin = number(found["base"]), number(found["origin"])
        sections = memory(address_of(found["sections"]), 16)
        self.sections = []
        section = type_named("quarry::mm::page::map::Section")
        start, count = struct.unpack("<QQ", sections)
        for i in range(count):
            one = at(start + i * section.sizeof, section.name)
            self.sections.append((number(one["first"]), number(one["end"])))
        self.size = type_named(PAGE).sizeof

    def has(self, pfn):
        return any(first <= pfn - self.origin < end for first, end in self.sections)

    def descriptor(self, pfn):
        return at(self.base + (pfn - self.origin) * self.size, PAGE)

    def state(self, pfn):
        return State(number(self.descriptor(pfn)["state"]))

    def head(self, pfn):
        """The first frame of the block that has this one."""
        for order in range(11):
            first = self.origin + ((pfn - self.origin) >> order << order)
            state = self.state(first) if self.has(first) else None
            if state is not None and state.is_head():
                return first if first + (1 << state.order) > pfn else None
        return None


def linear(address):
    """The physical address behind an address of the linear map."""
    offset = (address & ~(0xff << 56) | 0xff << 56 if address >> 55 & 1 else address) - LAYOUT["PAGE_OFFSET"]
    return offset if 0 <= offset < LAYOUT["LINEAR_MAP_SIZE"] else None


def virtual(phys):
    return LAYOUT["PAGE_OFFSET"] + phys


def kernel_root():
    return dig(static("quarry::global::KERNEL_TABLES"), "quarry::mm::pgtable::PageTable<")["root"]


def walk(address):
    """(level, index, entry) from the root of the kernel's tables down."""
    table = number(kernel_root()) & DESC["ADDRESS"]
    if table == 0:
        raise gdb.GdbError("the kernel has not made its page tables yet")
    for level in range(4):
        index = address >> (39 - 9 * level) & 0x1ff
        raw = word(virtual(table) + 8 * index)
        yield level, index, raw
        if not raw & DESC["VALID"] or level == 3 or not raw & DESC["TABLE_OR_PAGE"]:
            return
        table = raw & DESC["ADDRESS"]


class Area:
    def __init__(self, value):
        self.start, self.end = number(value["start"]), number(value["end"])
        self.flags, self.pages = number(value["flags"]), number(value["pages"])
        self.phys = number(value["phys"])
        caller = number(value["caller"])
        self.caller = location(caller) if caller else None

    def has_guard(self):
        return not self.flags & AREA_FLAGS["NO_GUARD"]

    def size(self):
        return self.end - self.start - (PAGE_SIZE if self.has_guard() else 0)

    def __str__(self):
        said = f"{self.start:#018x}-{self.end:#018x} {self.end - self.start:>7}"
        if self.caller:
            said += f" {self.caller}"
        if self.pages:
            said += f" pages={self.pages}"
        if self.phys:
            said += f" phys={self.phys - 1:#018x}"
        return said + f" {names(self.flags, AREA_FLAGS)}"


def location(address):
    """A `core::panic::Location`: file, line, column. `core` comes without debug information: by its layout of Rust 1.95."""
    start, length, line, _ = struct.unpack("<QQII", memory(address, 24))
    # The length may count the NUL behind the name.
    return f"{memory(start, min(length, 512)).rstrip(bytes(1)).decode('utf-8', 'replace')}:{line}"


def tree(value, payload):
    """The payloads of a red-black tree, in order."""
    link, node = number(value["first"]), NODE.format(payload)
    for _ in range(number(value["len"])):
        if not link:
            return
        found = at(link, node)
        yield found["payload"]
        link = number(found["links"]["next"])


def areas():
    found = []
    for space in ("EXECMEM", "VMALLOC"):
        for lock in elements(static(f"quarry::global::vmalloc::{space}")["nodes"]):
            busy = dig(lock, "quarry::mm::vmalloc::busy::Busy")
            for recent in elements(busy["recent"]):
                node = number(recent)
                if node:
                    found.append(Area(at(node, NODE.format(AREA))["payload"]))
            found += [Area(area) for area in tree(busy["tree"], AREA)]
    return sorted(found, key=lambda area: area.start)


class Cache:
    def __init__(self, value):
        self.address, self.name, self.id = address_of(value), text(value["name"]), number(value["id"])
        shape, node = value["shape"], dig(value["node"], "quarry::mm::slab::node::Node")
        self.size, self.object_size = number(shape["size"]), number(shape["object_size"])
        self.order, self.flags = number(shape["order"]), number(shape["flags"])
        self.capacity, self.array = number(value["capacity"]), number(value["array"])
        for name in ("slabs", "objects", "pages", "partial", "first"):
            setattr(self, name, number(node[name]))
        self.depot = number(node["depot"]["full_count"]) * self.capacity

    def per_slab(self):
        return (PAGE_SIZE << self.order) // self.size

    def partial_slabs(self, pages):
        """(frame, book) of the slabs that have free objects."""
        index = self.first
        for _ in range(self.partial):
            if index == 0xffff_ffff:
                return
            descriptor = pages.descriptor(pages.origin + index)
            yield pages.origin + index, Book(number(descriptor["owner"]))
            index = number(descriptor["next"])

    def arrays(self):
        """Objects that each CPU holds."""
        held = []
        for pointer in elements(static("quarry::global::cpu::LOCALS")):
            if number(pointer):
                header = at(number(pointer) + self.array, "quarry::mm::slab::array::ArrayHeader")
                # The spare's address has its count in the bits above.
                spare = number(header["spare"])
                upper = 0xffff if spare >> 63 else 0
                held.append((number(header["top"]) - number(header["base"]) >> 3) + ((spare >> 48) ^ upper))
        return held

    def in_use(self, pages):
        free = sum(book.objects - book.in_use for _, book in self.partial_slabs(pages))
        return max(self.objects - free - self.depot - sum(self.arrays()), 0)


class Book:
    """The word of a slab in its first page's descriptor."""

    def __init__(self, raw):
        bits = source.constants("src/mm/slab/word.rs")["BITS"]
        field = [raw >> shift * bits & (1 << bits) - 1 for shift in range(4)]
        self.objects, self.first, self.in_use, self.fresh = field
        self.cache = raw >> 4 * bits


def caches():
    slabs = static("quarry::global::slab::SLABS")
    name = f"quarry::mm::slab::cache::Cache<"
    boot = dig(slabs["boot"], name)
    found = [Cache(boot)] if number(boot["name"]["data_ptr"]) else []
    for pointer in elements(slabs["table"]):
        if number(pointer):
            found.append(Cache(at(number(pointer), boot.type.name)))
    return sorted(found, key=lambda cache: cache.id)


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


def print_what(address):
    print(f"{address:#x} is {place(address)}")
    last = list(walk(address))[-1] if address >> 47 else None
    if last is None:
        print("in the user half, which the kernel's tables do not map")
    else:
        level, _, raw = last
        print(entry(raw, level) if raw & DESC["VALID"] else "nothing is mapped there")
    phys = linear(address)
    if phys is not None:
        print_page(phys >> PAGE_SHIFT, Pages())


def place(address):
    """The kernel's own map of addresses, in words."""
    if address < 64 << 10:
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


def print_walk(address):
    if not address >> 47:
        raise gdb.GdbError("the kernel's tables map the upper half; of a process, print its `Vma`s")
    for level, index, raw in walk(address):
        print(f"level {level}, entry {index}: {raw:#018x} {entry(raw, level)}")


def print_areas():
    for area in areas():
        print(area)


def print_vmas():
    any_space = False
    for index, lock in enumerate(elements(static("quarry::kernel::process::spaces::SPACES"))):
        try:
            found = dig(lock, "quarry::mm::user::map::tree::VmaTree")["tree"]
        except gdb.GdbError:
            continue
        count = number(found["len"])
        if count == 0 or count > 1 << 16 or number(found["first"]) >> 56 != 0xff:
            continue
        any_space = True
        print(f"space {index}:")
        for area in tree(found, VMA):
            print(f"  {vma(area)}")
    if not any_space:
        print("no process has a space")


def vma(value):
    return (f"{number(value['start']):#x}-{number(value['end']):#x} offset {number(value['offset']):#x} "
            f"{names(number(value['flags']), VMA_FLAGS)}")


class Quarry(gdb.Command):
    """Commands that mirror the kernel's prompt:

quarry page ADDR|PFN   use of a frame: address in the linear map, physical address, frame number
quarry what ADDR       owner of an address, and how it is mapped
quarry slab [NAME]     the caches of the slab allocator, or one of them with its partial slabs
quarry pt ADDR         the entries of the kernel's tables for an address, level by level
quarry areas           the areas of vmalloc, and who asked for them
quarry vmas            the areas of each process
quarry core FILE       opens a core of QEMU's dump-guest-memory; the file gets the kernel's addresses"""

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
    "what": lambda words: print_what(need(words, "what ADDR")),
    "slab": run_slab,
    "pt": lambda words: print_walk(need(words, "pt ADDR")),
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
