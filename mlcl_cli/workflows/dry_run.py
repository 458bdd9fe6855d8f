"""`--dry-run`: a few steps on one batch, and an estimate of the rest. Writes nothing."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Event, Thread

import psutil
import torch

from mlcl_cli.config import Profile
from mlcl_cli.data.records import Split
from mlcl_cli.formatting import counted, duration, size
from mlcl_cli.images.image_cache import ImageCache
from mlcl_cli.progress import Progress
from mlcl_cli.workflows.run_context import RunContext
from mlcl_cli.workflows.stages import Stage, TrainingSetup, training_files

logger = logging.getLogger(__name__)

QUERIES = 32  # over all validation sets
IMAGES = 64
STEPS = 4  # the last one is timed: the first ones warm up
FEATURE_BYTES = 4
SECONDS_BETWEEN_NOTES = 15.0


@dataclass(frozen=True)
class DryRun:
    """What a whole run will take: seconds, bytes of memory at the peak, bytes on disk. `loss` is the first step's."""

    command: str
    dataset: str
    loss: float
    seconds: dict[str, float]
    memory: int
    disk: dict[str, int]

    def as_json(self) -> dict[str, object]:
        """The object that `--json` prints."""
        return self._about() | {"seconds": self.seconds, "memory_bytes": self.memory, "disk_bytes": self.disk}

    def in_words(self) -> dict[str, object]:
        """The same to show on a terminal: durations and sizes with their units."""
        return self._about() | {
            "time": {name: duration(seconds) for name, seconds in self.seconds.items()},
            "memory": size(self.memory),
            "disk": {name.replace("_", " "): size(number) for name, number in self.disk.items()},
        }

    def _about(self) -> dict[str, object]:
        return {"command": self.command, "dataset": self.dataset, "dry_run": True, "loss": self.loss}


def estimate(profile: Profile, progress: Progress, stage: Stage) -> DryRun:
    """Take a few steps of a stage on one batch, and validate on a few queries.

    The time of a validation is scaled from its queries or images. Existing feature banks are used, none is written.
    """
    context = RunContext.open(profile, progress, writes=False)
    plan = stage.plan(profile)
    train, val = context.split("train"), context.split("val")
    steps = plan.steps(len(train.triplets)) * plan.epochs
    val_portion = _portion(val, QUERIES)
    with _phase("loading CLIP and encoding one batch"):
        setup = stage.set_up(context, stage.freeze(context, _portion(train, plan.batch_size), val_portion))
    files, store = training_files(train, val), setup.store
    timed = dict(files[:IMAGES])
    with _phase(f"timing {counted(len(timed), 'image')}"):
        cache = ImageCache([*timed.items()], store.transform, store.workers, budget=0)
        features = _seconds(lambda: store.encode_images_now(cache, [*timed])) / len(timed) * len(files)
    losses, step = [], 0.0
    for number in range(1, STEPS + 1):
        with _phase(f"step {number} of {STEPS}"):
            step = _seconds(lambda: losses.append(setup.trainer.run_epoch()["loss"]))
            setup.trainer.next_epoch()
    with _phase("validating on a few queries"):
        setup.validate()
        validation = _seconds(setup.validate)
    validation *= setup.validation_work(val) / max(1, setup.validation_work(val_portion))
    training = step * steps + validation * (plan.epochs // plan.validate_every)
    return DryRun(
        command=stage.command,
        dataset=profile.dataset,
        loss=losses[0],
        seconds={
            "features": features,
            "step": step,
            "validation": validation,
            "training": training,
            "total": features + training,
        },
        memory=_peak_memory(),
        disk=_disk(profile, setup, len(files)),
    )


def _disk(profile: Profile, setup: TrainingSetup, images: int) -> dict[str, int]:
    features = FEATURE_BYTES * setup.store.encoder.feature_dim * images * setup.features_per_image
    disk = {"features": features, "checkpoints": 2 * setup.trainer.bytes_of_state()}
    if isinstance(keep := profile.checkpoints.keep_every, int):
        weights = sum(tensor.nbytes for tensor in setup.trainer.objective.weights().values())
        disk["kept_epochs"] = weights * (setup.trainer.plan.epochs // keep)
    return disk


@contextmanager
def _phase(what: str) -> Iterator[None]:
    """Log what begins, and every `SECONDS_BETWEEN_NOTES` that it is still running."""
    logger.info(f"Dry run: {what}")
    began, over = time.monotonic(), Event()

    def remind() -> None:
        while not over.wait(SECONDS_BETWEEN_NOTES):
            logger.info(f"Dry run: still {what}, {duration(time.monotonic() - began)} so far")

    thread = Thread(target=remind, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _portion(split: Split, count: int) -> Split:
    """About `count` triplets, evenly from all sets, with a gallery of only their images."""
    per_set = -(-count // len(split.sets))
    sets = []
    for part in split.sets:
        triplets = part.triplets[:per_set]
        named = [name for t in triplets for name in (t.reference, t.target, *t.members) if name is not None]
        sets.append(replace(part, triplets=triplets, gallery=tuple(dict.fromkeys(named)) if part.gallery else ()))
    return replace(split, sets=tuple(sets))


def _seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _peak_memory() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    info = psutil.Process().memory_info()
    return int(getattr(info, "peak_wset", info.rss))
