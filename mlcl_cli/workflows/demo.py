"""`mlcl demo`: the whole pipeline on a small catalog that needs no download, with the same commands that users run."""

import csv
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from pydantic import BaseModel

from mlcl_cli.atomic_files import write_file
from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.data.protocols import chance
from mlcl_cli.demo.catalog import CATALOG_PROFILE, WRITERS, draw_catalog, profile_text
from mlcl_cli.demo.small_clip import SIZE, train_small_clip
from mlcl_cli.errors import UsageError
from mlcl_cli.images.decode import open_image
from mlcl_cli.images.transforms import Transform, preprocess_pixels
from mlcl_cli.progress import Progress

logger = logging.getLogger(__name__)

RunCommand = Callable[[Sequence[str]], Mapping[str, object]]
SHOP, PRODUCTS = "shoes", "products.csv"  # the data set whose images are the drawn products, and their table
SHOWN_HITS = 5
COLUMNS = {"image": "image only", "text": "text only", "sum": "element-wise sum", "combiner": "combiner"}


class EvaluateOutput(BaseModel):
    """What the demo reads of the JSON that `mlcl evaluate` prints: metrics in percent, sizes of the galleries."""

    metrics: dict[str, float]
    gallery: int | dict[str, int]


class HitOutput(BaseModel):
    """What the demo reads of a hit of `mlcl search --json`."""

    id: str
    score: float
    fields: dict[str, str]


class SearchOutput(BaseModel):
    """What the demo reads of the JSON that `mlcl search` prints."""

    hits: list[HitOutput]


@dataclass(frozen=True)
class DemoSearch:
    """A search of the drawn products: the item that was the reference, the words, and what was found."""

    profile: Path
    item: str
    text: str
    hits: Sequence[HitOutput]


@dataclass(frozen=True)
class DemoResult:
    """Scores in percent by data set, the HTML page that shows them, and the profile of the last data set.

    `catalog` is the profile of a product catalog without training triplets, and `search` a search of it, if one was
    drawn.
    """

    folder: Path
    report: Path
    profile: Path
    scores: Mapping[str, Mapping[str, float]]
    seconds: float
    catalog: Path | None
    search: DemoSearch | None

    def as_json(self) -> dict[str, object]:
        """The result as a JSON object."""
        places = {"folder": str(self.folder), "report": str(self.report)}
        return {"command": "demo", **places, "scores": self.scores, "seconds": self.seconds}


def run_demo(folder: Path, datasets: Sequence[str], progress: Progress, run: RunCommand) -> DemoResult:
    """Draw the catalog, train a small CLIP for it, run the real commands on each data set, and report the runs.

    No `datasets` means all that the catalog can draw. `run` takes a command line without its `mlcl` and returns the
    command's JSON result. Raises UsageError for a data set that the catalog cannot draw.
    """
    start = time.monotonic()
    if unknown := [name for name in datasets if name not in WRITERS]:
        raise UsageError(f"the demo cannot draw {unknown[0]}", where="--dataset", remedy=f"Choose {', '.join(WRITERS)}")
    datasets = datasets or tuple(WRITERS)
    _move_earlier_demo(folder)
    logger.info(f"Drawing a small catalog under {folder}")
    transform = Transform("targetpad", 1.25, SIZE)
    train_small_clip(
        draw_catalog(folder, datasets),
        folder / "clip.pt",
        load=lambda path: preprocess_pixels(transform(open_image(path))[None])[0],
        progress=progress,
    )
    scores = {}
    for dataset in datasets:
        profile = folder / f"mlcl.{dataset}.yaml"
        profile.write_text(profile_text(dataset), "utf-8")
        scores[dataset] = _pipeline(dataset, profile, run)
    report = folder / "report.html"
    run(["report", "--all", "--output", str(report), "--profile", str(profile)])
    catalog = folder / CATALOG_PROFILE
    shop = catalog if catalog.is_file() else None
    search = None if shop is None else _search(shop.with_name(PRODUCTS), folder / f"mlcl.{SHOP}.yaml", run)
    return DemoResult(folder, report, profile, scores, time.monotonic() - start, shop, search)


def _search(products: Path, profile: Path, run: RunCommand) -> DemoSearch:
    """Index the drawn products, and search for the first one in another color."""
    run(["index", str(products), "--profile", str(profile)])
    with products.open(encoding="utf-8") as file:
        first = next(csv.DictReader(file))
    text = "in blue" if first["color"] == "red" else "in red"
    found = run(["search", text, "--item", first["image"], "-k", str(SHOWN_HITS), "--profile", str(profile)])
    return DemoSearch(profile, first["image"], text, SearchOutput.model_validate(found).hits)


def _move_earlier_demo(folder: Path) -> None:
    """Move an earlier demo aside: this one would choose the earlier demo's tuned weights if they scored higher."""
    marker = folder / ".mlcl-demo"
    if folder.exists() and any(folder.iterdir()):
        if not marker.exists():
            raise UsageError("folder contains other files", where=folder, remedy="Choose a new folder with --output")
        if Path.cwd().is_relative_to(folder):
            remedy = "Change to another folder, or choose a new one with --output"
            raise UsageError("contains an earlier demo and is the current folder", where=folder, remedy=remedy)
        aside = next(path for number in count(1) if not (path := folder.with_name(f"{folder.name}-{number}")).exists())
        folder.rename(aside)
        logger.info(f"Moved the earlier demo to {aside}")
    write_file(marker, b"Made by `mlcl demo`, which moves this folder aside when it runs again.\n")


def _pipeline(dataset: str, profile: Path, run: RunCommand) -> dict[str, float]:
    def mlcl(*command: str) -> Mapping[str, object]:
        return run([*command, "--profile", str(profile)])

    if preparation := DATASETS[dataset].preparation:
        mlcl(preparation.command)
    mlcl("finetune", "--encoder", "text")
    mlcl("finetune", "--encoder", "image")
    mlcl("train-combiner")
    results = {name: EvaluateOutput.model_validate(mlcl("evaluate", "--combining-function", name)) for name in COLUMNS}
    if submission := DATASETS[dataset].submission:
        mlcl(submission.command)
    protocol = DATASETS[dataset].protocol()
    metric = protocol.bests[0]
    gallery = results["combiner"].gallery
    scores = {COLUMNS[name]: result.metrics[metric] for name, result in results.items()}
    return {**scores, "chance": chance(protocol, gallery if isinstance(gallery, dict) else {dataset: gallery})[metric]}
