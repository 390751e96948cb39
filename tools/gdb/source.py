"""Constants, flags and variants as the kernel's sources define them: what no debug information holds."""

import functools
import os
import re

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CONSTANT = re.compile(r"\bconst ([A-Z][A-Z0-9_]*): [A-Za-z0-9_]+ =\s*([^;]+);")


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return re.sub(r"//[^\n]*", "", file.read())


def evaluate(text, known):
    """The value of an integer expression over constants, or None for any other."""
    text = re.sub(r"\b\d\w*", lambda digits: digits.group().replace("_", ""), text)
    text = re.sub(r"\b(0x[0-9a-fA-F]+|0b[01]+|\d+)(?:u8|u32|u64|usize)\b", r"\1", text)
    text = re.sub(r"\bas [a-z0-9]+", "", text).replace("Self::", "").replace(".bits()", "").replace("/", "//")
    if not re.fullmatch(r"[\w\s|&<>+\-*/()^~]+", text):
        return None
    try:
        return eval(text, {"__builtins__": {}}, dict(known))
    except (NameError, SyntaxError, TypeError, ZeroDivisionError):
        return None


@functools.lru_cache(maxsize=None)
def constants(path):
    known = {"PAGE_SIZE": 4096, "PAGE_SHIFT": 12}
    found = CONSTANT.findall(read(path))
    # A constant may stand before those that it uses.
    for _ in range(3):
        for name, expression in found:
            value = evaluate(expression, known)
            if isinstance(value, int):
                known[name] = value
    return known


@functools.lru_cache(maxsize=None)
def flags(path, name):
    """The flags of `pub struct NAME: u32 { … }` in a `bitflags!`."""
    block = read(path).split(f"pub struct {name}: u32 {{", 1)[1]
    known = {}
    for flag, expression in re.findall(r"\bconst ([A-Z][A-Z0-9_]*) =\s*([^;]+);", block.split("\n    }", 1)[0]):
        value = evaluate(expression, known)
        if isinstance(value, int):
            known[flag] = value
    return known


@functools.lru_cache(maxsize=None)
def variants(path, name):
    """The variants of `pub enum NAME`, in order."""
    block = read(path).split(f"pub enum {name} {{", 1)[1].split("\n}", 1)[0]
    return re.findall(r"^\s*([A-Z]\w*)\b", block, re.M)


@functools.lru_cache(maxsize=None)
def regions():
    """(name, start, end) of each region of the address map."""
    known = constants("src/mm/layout.rs")
    rows = re.findall(r'region\("([^"]+)", ([^,]+), ([^)]+)\)', read("src/mm/layout.rs"))
    return [(name, evaluate(start, known), evaluate(end, known)) for name, start, end in rows]
