"""`mlcl finetune` and `mlcl train-combiner`: the parts of a training run put together."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mlcl_cli.atomic_files import to_json, write_file
from mlcl_cli.config import Profile, dump
from mlcl_cli.data.protocols import Protocol
from mlcl_cli.data.records import Split
from mlcl_cli.errors import DataError
from mlcl_cli.features.bank import Table
from mlcl_cli.features.store import FeatureStore
from mlcl_cli.images.augment import Augmentation
from mlcl_cli.images.decode import BadImage, BadImagesError
from mlcl_cli.images.image_cache import ImageCache, PaddedImageCache
from mlcl_cli.models.combiner import Architecture, Combiner, InferenceWeights
from mlcl_cli.models.encoder import TOWERS, Encoder
from mlcl_cli.progress import Progress
from mlcl_cli.retrieval.evaluation import Evaluation, combiner_query, sum_query
from mlcl_cli.runs.description import ImageRecord, Kind
from mlcl_cli.runs.listing import FOLDERS
from mlcl_cli.runs.run import Run, RunSettings
from mlcl_cli.runs.state_files import require_room
from mlcl_cli.runs.summary import RunDescription
from mlcl_cli.seeding import derive_seed
from mlcl_cli.training.feature_sources import CachedFeatures, FeatureSource, ImageEncoderSource, TextEncoderSource
from mlcl_cli.training.loop import Trainer, TrainingPlan, fit
from mlcl_cli.training.objectives import (
    BankedViews,
    CombinerObjective,
    FinetuneObjective,
    FreshViews,
    Views,
    combiner_optimizer,
    finetune_optimizer,
)
from mlcl_cli.training.triplet_rows import TripletRows, rows_of
from mlcl_cli.workflows.checkpoint_selection import ClipChoice, LoadedClip, choose_clip, load_encoder
from mlcl_cli.workflows.resume import (
    NO_RESUME,
    ResumableRun,
    Resume,
    find_resumable,
    identity,
    require_same,
    save_contents,
)
from mlcl_cli.workflows.run_context import Files, RunContext, data_digest, files_of, pruned_protocol, versions
from mlcl_cli.workflows.training_result import TrainingResult

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """Both splits, less what is bad, with frozen image features, or the pictures where the image encoder trains."""

    train: Split
    val: Split
    protocol: Protocol
    rows: TripletRows
    images: Table | ImageCache
    bad: Mapping[str, BadImage]

    def files(self, names: Sequence[str]) -> Files:
        """Names with their files."""
        return files_of([self.train, self.val], names)


@dataclass(frozen=True)
class TrainingSetup:
    """All that a run of a stage needs before its first step; `about` is what the stage adds to its description."""

    trainer: Trainer
    validate: Callable[[], Mapping[str, float]]
    data: TrainingData
    store: FeatureStore
    clip: LoadedClip
    about: Mapping[str, Any]


def finetune(
    profile: Profile,
    progress: Progress,
    *,
    encoder: str,
    start: str | Path | None = None,
    resume: Resume = NO_RESUME,
) -> TrainingResult:
    """Stage 1: tunes CLIP's `encoder` (text, image or both) from `start`, or as the profile says; or goes on."""
    context = RunContext.open(profile, progress)
    unfinished = find_resumable(profile, Kind.CLIP, resume, encoder)
    train, val = context.split("train"), context.split("val")
    plan_of(profile, "finetune").steps(len(train.triplets))
    choice = _resumed_clip(profile, unfinished) if unfinished else choose_clip(context, start, encoder)
    return _trained(context, "finetune", ready_to_finetune(context, train, val, choice, encoder), unfinished)


def train_combiner(profile: Profile, progress: Progress, *, resume: Resume = NO_RESUME) -> TrainingResult:
    """Stage 2: trains the multi-level combiner on frozen features, or goes on with a run."""
    context = RunContext.open(profile, progress)
    unfinished = find_resumable(profile, Kind.COMBINER, resume)
    train, val = context.split("train"), context.split("val")
    plan_of(profile, "combiner").steps(len(train.triplets))
    choice = _resumed_clip(profile, unfinished) if unfinished else choose_clip(context)
    return _trained(context, "combiner", ready_to_combine(context, train, val, choice), unfinished)


def plan_of(profile: Profile, stage: str) -> TrainingPlan:
    """The plan of `finetune` or `combiner`."""
    settings = profile.combiner if stage == "combiner" else profile.finetune
    return TrainingPlan(settings.epochs, settings.batch_size, settings.validate_every, profile.seed)


