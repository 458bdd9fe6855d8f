"""Ctrl-C, SIGTERM and SIGHUP stop a command at a safe point, with exit code 75."""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 75  # sysexits.h: a temporary failure, try again
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal stopped the command; `remedy` says how to continue. No `except Exception` swallows it."""

    def __init__(self, remedy: str = "Run the command again; finished work is kept") -> None:
        super().__init__(f"stopped by {received() or 'Ctrl-C'}. {remedy}")


def to_resume(command: str) -> str:
    """The command line that resumes `command`: this process's own with --resume, unless it runs another command."""
    arguments = sys.argv[1:]
    if arguments[:1] != command.split()[:1]:  # the demo, for example, trains
        return f"mlcl {command} --resume"
    return shlex.join(["mlcl", *arguments, *(["--resume"] if "--resume" not in arguments else [])])


class _State:
    first_signal: int | None = None
    deferrals = 0


def received() -> str | None:
    """The name of the first signal, if there was one."""
    if _State.first_signal is None:
        return None
    return "Ctrl-C" if _State.first_signal == signal.SIGINT else signal.Signals(_State.first_signal).name


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into Interrupted; a second Ctrl-C or SIGTERM exits at once.

    Signals stay as they are outside the main thread, as does a SIGHUP that is ignored already, as under nohup.
    """
    if signal.getsignal(signal.SIGINT) is _handle or threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, _handle) for number in handled}
    _State.first_signal, _State.deferrals = None, 0
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def defer_signals() -> Iterator[None]:
    """Finish what is inside before a signal that arrives meanwhile takes effect."""
    before = _State.first_signal
    _State.deferrals += 1
    try:
        yield
    finally:
        _State.deferrals -= 1
    if _State.deferrals == 0 and before is None and _State.first_signal is not None:
        raise Interrupted


def _handle(number: int, _frame: FrameType | None) -> None:
    first = _State.first_signal
    if first is not None and number == signal.SIGHUP:
        return  # a closed terminal sends several: from the kernel, from the shell
    if first is not None and first != signal.SIGHUP:
        os._exit(EXIT_CODE)  # files are whole at any moment: each is renamed into place
    _State.first_signal = number
    if first is None and _State.deferrals == 0:
        raise Interrupted
