"""What goes wrong with a catalog in LanceDB, in one line that says what to do."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from mlcl_cli.errors import REMEDIES, MachineError

_NUMBER = re.compile(r"\(os error (\d+)\)")
_REMEDY = "Check the disk; if this is not the reason, index into another catalog"
_DELETE = "Delete it and run mlcl index again, which encodes nothing that is stored"
T = TypeVar("T")


@contextmanager
def reported(place: Path) -> Iterator[None]:
    """Turn an error of the database into a MachineError."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        number = _NUMBER.search(str(error))
        if number is not None:
            what, remedy = os.strerror(int(number[1])), REMEDIES.get(int(number[1]), _REMEDY)
        else:  # it may name lines of its source
            what, remedy = str(error).splitlines()[0].split(", /")[0], _REMEDY
        raise MachineError(f"LanceDB failed: {what}", where=place, remedy=remedy) from error


def read_json(path: Path, form: TypeAdapter[T]) -> T | None:
    """What a file beside the tables says; None without the file. Raises MachineError if it cannot be read."""
    try:
        return form.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise MachineError("cannot be read (not what mlcl writes)", where=path, remedy=_DELETE) from error
    except OSError as error:
        remedy = REMEDIES.get(error.errno or errno.EIO, _REMEDY)
        raise MachineError(f"cannot be read ({error.strerror})", where=path, remedy=remedy) from error
