"""Images decoded in parallel and in order; one that cannot be read is reported, never skipped silently."""

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, TypeVar

from PIL import Image, UnidentifiedImageError

from mlcl_cli.errors import DataError, StuckError, some
from mlcl_cli.formatting import counted
from mlcl_cli.safe_reading import open_regular

Image.init()
# Only some of the formats that Pillow reads: for PostScript it starts Ghostscript, whatever the file's name.
ALLOWED_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
FORMATS = tuple(name for name in ALLOWED_FORMATS if name in Image.OPEN)  # this build of Pillow may lack some
NOT_AN_IMAGE = "not an image in JPEG, PNG, WebP, BMP, GIF, TIFF, PPM or AVIF"
_read_seconds = 120.0
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


def set_limits(megapixels: float, seconds: float) -> None:
    """Set limits for the process: larger images are rejected, and a file that takes longer ends the command."""
    global _read_seconds
    Image.MAX_IMAGE_PIXELS, _read_seconds = int(megapixels * 1_000_000), seconds


def open_image(path: Path) -> Image.Image:
    """The decoded image in its file's mode; EXIF orientation is ignored.

    Only `FORMATS` are read, whatever the file's name. Raises OSError or ValueError with a readable reason: missing,
    empty, not an image, truncated, or larger than `set_limits` allows, which is checked before pixels are decoded.
    """
    with _readable_reasons(lambda: path.stat().st_size == 0), open_regular(path) as file:
        return _decoded(file)


def decode_image(data: bytes) -> Image.Image:
    """The image in the bytes of a file. Raises what `open_image` raises, except that it is missing."""
    with _readable_reasons(lambda: not data):
        return _decoded(BytesIO(data))


def _decoded(file: BinaryIO) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning)
        with Image.open(file, formats=FORMATS) as image:
            if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError
            image.load()
            return image


@contextmanager
def _readable_reasons(is_empty: Callable[[], bool]) -> Iterator[None]:
    """Turn what opening and decoding raise into an OSError or ValueError that says why."""
    try:
        yield
    except FileNotFoundError:
        raise OSError("missing") from None
    except UnidentifiedImageError:
        raise OSError("empty file" if is_empty() else NOT_AN_IMAGE) from None
    except Image.DecompressionBombError:
        raise ValueError(f"larger than {(Image.MAX_IMAGE_PIXELS or 0) / 1e6:g} megapixels") from None
    except (OSError, SyntaxError, EOFError) as error:
        raise OSError(getattr(error, "strerror", None) or f"damaged: {error}") from None


def read_files(
    files: Sequence[tuple[str, Path]],
    read: Callable[[Path, int], Result],
    workers: int,
    ahead: int | None = None,
) -> Iterator[Result | BadImage]:
    """`read(path, position)` of every (name, path), in order; OSError and ValueError become BadImage.

    `workers` threads read at most `ahead` files ahead. Raises StuckError if a file takes longer than `set_limits`
    allows.
    """

    def attempt(position: int) -> Result | BadImage:
        name, path = files[position]
        try:
            return read(path, position)
        except (OSError, ValueError) as error:
            return BadImage(name, path, str(error))

    results = threaded_map(attempt, range(len(files)), workers, ahead, seconds := _read_seconds)
    for name, path in files:
        try:
            yield next(results)
        except TimeoutError:
            what = f"reading image {name!r} takes more than {seconds:g} s"
            remedy = "Fix the disk or the network drive, or raise image.read_seconds"
            raise StuckError(what, where=path, remedy=remedy) from None


def threaded_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    ahead: int | None = None,
    timeout: float | None = None,
) -> Iterator[Result]:
    """`map` over threads, in order, at most `ahead` results (by default a few per worker) ahead of its consumer.

    Raises TimeoutError if a result is `timeout` seconds late.
    """
    ahead = 4 * workers + 8 if ahead is None else ahead
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    wait = True
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result(timeout)
        while pending:
            yield pending.popleft().result(timeout)
    except TimeoutError:
        wait = False
        raise
    finally:
        pool.shutdown(wait=wait, cancel_futures=True)
