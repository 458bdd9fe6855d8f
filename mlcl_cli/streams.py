"""Standard streams that cannot fail a command, and text that cannot steer the terminal at their other end."""

import io
import os
import re
import sys
from collections.abc import Callable

READER_GONE = 141  # what a shell shows for a program that SIGPIPE ended
CANNOT_WRITE = 4  # MachineError's, which is not imported before signals are handled

# C0, DEL, C1, line and paragraph separators, bidirectional controls, lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    r"""`text` on one line, with each character that could steer a terminal escaped: `\x1b`, `\n`, `\u202e`."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def printable_json(text: str) -> str:
    r"""JSON with each such character inside its strings as `\uXXXX`, which reads back as the same value."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def write_error(text: str, *, below: bool = False) -> None:
    """One line on stderr, escaped; `below` leaves a line that was begun, such as the terminal's `^C`."""
    sys.stderr.write(("\n" if below else "") + f"{printable(text)}\n")
    sys.stderr.flush()


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
