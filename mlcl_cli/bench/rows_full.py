"""Rows of stage 2 on random features: all of it at the published size, and steps on shared processors.

`python -m mlcl_cli.bench.rows_full STEPS` trains a small combiner in a process of its own, whose environment decides
how its threads wait; it prints the seconds that the steps took, and their mean loss.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mlcl_cli.bench.measure import Machine, Row, Timing
from mlcl_cli.bench.synthetic_data import SyntheticData, numbered_table, random_split, random_triplets
from mlcl_cli.data.protocols import FASHIONIQ_ORIGINAL
from mlcl_cli.models.combiner import Architecture, Combiner
from mlcl_cli.models.compute import choose_compute
from mlcl_cli.openmp import CHOICES, set_wait_policy
from mlcl_cli.progress import Silent
from mlcl_cli.retrieval.evaluation import Evaluation
from mlcl_cli.runs.run import Run
from mlcl_cli.training.feature_sources import CachedFeatures
from mlcl_cli.training.loop import Trainer, TrainingPlan, fit
from mlcl_cli.training.objectives import BankedViews, CombinerObjective, combiner_optimizer

ADAM_BYTES = 28  # read and written for each parameter
SMALL = Architecture(feature_dim=64, projection_dim=256, hidden_dim=512)
SMALL_BATCH = 128


def full_run(data: SyntheticData) -> Iterator[Row]:
    """FashionIQ's thousand epochs, validated, logged and checkpointed; a baseline run would take most of a day."""
    sizes, device = data.sizes.full_run, data.machine.compute.device
    if sizes is None:
        return
    objective = random_objective(data.architecture, sizes.triplets, sizes.images, sizes.captions, device)
    combiner, split = objective.combiner, random_split("fashioniq", sizes.validation)
    evaluation = Evaluation(split, FASHIONIQ_ORIGINAL, lambda triplet: triplet.captions[0])
    gallery, captions = split.images(), [triplet.captions[0] for triplet in split.triplets]
    draw = torch.Generator(device).manual_seed(1)
    images, texts = (
        numbered_table(names, torch.randn(len(names), data.architecture.feature_dim, generator=draw, device=device))
        for names in (gallery, captions)
    )

    def validate() -> Mapping[str, float]:
        combiner.eval()
        return evaluation(images, texts, combiner.queries).metrics

    plan = TrainingPlan(sizes.epochs, sizes.batch_size, 1, 0)
    floor = step_floor(objective, sizes.batch_size, data.machine) * plan.steps(sizes.triplets) * plan.epochs
    about = {"kind": "combiner", "epochs": plan.epochs, "bests": FASHIONIQ_ORIGINAL.bests, "about": {}, "command": ""}
    with Run.create(data.new_folder(), "bench", "", **about) as run:
        trainer = Trainer(objective, combiner_optimizer(combiner, 2e-5), plan, data.machine.compute)
        timing = Timing((fit(trainer, run, validate, Silent()),), None)
    floor_is = "the operations of the steps alone, and Adam: validation, logs and checkpoints are in our time"
    yield Row(f"FashionIQ, {plan.epochs:,} epochs", "epoch", (plan.epochs, 1), timing, None, None, floor, floor_is)


def shared_processors(data: SyntheticData) -> Iterator[Row]:
    """Combiner steps beside busy programs with our wait policy, and with OpenMP's default. Only on a CPU."""
    if data.machine.compute.device.type != "cpu":
        return
    steps = data.sizes.shared_steps
    default = {name: value for name, value in os.environ.items() if name not in CHOICES}
    for programs in data.sizes.busy_programs:
        ours: list[StepsRun] = []
        theirs: list[StepsRun] = []
        with ExitStack() as stack:
            for _ in range(programs):
                stack.enter_context(_busy_program())
            for _ in range(data.machine.repeats):
                chosen = dict(default)
                set_wait_policy(chosen)
                ours.append(_run_steps(steps, chosen))
                theirs.append(_run_steps(steps, default))
        losses = {run.loss for run in (*ours, *theirs)}
        problem = None if len(losses) == 1 else f"losses are {sorted(losses)}"
        name = f"combiner steps beside {programs} busy program{'' if programs == 1 else 's'}"
        our_time, baseline_time = (Timing(tuple(run.seconds for run in runs), None) for runs in (ours, theirs))
        yield Row(name, "step", (steps, steps), our_time, baseline_time, problem)


class StepsRun(NamedTuple):
    """What the process of its own prints."""

    seconds: float
    loss: float


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


def _run_steps(steps: int, environment: Mapping[str, str]) -> StepsRun:
    command = [sys.executable, "-m", __name__, str(steps)]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return StepsRun(*map(float, output.split()))


@contextmanager
def _busy_program() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as program:
        try:
            yield
        finally:
            program.kill()


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
