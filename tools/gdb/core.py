"""Cores of QEMU's `dump-guest-memory`, which know physical addresses only: gives one the kernel's virtual addresses.

Headers are appended to the file, that say for each run of virtual addresses where its bytes are; no memory is copied. Found are the
image by its own first bytes, from there the root of the page tables, and all else by walking these."""

import struct

PT_LOAD, PT_NOTE = 1, 4
EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
PHDR = struct.Struct("<IIQQQQQQ")
PAGE = 4096


class CoreError(Exception):
    pass


def headers(file):
    file.seek(0)
    fields = list(EHDR.unpack(file.read(EHDR.size)))
    if fields[0][:5] != b"\x7fELF\x02":
        raise CoreError("no 64-bit ELF file")
    file.seek(fields[5])
    return fields, [list(PHDR.unpack(file.read(PHDR.size))) for _ in range(fields[10])]


class Ram:
    """Physical memory in a core."""

    def __init__(self, file, loads):
        self.file = file
        # (physical start, size, place in the file)
        self.banks = sorted((load[4], load[5], load[2]) for load in loads)

    def place(self, phys):
        """(place in the file, bytes from there on), or None."""
        for start, size, offset in self.banks:
            if start <= phys < start + size:
                return offset + phys - start, size - (phys - start)
        return None

    def read(self, phys, size):
        found = self.place(phys)
        if found is None or found[1] < size:
            raise CoreError(f"the core does not hold the physical address {phys:#x}")
        self.file.seek(found[0])
        return self.file.read(size)


def first_bytes(elf):
    """(virtual address, bytes) of the beginning of the kernel's first segment."""
    with open(elf, "rb") as file:
        _, loads = headers(file)
        load = min((load for load in loads if load[0] == PT_LOAD and load[5] >= PAGE), key=lambda load: load[3])
        file.seek(load[2])
        return load[3], file.read(PAGE)


def find_image(ram, wanted):
    # The image lies at a multiple of 2 MiB, wherever the loader has put it.
    for start, size, _ in ram.banks:
        for phys in range((start + (2 << 20) - 1) & -(2 << 20), start + size - PAGE, 2 << 20):
            # Instructions are patched at boot: most of a page is enough.
            found = ram.read(phys, PAGE)
            if sum(a == b for a, b in zip(found, wanted)) > PAGE * 9 // 10 and found[:64] == wanted[:64]:
                return phys
    raise CoreError("this kernel's image is not in the core: another build?")


def runs(ram, root, desc):
    """(virtual address, physical address, size) of all that the tables map in RAM, by address."""
    merged = []

    def add(virt, phys, size):
        if merged and merged[-1][0] + merged[-1][2] == virt and merged[-1][1] + merged[-1][2] == phys:
            merged[-1][2] += size
        else:
            merged.append([virt, phys, size])

    def visit(table, level, base):
        for index, raw in enumerate(struct.unpack("<512Q", ram.read(table, PAGE))):
            size = 1 << (39 - 9 * level)
            virt, phys = base + index * size, raw & desc["ADDRESS"]
            if not raw & desc["VALID"]:
                continue
            if level < 3 and raw & desc["TABLE_OR_PAGE"]:
                visit(phys, level + 1, virt)
            elif ram.place(phys):
                add(virt, phys, size)

    visit(root, 0, 0xffff << 48)
    return merged


def give_addresses(path, elf, root_at, linear, desc):
    """Appends the headers to the core at `path`. `root_at` is where the kernel keeps the physical address of its root table."""
    with open(path, "r+b") as file:
        fields, old = headers(file)
        loads = [load for load in old if load[0] == PT_LOAD]
        if any(load[3] >> 48 == 0xffff for load in loads):
            return "the core has the kernel's addresses already"
        ram = Ram(file, loads)
        virt, wanted = first_bytes(elf)
        image = find_image(ram, wanted)
        root = struct.unpack("<Q", ram.read(image + root_at - virt, 8))[0] & desc["ADDRESS"]
        if root == 0:
            raise CoreError("the kernel had not made its page tables yet")
        new = []
        for start, phys, size in runs(ram, root, desc):
            while size > 0:
                offset, there = ram.place(phys)
                part = min(size, there)
                new.append([PT_LOAD, 6, offset, start, phys, part, part, 0])
                if part < size and not ram.place(phys + part):
                    break
                start, phys, size = start + part, phys + part, size - part
        # The notes have the registers.
        kept = [head for head in old if head[0] != PT_LOAD] + new
        if len(kept) > 0xfff0:
            raise CoreError(f"{len(kept)} runs of addresses are more than an ELF file has headers for")
        file.seek(0, 2)
        fields[5], fields[10] = file.tell(), len(kept)
        for head in kept:
            file.write(PHDR.pack(*head))
        file.seek(0)
        file.write(EHDR.pack(*fields))
    return f"image at {image:#x}, tables at {root:#x}: {len(new)} runs of addresses"
