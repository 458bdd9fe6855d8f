"""`mlcl finetune` and `mlcl train-combiner`: the parts of a training run put together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mlcl_cli.data.captions import training_captions, validation_caption
from mlcl_cli.data.protocols import Protocol
from mlcl_cli.data.records import Split
from mlcl_cli.errors import DataError
from mlcl_cli.features.bank import Table
from mlcl_cli.features.store import FeatureStore
from mlcl_cli.files import to_json, write_file
from mlcl_cli.images.augment import Augmentation
from mlcl_cli.images.decode import BadImage, BadImagesError
from mlcl_cli.images.pictures import PaddedPictures, Pictures
from mlcl_cli.models.combiner import Architecture, Combiner
from mlcl_cli.models.encoder import Encoder, Side
from mlcl_cli.profile import Profile, dump
from mlcl_cli.reporting import Reporter
from mlcl_cli.retrieval.evaluate import Compose, Evaluation, sum_query
from mlcl_cli.seeds import seed_of
from mlcl_cli.training.loop import Plan, Trainer, fit
from mlcl_cli.training.objectives import (
    BankedViews,
    Combining,
    Finetuning,
    FreshViews,
    Views,
    combiner_optimiser,
    finetuning_optimiser,
)
from mlcl_cli.training.runs import Interval, Run, require_room
from mlcl_cli.training.sources import Frozen, LiveImages, LiveTexts, Source
from mlcl_cli.training.triplets import TripletRows, rows_of
from mlcl_cli.workflows.choose import ClipChoice, LoadedClip, choose_clip, load_encoder
from mlcl_cli.workflows.resume import ANEW, Resume, Unfinished, find_unfinished, identity, require_same, save_contents
from mlcl_cli.workflows.session import Files, Session, data_digest, files_of, pruned_protocol
from mlcl_cli.workflows.training_result import TrainingResult

SIDES: Mapping[str, tuple[Side, ...]] = {"text": ("text",), "image": ("image",), "both": ("text", "image")}


@dataclass(frozen=True)
class TrainingData:
    """Both splits, less what is bad, with frozen image features, or the pictures where the image encoder trains."""

    train: Split
    val: Split
    protocol: Protocol
    rows: TripletRows
    images: Table | Pictures
    bad: Mapping[str, BadImage]

    def files(self, names: Sequence[str]) -> Files:
        """Names with their files."""
        return files_of([self.train, self.val], names)


@dataclass(frozen=True)
class Ready:
    """All that a run of a stage needs before its first step; `about` is what the stage adds to its description."""

    trainer: Trainer
    validate: Callable[[], Mapping[str, float]]
    data: TrainingData
    store: FeatureStore
    clip: LoadedClip
    about: Mapping[str, Any]


def finetune(
    profile: Profile,
    reporter: Reporter,
    *,
    encoder: str,
    start: str | Path | None = None,
    resume: Resume = ANEW,
) -> TrainingResult:
    """Stage 1: tunes CLIP's `encoder` (text, image or both) from `start`, or as the profile says; or goes on."""
    session = Session.open(profile, reporter)
    unfinished = find_unfinished(profile, "finetune", resume, {"encoder": encoder}, reporter.warn)
    train, val = session.split("train"), session.split("val")
    plan_of(profile, "finetune").steps(len(train.triplets))
    choice = _resumed_clip(profile, unfinished) if unfinished else choose_clip(session, start, encoder)
    return _trained(session, "finetune", ready_to_finetune(session, train, val, choice, encoder), unfinished)


def train_combiner(profile: Profile, reporter: Reporter, *, resume: Resume = ANEW) -> TrainingResult:
    """Stage 2: trains the multi-level combiner on frozen features, or goes on with a run."""
    session = Session.open(profile, reporter)
    unfinished = find_unfinished(profile, "combiner", resume, {}, reporter.warn)
    train, val = session.split("train"), session.split("val")
    plan_of(profile, "combiner").steps(len(train.triplets))
    choice = _resumed_clip(profile, unfinished) if unfinished else choose_clip(session)
    return _trained(session, "combiner", ready_to_combine(session, train, val, choice), unfinished)


def plan_of(profile: Profile, stage: str) -> Plan:
    """The plan of `finetune` or `combiner`."""
    settings = profile.combiner if stage == "combiner" else profile.finetune
    return Plan(settings.epochs, settings.batch_size, settings.validate_every, profile.seed)


