"""A run's image or caption features: computed once if the tower is frozen, else by the encoder as it trains."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.features.store import FeatureStore
from mlcl_cli.images.image_cache import ImageCache
from mlcl_cli.training.feature_sources import CachedFeatures, FeatureSource, ImageEncoderSource, TextEncoderSource


class TowerFeatures(Protocol):
    """Features of images by name, or of captions."""

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
