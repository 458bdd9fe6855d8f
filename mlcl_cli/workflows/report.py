"""`mlcl report`: a page that shows what runs have learned."""

import logging
import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from mlcl_cli import __version__
from mlcl_cli.atomic_files import require_replaceable, write_file
from mlcl_cli.config import Profile, load_profile
from mlcl_cli.config.schema import DATA_KEYS
from mlcl_cli.errors import DataError, MlclError, StuckError, UsageError
from mlcl_cli.formatting import counted
from mlcl_cli.html_report.analysis import analyze
from mlcl_cli.html_report.naming import LEVELS
from mlcl_cli.html_report.page import Page, best_of, grouped
from mlcl_cli.html_report.reported_run import ReportedRun
from mlcl_cli.html_report.thumbnails import thumbnails
from mlcl_cli.images.thumbnails import Thumbnail
from mlcl_cli.models.compute import choose_workers
from mlcl_cli.progress import NOTICE, Progress, without_notes
from mlcl_cli.retrieval.evaluation import Compose, sum_query
from mlcl_cli.runs.description import Kind
from mlcl_cli.runs.listing import find_run, list_runs
from mlcl_cli.workflows.checkpoint_selection import ClipChoice, choose_run, named_clip
from mlcl_cli.workflows.retrieval_model import prepare_split
from mlcl_cli.workflows.run_context import RunContext

logger = logging.getLogger(__name__)

MAX_NAMED = 3  # runs in a file's name
COMPARED = ("image only", "text only", "sum")  # parts of a query with bars of their own
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