def ready_to_finetune(context: RunContext, train: Split, val: Split, choice: ClipChoice, encoder: str) -> TrainingSetup:
    """Stage 1 before its first step: what is frozen is encoded, what trains is on the device."""
    settings, towers = context.profile.finetune, TOWERS[encoder]
    loaded = load_encoder(context, choice)
    clip = loaded.encoder
    store = context.store(clip)
    data = _training_data(context, train, val, store, banked="image" not in towers)
    frozen_texts = None if "text" in towers else store.texts([*data.rows.captions, *_captions(data.val)])
    chunk_size = settings.chunk_size if isinstance(settings.chunk_size, int) else None
    pictures = _image_source(clip, data, chunk_size)
    captions = _text_source(store, data.rows, frozen_texts, chunk_size)
    objective = FinetuneObjective(clip, data.rows, pictures, captions)
    if settings.checkpoint_blocks:
        clip.checkpoint_blocks()
    evaluation = _evaluation(data)

    def validate() -> Mapping[str, float]:
        images = data.images
        if isinstance(images, ImageCache):
            images = store.encode_images_now(images, data.val.images())
        texts = frozen_texts or store.texts(_captions(data.val), banked=False)
        return evaluation(images, texts, sum_query).metrics

    optimizer = finetune_optimizer(clip, towers, settings.learning_rate)
    trainer = Trainer(objective, optimizer, plan_of(context.profile, "finetune"), context.compute)
    return TrainingSetup(trainer, validate, data, store, loaded, {"encoder": encoder})


def ready_to_combine(context: RunContext, train: Split, val: Split, choice: ClipChoice) -> TrainingSetup:
    """Stage 2 before its first step: every feature is encoded, the combiner is on the device."""
    profile, settings = context.profile, context.profile.combiner
    loaded = load_encoder(context, choice)
    clip = loaded.encoder
    store = context.store(clip)
    data = _training_data(context, train, val, store, banked=True)
    assert isinstance(data.images, Table)
    images = data.images
    texts = store.texts([*data.rows.captions, *_captions(data.val)])
    torch.manual_seed(derive_seed(profile.seed, "combiner"))
    architecture = Architecture(
        feature_dim=clip.feature_dim,
        projection_dim=settings.projection_dim,
        hidden_dim=settings.hidden_dim,
        levels=settings.levels,
        learned_temperature=settings.learned_temperature,
        self_supervised=bool(settings.sscl),
    )
    combiner = Combiner(architecture).to(context.compute.device)
    views = _views(context, store, data) if settings.sscl else None
    pictures, captions = CachedFeatures(images.of(data.rows.images)), CachedFeatures(texts.of(data.rows.captions))
    objective = CombinerObjective(combiner, data.rows, pictures, captions, views, settings.sscl)
    optimizer = combiner_optimizer(combiner, settings.learning_rate)
    scheduler = None
    if settings.schedule == "cosine_restarts":
        # T_0 counts epochs; both values from METHOD.md, Section 4.5.
        scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=10, eta_min=1e-6)
    evaluation = _evaluation(data)
    compose = combiner_query(combiner, InferenceWeights(settings.inference_weights))

    def validate() -> Mapping[str, float]:
        combiner.eval()
        return evaluation(images, texts, compose).metrics

    trainer = Trainer(objective, optimizer, plan_of(profile, "combiner"), context.compute, scheduler)
    about = {"architecture": architecture.describe(), "inference_weights": settings.inference_weights}
    return TrainingSetup(trainer, validate, data, store, loaded, about)


def _trained(context: RunContext, stage: str, ready: TrainingSetup, unfinished: ResumableRun | None) -> TrainingResult:
    data = ready.data
    images = context.content_digests(dict(data.files([*data.train.images(), *data.val.images()])))
    settings = _settings(context, stage, ready, images)
    with _begun(context, ready, settings, unfinished, images) as run:
        seconds = fit(ready.trainer, run, ready.validate, context.progress)
    command = "train-combiner" if stage == "combiner" else "finetune"
    name, epochs = ready.data.protocol.label, ready.trainer.plan.epochs
    how = context.circumstances(settings.description.data or {}, combiner=stage == "combiner")
    return TrainingResult(command, context.profile.dataset, name, run.folder, epochs, run.best, seconds, how)


def _resumed_clip(profile: Profile, unfinished: ResumableRun) -> ClipChoice:
    """The CLIP that a run began with; where its model has moved, the profile's, whose fingerprint is compared later."""
    return unfinished.clip(profile.workspace).with_model_at(profile.clip.model)


