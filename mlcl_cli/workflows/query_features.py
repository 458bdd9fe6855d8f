"""Queries of images and words, from what callers have to unit features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from mlcl_cli.errors import DataError, NotFiniteError, UsageError
from mlcl_cli.features.store import FeatureStore
from mlcl_cli.images.decode import open_image
from mlcl_cli.retrieval.evaluation import Compose
from mlcl_cli.workflows.retrieval_model import RetrievalModel
from mlcl_cli.workflows.retriever import QueryImage

LEVEL_KEYS = {"image only": "image", "text only": "text"}  # as --combining-function names them; levels as profiles do
BOTH = frozenset({"image", "text"})


@dataclass(frozen=True)
class RawFeatures:
    """Raw features of texts and images (B, d), on the model's device; a row without one is zero.

    `has_text` and `has_image` (B,) say which rows have one.
    """

    texts: Tensor
    images: Tensor
    has_text: Tensor
    has_image: Tensor

    def query(self, compose: Compose) -> Tensor:
        """Unit queries (B, d): composed from image and text; the image's or the text's own feature without the other.

        Raises NotFiniteError where a query is not finite.
        """
        queries = normalize(torch.where(self.has_text[:, None], self.texts, self.images), dim=-1)
        both = (self.has_text & self.has_image).nonzero()[:, 0]
        if len(both):
            queries[both] = compose(self.texts[both], self.images[both]).float()
        if not bool(queries.isfinite().all()):
            raise NotFiniteError("a query's features are not finite", remedy="Choose another image or clip.checkpoint")
        return queries

    def parts(self, parts: Mapping[str, Compose]) -> list[dict[str, Tensor]]:
        """Each query's parts as unit vectors (d,), by their keys in `--json`, without those that it does not have."""
        found: list[dict[str, Tensor]] = [{} for _ in self.texts]
        with torch.no_grad():
            vectors = {LEVEL_KEYS.get(name, name): part(self.texts, self.images) for name, part in parts.items()}
        for row, own in enumerate(found):
            given = {"image"} if self.has_image[row] else set()
            given |= {"text"} if self.has_text[row] else set()
            for key, vector in vectors.items():
                if given == BOTH or key in given:
                    own[key] = vector[row].float()
        return found


def read_image(image: QueryImage, store: FeatureStore) -> Tensor:
    """An image as the encoder's input (3, S, S), uint8.

    Raises DataError for a file that cannot be read, UsageError for an array that is not (H, W, 3) uint8.
    """
    where: object = None
    try:
        if isinstance(image, np.ndarray):
            where = "image"
            image = _from_array(image)
        elif not isinstance(image, Image.Image):
            where = Path(image)
            image = open_image(where)
        return store.transform(image)
    except (OSError, ValueError) as error:
        raise DataError(f"this image cannot be used: {error}", where=where, remedy="Choose another one") from error


def _from_array(array: NDArray[np.uint8]) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        what = f"expected an array (H, W, 3) of uint8, got {array.shape} of {array.dtype}"
        raise UsageError(what, where="image", remedy="Convert it, or give a PIL image")
    return Image.fromarray(array)


@dataclass(frozen=True, slots=True)
class PreparedQuery:
    """A query as the encoder takes it: pixels (3, S, S) in uint8, or the raw feature (d,) of an image in a catalog.

    `product` is that of the item that it refers to. Raises UsageError without text and image; a blank text is none.
    """

    text: str | None = None
    pixels: Tensor | None = None
    feature: Tensor | None = None
    product: str | None = None

    def __post_init__(self) -> None:
        if not self.has_text and not self.has_image:
            raise UsageError("has neither an image nor words", where="query", remedy="Give one of them, or both")

    @property
    def has_text(self) -> bool:
        """Whether there are words."""
        return bool(self.text and self.text.strip())

    @property
    def has_image(self) -> bool:
        """Whether there is an image, or its feature."""
        return self.pixels is not None or self.feature is not None


def raw_features(model: RetrievalModel, queries: Sequence[PreparedQuery]) -> RawFeatures:
    """Raw features of queries, encoded together."""
    store, device = model.store, model.store.encoder.compute.device
    texts = torch.zeros(len(queries), store.encoder.feature_dim, device=device)
    images = texts.clone()
    for row, query in enumerate(queries):
        if query.feature is not None:
            images[row] = query.feature.to(device)
    if shown := {row: query.pixels for row, query in enumerate(queries) if query.pixels is not None}:
        images[[*shown]] = store.encode_pixels(torch.stack([*shown.values()]))
    if written := {row: str(query.text) for row, query in enumerate(queries) if query.has_text}:
        texts[[*written]] = store.texts([*written.values()], banked=False).of([*written.values()])
    has_text = torch.tensor([query.has_text for query in queries], device=device)
    return RawFeatures(texts, images, has_text, torch.tensor([query.has_image for query in queries], device=device))
