"""An image's bytes, in a file of its own or in an archive, and a fingerprint that tells whether it has changed."""

import hashlib
import os
from pathlib import Path

from PIL import Image

from mlcl_cli.formatting import size as in_units
from mlcl_cli.safe_reading import open_regular

BYTES_PER_PIXEL = 8  # of the largest files: four channels of 16 bits, not compressed
METADATA_BYTES = 2**24


def read_image(path: Path, offset: int = 0, size: int | None = None) -> tuple[bytes, str]:
    """The bytes of an image, all of the file or `size` of them from `offset` on, and their fingerprint.

    The fingerprint is their digest, then `image_stamp` at the time of reading. Raises OSError with a readable reason:
    missing, not a regular file, truncated; ValueError for a file that is too large for an image of `set_limits`.
    """
    try:
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            length = status.st_size if size is None else size
            if length > (limit := _max_bytes()):
                raise ValueError(f"larger than {in_units(limit)}")
            file.seek(offset)
            data = file.read(length)
    except FileNotFoundError:
        raise OSError("missing") from None
    except OSError as error:
        raise OSError(error.strerror or str(error)) from None
    if len(data) < length:
        raise OSError(f"truncated: {len(data):,} bytes of {length:,}")
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    return data, f"{digest}:{_stamp(status, offset, size)}"


def image_stamp(path: Path, offset: int = 0, size: int | None = None) -> str:
    """What changes with the file, without reading it: "SIZE:MTIME_NS", and ":OFFSET" in an archive.

    Raises OSError if the file cannot be accessed.
    """
    return _stamp(path.stat(), offset, size)


def has_stamp(fingerprint: str, stamp: str) -> bool:
    """Whether `stamp` is that of the fingerprint, so that the image need not be read again."""
    return fingerprint.partition(":")[2] == stamp


def has_same_bytes(fingerprint: str, other: str) -> bool:
    """Whether two fingerprints are of the same bytes, wherever they were read."""
    return fingerprint.partition(":")[0] == other.partition(":")[0]


def _stamp(status: os.stat_result, offset: int, size: int | None) -> str:
    if size is None:
        return f"{status.st_size}:{status.st_mtime_ns}"
    return f"{size}:{status.st_mtime_ns}:{offset}"


def _max_bytes() -> int:
    pixels = Image.MAX_IMAGE_PIXELS or 2**28
    return BYTES_PER_PIXEL * pixels + METADATA_BYTES