def ready_to_finetune(session: Session, train: Split, val: Split, choice: ClipChoice, encoder: str) -> Ready:
    """Stage 1 before its first step: what is frozen is encoded, what trains is on the device."""
    settings, sides = session.profile.finetune, SIDES[encoder]
    loaded = load_encoder(session, choice)
    clip = loaded.encoder
    store = session.store(clip)
    data = _training_data(session, train, val, store, banked="image" not in sides)
    frozen_texts = None if "text" in sides else store.texts([*data.rows.captions, *_captions(data.val)])
    chunk_size = settings.chunk_size if isinstance(settings.chunk_size, int) else None
    pictures = _image_source(clip, data, chunk_size)
    captions = _text_source(store, data.rows, frozen_texts, chunk_size)
    objective = Finetuning(clip, data.rows, pictures, captions)
    if settings.checkpoint_blocks:
        clip.checkpoint_blocks()
    evaluation = _evaluation(data)

    def validate() -> Mapping[str, float]:
        images = data.images
        if isinstance(images, Pictures):
            images = store.live_images(images, data.val.images())
        texts = frozen_texts or store.texts(_captions(data.val), banked=False)
        return evaluation(images, texts, sum_query).metrics

    optimiser = finetuning_optimiser(clip, sides, settings.learning_rate)
    trainer = Trainer(objective, optimiser, plan_of(session.profile, "finetune"), session.compute)
    return Ready(trainer, validate, data, store, loaded, {"encoder": encoder})


def ready_to_combine(session: Session, train: Split, val: Split, choice: ClipChoice) -> Ready:
    """Stage 2 before its first step: every feature is encoded, the combiner is on the device."""
    profile, settings = session.profile, session.profile.combiner
    loaded = load_encoder(session, choice)
    clip = loaded.encoder
    store = session.store(clip)
    data = _training_data(session, train, val, store, banked=True)
    assert isinstance(data.images, Table)
    images = data.images
    texts = store.texts([*data.rows.captions, *_captions(data.val)])
    torch.manual_seed(seed_of(profile.seed, "combiner"))
    sizes = clip.feature_dim, settings.projection_dim, settings.hidden_dim
    architecture = Architecture(*sizes, settings.levels, settings.learned_temperature, bool(settings.sscl))
    combiner = Combiner(architecture).to(session.compute.device)
    views = _views(session, store, data) if settings.sscl else None
    pictures, captions = Frozen(images.of(data.rows.images)), Frozen(texts.of(data.rows.captions))
    objective = Combining(combiner, data.rows, pictures, captions, views, settings.sscl)
    optimiser = combiner_optimiser(combiner, settings.learning_rate)
    scheduler = None
    if settings.schedule == "cosine_restarts":
        # T_0 counts epochs; both values from METHOD.md, Section 4.5.
        scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimiser, T_0=10, eta_min=1e-6)
    evaluation = _evaluation(data)

    def validate() -> Mapping[str, float]:
        combiner.eval()
        return evaluation(images, texts, combiner_query(combiner, profile)).metrics

    trainer = Trainer(objective, optimiser, plan_of(profile, "combiner"), session.compute, scheduler)
    about = {"architecture": architecture.describe(), "inference_weights": settings.inference_weights}
    return Ready(trainer, validate, data, store, loaded, about)


def _trained(session: Session, stage: str, ready: Ready, unfinished: Unfinished | None) -> TrainingResult:
    data = ready.data
    images = session.content_digests(dict(data.files([*data.train.images(), *data.val.images()])))
    parts = _parts(session, stage, ready, images)
    with _begun(session, ready, parts, unfinished, images) as run:
        seconds = fit(ready.trainer, run, ready.validate, session.reporter)
    command = "train-combiner" if stage == "combiner" else "finetune"
    name, epochs = ready.data.protocol.name, ready.trainer.plan.epochs
    how = session.circumstances(parts["about"]["data"], combiner=stage == "combiner")
    return TrainingResult(command, session.profile.dataset, name, run.folder, epochs, run.best, seconds, how)


def _resumed_clip(profile: Profile, unfinished: Unfinished) -> ClipChoice:
    """The CLIP that a run began with; where its model has moved, the profile's, whose fingerprint is compared later."""
    return unfinished.clip(profile.workspace).found_at(profile.clip.model)


def combiner_query(combiner: Combiner, profile: Profile) -> Compose:
    """How `combiner` composes a query under the profile's `inference_weights`."""
    matched = profile.combiner.inference_weights == "matched"
    return lambda text, image: combiner.queries(text, image, matched=matched)


