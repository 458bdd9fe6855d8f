"""What reaches a terminal: text without control characters, and a standard error that may be gone."""

import contextlib
import os
import re
import sys
from typing import TextIO

# C0, DEL, C1, line and paragraph separators, bidirectional controls, lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    r"""`text` on one line, with each character that could steer a terminal escaped: `\x1b`, `\n`, `\u202e`."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def printable_json(text: str) -> str:
    r"""JSON with each such character inside its strings as `\uXXXX`, which reads back as the same value."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def open_standard_streams() -> None:
    """Opens what the parent closed of descriptors 0 to 2, so that no file of ours is ever opened as one of them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115


class StandardError:
    """sys.stderr for rich and for raw messages. After the first failed write (EPIPE, EIO) it stays silent."""

    def __init__(self) -> None:
        self._stream: TextIO = getattr(sys.stderr, "rich_proxied_file", sys.stderr)

    def write(self, text: str) -> int:
        """Writes `text`, or drops it where nobody can read it any more. Returns the number of characters."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):  # the latter where the stream was closed in this process
            _silence(self._stream)
            return len(text)

    def flush(self) -> None:
        """Flushes the stream, if it still can."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            _silence(self._stream)

    def isatty(self) -> bool:
        """Whether a terminal is at the other end."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The stream's descriptor."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:
        """The stream's encoding."""
        return self._stream.encoding


def write_error(text: str, *, below: bool = False) -> None:
    """One line on stderr, escaped; `below` leaves a line that was begun, such as the terminal's `^C`."""
    stream = StandardError()
    stream.write(("\n" if below else "") + f"{printable(text)}\n")
    stream.flush()


def _silence(stream: TextIO) -> None:
    """Points the stream's descriptor at the null device: Python's own flush at exit would fail with code 120."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
