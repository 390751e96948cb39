"""Quarry's structures as gdb sees them: values by the DWARF of the ELF, words that are one integer to the compiler, and walks over
what the kernel has of pages, tables, areas and caches."""

import struct

import gdb
import source

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


def variant(value):
    """The name of the variant that an enum with fields is: gdb gives such a value the fields of that one alone."""
    return next(field.name for field in value.type.fields() if field.name)


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


def walk(address, root=None):
    """(level, index, entry) from the root of the kernel's tables down, or of those at `root`."""
    table = number(kernel_root()) & DESC["ADDRESS"] if root is None else root
    if table == 0:
        raise gdb.GdbError("the kernel has not made its page tables yet")
    for level in range(4):
        index = address >> (39 - 9 * level) & 0x1ff
        raw = word(virtual(table) + 8 * index)
        yield level, index, raw
        if not raw & DESC["VALID"] or level == 3 or not raw & DESC["TABLE_OR_PAGE"]:
            return
        table = raw & DESC["ADDRESS"]


class Process:
    """A process with its address space."""

    def __init__(self, place, value, space):
        self.place, self.pid = place, number(value["pid"])
        length = number(value["name"]["len"])
        self.name = memory(address_of(value["name"]["bytes"]), length).decode("ascii", "replace")
        self.root = number(dig(space, "quarry::mm::pgtable::PageTable<")["root"]) & DESC["ADDRESS"]
        self.vmas = dig(space, "quarry::mm::user::map::tree::VmaTree")["tree"]

    def areas(self):
        return list(tree(self.vmas, VMA))

    def __str__(self):
        return f"process {self.pid} ({self.name})"


def processes():
    """Every process that has an address space."""
    table = dig(static("quarry::kernel::process::table::TABLE"), "quarry::kernel::process::table::Table")
    spaces = elements(static("quarry::kernel::process::spaces::SPACES"))
    found = []
    for place, (value, lock) in enumerate(zip(elements(table["processes"]), spaces)):
        # Of an ended one the memory is gone, and a free place keeps the number of its last process.
        if variant(value["state"]) in ("Alive", "Ending"):
            space = dig(lock, "core::option::Option<quarry::mm::user::space::AddressSpace<")
            if variant(space) == "Some":
                found.append(Process(place, value, dig(space, "quarry::mm::user::space::AddressSpace<")))
    return found


def process_of(pid=None):
    """The process of a number; without one, that whose memory the selected CPU sees, or the only one that there is."""
    found = processes()
    if pid is None:
        cpu = gdb.selected_thread().num - 1
        seen = number(elements(static("quarry::kernel::process::spaces::CURRENT"))[cpu])
        chosen = [one for one in found if one.place + 1 == seen] or (found if len(found) == 1 else [])
    else:
        chosen = [one for one in found if one.pid == pid]
    if chosen:
        return chosen[0]
    if not found:
        raise gdb.GdbError("no process has a space")
    why = "the number of a process is needed behind the address" if pid is None else f"no process {pid} has a space"
    raise gdb.GdbError(f"{why}; there are: " + ", ".join(map(str, found)))


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
    name = "quarry::mm::slab::cache::Cache<"
    boot = dig(slabs["boot"], name)
    found = [Cache(boot)] if number(boot["name"]["data_ptr"]) else []
    for pointer in elements(slabs["table"]):
        if number(pointer):
            found.append(Cache(at(number(pointer), boot.type.name)))
    return sorted(found, key=lambda cache: cache.id)
