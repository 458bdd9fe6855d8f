"""`mlcl index`: a catalog of one's own into a store, encoded by the CLIP that queries it."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

from mlcl_cli.atomic_files import to_json, write_file
from mlcl_cli.catalog.source import Shard, Source
from mlcl_cli.config import Profile
from mlcl_cli.errors import DataError, some
from mlcl_cli.features.store import FeatureStore
from mlcl_cli.formatting import counted, duration
from mlcl_cli.images.decode import BadImage, BadImagesError
from mlcl_cli.progress import NOTICE, Advance, Progress
from mlcl_cli.stores.open import open_catalog
from mlcl_cli.stores.searching import SearchMode, gpu_memory, wants_index
from mlcl_cli.stores.store import Catalog, IndexReport, Store, TableInfo
from mlcl_cli.workflows.catalog_clip import choose_catalog_clip, table_info
from mlcl_cli.workflows.catalog_ids import IdSet, ids_of_shard
from mlcl_cli.workflows.checkpoint_selection import ClipChoice, load_encoder
from mlcl_cli.workflows.index_shard import Counts, ShardIndexer
from mlcl_cli.workflows.run_context import RunContext

logger = logging.getLogger(__name__)

FOLDER = "catalogs"  # of the workspace
MAX_REMOVED = 0.2  # of the rows, without --force
DELETED_AT_ONCE = 5_000
WHOLE = Shard()


@dataclass(frozen=True)
class IndexOptions:
    """What is indexed and how: `columns` are the names of the table's columns (`open_source`).

    `sync` removes rows that the catalog no longer has, more than MAX_REMOVED of them only with `force`.
    """

    catalog: tuple[Path, ...]
    columns: Mapping[str, str]
    sync: bool = False
    force: bool = False
    shard: Shard = WHOLE

    @property
    def source(self) -> str:
        """The catalog in words."""
        return some(self.catalog, 1)


@dataclass(frozen=True)
class Stale:
    """How many `rows` of those `stored` in a table are not in the catalog."""

    rows: int = 0
    stored: int = 0

    def __add__(self, other: "Stale") -> "Stale":
        return Stale(self.rows + other.rows, self.stored + other.stored)


@dataclass(frozen=True)
class ShardResult:
    """What became of a shard's rows.

    `bad` are the images that could not be read. `stale` are rows to remove. `left_out` are rows of the current table of
    another CLIP that this one does not have: while there are any, searches keep using that one.
    """

    counts: Counts
    bad: Sequence[BadImage] = ()
    stale: Stale = Stale()
    left_out: Stale = Stale()
    removed: int = 0

    def __add__(self, other: "ShardResult") -> "ShardResult":
        return ShardResult(
            self.counts + other.counts,
            (*self.bad, *other.bad),
            self.stale + other.stale,
            self.left_out + other.left_out,
            self.removed + other.removed,
        )


@dataclass(frozen=True)
class IndexResult:
    """The table after indexing; `current` says whether searches use it."""

    catalog: str
    place: str
    rows: int
    shard: ShardResult
    info: TableInfo
    clip: ClipChoice
    current: bool
    index: IndexReport | None
    seconds: float

    def as_json(self) -> dict[str, object]:
        """The object that `--json` prints."""
        counts = self.shard.counts
        return {
            "command": "index",
            "catalog": self.catalog,
            "store": self.place,
            "rows": self.rows,
            "added": counts.added,
            "updated": counts.updated,
            "unchanged": counts.unchanged,
            "removed": self.shard.removed,
            "encoded": counts.encoded,
            "bad": len(self.shard.bad),
            "current": self.current,
            "encoder": self.info.encoder,
            "clip": str(self.clip.checkpoint or self.clip.model),
            "clip_fingerprint": self.info.clip,
            "index": None if self.index is None else asdict(self.index),
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Indexing:
    """A catalog, the table that it goes into, and what encodes it."""

    profile: Profile
    options: IndexOptions
    source: Source
    catalog: Catalog
    features: FeatureStore
    clip: ClipChoice

    @classmethod
    def open(
        cls,
        profile: Profile,
        progress: Progress,
        options: IndexOptions,
        source: Source,
        clip: ClipChoice | None = None,
    ) -> Self:
        """Open the store of `source`, and load `clip`, by default the one that `evaluate` would query with.

        Raises DataError where the CLIP is missing, MachineError where the store fails.
        """
        catalog = open_catalog(profile.catalog.store, profile.workspace / FOLDER, profile.catalog.name)
        context = RunContext.open(profile, progress, writes=False)
        loaded = load_encoder(context, clip or choose_catalog_clip(context), announce=True)
        return cls(profile, options, source, catalog, context.store(loaded.encoder), loaded.choice)

    @cached_property
    def store(self) -> Store:
        """The table of the CLIP, made if there is none."""
        return self.catalog.create(table_info(self.features, self.profile.catalog.vectors, self.source.fields))

    @property
    def is_current(self) -> bool:
        """Whether searches use the table."""
        current = self.catalog.current()
        return current is not None and current.info.encoder == self.store.info.encoder

    def index(self, shard: Shard, advance: Advance) -> tuple[ShardResult, IdSet]:
        """Bring the rows of a shard up to date, count others of its products, and return the shard's ids.

        Raises DataError for a row that cannot be read, MachineError if the store fails.
        """
        indexer = ShardIndexer(self.source, self.store, self.features, shard)
        indexer.run(advance)
        current, ids = self.catalog.current(), indexer.ids
        stale = _count_stale(self.store, shard, ids) if self.options.sync else Stale()
        left_out = Stale()
        if current is not None and not self.is_current:
            kept = ids
            if not self.options.sync:
                kept = ids.copy()
                for stored in ids_of_shard(self.store, shard):
                    kept.add(stored)
            left_out = _count_stale(current, shard, kept)
        return ShardResult(indexer.counts, tuple(indexer.bad), stale, left_out), ids

    def require_removable(self, result: ShardResult) -> None:
        """Say how many rows are going to be removed. Raises DataError if they are too many."""
        for stale in (result.stale, result.left_out):
            what = f"{stale.rows:,} of {counted(stale.stored, 'row')} are not in {self.options.source} any more"
            if stale.rows > MAX_REMOVED * stale.stored and not self.options.force:
                limit = f"--sync removes at most {MAX_REMOVED:.0%}; nothing was removed"
                remedy = "If they are to go, add --force"
                raise DataError(f"{what}, and {limit}", where=self.catalog.place, remedy=remedy)
        if rows := result.stale.rows:
            logger.log(NOTICE, f"Removing {counted(rows, 'row')} no longer in {self.options.source}")

    def remove(self, shard: Shard, ids: IdSet) -> int:
        """Remove the rows of a shard's products that are not among `ids`, and return how many there were."""
        removed = 0
        for stored in ids_of_shard(self.store, shard):
            stale = ids.without(stored)
            for start in range(0, len(stale), DELETED_AT_ONCE):
                removed += _delete(self.store, shard, stale[start : start + DELETED_AT_ONCE])
        return removed

    def conclude(self, result: ShardResult, shard: Shard) -> None:
        """Compact and index the table and let searches use it, once all shards are complete."""
        if result.left_out.rows and not self.options.sync:
            what = f"{counted(result.left_out.rows, 'row')} of {self.catalog.place} are not in {self.options.source}"
            remedy = "Index the tables that they came from, too, or add --sync to leave them out"
            logger.warning(f"{what}, so searches keep using the table of the previous CLIP. {remedy}")
        elif shard.count == 1:  # indexed before the switch, so that no search meets a table without an index
            self.optimize()
            self.catalog.finish(self.store.info.encoder, 0, 1)
        elif self.catalog.finish(self.store.info.encoder, shard.index, shard.count):
            self.optimize()

    def optimize(self) -> None:
        """Compact the table, and index it where searches want that."""
        optimize_table(self.store, self.profile.catalog.search, str(self.features.encoder.compute.device))

    def report_bad(self, bad: Sequence[BadImage], shard: Shard) -> None:
        """List images that could not be read in a file. Raises BadImagesError if the profile does not permit them."""
        part = f".{shard.index}of{shard.count}" if shard.count > 1 else ""
        file = self.profile.workspace / FOLDER / f"{self.profile.catalog.name}.bad_images{part}.json"
        if not bad:
            file.unlink(missing_ok=True)
            return
        images = [{"id": image.name, "image": str(image.path), "reason": image.reason} for image in bad]
        write_file(file, to_json(images, indent=2))
        if self.profile.bad_images == "stop":
            remedy = "Everything else is stored. Fix them, or set bad_images: drop, and run the command again"
            raise BadImagesError(bad, f"{file} lists them all. {remedy}")
        logger.warning(f"{counted(len(bad), 'image')} could not be read: {some(bad)}. {file} lists them all")


