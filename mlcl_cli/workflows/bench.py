"""`mlcl bench`: what is fast here, measured beside the plain way on this machine."""

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mlcl_cli.bench import rows_bank, rows_data, rows_full, rows_ranking, rows_shared, rows_training
from mlcl_cli.bench.measure import BUSY, Machine, Row
from mlcl_cli.bench.synthetic_data import FULL, REDUCED, SMALLEST, SyntheticData
from mlcl_cli.errors import UsageError
from mlcl_cli.models.compute import choose_compute, choose_workers
from mlcl_cli.progress import Progress
from mlcl_cli.workflows.provenance import versions

logger = logging.getLogger(__name__)

GROUPS = (
    *rows_data.ROWS,
    *rows_bank.ROWS,
    *rows_training.ROWS,
    *rows_full.ROWS,
    *rows_ranking.ROWS,
    *rows_shared.ROWS,
)
ROWS = {make.__name__.replace("_", "-"): make for make in GROUPS}


@dataclass(frozen=True)
class BenchResult:
    """The rows, and the machine that they were measured on."""

    machine: dict[str, Any]
    rows: tuple[Row, ...]

    def as_json(self) -> dict[str, Any]:
        """One plain object."""
        return {"command": "bench", **self.machine, "rows": [row.as_json() for row in self.rows]}


def run_bench(
    progress: Progress, *, device: str = "auto", only: Sequence[str] = (), repeats: int = 5, smallest: bool = False
) -> BenchResult:
    """Measures the groups of rows in `only`, or all of them.

    On a GPU at the size of the published recipe with random weights, on a CPU reduced; `smallest` is a trial of the
    benchmark itself. Raises UsageError for a group that does not exist.
    """
    if unknown := [name for name in only if name not in ROWS]:
        raise UsageError(f"there are no rows {unknown[0]!r}", where="--only", remedy=f"There are {', '.join(ROWS)}")
    compute = choose_compute(device, "auto")
    machine = Machine(compute, quick=smallest)
    sizes = SMALLEST if smallest else FULL if compute.device.type == "cuda" else REDUCED
    material = SyntheticData(machine, sizes, choose_workers("auto"))
    busy = machine.busy()
    if busy > BUSY:
        logger.warning(f"others take {busy:.0f} % of this machine's processors: the figures will be noisy")
    rates = {"product_flops": machine.product_rate, "copy_bytes_per_s": machine.bandwidth}
    rows: list[Row] = []
    names = list(only or ROWS)
    try:
        with progress.bar("Measuring", len(names)) as advance:
            for name in names:
                logger.info(f"Measuring {name}, both sides in turn")
                rows.extend(ROWS[name](material, repeats))
                advance(1)
    finally:
        shutil.rmtree(material.folder, ignore_errors=True)
    facts = {"device": str(compute), "cpus": os.cpu_count(), "threads": torch.get_num_threads(), "busy_percent": busy}
    return BenchResult({**facts, **rates, "repeats": repeats, "versions": versions()}, tuple(rows))
