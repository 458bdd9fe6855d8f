"""Standard streams that cannot fail a command, and text that cannot steer the terminal."""

import io
import os
import re
import sys
from collections.abc import Callable

# C0, DEL, C1, line and paragraph separators, bidirectional controls, lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    r"""`text` on one line, with each character that could steer a terminal escaped: `\x1b`, `\n`, `\u202e`."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))


def printable_json(text: str) -> str:
    r"""JSON with each such character inside its strings as `\uXXXX`, which reads back as the same value."""
    return _UNSAFE.sub(lambda match: "\n" if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text)


def write_error(text: str, *, below: bool = False) -> None:
    """Write one escaped line to stderr; `below` first ends a line that has begun, such as the terminal's `^C`."""
    sys.stderr.write(("\n" if below else "") + f"{printable(text)}\n")
    sys.stderr.flush()


class _TolerantFile(io.FileIO):
    """A stream whose writes always succeed. The first failure is kept in `error`; later output is dropped."""

    error: OSError | None = None

    def write(self, data: "io.ReadableBuffer", /) -> int:  # type: ignore[name-defined]
        if self.error is None:
            try:
                return super().write(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes


def prepare() -> Callable[[], int]:
    """Replace the standard streams with tolerant ones, which escape what the locale cannot encode.

    A closed descriptor is opened on the null device, so that no other file gets its number. The function that it
    returns, called at the end of the process, flushes standard output and gives the exit code, or reports the failure.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    if os.environ.get("COLUMNS") == "0":  # set in some containers without a terminal; tables would be empty
        del os.environ["COLUMNS"]
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    output = _TolerantFile(1, "w", closefd=False)
    sys.stdout = _text_stream(output, sys.stdout)
    sys.stderr = _text_stream(_TolerantFile(2, "w", closefd=False), sys.stderr)

    def finish() -> int:
        sys.stdout.flush()
        if output.error is None:
            return 0
        if isinstance(output.error, BrokenPipeError):
            return 141  # what a shell shows for a program that SIGPIPE ended
        write_error(f"error: standard output: cannot be written ({output.error.strerror})")
        return 4  # as MachineError, which is imported only after signals are handled

    return finish


def _text_stream(raw: _TolerantFile, before: object) -> io.TextIOWrapper:
    by_line = raw.fileno() == 2 or raw.isatty() or getattr(before, "write_through", False)
    encoding = getattr(before, "encoding", None) or "utf-8"
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=by_line)
