"""Ctrl-C, SIGTERM and SIGHUP end a command at a safe place, with exit code 75."""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 75  # sysexits.h: a temporary failure, try again
HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
SIGNALS = tuple(number for number in (signal.SIGINT, signal.SIGTERM, HANGUP) if number is not None)


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
    if _Signals.first is None:
        return None
    return "Ctrl-C" if _Signals.first == signal.SIGINT else signal.Signals(_Signals.first).name


@contextmanager
def interruptible() -> Iterator[None]:
    """Turns the first Ctrl-C, SIGTERM or SIGHUP into Interrupted; a second Ctrl-C or SIGTERM exits at once.

    A SIGHUP that is ignored when the process starts, as under nohup, stays ignored. Inside `defer_signals`
    the exception waits for its end. Elsewhere than in the main thread signals are left alone.
    """
    if _Signals.installed or threading.current_thread() is not threading.main_thread():
        yield
        return
    heeded = [n for n in SIGNALS if n != HANGUP or signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _handle) for number in heeded}
    _Signals.first, _Signals.depth, _Signals.installed = None, 0, True
    try:
        yield
    finally:
        _Signals.installed = False
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def defer_signals() -> Iterator[None]:
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
    first = _Signals.first
    if first is not None and number == HANGUP:
        return  # a closed terminal sends it more than once: from the kernel, from the shell
    if first is not None and first != HANGUP:
        os._exit(EXIT_CODE)  # files are whole at any moment: each is renamed into its place
    _Signals.first = number
    if first is None and _Signals.depth == 0:
        raise Interrupted
