"""Counts, sizes and durations as people read them."""

from itertools import pairwise

UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def counted(number: int, noun: str) -> str:
    """`number` of a `noun` whose plural ends in -s or -ies: "1 triplet", "2,000 queries"."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun[:-1]}ies" if noun.endswith("y") else f"{number:,} {noun}s"


def size(number: float) -> str:
    """`number` bytes in the unit that leaves up to three digits: "842 MiB", "1.4 GiB"."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while number >= 999.5 and len(units) > 1:
        number /= 1024
        del units[0]
    return f"{number:.{1 if units[0] != 'B' and number < 9.95 else 0}f} {units[0]}"


def duration(seconds: float) -> str:
    """`seconds` in at most two units: "4.1 ms", "12 s", "3 min 20 s", "2 h 5 min", "4 d 3 h"."""
    if 0 < seconds < 0.00995:
        return f"{seconds * 1000:.2g} ms"
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    for (unit, length), (smaller, part) in pairwise(UNITS):
        if whole >= length:
            rest = whole % length // part
            return f"{whole // length:,} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"
