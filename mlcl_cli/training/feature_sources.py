"""Where a run's features come from: a table if the tower is frozen, else the encoder as it trains.

A source prepares a batch on the CPU, in a thread ahead of the step. The step computes the features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.features.store import FeatureStore
from mlcl_cli.images.image_cache import ImageCache
from mlcl_cli.images.transforms import preprocess_pixels
from mlcl_cli.models.encoder import Encoder, Tokens

TEXTS_PER_CPU_CHUNK = 32  # captions of like length that a CPU encodes together, to save padding
Deferred = Callable[[], Tensor]  # raw features (B, d) of a prepared batch, when the step asks for them


class FeatureSource(Protocol):
    """Features of rows (B,)."""

    def prepare(self, rows: Tensor) -> Deferred:
        """Read what the rows need."""


@dataclass(frozen=True)
class CachedFeatures:
    """Rows of a table (N, d) on the device."""

    values: Tensor

    def prepare(self, rows: Tensor) -> Deferred:
        rows = rows.to(self.values.device, non_blocking=True)
        return lambda: self.values.index_select(0, rows)


@dataclass(frozen=True)
class TextEncoderSource:
    """Captions through a text encoder that trains, each distinct one once; `chunk_size` turns gradient caching on."""

    encoder: Encoder
    tokens: Tokens
    chunk_size: int | None = None

    def prepare(self, rows: Tensor) -> Deferred:
        """Group the distinct captions into chunks of like length."""
        distinct, inverse = rows.unique(return_inverse=True)
        by_length = self.tokens.lengths[distinct].argsort(stable=True)
        place = torch.empty_like(by_length).scatter_(0, by_length, torch.arange(len(by_length)))
        chunks = distinct[by_length].split(self._texts_per_chunk(len(distinct)))
        tokens = [self.tokens.batch(chunk) for chunk in chunks]
        inverse = place[inverse].to(self.tokens.values.device)
        return lambda: encode_chunks(self.encoder.encode_texts, tokens, cached=self.chunk_size is not None)[inverse]

    def _texts_per_chunk(self, texts: int) -> int:
        if self.chunk_size is not None:
            return self.chunk_size
        # Padding costs a CPU more than additional products do; on a GPU it is the other way around.
        return TEXTS_PER_CPU_CHUNK if self.encoder.compute.device.type == "cpu" else texts


@dataclass(frozen=True)
class ImageEncoderSource:
    """Images through an image encoder that trains, each distinct one once; `names` are those of the rows."""

    encoder: Encoder
    cache: ImageCache
    names: Sequence[str]
    chunk_size: int | None = None

    def prepare(self, rows: Tensor) -> Deferred:
        """Read the distinct images, uint8 (D, 3, S, S)."""
        distinct, inverse = rows.unique(return_inverse=True)
        pixels = self.cache.read([self.names[row] for row in distinct.tolist()])
        chunks = pixels.split(self.chunk_size or len(pixels))
        device = self.encoder.compute.device

        def encode(part: Tensor) -> Tensor:
            return self.encoder.encode_images(preprocess_pixels(part.to(device)))

        return lambda: encode_chunks(encode, chunks, cached=self.chunk_size is not None)[inverse.to(device)]


class TowerFeatures(Protocol):
    """A run's features of images by name, or of captions, for training and for validation."""

    def source(self, names: Sequence[str]) -> FeatureSource:
        """What training reads; row i is `names[i]`."""

    def table(self, names: Sequence[str]) -> FeatureTable:
        """What validation reads: features of at least `names`, by the weights as they are now."""


@dataclass(frozen=True)
class FrozenFeatures:
    """Features of a frozen tower."""

    values: FeatureTable

    def source(self, names: Sequence[str]) -> FeatureSource:
        return CachedFeatures(self.values.of(names))

    def table(self, names: Sequence[str]) -> FeatureTable:  # noqa: ARG002
        return self.values


@dataclass(frozen=True)
class TrainedImages:
    """Images whose encoder trains; with a `chunk_size`, by gradient caching."""

    store: FeatureStore
    cache: ImageCache
    chunk_size: int | None

    def source(self, names: Sequence[str]) -> FeatureSource:
        return ImageEncoderSource(self.store.encoder, self.cache, names, self.chunk_size)

    def table(self, names: Sequence[str]) -> FeatureTable:
        return self.store.encode_images_now(self.cache, names)


@dataclass(frozen=True)
class TrainedTexts:
    """Captions whose encoder trains; with a `chunk_size`, by gradient caching."""

    store: FeatureStore
    chunk_size: int | None

    def source(self, names: Sequence[str]) -> FeatureSource:
        return TextEncoderSource(self.store.encoder, self.store.tokens(names), self.chunk_size)

    def table(self, names: Sequence[str]) -> FeatureTable:
        return self.store.texts(names, banked=False)


def encode_chunks(encode: Callable[[Tensor], Tensor], chunks: Sequence[Tensor], *, cached: bool) -> Tensor:
    """Features of all `chunks` with their gradients.

    `cached` turns gradient caching on: the forward pass keeps only the input of each chunk, and the backward pass,
    which then has the loss's gradient with respect to every feature, encodes chunk by chunk again. The gradients are
    those of one large batch; memory is that of one chunk, at the price of another forward pass.
    """
    if not cached:
        return torch.cat([encode(chunk) for chunk in chunks])
    parts = [checkpoint(encode, chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks]
    return torch.cat(parts)
