"""Shards: the immutable files that a feature bank is made of."""

import hashlib
import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mlcl_cli.atomic_files import write_tensors

FORMAT = "mlcl features 2"
Digests: TypeAlias = NDArray[np.int64]
Rows: TypeAlias = NDArray[np.int64]


class DamagedShardError(Exception):
    """A shard's content is not what was written; the message says how."""


def digests_of(stamps: Mapping[str, str]) -> Digests:
    """128 bits for each name and stamp, int64 (N, 2). A changed stamp gives another digest."""
    hashes = (
        hashlib.blake2b(f"{name}\0{stamp}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
        for name, stamp in stamps.items()
    )
    return np.frombuffer(b"".join(hashes), np.int64).reshape(-1, 2)


class Part(Protocol):
    """Features that can be found by digest: a shard, or rows in memory."""

    @property
    def digests(self) -> Digests:
        """int64 (N, 2)."""

    def read(self, rows: Rows | None = None) -> Tensor:
        """Features of `rows`, or of all, fp32 (len(rows), d).

        Raises DamagedShardError, or OSError where the file cannot be read.
        """


@dataclass(frozen=True, eq=False)
class MemoryRows:
    """Rows that are not on disk: `digests` int64 (N, 2), `features` fp32 (N, d)."""

    digests: Digests
    features: Tensor

    def read(self, rows: Rows | None = None) -> Tensor:
        """Features of `rows`, or of all."""
        return self.features if rows is None else self.features[torch.from_numpy(rows)]


@dataclass(frozen=True, eq=False)
class Shard:
    """A safetensors file: `digests` int64 (N, 2), in memory, and features fp32 (N, d), mapped when they are read.

    Files are written once and never changed. The checksum of the features is verified when they are first read.
    """

    path: Path
    digests: Digests
    description: Mapping[str, str]
    size: int

    @classmethod
    def open(cls, path: Path, key: Mapping[str, str]) -> "Shard":
        """Reads and verifies everything but the features.

        Raises DamagedShardError, or OSError where the file cannot be read.
        """
        size = path.stat().st_size
        description, digests = _read(path, "digests")
        try:
            of_this_bank = description.get("format") == FORMAT and json.loads(description["key"]) == dict(key)
        except (ValueError, KeyError, RecursionError):
            of_this_bank = False
        if not of_this_bank:
            raise DamagedShardError("belongs to another bank")
        is_digests = digests.dtype == torch.int64 and digests.shape[1:] == (2,)
        if not is_digests or _checksum(digests) != description.get("digests"):
            raise DamagedShardError("does not match its checksum")
        return cls(path, digests.numpy().copy(), description, size)

    @classmethod
    def write(cls, path: Path, key: Mapping[str, str], digests: Digests, features: Tensor) -> "Shard":
        """Writes `features` (N, d) whole or not at all. Raises MachineError where that fails."""
        tensors = {"digests": torch.from_numpy(digests.copy()), "features": features.contiguous()}
        description = {"format": FORMAT, "key": json.dumps(dict(key), sort_keys=True)}
        description |= {name: _checksum(tensor) for name, tensor in tensors.items()}
        write_tensors(path, tensors, description)
        return cls(path, tensors["digests"].numpy(), description, path.stat().st_size)

    def read(self, rows: Rows | None = None) -> Tensor:
        """Features of `rows`, or of all. Raises DamagedShardError, or OSError where the file cannot be read."""
        self.verify()
        description, features = _read(self.path, "features")
        if description != self.description:
            raise FileNotFoundError(self.path)
        return features if rows is None else features[torch.from_numpy(rows)]

    def verify(self) -> None:
        """Compares the features with their checksum, once per process and file.

        Raises DamagedShardError, or OSError where the file cannot be read or is not the one that was opened.
        """
        status = self.path.stat()
        content = status.st_ino, status.st_mtime_ns, status.st_size, tuple(sorted(self.description.items()))
        description, count, checksum = features_checksum(self.path, content)
        if description != self.description:
            raise FileNotFoundError(self.path)
        if (count, checksum) != (len(self.digests), description.get("features")):
            raise DamagedShardError("does not match its checksum")


class Index:
    """Finds digests in the rows of several `parts`. Building it takes a sort, looking up a binary search."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self.parts = tuple(parts)

    def find(self, digests: Digests) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each of `digests` (M, 2) the number of a part that has it, -1 where none has, and the row in the part."""
        high, low, order, starts = self._sorted
        place = np.searchsorted(high, digests[:, 0])
        found = np.full(len(digests), -1, np.int64)
        rest = np.arange(len(digests))
        while len(rest):  # equal first halves are duplicates or, rarely, different digests
            rest = rest[place[rest] < len(high)]
            rest = rest[high[place[rest]] == digests[rest, 0]]
            same = low[place[rest]] == digests[rest, 1]
            found[rest[same]] = order[place[rest[same]]]
            rest = rest[~same]
            place[rest] += 1
        part = np.where(found < 0, -1, np.searchsorted(starts, found, side="right") - 1)
        return part, np.where(found < 0, -1, found - starts[part])

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        lengths = [len(part.digests) for part in self.parts]
        # Ends with the total, so that parts without rows own nothing.
        starts = np.cumsum([0, *lengths], dtype=np.int64)
        high, low = (
            np.concatenate([np.empty(0, np.int64), *(part.digests[:, half] for part in self.parts)]) for half in (0, 1)
        )
        order = np.argsort(high)
        return high[order], low[order], order, starts


def merged(parts: Sequence[Part]) -> tuple[Digests, Tensor]:
    """The distinct rows of `parts`. Raises what reading them raises."""
    digests = np.concatenate([part.digests for part in parts])
    _, first = np.unique(digests, axis=0, return_index=True)
    first.sort()
    return digests[first], torch.cat([part.read() for part in parts])[torch.from_numpy(first)]


def _read(path: Path, name: str) -> tuple[dict[str, str], Tensor]:
    """The metadata, and a tensor that is mapped rather than read."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {}), file.get_tensor(name)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise DamagedShardError(f"cannot be read ({error})") from error


@lru_cache(maxsize=2**16)
def features_checksum(path: Path, content: Hashable) -> tuple[dict[str, str], int, str]:  # noqa: ARG001
    """A file's metadata, the number of its rows and their checksum; `content` tells one content from another.

    Raises DamagedShardError, or OSError where the file cannot be read.
    """
    description, features = _read(path, "features")
    if features.dtype != torch.float32 or features.dim() != 2:
        raise DamagedShardError("holds no features")
    return description, len(features), _checksum(features)


def _checksum(tensor: Tensor) -> str:
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    digest.update(tensor.numpy().data)
    return digest.hexdigest()


def is_former_bank(path: Path) -> bool:
    """Whether `path` is a bank in the single-file format of older versions."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == "mlcl features 1"
    except (SafetensorError, OSError, ValueError, RuntimeError):
        return False
