"""How the engine tells what it does, without knowing who listens."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol


class Advance(Protocol):
    """Moves a progress bar on."""

    def __call__(self, count: int, status: str = "") -> None:
        """`count` more are done; `status` says how things stand."""


@dataclass(frozen=True, slots=True)
class TrainingStatus:
    """How a training run stands: the means over an epoch's steps so far, and the best epoch.

    `terms` are the summands of `loss`, `parameters` what the network has learned (temperatures, the level weight),
    `rate` is in triplets a second; `best` is a metric, its score and its epoch.
    """

    loss: float | None = None
    terms: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, float] = field(default_factory=dict)
    rate: float | None = None
    best: tuple[str, float, int] | None = None


class TrainingDisplay(Protocol):
    """Shows a run that is under way."""

    def move(self, epoch: int, step: int) -> None:
        """`step` steps of `epoch` (1-based) are done. Called after every step: cheap."""

    def show(self, status: TrainingStatus) -> None:
        """How the run stands now."""


class Reporter(Protocol):
    """The terminal, a log or nobody; `live.Terminal` is the one people see."""

    def note(self, text: str) -> None:
        """Says what was chosen or done."""

    def warn(self, text: str) -> None:
        """Says what may surprise."""

    def choice(self, text: str) -> None:
        """Says what a command chose for the user and why. Shown even where notes are not: the result depends on it."""

    def bar(self, label: str, total: int) -> AbstractContextManager[Advance]:
        """A progress bar over `total` items; what it gives moves it on."""

    def training(self, epochs: int, steps: int, done: int) -> AbstractContextManager[TrainingDisplay]:
        """A display of `epochs` of `steps` each, of which `done` steps were done before."""


class Silent:
    """Tells nobody."""

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def choice(self, text: str) -> None: ...

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Advance]:  # noqa: ARG002
        yield _nothing

    @contextmanager
    def training(self, epochs: int, steps: int, done: int) -> Iterator[TrainingDisplay]:  # noqa: ARG002
        yield _Unseen()


class WithoutNotes:
    """Hands warnings and progress on to another reporter, and keeps the notes back."""

    def __init__(self, reporter: Reporter) -> None:
        self.warn, self.bar, self.training = reporter.warn, reporter.bar, reporter.training
        self.choice = reporter.choice

    def note(self, text: str) -> None: ...


class _Unseen:
    def move(self, epoch: int, step: int) -> None: ...

    def show(self, status: TrainingStatus) -> None: ...


def _nothing(count: int, status: str = "") -> None: ...
