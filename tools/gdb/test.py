"""The test of quarry.py: gdb runs it behind run.sh's connection. It types at the prompt, compares gdb's answers with the kernel's
own, plants a crash, and asks everything again from a core of the crashed machine."""

import os
import re
import subprocess
import sys
import tempfile

import gdb

FAILED, PASSED = [], []


def want(command, *patterns):
    """What a command prints, which has to match each of these, in this order."""
    try:
        said = gdb.execute(command, to_string=True)
    except gdb.error as error:
        said = f"error: {error}\n"
    rest = said
    for pattern in patterns:
        found = re.search(pattern, rest, re.M)
        if not found:
            FAILED.append(command)
            print(f"FAILED: {command}: no {pattern!r} in\n{said}")
            return said
        rest = rest[found.end():]
    PASSED.append(command)
    print(f"ok: {command}")
    return said


def check(name, holds, otherwise=""):
    print(f"ok: {name}" if holds else f"FAILED: {name}: {otherwise}")
    (PASSED if holds else FAILED).append(name)


def variable(name):
    return gdb.convenience_variable(name).string()


def log():
    with open(variable("log"), encoding="utf-8", errors="replace") as file:
        return file.read().replace("\r", "")


def type_at_prompt(lines):
    """Types each line when the prompt is there."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "type.py")
    return subprocess.Popen(["python3", script, variable("console"), variable("log"), *lines], stdin=subprocess.DEVNULL)


def answer(command):
    """What the kernel printed for a command."""
    return log().split(f"quarry> {command}\n", 1)[1].split("quarry> ", 1)[0]


gdb.execute("set pagination off")
gdb.execute("set width 0")
want("quarry areas", r"is the machine stopped, and has it booted so far")
gdb.Breakpoint("quarry::kernel::power::leave")
typing = type_at_prompt(["exec spin &", "maps 1", "vmallocinfo", "slabinfo", "quit"])
gdb.execute("continue", to_string=True)
typing.kill()

# Against the kernel's own lists. Printing a list may change a cache or two.
def facts(line):
    """Range, size, who asked, pages and physical address of an area; kernel and gdb name flags in their own ways."""
    words = line.split()
    return words[:3] + [word for word in words if "=" in word]


theirs = sorted(map(facts, answer("vmallocinfo").splitlines()))
listed = want("quarry areas", r"^0xffff8.*-0xffff8.* \d+ src/\S+:\d+ .*IOREMAP")
check("the areas are vmallocinfo's", len(theirs) > 1 and theirs == sorted(map(facts, listed.splitlines())),
      f"{theirs} and\n{listed}")
# Objects in use, objects, size, slabs.
rows = [line.split() for line in answer("slabinfo").splitlines() if not line.startswith(("#", "slabinfo"))]
theirs = {row[0]: row[1:4] + [row[14]] for row in rows}
slabs = want("quarry slab", r"^name", r"^kmem_cache ", r"^kmalloc-64 ")
ours = {line.split()[0]: line.split()[1:5] for line in slabs.splitlines()[1:]}
check("the caches are slabinfo's", ours.keys() == theirs.keys() and len(ours) > 20, f"{ours} and {theirs}")
differ = [name for name in theirs if ours.get(name) != theirs[name]]
check("and so are their objects", len(differ) <= 2, "; ".join(f"{name}: {ours.get(name)}, {theirs[name]}" for name in differ))
theirs = [line.split()[:2] for line in answer("maps 1").splitlines()]
vmas = want("quarry vmas", r"^process 1 \(spin\):", r"READ \|", r"GROWSDOWN")
ours = []
for line in vmas.splitlines()[1:]:
    span, _, _, flags = line.split(maxsplit=3)
    letters = "".join(letter if re.search(rf"\b{name}\b", flags) else "-"
                      for letter, name in zip("rwx", ("READ", "WRITE", "EXEC")))
    ends = "-".join(f"{int(end, 16):08x}" for end in span.split("-"))
    ours.append([ends, letters + ("s" if re.search(r"\bSHARED\b", flags) else "p")])
check("the areas of a process are those of maps", len(theirs) > 2 and theirs == ours, f"{theirs}, {ours}")

# A wild write: into the guard page after the first area that has one, by the kernel's own memset.
guarded = next(line for line in listed.splitlines() if "NO_GUARD" not in line)
bad = int(guarded.split()[0].split("-")[1], 16) - 4096
for register, value in (("x0", bad), ("x1", 0), ("x2", 8), ("pc", "(long)&memset")):
    gdb.execute(f"set language c")
    gdb.execute(f"set ${register}={value}")
gdb.execute("set language auto")
gdb.execute("continue", to_string=True)
report = log().rsplit("quarry> quit\n", 1)[-1]
check("the machine has crashed", f"fault: at address {bad:#x}" in report and "guard page after vmalloc area" in report, report)

slab = re.search(r"slab at (0x[0-9a-f]+)", want("quarry slab kmalloc-64", r"^cache kmalloc-64 at 0x", r"\d+ of \d+ objects in use",
                                                r"by CPU, \d+ in the depot")
                 + want("quarry slab kmem_cache", r"^cache kmem_cache at 0x", r"slab at 0xffff"))
slab = int(slab.group(1), 16)
frame = (slab - 0xffff_0000_0000_0000) >> 12
# The program's code, which it has run, and memory of its stack.
code = int(next(line for line in vmas.splitlines() if re.search(r"\bEXEC\b", line)).split()[0].split("-")[0], 16)
stack = int(next(line for line in vmas.splitlines() if "GROWSDOWN" in line).split()[0].split("-")[1], 16) - 8
QUESTIONS = [
    (f"quarry what {bad:#x}", r"guard page after vmalloc area 0xffff8", r"^(guard|nothing is mapped there)"),
    (f"quarry what {bad - 4096:#x}", r"is in vmalloc area 0xffff8", r"^page at 0x[0-9a-f]+, kernel, R[WO], "),
    ("quarry what 0x10", r"near address zero", r"in the user half"),
    ("quarry what quarry::global::slab::SLABS", r"in the kernel: quarry::global::slab::SLABS", r"RW, WriteBack"),
    (f"quarry what {slab:#x}", r"in the region linear map", r"RW, WriteBack", r"Slab, order"),
    (f"quarry page {slab:#x}", rf"^pfn {frame:#x} at {frame << 12:#x}: Slab, order \d, 1 reference", r"block of \d pages",
     r"slab of cache k\S+: \d+ of \d+ objects taken"),
    (f"quarry page {frame:#x}", rf"^pfn {frame:#x} "),
    (f"quarry page {frame << 12:#x}", rf"^pfn {frame:#x} "),
    ("quarry page 0x7fff0000", r"has no descriptor|is no address"),
    (f"quarry pt {slab:#x}", r"^level 0, entry 0: 0x\w+ table at", r"^level 1, entry 1: ", r"kernel, RW, WriteBack"),
    ("quarry pt memset", r"^level 0, entry 256", r"^level [23].* RX, WriteBack"),
    (f"quarry what {code:#x}", r"is in process 1 \(spin\): area 0x\w+-0x\w+ .*EXEC", r"^page at 0x\w+, user, RX, ",
     r"^pfn 0x\w+ at 0x\w+: User, order 0"),
    (f"quarry what {stack:#x} 1", r"is in process 1 \(spin\): area 0x\w+-0x\w+ .*GROWSDOWN", r"^page at 0x\w+, user, RW, ",
     r"^pfn 0x\w+ at 0x\w+: User, order 0"),
    (f"quarry what {code - 4096:#x}", r"in process 1 \(spin\): (area|in no area)"),
    (f"quarry pt {code:#x}", r"^tables of process 1 \(spin\) at 0x\w+", r"^level 0, entry 0: 0x\w+ table at",
     r"^level 3, entry \d+: 0x\w+ page at 0x\w+, user, RX, .*not global"),
    ("quarry pt 0x1000", r"^tables of process 1 ", r" nothing$"),
    ("quarry what 0x1000000000000", r"in no region", r"^in neither half"),
    ("quarry pt 0x1000000000000", r"in neither half of the addresses"),
    ("quarry pt 0x1000 99", r"no process 99 has a space; there are: process 1 \(spin\)"),
    ("quarry slab", r"^kmalloc-64 "),
    ("quarry slab nothing", r"no cache 'nothing'"),
    ("quarry areas", r"IOREMAP"),
    ("quarry vmas", r"GROWSDOWN"),
    ("quarry nonsense", r"usage: quarry page"),
]


def ask():
    return [want(*question) for question in QUESTIONS] + printed()


def plain(value):
    """The number in a value, as gdb shows it without our printers."""
    return int(re.findall(r"\d+", re.sub(r"\w*[a-z_]\w*", "", value.format_string(raw=True)))[-1])


def printed():
    """The pretty-printers."""
    module = sys.modules["structures"]
    descriptor = module.Pages().descriptor(frame)
    cache = module.dig(module.static("quarry::global::slab::SLABS")["boot"], "quarry::mm::slab::cache::Cache<")
    slots = (slot for lock in module.elements(module.static("quarry::global::vmalloc::VMALLOC")["nodes"])
             for slot in module.elements(module.dig(lock, "quarry::mm::vmalloc::busy::Busy")["recent"]))
    area = module.at(next(filter(None, map(module.number, slots))), module.NODE.format(module.AREA))["payload"]
    process = module.process_of(1)
    code_area = next(one for one in process.areas() if module.number(one["start"]) == code)
    said = [value.format_string() for value in (descriptor, cache, area, code_area)]
    for name, raw in (("quarry::mm::page::flags::PageState", module.number(descriptor["state"])),
                      ("quarry::gfp::Gfp", 0x7c0), ("quarry::hal::entry::RawEntry", 0x0068_0000_4000_0703),
                      ("quarry::mm::vmalloc::flags::VmFlags", 0x42)):
        kind = gdb.lookup_type(name)
        said.append(gdb.Value(raw.to_bytes(kind.sizeof, "little"), kind).format_string())
    # As gdb itself shows the field of this name.
    fields = ", ".join(f"{name} {plain(descriptor[name]):#x}" for name in ("next", "prev", "aux", "owner"))
    start, end = plain(area["start"]), plain(area["end"])
    size = plain(cache["shape"]["object_size"])
    first, last, offset = (plain(code_area[name]) for name in ("start", "end", "offset"))
    counts = [plain(module.dig(cache["node"], "quarry::mm::slab::node::Node")[name]) for name in ("objects", "slabs")]
    wanted = [rf"PageDescriptor\(Slab, order \d, 1 reference(, compound)?, {fields}\)$",
              rf"Cache\(kmem_cache, {size} bytes, {counts[0]} objects in {counts[1]} slabs\)$",
              rf"Area\({start:#018x}-{end:#018x} +{end - start} ",
              rf"Vma\({first:#x}-{last:#x} offset {offset:#x} .*READ \| EXEC\b", r"PageState\(Slab, order \d, 1 reference",
              r"Gfp\(KERNEL \| ZERO\)$", r"RawEntry\(page at 0x40000000, kernel, RW, DeviceNGnRnE, dirty\)$",
              r"VmFlags\(ALLOC \| NO_GUARD\)$"]
    for text, pattern in zip(said, wanted):
        check(f"printer of {pattern.split('(')[0]}", re.match(pattern, text), text)
    return said


before = ask()
with tempfile.TemporaryDirectory() as scratch:
    path = os.path.join(scratch, "core")
    gdb.execute(f"monitor dump-guest-memory {path}", to_string=True)
    gdb.execute("disconnect", to_string=True)
    want(f"quarry core {path}", r"image at 0x4\w+, tables at 0x\w+: \d+ runs of addresses")
    after = ask()
    check("the core answers as the machine did", before == after,
          "\n".join(f"{one}\n{other}" for one, other in zip(before, after) if one != other))
    want(f"quarry core {path}", r"the core has the kernel's addresses already")
    want("backtrace 12", r"power::leave")
print(f"test result: {'FAILED' if FAILED else 'ok'}. {len(PASSED)} passed; {len(FAILED)} failed: {', '.join(FAILED)}")
sys.stdout.flush()
gdb.execute(f"quit {len(FAILED)}")
