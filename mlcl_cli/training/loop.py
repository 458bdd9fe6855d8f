"""The one training loop."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mlcl_cli.errors import DivergedError, NotFiniteError, UsageError
from mlcl_cli.formatting import counted
from mlcl_cli.images.decode import threaded_map
from mlcl_cli.models.compute import Compute
from mlcl_cli.progress import BestEpoch, Progress, TrainingDisplay, TrainingStatus
from mlcl_cli.runs.logs import terms_of
from mlcl_cli.runs.run import Run
from mlcl_cli.runs.training_state import PlainState, TrainingState, optimizer_tensors, restore_optimizer
from mlcl_cli.seeding import derive_generator, derive_seed
from mlcl_cli.signals import Interrupted, defer_signals, to_resume
from mlcl_cli.training.objectives import Objective

BATCHES_AHEAD = 2
SECONDS_BETWEEN_LOOKS = 2.0
REMEDY = "Lower the learning rate, or set precision: fp32; the last checkpoint is good"
Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How long and in what portions to train."""

    epochs: int
    batch_size: int
    validate_every: int
    seed: int

    def steps(self, triplets: int) -> int:
        """Batches an epoch; the last, smaller one is dropped. Raises UsageError where not one is left."""
        if triplets < self.batch_size:
            raise UsageError(
                f"batch_size {self.batch_size:,} is larger than the {counted(triplets, 'training triplet')}",
                remedy="Lower it: the last, smaller batch of an epoch is dropped, so nothing would be trained",
            )
        return triplets // self.batch_size


