"""Features on disk: whatever is frozen is computed once, and never used with a partner it does not belong to."""

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mlcl_cli.errors import MachineError
from mlcl_cli.features.shards import (
    DamagedShardError,
    Digests,
    Index,
    MemoryRows,
    Part,
    Rows,
    Shard,
    digests_of,
    merged,
)

logger = logging.getLogger(__name__)

SHARD_BYTES = 32 * 2**20
MERGED_AT_ONCE = 8
SETTLED_BYTES = SHARD_BYTES // MERGED_AT_ONCE  # shards of this size are never merged, so merged ones are no larger
SMALL_BYTES = 2**14
ATTEMPTS = 3


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
    """A folder of shards. A row is found by its name and its stamp, which tells whether its source has changed.

    `key` is what determines the features (encoder weights, transform, arithmetic); it also names the folder. Adding
    rows writes a new shard. Small shards are merged, eight of about a size into one, so that few are left. A row may be
    in several shards: the features of a name and a stamp are the same everywhere.

    A bank that does not write keeps new rows in memory. To one that writes, the caller holds the lock.
    """

    def __init__(self, path: Path, key: Mapping[str, str], *, writes: bool) -> None:
        self.path, self._key, self._writes = path, key, writes
        self._in_memory: list[MemoryRows] = []
        self._shards: list[Shard] = []
        self._last = 0  # the highest number that a shard has had
        self._settled = self._small = Index([])
        self._load()

    @staticmethod
    def path_of(folder: Path, key: Mapping[str, str]) -> Path:
        """The folder of the bank for `key`."""
        name = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:16]
        return folder / f"{key['kind']}-{name}"

    @classmethod
    def open(cls, folder: Path, key: Mapping[str, str], *, writes: bool = True) -> "Bank":
        """The bank for `key` under `folder`. Warns of damaged shards, whose rows are missing then."""
        return cls(cls.path_of(folder, key), key, writes=writes)

    def missing(self, stamps: Mapping[str, str]) -> list[str]:
        """Names that have no features under their stamp."""
        _, owners, _ = self._locate(digests_of(stamps))
        return [name for name, owner in zip(stamps, owners.tolist(), strict=True) if owner < 0]

    def add(self, stamps: Mapping[str, str], features: Tensor) -> None:
        """Adds features (len(stamps), d), in the order of `stamps`. Raises MachineError if they cannot be written."""
        if not stamps:
            return
        digests, features = digests_of(stamps), features.detach().float().cpu()
        if not self._writes:
            self._in_memory.append(MemoryRows(digests, features))
            self._reindex()
            return
        count = max(1, SHARD_BYTES // (features.itemsize * max(1, features.shape[1])))
        for start in range(0, len(features), count):
            rows = slice(start, start + count)
            self._write(digests[rows], features[rows])
        self._merge()

    def table(self, stamps: Mapping[str, str], device: torch.device) -> FeatureTable:
        """The features of all names in `stamps`, row by row in that order, on `device`.

        Raises MachineError where rows are gone, which happens to a process that does not hold the lock.
        """
        digests = digests_of(stamps)
        for _ in range(ATTEMPTS):
            parts, owners, rows = self._locate(digests)
            if (owners < 0).any():
                break
            try:
                values = _gather(parts, owners, rows)
            except (DamagedShardError, OSError):  # changed since it was located
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
            lacking = np.flatnonzero(owners < 0)
            few, few_rows = self._small.find(digests[lacking])
            owners[lacking] = np.where(few < 0, -1, few + len(self._settled.parts))
            rows[lacking] = few_rows
            parts = [*self._settled.parts, *self._small.parts]
            used = [parts[number] for number in np.unique(owners[owners >= 0])]
            if all(self._is_sound(part) for part in used):
                return parts, owners, rows

    def _is_sound(self, part: Part) -> bool:
        """Whether a part's features are what was written; one whose features are not is left out from here on."""
        if not isinstance(part, Shard):
            return True
        try:
            part.verify()
        except FileNotFoundError:  # merged by the process that holds the lock
            self._load()
        except (DamagedShardError, OSError) as error:
            self._leave_out(part.path, error)
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
        for path in sorted(self.path.glob("[0-9]*.safetensors")):
            if not path.stem.isdecimal():
                continue
            self._last = max(self._last, int(path.stem))
            try:
                self._shards.append(Shard.open(path, self._key))
            except FileNotFoundError:
                continue
            except (DamagedShardError, OSError) as error:
                self._leave_out(path, error)
        self._reindex()

    def _leave_out(self, path: Path, error: DamagedShardError | OSError) -> None:
        problem = getattr(error, "strerror", None) or error
        logger.warning(f"{path}: {problem}. Its features are computed again")
        if self._writes and isinstance(error, DamagedShardError) and not self.path.is_symlink():
            with suppress(OSError):
                path.unlink()

    def _reindex(self) -> None:
        """Large shards have an index of their own, which new rows leave as it is."""
        settled = [shard for shard in self._shards if shard.size >= SETTLED_BYTES]
        small = [shard for shard in self._shards if shard.size < SETTLED_BYTES]
        if self._settled.parts != tuple(settled):
            self._settled = Index(settled)
        self._small = Index([*small, *self._in_memory])

    def _write(self, digests: Digests, features: Tensor) -> None:
        self._last += 1
        self._shards.append(Shard.write(self.path / f"{self._last:04}.safetensors", self._key, digests, features))
        self._reindex()

    def _merge(self) -> None:
        """Merges small shards. One that is interrupted leaves rows in two shards, which does no harm."""
        while alike := self._alike():
            if not all(self._is_sound(shard) for shard in alike):
                continue
            try:
                self._write(*merged(alike))
            except (DamagedShardError, OSError, MachineError):  # the small ones still hold the rows
                return
            self._shards = [shard for shard in self._shards if shard not in alike]
            self._reindex()
            for shard in alike:
                with suppress(OSError):
                    shard.path.unlink()

    def _alike(self) -> list[Shard]:
        """Small shards of about a size, as many as are merged at once, if there are as many."""
        classes = defaultdict(list)
        for shard in self._shards:
            if shard.size < SETTLED_BYTES:
                classes[_size_class(shard.size)].append(shard)
        return next((few[:MERGED_AT_ONCE] for few in classes.values() if len(few) >= MERGED_AT_ONCE), [])


def _size_class(size: int) -> int:
    number = 0
    while size >= SMALL_BYTES * MERGED_AT_ONCE:
        size, number = size // MERGED_AT_ONCE, number + 1
    return number


def _gather(parts: Sequence[Part], owners: Rows, rows: Rows) -> Tensor:
    """Features (N, d) of `rows` of the parts that `owners` numbers."""
    values = torch.empty(0, 0)
    for number in np.unique(owners):
        own = owners == number
        read = parts[number].read(rows[own])
        if not len(values):
            values = torch.empty(len(owners), read.shape[1])
        values[torch.from_numpy(own)] = read
    return values
