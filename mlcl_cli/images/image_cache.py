"""Images that every epoch needs: decoded once, and kept as far as memory allows."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import torch
from PIL import Image
from torch import Tensor

from mlcl_cli.images.decode import BadImage, BadImagesError, open_image, read_files
from mlcl_cli.images.transforms import Transform

VIEW_RATIO = 1.25  # METHOD.md, Section 7.2, step 1


class ImageCache:
    """Images by name as the encoder sees them, uint8. The first that fit into `budget` bytes stay in memory.

    Without `budget`, half of the available memory.
    """

    def __init__(
        self, files: Sequence[tuple[str, Path]], transform: Transform, workers: int, budget: int | None = None
    ) -> None:
        self._paths, self._transform, self._workers = dict(files), transform, workers
        available = psutil.virtual_memory().available // 2 if budget is None else budget
        self._capacity = available // (3 * transform.size**2)
        self._cached: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self._paths)

    def find_bad(self, advance: Callable[[int], None]) -> list[BadImage]:
        """Decode every image, keep those that fit, and return those that cannot be used."""
        bad = []
        for result in self._decode(list(self._paths)):
            advance(1)
            if isinstance(result, BadImage):
                bad.append(result)
        return bad

    def read(self, names: Sequence[str]) -> Tensor:
        """Pixels of `names`, uint8 (len(names), 3, S, S). Raises BadImagesError for an image that cannot be read."""
        missing = [name for name in dict.fromkeys(names) if name not in self._cached]
        decoded = dict(zip(missing, map(readable, self._decode(missing)), strict=True))
        return torch.stack([decoded[name] if name in decoded else self._cached[name] for name in names])

    def _decode(self, names: Sequence[str]) -> Iterator[Tensor | BadImage]:
        files = [(name, self._paths[name]) for name in names]
        results = read_files(files, lambda path, _: self._transform(open_image(path)).contiguous(), self._workers)
        for name, result in zip(names, results, strict=True):
            if isinstance(result, Tensor) and len(self._cached) < self._capacity:
                self._cached[name] = result
            yield result


class PaddedImageCache:
    """Opens padded images in full size, for random crops. Those that fit into `budget` bytes stay in memory.

    The padding is targetpad at `VIEW_RATIO`, whatever the kind and ratio of `transform` (METHOD.md, Section 7.2).
    Without `budget`, half of the available memory.
    """

    def __init__(self, transform: Transform, budget: int | None = None) -> None:
        self.transform = replace(transform, kind="targetpad", ratio=VIEW_RATIO)
        self._remaining = psutil.virtual_memory().available // 2 if budget is None else budget
        self._images: dict[Path, Image.Image] = {}
        self._lock = threading.Lock()

    def __call__(self, path: Path) -> Image.Image:
        """The padded image in its file's mode. Raises what `open_image` raises. Thread-safe."""
        if (cached := self._images.get(path)) is not None:
            return cached
        padded = self.transform.pad(open_image(path))
        # Pillow stores one byte per pixel for a single band, else four.
        size = padded.width * padded.height * (1 if len(padded.getbands()) == 1 else 4)
        with self._lock:
            if path not in self._images and size <= self._remaining:
                self._images[path] = padded
                self._remaining -= size
        return padded


def readable(result: Tensor | BadImage) -> Tensor:
    """The image. Raises BadImagesError if it has become unreadable since the run checked it."""
    if isinstance(result, BadImage):
        raise BadImagesError([result], "It was readable when the run began: fix the image, then use --resume")
    return result