def _training_data(session: Session, train: Split, val: Split, store: FeatureStore, *, banked: bool) -> TrainingData:
    files = files_of([train, val], [*train.triplet_images(), *val.images()])
    images = store.images(files) if banked else Pictures(files, store.transform, session.workers)
    bad = session.find_bad(images) if isinstance(images, Pictures) else store.bad
    # All bad images of both splits are told at once, before the first is dropped.
    if bad and session.profile.bad_images == "stop":
        raise BadImagesError(list(bad.values()), "Fix what is listed, or set bad_images: drop to skip it")
    kept_train, kept_val = (session.without_bad(split, bad.values()) for split in (train, val))
    dataset = session.profile.dataset
    rows = rows_of(kept_train.triplets, lambda triplet: training_captions(dataset, triplet))
    protocol = pruned_protocol(session.protocol, val, kept_val)
    return TrainingData(kept_train, kept_val, protocol, rows, images, dict(bad))


def _image_source(clip: Encoder, data: TrainingData, chunk_size: int | None) -> Source:
    if isinstance(data.images, Table):
        return Frozen(data.images.of(data.rows.images))
    return LiveImages(clip, data.images, data.rows.images, chunk_size)


def _text_source(store: FeatureStore, rows: TripletRows, frozen: Table | None, chunk_size: int | None) -> Source:
    if frozen is not None:
        return Frozen(frozen.of(rows.captions))
    return LiveTexts(store.encoder, store.tokens(rows.captions), chunk_size)


def _views(session: Session, store: FeatureStore, data: TrainingData) -> Views:
    rows, seed, count = data.rows, session.profile.seed, session.profile.combiner.augmented_views
    files = data.files(rows.images)
    if isinstance(count, int):
        return BankedViews(store.views(files, count, seed), rows.references, seed)
    opener = PaddedPictures(store.transform)
    return FreshViews(store.encoder, opener, files, rows.references, session.workers, seed, Augmentation())


def _captions(split: Split) -> list[str]:
    return [validation_caption(split.dataset, triplet) for triplet in split.triplets]


def _evaluation(data: TrainingData) -> Evaluation:
    return Evaluation(data.val, data.protocol, lambda triplet: validation_caption(data.val.dataset, triplet))


def _parts(session: Session, stage: str, ready: Ready, images: Mapping[str, str]) -> dict[str, Any]:
    """What a run is made of, new or taken up."""
    profile, data, fingerprint = session.profile, ready.data, ready.store.fingerprints["both"]
    about = {
        "protocol": data.protocol.name,
        "pruned": data.protocol != session.protocol,
        "clip": ready.clip.describe(profile.workspace, ready.store.fingerprints),
        **session.about(),
        "data": {split.name: data_digest(split) for split in (data.train, data.val)},
        **ready.about,
        "identity": identity(profile, stage, [data.train, data.val], fingerprint, images),
    }
    every, keep = profile.checkpoints.every_epochs, profile.checkpoints.keep_every
    return {
        "kind": "combiner" if stage == "combiner" else "clip",
        "command": "train-combiner" if stage == "combiner" else f"finetune --encoder {ready.about['encoder']}",
        "epochs": ready.trainer.plan.epochs,
        "bests": data.protocol.bests,
        "about": about,
        "interval": Interval(every if isinstance(every, int) else None, profile.checkpoints.every_minutes),
        "keep_every": keep if isinstance(keep, int) else None,
        "tensorboard": profile.tensorboard == "auto",
    }


def _begun(
    session: Session,
    ready: Ready,
    parts: Mapping[str, Any],
    unfinished: Unfinished | None,
    images: Mapping[str, str],
) -> Run:
    """A new run, or an unfinished one with the trainer put back to where it was. Says which, and needs room on disk."""
    profile, reporter, trainer, data = session.profile, session.reporter, ready.trainer, ready.data
    require_room(profile.workspace, trainer.bytes_of_state())
    if unfinished is not None:
        require_same(unfinished.stored, parts["about"]["identity"], images)
        run, state = Run.resume(unfinished.stored, unfinished.state, reporter.warn, **parts)
        try:
            trainer.restore(state)
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            what = f"the state does not fit the run ({type(error).__name__})"
            raise DataError(what, where=run.folder, remedy="Resume from another state with --run FILE") from error
        where = f"epoch {state.epoch}" + (f", step {state.steps_done}" if state.steps_done else "")
        reporter.note(f"Run: {run.folder}, taken up at {where}")
        return run
    stage = "combiner" if parts["kind"] == "combiner" else "finetune"
    run = Run.create(profile.workspace / stage, profile.dataset, dump(profile), **parts)
    save_contents(run.folder, images)
    reporter.note(f"Run: {run.folder}")
    if data.bad:
        dropped = [{"image": bad.name, "path": str(bad.path), "reason": bad.reason} for bad in data.bad.values()]
        write_file(run.folder / "dropped.json", to_json(dropped, indent=2))
    return run
