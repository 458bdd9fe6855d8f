"""`mlcl demo`: the main job on a small catalog that needs no download, by the commands that everybody uses."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from mlcl_cli.atomic_files import write_file
from mlcl_cli.data.datasets import DATASETS, protocol_of
from mlcl_cli.data.protocols import chance
from mlcl_cli.demo.catalog import WRITERS, draw_catalog
from mlcl_cli.demo.recipe import profile_text
from mlcl_cli.demo.small_clip import SIZE, train_small_clip
from mlcl_cli.errors import UsageError
from mlcl_cli.images.decode import open_image
from mlcl_cli.images.transforms import Transform, preprocess_pixels
from mlcl_cli.progress import Progress

logger = logging.getLogger(__name__)

RunCommand = Callable[[Sequence[str]], Mapping[str, Any]]
COLUMNS = {"image": "image only", "text": "text only", "sum": "element-wise sum", "combiner": "combiner"}


@dataclass(frozen=True)
class DemoResult:
    """Scores in percent by data set, and where everything lies.

    `report` is the page that shows it, `profile` the last data set's.
    """

    folder: Path
    report: Path
    profile: Path
    scores: Mapping[str, Mapping[str, float]]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """One plain object."""
        places = {"folder": str(self.folder), "report": str(self.report)}
        return {"command": "demo", **places, "scores": self.scores, "seconds": self.seconds}


def run_demo(folder: Path, datasets: Sequence[str], progress: Progress, run: RunCommand) -> DemoResult:
    """Draws the catalog, trains a small CLIP for it, runs the real commands on each data set, and shows the runs.

    Without `datasets`, all that the catalog can draw. `run` takes a command line without its `mlcl` and gives the
    command's JSON result. Raises UsageError for a data set that the catalog cannot draw.
    """
    began = time.monotonic()
    if unknown := [name for name in datasets if name not in WRITERS]:
        raise UsageError(f"the demo cannot draw {unknown[0]}", where="--dataset", remedy=f"Choose {', '.join(WRITERS)}")
    datasets = datasets or tuple(WRITERS)
    _make_room(folder)
    logger.info(f"Drawing a small catalog under {folder}")
    described = draw_catalog(folder, datasets)
    train_small_clip(described, folder / "clip.pt", load=_load, progress=progress)
    scores = {}
    for dataset in datasets:
        path = folder / f"mlcl.{dataset}.yaml"
        path.write_text(profile_text(dataset), "utf-8")
        scores[dataset] = _pipeline(dataset, path, run)
    report = folder / "report.html"
    run(["report", "--all", "--output", str(report), "--profile", str(path)])
    return DemoResult(folder, report, path, scores, time.monotonic() - began)


def _make_room(folder: Path) -> None:
    """Moves an earlier demo aside: its tuned weights would be the best of this one's workspace."""
    marker = folder / ".mlcl-demo"
    if folder.exists() and any(folder.iterdir()):
        if not marker.exists():
            raise UsageError("holds other files", where=folder, remedy="Choose a new folder with --output")
        if Path.cwd().is_relative_to(folder):
            remedy = "Change to another folder, or choose a new one with --output"
            raise UsageError("holds an earlier demo, and is the current folder", where=folder, remedy=remedy)
        aside = next(path for number in count(1) if not (path := folder.with_name(f"{folder.name}-{number}")).exists())
        folder.rename(aside)
        logger.info(f"Moved the earlier demo to {aside}")
    write_file(marker, b"Made by `mlcl demo`, which moves this folder aside when it runs again.\n")


def _pipeline(dataset: str, profile: Path, run: RunCommand) -> dict[str, float]:
    def mlcl(*command: str) -> Mapping[str, Any]:
        return run([*command, "--profile", str(profile)])

    if preparation := DATASETS[dataset].preparation:
        mlcl(preparation.command)
    mlcl("finetune", "--encoder", "text")
    mlcl("finetune", "--encoder", "image")
    mlcl("train-combiner")
    results = {name: mlcl("evaluate", "--combining-function", name) for name in COLUMNS}
    if submission := DATASETS[dataset].submission:
        mlcl(submission.command)
    protocol = protocol_of(dataset)
    gallery = results["combiner"]["gallery"]
    sizes = gallery if isinstance(gallery, Mapping) else {dataset: gallery}
    metric = protocol.bests[0]
    scores = {COLUMNS[name]: float(result["metrics"][metric]) for name, result in results.items()}
    return {**scores, "chance": chance(protocol, sizes)[metric]}


def _load(path: Path) -> Any:
    return preprocess_pixels(Transform("targetpad", 1.25, SIZE)(open_image(path))[None])[0]
