"""Pictures read in parallel, in order, without losing one silently."""

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from mlcl_cli.errors import DataError, some

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
        count = "1 image" if len(bad) == 1 else f"{len(bad):,} images"
        super().__init__(f"{count} missing or unreadable: {some(bad)}", remedy=remedy)


def open_image(path: Path) -> Image.Image:
    """The decoded picture in its file's own mode, EXIF orientation ignored. Truncated files are never loaded.

    Raises OSError or ValueError with a reason in words: missing, empty, not a picture, truncated or absurdly large.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning)
        try:
            with Image.open(path) as image:
                image.load()
                return image
        except FileNotFoundError:
            raise OSError("missing") from None
        except UnidentifiedImageError:
            raise OSError("empty file" if path.stat().st_size == 0 else "not a picture") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise ValueError("more pixels than any product picture has") from None
        except (OSError, SyntaxError, EOFError) as error:
            raise OSError(f"damaged: {error}") from None


def read_images(
    files: Sequence[tuple[str, Path]],
    convert: Callable[[Image.Image, int], Result],
    workers: int,
    *,
    opener: Callable[[Path], Image.Image] = open_image,
    ahead: int | None = None,
) -> Iterator[Result | BadImage]:
    """`convert(picture, position)` of every (name, path), in order, read by `workers` threads a little `ahead`."""

    def read(position: int) -> Result | BadImage:
        name, path = files[position]
        try:
            return convert(opener(path), position)
        except (OSError, ValueError) as error:
            return BadImage(name, path, str(error))

    return in_order(read, range(len(files)), workers, ahead)


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int | None = None
) -> Iterator[Result]:
    """`map` over threads that stays at most `ahead` results (a few for each worker) ahead of its reader."""
    ahead = 4 * workers + 8 if ahead is None else ahead
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
