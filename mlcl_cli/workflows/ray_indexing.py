"""`mlcl index --ray`: the shards of a catalog on a Ray cluster, each in a worker that holds the CLIP."""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from mlcl_cli.catalog.opening import open_source
from mlcl_cli.catalog.source import Shard
from mlcl_cli.config import Profile
from mlcl_cli.errors import DataError, MachineError, MlclError, UsageError
from mlcl_cli.formatting import counted
from mlcl_cli.progress import NoProgress, Progress
from mlcl_cli.signals import SIGNALS
from mlcl_cli.workflows.checkpoint_selection import ClipChoice
from mlcl_cli.workflows.indexing import Indexing, IndexOptions, ShardResult

logger = logging.getLogger(__name__)

SHARDS_PER_WORKER = 4  # so that fast workers do more of them, and a dead one's is soon repeated
ERRORS = {kind.exit_code: kind for kind in (UsageError, DataError, MachineError)}


@dataclass(frozen=True)
class Answer:
    """What a worker returns for a shard: its result, or the message and the exit code of an error."""

    result: ShardResult | None = None
    problem: str = ""
    exit_code: int = 0

    def require(self) -> ShardResult:
        """The result. Raises the worker's error."""
        if self.result is None:
            raise ERRORS.get(self.exit_code, MlclError)(self.problem)
        return self.result


ANSWERS = TypeAdapter(Answer)


class Worker:
    """Indexes shards in a process of the cluster. Repeating a shard does no harm: what is stored is skipped."""

    def __init__(self, profile: Profile, options: IndexOptions, clip: ClipChoice, shards: int, *, remove: bool) -> None:
        self._profile, self._options, self._clip, self._shards, self._removes = profile, options, clip, shards, remove
        self._indexing: Indexing | None = None

    def __call__(self, batch: dict[str, NDArray[np.int64]]) -> dict[str, list[bytes]]:
        """An Answer in JSON for each shard of the batch."""
        return {"answer": [ANSWERS.dump_json(self._answer(int(number))) for number in batch["item"]]}

    def _answer(self, number: int) -> Answer:
        try:
            # Not in the constructor, whose errors Ray would take for its own and retry.
            self._indexing = self._indexing or self._open()
            shard = Shard(number, self._shards)
            result, ids = self._indexing.index(shard, lambda _count, _status="": None)
            return Answer(replace(result, removed=self._indexing.remove(shard, ids)) if self._removes else result)
        except MlclError as error:
            return Answer(None, str(error), error.exit_code)

    def _open(self) -> Indexing:
        source = open_source(self._options.catalog, self._options.columns)
        return Indexing.open(self._profile, NoProgress(), self._options, source, self._clip)


def index_on_ray(address: str, indexing: Indexing, progress: Progress) -> ShardResult:
    """Index all shards on the cluster at `address`; with --sync, count what to remove first, and remove it then.

    Raises MachineError if Ray is not installed or the cluster cannot be reached, and what workers raise.
    """
    with _cluster(address) as ray:
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if indexing.profile.device != "cpu" else 0
        workers = max(1, gpus or int(resources.get("CPU", 1)))
        logger.info(f"Ray: {counted(workers, 'worker')}, a {'GPU' if gpus else 'processor'} each")
        result = _run(ray, indexing, progress, workers, on_gpu=gpus > 0)
        indexing.report_bad(result.bad, Shard())
        if not indexing.options.sync:
            return result
        indexing.require_removable(result)
        if not result.stale.rows:
            return result
        second = _run(ray, indexing, progress, workers, on_gpu=gpus > 0, remove=True)
        return replace(result, removed=second.removed)


def _run(
    ray: Any, indexing: Indexing, progress: Progress, workers: int, *, on_gpu: bool, remove: bool = False
) -> ShardResult:
    count = SHARDS_PER_WORKER * workers
    profile = indexing.profile
    if not on_gpu and profile.workers == "auto":
        profile = profile.model_copy(update={"workers": 1})
    options = indexing.options
    options = replace(options, catalog=tuple(path.resolve() for path in options.catalog))  # workers run elsewhere
    arguments = (profile, options, indexing.clip, count)
    # Items, since tasks that read a data set would wait for the processors that the workers hold.
    answers = ray.data.from_items([*range(count)], override_num_blocks=count).map_batches(
        Worker,
        fn_constructor_args=arguments,
        fn_constructor_kwargs={"remove": remove},
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(workers, count), max_tasks_in_flight_per_actor=1),
        num_cpus=0 if on_gpu else 1,
        num_gpus=1 if on_gpu else 0,
    )
    results: list[ShardResult] = []
    action = "Removing from" if remove else "Indexing"
    with progress.bar(f"{action} {counted(count, 'shard')} on Ray", count) as advance:
        for row in answers.iter_rows():
            results.append(ANSWERS.validate_json(row["answer"]).require())
            advance(1)
    return reduce(add, results)


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it would print what is no error of the user's
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        remedy = "Install it with `pip install 'mlcl[ray]'`"
        raise MachineError(f"needs the package {error.name}, which is missing", where="--ray", remedy=remedy) from error
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        what = f"cannot connect to Ray at {address} ({str(error).splitlines()[0]})"
        remedy = "Check the address and, if it has one, its token in $RAY_AUTH_TOKEN; local is this machine alone"
        raise MachineError(what, where="--ray", remedy=remedy) from error
    for number, handler in handlers.items():  # Ray has replaced them
        signal.signal(number, handler)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        with redirect_stdout(sys.stderr):  # where Ray reports dead workers; stdout is for the result
            yield ray
    except ray.exceptions.RayError as error:
        what = f"Ray failed ({str(error).splitlines()[0]})"
        raise MachineError(what, where=address, remedy="Run the command again; finished work is kept") from error
    finally:
        ray.shutdown()
