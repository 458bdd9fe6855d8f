"""The one training loop."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from mlcl_cli.errors import DivergedError, NotFiniteError, UsageError
from mlcl_cli.formatting import counted
from mlcl_cli.images.decode import threaded_map
from mlcl_cli.models.compute import Compute
from mlcl_cli.progress import BestEpoch, Progress, TrainingDisplay, TrainingStatus
from mlcl_cli.runs.checkpoints import PlainState, TrainingState, optimizer_tensors, restore_optimizer
from mlcl_cli.runs.logs import terms_of
from mlcl_cli.runs.run import Run
from mlcl_cli.seeding import derive_generator, derive_seed
from mlcl_cli.signals import Interrupted, defer_signals, to_resume
from mlcl_cli.training.objectives import Batch, Objective

BATCHES_AHEAD = 2
SECONDS_BETWEEN_FIGURES = 2.0  # reading them makes the host wait for the device
REMEDY = "Lower the learning rate, or set precision: fp32; the last checkpoint is intact"
Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How long and in what batches to train."""

    epochs: int
    batch_size: int
    validate_every: int
    seed: int

    def steps(self, triplets: int) -> int:
        """Batches per epoch; the last, incomplete one is dropped. Raises UsageError if none is left."""
        if triplets < self.batch_size:
            raise UsageError(
                f"batch_size {self.batch_size:,} is larger than the {counted(triplets, 'training triplet')}",
                remedy="Lower it: the last, incomplete batch of an epoch is dropped, so nothing would be trained",
            )
        return triplets // self.batch_size


class Trainer:
    """Trains an objective step by step, and knows how far it has come.

    Every random draw has its own seed, derived from epoch and step, so `state` is all that a resumed run needs to
    continue bit for bit.
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
        self.scheduler = scheduler
        self.scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.dtype == torch.float16)
        self.epoch, self.steps_done = 1, 0
        self.updating = False  # True during an update, when the state is neither that before nor that after the step
        self._history: list[dict[str, Tensor]] = []
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._broken = torch.zeros((), device=compute.device)

    def run_epoch(self, after_step: Callable[[], object] = lambda: None) -> dict[str, float]:
        """Run the remaining steps of this epoch and return the means of its losses, the only sync with the device.

        Raises DivergedError at the first loss or gradient that is not finite, with the weights as they were before
        that step. Raises UsageError as `TrainingPlan.steps` does.
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
        self.epoch, self.steps_done, self._history = self.epoch + 1, 0, []

    def state(self) -> TrainingState:
        """Everything that the rest of the run depends on. Raises DivergedError if any of it is not finite."""
        self._require_finite_weights()
        if self._history:
            self.figures()
        history = self._columns()
        plain = PlainState(
            groups=self.optimizer.state_dict()["param_groups"],
            scaler=self.scaler.state_dict(),
            scheduler=None if self.scheduler is None else self.scheduler.state_dict(),
            history=list(history),
        )
        tensors = optimizer_tensors(self.optimizer)
        return TrainingState(self.epoch, self.steps_done, self.objective.weights(), tensors, history, plain)

    def bytes_of_state(self) -> int:
        """Approximate size of a saved state: the weights, and Adam's two moments of those that train."""
        tensors = [*self.objective.weights().values(), *self._parameters, *self._parameters]
        return sum(int(tensor.nbytes) for tensor in tensors)

    def restore(self, state: TrainingState) -> None:
        """Continue from `state`."""
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

    def _batches(self) -> Iterator[Batch]:
        triplets, plan, epoch = self.objective.triplets, self.plan, self.epoch
        order = torch.randperm(len(triplets), generator=derive_generator(plan.seed, "order", epoch))
        captions = triplets.draw_captions(plan.seed, epoch)

        def prepare(rows: Tensor) -> Batch:
            return self.objective.prepare(rows, captions[rows], epoch)

        rows = order.split(plan.batch_size)[self.steps_done : plan.steps(len(triplets))]
        return threaded_map(prepare, rows, workers=1, ahead=BATCHES_AHEAD)

    def _step(self, batch: Batch) -> None:
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
        """Update the weights unless the loss or a gradient is not finite. The device decides, without a sync.

        After a broken step, none of the epoch's later steps changes anything. A step that the gradient scaler skips
        is not broken; it is counted.
        """
        self.updating = True
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        if not self.scaler.is_enabled():
            self._broken = torch.maximum(self._broken, (~(total + norm).isfinite()).float())
            self.optimizer.found_inf = self._broken  # type: ignore[attr-defined]  # as GradScaler does
            self.optimizer.step()
            return {"gradient_norm": norm}
        self.scaler.step(self.optimizer)
        self.scaler.update()
        skipped = (~norm.isfinite()).float()
        return {"skipped_steps": skipped, "gradient_norm": torch.where(norm.isfinite(), norm, 0.0)}

    def figures(self) -> dict[str, float]:
        """Means over the epoch's steps so far (the sum for skipped steps), in one transfer from the device.

        Raises DivergedError at the first value that is not finite.
        """
        columns = {name: values.double().cpu() for name, values in self._columns().items()}
        broken = {name: (~values.isfinite()).nonzero() for name, values in columns.items()}
        if first := [(int(rows[0]), name) for name, rows in broken.items() if len(rows)]:
            step, name = min(first)
            what = "the gradient is" if name == "gradient_norm" else f"the loss is ({name})"
            where = f"epoch {self.epoch}, step {step + 1}"
            raise DivergedError(f"{what} not finite: {float(columns[name][step])}", where=where, remedy=REMEDY)
        return {
            name: float(values.sum() if name == "skipped_steps" else values.mean()) for name, values in columns.items()
        }

    def _columns(self) -> dict[str, Tensor]:
        """The figures of the epoch's steps by name (steps_done,)."""
        return {name: torch.stack([step[name] for step in self._history]) for name in next(iter(self._history), ())}

    def learned_scalars(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.objective.logging().items()}

    def _require_finite_weights(self) -> None:
        """Check the weights themselves: a loss is computed before its update, so the last update has none."""
        if not bool(torch.stack([weight.detach().isfinite().all() for weight in self._parameters]).all()):
            raise DivergedError("the weights are not finite", where=f"epoch {self.epoch}", remedy=REMEDY)


