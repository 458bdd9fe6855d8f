"""The whole of stage 2 at the published size: FashionIQ's thousand epochs, each validated, logged and checkpointed."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from mlcl_cli.bench.measure import Row, Timing
from mlcl_cli.bench.rows_training import step_floor
from mlcl_cli.bench.synthetic_data import SyntheticData
from mlcl_cli.data.protocols import FASHIONIQ_ORIGINAL
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.models.combiner import Combiner
from mlcl_cli.progress import NoProgress
from mlcl_cli.retrieval.evaluation import Evaluation
from mlcl_cli.runs.run import Run
from mlcl_cli.training.feature_sources import CachedFeatures
from mlcl_cli.training.loop import Trainer, TrainingPlan, fit
from mlcl_cli.training.objectives import BankedViews, CombinerObjective, combiner_optimizer
from mlcl_cli.training.triplet_rows import TripletRows


def full_run(material: SyntheticData, repeats: int) -> Iterator[Row]:  # noqa: ARG001
    """One run from the first epoch to the last; there is no plain side, which would take the better part of a day."""
    sizes, machine = material.sizes.fashioniq, material.machine
    if sizes is None:
        return
    device = machine.compute.device
    draw = torch.Generator(device).manual_seed(0)

    def features(count: int) -> Tensor:
        return torch.randn(count, material.architecture.feature_dim, generator=draw, device=device)

    combiner = Combiner(material.architecture).to(device)
    rows = _triplets(sizes.triplets, sizes.images, sizes.captions)
    views = BankedViews(torch.stack([features(sizes.images), features(sizes.images)]), rows.references, 0)
    pictures, texts = CachedFeatures(features(sizes.images)), CachedFeatures(features(sizes.captions))
    objective = CombinerObjective(combiner, rows, pictures, texts, views, ("mid", "high"))
    split = _validation(sizes.validated)
    evaluation = Evaluation(split, FASHIONIQ_ORIGINAL, lambda triplet: triplet.captions[0])
    names, captions = split.images(), [triplet.captions[0] for triplet in split.triplets]
    gallery = FeatureTable({name: row for row, name in enumerate(names)}, features(len(names)))
    queries = FeatureTable({text: row for row, text in enumerate(captions)}, features(len(captions)))

    def validate() -> Mapping[str, float]:
        combiner.eval()
        return evaluation(gallery, queries, combiner.queries).metrics

    plan = TrainingPlan(sizes.epochs, sizes.batch, 1, 0)
    floor = step_floor(objective, sizes.batch, machine) * plan.steps(len(rows)) * plan.epochs
    folder = Path(tempfile.mkdtemp(dir=material.folder))
    about = {"kind": "combiner", "epochs": plan.epochs, "bests": FASHIONIQ_ORIGINAL.bests, "about": {}, "command": ""}
    with Run.create(folder, "bench", "", **about) as run:
        trainer = Trainer(objective, combiner_optimizer(combiner, 2e-5), plan, machine.compute)
        seconds = fit(trainer, run, validate, NoProgress())
    of = "operations of the steps alone, and Adam: validation, logs and checkpoints are in our time"
    timing = Timing((seconds,), None)
    yield Row(f"FashionIQ, {plan.epochs:,} epochs", "epoch", (plan.epochs, 1), timing, None, None, floor, of)


def _triplets(count: int, images: int, captions: int) -> TripletRows:
    draw = torch.Generator().manual_seed(0)
    references, targets = torch.randint(images, (2, count), generator=draw)
    variants = torch.randint(captions, (count, 4), generator=draw)
    names = tuple(str(number) for number in range(images))
    return TripletRows(names, tuple(str(number) for number in range(captions)), references, targets, variants)


def _validation(validated: Mapping[str, tuple[int, int]]) -> Split:
    sets = []
    for category, (queries, images) in validated.items():
        names = tuple(f"{category}-{number}" for number in range(images))
        draw = torch.Generator().manual_seed(1)
        pairs = torch.randint(images, (queries, 2), generator=draw).tolist()
        triplets = (Triplet(names[a], names[b], (f"{category} {n}",)) for n, (a, b) in enumerate(pairs))
        sets.append(QuerySet(category, tuple(triplets), names))
    return Split("fashioniq", "val", tuple(sets), {})


ROWS: tuple[Callable[[SyntheticData, int], Iterator[Row]], ...] = (full_run,)
