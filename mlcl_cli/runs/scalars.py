"""The figures of each epoch as curves in TensorBoard, Weights & Biases and MLflow: open, add, close."""

import contextlib
import hashlib
import importlib.util
import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import JsonValue

from mlcl_cli.errors import MachineError
from mlcl_cli.runs.differences import flattened

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient
    from torch.utils.tensorboard import SummaryWriter
    from wandb import Run as WandbRun

logger = logging.getLogger(__name__)

LoggerName = Literal["tensorboard", "wandb", "mlflow"]
PROJECT = "mlcl"
RUN_TAG = "mlcl.run"
# What MLflow takes: names of limited characters, values of limited length, so many parameters at once.
NOT_IN_NAMES = re.compile(r"[^\w./ -]")
VALUE_LENGTH, PARAMETERS_AT_ONCE = 500, 100


@dataclass(frozen=True, slots=True)
class LoggedRun:
    """The run that curves belong to: its folder, a key that stays the same when it is resumed, its settings."""

    folder: Path
    key: str
    settings: Mapping[str, JsonValue]

    @property
    def digest(self) -> str:
        """The key as 16 hexadecimal digits."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:16]


class ScalarLogger(Protocol):
    """Where curves go."""

    def open(self, run: LoggedRun, epoch: int) -> None:
        """Write from `epoch` on, with the run's settings; a resumed run continues its curves."""

    def add(self, epoch: int, scalars: Mapping[str, float]) -> None:
        """Add an epoch's values by name."""

    def close(self, *, finished: bool) -> None:
        """Write what is left; `finished` says whether the training is."""


class TensorBoard:
    """Event files in the run's folder; nothing if TensorBoard is not installed."""

    _writer: "SummaryWriter | None" = None

    def open(self, run: LoggedRun, epoch: int) -> None:
        """Open without the later scalars of an interrupted run."""
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(run.folder), purge_step=epoch, flush_secs=10)

    def add(self, epoch: int, scalars: Mapping[str, float]) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):  # a full disk is reported by the other logs
                for tag, value in scalars.items():
                    self._writer.add_scalar(tag, value, epoch)

    def close(self, *, finished: bool) -> None:  # noqa: ARG002
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()


class WeightsAndBiases:
    """A run of the project `mlcl`, or of $WANDB_PROJECT; $WANDB_MODE=offline writes to the run's folder alone."""

    _run: "WandbRun | None" = None

    def open(self, run: LoggedRun, epoch: int) -> None:  # noqa: ARG002  # steps that it has are not added again
        """Raises MachineError where Weights & Biases refuses, as without a login."""
        import wandb

        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                dir=run.folder,
                id=run.digest,
                name=run.folder.name,
                config=dict(run.settings),
                resume="allow",
                settings=wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True),
            )
        except (wandb.Error, OSError) as error:
            what = f"Weights & Biases cannot start ({_first_line(error)})"
            remedy = "Run `wandb login`, set WANDB_MODE=offline, or take wandb out of loggers"
            raise MachineError(what, remedy=remedy) from error

    def add(self, epoch: int, scalars: Mapping[str, float]) -> None:
        assert self._run is not None
        self._run.log(dict(scalars), step=epoch, commit=True)  # by default, with the next step

    def close(self, *, finished: bool) -> None:
        if self._run is not None:
            self._run.finish(exit_code=0 if finished else 1)


