"""What stands between a command and its user: every error becomes one line and an exit code."""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import typer

from mlcl_cli.errors import MachineError, MlclError, StuckError
from mlcl_cli.interrupts import EXIT_CODE, Interrupted, interruptible
from mlcl_cli.streams import write_error


def guarded(function: Callable[..., None]) -> Callable[..., None]:
    """`function`, with one line on stderr and typer.Exit for whatever the user can cause; `debug=True` raises it."""

    @functools.wraps(function)
    def _run(*args: Any, debug: bool = False, **options: Any) -> None:
        try:
            with interruptible():
                function(*args, debug=debug, **options)
        except Interrupted as stopped:
            write_error(str(stopped), below=True)
            raise typer.Exit(EXIT_CODE) from stopped
        except MlclError as error:
            if debug:
                raise
            _fail(error)
        except MemoryError as error:  # torch's error for a full GPU is no subclass of it
            if debug:
                raise
            _fail(MachineError("out of memory", remedy=LESS_MEMORY), error)
        except RuntimeError as error:
            if debug or not _is_out_of_memory(error):
                raise
            _fail(MachineError(_told_of_memory(error), remedy=LESS_MEMORY), error)

    return _run


LESS_MEMORY = "Lower batch_size; in fine-tuning, set finetune.chunk_size, which keeps the batch as it is"


def open_profile(path: Path | None, overrides: list[str] | None, *, quiet: bool = False) -> tuple[Any, Any]:
    """The profile that a command reads, and the terminal that it talks to; says which and why."""
    from mlcl_cli.live import Terminal
    from mlcl_cli.profile import find_profile, load_profile

    found, why = find_profile(path, os.environ, Path.cwd())
    profile = load_profile(found, overrides or [])
    terminal = Terminal(quiet=quiet)
    terminal.note(f"Profile: {found} ({why})")
    return profile, terminal


def one_line(kind: type[BaseException], error: BaseException, _trace: object) -> None:
    """An excepthook for what is left: our bugs."""
    if issubclass(kind, KeyboardInterrupt):
        write_error("interrupted", below=True)
    else:
        write_error(f"error: {kind.__name__}: {error}. This is a bug of mlcl; --debug shows where")


def _is_out_of_memory(error: RuntimeError) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or "not enough memory" in str(error)


def _told_of_memory(error: RuntimeError) -> str:
    """torch's own first sentence; on a GPU with the peak so far."""
    text = str(error).split(". ")[0]
    torch = sys.modules["torch"]
    if not torch.cuda.is_available():
        return text
    return f"{text}; the peak was {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"


def _fail(error: MlclError, cause: BaseException | None = None) -> NoReturn:
    from mlcl_cli.console import show_error

    show_error(error)
    if isinstance(error, StuckError):  # Python would wait for the stuck thread
        sys.stdout.flush()
        os._exit(error.exit_code)
    raise typer.Exit(error.exit_code) from cause
