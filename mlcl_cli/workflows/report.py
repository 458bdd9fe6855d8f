"""`mlcl report`: a page that shows what runs have learned."""

import logging
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from mlcl_cli import __version__
from mlcl_cli.atomic_files import require_own, write_file
from mlcl_cli.config import Profile, load_profile
from mlcl_cli.errors import DataError, MlclError, StuckError, UsageError
from mlcl_cli.formatting import counted
from mlcl_cli.html_report.analysis import analyze
from mlcl_cli.html_report.page import Page, ReportedRun
from mlcl_cli.html_report.thumbnails import Thumbnail, thumbnails
from mlcl_cli.models.compute import choose_workers
from mlcl_cli.progress import NOTICE, Progress, without_notes
from mlcl_cli.runs.listing import STAGES, ListedRun, find_run, list_runs
from mlcl_cli.runs.logs import TIMES, read_log
from mlcl_cli.runs.summary import MAX_BYTES, RunSummary
from mlcl_cli.safe_reading import open_regular
from mlcl_cli.workflows.checkpoint_selection import ClipChoice, best_in_words, choose_run, named_clip
from mlcl_cli.workflows.retrieval_model import prepare_split
from mlcl_cli.workflows.run_context import RunContext

logger = logging.getLogger(__name__)

MAX_NAMED = 3  # runs in a file's name
SIGNATURE = '<meta name="generator" content="mlcl'


@dataclass(frozen=True)
class ReportResult:
    """The page, and which of its runs have a retrieval sheet."""

    path: Path
    sheets: Mapping[str, bool]
    seconds: float

    def as_json(self) -> dict[str, object]:
        """The object that `--json` prints."""
        runs = [{"run": label, "sheet": sheet} for label, sheet in self.sheets.items()]
        size = self.path.stat().st_size
        return {"command": "report", "file": str(self.path), "bytes": size, "runs": runs, "seconds": self.seconds}


@dataclass(frozen=True)
class _Run:
    """A run with a best checkpoint."""

    listed: ListedRun
    summary: RunSummary

    @classmethod
    def of(cls, listed: ListedRun) -> "_Run | None":
        """None where the run is damaged or has no validated epoch."""
        if listed.problem is not None:
            return None
        summary = RunSummary.model_validate(dict(listed.summary))
        return cls(listed, summary) if summary.bests else None

    @property
    def folder(self) -> Path:
        return self.listed.folder

    @property
    def profile(self) -> Path:
        return self.folder / "profile.yaml"

    @property
    def best(self) -> Path:
        return self.folder / next(iter(self.summary.bests.values())).checkpoint

    @property
    def has_combiner(self) -> bool:
        return self.summary.kind == "combiner"


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

    Metrics are those that each run logged; `sample` queries of each kind are shown as its best checkpoint ranks them.
    A run whose data or weights are missing is shown without them. Raises UsageError where there is nothing to show.
    """
    start = time.monotonic()
    runs = _choose(profile, progress, names, every=every)
    path = output or profile.workspace / "reports" / f"{_file_name(runs, every=every)}.html"
    if path.suffix not in (".html", ".htm"):
        raise UsageError("must end in .html", where=path, remedy="Choose another --output")
    require_own(path, SIGNATURE, "a report")
    reported = [_report(profile, progress, number, run, sample) for number, run in enumerate(runs)]

    def embed(images: Sequence[tuple[str, Path]]) -> Iterator[Thumbnail | None]:
        with progress.bar(f"Embedding {counted(len(images), 'image')}", len(images)) as advance:
            yield from thumbnails(images, choose_workers(profile.workers), advance)

    title = reported[0].label if len(runs) == 1 else f"{len(runs)} runs side by side"
    page = Page(title, f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", __version__, reported, sample)
    write_file(path, page.html(embed).encode(errors="backslashreplace"))
    sheets = {run.label: run.analysis is not None for run in reported}
    return ReportResult(path, sheets, time.monotonic() - start)


def _choose(profile: Profile, progress: Progress, names: Sequence[str], *, every: bool) -> list[_Run]:
    """The runs to show. Damaged ones are skipped with a warning unless they are named."""
    listed = [find_run(profile, name) for name in names] if names else list_runs(profile)
    listed = list({run.folder: run for run in listed}.values())
    runs = [run for run in map(_Run.of, listed) if run is not None]
    damaged = [run.problem for run in listed if run.problem is not None]
    if damaged and (names or not runs):
        raise damaged[0]
    if names:
        if empty := {run.folder for run in listed} - {run.folder for run in runs}:
            raise UsageError("has no validated epoch yet", where=min(empty), remedy="Wait for its first one")
        return runs
    if every:
        for problem in damaged:
            logger.warning(f"skipped a run: {problem}")
    elif runs:
        runs = _best_run(profile, progress, runs)
    if not runs:
        remedy = "Run `mlcl finetune` or `mlcl train-combiner` first"
        raise UsageError("there is no run with a validated epoch yet", where=profile.workspace, remedy=remedy)
    return runs


def _best_run(profile: Profile, progress: Progress, runs: Sequence[_Run]) -> list[_Run]:
    """The run that `evaluate` would take; where no combiner fits, the best fine-tuning run.

    A CLIP that cannot be loaded is ignored: the page is written without it.
    """
    context = RunContext.open(profile.model_copy(update={"device": "auto"}), progress, writes=False)
    for stage in reversed(STAGES):
        candidates = [run for run in runs if run.listed.stage == stage and run.summary.dataset == profile.dataset]
        if not candidates:
            continue
        try:
            chosen = choose_run(context, stage, named_clip(context) if candidates[0].has_combiner else None)
        except StuckError:
            raise
        except MlclError as error:
            logger.warning(str(error))
            chosen = choose_run(context, stage, None, any_base=True)
        if chosen is not None:
            logger.log(NOTICE, f"Run: {chosen.run.name}, {best_in_words(context, chosen)}")
            return [run for run in candidates if run.folder == chosen.run.checkpoint.parent]
    return []


def _file_name(runs: Sequence[_Run], *, every: bool) -> str:
    """The file's name without its suffix; the same runs give the same one."""
    if every:
        return "all"
    named = "+".join(f"{run.listed.stage}-{run.folder.name}" for run in runs[:MAX_NAMED])
    return named + (f"+{len(runs) - MAX_NAMED}-more" if len(runs) > MAX_NAMED else "")


