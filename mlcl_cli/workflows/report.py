"""`mlcl report`: a page that shows what runs have learned."""

import logging
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlcl_cli import __version__
from mlcl_cli.atomic_files import require_own, write_file
from mlcl_cli.config import Profile, load_profile
from mlcl_cli.config.schema import DATA_SECTIONS
from mlcl_cli.errors import DataError, MlclError, StuckError, UsageError
from mlcl_cli.formatting import counted
from mlcl_cli.html_report.analysis import Analysis, analysis
from mlcl_cli.html_report.page import Page, Reported
from mlcl_cli.html_report.thumbnails import thumbnails
from mlcl_cli.models.compute import choose_workers
from mlcl_cli.progress import NOTICE, Progress, without_notes
from mlcl_cli.runs.listing import ListedRun, find_run, list_runs
from mlcl_cli.runs.logs import TIMES, read_log
from mlcl_cli.runs.summary import MAX_BYTES
from mlcl_cli.safe_reading import open_regular
from mlcl_cli.workflows.checkpoint_selection import ClipChoice, best_in_words, choose_run, named_clip
from mlcl_cli.workflows.evaluate import load_retrieval_model, validation_of
from mlcl_cli.workflows.run_context import RunContext

logger = logging.getLogger(__name__)

SHOWN = 3  # runs in a file's name
SIGN = '<meta name="generator" content="mlcl'
Paths = dict[str, dict[str, Path]]


@dataclass(frozen=True)
class ReportResult:
    """The page, and the runs on it that have a retrieval sheet."""

    path: Path
    runs: Mapping[str, bool]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """One plain object."""
        runs = [{"run": name, "sheet": sheet} for name, sheet in self.runs.items()]
        size = self.path.stat().st_size
        return {"command": "report", "file": str(self.path), "bytes": size, "runs": runs, "seconds": self.seconds}


