"""Pictures that are needed in every epoch: decoded once, kept where memory allows."""

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from mlcl_cli.images.decode import BadImage, BadImagesError, open_image, read_images
from mlcl_cli.images.transforms import Transform

VIEW_RATIO = 1.25  # METHOD.md, Section 7.2, step 1


class ImageCache:
    """Pictures by name as the encoder sees them, uint8. The first that fit into `budget` bytes stay in memory."""

    def __init__(
        self, files: Sequence[tuple[str, Path]], transform: Transform, workers: int, budget: int | None = None
    ) -> None:
        self._files, self._transform, self._workers = files, transform, workers
        self._row = {name: row for row, (name, _path) in enumerate(files)}
        side = transform.size
        kept = min(len(files), (half_of_free_memory() if budget is None else budget) // (3 * side * side))
        self._pixels = torch.empty(kept, 3, side, side, dtype=torch.uint8)
        self._known = [False] * len(files)

    def __len__(self) -> int:
        return len(self._files)

    def find_bad(self, advance: Callable[[int], None]) -> list[BadImage]:
        """Decodes every picture, keeps what fits, and returns those that cannot be used."""
        bad = []
        for row, result in enumerate(read_images(self._files, lambda image, _: self._transform(image), self._workers)):
            advance(1)
            if isinstance(result, BadImage):
                bad.append(result)
            else:
                self._keep(row, result)
        return bad

    def read(self, names: Sequence[str]) -> Tensor:
        """Pixels of `names`, uint8 (len(names), 3, S, S). Raises BadImagesError for one that cannot be read."""
        rows = [self._row[name] for name in names]
        pixels = torch.empty(len(rows), *self._pixels.shape[1:], dtype=torch.uint8)
        known = [place for place, row in enumerate(rows) if self._known[row]]
        if known:
            kept = self._pixels.index_select(0, torch.tensor([rows[place] for place in known]))
            if len(known) == len(rows):
                return kept
            pixels[known] = kept
        lacking = [place for place, row in enumerate(rows) if not self._known[row]]
        files = [self._files[rows[place]] for place in lacking]
        results = read_images(files, lambda image, _: self._transform(image), self._workers)
        for place, result in zip(lacking, results, strict=True):
            pixels[place] = readable(result)
            self._keep(rows[place], pixels[place])
        return pixels

    def _keep(self, row: int, pixels: Tensor) -> None:
        if row < len(self._pixels):
            self._pixels[row] = pixels
            self._known[row] = True


class PaddedImageCache:
    """Opens pictures in full size, padded: what random crops come from. Those that fit into `budget` bytes stay.

    The padding is targetpad at `VIEW_RATIO`, whatever the kind and ratio of `transform` (METHOD.md, Section 7.2).
    """

    def __init__(self, transform: Transform, budget: int | None = None) -> None:
        self.transform = replace(transform, kind="targetpad", ratio=VIEW_RATIO)
        self._left = half_of_free_memory() if budget is None else budget
        self._kept: dict[Path, Image.Image] = {}
        self._lock = threading.Lock()

    def __call__(self, path: Path) -> Image.Image:
        """The padded picture in its file's own mode. Raises what `open_image` raises; any thread may call."""
        kept = self._kept.get(path)
        if kept is not None:
            return kept
        padded = self.transform.pad(open_image(path))
        # As Pillow keeps them: a byte a pixel in one band, four in several.
        size = padded.width * padded.height * (1 if len(padded.getbands()) == 1 else 4)
        with self._lock:
            if path not in self._kept and size <= self._left:
                self._kept[path] = padded
                self._left -= size
        return padded


def readable(result: Tensor | BadImage) -> Tensor:
    """The picture; one that went bad since it was checked stops the run (BadImagesError)."""
    if isinstance(result, BadImage):
        raise BadImagesError([result], "It was readable when the run began: fix it, then --resume")
    return result


def half_of_free_memory() -> int:
    """Half of the machine's free memory in bytes; a gigabyte where the system does not tell."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (ValueError, OSError, AttributeError):
        return 2**30
