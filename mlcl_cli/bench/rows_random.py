"""Rows on random features of real sizes: validation, ranking, all of stage 2, and steps on shared processors.

`python -m mlcl_cli.bench.rows_random STEPS` trains a small combiner in a process of its own, whose environment decides
how its threads wait; it prints the seconds that the steps took, and their mean loss.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import psutil
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.flop_counter import FlopCounterMode

from mlcl_cli.bench import baseline
from mlcl_cli.bench.measure import Machine, Row, Timing
from mlcl_cli.bench.synthetic_data import Queries, SyntheticData, random_triplets
from mlcl_cli.data.datasets import protocol_of
from mlcl_cli.data.protocols import FASHIONIQ_ORIGINAL, Protocol
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.models.combiner import Architecture, Combiner
from mlcl_cli.models.compute import choose_compute
from mlcl_cli.openmp import VARIABLES, set_wait_policy
from mlcl_cli.progress import NoProgress
from mlcl_cli.retrieval.evaluation import Compose, Evaluation, sum_query
from mlcl_cli.retrieval.ranking import rank_targets
from mlcl_cli.runs.description import ClipRecord, ImageRecord, Kind, TrainingDescription
from mlcl_cli.runs.run import Run, RunSettings
from mlcl_cli.training.feature_sources import CachedFeatures
from mlcl_cli.training.loop import Trainer, TrainingPlan, fit
from mlcl_cli.training.objectives import BankedViews, CombinerObjective, combiner_optimizer

FEATURES = 640
QUERIES = 1000
MEMBERS = 6
TITLES = {"cirr": "CIRR", "fashioniq": "FashionIQ dress", "shoes": "Shoes"}
ADAM_BYTES = 28  # read and written for each parameter
SMALL = Architecture(feature_dim=64, projection_dim=256, hidden_dim=512)
SMALL_BATCH = 128


@dataclass(frozen=True)
class RandomValidation:
    """A validation split with random features; each triplet has a caption and an image set of its own."""

    split: Split
    images: FeatureTable
    texts: FeatureTable

    @classmethod
    def of(cls, dataset: str, sizes: Queries, feature_dim: int, device: torch.device) -> "RandomValidation":
        """Query sets of `sizes` under a data set's name."""
        draw = torch.Generator().manual_seed(0)

        def table(names: Sequence[str]) -> FeatureTable:
            features = torch.randn(len(names), feature_dim, generator=draw)
            return FeatureTable({name: row for row, name in enumerate(names)}, features.to(device))

        sets = []
        for name, (queries, gallery) in sizes.items():
            images = tuple(f"{name}-image-{number:06}" for number in range(gallery))
            triplets = []
            for number in range(queries):
                members = tuple(images[row] for row in torch.randperm(gallery, generator=draw)[:MEMBERS].tolist())
                triplets.append(Triplet(members[0], members[1], (f"{name} {number}",), number, members))
            sets.append(QuerySet(name, tuple(triplets), images))
        paths = {name: Path(name) for part in sets for name in part.gallery}
        split = Split(dataset, "val", tuple(sets), paths)
        return cls(split, table(list(paths)), table([triplet.captions[0] for triplet in split.triplets]))

    def evaluation(self, protocol: Protocol) -> Callable[[Compose], dict[str, float]]:
        """The protocol's metrics as a function of how queries are composed."""
        evaluation = Evaluation(self.split, protocol)
        return lambda compose: evaluation(self.images, self.texts, compose).metrics


