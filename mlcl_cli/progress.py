"""Progress of long work, for whoever displays it. Messages go through `logging`, under the name `mlcl_cli`."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

NOTICE = 25  # a log level between INFO and WARNING: what a command chose for its user, who sees it even with --quiet
logging.addLevelName(NOTICE, "NOTICE")


class Advance(Protocol):
    """Advances a progress bar."""

    def __call__(self, count: int, status: str = "") -> None:
        """`count` more items are done; `status` is shown behind the bar."""


@dataclass(frozen=True, slots=True)
class BestEpoch:
    """The best epoch so far by the metric that decides."""

    metric: str
    score: float
    epoch: int


@dataclass(frozen=True, slots=True)
class TrainingStatus:
    """The state of a training run: means over the epoch's steps so far, and the best epoch.

    `terms` are the summands of `loss`, `parameters` the learned scalars (temperatures, level weight), `rate` is in
    triplets per second.
    """

    loss: float | None = None
    terms: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, float] = field(default_factory=dict)
    rate: float | None = None
    best: BestEpoch | None = None


class TrainingDisplay(Protocol):
    """Displays a training run."""

    def move(self, epoch: int, step: int) -> None:
        """`step` steps of `epoch` (1-based) are done. Called after every step, so it must be cheap."""

    def show(self, status: TrainingStatus) -> None:
        """Display `status`."""


class Progress(Protocol):
    """Displays progress: on a terminal (`cli.terminal_progress`) or nowhere (`NoProgress`)."""

    def bar(self, label: str, total: int | None) -> AbstractContextManager[Advance]:
        """A progress bar over `total` items, None if that is not known."""

    def training(self, epochs: int, steps: int, done: int) -> AbstractContextManager[TrainingDisplay]:
        """A display of `epochs` epochs of `steps` steps each, `done` of which were done before."""


class NoProgress:
    """Displays nothing."""

    def bar(self, label: str, total: int | None) -> AbstractContextManager[Advance]:  # noqa: ARG002
        return nullcontext(_ignore)

    def training(self, epochs: int, steps: int, done: int) -> AbstractContextManager[TrainingDisplay]:  # noqa: ARG002
        return nullcontext(_NoDisplay())


def _ignore(count: int, status: str = "") -> None: ...


class _NoDisplay:
    def move(self, epoch: int, step: int) -> None: ...

    def show(self, status: TrainingStatus) -> None: ...


@contextmanager
def without_notes() -> Iterator[None]:
    """Drop messages below NOTICE in this block."""
    package = logging.getLogger("mlcl_cli")
    level = package.level
    package.setLevel(NOTICE)
    try:
        yield
    finally:
        package.setLevel(level)