def write_report(
    profile: Profile,
    progress: Progress,
    names: Sequence[str] = (),
    *,
    every: bool = False,
    output: Path | None = None,
    sample: int = 8,
) -> ReportResult:
    """Write one HTML file about the runs in `names`, `every` run, or the best combiner (else the best fine-tuning run).

    Metrics are those that each run logged; all queries are ranked by its best checkpoint, and `sample` of each kind
    are shown.
    A run whose data or weights are missing is shown without them. Raises UsageError where there is nothing to show.
    """
    start = time.monotonic()
    runs = _choose_runs(profile, progress, names, every=every)
    path = output or profile.workspace / "reports" / f"{_file_name(runs, every=every)}.html"
    if path.suffix not in (".html", ".htm"):
        raise UsageError("must end in .html or .htm", where=path, remedy="Choose another --output")
    require_replaceable(path, SIGNATURE, "a report")
    best = {best_of(group).number for group in grouped(runs)}
    runs = [_with_analysis(profile, progress, run, sample, everything=run.number in best) for run in runs]

    def embed(images: Sequence[tuple[str, Path]], side: int) -> Iterator[Thumbnail | None]:
        with progress.bar(f"Embedding {counted(len(images), 'image')}", len(images)) as advance:
            yield from thumbnails(images, side, choose_workers(profile.workers), advance)

    page = Page(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", __version__, runs, sample)
    write_file(path, page.html(embed).encode(errors="backslashreplace"))
    sheets = {run.label: run.analysis is not None for run in runs}
    return ReportResult(path, sheets, time.monotonic() - start)


def _choose_runs(profile: Profile, progress: Progress, names: Sequence[str], *, every: bool) -> list[ReportedRun]:
    """The runs to show. Damaged ones are skipped with a warning unless they are named."""
    listed = [find_run(profile.workspace, name) for name in names] if names else list_runs(profile.workspace)
    listed = list({run.folder: run for run in listed}.values())
    damaged = [run.problem for run in listed if run.problem is not None]
    summaries = [(run, run.summary) for run in listed if run.problem is None]
    validated = [(run, summary) for run, summary in summaries if summary.bests]
    if damaged and (names or not validated):
        raise damaged[0]
    if names and (empty := [run.folder for run, summary in summaries if not summary.bests]):
        raise UsageError("has no validated epoch yet", where=empty[0], remedy="Wait for its first one")
    runs = [ReportedRun(number, run, summary, Path.cwd()) for number, (run, summary) in enumerate(validated)]
    if names:
        return runs
    if every:
        for problem in damaged:
            logger.warning(f"Skipped a damaged run: {problem}")
    elif runs:
        runs = _best_run(profile, progress, runs)
    if not runs:
        remedy = "Run `mlcl finetune` or `mlcl train-combiner` first"
        raise UsageError("there is no run with a validated epoch yet", where=profile.workspace, remedy=remedy)
    return runs


def _best_run(profile: Profile, progress: Progress, runs: Sequence[ReportedRun]) -> list[ReportedRun]:
    """The run that `evaluate` would take; where no combiner fits, the best fine-tuning run.

    A CLIP that cannot be loaded is ignored: the page is written without it.
    """
    context = RunContext.open(profile.model_copy(update={"device": "auto"}), progress, writes=False)
    for kind in (Kind.COMBINER, Kind.CLIP):
        candidates = [run for run in runs if run.listed.kind is kind and run.summary.dataset == profile.dataset]
        if not candidates:
            continue
        try:
            selection = choose_run(context, kind, named_clip(context) if kind is Kind.COMBINER else None)
        except StuckError:
            raise
        except MlclError as error:
            logger.warning(str(error))
            selection = choose_run(context, kind, None, any_base=True)
        if selection is not None:
            chosen = selection.chosen.run
            logger.log(NOTICE, f"Run: {chosen.name}, {selection.describe(context.protocol.bests[0])}")
            return [replace(run, number=0) for run in candidates if run.listed.folder == chosen.folder]
    return []


def _file_name(runs: Sequence[ReportedRun], *, every: bool) -> str:
    """The file's name without its suffix; the same runs always give the same name."""
    if every:
        return "all"
    named = "+".join(run.label.replace("/", "-") for run in runs[:MAX_NAMED])
    return named + (f"+{len(runs) - MAX_NAMED}-more" if len(runs) > MAX_NAMED else "")


def _has_combiner(run: ReportedRun) -> bool:
    return run.listed.kind is Kind.COMBINER


def _with_analysis(
    profile: Profile, progress: Progress, run: ReportedRun, sample: int, *, everything: bool
) -> ReportedRun:
    """Add the commands, and how the best checkpoint ranks the validation split or why it cannot."""
    run = replace(run, commands=_commands(run, profile.workspace))
    try:
        stored = load_profile(run.listed.folder / "profile.yaml")
        here = _profile_here(run, stored, profile)
        run = replace(run, commands=_commands(run, profile.workspace, _moved(stored, here)))
        logger.info(f"Analyzing {run.label}")
        with without_notes():
            return _analyze(run, here, progress, sample, everything=everything)
    except StuckError:
        raise
    except MlclError as error:
        logger.warning(f"{run.listed.folder.name} has no retrieval sheet: {error}")
        return replace(run, missing=str(error))


def _analyze(run: ReportedRun, profile: Profile, progress: Progress, sample: int, *, everything: bool) -> ReportedRun:
    context = RunContext.open(profile, progress, needs_disk=False)
    function, checkpoint = ("combiner", run.weights) if _has_combiner(run) else ("sum", None)
    prepared = prepare_split(context, "val", function, checkpoint)
    model = prepared.model
    parts = _parts(model.parts, with_sum=_has_combiner(run))
    with prepared.ranking_bar(len(parts) + 1) as advance:
        analysis = analyze(
            prepared.evaluation,
            prepared.images,
            prepared.texts,
            model.compose,
            parts,
            sample=sample,
            compared=COMPARED if everything else (),
            everything=everything,
            seed=profile.seed,
            advance=advance,
        )
    weights = prepared.circumstances.inference_weights
    return replace(run, analysis=analysis, fingerprint=model.fingerprint, inference_weights=weights)


def _parts(parts: Mapping[str, Compose], *, with_sum: bool) -> dict[str, Compose]:
    """The parts under the page's names. The low level is the sum, which is there even without that level."""
    named = {name: part for name, part in parts.items() if name not in LEVELS}
    if with_sum:
        named["sum"] = sum_query
    return named | {f"{LEVELS[name]} level": part for name, part in parts.items() if name in LEVELS and name != "sum"}


def _profile_here(run: ReportedRun, stored: Profile, here: Profile) -> Profile:
    """A run's `stored` profile on this machine: the places of files and the use of the machine are those of `here`.

    Bad images are dropped if either profile says so. Raises DataError where the stored profile is for another data set
    than the run's summary.
    """
    if stored.dataset != run.summary.dataset:
        what = f"is for {stored.dataset}, but run.json says {run.summary.dataset}"
        raise DataError(what, where=run.listed.folder / "profile.yaml", remedy="Restore the run's own files")
    choice = ClipChoice.of_run(run.summary.clip, here)
    checkpoint = "auto" if _has_combiner(run) else run.weights
    clip = stored.clip.model_copy(update={"model": choice.model, "checkpoint": checkpoint})
    machine = {name: getattr(here, name) for name in ("workspace", *DATA_KEYS, "workers", "device")}
    drop = "drop" in (stored.bad_images, here.bad_images)
    return stored.model_copy(update={**machine, "clip": clip, "bad_images": "drop" if drop else "stop"})


def _moved(stored: Profile, here: Profile) -> list[str]:
    """The overrides that a run's stored profile needs where its folder or its data have moved since."""
    places = {
        "workspace": (stored.workspace, here.workspace),
        f"roots.{here.dataset}": (stored.root, here.root),
        "clip.model": (stored.clip.model, here.clip.model),
    }
    places |= {f"{here.dataset}.{key}": (stored.folders[key], folder) for key, folder in here.folders.items()}
    changed = {key: new for key, (old, new) in places.items() if old != new}
    return [part for key, new in changed.items() for part in ("--set", f"{key}={_from_here(new)}")]


def _from_here(place: Path | str) -> str:
    """A path as it is typed in the working folder, since a page shows no absolute path; a CLIP's name as it is."""
    return os.path.relpath(place) if isinstance(place, Path) else place


def _commands(run: ReportedRun, workspace: Path, moved: Sequence[str] = ()) -> dict[str, str]:
    """The command lines that train the run again, and that evaluate it, from the working folder."""
    initial = run.summary.clip.checkpoint
    start = "none" if initial is None else _from_here((workspace / initial).resolve())
    weights = _from_here(run.weights)
    profile = ["--profile", _from_here(run.listed.folder / "profile.yaml"), *moved]
    train = ["mlcl", *run.summary.command.split(), *profile]
    evaluate = ["mlcl", "evaluate", *profile]
    if _has_combiner(run):
        train += ["--set", f"clip.checkpoint={start}"]
        evaluate += ["--checkpoint", weights]
    else:
        train += ["--from", start]
        evaluate += ["--combining-function", "sum", "--set", f"clip.checkpoint={weights}"]
    return {"To train it again:": shlex.join(train), "To evaluate it:": shlex.join(evaluate)}
