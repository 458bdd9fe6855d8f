"""Time and memory of two sides, measured in turn on one machine."""

import ctypes
import gc
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

from mlcl_cli.models.compute import Compute
from mlcl_cli.training.objectives import CombinerObjective

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Timing:
    """The timed runs in seconds, and how far memory rose in a first run, in bytes; None if unknown."""

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

    def as_json(self) -> dict[str, object]:
        """The row as a JSON object; `share_of_floor` is the floor's share of our median, 0 to 1."""
        share = None if self.floor_s is None else self.floor_s / self.ours.median_s
        return {**asdict(self), "ratio": self.ratio, "share_of_floor": share}


@dataclass(frozen=True)
class Machine:
    """One device, how often each side runs on it, and what it can do at best."""

    compute: Compute
    repeats: int
    quick: bool = False

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
        results: dict[str, T] = {}
        our_time, baseline_time = self.alternate(
            lambda: results.update(ours=ours()), lambda: results.update(baseline=baseline())
        )
        counts = (items, items) if isinstance(items, int) else items
        return Row(name, unit, counts, our_time, baseline_time, check(results["ours"], results["baseline"]))

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
        source = torch.ones(2**28 if self.compute.device.type == "cuda" else 2**25, device=self.compute.device)
        target = torch.empty_like(source)
        return 2 * source.nbytes / self._fastest(lambda: target.copy_(source))

    def step_floor(self, objective: CombinerObjective, batch_size: int) -> float:
        """Least seconds of a step: its operations at the rate of a bare product, Adam at the bandwidth of a copy."""
        rows = torch.arange(batch_size)
        with FlopCounterMode(display=False) as counter:
            total(objective.losses(objective.prepare(rows, objective.triplets.variants[rows, 0], 1))).backward()
        adam_bytes = 28 * sum(parameter.numel() for parameter in objective.combiner.parameters())  # read and written
        return float(counter.get_total_flops()) / self.product_rate + adam_bytes / self.bandwidth

    def _fastest(self, run: Callable[[], object]) -> float:
        run()
        return min(_seconds(run) for _ in range(1 if self.quick else 10))

    def _memory(self, side: Callable[[], object]) -> int | None:
        gc.collect()
        # Return what is free, so that the peak is this side's own; not every C library can.
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)
        try:
            start = self._peak(reset=True)
        except (OSError, LookupError):  # only Linux counts it
            side()
            return None
        side()
        return max(0, self._peak() - start)

    def _peak(self, *, reset: bool = False) -> int:
        """The peak of the memory in use, in bytes, since it was last reset."""
        if self.compute.device.type == "cuda":
            if reset:
                torch.cuda.reset_peak_memory_stats()
            return torch.cuda.max_memory_allocated()
        if reset:
            Path("/proc/self/clear_refs").write_text("5", "ascii")
        return int(re.findall(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text("ascii"))[0]) * 1024


def total(losses: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The sum of the losses, as a scalar."""
    return torch.stack([loss.squeeze() for loss in losses.values()]).sum()


def difference(ours: torch.Tensor, baseline: torch.Tensor, limit: float, what: str) -> str | None:
    """A message if two tensors differ by more than `limit` of the baseline's largest value; None if they agree."""
    return exceeds(float((ours - baseline).abs().max() / baseline.abs().max()), limit, what)


def exceeds(error: float, limit: float, what: str) -> str | None:
    """A message if `error`, by which `what` differ, is larger than `limit` or not a number."""
    return None if error <= limit else f"{what} differ by {error:.1e}"


def _seconds(side: Callable[[], object]) -> float:
    from torch.utils.benchmark import timer  # logs a warning on some machines without a GPU

    gc.collect()
    start = timer()  # when the device has finished its work
    side()
    return timer() - start
