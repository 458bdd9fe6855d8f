"""Errors that a user or the machine can cause: each says in one line what is wrong, where, and what to do."""

import errno
from collections.abc import Sequence

OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "Cannot allocate memory", "std::bad_alloc")
# What to do about an error of the operating system.
REMEDIES = {
    errno.EACCES: "Ask its owner for permission, or choose another path",
    errno.EPERM: "Ask its owner for permission, or choose another path",
    errno.EROFS: "Choose a path on a writable disk",
    errno.ENOSPC: "Free up space on that disk",
    errno.EDQUOT: "Free up space in your quota",
    errno.EIO: "Check the disk or the network drive",
    errno.ESTALE: "Check the network drive, and run the command again",
    errno.EMFILE: "Raise the limit on open files (ulimit -n), or lower workers",
}


class MlclError(Exception):
    """Base of every error that is not a bug: what is wrong, the file, line, key or image, and what to do."""

    exit_code = 1

    def __init__(self, what: str, *, where: object = None, remedy: str | None = None) -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(str(self))
        self.lines: Sequence[str] = [str(self)]  # one per problem; they may hold any character until they are printed

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where is not None else self.what
        return f"{text}{'' if text.endswith('?') else '.'} {self.remedy}" if self.remedy else text


class UsageError(MlclError):
    """The command line or the profile is wrong."""

    exit_code = 2


class SeveralUsageError(UsageError):
    """Several problems at once."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.lines = problems


class DataError(MlclError):
    """A data set, an image, a checkpoint or a feature bank is invalid."""

    exit_code = 3


class NotFiniteError(DataError):
    """Features or scores hold NaN or infinity; they are refused, never ranked."""


class MachineError(MlclError):
    """The machine lacks what the command needs: a device, memory, disk space, permission."""

    exit_code = 4


class StuckError(MachineError):
    """Reading a file timed out; the thread that reads it will not end by itself."""


class DivergedError(MlclError):
    """Training produced numbers that are not finite."""

    exit_code = 5


def some(items: Sequence[object], shown: int = 5) -> str:
    """The first few of `items` in words: "a, b, c and 12 more"."""
    text = ", ".join(str(item) for item in items[:shown])
    return f"{text} and {len(items) - shown:,} more" if len(items) > shown else text


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the device or the machine has no memory left."""
    if isinstance(error, RuntimeError):
        # torch's own class is not imported: commands that need no torch start without it.
        return type(error).__name__ == "OutOfMemoryError" or any(text in str(error) for text in OUT_OF_MEMORY)
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
