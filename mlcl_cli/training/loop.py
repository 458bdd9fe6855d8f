"""The one training loop."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mlcl_cli.errors import DivergedError, NotFiniteError, UsageError
from mlcl_cli.images.decode import in_order
from mlcl_cli.models.compute import Compute
from mlcl_cli.reporting import Reporter
from mlcl_cli.seeds import generator_of, seed_of
from mlcl_cli.training.objectives import Objective
from mlcl_cli.training.runs import Run

BATCHES_AHEAD = 2
REMEDY = "Lower the learning rate, or set precision: fp32; the last checkpoint is good"
Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and in what portions to train."""

    epochs: int
    batch_size: int
    validate_every: int
    seed: int

    def steps(self, triplets: int) -> int:
        """Batches an epoch; the last, smaller one is dropped. Raises UsageError where not one is left."""
        if triplets < self.batch_size:
            raise UsageError(
                f"batch_size {self.batch_size:,} is larger than the {triplets:,} training triplets",
                remedy="Lower it: the last, smaller batch of an epoch is dropped, so nothing would be trained",
            )
        return triplets // self.batch_size


def fit(
    objective: Objective,
    optimiser: torch.optim.Optimizer,
    plan: Plan,
    compute: Compute,
    run: Run,
    validate: Callable[[], Figures],
    reporter: Reporter,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> float:
    """Trains `objective` and leaves logs and checkpoints in `run`; returns the seconds it took.

    Every epoch's order, captions and dropout have seeds of their own. Validates every `plan.validate_every` epochs
    and after the last. Raises DivergedError at the first loss that is not finite, before anything of that epoch
    is saved, and UsageError where the batch is larger than the data set.
    """
    started = time.monotonic()
    scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.dtype == torch.float16)
    with reporter.bar("Training", plan.epochs) as advance:
        for epoch in range(1, plan.epochs + 1):
            began = time.monotonic()
            figures = train_epoch(objective, optimiser, plan, compute, epoch, scaler, scheduler)
            figures |= {name: float(value) for name, value in objective.logging().items()}
            figures["seconds"] = time.monotonic() - began
            validated = epoch % plan.validate_every == 0 or epoch == plan.epochs
            metrics = _validated(validate, epoch) if validated else None
            run.record(epoch, figures, metrics, objective.weights)
            advance(1, run.status)
    return time.monotonic() - started


def train_epoch(
    objective: Objective,
    optimiser: torch.optim.Optimizer,
    plan: Plan,
    compute: Compute,
    epoch: int,
    scaler: torch.amp.GradScaler,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> dict[str, float]:
    """One epoch over all triplets; returns the means of its losses, for which alone the host waits for the device.

    Raises DivergedError at the first loss, or at weights, that are not finite; UsageError as `Plan.steps` does.
    """
    objective.train()
    torch.manual_seed(seed_of(plan.seed, "dropout", epoch))
    history: list[dict[str, Tensor]] = []
    for batch in _batches(objective, plan, epoch):
        history.append(_step(objective, optimiser, scaler, compute, batch))
        if scheduler is not None:
            scheduler.step()
    figures = _epoch_figures(history, epoch)
    _require_finite_weights(optimiser, epoch)
    return figures


def _batches(objective: Objective, plan: Plan, epoch: int) -> Iterator[Any]:
    steps = plan.steps(len(objective.triplets))
    order = torch.randperm(len(objective.triplets), generator=generator_of(plan.seed, "order", epoch))
    captions = objective.triplets.drawn(plan.seed, epoch)

    def prepare(rows: Tensor) -> Any:
        return objective.prepare(rows, captions[rows], epoch)

    return in_order(prepare, order.split(plan.batch_size)[:steps], workers=1, ahead=BATCHES_AHEAD)


def _step(
    objective: Objective,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    compute: Compute,
    batch: Any,
) -> dict[str, Tensor]:
    with compute.training():
        with compute.autocast():
            losses = objective.losses(batch)
        total = torch.stack([loss.squeeze() for loss in losses.values()]).sum()
        optimiser.zero_grad(set_to_none=True)
        scaler.scale(total).backward()
    scaler.step(optimiser)
    scaler.update()
    return {"loss": total.detach(), **{name: loss.detach().squeeze() for name, loss in losses.items()}}


def _validated(validate: Callable[[], Figures], epoch: int) -> Figures:
    try:
        return validate()
    except NotFiniteError as error:
        raise DivergedError(error.what, where=f"validation of epoch {epoch}", remedy=REMEDY) from error


def _require_finite_weights(optimiser: torch.optim.Optimizer, epoch: int) -> None:
    """The loss of the last step was taken before its update: a step may end in weights that no loss has seen."""
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    if not bool(torch.stack([weight.detach().isfinite().all() for weight in weights]).all()):
        raise DivergedError("the weights are not finite", where=f"epoch {epoch}", remedy=REMEDY)


def _epoch_figures(history: list[dict[str, Tensor]], epoch: int) -> dict[str, float]:
    """Means over the epoch's steps, brought from the device in one go."""
    columns = {name: torch.stack([figures[name] for figures in history]).double().cpu() for name in history[0]}
    for name, values in columns.items():
        if not bool(values.isfinite().all()):
            step = int((~values.isfinite()).nonzero()[0]) + 1
            raise DivergedError(
                f"the loss is not finite ({name} is {float(values[step - 1])})",
                where=f"epoch {epoch}, step {step}",
                remedy=REMEDY,
            )
    return {name: float(values.mean()) for name, values in columns.items()}
