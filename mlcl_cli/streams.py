"""Standard streams that cannot fail a command: closed, abandoned, on a full disk, or in an ASCII locale."""

import io
import os
import sys
from collections.abc import Callable

READER_GONE = 141  # what a shell shows for a program that SIGPIPE ended
CANNOT_WRITE = 4  # MachineError's, which is not imported before signals are handled


class _Tolerant(io.FileIO):
    """A stream whose writes always succeed. What fails first is kept in `error`; the rest goes nowhere."""

    error: OSError | None = None

    def write(self, data: "io.ReadableBuffer", /) -> int:  # type: ignore[name-defined]
        """The number of bytes written, or dropped."""
        if self.error is None:
            try:
                return super().write(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes


def prepare() -> Callable[[], int]:
    """Replaces the standard streams by tolerant ones and returns what to call at the end of the process.

    A closed descriptor is opened on the null device, so that no file of ours takes its number. A character that the
    locale's encoding lacks is written as a backslash escape. What is returned flushes standard output and gives an exit
    code: 0, READER_GONE where its reader left, or CANNOT_WRITE, after a line on standard error. A standard error that
    fails is ignored.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    if os.environ.get("COLUMNS") == "0":  # what a container without a terminal may say; tables would be empty
        del os.environ["COLUMNS"]
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    output = _Tolerant(1, "w", closefd=False)
    sys.stdout = _text(output, sys.stdout)
    sys.stderr = _text(_Tolerant(2, "w", closefd=False), sys.stderr)

    def finish() -> int:
        sys.stdout.flush()
        if output.error is None:
            return 0
        if isinstance(output.error, BrokenPipeError):
            return READER_GONE
        sys.stderr.write(f"error: standard output: cannot be written ({output.error.strerror})\n")
        return CANNOT_WRITE

    return finish


def _text(raw: _Tolerant, before: object) -> io.TextIOWrapper:
    lines = raw.fileno() == 2 or raw.isatty() or getattr(before, "write_through", False)
    encoding = getattr(before, "encoding", None) or "utf-8"
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=lines)