def optimize_table(store: Store, mode: SearchMode, device: str) -> None:
    """Compact a table, and index it where searches on the device want that."""
    wanted = wants_index(mode, store.count(), store.info.dimension, gpu_memory(device))
    report = store.optimize(index=wanted)
    if report is not None:
        built = f"on {counted(report.rows, 'row')}, built in {duration(report.seconds)}"
        logger.log(NOTICE, f"Index {built}: recall@10 {report.recall:.3f} on held-out rows")


def run_indexing(
    profile: Profile, progress: Progress, options: IndexOptions, source: Source, ray: str | None = None
) -> IndexResult:
    """Index a catalog, which `source` reads, or a shard of it, or all shards on the Ray cluster at the address `ray`.

    Raises as `Indexing.open`, `Indexing.index` and `Indexing.conclude` do.
    """
    began = time.monotonic()
    indexing = Indexing.open(profile, progress, options, source)
    if ray is None:
        result = _index(indexing, progress)
    else:
        from mlcl_cli.workflows.ray_indexing import index_on_ray

        result = index_on_ray(ray, indexing, progress)
    indexing.conclude(result, options.shard)
    return IndexResult(
        catalog=profile.catalog.name,
        place=indexing.catalog.place,
        rows=indexing.store.count(),
        shard=result,
        info=indexing.store.info,
        clip=indexing.clip,
        current=indexing.is_current,
        index=indexing.store.index,
        seconds=time.monotonic() - began,
    )


def _index(indexing: Indexing, progress: Progress) -> ShardResult:
    options = indexing.options
    shard, total = options.shard, indexing.source.rows_estimate
    label = f"Indexing {options.source}"
    with progress.bar(label, None if total is None else -(-total // shard.count)) as advance:
        result, ids = indexing.index(shard, advance)
    indexing.report_bad(result.bad, shard)
    if not options.sync:
        return result
    indexing.require_removable(result)
    return replace(result, removed=indexing.remove(shard, ids))


def _count_stale(store: Store, shard: Shard, ids: IdSet) -> Stale:
    """The stored rows of a shard's products that are not among `ids`."""
    total = Stale()
    for stored in ids_of_shard(store, shard):
        total += Stale(len(ids.without(stored)), len(stored))
    return total


def _delete(store: Store, shard: Shard, ids: Sequence[str]) -> int:
    """Delete rows, except those that another shard has claimed meanwhile for another product."""
    mine = [identifier for batch in ids_of_shard(store, shard, ids) for identifier in batch]
    store.delete(mine)
    return len(mine)
