"""Features on disk: what a frozen encoder gives is computed once, and never used with another encoder or transform."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mlcl_cli.artifacts import DamagedArtifactError, read_metadata
from mlcl_cli.errors import MachineError
from mlcl_cli.features.shards import FORMAT, Digests, Index, MemoryRows, Part, Rows, Shard, digests_of, merged

logger = logging.getLogger(__name__)

SHARD_BYTES = 32 * 2**20
MERGED_AT_ONCE = 8
SETTLED_BYTES = SHARD_BYTES // MERGED_AT_ONCE  # shards of this size are never merged, so merged ones are no larger
ATTEMPTS = 3
OLDER_FORMATS = ("mlcl features 1", "mlcl features 2")


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


class Bank:
    """A folder of shards. A row is found by its name and its stamp, which changes with its source.

    `key` is what determines the features (encoder weights, transform, arithmetic); it also names the folder. Adding
    rows writes a new shard; small shards are merged as soon as there are eight. A row may be in several shards: the
    features of a name and a stamp are the same everywhere.

    A bank that does not write keeps new rows in memory. For one that writes, the caller holds the lock.
    """

    def __init__(self, folder: Path, key: Mapping[str, str], *, writes: bool = True) -> None:
        """Open the bank for `key` under `folder`. Warns of damaged shards, whose rows count as missing."""
        self.path, self._key, self._writes = self.path_of(folder, key), key, writes
        self._in_memory: list[MemoryRows] = []
        self._shards: list[Shard] = []
        self._last = 0  # the highest number that a shard has had
        self._settled = self._small = Index([])
        self._load()

    @staticmethod
    def path_of(folder: Path, key: Mapping[str, str]) -> Path:
        """The folder of the bank for `key`."""
        name = hashlib.sha256(json.dumps([FORMAT, dict(key)], sort_keys=True).encode()).hexdigest()[:16]
        return folder / f"{key['kind']}-{name}"

    def missing(self, stamps: Mapping[str, str]) -> list[str]:
        """Names that have no features under their stamp."""
        _, owners, _ = self._locate(digests_of(stamps))
        return [name for name, owner in zip(stamps, owners.tolist(), strict=True) if owner < 0]

    def add(self, stamps: Mapping[str, str], features: Tensor) -> None:
        """Add features (len(stamps), d), in the order of `stamps`. Raises MachineError if they cannot be written."""
        if not stamps:
            return
        digests, features = digests_of(stamps), features.detach().float().cpu()
        if not self._writes:
            self._in_memory.append(MemoryRows(digests, features))
            self._reindex()
            return
        count = max(1, SHARD_BYTES // (features.itemsize * max(1, features.shape[1])))
        for start in range(0, len(features), count):
            self._write(digests[start : start + count], features[start : start + count])
        self._merge()

    def table(self, stamps: Mapping[str, str], device: torch.device) -> FeatureTable:
        """The features of all names in `stamps`, row by row in that order, on `device`.

        Raises MachineError where rows disappeared, which can happen to a process that does not hold the lock.
        """
        digests = digests_of(stamps)
        for _ in range(ATTEMPTS):
            parts, owners, rows = self._locate(digests)
            if (owners < 0).any():
                break
            try:
                values = _gather(parts, owners, rows)
            except (DamagedArtifactError, OSError):  # changed since it was located
                self._load()
                continue
            return FeatureTable({name: row for row, name in enumerate(stamps)}, values.to(device))
        raise MachineError(
            "the feature bank changed while it was read", where=self.path, remedy="Run the command again"
        )

    def _locate(self, digests: Digests) -> tuple[Sequence[Part], Rows, Rows]:
        """The parts, and for each digest the number of a sound part, -1 where there is none, and the row in it."""
        while True:
            owners, rows = self._settled.find(digests)
            rest = np.flatnonzero(owners < 0)
            small_owners, rows[rest] = self._small.find(digests[rest])
            owners[rest] = np.where(small_owners < 0, -1, small_owners + len(self._settled.parts))
            parts = [*self._settled.parts, *self._small.parts]
            if all(self._is_sound(parts[number]) for number in np.unique(owners[owners >= 0])):
                return parts, owners, rows

    def _is_sound(self, part: Part) -> bool:
        """Whether a part's features are what was written; a damaged one is dropped from the bank."""
        if not isinstance(part, Shard):
            return True
        try:
            part.verify()
        except FileNotFoundError:  # merged by the process that holds the lock
            self._load()
        except (DamagedArtifactError, OSError) as error:
            self._drop(part.path, error)
            self._shards = [shard for shard in self._shards if shard is not part]
            self._reindex()
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
                self._shards.append(Shard.open(path, self._key))
            except FileNotFoundError:
                continue
            except (DamagedArtifactError, OSError) as error:
                self._drop(path, error)
        self._reindex()

    def _drop(self, path: Path, error: DamagedArtifactError | OSError) -> None:
        """Warn of a shard that cannot be used, and delete it if it is damaged."""
        problem = error.what if isinstance(error, DamagedArtifactError) else error.strerror
        logger.warning(f"{path}: {problem}. Its features are computed again")
        if self._writes and isinstance(error, DamagedArtifactError) and not self.path.is_symlink():
            with suppress(OSError):
                path.unlink()

    def _reindex(self) -> None:
        """Index the shards. Large ones have an index of their own, which new rows leave as it is."""
        settled = tuple(shard for shard in self._shards if shard.size >= SETTLED_BYTES)
        if self._settled.parts != settled:
            self._settled = Index(settled)
        self._small = Index([*self._small_shards(), *self._in_memory])

    def _write(self, digests: Digests, features: Tensor) -> None:
        self._last += 1
        self._shards.append(Shard.write(self.path / f"{self._last:04}.safetensors", self._key, digests, features))
        self._reindex()

    def _merge(self) -> None:
        """Merge small shards. An interrupted merge leaves rows in two shards, which does no harm."""
        while len(group := self._small_shards()[:MERGED_AT_ONCE]) == MERGED_AT_ONCE:
            if not all(self._is_sound(shard) for shard in group):
                continue
            try:
                self._write(*merged(group))
            except (DamagedArtifactError, OSError, MachineError):  # the small ones still hold the rows
                return
            self._shards = [shard for shard in self._shards if shard not in group]
            self._reindex()
            for shard in group:
                with suppress(OSError):
                    shard.path.unlink()

    def _small_shards(self) -> list[Shard]:
        return [shard for shard in self._shards if shard.size < SETTLED_BYTES]


def older_banks(folder: Path) -> list[Path]:
    """The banks under `folder` in formats of older versions: single files, or folders of shards."""
    files = {path: path for path in folder.glob("*.safetensors")}
    files |= {path: shards[0] for path in folder.glob("*/") if (shards := _shard_paths(path))}
    return sorted(path for path, file in files.items() if _format_of(file) in OLDER_FORMATS)


def _format_of(path: Path) -> str | None:
    try:
        return read_metadata(path).get("format")
    except (DamagedArtifactError, OSError):
        return None


def _shard_paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*.safetensors") if path.stem.isdecimal())


def _gather(parts: Sequence[Part], owners: Rows, rows: Rows) -> Tensor:
    """Features (N, d) of `rows` of the parts that `owners` numbers."""
    values = torch.empty(0, 0)
    for number in np.unique(owners):
        mask = owners == number
        features = parts[number].read()[torch.from_numpy(rows[mask])]
        if not len(values):
            values = torch.empty(len(owners), features.shape[1])
        values[torch.from_numpy(mask)] = features
    return values
