"""The table of a sweep: mean and standard deviation over seeds, and paired differences from the first setting."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev

import torch

from mlcl_cli.data.protocols import Protocol
from mlcl_cli.errors import DataError
from mlcl_cli.retrieval.bootstrap import DRAWS, LEVEL, Difference, compare, holm
from mlcl_cli.retrieval.evaluation import Figures, QueryValues
from mlcl_cli.workflows.sweep_grid import Grid, Values

logger = logging.getLogger(__name__)

ALPHA = 1 - LEVEL
AVERAGE = "average/"


@dataclass(frozen=True)
class SweptRun:
    """A finished run of a sweep: the metrics of its best checkpoint, and each query's own values."""

    folder: Path
    seed: int
    dataset: str
    data: str
    protocol: Protocol
    epoch: int
    figures: Figures
    values: QueryValues


@dataclass(frozen=True)
class Spread:
    """A metric over the seeds, in percent; `sd` is the sample's standard deviation, None for a single seed."""

    mean: float
    sd: float | None
    each: tuple[float, ...]

    @classmethod
    def of(cls, each: Sequence[float]) -> "Spread":
        """The spread of one value per seed."""
        return cls(fmean(each), stdev(each) if len(each) > 1 else None, tuple(each))

    def __str__(self) -> str:
        return f"{self.mean:.2f}" if self.sd is None else f"{self.mean:.2f} ± {self.sd:.2f}"


@dataclass(frozen=True)
class Row:
    """A setting: its headline metrics, and their differences from the first setting's.

    `differences` are None for the first setting, and where there are too few queries; their p-values are `adjusted`
    over the settings.
    """

    values: Values
    runs: Sequence[SweptRun]
    metrics: Mapping[str, Spread]
    differences: Mapping[str, Difference] | None = None

    def is_significant(self, metric: str) -> bool:
        """Whether the metric differs from the first setting's at the level of 5 %, corrected over the settings."""
        return self.differences is not None and self.differences[metric].adjusted < ALPHA

    def as_json(self) -> dict[str, object]:
        """What `--json` prints about the setting."""
        differences = self.differences
        return {
            "setting": dict(self.values),
            "runs": [str(run.folder) for run in self.runs],
            "metrics": {
                key: {"mean": spread.mean, "sd": spread.sd, "values": list(spread.each)}
                for key, spread in self.metrics.items()
            },
            "differences": differences
            and {
                key: {
                    "difference": difference.value,
                    "interval": [difference.interval.low, difference.interval.high],
                    "p": difference.p,
                    "adjusted": difference.adjusted,
                }
                for key, difference in differences.items()
            },
        }


@dataclass(frozen=True)
class SweepTable:
    """The settings that were judged on the same queries. `deciding` selects checkpoints.

    `without_significance` says why no differences were tested, if they were not.
    """

    dataset: str
    protocol: str
    queries: int
    seeds: tuple[int, ...]
    deciding: str
    rows: Sequence[Row]
    without_significance: str | None

    @property
    def metrics(self) -> list[str]:
        """The headline metrics."""
        return list(self.rows[0].metrics)

    def is_best(self, row: Row, metric: str) -> bool:
        """Whether no other setting has a higher mean."""
        return len(self.rows) > 1 and row.metrics[metric].mean == max(other.metrics[metric].mean for other in self.rows)

    def as_json(self) -> dict[str, object]:
        """What `--json` prints about the table."""
        return {
            "dataset": self.dataset,
            "protocol": self.protocol,
            "queries": self.queries,
            "seeds": list(self.seeds),
            "deciding": self.deciding,
            "without_significance": self.without_significance,
            "rows": [row.as_json() for row in self.rows],
        }


@dataclass(frozen=True)
class SweepResult:
    """A table for each set of queries that settings were judged on; usually one."""

    command: str
    keys: tuple[str, ...]
    tables: Sequence[SweepTable]
    seconds: float

    def as_json(self) -> dict[str, object]:
        """The object that `--json` prints."""
        return {
            "command": "sweep",
            "stage": self.command,
            "keys": list(self.keys),
            "draws": DRAWS,
            "level": LEVEL,
            "tables": [table.as_json() for table in self.tables],
            "seconds": self.seconds,
        }


def tabulate(
    grid: Grid, runs: Sequence[Sequence[SweptRun]], advance: Callable[[int], object] = lambda _: None
) -> list[SweepTable]:
    """The tables of a grid's `runs`, which are by setting and seed. `advance` is called as settings are compared."""
    tables: dict[tuple[str, str, str], list[Row]] = {}
    for setting, by_seed in zip(grid.settings, runs, strict=True):
        first = by_seed[0]
        keys = headline(first.protocol, first.figures.metrics)
        metrics = {key: Spread.of([run.figures.metrics[key] for run in by_seed]) for key in keys}
        place = first.dataset, first.protocol.label, first.data
        tables.setdefault(place, []).append(Row(setting.values, by_seed, metrics))
    return [_table(dataset, rows, grid.seeds, advance) for (dataset, _, _), rows in tables.items()]


def headline(protocol: Protocol, metrics: Mapping[str, float]) -> list[str]:
    """The metrics of a paper's table: the averages over query sets where there are any, else those over all queries.

    Means that select further checkpoints besides the deciding one are left out.
    """
    averages = [key for key in metrics if key.startswith(AVERAGE)]
    keys = averages or [key for key in metrics if "/" not in key and key not in protocol.bests[1:]]
    return keys if protocol.bests[0] in keys else [*keys, protocol.bests[0]]


def _table(dataset: str, rows: Sequence[Row], seeds: tuple[int, ...], advance: Callable[[int], object]) -> SweepTable:
    first = rows[0].runs[0]
    reason = None
    try:
        rows = _compared(rows, advance)
    except DataError as error:
        reason = error.what
        logger.warning(f"{dataset}: no differences are tested, since {reason}")
    return SweepTable(
        dataset,
        first.protocol.label,
        sum(first.figures.queries.values()),
        seeds,
        first.protocol.bests[0],
        rows,
        reason,
    )


def _compared(rows: Sequence[Row], advance: Callable[[int], object]) -> list[Row]:
    """The rows with their differences from the first (METHOD.md, Section 8.6). Raises DataError for few queries."""
    first, *others = rows
    protocol, reference = first.runs[0].protocol, _mean_values(first.runs)
    advance(1)
    found = []
    for row in others:
        differences = compare(protocol, reference, _mean_values(row.runs))
        found.append({key: differences[key] for key in row.metrics})
        advance(1)
    adjusted = {key: holm([each[key].p for each in found]) for key in first.metrics}
    return [
        first,
        *(
            replace(row, differences={key: replace(each[key], adjusted=adjusted[key][number]) for key in each})
            for number, (row, each) in enumerate(zip(others, found, strict=True))
        ),
    ]


def _mean_values(runs: Sequence[SweptRun]) -> QueryValues:
    """Each query's values, averaged over the seeds."""
    return {
        name: {key: torch.stack([run.values[name][key] for run in runs]).mean(dim=0) for key in columns}
        for name, columns in runs[0].values.items()
    }
