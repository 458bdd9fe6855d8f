"""Where a run's features come from: a table if the tower is frozen, else the encoder as it trains.

A source prepares a batch on the CPU, in a thread ahead of the step. The step computes the features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mlcl_cli.images.image_cache import ImageCache
from mlcl_cli.images.transforms import preprocess_pixels
from mlcl_cli.models.encoder import Encoder, Tokens

TEXTS_PER_CPU_CHUNK = 32  # captions of like length that a CPU encodes together, to save padding
Deferred = Callable[[], Tensor]  # raw features (B, d) of a prepared batch, when the step asks for them


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
        # Padding costs a CPU more than additional products do; on a GPU it is the other way around.
        on_cpu = self.encoder.compute.device.type == "cpu"
        chunks = distinct[by_length].split(self.chunk_size or (TEXTS_PER_CPU_CHUNK if on_cpu else len(distinct)))
        tokens = [self.tokens.batch(chunk) for chunk in chunks]
        inverse = place[inverse].to(self.tokens.values.device)
        return lambda: encode_chunks(self.encoder.encode_texts, tokens, cached=self.chunk_size is not None)[inverse]


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


FeatureSource = CachedFeatures | TextEncoderSource | ImageEncoderSource


def encode_chunks(encode: Callable[[Tensor], Tensor], chunks: Sequence[Tensor], *, cached: bool) -> Tensor:
    """Features of all `chunks` with their gradients.

    `cached` turns gradient caching on: the forward pass keeps only the input of each chunk, and the backward pass,
    which then has the loss's gradient with respect to every feature, encodes chunk by chunk again. The gradients are
    those of one large batch; memory is that of one chunk, at the price of another forward pass.
    """
    if cached:
        encode = partial(checkpoint, encode, use_reentrant=False, preserve_rng_state=False)
    return torch.cat([encode(chunk) for chunk in chunks])
