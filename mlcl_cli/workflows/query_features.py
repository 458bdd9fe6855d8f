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


def raw_features(
    model: RetrievalModel, texts: Sequence[str | None], images: Sequence["Tensor | QueryImage | None"]
) -> RawFeatures:
    """Raw features of queries. An image may also be a raw feature (d,) already; a blank text is none.

    Raises UsageError for a query without image and text and as `read_image` does.
    """
    store, device = model.store, model.store.encoder.compute.device
    words = [text if text and text.strip() else None for text in texts]
    for row, (text, image) in enumerate(zip(words, images, strict=True)):
        if text is None and image is None:
            where = "query" if len(words) == 1 else f"query {row}"
            raise UsageError("has neither an image nor words", where=where, remedy="Give one of them, or both")
    zeros = torch.zeros(len(words), store.encoder.feature_dim, device=device)
    found, pixels, rows = zeros.clone(), list[Tensor](), list[int]()
    for row, image in enumerate(images):
        if isinstance(image, Tensor):
            found[row] = image.to(device)
        elif image is not None:
            pixels.append(read_image(image, store))
            rows.append(row)
    if pixels:
        found[rows] = store.encode_pixels(torch.stack(pixels))
    given = [text for text in words if text is not None]
    written = zeros
    with_text = torch.tensor([text is not None for text in words], device=device)
    if given:
        written[with_text] = store.texts(given, banked=False).of(given)
    return RawFeatures(written, found, with_text, torch.tensor([i is not None for i in images], device=device))
