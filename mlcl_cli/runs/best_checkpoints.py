"""The checkpoints that a run keeps: the best epoch by each metric, and every Nth epoch."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from mlcl_cli.runs.checkpoints import SUFFIX, save_checkpoint
from mlcl_cli.runs.description import Kind
from mlcl_cli.runs.summary import BestCheckpoint, RunDescription

Weights = Callable[[], Mapping[str, Tensor]]


class BestCheckpoints:
    """The best epoch so far by each of `metrics`, the deciding one first.

    New best weights wait in memory until `save`, so that an epoch of milliseconds does not wait for the disk.
    """

    def __init__(self, folder: Path, kind: Kind, metrics: Sequence[str], description: RunDescription) -> None:
        self.bests: dict[str, BestCheckpoint] = {}
        self._folder, self._kind, self._metrics, self._description = folder, kind, metrics, description
        self._unsaved: dict[str, Mapping[str, Tensor]] = {}

    def update(self, epoch: int, metrics: Mapping[str, float], weights: Weights) -> None:
        """Keep an epoch's weights for each metric by which it is the best."""
        better = [name for name in self._metrics if self._is_better(name, metrics[name])]
        state = {name: tensor.clone() for name, tensor in weights().items()} if better else {}
        for name in better:
            file = f"best{SUFFIX}" if name == self._metrics[0] else f"best-{name}{SUFFIX}"
            self.bests[name] = BestCheckpoint(epoch=epoch, score=metrics[name], checkpoint=file, metrics=dict(metrics))
            self._unsaved[name] = state

    def save(self) -> None:
        """Write the best weights that wait in memory."""
        for name, state in self._unsaved.items():
            best = self.bests[name]
            save_checkpoint(
                self._folder / best.checkpoint,
                self._kind,
                state,
                self._description,
                epoch=best.epoch,
                selected_by=name,
                score=best.score,
                metrics=best.metrics,
            )
        self._unsaved.clear()

    def keep_epoch(self, epoch: int, metrics: Mapping[str, float] | None, weights: Weights) -> None:
        """Write an epoch's weights to a file that is never replaced."""
        path = self._folder / f"epoch-{epoch:04}{SUFFIX}"
        save_checkpoint(path, self._kind, weights(), self._description, epoch=epoch, metrics=metrics)

    def _is_better(self, name: str, score: float) -> bool:
        return name not in self.bests or score > self.bests[name].score
