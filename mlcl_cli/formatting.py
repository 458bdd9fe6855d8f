"""Counts, sizes and durations as people read them."""

from itertools import pairwise

SIZES = ("B", "KiB", "MiB", "GiB", "TiB")
UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def counted(number: int, noun: str) -> str:
    """`number` of a `noun` that forms its plural with -s or -ies: "1 triplet", "2,000 queries"."""
    if number == 1:
        return f"1 {noun}"
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {plural}"


def size(number: float) -> str:
    """`number` bytes in the unit that leaves up to three digits: "842 MiB", "1.4 GiB"."""
    unit = 0
    while number >= 999.5 and unit < len(SIZES) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:.{1 if unit and number < 9.95 else 0}f} {SIZES[unit]}"


def duration(seconds: float) -> str:
    """`seconds` in at most two units: "4.1 ms", "12 s", "3 min 20 s", "2 h 5 min", "4 d 3 h"."""
    if 0 < seconds < 0.00995:
        return f"{seconds * 1000:.2g} ms"
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    for (name, length), (lesser, part) in pairwise(UNITS):
        if whole >= length:
            rest = whole % length // part
            return f"{whole // length:,} {name}" + (f" {rest} {lesser}" if rest else "")
    return f"{whole} s"
