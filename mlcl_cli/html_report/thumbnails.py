"""Small copies of images, to embed in a page."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mlcl_cli.images.decode import BadImage, open_image, read_files
from mlcl_cli.images.thumbnails import Thumbnail, thumbnail


def thumbnails(
    files: Sequence[tuple[str, Path]], side: int, workers: int, advance: Callable[[int], object] = lambda _: None
) -> Iterator[Thumbnail | None]:
    """A copy of each image whose longer side has at most `side` pixels, None for one that cannot be read."""
    for result in read_files(files, lambda path, _: thumbnail(open_image(path), side), workers):
        advance(1)
        yield None if isinstance(result, BadImage) else result
