"""What is measured: drawn images, captions of real lengths, triplets, and a CLIP with random weights."""

import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image, ImageDraw
from pydantic import BaseModel

from mlcl_cli.bench.measure import Machine
from mlcl_cli.data.protocols import Protocol
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.features.store import FeatureStore
from mlcl_cli.images.transforms import Transform
from mlcl_cli.models.combiner import Architecture, Combiner
from mlcl_cli.models.encoder import Encoder
from mlcl_cli.models.weights import import_clip
from mlcl_cli.progress import NoProgress
from mlcl_cli.retrieval.evaluation import Compose, Evaluation
from mlcl_cli.training.feature_sources import CachedFeatures
from mlcl_cli.training.objectives import BankedViews, CombinerObjective
from mlcl_cli.training.triplet_rows import TripletRows

VOCABULARY = (
    "is has the a more less with and red blue darker shorter sleeves longer neckline floral pattern black white dress "
    "shirt heel strap dog grass standing two one instead of on top bright collar buttons lace same but remove add show"
)
# Words per caption at quantiles of all captions: CIRR's annotations, and FashionIQ's single captions.
CIRR_WORDS = {0.0: 1, 0.05: 5, 0.25: 8, 0.5: 10, 0.75: 13, 0.9: 16, 0.95: 19, 0.99: 24, 1.0: 53}
FASHIONIQ_WORDS = {0.0: 1, 0.25: 4, 0.5: 5, 0.75: 7, 0.95: 10, 1.0: 20}
IMAGE_SIZES = ((400, 600), (600, 600), (384, 512), (500, 667))

Queries = dict[str, tuple[int, int]]  # queries and gallery images by the name of a set


class FullRun(BaseModel, frozen=True, extra="forbid"):
    """A whole run of stage 2."""

    epochs: int
    batch_size: int
    triplets: int
    images: int
    captions: int
    validation: Queries


class Sizes(BaseModel, frozen=True, extra="forbid"):
    """How much of everything is measured (sizes.yaml)."""

    clip: dict[str, int | tuple[int, ...] | None]
    images: int
    texts: int
    triplets: int
    combiner_batch_size: int
    finetune_triplets: int
    finetune_batch_size: int
    validation: Queries
    galleries: tuple[int, ...]
    bank_rows: int
    shared_steps: int
    busy_programs: tuple[int, ...]
    full_run: FullRun | None = None


def load_sizes(name: str) -> Sizes:
    """One of the entries of sizes.yaml."""
    text = resources.files(__package__).joinpath("sizes.yaml").read_text("utf-8")
    return Sizes.model_validate(yaml.safe_load(text)[name])


@dataclass
class SyntheticData:
    """Everything that the rows share, made once under `folder`."""

    machine: Machine
    sizes: Sizes
    workers: int
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="mlcl-bench-")))

    def new_folder(self) -> Path:
        """An empty folder below `folder`."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    @cached_property
    def files(self) -> list[tuple[str, Path]]:
        """Drawn JPEG images by name."""
        draw = random.Random(0)
        files = [(str(number), self.folder / f"{number}.jpg") for number in range(self.sizes.images)]
        for (_, path), size in zip(files, cycle(IMAGE_SIZES), strict=False):
            _image(draw, size).save(path, quality=90)
        return files

    @cached_property
    def encoder(self) -> Encoder:
        """A CLIP with random weights."""
        torch.manual_seed(0)
        return Encoder(import_clip().model.CLIP(**self.sizes.clip).float(), self.machine.compute)

    @cached_property
    def transform(self) -> Transform:
        """The default transform."""
        return Transform("targetpad", 1.25, self.encoder.size)

    def store(self) -> FeatureStore:
        """A store without any bank."""
        return FeatureStore(
            folder=self.new_folder(),
            encoder=self.encoder,
            transform=self.transform,
            workers=self.workers,
            progress=NoProgress(),
            dataset="bench",
        )

    def triplets(self, count: int) -> TripletRows:
        """Random pairs of images, with FashionIQ's four captions for each."""
        pairs = zip(captions(count, FASHIONIQ_WORDS, 1), captions(count, FASHIONIQ_WORDS, 2), strict=True)
        texts = [text for one, two in pairs for text in (f"{one} and {two}", f"{two} and {one}", one, two)]
        return random_triplets(count, [str(number) for number in range(self.sizes.images)], texts)

    @cached_property
    def architecture(self) -> Architecture:
        """The combiner with the proportions of the recipe."""
        d = self.encoder.feature_dim
        return Architecture(feature_dim=d, projection_dim=4 * d, hidden_dim=8 * d)