def _report(profile: Profile, progress: Progress, number: int, run: _Run, sample: int) -> ReportedRun:
    """A run with its retrieval sheet, or with the reason why there is none."""
    reported = ReportedRun(
        number=number,
        name=run.folder.name,
        stage=run.listed.stage,
        state=run.listed.state,
        summary=run.summary,
        rows=read_log(run.folder),
        seconds=sum(row["seconds"] for row in read_log(run.folder, TIMES)),
        profile=_read_text(run.profile),
        commands=_commands(run, profile.workspace),
    )
    try:
        here = _profile_here(run, profile)
        moved = _moved(load_profile(run.profile), here)
        reported = replace(reported, commands=_commands(run, profile.workspace, moved))
        logger.info(f"Analyzing {reported.label}")
        with without_notes():
            return _analyze(reported, here, progress, run, sample)
    except StuckError:
        raise
    except MlclError as error:
        logger.warning(f"{run.folder.name} has no retrieval sheet: {error}")
        return replace(reported, missing=str(error))


def _analyze(reported: ReportedRun, profile: Profile, progress: Progress, run: _Run, sample: int) -> ReportedRun:
    """Adds what the run's best checkpoint does on the validation split."""
    context = RunContext.open(profile, progress, needs_disk=False)
    function, checkpoint = ("combiner", run.best) if run.has_combiner else ("sum", None)
    prepared = prepare_split(context, "val", function, checkpoint)
    model = prepared.model
    with prepared.ranking_bar(len(model.parts) + 1) as advance:
        analysis = analyze(
            prepared.evaluation,
            prepared.images,
            prepared.texts,
            model.compose,
            model.parts,
            sample=sample,
            seed=profile.seed,
            advance=advance,
        )
    weights = prepared.circumstances.inference_weights
    return replace(reported, analysis=analysis, fingerprint=model.fingerprint, inference_weights=weights)


def _read_text(path: Path) -> str:
    """A text file for display; empty where it is missing or cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(MAX_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _profile_here(run: _Run, here: Profile) -> Profile:
    """The run's own profile on this machine: the places of files and the use of the machine are those of `here`.

    Images that have gone bad since are dropped if either profile says so. Raises DataError where it is for another
    data set than the run's summary.
    """
    stored = load_profile(run.profile)
    if stored.dataset != run.summary.dataset:
        what = f"is for {stored.dataset}, but run.json says {run.summary.dataset}"
        raise DataError(what, where=run.profile, remedy="Restore the run's own files")
    choice = ClipChoice.described(run.summary.clip.model_dump(), here.workspace, "the run's").found_at(here.clip.model)
    checkpoint = "auto" if run.has_combiner else run.best
    clip = stored.clip.model_copy(update={"model": choice.model, "checkpoint": checkpoint})
    machine = {name: getattr(here, name) for name in ("workspace", "roots", "shoes", "workers", "device")}
    drop = "drop" in (stored.bad_images, here.bad_images)
    return stored.model_copy(update={**machine, "clip": clip, "bad_images": "drop" if drop else "stop"})


def _moved(stored: Profile, here: Profile) -> list[str]:
    """The overrides that a run's stored profile needs where its folder or its data have moved since."""
    places = {
        "workspace": (stored.workspace, here.workspace),
        f"roots.{here.dataset}": (stored.root, here.root),
        "clip.model": (stored.clip.model, here.clip.model),
    }
    if here.dataset == "shoes":
        places["shoes.images"] = (stored.shoes.images, here.shoes.images)
        places["shoes.annotations"] = (stored.shoes.annotations, here.shoes.annotations)
    return [part for key, (old, new) in places.items() if old != new for part in ("--set", f"{key}={new}")]


def _commands(run: _Run, workspace: Path, moved: Sequence[str] = ()) -> dict[str, str]:
    """The command lines that train the run again, and that evaluate it."""
    initial = run.summary.clip.checkpoint
    start = "none" if initial is None else str((workspace / initial).resolve())
    profile = ["--profile", str(run.profile), *moved]
    train = ["mlcl", *run.summary.command.split(), *profile]
    evaluate = ["mlcl", "evaluate", *profile]
    if run.has_combiner:
        train += ["--set", f"clip.checkpoint={start}"]
        evaluate += ["--checkpoint", str(run.best)]
    else:
        train += ["--from", start]
        evaluate += ["--combining-function", "sum", "--set", f"clip.checkpoint={run.best}"]
    return {"To train it again:": shlex.join(train), "To evaluate it:": shlex.join(evaluate)}
