"""Pictures read in parallel, in order, without losing one silently."""

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from mlcl_cli.errors import DataError, StuckError, some
from mlcl_cli.formatting import counted
from mlcl_cli.safe_reading import open_regular

# Pillow knows more: it hands PostScript to Ghostscript, whatever the file is called.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
NOT_A_PICTURE = "not a picture in JPEG, PNG, WebP, BMP, GIF, TIFF, PPM or AVIF"
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class BadImage:
    """An image that cannot be used, and why."""

    name: str
    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path} ({self.reason})"


class BadImagesError(DataError):
    """Images are missing or unreadable; `bad` lists them all."""

    def __init__(self, bad: Sequence[BadImage], remedy: str) -> None:
        self.bad = tuple(bad)
        super().__init__(f"{counted(len(bad), 'image')} missing or unreadable: {some(bad)}", remedy=remedy)


class _Patience:
    """How long a file may take to be read, in seconds; for the process, as Pillow's own limit is."""

    seconds: float = 120.0


def set_limits(megapixels: float, seconds: float) -> None:
    """Larger pictures are refused before they are decoded; a file that takes longer to read ends the command."""
    Image.MAX_IMAGE_PIXELS = int(megapixels * 1_000_000)
    _Patience.seconds = seconds


@cache
def known_formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this build of Pillow reads."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def open_image(path: Path) -> Image.Image:
    """The decoded picture in its file's own mode, EXIF orientation ignored. Truncated files are never loaded.

    Only `FORMATS` are read, whatever the file's name. Raises OSError or ValueError with a reason in words: missing,
    empty, not a picture, truncated, or larger than `set_limits` allows, which is read before any pixel is decoded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning)
        try:
            with open_regular(path) as file, Image.open(file, formats=known_formats()) as image:
                if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                    raise Image.DecompressionBombError
                image.load()
                return image
        except FileNotFoundError:
            raise OSError("missing") from None
        except UnidentifiedImageError:
            raise OSError("empty file" if path.stat().st_size == 0 else NOT_A_PICTURE) from None
        except Image.DecompressionBombError:
            raise ValueError(f"larger than {(Image.MAX_IMAGE_PIXELS or 0) / 1e6:g} megapixels") from None
        except (OSError, SyntaxError, EOFError) as error:
            raise OSError(getattr(error, "strerror", None) or f"damaged: {error}") from None


def read_images(
    files: Sequence[tuple[str, Path]],
    convert: Callable[[Image.Image, int], Result],
    workers: int,
    *,
    opener: Callable[[Path], Image.Image] = open_image,
    ahead: int | None = None,
) -> Iterator[Result | BadImage]:
    """`convert(picture, position)` of every (name, path), in order, read by `workers` threads a little `ahead`.

    Raises StuckError for a file that takes longer to be read than `set_limits` allows.
    """
    return read_files(files, lambda path, position: convert(opener(path), position), workers, ahead)


def read_files(
    files: Sequence[tuple[str, Path]],
    read: Callable[[Path, int], Result],
    workers: int,
    ahead: int | None = None,
) -> Iterator[Result | BadImage]:
    """`read(path, position)` of every (name, path), as `read_images`; OSError and ValueError become BadImage."""

    def attempt(position: int) -> Result | BadImage:
        name, path = files[position]
        try:
            return read(path, position)
        except (OSError, ValueError) as error:
            return BadImage(name, path, str(error))

    results = in_order(attempt, range(len(files)), workers, ahead, _Patience.seconds)
    for name, path in files:
        try:
            yield next(results)
        except TimeoutError:
            what = f"reading image {name!r} takes more than {_Patience.seconds:g} s"
            remedy = "Fix the disk or the network drive, or raise image.read_seconds"
            raise StuckError(what, where=path, remedy=remedy) from None


def in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    ahead: int | None = None,
    patience: float | None = None,
) -> Iterator[Result]:
    """`map` over threads that stays at most `ahead` results (a few for each worker) ahead of its reader.

    Raises TimeoutError where the reader has waited `patience` seconds for a result.
    """
    ahead = 4 * workers + 8 if ahead is None else ahead
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    stuck = False
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result(patience)
        while pending:
            yield pending.popleft().result(patience)
    except TimeoutError:
        stuck = True
        raise
    finally:
        pool.shutdown(wait=not stuck, cancel_futures=True)