def validations(data: SyntheticData) -> Iterator[Row]:
    """Queries composed, ranked and scored, as after every epoch."""

    def check(ours: dict[str, float], theirs: dict[str, float]) -> str | None:
        worst = max(abs(ours[key] - value) for key, value in theirs.items())
        return None if worst < 1e-4 else f"recalls differ by {worst:.4f} points"

    for dataset, size in data.sizes.validation.items():
        validation = RandomValidation.of(dataset, {dataset: size}, FEATURES, data.machine.compute.device)
        # One set of queries, whose recalls are compared: no means over several.
        protocol = replace(protocol_of(dataset), summary=lambda recalls: dict(*recalls.values()))
        yield data.machine.compare(
            f"validate {TITLES[dataset]}",
            "query",
            size[0],
            partial(validation.evaluation(protocol), sum_query),
            partial(baseline.validate, validation.split.sets[0], validation.images, validation.texts, protocol),
            check,
        )


def large_gallery(data: SyntheticData) -> Iterator[Row]:
    """A thousand queries against a large gallery; the baseline is the bare matrix product."""
    for size in data.sizes.galleries:
        if 4 * FEATURES * size + 2**30 < 0.8 * _free_memory(data.machine.compute.device):
            yield _large_gallery(data, size)


def _large_gallery(data: SyntheticData, size: int) -> Row:
    device = data.machine.compute.device
    draw = torch.Generator(device).manual_seed(2)
    gallery = torch.empty(size, FEATURES, device=device)
    for part in gallery.split(100_000):
        part.copy_(normalize(torch.randn(part.shape, generator=draw, device=device), dim=-1))
    queries = normalize(torch.randn(QUERIES, FEATURES, generator=draw, device=device), dim=-1)
    targets = torch.randint(size, (QUERIES,), generator=draw, device=device)
    batch_size = QUERIES if 5 * QUERIES * size < _free_memory(device) else 100

    def product() -> Tensor:
        for part in queries.split(batch_size):
            gallery @ part.T
        return torch.empty(0)

    def check(ours: Tensor, _product: Tensor) -> str | None:
        scores = queries[:20] @ gallery.T
        naive = (scores > scores.gather(1, targets[:20, None])).sum(dim=1).cpu() + 1
        worst = int((ours[:20] - naive).abs().max())
        return None if worst <= max(2, size // 100_000) else f"ranks differ by {worst}"  # a product's rounding

    def rank() -> Tensor:
        return rank_targets(queries, gallery, targets).gallery

    row = data.machine.compare(f"rank {QUERIES:,} in {size:,}", "query", QUERIES, rank, product, check)
    assert row.baseline is not None
    return replace(row, floor_s=row.baseline.median_s, floor="the bare product, which is the baseline")


def full_run(data: SyntheticData) -> Iterator[Row]:
    """FashionIQ's thousand epochs, validated, logged and checkpointed; a baseline run would take most of a day."""
    sizes, device = data.sizes.full_run, data.machine.compute.device
    if sizes is None:
        return
    objective = random_objective(data.architecture, sizes.triplets, sizes.images, sizes.captions, device)
    combiner = objective.combiner
    validation = RandomValidation.of("fashioniq", sizes.validation, data.architecture.feature_dim, device)
    evaluate = validation.evaluation(FASHIONIQ_ORIGINAL)

    def validate() -> Mapping[str, float]:
        combiner.eval()
        return evaluate(combiner.queries)

    plan = TrainingPlan(sizes.epochs, sizes.batch_size, 1, 0)
    floor_s = step_floor(objective, sizes.batch_size, data.machine) * plan.steps(sizes.triplets) * plan.epochs
    description = TrainingDescription(
        dataset="fashioniq",
        protocol=FASHIONIQ_ORIGINAL.name,
        clip=ClipRecord(model="", fingerprint=""),
        image=ImageRecord(transform="", target_ratio=1.0),
        seed=plan.seed,
        device=str(data.machine.compute),
        versions={},
    )
    settings = RunSettings(Kind.COMBINER, "", plan.epochs, FASHIONIQ_ORIGINAL.bests, description)
    with Run.create(data.new_folder(), "bench", "", settings) as run:
        trainer = Trainer(objective, combiner_optimizer(combiner, 2e-5), plan, data.machine.compute)
        timing = Timing.of([fit(trainer, run, validate, NoProgress())])
    floor = "the operations of the steps alone, and Adam: validation, logs and checkpoints are in our time"
    yield Row(f"FashionIQ, {plan.epochs:,} epochs", "epoch", (plan.epochs, 1), timing, None, None, floor_s, floor)


def shared_processors(data: SyntheticData) -> Iterator[Row]:
    """Combiner steps beside busy programs with our wait policy, and with OpenMP's default. Only on a CPU."""
    if data.machine.compute.device.type != "cpu":
        return
    steps = data.sizes.shared_steps
    default = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    command = [sys.executable, "-m", __name__, str(steps)]
    for programs in data.sizes.busy_programs:
        seconds: dict[str, list[float]] = {"ours": [], "baseline": []}
        losses: set[str] = set()
        with ExitStack() as stack:
            for _ in range(programs):
                program = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
                stack.callback(program.kill)
            for _ in range(data.machine.repeats):
                chosen = dict(default)
                set_wait_policy(chosen)
                for side, environment in (("ours", chosen), ("baseline", default)):
                    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
                    duration, loss = output.split()
                    seconds[side].append(float(duration))
                    losses.add(loss)
        ours, theirs = (Timing.of(seconds[side]) for side in ("ours", "baseline"))
        problem = None if len(losses) == 1 else f"losses are {sorted(losses)}"
        name = f"combiner steps beside {programs} busy program{'' if programs == 1 else 's'}"
        yield Row(name, "step", (steps, steps), ours, theirs, problem)


def random_objective(
    architecture: Architecture, triplets: int, images: int, captions: int, device: torch.device
) -> CombinerObjective:
    """Stage 2 on random features, with two views of each image."""
    draw = torch.Generator(device).manual_seed(0)

    def features(*shape: int) -> Tensor:
        return torch.randn(*shape, architecture.feature_dim, generator=draw, device=device)

    rows = random_triplets(triplets, [str(row) for row in range(images)], [str(row) for row in range(captions)])
    views = BankedViews(features(2, images), rows.references, 0)
    image_source, text_source = CachedFeatures(features(images)), CachedFeatures(features(captions))
    combiner = Combiner(architecture).to(device)
    return CombinerObjective(combiner, rows, image_source, text_source, views, ("mid", "high"))


def step_floor(objective: CombinerObjective, batch_size: int, machine: Machine) -> float:
    """Least seconds of a step: its operations at the rate of a bare product, Adam at the bandwidth of a copy."""
    rows = torch.arange(batch_size)
    with FlopCounterMode(display=False) as counter:
        total(objective.losses(objective.prepare(rows, objective.triplets.variants[rows, 0], 1))).backward()
    parameters = sum(parameter.numel() for parameter in objective.combiner.parameters())
    return float(counter.get_total_flops()) / machine.product_rate + ADAM_BYTES * parameters / machine.bandwidth


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """The sum of the losses, as a scalar."""
    return torch.stack([loss.squeeze() for loss in losses.values()]).sum()


def _free_memory(device: torch.device) -> int:
    return torch.cuda.mem_get_info()[0] if device.type == "cuda" else psutil.virtual_memory().available


def _train_small_combiner(steps: int) -> None:
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    compute = choose_compute("cpu", "auto")
    objective = random_objective(SMALL, SMALL_BATCH * steps, SMALL_BATCH, SMALL_BATCH, compute.device)
    plan = TrainingPlan(2, SMALL_BATCH, 1, 0)
    trainer = Trainer(objective, combiner_optimizer(objective.combiner, 1e-4), plan, compute)
    trainer.run_epoch()  # warms up
    trainer.next_epoch()
    start = time.perf_counter()
    figures = trainer.run_epoch()
    sys.stdout.write(f"{time.perf_counter() - start} {figures['loss']}\n")


if __name__ == "__main__":
    _train_small_combiner(int(sys.argv[1]))