def _training_data(context: RunContext, train: Split, val: Split, store: FeatureStore, *, banked: bool) -> TrainingData:
    files = files_of([train, val], [*train.triplet_images(), *val.images()])
    images = store.images(files) if banked else ImageCache(files, store.transform, context.workers)
    bad = context.find_bad(images) if isinstance(images, ImageCache) else store.bad
    # All bad images of both splits are told at once, before the first is dropped.
    if bad and context.profile.bad_images == "stop":
        raise BadImagesError(list(bad.values()), "Fix what is listed, or set bad_images: drop to skip it")
    kept_train, kept_val = (context.without_bad(split, bad.values()) for split in (train, val))
    rows = rows_of(kept_train.triplets, lambda triplet: triplet.texts)
    protocol = pruned_protocol(context.protocol, val, kept_val)
    return TrainingData(kept_train, kept_val, protocol, rows, images, dict(bad))


def _image_source(clip: Encoder, data: TrainingData, chunk_size: int | None) -> FeatureSource:
    if isinstance(data.images, Table):
        return CachedFeatures(data.images.of(data.rows.images))
    return ImageEncoderSource(clip, data.images, data.rows.images, chunk_size)


def _text_source(store: FeatureStore, rows: TripletRows, frozen: Table | None, chunk_size: int | None) -> FeatureSource:
    if frozen is not None:
        return CachedFeatures(frozen.of(rows.captions))
    return TextEncoderSource(store.encoder, store.tokens(rows.captions), chunk_size)


def _views(context: RunContext, store: FeatureStore, data: TrainingData) -> Views:
    rows, seed, count = data.rows, context.profile.seed, context.profile.combiner.augmented_views
    files = data.files(rows.images)
    if isinstance(count, int):
        return BankedViews(store.views(files, count, seed), rows.references, seed)
    opener = PaddedImageCache(store.transform)
    return FreshViews(store.encoder, opener, files, rows.references, context.workers, seed, Augmentation())


def _captions(split: Split) -> list[str]:
    return [triplet.query_text for triplet in split.triplets]


def _evaluation(data: TrainingData) -> Evaluation:
    return Evaluation(data.val, data.protocol)


def _settings(context: RunContext, stage: str, ready: TrainingSetup, images: Mapping[str, str]) -> RunSettings:
    """What a run trains and keeps, be it new or resumed."""
    profile, data, fingerprints = context.profile, ready.data, ready.store.fingerprints
    kind = Kind.COMBINER if stage == "combiner" else Kind.CLIP
    description = RunDescription(
        protocol=data.protocol.name,
        pruned=data.protocol.pruned,
        clip=ready.clip.record(profile.workspace, fingerprints),
        dataset=profile.dataset,
        seed=profile.seed,
        image=ImageRecord.model_validate(context.image),
        device=str(context.compute),
        precision=context.compute.precision,
        versions=versions(),
        profile=profile.model_dump(mode="json"),
        data={split.name: data_digest(split) for split in (data.train, data.val)},
        identity=identity(profile, kind, [data.train, data.val], fingerprints.both, images),
        **ready.about,
    )
    every, keep = profile.checkpoints.every_epochs, profile.checkpoints.keep_every
    return RunSettings(
        kind=kind,
        command="train-combiner" if kind is Kind.COMBINER else f"finetune --encoder {description.encoder}",
        epochs=ready.trainer.plan.epochs,
        metrics=data.protocol.bests,
        description=description,
        epochs_between_states=every if isinstance(every, int) else None,
        minutes_between_states=profile.checkpoints.every_minutes,
        keep_every=keep if isinstance(keep, int) else None,
        tensorboard=profile.tensorboard == "auto",
    )


def _begun(
    context: RunContext,
    ready: TrainingSetup,
    settings: RunSettings,
    unfinished: ResumableRun | None,
    images: Mapping[str, str],
) -> Run:
    """A new run, or an unfinished one with the trainer restored. Reports which; MachineError where the disk is full."""
    profile, trainer, data = context.profile, ready.trainer, ready.data
    require_room(profile.workspace, trainer.bytes_of_state())
    if unfinished is not None:
        require_same(unfinished.stored, settings.description.identity or {}, images)
        run = Run(unfinished.stored.folder, settings, unfinished.stored.summary.created)
        state = run.resume(unfinished.state)
        try:
            trainer.restore(state)
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            what = f"the state does not fit the run ({type(error).__name__})"
            raise DataError(what, where=run.folder, remedy="Resume from another state with --run FILE") from error
        where = f"epoch {state.epoch}" + (f", step {state.steps_done}" if state.steps_done else "")
        logger.info(f"Run: {run.folder}, resuming at {where}")
        return run
    run = Run.create(profile.workspace / FOLDERS[settings.kind], profile.dataset, dump(profile), settings)
    save_contents(run.folder, images)
    logger.info(f"Run: {run.folder}")
    if data.bad:
        dropped = [{"image": bad.name, "path": str(bad.path), "reason": bad.reason} for bad in data.bad.values()]
        write_file(run.folder / "dropped.json", to_json(dropped, indent=2))
    return run
