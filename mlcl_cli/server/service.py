"""What answers requests: the engine and what belongs to it, replaced when another CLIP takes over the catalog."""

import asyncio
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlcl_cli.errors import MlclError
from mlcl_cli.progress import NoProgress
from mlcl_cli.server.batching import Batcher
from mlcl_cli.server.lanes import Lane
from mlcl_cli.server.metrics import Metrics
from mlcl_cli.server.settings import ServerSettings
from mlcl_cli.workflows.catalog_editing import CatalogEditor
from mlcl_cli.workflows.catalog_listing import Listing
from mlcl_cli.workflows.search_engine import SearchEngine

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 5.0
MAX_WRITES = 64  # that wait for each other
MAX_FETCHES = 8  # searches for images on the web at once


@dataclass(frozen=True)
class Loaded:
    """An engine, and what reads and changes its catalog."""

    engine: SearchEngine
    listing: Listing
    editor: CatalogEditor
    about: Mapping[str, object]

    @classmethod
    def open(cls, settings: ServerSettings) -> "Loaded":
        """Load what the profile describes. Raises as `SearchEngine.open` does."""
        engine = SearchEngine.open(
            settings.profile, NoProgress(), settings.combining_function, settings.checkpoint, in_background=True
        )
        return cls(engine, Listing(engine.store), CatalogEditor(engine), _about(engine))


class Service:
    """One worker's engine, batches and counters."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings, self.metrics = settings, Metrics()
        self.loaded = Loaded.open(settings)
        self.batcher = Batcher(
            settings.max_batch, settings.max_waiting, max(2, os.cpu_count() or 1), self.metrics.batch_size.observe
        )
        self.reads, self.writes = Lane("read", 2, settings.max_waiting), Lane("write", 1, MAX_WRITES)
        self.fetches = asyncio.Semaphore(MAX_FETCHES)
        self.metrics.waiting.set_function(lambda: self.batcher.waiting)
        self.is_ready = False

    async def start(self) -> None:
        """Search once, so that the first request finds everything ready, and begin to answer."""
        await asyncio.to_thread(self.loaded.engine.warm_up)
        self.batcher.start()
        self._watch = asyncio.create_task(self._follow_catalog())
        self.is_ready = True

    async def stop(self) -> None:
        """Finish what is in flight."""
        self.is_ready = False
        self._watch.cancel()
        with suppress(asyncio.CancelledError):
            await self._watch
        await self.batcher.stop()
        self.reads.stop()
        self.writes.stop()

    async def _follow_catalog(self) -> None:
        """Load a new engine when a new CLIP's table has become current."""
        while True:
            try:
                if await asyncio.to_thread(self._is_outdated):
                    loaded = await asyncio.to_thread(Loaded.open, self.settings)
                    await asyncio.to_thread(loaded.engine.warm_up)
                    self.loaded = loaded
                    logger.info("switched to the catalog's new table")
                await asyncio.to_thread(self.loaded.editor.tidy)
                self.metrics.rows.set(await asyncio.to_thread(self.loaded.engine.store.count))
            except MlclError as error:
                logger.error(f"the catalog cannot be followed: {error}")
            except Exception as error:  # the next look may succeed
                logger.error("the catalog cannot be followed", exc_info=error)
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)

    def _is_outdated(self) -> bool:
        current = self.loaded.engine.catalog.current()
        return current is not None and current.info.encoder != self.loaded.engine.store.info.encoder


def _about(engine: SearchEngine) -> dict[str, object]:
    """Which weights query, without paths of this machine."""
    about = engine.about()
    hidden = {
        key: Path(str(value)).parent.name if value else None for key, value in about.items() if key == "checkpoint"
    }
    return {key: value for key, value in about.items() if key != "clip"} | hidden
