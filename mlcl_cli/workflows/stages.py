"""The two stages of training: what each is called, and how it is put together before its first step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch

from mlcl_cli.config import Profile
from mlcl_cli.config.schema import Combiner as CombinerSettings
from mlcl_cli.config.schema import Finetune as FinetuneSettings
from mlcl_cli.data.protocols import Protocol
from mlcl_cli.data.records import Split
from mlcl_cli.features.store import FeatureStore
from mlcl_cli.formatting import counted
from mlcl_cli.images.augment import Augmentation
from mlcl_cli.images.decode import BadImage
from mlcl_cli.images.image_cache import ImageCache, PaddedImageCache
from mlcl_cli.models.combiner import Architecture, Combiner, InferenceWeights
from mlcl_cli.models.encoder import TOWERS, Towers
from mlcl_cli.retrieval.evaluation import Evaluation, combiner_query, sum_query
from mlcl_cli.runs.description import ArchitectureRecord, Kind
from mlcl_cli.seeding import derive_seed
from mlcl_cli.training.feature_sources import CachedFeatures, ImageEncoderSource, TextEncoderSource
from mlcl_cli.training.loop import Trainer, TrainingPlan
from mlcl_cli.training.objectives import (
    BankedViews,
    CombinerObjective,
    FinetuneObjective,
    FreshViews,
    Views,
    combiner_optimizer,
    cosine_restarts,
    finetune_optimizer,
)
from mlcl_cli.training.triplet_rows import TripletRows, index_triplets
from mlcl_cli.workflows.checkpoint_selection import ClipChoice, LoadedClip, choose_clip, load_encoder
from mlcl_cli.workflows.run_context import Files, RunContext, files_of


@dataclass(frozen=True)
class TrainingData:
    """The training and validation splits without their bad images, which `bad` holds by name."""

    train: Split
    val: Split
    protocol: Protocol
    rows: TripletRows
    bad: Mapping[str, BadImage]

    @classmethod
    def of(cls, context: RunContext, train: Split, val: Split, bad: Mapping[str, BadImage]) -> Self:
        """Drop `bad` images if the profile says so. Raises BadImagesError if it does not."""
        kept_train, kept_val = (context.without_bad(split, bad.values()) for split in (train, val))
        protocol = replace(context.protocol, pruned=kept_val != val)
        return cls(kept_train, kept_val, protocol, index_triplets(kept_train.triplets), bad)

    def val_captions(self) -> list[str]:
        """The query text of each validation triplet."""
        return [triplet.query_text for triplet in self.val.triplets]


@dataclass(frozen=True)
class TrainingSetup:
    """All that a run needs before its first step.

    `about` is what the stage adds to the run's description. A validation takes time in proportion to
    `validation_work` of its split. The bank holds `features_per_image` rows for each image.
    """

    trainer: Trainer
    validate: Callable[[], Mapping[str, float]]
    data: TrainingData
    store: FeatureStore
    clip: LoadedClip
    about: Mapping[str, object]
    validation_work: Callable[[Split], int]
    features_per_image: int = 1


@dataclass(frozen=True)
class Stage:
    """A stage of training: the folder of its runs, its command, its kind of checkpoint, its section of the profile.

    Fine-tuning has two options: the `encoder` that trains (text, image or both), and the checkpoint that it starts
    from (`start`; `none` for the untuned CLIP, None for the profile's).
    """

    name: str
    command: str
    kind: Kind
    settings: Callable[[Profile], FinetuneSettings | CombinerSettings]
    build: Callable[["Stage", RunContext, LoadedClip, Split, Split], TrainingSetup]
    encoder: str | None = None
    start: str | Path | None = None

    @property
    def command_line(self) -> str:
        """The command, with the encoder that a resumed run must share."""
        return self.command if self.encoder is None else f"{self.command} --encoder {self.encoder}"

    @property
    def towers(self) -> Towers:
        """The towers of CLIP that train."""
        return frozenset() if self.encoder is None else TOWERS[self.encoder]

    def plan(self, profile: Profile) -> TrainingPlan:
        """How long and in what batches the profile trains it."""
        settings = self.settings(profile)
        return TrainingPlan(settings.epochs, settings.batch_size, settings.validate_every, profile.seed)

    def set_up(self, context: RunContext, train: Split, val: Split, choice: ClipChoice | None = None) -> TrainingSetup:
        """Encode what is frozen, and put what trains on the device. `choice` defaults to the CLIP of a new run."""
        clip = load_encoder(context, choice or choose_clip(context, self.start, self.encoder))
        return self.build(self, context, clip, train, val)


def training_files(train: Split, val: Split) -> Files:
    """The distinct images that a run reads, with their files: of training triplets, and of all the validation split."""
    return files_of([train, val], [*train.triplet_images(), *val.images()])


def _build_finetuning(stage: Stage, context: RunContext, clip: LoadedClip, train: Split, val: Split) -> TrainingSetup:
    settings = context.profile.finetune
    chunk_size = settings.chunk_size if isinstance(settings.chunk_size, int) else None
    store = context.store(clip.encoder)
    files = training_files(train, val)
    cache = ImageCache(files, store.transform, context.workers)
    encoded = None if "image" in stage.towers else store.images(files)
    data = TrainingData.of(context, train, val, encoded.bad if encoded else _find_bad(cache, context))
    images, captions = data.val.images(), data.val_captions()
    frozen = None if "text" in stage.towers else store.texts([*data.rows.captions, *captions])
    sources = (
        CachedFeatures(encoded.table.of(data.rows.images))
        if encoded
        else ImageEncoderSource(clip.encoder, cache, data.rows.images, chunk_size),
        CachedFeatures(frozen.of(data.rows.captions))
        if frozen
        else TextEncoderSource(clip.encoder, store.tokens(data.rows.captions), chunk_size),
    )
    objective = FinetuneObjective(clip.encoder, data.rows, *sources)
    if settings.checkpoint_blocks:
        clip.encoder.checkpoint_blocks()
    optimizer = finetune_optimizer(clip.encoder, stage.towers, settings.learning_rate)
    trainer = Trainer(objective, optimizer, stage.plan(context.profile), context.compute)
    evaluation = Evaluation(data.val, data.protocol)

    def validate() -> Mapping[str, float]:
        image_table = encoded.table if encoded else store.encode_images_now(cache, images)
        text_table = frozen or store.texts(captions, banked=False)
        return evaluation(image_table, text_table, sum_query).metrics

    about = {"encoder": stage.encoder}
    return TrainingSetup(trainer, validate, data, store, clip, about, validation_work=lambda split: len(split.images()))


def _find_bad(cache: ImageCache, context: RunContext) -> Mapping[str, BadImage]:
    with context.progress.bar(f"Reading {counted(len(cache), 'image')}", len(cache)) as advance:
        return {image.name: image for image in cache.find_bad(advance)}


def _build_combiner_training(
    stage: Stage, context: RunContext, clip: LoadedClip, train: Split, val: Split
) -> TrainingSetup:
    profile, settings = context.profile, context.profile.combiner
    store = context.store(clip.encoder)
    encoded = store.images(training_files(train, val))
    data, images = TrainingData.of(context, train, val, encoded.bad), encoded.table
    texts = store.texts([*data.rows.captions, *data.val_captions()])
    architecture = Architecture(
        feature_dim=clip.encoder.feature_dim,
        projection_dim=settings.projection_dim,
        hidden_dim=settings.hidden_dim,
        levels=settings.levels,
        learned_temperature=settings.learned_temperature,
        self_supervised=bool(settings.sscl),
    )
    torch.manual_seed(derive_seed(profile.seed, "combiner"))
    combiner = Combiner(architecture).to(context.compute.device)
    views = _views(context, store, data) if settings.sscl else None
    sources = CachedFeatures(images.of(data.rows.images)), CachedFeatures(texts.of(data.rows.captions))
    objective = CombinerObjective(combiner, data.rows, *sources, views, settings.sscl)
    optimizer = combiner_optimizer(combiner, settings.learning_rate)
    scheduler = cosine_restarts(optimizer) if settings.schedule == "cosine_restarts" else None
    trainer = Trainer(objective, optimizer, stage.plan(profile), context.compute, scheduler)
    evaluation = Evaluation(data.val, data.protocol)
    compose = combiner_query(combiner, InferenceWeights(settings.inference_weights))

    def validate() -> Mapping[str, float]:
        combiner.eval()
        return evaluation(images, texts, compose).metrics

    about = {
        "architecture": ArchitectureRecord.model_validate(architecture.describe()),
        "inference_weights": settings.inference_weights,
    }
    rows_per_image = 1 + (settings.augmented_views if isinstance(settings.augmented_views, int) else 0)
    return TrainingSetup(trainer, validate, data, store, clip, about, lambda split: len(split.triplets), rows_per_image)


def _views(context: RunContext, store: FeatureStore, data: TrainingData) -> Views:
    rows, seed, count = data.rows, context.profile.seed, context.profile.combiner.augmented_views
    files = files_of([data.train, data.val], rows.images)
    if isinstance(count, int):
        return BankedViews(store.views(files, count, seed), rows.references, seed)
    cache = PaddedImageCache(store.transform)
    return FreshViews(store.encoder, cache, files, rows.references, context.workers, seed, Augmentation())


FINETUNE = Stage(
    name="finetune",
    command="finetune",
    kind=Kind.CLIP,
    settings=lambda profile: profile.finetune,
    build=_build_finetuning,
    encoder="both",
)
COMBINER = Stage(
    name="combiner",
    command="train-combiner",
    kind=Kind.COMBINER,
    settings=lambda profile: profile.combiner,
    build=_build_combiner_training,
)
STAGES = (FINETUNE, COMBINER)


def fine_tuning(encoder: str, start: str | Path | None = None) -> Stage:
    """The fine-tuning of `encoder` from `start`."""
    return replace(FINETUNE, encoder=encoder, start=start)
