"""Time and memory of two sides, measured in turn on one machine."""

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

import psutil
import torch

from mlcl_cli.models.compute import Compute

BUSY_PERCENT = 15.0  # of the processors in use by other programs: from here on it is worth a warning
STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Timing:
    """The counted runs in seconds, and the peak memory of a first run above its start, in bytes; None: unknown."""

    median_s: float
    least_s: float
    most_s: float
    memory_bytes: int | None

    @classmethod
    def of(cls, seconds: Sequence[float], memory_bytes: int | None = None) -> "Timing":
        """The timing of runs that took `seconds`."""
        return cls(statistics.median(seconds), min(seconds), max(seconds), memory_bytes)


@dataclass(frozen=True, slots=True)
class Row:
    """One measured task and its baseline.

    `items` is how many of `unit` one run of each side processes. `disagreement` says how the results of the sides
    differ, if they do: such a row has no ratio. `floor_s` is the least possible time of our side's run, where it is
    known, and `floor` explains it.
    """

    name: str
    unit: str
    items: tuple[int, int]
    ours: Timing
    baseline: Timing | None
    disagreement: str | None = None
    floor_s: float | None = None
    floor: str = ""

    @property
    def ratio(self) -> float | None:
        """The baseline's time per item over ours; None where the sides disagree, or there is no baseline."""
        if self.disagreement is not None or self.baseline is None:
            return None
        return (self.baseline.median_s / self.items[1]) / (self.ours.median_s / self.items[0])

    @property
    def share_of_floor(self) -> float | None:
        """The floor's share of our median, 0 to 1."""
        return None if self.floor_s is None else self.floor_s / self.ours.median_s

    def as_json(self) -> dict[str, object]:
        """The row as a JSON object."""
        return {**asdict(self), "ratio": self.ratio, "share_of_floor": self.share_of_floor}


class Side(Generic[T]):
    """One way to do a task; keeps the result of the latest run."""

    result: T

    def __init__(self, run: Callable[[], T]) -> None:
        self._run = run

    def __call__(self) -> None:
        self.result = self._run()


class Machine:
    """One device, how often each side runs on it, and what it can do at best."""

    def __init__(self, compute: Compute, repeats: int, *, quick: bool = False) -> None:
        self.compute, self.repeats, self._quick = compute, repeats, quick

    def busy_percent(self) -> float:
        """The share of the processors that other programs use at the moment, in percent."""
        return psutil.cpu_percent(interval=0.1 if self._quick else 1.0)

    def compare(
        self,
        name: str,
        unit: str,
        items: int | tuple[int, int],
        ours: Callable[[], T],
        baseline: Callable[[], T],
        check: Callable[[T, T], str | None],
    ) -> Row:
        """Measure both sides; `check` says how our result and the baseline's differ, or None if they agree."""
        our_side, baseline_side = Side(ours), Side(baseline)
        our_time, baseline_time = self.alternate(our_side, baseline_side)
        counts = (items, items) if isinstance(items, int) else items
        return Row(name, unit, counts, our_time, baseline_time, check(our_side.result, baseline_side.result))

    def alternate(self, *sides: Callable[[], object]) -> list[Timing]:
        """Run each side once to warm up and to see its memory, then time all of them in turn."""
        memory = [self._memory(side) for side in sides]
        rounds = [[_seconds(side) for side in sides] for _ in range(self.repeats)]
        return [Timing.of(seconds, peak) for seconds, peak in zip(zip(*rounds, strict=True), memory, strict=True)]

    @cached_property
    def product_rate(self) -> float:
        """Floating-point operations per second of a large matrix product in the precision of training."""
        size = 8192 if self.compute.device.type == "cuda" else 1536
        dtype = self.compute.dtype or torch.float32
        left, right = (torch.randn(size, size, device=self.compute.device).to(dtype) for _ in range(2))
        return 2 * size**3 / self._fastest(lambda: left @ right)

    @cached_property
    def bandwidth(self) -> float:
        """Bytes per second, read and written, of a large copy."""
        count = 2**28 if self.compute.device.type == "cuda" else 2**25
        source = torch.ones(count, device=self.compute.device)
        target = torch.empty_like(source)
        return 2 * source.nbytes / self._fastest(lambda: target.copy_(source))

    def _fastest(self, run: Callable[[], object]) -> float:
        run()
        return min(_seconds(run) for _ in range(1 if self._quick else 10))

    def _memory(self, side: Callable[[], object]) -> int | None:
        gc.collect()
        _return_free_memory()
        start = self._reset_peak()
        side()
        peak = self._peak()
        return None if start is None or peak is None else max(0, peak - start)

    def _reset_peak(self) -> int | None:
        """Reset the peak to what is in use, and return that."""
        if self.compute.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated()
        try:
            CLEAR_REFS.write_text("5", "ascii")
        except OSError:  # only Linux has it
            return None
        return self._peak()

    def _peak(self) -> int | None:
        if self.compute.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        try:
            line = next(line for line in STATUS.read_text("ascii").splitlines() if line.startswith("VmHWM"))
        except (OSError, StopIteration):
            return None
        return int(line.split()[1]) * 1024


def difference(ours: torch.Tensor, baseline: torch.Tensor, limit: float, what: str) -> str | None:
    """A message if two tensors differ by more than `limit` of the baseline's largest value; None if they agree."""
    worst = float((ours - baseline).abs().max() / baseline.abs().max())
    return None if worst <= limit else f"{what} differ by {worst:.1e}"


def _seconds(side: Callable[[], object]) -> float:
    gc.collect()
    start = _finished()
    side()
    return _finished() - start


def _finished() -> float:
    """The time when the device has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _return_free_memory() -> None:
    """Make the C library return what is free, so that a side's peak is its own; not every C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
