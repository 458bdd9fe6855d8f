"""`--dry-run`: one batch through everything, and an estimate of the rest. Writes nothing."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil
import torch

from mlcl_cli.config import Profile
from mlcl_cli.data.records import Split
from mlcl_cli.formatting import counted, duration, size
from mlcl_cli.images.image_cache import ImageCache
from mlcl_cli.progress import Progress
from mlcl_cli.workflows.checkpoint_selection import choose_clip
from mlcl_cli.workflows.run_context import Files, RunContext, files_of
from mlcl_cli.workflows.train import TrainingSetup, plan_of, ready_to_combine, ready_to_finetune

logger = logging.getLogger(__name__)

QUERIES = 32  # of each validation set
IMAGES = 64
STEPS = 3
FEATURE_BYTES = 4
SECONDS_BETWEEN_NOTES = 15.0


@dataclass(frozen=True)
class DryRun:
    """What a whole run will take, from one batch: seconds, bytes of memory at the peak, bytes on disk."""

    command: str
    dataset: str
    loss: float
    seconds: dict[str, float]
    memory: int
    disk: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """One plain object."""
        seconds = {**self.seconds, "total": self.seconds["features"] + self.seconds["training"]}
        figures = {"loss": self.loss, "seconds": seconds, "memory_bytes": self.memory, "disk_bytes": self.disk}
        return {"command": self.command, "dataset": self.dataset, "dry_run": True, **figures}

    def in_words(self) -> dict[str, Any]:
        """The same for people: durations and sizes with their units."""
        found = self.as_json()
        return {
            **{key: found[key] for key in ("command", "dataset", "dry_run", "loss")},
            "time": {name: duration(seconds) for name, seconds in found["seconds"].items()},
            "memory": size(self.memory),
            "disk": {name.replace("_", " "): size(number) for name, number in self.disk.items()},
        }


def dry_run(
    profile: Profile, progress: Progress, stage: str, *, encoder: str = "", start: str | Path | None = None
) -> DryRun:
    """Takes a few steps of `finetune` or `combiner` on one batch and validates on a few queries.

    Validation is estimated from its queries, in proportion; banks that exist are used and none is written.
    """
    context = RunContext.open(profile, progress, writes=False)
    plan = plan_of(profile, stage)
    train, val = context.split("train"), context.split("val")
    steps = plan.steps(len(train.triplets)) * plan.epochs
    batch, few = _portion(train, plan.batch_size), _portion(val, QUERIES)
    choice = choose_clip(context, start, encoder or None)
    with _phase("loading CLIP and encoding one batch"):
        if stage == "combiner":
            ready = ready_to_combine(context, batch, few, choice)
        else:
            ready = ready_to_finetune(context, batch, few, choice, encoder)
    files = files_of([train, val], [*train.triplet_images(), *val.images()])
    with _phase(f"timing {counted(len(files[:IMAGES]), 'image')}"):
        an_image = _seconds_an_image(ready, files[:IMAGES])
    losses, a_step = [], 0.0
    for number in range(1, STEPS + 2):
        with _phase(f"step {number} of {STEPS + 1}"):
            _, a_step = _timed(lambda: losses.append(ready.trainer.run_epoch()["loss"]))
            ready.trainer.next_epoch()
    with _phase("validating on a few queries"):
        ready.validate()
        _, validation = _timed(ready.validate)
    passes = (val.images(), few.images()) if stage != "combiner" else (val.triplets, few.triplets)
    validation *= len(passes[0]) / max(1, len(passes[1]))
    seconds = {
        "features": an_image * len(files),
        "step": a_step,
        "validation": validation,
        "training": a_step * steps + validation * (plan.epochs // plan.validate_every),
    }
    return DryRun(
        command="train-combiner" if stage == "combiner" else "finetune",
        dataset=profile.dataset,
        loss=losses[0],
        seconds=seconds,
        memory=_peak(),
        disk=_disk(profile, stage, ready, len(files)),
    )


def _disk(profile: Profile, stage: str, ready: TrainingSetup, images: int) -> dict[str, int]:
    views = profile.combiner.augmented_views if stage == "combiner" else 0
    tables = 1 + (views if isinstance(views, int) else 0)
    bank = FEATURE_BYTES * ready.store.encoder.feature_dim * images * tables
    disk = {"features": bank, "checkpoints": 2 * ready.trainer.bytes_of_state()}
    if isinstance(keep := profile.checkpoints.keep_every, int):
        weights = sum(tensor.nbytes for tensor in ready.trainer.objective.weights().values())
        disk["kept_epochs"] = weights * (ready.trainer.plan.epochs // keep)
    return disk


@contextmanager
def _phase(what: str) -> Iterator[None]:
    """Says what begins, and every `SECONDS_BETWEEN_NOTES` that it still lasts."""
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
    """The first triplets, evenly of all sets, with a gallery of their own images."""
    each = -(-count // len(split.sets))
    sets = []
    for part in split.sets:
        triplets = part.triplets[:each]
        named = [name for t in triplets for name in (t.reference, t.target, *t.members) if name is not None]
        sets.append(replace(part, triplets=triplets, gallery=tuple(dict.fromkeys(named)) if part.gallery else ()))
    return replace(split, sets=tuple(sets))


def _seconds_an_image(ready: TrainingSetup, files: Files) -> float:
    names: Sequence[str] = [name for name, _ in files]
    pictures = ImageCache(files, ready.store.transform, ready.store.workers, budget=0)
    _, seconds = _timed(lambda: ready.store.encode_images_now(pictures, names))
    return seconds / len(files)


def _timed(function: Callable[[], object]) -> tuple[object, float]:
    began = time.perf_counter()
    result = function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - began


def _peak() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    info = psutil.Process().memory_info()
    return int(getattr(info, "peak_wset", info.rss))
