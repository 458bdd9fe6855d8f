"""Shards: the immutable files that a feature bank is made of."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlcl_cli.artifacts import Artifact, DamagedArtifactError

FORMAT = "mlcl features 3"
Digests: TypeAlias = NDArray[np.int64]
Rows: TypeAlias = NDArray[np.int64]
VERIFIED: set[tuple[object, ...]] = set()  # the files whose features this process has verified


def digests_of(stamps: Mapping[str, str]) -> Digests:
    """128 bits for each name and stamp, int64 (N, 2). A changed stamp gives another digest."""
    hashes = (
        hashlib.blake2b(f"{name}\0{stamp}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
        for name, stamp in stamps.items()
    )
    return np.frombuffer(b"".join(hashes), np.int64).reshape(-1, 2)


@dataclass(frozen=True, eq=False)
class MemoryRows:
    """Rows that are not on disk: `digests` int64 (N, 2), `features` fp32 (N, d)."""

    digests: Digests
    features: Tensor

    def read(self) -> Tensor:
        """The features."""
        return self.features


@dataclass(frozen=True, eq=False)
class Shard:
    """A file of `digests` int64 (N, 2), in memory, and features fp32 (N, d), memory-mapped when they are read.

    Files are written once and never changed. The features are verified when they are first read.
    """

    artifact: Artifact
    digests: Digests
    size: int

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self.artifact.path

    @classmethod
    def open(cls, path: Path, key: Mapping[str, str]) -> Self:
        """Read and verify everything but the features.

        Raises DamagedArtifactError, or OSError where the file cannot be read.
        """
        size = path.stat().st_size
        artifact = Artifact.open(path)
        if artifact.format != FORMAT or artifact.description != dict(key):
            raise DamagedArtifactError("it belongs to another bank", path)
        return cls(artifact, artifact.tensor("digests").numpy().copy(), size)

    @classmethod
    def write(cls, path: Path, key: Mapping[str, str], digests: Digests, features: Tensor) -> Self:
        """Write `features` (N, d) whole or not at all. Raises MachineError where that fails."""
        tensors = {"digests": torch.from_numpy(digests.copy()), "features": features}
        artifact = Artifact.save(path, FORMAT, key, tensors)
        return cls(artifact, tensors["digests"].numpy(), path.stat().st_size)

    def read(self) -> Tensor:
        """Features (N, d), as they are. Raises what `verify` raises."""
        return self.artifact.tensor("features", verify=False)

    def verify(self) -> None:
        """Compare the features with their checksum, once per process and file.

        Raises DamagedArtifactError, or OSError where the file cannot be read; FileNotFoundError where it was replaced.
        """
        status = self.path.stat()
        state = self.path, status.st_ino, status.st_mtime_ns, status.st_size, self.artifact.checksum
        if state not in VERIFIED:
            self.artifact.tensor("features")
            VERIFIED.add(state)


Part: TypeAlias = Shard | MemoryRows


class Index:
    """Finds digests in the rows of several `parts`. Building it takes a sort, looking up a binary search."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self.parts = tuple(parts)

    def find(self, digests: Digests) -> tuple[Rows, Rows]:
        """For each of `digests` (M, 2) the number of a part that has it, -1 where none has, and the row in the part."""
        high, low, order, starts = self._sorted
        place = np.searchsorted(high, digests[:, 0])
        matches = np.full(len(digests), -1, np.int64)
        rest = np.arange(len(digests))
        while len(rest):  # equal first halves are duplicates or, rarely, different digests
            rest = rest[place[rest] < len(high)]
            rest = rest[high[place[rest]] == digests[rest, 0]]
            same = low[place[rest]] == digests[rest, 1]
            matches[rest[same]] = order[place[rest[same]]]
            rest = rest[~same]
            place[rest] += 1
        part = np.where(matches < 0, -1, np.searchsorted(starts, matches, side="right") - 1)
        return part, np.where(matches < 0, -1, matches - starts[part])

    @cached_property
    def _sorted(self) -> tuple[Rows, Rows, Rows, Rows]:
        # Ends with the total, so that parts without rows own nothing.
        starts = np.cumsum([0, *(len(part.digests) for part in self.parts)], dtype=np.int64)
        digests = np.concatenate([np.empty((0, 2), np.int64), *(part.digests for part in self.parts)])
        order = np.argsort(digests[:, 0])
        return digests[order, 0], digests[order, 1], order, starts


def merged(parts: Sequence[Part]) -> tuple[Digests, Tensor]:
    """The distinct rows of `parts`. Raises what reading them raises."""
    digests = np.concatenate([part.digests for part in parts])
    _, first = np.unique(digests, axis=0, return_index=True)
    first.sort()
    return digests[first], torch.cat([part.read() for part in parts])[torch.from_numpy(first)]