class MLflow:
    """A run of the experiment `mlcl`, or $MLFLOW_EXPERIMENT_NAME, on $MLFLOW_TRACKING_URI.

    Without a server, it is written to the folder `mlruns` of the workspace.
    """

    _client: "MlflowClient | None" = None
    _id = ""
    _last = 0  # epochs up to this one are there already

    def open(self, run: LoggedRun, epoch: int) -> None:  # noqa: ARG002  # epochs that it has are not added again
        """Raises MachineError where MLflow refuses, as without a connection to the server."""
        # MLflow 3 opens a folder only if asked to; a database would need the whole of mlflow instead of mlflow-skinny.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        folder = run.folder.parents[1] / "mlruns"
        try:
            self._client = client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or folder.as_uri())
            self._id = _mlflow_run(client, run)
            history = client.get_metric_history(self._id, "train/loss")
            self._last = max((metric.step for metric in history), default=0)
        except (MlflowException, OSError) as error:
            self._client = None
            remedy = "Check MLFLOW_TRACKING_URI, or take mlflow out of loggers"
            raise MachineError(f"MLflow cannot start ({_first_line(error)})", remedy=remedy) from error

    def add(self, epoch: int, scalars: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        if self._client is not None and epoch > self._last:
            now = time.time_ns() // 1_000_000
            metrics = [Metric(NOT_IN_NAMES.sub("_", name), value, now, epoch) for name, value in scalars.items()]
            self._client.log_batch(self._id, metrics=metrics)

    def close(self, *, finished: bool) -> None:
        if self._client is not None:
            self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")


LOGGERS: Mapping[LoggerName, type[ScalarLogger]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


class Scalars:
    """The figures of each epoch for several loggers, from `open` on.

    A logger that fails later does not stop the training: a warning says so, and it gets nothing more.
    """

    def __init__(self, names: Sequence[LoggerName]) -> None:
        self._closed = {name: LOGGERS[name]() for name in names}
        self._open: dict[LoggerName, ScalarLogger] = {}

    def open(self, run: LoggedRun, epoch: int) -> None:
        """Open them all. Raises MachineError as theirs do."""
        for name, scalar_logger in self._closed.items():
            scalar_logger.open(run, epoch)
            self._open[name] = scalar_logger

    def add(self, epoch: int, figures: Mapping[str, float], metrics: Mapping[str, float], seconds: float) -> None:
        """Add `train/…`, `val/…` and `time/epoch_seconds` of an epoch."""
        scalars = {f"train/{name}": value for name, value in figures.items()}
        scalars |= {f"val/{name}": value for name, value in metrics.items()} | {"time/epoch_seconds": seconds}
        for name, scalar_logger in [*self._open.items()]:
            try:
                scalar_logger.add(epoch, scalars)
            except Exception as error:  # whatever a library or its server does, the run goes on
                del self._open[name]
                logger.warning(f"{name} failed and gets no more figures of this run ({_first_line(error)})")

    def close(self, *, finished: bool) -> None:
        for name, scalar_logger in self._open.items():
            try:
                scalar_logger.close(finished=finished)
            except Exception as error:
                logger.warning(f"{name} may lack the last figures of this run ({_first_line(error)})")
        self._open.clear()


def require_installed(names: Sequence[LoggerName]) -> None:
    """Raise MachineError if one of the loggers is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            remedy = f"Run `pip install '.[{name}]'`, or take {name} out of loggers"
            raise MachineError(f"{name} is not installed", where="loggers", remedy=remedy)


def _mlflow_run(client: "MlflowClient", run: LoggedRun) -> str:
    """The id of the run that has these curves, or of a new one with the settings as parameters."""
    from mlflow.entities import Param

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    experiment = client.get_experiment_by_name(name)
    experiment_id = client.create_experiment(name) if experiment is None else experiment.experiment_id
    found = client.search_runs([experiment_id], f"tags.`{RUN_TAG}` = '{run.digest}'")
    if found:
        client.update_run(found[0].info.run_id, "RUNNING")
        return str(found[0].info.run_id)
    created = client.create_run(experiment_id, run_name=run.folder.name, tags={RUN_TAG: run.digest}).info.run_id
    settings = flattened(run.settings)
    parameters = [Param(NOT_IN_NAMES.sub("_", key), str(value)[:VALUE_LENGTH]) for key, value in settings.items()]
    for start in range(0, len(parameters), PARAMETERS_AT_ONCE):
        client.log_batch(created, params=parameters[start : start + PARAMETERS_AT_ONCE])
    return str(created)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
