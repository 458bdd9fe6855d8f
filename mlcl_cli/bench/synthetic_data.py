"""What is measured: drawn photographs, captions of real lengths, triplets, and a CLIP with random weights."""

import random
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from mlcl_cli.bench.measure import Machine
from mlcl_cli.features.store import FeatureStore
from mlcl_cli.images.transforms import Transform
from mlcl_cli.models.combiner import Architecture
from mlcl_cli.models.encoder import Encoder
from mlcl_cli.models.weights import import_clip
from mlcl_cli.progress import NoProgress
from mlcl_cli.training.triplet_rows import TripletRows

SENTENCE = (
    "is has the a more less with and red blue darker shorter sleeves longer neckline floral pattern black white dress "
    "shirt heel strap dog grass standing two one instead of on top bright collar buttons lace same but remove add show"
)
# Words a caption at these shares of all captions: CIRR's annotations, and FashionIQ's single captions.
CIRR_WORDS = {0.0: 1, 0.05: 5, 0.25: 8, 0.5: 10, 0.75: 13, 0.9: 16, 0.95: 19, 0.99: 24, 1.0: 53}
FASHIONIQ_WORDS = {0.0: 1, 0.25: 4, 0.5: 5, 0.75: 7, 0.95: 10, 1.0: 20}
PHOTOGRAPHS = ((400, 600), (600, 600), (384, 512), (500, 667))
TINY = {
    "embed_dim": 64,
    "image_resolution": 128,
    "vision_layers": (1, 1, 1, 1),
    "vision_width": 24,
    "vision_patch_size": None,
    "context_length": 77,
    "vocab_size": 49408,
    "transformer_width": 128,
    "transformer_heads": 2,
    "transformer_layers": 3,
}
RN50X4 = TINY | {
    "embed_dim": 640,
    "image_resolution": 288,
    "vision_layers": (4, 6, 10, 6),
    "vision_width": 80,
    "transformer_width": 640,
    "transformer_heads": 10,
    "transformer_layers": 12,
}


@dataclass(frozen=True)
class FullRun:
    """A whole run of stage 2: FashionIQ's sizes, unless said otherwise."""

    epochs: int = 1000
    batch: int = 2048
    triplets: int = 18_000
    images: int = 25_136
    captions: int = 60_124
    validated: Mapping[str, tuple[int, int]] = field(
        default_factory=lambda: {"dress": (2017, 3817), "shirt": (2038, 6346), "toptee": (1961, 5373)}
    )


@dataclass(frozen=True)
class Sizes:
    """How much of everything is measured; `validated` are queries and gallery of real validation splits.

    `banked` is the rows of a large feature bank.
    """

    clip: Mapping[str, Any]
    photographs: int
    texts: int
    triplets: int
    combiner_batch: int
    finetune_triplets: int
    finetune_batch: int
    ranked: tuple[int, ...]
    validated: Mapping[str, tuple[int, int]] = field(
        default_factory=lambda: {"cirr": (4181, 2297), "fashioniq": (2017, 3817), "shoes": (1761, 4658)}
    )
    fashioniq: FullRun | None = None
    banked: int = 100_000


REDUCED = Sizes(TINY, 256, 1024, 512, 128, 256, 64, (1_000_000,))
FULL = Sizes(RN50X4, 2048, 8192, 4096, 2048, 512, 128, (1_000_000, 10_000_000), fashioniq=FullRun(), banked=2_000_000)
SMALLEST = Sizes(
    TINY | {"image_resolution": 32, "vision_width": 8},
    photographs=16,
    texts=64,
    triplets=32,
    combiner_batch=16,
    finetune_triplets=16,
    finetune_batch=8,
    ranked=(2000,),
    validated={"cirr": (80, 90), "fashioniq": (60, 70), "shoes": (50, 80)},
    fashioniq=FullRun(2, 16, 40, 30, 50, {"dress": (20, 60), "shirt": (10, 70)}),
    banked=2000,
)


@dataclass
class SyntheticData:
    """Everything that the rows share, made once under `folder`."""

    machine: Machine
    sizes: Sizes
    workers: int
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="mlcl-bench-")))

    @cached_property
    def files(self) -> list[tuple[str, Path]]:
        """JPEG photographs, drawn."""
        draw = random.Random(0)
        files = []
        for number in range(self.sizes.photographs):
            path = self.folder / f"{number}.jpg"
            _photograph(draw, PHOTOGRAPHS[number % len(PHOTOGRAPHS)]).save(path, quality=90)
            files.append((str(number), path))
        return files

    @cached_property
    def encoder(self) -> Encoder:
        """A CLIP with random weights."""
        torch.manual_seed(0)
        return Encoder(import_clip().model.CLIP(**self.sizes.clip).float(), self.machine.compute)

    @cached_property
    def transform(self) -> Transform:
        """The default one."""
        return Transform("targetpad", 1.25, self.encoder.size)

    def store(self) -> FeatureStore:
        """A store without any bank yet."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        return FeatureStore(
            folder=folder,
            encoder=self.encoder,
            transform=self.transform,
            workers=self.workers,
            progress=NoProgress(),
            dataset="bench",
        )

    @cached_property
    def triplets(self) -> TripletRows:
        """Random pairs of photographs; FashionIQ's four captions for each."""
        draw = torch.Generator().manual_seed(0)
        count = self.sizes.triplets
        references, targets = torch.randint(len(self.files), (2, count), generator=draw)
        a, b = (captions(count, FASHIONIQ_WORDS, seed) for seed in (1, 2))
        texts = [
            text for one, two in zip(a, b, strict=True) for text in (f"{one} and {two}", f"{two} and {one}", one, two)
        ]
        names = tuple(name for name, _ in self.files)
        return TripletRows(names, tuple(texts), references, targets, torch.arange(4 * count).view(count, 4))

    @cached_property
    def architecture(self) -> Architecture:
        """The recipe's proportions."""
        d = self.encoder.feature_dim
        return Architecture(d, 4 * d, 8 * d)


def captions(count: int, words: Mapping[float, int], seed: int) -> list[str]:
    """Captions with as many words as `words` says, in no order."""
    draw = random.Random(seed)
    vocabulary, shares = SENTENCE.split(), sorted(words)

    def length(share: float) -> int:
        above = next(number for number, known in enumerate(shares) if known >= share)
        low, high = shares[max(0, above - 1)], shares[above]
        part = (share - low) / (high - low) if high > low else 0.0
        return round(words[low] + part * (words[high] - words[low]))

    return [" ".join(draw.choices(vocabulary, k=length(draw.random()))) for _ in range(count)]


def _photograph(draw: random.Random, size: tuple[int, int]) -> Image.Image:
    """Shades, a few shapes and a little noise: about as costly to decode as a photograph of a product."""
    width, height = size
    shade = Image.linear_gradient("L").resize(size)
    image = Image.merge("RGB", [shade.rotate(draw.choice((0, 90, 180, 270))).resize(size) for _ in range(3)])
    pencil = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = draw.randrange(width), draw.randrange(height)
        colour = tuple(draw.randrange(256) for _ in range(3))
        pencil.ellipse((x, y, x + draw.randrange(20, 200), y + draw.randrange(20, 200)), fill=colour)
    noise = Image.effect_noise((width, height), 24).convert("RGB")
    return Image.blend(image, noise, 0.15)
