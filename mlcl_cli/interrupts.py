"""Ctrl-C and SIGTERM end a command at a safe place, with exit code 75."""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 75  # sysexits.h: a temporary failure, try again
SIGNALS = (signal.SIGINT, signal.SIGTERM)
NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Interrupted(KeyboardInterrupt):
    """A command was told to stop. `remedy` says how to go on. No `except Exception` on the way swallows it."""

    def __init__(self, remedy: str = "Run the command again: what was done is kept") -> None:
        self.remedy = remedy
        super().__init__(f"stopped by {received() or 'Ctrl-C'}. {remedy}")


def to_resume(command: str) -> str:
    """The command line that goes on: this process's own, with its options, where it is the one of `command`."""
    own = sys.argv[1:]
    if own[:1] != command.split()[:1]:  # a command inside another, such as the demo
        return f"mlcl {command} --resume"
    return shlex.join(["mlcl", *own, *(["--resume"] if "--resume" not in own else [])])


class _Signals:
    """What this process was told so far; signals belong to the process, and so does this."""

    first: int | None = None
    depth = 0
    installed = False


def received() -> str | None:
    """The name of the signal that came, if one did."""
    return None if _Signals.first is None else NAMES[signal.Signals(_Signals.first)]


@contextmanager
def interruptible() -> Iterator[None]:
    """Turns the first Ctrl-C or SIGTERM into Interrupted; a second ends the process at once.

    Inside `unbroken` the exception waits for its end. Elsewhere than in the main thread signals are left alone.
    """
    if _Signals.installed or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _handle) for number in SIGNALS}
    _Signals.first, _Signals.depth, _Signals.installed = None, 0, True
    try:
        yield
    finally:
        _Signals.installed = False
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def unbroken() -> Iterator[None]:
    """What is begun in here is finished: a signal that comes meanwhile takes effect at the end."""
    before = _Signals.first
    _Signals.depth += 1
    try:
        yield
    finally:
        _Signals.depth -= 1
    if _Signals.depth == 0 and before is None and _Signals.first is not None:
        raise Interrupted


def _handle(number: int, _frame: FrameType | None) -> None:
    if _Signals.first is not None:
        os._exit(EXIT_CODE)  # files are whole at any moment: each is renamed into its place
    _Signals.first = number
    if _Signals.depth == 0:
        raise Interrupted
