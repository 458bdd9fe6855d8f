"""Commands in forked copies of a process that has imported everything already, for tests that cut many of them."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def start(folder: Path, command: tuple[str, ...]) -> int:
    """Runs `mlcl COMMAND` in `folder` in a process of its own, which leads its own group."""
    from mlcl_cli.__main__ import main
    from mlcl_cli.signals import Interrupted, interruptible

    # No signal may meet a process that is half forked: it waits until ours are heeded, as they are from the start.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS[1:])
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS[1:])
        return child
    try:
        os.setsid()
        os.chdir(folder)
        log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv = ["mlcl", *command]
        with interruptible():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS[1:])
            main()
    except Interrupted:
        os._exit(75)
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 0 if end.code is None else 1)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(99)
    os._exit(0)


def finished(child: int) -> int | None:
    """The exit code, negative for a signal; None while it runs."""
    done, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_child(function: Callable[[], None]) -> None:
    """Call `function` in a forked process, whose threads then do not hinder later forks. Raises if it failed."""
    child = os.fork()
    if child:
        assert wait(child) == 0, "the child process failed"
        return
    try:
        function()
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
