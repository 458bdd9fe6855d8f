"""How the engine tells what it does, without knowing who listens."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Advance(Protocol):
    """Moves a progress bar on."""

    def __call__(self, count: int, status: str = "") -> None:
        """`count` more are done; `status` says how things stand."""


class Reporter(Protocol):
    """The terminal, a log or nobody; `console.Terminal` is the one people see."""

    def note(self, text: str) -> None:
        """Says what was chosen or done."""

    def warn(self, text: str) -> None:
        """Says what may surprise."""

    def bar(self, label: str, total: int) -> AbstractContextManager[Advance]:
        """A progress bar over `total` items; what it gives moves it on."""


class Silent:
    """Tells nobody."""

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Advance]:  # noqa: ARG002
        yield _nothing


def _nothing(count: int, status: str = "") -> None: ...