class RandomValidation:
    """A validation split with random features; each triplet has a different caption and image set."""

    def __init__(self, dataset: str, sizes: Queries, feature_dim: int, device: torch.device) -> None:
        """Query sets of `sizes` under a data set's name."""
        draw = torch.Generator().manual_seed(0)

        def table(names: Sequence[str]) -> FeatureTable:
            features = torch.randn(len(names), feature_dim, generator=draw)
            return FeatureTable({name: row for row, name in enumerate(names)}, features.to(device))

        sets = []
        for name, (queries, gallery) in sizes.items():
            images = tuple(f"{name}-image-{number:06}" for number in range(gallery))
            triplets = []
            for number in range(queries):
                members = tuple(images[row] for row in torch.randperm(gallery, generator=draw)[:6].tolist())
                triplets.append(Triplet(members[0], members[1], (f"{name} {number}",), number, members))
            sets.append(QuerySet(name, tuple(triplets), images))
        paths = {name: Path(name) for part in sets for name in part.gallery}
        self.split = Split(dataset, "val", tuple(sets), paths)
        self.images = table(list(paths))
        self.texts = table([triplet.captions[0] for triplet in self.split.triplets])

    def evaluation(self, protocol: Protocol) -> Callable[[Compose], dict[str, float]]:
        """The protocol's metrics as a function of how queries are composed."""
        evaluation = Evaluation(self.split, protocol)
        return lambda compose: evaluation(self.images, self.texts, compose).metrics


def random_triplets(count: int, images: Sequence[str], texts: Sequence[str]) -> TripletRows:
    """Triplets of random images with four captions each, all different as long as `texts` lasts."""
    draw = torch.Generator().manual_seed(0)
    references, targets = torch.randint(len(images), (2, count), generator=draw)
    variants = torch.arange(4 * count).view(count, 4) % len(texts)
    return TripletRows(tuple(images), tuple(texts), references, targets, variants)


def random_objective(
    architecture: Architecture, triplets: int, images: int, captions: int, device: torch.device
) -> CombinerObjective:
    """Stage 2 on random features, with two views of each image."""
    draw = torch.Generator(device).manual_seed(0)

    def features(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, architecture.feature_dim, generator=draw, device=device)

    rows = random_triplets(triplets, [str(row) for row in range(images)], [str(row) for row in range(captions)])
    views = BankedViews(features(2, images), rows.references, 0)
    image_source, text_source = CachedFeatures(features(images)), CachedFeatures(features(captions))
    combiner = Combiner(architecture).to(device)
    return CombinerObjective(combiner, rows, image_source, text_source, views, ("mid", "high"))


def captions(count: int, words: Mapping[float, int], seed: int) -> list[str]:
    """Random captions, whose numbers of words have the quantiles `words`."""
    draw = random.Random(seed)
    lengths = [round(float(np.interp(draw.random(), [*words], [*words.values()]))) for _ in range(count)]
    return [" ".join(draw.choices(VOCABULARY.split(), k=length)) for length in lengths]


def _image(draw: random.Random, size: tuple[int, int]) -> Image.Image:
    """Shades, a few shapes and a little noise: about as costly to decode as a product photograph."""
    shade = Image.linear_gradient("L").resize(size)
    image = Image.merge("RGB", [shade.rotate(draw.choice((0, 90, 180, 270))).resize(size) for _ in range(3)])
    pencil = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = map(draw.randrange, size)
        color = tuple(draw.randrange(256) for _ in range(3))
        pencil.ellipse((x, y, x + draw.randrange(20, 200), y + draw.randrange(20, 200)), fill=color)
    return Image.blend(image, Image.effect_noise(size, 24).convert("RGB"), 0.15)