class Trainer:
    """An objective under way: what a step changes, and how far it has come.

    Every draw has a seed of its own that names epoch and step, so that nothing but what `state` gives is needed to go
    on as if nothing had happened.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        plan: TrainingPlan,
        compute: Compute,
        scheduler: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts | None = None,
    ) -> None:
        self.objective, self.optimizer, self.plan, self.compute = objective, optimizer, plan, compute
        self.scheduler = scheduler  # its T_0 counts epochs (METHOD.md, Section 4.5)
        self.scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.dtype == torch.float16)
        self.epoch, self.steps_done = 1, 0
        self.updating = False  # an update under way: neither the step before nor the one after can be resumed from
        self._history: list[dict[str, Tensor]] = []
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._broken = torch.zeros((), device=compute.device)

    def run_epoch(self, after_step: Callable[[], object] = lambda: None) -> dict[str, float]:
        """The rest of this epoch's steps; returns the means of its losses, for which alone the host waits.

        Raises DivergedError at the first loss or gradient that is not finite; the weights are then as they were
        before that step. Raises UsageError as `TrainingPlan.steps` does.
        """
        self.objective.train()
        for batch in self._batches():
            with defer_signals():
                self._step(batch)
                self.steps_done += 1
                self.updating = False
                after_step()
        figures = self.figures()
        self._require_finite_weights()
        return figures

    def next_epoch(self) -> None:
        """Begins the next epoch."""
        self.epoch, self.steps_done, self._history = self.epoch + 1, 0, []

    def state(self) -> TrainingState:
        """All that the rest of the run depends on. Raises DivergedError rather than give what is not finite."""
        self._require_finite_weights()
        history = {}
        if self._history:
            self.figures()
            history = {name: torch.stack([step[name] for step in self._history]) for name in self._history[0]}
        plain = PlainState(
            groups=self.optimizer.state_dict()["param_groups"],
            scaler=self.scaler.state_dict(),
            scheduler=None if self.scheduler is None else self.scheduler.state_dict(),
            history=list(history),
        )
        tensors = optimizer_tensors(self.optimizer)
        return TrainingState(self.epoch, self.steps_done, self.objective.weights(), tensors, history, plain)

    def bytes_of_state(self) -> int:
        """About how large a saved state is: weights, and two moments of those that train."""
        weights: int = sum(tensor.nbytes for tensor in self.objective.weights().values())
        moments: int = 2 * sum(parameter.nbytes for parameter in self._parameters)
        return weights + moments

    def restore(self, state: TrainingState) -> None:
        """Goes on from `state`."""
        self.epoch, self.steps_done = state.epoch, state.steps_done
        self.objective.load(state.weights)
        restore_optimizer(self.optimizer, state)
        self.scaler.load_state_dict(state.plain.scaler)
        if self.scheduler is not None:
            if state.plain.scheduler is None:
                raise ValueError("no scheduler state")
            self.scheduler.load_state_dict(state.plain.scheduler)
        history = {name: state.history[name].to(self.compute.device) for name in state.plain.history}
        self._history = [{name: values[step] for name, values in history.items()} for step in range(state.steps_done)]

    def _batches(self) -> Iterator[Any]:
        triplets, plan, epoch = self.objective.triplets, self.plan, self.epoch
        order = torch.randperm(len(triplets), generator=derive_generator(plan.seed, "order", epoch))
        captions = triplets.drawn(plan.seed, epoch)

        def prepare(rows: Tensor) -> Any:
            return self.objective.prepare(rows, captions[rows], epoch)

        rows = order.split(plan.batch_size)[self.steps_done : plan.steps(len(triplets))]
        return threaded_map(prepare, rows, workers=1, ahead=BATCHES_AHEAD)

    def _step(self, batch: Any) -> None:
        torch.manual_seed(derive_seed(self.plan.seed, "dropout", self.epoch, self.steps_done))
        with self.compute.training():
            with self.compute.autocast():
                losses = self.objective.losses(batch)
            total = torch.stack([loss.squeeze() for loss in losses.values()]).sum()
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(total).backward()
        figures = {"loss": total.detach(), **{name: loss.detach().squeeze() for name, loss in losses.items()}}
        figures |= self._guarded_update(total.detach())
        if self.scheduler is not None:
            # METHOD.md, Equation 14: epochs and iterations count from 0.
            self.scheduler.step(self.epoch - 1 + self.steps_done / self.plan.steps(len(self.objective.triplets)))
        self._history.append(figures)

    def _guarded_update(self, total: Tensor) -> dict[str, Tensor]:
        """Updates the weights unless loss or gradients are not finite; the device decides, and the host need not wait.

        Once a step was broken none of the epoch's later ones changes anything. A step that the scaler of mixed
        precision skips is no broken one: it is counted.
        """
        self.updating = True
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        if not self.scaler.is_enabled():
            self._broken = torch.maximum(self._broken, (~(total + norm).isfinite()).float())
            self.optimizer.found_inf = self._broken  # type: ignore[attr-defined]  # as GradScaler tells a fused one
            self.optimizer.step()
            return {"gradient_norm": norm}
        self.scaler.step(self.optimizer)
        self.scaler.update()
        skipped = (~norm.isfinite()).float()
        return {"skipped_steps": skipped, "gradient_norm": torch.where(norm.isfinite(), norm, 0.0)}

    def figures(self) -> dict[str, float]:
        """Means over the epoch's steps so far (of skipped steps the sum), brought from the device in one go.

        Raises DivergedError at the first that is not finite.
        """
        history = self._history
        columns = {name: torch.stack([step[name] for step in history]).double().cpu() for name in history[0]}
        broken = {name: (~values.isfinite()).nonzero() for name, values in columns.items()}
        if first := [(int(rows[0]), name) for name, rows in broken.items() if len(rows)]:
            step, name = min(first)
            what = "the gradient is" if name == "gradient_norm" else f"the loss is ({name})"
            where = f"epoch {self.epoch}, step {step + 1}"
            raise DivergedError(f"{what} not finite: {float(columns[name][step])}", where=where, remedy=REMEDY)
        return {
            name: float(values.sum() if name == "skipped_steps" else values.mean()) for name, values in columns.items()
        }

    def _require_finite_weights(self) -> None:
        """The last loss was taken before its update: a step may end in weights that no loss has seen."""
        if not bool(torch.stack([weight.detach().isfinite().all() for weight in self._parameters]).all()):
            raise DivergedError("the weights are not finite", where=f"epoch {self.epoch}", remedy=REMEDY)


def fit(
    trainer: Trainer,
    run: Run,
    validate: Callable[[], Figures],
    progress: Progress,
) -> float:
    """Trains to the plan's last epoch and leaves logs and checkpoints in `run`; returns the seconds it took.

    Validates every `plan.validate_every` epochs and after the last. Raises DivergedError at the first loss, gradient
    or score that is not finite, before anything of it is saved, UsageError where the batch is larger than the data
    set, and Interrupted where the command is told to stop. However it ends, the state at the last finished step is
    saved if it can be; an error while saving it never hides the one that ended the run.
    """
    started, plan = time.monotonic(), trainer.plan
    steps = plan.steps(len(trainer.objective.triplets))
    try:
        with progress.training(plan.epochs, steps, (trainer.epoch - 1) * steps + trainer.steps_done) as display:
            watch = _Watch(trainer, run, display)
            while trainer.epoch <= plan.epochs:
                began, epoch = time.monotonic(), trainer.epoch
                watch.begin()
                figures = trainer.run_epoch(watch.after_step)
                learned = {name: float(value) for name, value in trainer.objective.logging().items()}
                seconds = time.monotonic() - began
                validated = epoch % plan.validate_every == 0 or epoch == plan.epochs
                metrics = _validated(validate, epoch) if validated else None
                with defer_signals():
                    run.record(epoch, figures | learned, metrics, trainer.objective.weights, seconds)
                    try:
                        watch.show(figures, learned, seconds)
                    finally:
                        trainer.next_epoch()  # the epoch is in the log, whatever the display does
                    run.save_if_due(trainer.state, epoch)
    except Interrupted:
        with defer_signals():
            run.save(trainer.state())
        raise Interrupted(f"Go on with `{to_resume(run.settings.command)}`") from None
    except DivergedError:
        raise  # the last saved state is the one to go back to
    except BaseException:
        with suppress(BaseException), defer_signals():  # the first error is the one to report
            if not trainer.updating:
                run.save(trainer.state())
        raise
    return time.monotonic() - started


class _Watch:
    """What people see of a run: every step moves the display, and now and then the figures come from the device."""

    def __init__(self, trainer: Trainer, run: Run, display: TrainingDisplay) -> None:
        self._trainer, self._run, self._display = trainer, run, display
        self._looked = time.monotonic()
        self._display.show(TrainingStatus(best=self._best()))

    def begin(self) -> None:
        """An epoch begins, or goes on after its first steps."""
        self._began, self._first = time.monotonic(), self._trainer.steps_done

    def after_step(self) -> None:
        """Moves the display on, and saves the state where that is due."""
        trainer = self._trainer
        self._run.save_if_due(trainer.state)
        self._display.move(trainer.epoch, trainer.steps_done)
        now = time.monotonic()
        if now - self._looked > SECONDS_BETWEEN_LOOKS:
            learned = {name: float(value) for name, value in trainer.objective.logging().items()}
            self.show(trainer.figures(), learned, now - self._began)

    def show(self, figures: Figures, learned: Figures, seconds: float) -> None:
        """Shows the epoch's means so far; `seconds` are those that its steps in this process took."""
        rate = self._trainer.plan.batch_size * (self._trainer.steps_done - self._first) / max(seconds, 1e-9)
        self._display.show(TrainingStatus(figures["loss"], terms_of(figures), learned, rate, self._best()))
        self._looked = time.monotonic()

    def _best(self) -> BestEpoch | None:
        metric, best = self._run.settings.metrics[0], self._run.best if self._run.bests else None
        return None if best is None else BestEpoch(metric, best.score, best.epoch)


def _validated(validate: Callable[[], Figures], epoch: int) -> Figures:
    try:
        return validate()
    except NotFiniteError as error:
        raise DivergedError(error.what, where=f"validation of epoch {epoch}", remedy=REMEDY) from error
