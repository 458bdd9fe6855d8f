"""Where a training step's features come from: a table of frozen ones, or an encoder that trains.

A source prepares a batch on the CPU (in a thread, ahead of the step) and turns it into features in the step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from mlcl_cli.images.pictures import Pictures
from mlcl_cli.images.transforms import normalise
from mlcl_cli.models.encoder import Encoder, Tokens


class Source(Protocol):
    """Features (B, d), raw, of rows (B,)."""

    def prepare(self, rows: Tensor) -> Any:
        """Reads what the rows need."""

    def features(self, batch: Any) -> Tensor:
        """Features of what was prepared."""


@dataclass(frozen=True)
class Frozen:
    """Rows of a table (N, d) on the device."""

    values: Tensor

    def prepare(self, rows: Tensor) -> Tensor:
        """The row numbers, on the device."""
        return rows.to(self.values.device, non_blocking=True)

    def features(self, batch: Tensor) -> Tensor:
        """A gather."""
        return self.values.index_select(0, batch)


@dataclass(frozen=True)
class LiveTexts:
    """Captions through a text encoder that trains."""

    encoder: Encoder
    tokens: Tokens

    def prepare(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of the distinct captions, cut behind the longest, and which of them each row is."""
        distinct, inverse = rows.unique(return_inverse=True)
        return self.tokens.batch(distinct), inverse.to(self.tokens.values.device)

    def features(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """One forward pass over the distinct captions."""
        tokens, inverse = batch
        return self.encoder.texts(tokens)[inverse]


@dataclass(frozen=True)
class LiveImages:
    """Pictures through an image encoder that trains; `names` are those of the rows."""

    encoder: Encoder
    pictures: Pictures
    names: Sequence[str]

    def prepare(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The distinct pictures, uint8 (D, 3, S, S), and which of them each row is."""
        distinct, inverse = rows.unique(return_inverse=True)
        return self.pictures.read([self.names[row] for row in distinct.tolist()]), inverse

    def features(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """One forward pass over the distinct pictures."""
        pixels, inverse = batch
        device = self.encoder.compute.device
        return self.encoder.images(normalise(pixels.to(device)))[inverse.to(device)]