def write_report(
    profile: Profile,
    progress: Progress,
    names: Sequence[str] = (),
    *,
    every: bool = False,
    output: Path | None = None,
    sample: int = 8,
) -> ReportResult:
    """Writes one HTML file about the runs named, `every` run, or the best finished combiner (else fine-tuning).

    Figures are those that each run logged; `sample` queries of each kind are shown as its best checkpoint ranks them.
    A run whose data or weights are not at hand is shown without them. Raises UsageError where there is nothing to show.
    """
    began = time.monotonic()
    runs = _chosen(profile, progress, names, every=every)
    path = output or profile.workspace / "reports" / f"{_title(runs, every=every)}.html"
    if path.suffix not in (".html", ".htm"):
        raise UsageError("must end in .html", where=path, remedy="Choose another --output")
    require_own(path, SIGN, "a report")
    paths: Paths = {}
    reported = [_reported(profile, progress, number, run, sample, paths) for number, run in enumerate(runs)]
    title = f"{runs[0].stage}/{runs[0].folder.name}" if len(runs) == 1 else f"{len(runs)} runs side by side"
    page = Page(title, f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", __version__, reported, sample)
    wanted = sorted(page.wanted())
    files = [(name, paths[dataset][name]) for dataset, name in wanted]
    with progress.bar(f"Embedding {counted(len(files), 'picture')}", len(files)) as advance:
        small = thumbnails(files, choose_workers(profile.workers), advance)
        pictures = {key: found for key, found in zip(wanted, small, strict=True) if found is not None}
    write_file(path, replace(page, pictures=pictures).html().encode(errors="backslashreplace"))
    return ReportResult(path, {run.label: run.analysis is not None for run in reported}, time.monotonic() - began)


def _chosen(profile: Profile, progress: Progress, names: Sequence[str], *, every: bool) -> list[ListedRun]:
    """The runs to show; each has a best epoch. Damaged ones are skipped with a warning unless they are named."""
    if names:
        runs = list({run.folder: run for run in (find_run(profile, name) for name in names)}.values())
        if damaged := [run.problem for run in runs if run.problem is not None]:
            raise damaged[0]
        if empty := [run for run in runs if not run.summary["bests"]]:
            raise UsageError("has no validated epoch yet", where=empty[0].folder, remedy="Wait for its first one")
        return runs
    listed = list_runs(profile)
    runs = [run for run in listed if run.summary["bests"]]
    damaged = [run.problem for run in listed if run.problem is not None]
    if damaged and not runs:
        raise damaged[0]
    if every:
        for problem in damaged:
            logger.warning(f"skipped a run: {problem}")
    elif runs:
        runs = _best_run(profile, progress, runs)
    if not runs:
        remedy = "Run `mlcl finetune` or `mlcl train-combiner` first"
        raise UsageError("there is no run with a validated epoch yet", where=profile.workspace, remedy=remedy)
    return runs


def _best_run(profile: Profile, progress: Progress, runs: Sequence[ListedRun]) -> list[ListedRun]:
    """The run that `evaluate` would take; where no combiner fits, the best fine-tuning run.

    A CLIP that cannot be loaded decides nothing: the page is written without it.
    """
    context = RunContext.open(profile.model_copy(update={"device": "auto"}), progress, writes=False)
    for stage in ("combiner", "finetune"):
        if any(run.stage == stage and run.summary.get("dataset") == profile.dataset for run in runs):
            try:
                chosen = choose_run(context, stage, named_clip(context) if stage == "combiner" else None)
            except StuckError:
                raise
            except MlclError as error:
                logger.warning(str(error))
                chosen = choose_run(context, stage, None, any_base=True)
            if chosen is not None:
                logger.log(NOTICE, f"Run: {chosen.run.name}, {best_in_words(context, chosen)}")
                return [run for run in runs if run.folder == chosen.run.checkpoint.parent]
    return []


def _title(runs: Sequence[ListedRun], *, every: bool) -> str:
    """The file's name; the same runs give the same one."""
    if every:
        return "all"
    named = "+".join(f"{run.stage}-{run.folder.name}" for run in runs[:SHOWN])
    return named + (f"+{len(runs) - SHOWN}-more" if len(runs) > SHOWN else "")


def _reported(profile: Profile, progress: Progress, number: int, run: ListedRun, sample: int, paths: Paths) -> Reported:
    """A run with its analysis; where that cannot be made, with the reason."""
    found: Analysis | None = None
    missing, fingerprint, moved = "", None, list[str]()
    try:
        own = _profile_of(run, profile)
        moved = _moved(load_profile(run.folder / "profile.yaml"), own)
        logger.info(f"Looking at {run.stage}/{run.folder.name}")
        with without_notes():
            found, fingerprint = _studied(own, progress, run, sample, paths)
    except StuckError:
        raise
    except MlclError as error:
        missing = str(error)
        logger.warning(f"{run.folder.name} has no retrieval sheet: {missing}")
    return Reported(
        number,
        run.folder.name,
        run.stage,
        run.state,
        run.summary,
        read_log(run.folder),
        sum(row["seconds"] for row in read_log(run.folder, TIMES)),
        _text_of(run.folder / "profile.yaml"),
        _commands(run, profile.workspace, moved),
        found,
        missing,
        fingerprint,
    )


def _text_of(path: Path) -> str:
    """A text file for display; empty where it is missing or cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(MAX_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _profile_of(run: ListedRun, here: Profile) -> Profile:
    """The run's own profile on this machine: where things lie, and how the machine is used, is as `here`.

    Images that have gone bad since are dropped where either profile says so. Raises DataError where it is for another
    data set than the run's summary.
    """
    own = load_profile(run.folder / "profile.yaml")
    if own.dataset != run.summary["dataset"]:
        what = f"is for {own.dataset}, but run.json says {run.summary['dataset']}"
        raise DataError(what, where=run.folder / "profile.yaml", remedy="Restore the run's own files")
    choice = ClipChoice.described(run.summary["clip"], here.workspace, "the run's").found_at(here.clip.model)
    tuned: Path | str = "auto"
    if run.stage == "finetune":
        tuned = run.folder / next(iter(run.summary["bests"].values()))["checkpoint"]
    clip = own.clip.model_copy(update={"model": choice.model, "checkpoint": tuned})
    machine = {name: getattr(here, name) for name in ("workspace", *DATA_SECTIONS, "workers", "device")}
    drop = "drop" in (own.bad_images, here.bad_images)
    return own.model_copy(update={**machine, "clip": clip, "bad_images": "drop" if drop else "stop"})


def _studied(
    profile: Profile, progress: Progress, run: ListedRun, sample: int, paths: Paths
) -> tuple[Analysis, str | None]:
    """What the best checkpoint does on the validation split, and its fingerprint."""
    context = RunContext.open(profile, progress, needs_disk=False)
    best = run.folder / next(iter(run.summary["bests"].values()))["checkpoint"]
    combiner = run.stage == "combiner"
    model = load_retrieval_model(context, "combiner" if combiner else "sum", best if combiner else None)
    split = context.split("val")
    ready = validation_of(context, split, model.store)
    paths.setdefault(profile.dataset, {}).update(split.paths)
    count = len(ready.split.triplets) * (len(model.alone) + 1)
    with progress.bar(f"Ranking {counted(len(ready.split.triplets), 'query')}", count) as advance:
        found = analysis(
            ready.evaluation,
            ready.split,
            ready.images,
            ready.texts,
            model.compose,
            model.alone,
            sample=sample,
            seed=profile.seed,
            advance=advance,
        )
    return found, model.fingerprint or model.store.fingerprints["both"]


def _moved(stored: Profile, here: Profile) -> list[str]:
    """The overrides that a run's stored profile needs where its folder or its data have moved since."""
    places = {
        "workspace": (stored.workspace, here.workspace),
        f"roots.{here.dataset}": (stored.root, here.root),
        "clip.model": (stored.clip.model, here.clip.model),
    }
    places |= {f"{here.dataset}.{key}": (stored.folders[key], folder) for key, folder in here.folders.items()}
    return [part for key, (old, new) in places.items() if old != new for part in ("--set", f"{key}={new}")]


def _commands(run: ListedRun, workspace: Path, moved: Sequence[str]) -> dict[str, str]:
    """The command lines that make the run again, and that evaluate it."""
    known = run.summary["clip"]["checkpoint"]
    start = "none" if known is None else str((workspace / known).resolve())
    profile = ["--profile", str(run.folder / "profile.yaml"), *moved]
    best = str(run.folder / next(iter(run.summary["bests"].values()))["checkpoint"])
    again = ["mlcl", *run.summary["command"].split(), *profile]
    if run.stage == "combiner":
        again += ["--set", f"clip.checkpoint={start}"]
        evaluate = ["mlcl", "evaluate", *profile, "--checkpoint", best]
    else:
        again += ["--from", start]
        evaluate = ["mlcl", "evaluate", "--combining-function", "sum", *profile, "--set", f"clip.checkpoint={best}"]
    return {"To train it again:": shlex.join(again), "To evaluate it:": shlex.join(evaluate)}
