"""The boundary between a command and its user: every error becomes one line and an exit code."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from mlcl_cli.errors import REMEDIES, MachineError, MlclError, StuckError, UsageError, is_out_of_memory
from mlcl_cli.formatting import size
from mlcl_cli.signals import EXIT_CODE, Interrupted, interruptible
from mlcl_cli.streams import write_error

LESS_MEMORY = "Lower batch_size; in fine-tuning, set finetune.chunk_size, which leaves the batch size unchanged"


@contextmanager
def error_boundary(*, debug: bool) -> Iterator[None]:
    """Turn whatever the user or the machine can cause into one line on stderr and typer.Exit; `debug` raises it."""
    try:
        with interruptible():
            _require_working_folder()
            yield
    except Interrupted as stopped:
        write_error(str(stopped), below=True)
        raise typer.Exit(EXIT_CODE) from stopped
    except Exception as error:
        known = None if debug else _known(error)
        if known is None:
            raise
        from mlcl_cli.cli.render import show_error

        show_error(known)
        if isinstance(known, StuckError):  # Python would wait for the stuck thread
            sys.stdout.flush()
            os._exit(known.exit_code)
        raise typer.Exit(known.exit_code) from error


def print_bug(kind: type[BaseException], error: BaseException, _trace: object) -> None:
    """An excepthook for what the boundary lets pass: bugs in mlcl."""
    if issubclass(kind, KeyboardInterrupt):
        write_error("interrupted", below=True)
    else:
        write_error(f"error: {kind.__name__}: {error}. This is a bug in mlcl; --debug shows where")


def _require_working_folder() -> None:
    """Without one, torch's libraries end the process when they are loaded."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise UsageError("the current folder was deleted", remedy="Change to a folder that exists") from error


def _known(error: Exception) -> MlclError | None:
    """`error` as the user's or the machine's fault; None for a bug in mlcl."""
    if isinstance(error, MlclError):
        return error
    if is_out_of_memory(error):
        return MachineError(_memory_message(error), remedy=LESS_MEMORY)
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        remedy = "Lower workers, or raise the limit on processes (ulimit -u)"
        return MachineError("cannot start another thread", remedy=remedy)
    if isinstance(error, UnicodeEncodeError) and error.encoding != "utf-8":  # a file name, in a locale without it
        what = f"{error.object!r} cannot be written in this locale's encoding, {error.encoding}"
        return MachineError(what, remedy="Set PYTHONUTF8=1, or a UTF-8 locale such as LANG=C.UTF-8")
    if isinstance(error, OSError):
        what = error.strerror or str(error) or type(error).__name__
        return MachineError(what, where=error.filename, remedy=REMEDIES.get(error.errno or 0))
    return None


def _memory_message(error: Exception) -> str:
    """torch's first sentence, without its place in the source; on a GPU with the peak so far."""
    if not isinstance(error, RuntimeError):
        return "out of memory"
    text = str(error).split("DefaultCPUAllocator: ")[-1].split(". ")[0]
    torch = sys.modules["torch"]
    if not torch.cuda.is_available():
        return text if "memory" in text else "out of memory"
    return f"{text}; the peak was {size(torch.cuda.max_memory_allocated())}"
