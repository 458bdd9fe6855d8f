"""Where a training step's features come from: a table of frozen ones, or an encoder that trains.

A source prepares a batch on the CPU (in a thread, ahead of the step) and turns it into features in the step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mlcl_cli.images.image_cache import ImageCache
from mlcl_cli.images.transforms import preprocess_pixels
from mlcl_cli.models.encoder import Encoder, Tokens

LIKE_LENGTHS = 32


class FeatureSource(Protocol):
    """Features (B, d), raw, of rows (B,)."""

    def prepare(self, rows: Tensor) -> Any:
        """Reads what the rows need."""

    def features(self, batch: Any) -> Tensor:
        """Features of what was prepared."""


@dataclass(frozen=True)
class CachedFeatures:
    """Rows of a table (N, d) on the device."""

    values: Tensor

    def prepare(self, rows: Tensor) -> Tensor:
        """The row numbers, on the device."""
        return rows.to(self.values.device, non_blocking=True)

    def features(self, batch: Tensor) -> Tensor:
        """A gather."""
        return self.values.index_select(0, batch)


@dataclass(frozen=True)
class TextEncoderSource:
    """Captions through a text encoder that trains; `chunk_size` as `encoded` takes it."""

    encoder: Encoder
    tokens: Tokens
    chunk_size: int | None = None

    def prepare(self, rows: Tensor) -> tuple[list[Tensor], Tensor]:
        """Tokens of the distinct captions, in chunks of like length, and which of them each row is."""
        distinct, inverse = rows.unique(return_inverse=True)
        by_length = self.tokens.lengths[distinct].argsort(stable=True)
        place = torch.empty_like(by_length).scatter_(0, by_length, torch.arange(len(by_length)))
        chunks = distinct[by_length].split(self._texts_at_once(len(distinct)))
        return [self.tokens.batch(chunk) for chunk in chunks], place[inverse].to(self.tokens.values.device)

    def features(self, batch: tuple[list[Tensor], Tensor]) -> Tensor:
        """Each distinct caption is encoded once."""
        chunks, inverse = batch
        return encoded(self.encoder.encode_texts, chunks, cached=self.chunk_size is not None)[inverse]

    def _texts_at_once(self, texts: int) -> int:
        if self.chunk_size is not None:
            return self.chunk_size
        # Padding costs a CPU more than further products do, a GPU less.
        return LIKE_LENGTHS if self.encoder.compute.device.type == "cpu" else texts


@dataclass(frozen=True)
class ImageEncoderSource:
    """Pictures through an image encoder that trains; `names` are those of the rows."""

    encoder: Encoder
    pictures: ImageCache
    names: Sequence[str]
    chunk_size: int | None = None

    def prepare(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The distinct pictures, uint8 (D, 3, S, S), and which of them each row is."""
        distinct, inverse = rows.unique(return_inverse=True)
        return self.pictures.read([self.names[row] for row in distinct.tolist()]), inverse

    def features(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Each distinct picture is encoded once."""
        pixels, inverse = batch
        device = self.encoder.compute.device
        chunks = pixels.split(self.chunk_size or len(pixels))

        def encode(part: Tensor) -> Tensor:
            return self.encoder.encode_images(preprocess_pixels(part.to(device)))

        return encoded(encode, chunks, cached=self.chunk_size is not None)[inverse.to(device)]


def encoded(encode: Callable[[Tensor], Tensor], chunks: Sequence[Tensor], *, cached: bool) -> Tensor:
    """Features of all `chunks` with their gradients; `cached`: in the memory of one chunk, for one more forward pass.

    Gradient caching: the forward pass keeps a chunk's input alone, and the backward pass, which by then has the loss's
    gradient by every feature, encodes chunk after chunk again. The gradients are those of one large batch.
    """
    if not cached:
        return torch.cat([encode(chunk) for chunk in chunks])
    parts = [checkpoint(encode, chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks]
    return torch.cat(parts)
