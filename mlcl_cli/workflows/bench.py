"""`mlcl bench`: speed and memory against a baseline, measured on this machine."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import psutil
import torch

from mlcl_cli.bench import rows_features, rows_training
from mlcl_cli.bench.measure import Machine, Row
from mlcl_cli.bench.synthetic_data import SyntheticData, load_sizes
from mlcl_cli.errors import UsageError
from mlcl_cli.models.compute import choose_compute, choose_workers
from mlcl_cli.progress import Progress
from mlcl_cli.workflows.provenance import versions

logger = logging.getLogger(__name__)

BUSY_PERCENT = 15.0  # of the processors, used by other programs: more than this is worth a warning

GROUPS: Mapping[str, Callable[[SyntheticData], Iterator[Row]]] = {
    "decoding": rows_features.decoding,
    "image-encoding": rows_features.image_encoding,
    "text-encoding": rows_features.text_encoding,
    "bank-build": rows_features.bank_build,
    "bank-growth": rows_features.bank_growth,
    "combiner-epochs": rows_training.combiner_epochs,
    "finetuning-epochs": rows_training.finetuning_epochs,
    "gradient-caching": rows_training.gradient_caching,
    "full-run": rows_training.full_run,
    "validations": rows_features.validations,
    "large-gallery": rows_features.large_gallery,
    "shared-processors": rows_training.shared_processors,
}


@dataclass(frozen=True)
class BenchResult:
    """The rows, and what is known about the machine and the settings."""

    device: str
    cpus: int | None
    threads: int
    busy_percent: float
    product_flops: float
    copy_bytes_per_s: float
    repeats: int
    versions: Mapping[str, str]
    rows: list[Row]

    def as_json(self) -> dict[str, object]:
        """The result as a JSON object."""
        return {"command": "bench", **asdict(self), "rows": [row.as_json() for row in self.rows]}


def run_bench(
    progress: Progress, *, device: str = "auto", only: Sequence[str] = (), repeats: int = 5, smallest: bool = False
) -> BenchResult:
    """Measure the groups of rows in `only`, or all of them.

    On a GPU at the size of the published recipe with random weights, on a CPU at a reduced size; `smallest` tries the
    benchmark itself. Raises UsageError for an unknown group.
    """
    if unknown := [name for name in only if name not in GROUPS]:
        raise UsageError(f"unknown group {unknown[0]!r}", where="--only", remedy=f"Choose {', '.join(GROUPS)}")
    compute = choose_compute(device, "auto")
    machine = Machine(compute, repeats, quick=smallest)
    sizes = load_sizes("smallest" if smallest else "full" if compute.device.type == "cuda" else "reduced")
    data = SyntheticData(machine, sizes, choose_workers("auto"))
    busy = psutil.cpu_percent(interval=0.1 if smallest else 1.0)
    if busy > BUSY_PERCENT:
        logger.warning(f"other programs use {busy:.0f} % of this machine's processors: the results will be noisy")
    result = BenchResult(
        device=str(compute),
        cpus=os.cpu_count(),
        threads=torch.get_num_threads(),
        busy_percent=busy,
        product_flops=machine.product_rate,
        copy_bytes_per_s=machine.bandwidth,
        repeats=repeats,
        versions=versions(),
        rows=[],
    )
    names = list(only or GROUPS)
    try:
        with progress.bar("Measuring", len(names)) as advance:
            for name in names:
                logger.info(f"Measuring {name}, both sides in turn")
                result.rows.extend(GROUPS[name](data))
                advance(1)
    finally:
        shutil.rmtree(data.folder, ignore_errors=True)
    return result
