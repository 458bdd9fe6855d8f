"""Features on disk: what a frozen encoder gives is computed once, and never used with another encoder or transform."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlcl_cli.artifacts import Artifact, DamagedArtifactError, read_metadata
from mlcl_cli.errors import MachineError

logger = logging.getLogger(__name__)

FORMAT = "mlcl features 3"
OLDER_FORMATS = ("mlcl features 1", "mlcl features 2")
SHARD_BYTES = 32 * 2**20
MERGED_AT_ONCE = 8
SETTLED_BYTES = SHARD_BYTES // MERGED_AT_ONCE  # shards of this size are never merged, so merged ones are no larger
ATTEMPTS = 10
VERIFIED: set[tuple[object, ...]] = set()  # the files whose features this process has verified
Digests: TypeAlias = NDArray[np.bytes_]
Rows: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class FeatureTable:
    """Raw features by name: `values` (N, d) fp32 on the device, `rows` the row of each name."""

    rows: Mapping[str, int]
    values: Tensor

    def index(self, names: Sequence[str]) -> Tensor:
        """Row numbers of `names`, int64, on the device."""
        return torch.tensor([self.rows[name] for name in names], dtype=torch.int64).to(self.values.device)

    def of(self, names: Sequence[str]) -> Tensor:
        """Features of `names`, (len(names), d)."""
        return self.values.index_select(0, self.index(names))


def digests_of(stamps: Mapping[str, str]) -> Digests:
    """128 bits for each name and stamp, (N,). A changed stamp gives another digest."""
    texts = (f"{name}\0{stamp}".encode("utf-8", "surrogatepass") for name, stamp in stamps.items())
    return np.frombuffer(b"".join(hashlib.blake2b(text, digest_size=16).digest() for text in texts), "S16")


@dataclass(frozen=True, eq=False)
class MemoryRows:
    """Rows that are not on disk: `digests` (N,), `features` fp32 (N, d)."""

    digests: Digests
    features: Tensor

    def read(self) -> Tensor:
        """The features."""
        return self.features


@dataclass(frozen=True, eq=False)
class Shard:
    """A file, written once: `digests` (N,), in memory, and features fp32 (N, d), memory-mapped when they are read."""

    artifact: Artifact
    digests: Digests
    size: int

    def read(self) -> Tensor:
        """Features (N, d), unverified. Raises DamagedArtifactError, or OSError if the file cannot be read."""
        return self.artifact.tensor("features", verify=False)

    def verify(self) -> None:
        """Compare the features with their checksum, once per process and file.

        Raises DamagedArtifactError, or OSError if the file cannot be read; FileNotFoundError if it was replaced.
        """
        status = self.artifact.path.stat()
        state = self.artifact.path, status.st_ino, status.st_mtime_ns, status.st_size, self.artifact.checksum
        if state not in VERIFIED:
            self.artifact.tensor("features")
            VERIFIED.add(state)


class Index:
    """Finds digests in the rows of several `parts`: a sort to build, a binary search to look up."""

    def __init__(self, parts: Sequence[Shard | MemoryRows] = ()) -> None:
        self.parts = parts
        self._starts = np.cumsum([0, *(len(part.digests) for part in parts)], dtype=np.int64)
        digests = np.concatenate([np.empty(0, "S16"), *(part.digests for part in parts)])
        self._order = np.argsort(digests)
        self._sorted = digests[self._order]

    def find(self, digests: Digests) -> tuple[Rows, Rows]:
        """For each of `digests` (M,), the number of a part that has it, or -1, and the row in that part."""
        places = np.searchsorted(self._sorted, digests)
        exists = places < len(self._sorted)
        exists[exists] = self._sorted[places[exists]] == digests[exists]
        rows = np.full(len(digests), -1, np.int64)
        rows[exists] = self._order[places[exists]]
        owners = np.where(exists, np.searchsorted(self._starts, rows, side="right") - 1, -1)
        return owners, rows - self._starts[owners]


class Bank:
    """A folder of shards. A row is found by its name and its stamp, which changes with its source.

    `key` is what determines the features (encoder weights, transform, arithmetic); it also names the folder. Adding
    rows writes a new shard; small shards are merged as soon as there are eight. A row may be in several shards: the
    features of a name and a stamp are the same everywhere.

    A bank that does not write keeps new rows in memory. For one that writes, the caller holds the lock.
    """

    def __init__(self, folder: Path, key: Mapping[str, str], *, writes: bool = True) -> None:
        """Open the bank for `key` under `folder`. Warns of damaged shards, whose rows count as missing."""
        self.path, self._key, self._writes = self.path_of(folder, key), dict(key), writes
        self._in_memory: list[MemoryRows] = []
        self._shards: list[Shard] = []
        self._last = 0  # the highest number that a shard has had
        self._index = Index()
        self._load()

    @staticmethod
    def path_of(folder: Path, key: Mapping[str, str]) -> Path:
        """The folder of the bank for `key`."""
        name = hashlib.sha256(json.dumps([FORMAT, dict(key)], sort_keys=True).encode()).hexdigest()[:16]
        return folder / f"{key['kind']}-{name}"

    def missing(self, stamps: Mapping[str, str]) -> list[str]:
        """Names that have no features under their stamp."""
        owners, _ = self._locate(digests_of(stamps))
        return [name for name, owner in zip(stamps, owners.tolist(), strict=True) if owner < 0]

    def add(self, stamps: Mapping[str, str], features: Tensor) -> None:
        """Add features (len(stamps), d), in the order of `stamps`. Raises MachineError if they cannot be written."""
        if not stamps:
            return
        digests, features = digests_of(stamps), features.detach().float().cpu()
        if not self._writes:
            self._in_memory.append(MemoryRows(digests, features))
            return
        count = max(1, SHARD_BYTES // (features.itemsize * max(1, features.shape[1])))
        for start in range(0, len(features), count):
            self._write(digests[start : start + count], features[start : start + count])
        self._merge()

    def copies(self, stamps: Mapping[str, str]) -> dict[str, str]:
        """The missing names whose stamp another name has, one with features or an earlier one, and that name.

        An encoder's last bits depend on what an image is encoded beside, and equal images must tie when ranked.
        """
        missing, sources = set(self.missing(stamps)), dict[str, str]()
        for name in sorted(stamps, key=missing.__contains__):
            sources.setdefault(stamps[name], name)
        return {name: source for name in stamps if name in missing and (source := sources[stamps[name]]) != name}

    def copy(self, stamps: Mapping[str, str], copies: Mapping[str, str]) -> None:
        """Add the features of each source of `copies` under its name. Raises MachineError as `add` and `table` do."""
        if copies:
            sources = self.table({source: stamps[source] for source in copies.values()}, torch.device("cpu"))
            self.add({name: stamps[name] for name in copies}, sources.of([*copies.values()]))

    def table(self, stamps: Mapping[str, str], device: torch.device) -> FeatureTable:
        """The features of all names in `stamps`, row by row in that order, on `device`.

        Raises MachineError if rows disappear, which can happen to a process that does not hold the lock.
        """
        digests, values = digests_of(stamps), torch.empty(0, 0)
        for _ in range(ATTEMPTS):
            owners, rows = self._locate(digests)
            if (owners < 0).any():
                break
            try:
                for number, part in enumerate(self._index.parts):
                    if len(places := np.flatnonzero(owners == number)):
                        features = part.read()[torch.from_numpy(rows[places])]
                        if len(values) != len(owners):
                            values = torch.empty(len(owners), features.shape[1])
                        values[torch.from_numpy(places)] = features
            except (DamagedArtifactError, OSError):  # changed since it was located
                self._load()
                continue
            return FeatureTable({name: row for row, name in enumerate(stamps)}, values.to(device))
        what = "the feature bank changed while it was being read"
        raise MachineError(what, where=self.path, remedy="Run the command again")

    def _locate(self, digests: Digests) -> tuple[Rows, Rows]:
        """What `Index.find` finds, in undamaged parts only."""
        while True:
            parts: list[Shard | MemoryRows] = [*self._shards, *self._in_memory]
            if self._index.parts != parts:
                self._index = Index(parts)
            owners, rows = self._index.find(digests)
            if all(self._is_sound(parts[number]) for number in np.unique(owners[owners >= 0])):
                return owners, rows

    def _is_sound(self, part: Shard | MemoryRows) -> bool:
        """Whether a part's features are what was written; a damaged one is dropped from the bank."""
        if isinstance(part, MemoryRows):
            return True
        try:
            part.verify()
        except FileNotFoundError:  # merged by the process that holds the lock
            self._load()
        except (DamagedArtifactError, OSError) as error:
            self._drop(part.artifact.path, error)
            self._shards.remove(part)
        else:
            return True
        return False

    def _load(self) -> None:
        self._shards = []
        if self._writes and not self.path.is_symlink():  # a link may lead to a folder of the user's
            for left_over in self.path.glob(".*.partial"):  # by a process that was killed
                with suppress(OSError):
                    left_over.unlink()
        for path in _shard_paths(self.path):
            self._last = max(self._last, int(path.stem))
            try:
                size, artifact = path.stat().st_size, Artifact.open(path)
                if artifact.format != FORMAT or artifact.description != self._key:
                    raise DamagedArtifactError("it belongs to another bank", path)
                self._shards.append(Shard(artifact, artifact.tensor("digests").numpy().copy().view("S16")[:, 0], size))
            except FileNotFoundError:
                continue
            except (DamagedArtifactError, OSError) as error:
                self._drop(path, error)

    def _drop(self, path: Path, error: DamagedArtifactError | OSError) -> None:
        """Warn of a shard that cannot be used, and delete it if it is damaged."""
        problem = error.what if isinstance(error, DamagedArtifactError) else error.strerror
        logger.warning(f"{path}: {problem}. Its features will be recomputed")
        if self._writes and isinstance(error, DamagedArtifactError) and not self.path.is_symlink():
            with suppress(OSError):
                path.unlink()

    def _write(self, digests: Digests, features: Tensor) -> None:
        self._last += 1
        path = self.path / f"{self._last:04}.safetensors"
        pairs = torch.from_numpy(digests.copy().view(np.int64).reshape(-1, 2))
        artifact = Artifact.save(path, FORMAT, self._key, {"digests": pairs, "features": features})
        self._shards.append(Shard(artifact, digests, path.stat().st_size))

    def _merge(self) -> None:
        """Merge small shards. An interrupted merge leaves rows in two shards, which does no harm."""
        while True:
            group = [shard for shard in self._shards if shard.size < SETTLED_BYTES][:MERGED_AT_ONCE]
            if len(group) < MERGED_AT_ONCE:
                return
            if not all(self._is_sound(shard) for shard in group):
                continue
            digests = np.concatenate([shard.digests for shard in group])
            rows = np.sort(np.unique(digests, return_index=True)[1])
            try:
                self._write(digests[rows], torch.cat([shard.read() for shard in group])[torch.from_numpy(rows)])
            except (DamagedArtifactError, OSError, MachineError):  # the small ones still hold the rows
                return
            for shard in group:
                self._shards.remove(shard)
                with suppress(OSError):
                    shard.artifact.path.unlink()


def older_banks(folder: Path) -> list[str]:
    """Names of the banks under `folder` in formats of older versions: single files, or folders of shards."""
    names = []
    for path in sorted(folder.glob("*")):
        file = next(iter(_shard_paths(path)), path)
        with suppress(DamagedArtifactError, OSError):
            if file.suffix == ".safetensors" and read_metadata(file).get("format") in OLDER_FORMATS:
                names.append(path.name)
    return names


def _shard_paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*.safetensors") if path.stem.isdecimal())
