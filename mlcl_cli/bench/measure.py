"""Time and memory of two sides, in turn, on one machine."""

import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import torch

from mlcl_cli.models.compute import Compute

MEBIBYTE = 2**20
BUSY = 15.0  # percent of the processors that others may take before it is worth a warning
PEAK = Path("/proc/self/status")
RESET_PEAK = Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of each counted run, and the most memory above the start that the first took, in bytes; None: unknown."""

    seconds: tuple[float, ...]
    memory: int | None

    @property
    def median(self) -> float:
        """Median of the runs, in seconds."""
        return statistics.median(self.seconds)

    def as_json(self) -> dict[str, Any]:
        """Plain types."""
        least, most = min(self.seconds), max(self.seconds)
        return {"median_s": self.median, "least_s": least, "most_s": most, "memory_bytes": self.memory}


class Machine:
    """Where it is measured: one device, and what it can do at best."""

    def __init__(self, compute: Compute, *, quick: bool = False) -> None:
        self.compute, self._quick = compute, quick

    def busy(self) -> float:
        """How much of the processors others take now, in percent."""
        return psutil.cpu_percent(interval=0.1 if self._quick else 1.0)

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.compute.device.type == "cuda":
            torch.cuda.synchronize()

    def alternate(self, sides: list[Callable[[], object]], repeats: int) -> list[Timing]:
        """Runs every side once to warm up and to see its memory, then all in turn `repeats` times by the clock."""
        memory = [self._memory(side) for side in sides]
        seconds: list[list[float]] = [[] for _ in sides]
        for _ in range(repeats):
            for number, side in enumerate(sides):
                seconds[number].append(self._seconds(side))
        return [Timing(tuple(runs), used) for runs, used in zip(seconds, memory, strict=True)]

    def beside(self, ours: Callable[[], object], plain: Callable[[], object], repeats: int) -> tuple[Timing, Timing]:
        """Both sides in turn."""
        first, second = self.alternate([ours, plain], repeats)
        return first, second

    @cached_property
    def product_rate(self) -> float:
        """Floating-point operations a second of a large matrix product in the arithmetic of training."""
        size = 8192 if self.compute.device.type == "cuda" else 1536
        dtype = self.compute.dtype or torch.float32
        left, right = (torch.randn(size, size, device=self.compute.device).to(dtype) for _ in range(2))
        return 2 * size**3 / self._best(lambda: left @ right)

    @cached_property
    def bandwidth(self) -> float:
        """Bytes a second, read and written, of a large copy."""
        count = 2**28 if self.compute.device.type == "cuda" else 2**25
        source = torch.ones(count, device=self.compute.device)
        target = torch.empty_like(source)
        return 2 * source.nbytes / self._best(lambda: target.copy_(source))

    def _best(self, function: Callable[[], object]) -> float:
        (timing,) = self.alternate([function], 1 if self._quick else 10)
        return min(timing.seconds)

    def _seconds(self, side: Callable[[], object]) -> float:
        gc.collect()
        self.wait()
        began = time.perf_counter()
        side()
        self.wait()
        return time.perf_counter() - began

    def _memory(self, side: Callable[[], object]) -> int | None:
        gc.collect()
        _give_back()
        before = self._start_peak()
        side()
        self.wait()
        after = self._peak()
        return None if before is None or after is None else max(0, after - before)

    def _start_peak(self) -> int | None:
        """Forgets the peak so far; returns what is in use."""
        if self.compute.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated()
        try:
            RESET_PEAK.write_text("5", "ascii")
        except OSError:  # Linux alone knows it
            return None
        return self._peak()

    def _peak(self) -> int | None:
        if self.compute.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        try:
            line = next(line for line in PEAK.read_text("ascii").splitlines() if line.startswith("VmHWM"))
        except (OSError, StopIteration):
            return None
        return int(line.split()[1]) * 1024


def _give_back() -> None:
    """Has the C library return what is free, so that a side's peak is its own; not every C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@dataclass(frozen=True, slots=True)
class Row:
    """One measured thing beside the plain way to do it.

    `items` is how many of `unit` a run of either side does, `disagreement` what the sides differ in if they do: such a
    row has no ratio. `floor` is the least time of our side's run in seconds, where one is known, and `of` says what.
    """

    name: str
    unit: str
    items: tuple[int, int]
    ours: Timing
    plain: Timing | None
    disagreement: str | None = None
    floor: float | None = None
    of: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the plain way an item is; None where the sides disagree, or there is one."""
        if self.disagreement is not None or self.plain is None:
            return None
        return (self.plain.median / self.items[1]) / (self.ours.median / self.items[0])

    @property
    def share(self) -> float | None:
        """The floor's share of our median, 0 to 1."""
        return None if self.floor is None else self.floor / self.ours.median

    def as_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "name": self.name,
            "unit": self.unit,
            "items": list(self.items),
            "ours": self.ours.as_json(),
            "plain": None if self.plain is None else self.plain.as_json(),
            "ratio": self.ratio,
            "share_of_floor": self.share,
            "floor": self.of,
            "disagreement": self.disagreement,
        }
