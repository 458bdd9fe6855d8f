"""`mlcl sweep`: many settings and seeds of one stage, in one process and on one set of banks."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlcl_cli.config import Profile
from mlcl_cli.data.protocols import Protocol
from mlcl_cli.data.records import Split
from mlcl_cli.errors import DivergedError, SeveralUsageError, UsageError
from mlcl_cli.formatting import counted
from mlcl_cli.progress import NOTICE, Progress
from mlcl_cli.retrieval.evaluation import Evaluation, Figures, QueryValues
from mlcl_cli.runs.checkpoints import load_checkpoint
from mlcl_cli.runs.listing import StoredRun
from mlcl_cli.runs.scalars import require_installed
from mlcl_cli.runs.summary import BestCheckpoint, RunState
from mlcl_cli.signals import Interrupted, defer_signals
from mlcl_cli.workflows.provenance import data_digest
from mlcl_cli.workflows.resume import ResumableRun, runs_of
from mlcl_cli.workflows.run_context import RunContext
from mlcl_cli.workflows.stages import Stage, stage_of_sweep
from mlcl_cli.workflows.sweep_grid import Grid, Setting
from mlcl_cli.workflows.sweep_table import SweepResult, SweptRun, tabulate
from mlcl_cli.workflows.train import Prepared, train_prepared

logger = logging.getLogger(__name__)

OTHERS_FINISHED = "The others are finished. To compare them, leave out these values, and run the command again"
CONTINUE = "Run the same command again: finished runs are not repeated, and an unfinished one continues"
# What runs on the same frozen parts may differ in.
TRAINED = {"seed", "finetune", "combiner", "checkpoints", "tensorboard", "loggers", "resume"}


@dataclass(frozen=True)
class Cell:
    """One run of a grid; `number` is that of its setting."""

    number: int
    setting: Setting
    seed: int
    profile: Profile
    stage: Stage


@dataclass(frozen=True)
class Group:
    """The runs that share what is frozen, the context of the first of them, and their training split."""

    context: RunContext
    cells: Sequence[Cell]
    train: Split


def run_sweep(grid: Grid, command: str, progress: Progress) -> SweepResult:
    """Train every run of the grid with the stage that `command` trains, and compare the settings.

    A run is not repeated if the workspace has a finished one with the same settings, data and CLIP, and continues if it
    has an unfinished one. Raises UsageError, before anything is trained, with every setting whose batches are larger
    than the training split, DivergedError, after all other runs, with those that diverged, and otherwise as `train`
    does.
    """
    began = time.monotonic()
    cells = [
        Cell(number, setting, seed, profile, stage_of_sweep(command, profile))
        for number, setting in enumerate(grid.settings)
        for seed, profile in setting.profiles.items()
    ]
    groups = _groups(cells, progress)
    _require_batches(groups)
    runs: dict[tuple[int, int], SweptRun] = {}
    diverged: list[str] = []
    try:
        for group in groups:
            _train_group(group, len(cells), runs, diverged)
    except Interrupted:
        raise Interrupted(CONTINUE) from None
    if diverged:
        what = f"{counted(len(diverged), 'run')} of {len(cells):,} diverged ({'; '.join(diverged)})"
        raise DivergedError(what, remedy=OTHERS_FINISHED)
    in_order = [[runs[number, seed] for seed in setting.profiles] for number, setting in enumerate(grid.settings)]
    with progress.bar("Comparing settings", len(grid.settings)) as advance:
        tables = tabulate(grid, in_order, advance)
    return SweepResult(command, grid.keys, tables, time.monotonic() - began)


def _groups(cells: Sequence[Cell], progress: Progress) -> list[Group]:
    """Runs that share what is frozen. Raises MachineError where a logger is not installed, or as `RunContext.open`."""
    shared: dict[tuple[str, Protocol, str | None], list[Cell]] = {}
    for cell in cells:
        require_installed(cell.profile.loggers)
        with defer_signals():  # pydantic turns an interruption within it into an error of its own
            frozen = cell.profile.model_dump_json(exclude=TRAINED)
        shared.setdefault((frozen, cell.profile.protocol, cell.stage.encoder), []).append(cell)
    groups = []
    for group in shared.values():
        context = RunContext.open(group[0].profile, progress)
        groups.append(Group(context, group, context.split("train")))
    return groups


def _require_batches(groups: Sequence[Group]) -> None:
    problems: dict[str, None] = {}
    for group in groups:
        for cell in group.cells:
            try:
                cell.stage.plan(cell.profile).steps(len(group.train.triplets))
            except UsageError as error:
                problems[f"{cell.setting}: {error}"] = None
    if problems:
        raise SeveralUsageError([*problems])


def _train_group(group: Group, total: int, runs: dict[tuple[int, int], SweptRun], diverged: list[str]) -> None:
    """Train the runs of a group, or find them, and add them to `runs` by the numbers of their setting and seed.

    A run that diverges is added to `diverged` in words, and the others go on.
    """
    context, stage = group.context, group.cells[0].stage
    frozen = stage.freeze(context, group.train, context.split("val"))
    prepared = Prepared.of(context, frozen)
    digest = data_digest(frozen.data.val)
    for cell in group.cells:
        number = len(runs) + len(diverged) + 1
        logger.log(NOTICE, f"Run {number:,} of {total:,}: {cell.setting}, seed {cell.seed}")
        own = replace(prepared, frozen=cell.stage.own(context, frozen))
        try:
            folder, best = _finished(own, cell) or _train(own, cell)
        except DivergedError as error:
            diverged.append(f"{cell.setting}, seed {cell.seed}")
            logger.warning(f"{diverged[-1]}: {error}")
            continue
        figures, values = _judge(own, cell, folder / best.checkpoint)
        protocol = frozen.data.protocol
        runs[cell.number, cell.seed] = SweptRun(
            folder, cell.seed, cell.profile.dataset, digest, protocol, best.epoch, figures, values
        )


def _same_runs(prepared: Prepared, cell: Cell) -> list[StoredRun]:
    now, protocol = prepared.identity(cell.profile, cell.stage), prepared.frozen.data.protocol
    return runs_of(cell.profile.workspace, cell.stage.kind, cell.stage.encoder, protocol.name, now)


def _finished(prepared: Prepared, cell: Cell) -> tuple[Path, BestCheckpoint] | None:
    """The oldest finished run of a cell whose weights are there."""
    for run in _same_runs(prepared, cell):
        best = run.summary.best
        if run.summary.state is RunState.FINISHED and best and (run.folder / best.checkpoint).is_file():
            logger.info(f"Finished before: {run.folder}")
            return run.folder, best
    return None


def _train(prepared: Prepared, cell: Cell) -> tuple[Path, BestCheckpoint]:
    unfinished = next((run for run in reversed(_same_runs(prepared, cell)) if run.resumable), None)
    resumed = ResumableRun(unfinished) if unfinished else None
    result = train_prepared(prepared, cell.profile, cell.stage, resumed)
    return result.run, result.best


def _judge(prepared: Prepared, cell: Cell, checkpoint: Path) -> tuple[Figures, QueryValues]:
    """The metrics of a run's best checkpoint, and each query's own values."""
    data, weights = prepared.frozen.data, load_checkpoint(checkpoint, cell.stage.kind).state
    ranks = cell.stage.ranks(prepared.context.for_run(cell.profile), prepared.frozen, weights)
    evaluation = Evaluation(data.val, data.protocol)
    return evaluation.figures(ranks), evaluation.values(ranks)