def fit(trainer: Trainer, run: Run, validate: Callable[[], Figures], progress: Progress) -> float:
    """Train to the plan's last epoch, write logs and checkpoints to `run`, and return the seconds it took.

    Validates every `plan.validate_every` epochs and after the last. Raises DivergedError at the first loss, gradient
    or score that is not finite, before anything of it is saved; UsageError if the batch is larger than the data set;
    and Interrupted on a signal. However it ends, the state after the last finished step is saved if possible. An error
    while saving it never hides the error that ended the run.
    """
    started, plan = time.monotonic(), trainer.plan
    steps = plan.steps(len(trainer.objective.triplets))
    try:
        with progress.training(plan.epochs, steps, (trainer.epoch - 1) * steps + trainer.steps_done) as display:
            monitor = _Monitor(trainer, run, display)
            while trainer.epoch <= plan.epochs:
                _run_epoch(trainer, run, validate, monitor)
    except Interrupted:
        with defer_signals():
            run.save(trainer.state())
        raise Interrupted(f"Resume with `{to_resume(run.settings.command)}`") from None
    except DivergedError:
        raise  # resume from the last saved state, which is finite
    except BaseException:
        with suppress(BaseException), defer_signals():  # report the first error
            if not trainer.updating:
                run.save(trainer.state())
        raise
    return time.monotonic() - started


def _run_epoch(trainer: Trainer, run: Run, validate: Callable[[], Figures], monitor: "_Monitor") -> None:
    """Train, validate if due, log, and save what is due."""
    epoch, plan = trainer.epoch, trainer.plan
    monitor.begin_epoch()
    figures = trainer.run_epoch(monitor.after_step)
    learned = trainer.learned_scalars()
    seconds = monitor.seconds
    due = epoch % plan.validate_every == 0 or epoch == plan.epochs
    metrics = _validated(validate, epoch) if due else None
    with defer_signals():
        run.record(epoch, figures | learned, metrics, trainer.objective.weights, seconds)
        try:
            monitor.show(figures, learned, seconds)
        finally:
            trainer.next_epoch()  # the epoch is logged, even if the display fails
        run.save_if_due(trainer.state, epoch)


def _validated(validate: Callable[[], Figures], epoch: int) -> Figures:
    try:
        return validate()
    except NotFiniteError as error:
        raise DivergedError(error.what, where=f"validation of epoch {epoch}", remedy=REMEDY) from error


class _Monitor:
    """Saves the state when due and updates the display: its position every step, its figures every few seconds."""

    def __init__(self, trainer: Trainer, run: Run, display: TrainingDisplay) -> None:
        self._trainer, self._run, self._display = trainer, run, display
        self._shown = time.monotonic()
        self._display.show(TrainingStatus(best=self._best()))

    def begin_epoch(self) -> None:
        """Start the clock of an epoch, which a resumed run enters after its first steps."""
        self._began, self._first_step = time.monotonic(), self._trainer.steps_done

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def after_step(self) -> None:
        """Save the state if due, and advance the display."""
        trainer = self._trainer
        self._run.save_if_due(trainer.state)
        self._display.move(trainer.epoch, trainer.steps_done)
        if time.monotonic() - self._shown > SECONDS_BETWEEN_FIGURES:
            self.show(trainer.figures(), trainer.learned_scalars(), self.seconds)

    def show(self, figures: Figures, learned: Figures, seconds: float) -> None:
        """Show the epoch's means so far; its steps in this process took `seconds`."""
        steps = self._trainer.steps_done - self._first_step
        rate = self._trainer.plan.batch_size * steps / seconds if seconds else None
        self._display.show(TrainingStatus(figures["loss"], terms_of(figures), learned, rate, self._best()))
        self._shown = time.monotonic()

    def _best(self) -> BestEpoch | None:
        metric, best = self._run.settings.metrics[0], self._run.best if self._run.bests else None
        return None if best is None else BestEpoch(metric, best.score, best.epoch)
