"""The two stages of training: what each is called, and how it is put together before its first step."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch

from mlcl_cli.config import Profile
from mlcl_cli.config.sections import Combiner as CombinerSettings
from mlcl_cli.config.sections import Finetune as FinetuneSettings
from mlcl_cli.data.protocols import Protocol
from mlcl_cli.data.records import Split
from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.features.store import FeatureStore
from mlcl_cli.formatting import counted
from mlcl_cli.images.augment import Augmentation
from mlcl_cli.images.decode import BadImage
from mlcl_cli.images.image_cache import ImageCache, PaddedImageCache
from mlcl_cli.models.combiner import Architecture, Combiner, InferenceWeights
from mlcl_cli.models.encoder import TOWERS, Towers
from mlcl_cli.models.weights import State
from mlcl_cli.retrieval.evaluation import Evaluation, combiner_query, sum_query
from mlcl_cli.retrieval.ranking import Ranks
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
class Frozen:
    """What no training changes, built once for all runs on the same data and CLIP.

    `images` and `texts` are features by name; None if that tower trains. The caches hold decoded images: as the encoder
    sees them, and in full size for augmented views.
    """

    clip: LoadedClip
    store: FeatureStore
    data: TrainingData
    images: FeatureTable | None
    texts: FeatureTable | None
    image_cache: ImageCache
    padded_cache: PaddedImageCache

    def copied(self, context: RunContext) -> Self:
        """The same with a copy of the CLIP, which a run may train."""
        encoder = deepcopy(self.clip.encoder)
        return replace(self, clip=replace(self.clip, encoder=encoder), store=context.store(encoder))


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
    build: Callable[["Stage", RunContext, Frozen], TrainingSetup]
    judge: Callable[["Stage", RunContext, Frozen, State], dict[str, Ranks]]
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

    def freeze(self, context: RunContext, train: Split, val: Split, choice: ClipChoice | None = None) -> Frozen:
        """Load the CLIP and encode what is frozen. `choice` defaults to the CLIP of a new run."""
        clip = load_encoder(context, choice or choose_clip(context, self.start, self.encoder))
        store, files = context.store(clip.encoder), training_files(train, val)
        cache = ImageCache(files, store.transform, context.workers)
        encoded = None if "image" in self.towers else store.images(files)
        data = TrainingData.of(context, train, val, encoded.bad if encoded else _find_bad(cache, context))
        texts = None if "text" in self.towers else store.texts([*data.rows.captions, *data.val_captions()])
        images = encoded.table if encoded else None
        return Frozen(clip, store, data, images, texts, cache, PaddedImageCache(store.transform))

    def own(self, context: RunContext, frozen: Frozen) -> Frozen:
        """What one of several runs may change: the same with a copy of the CLIP, if it trains."""
        return frozen.copied(context) if self.towers else frozen

    def set_up(self, context: RunContext, frozen: Frozen) -> TrainingSetup:
        """Put what trains on the device. Tuning changes the CLIP of `frozen`."""
        return self.build(self, context, frozen)

    def ranks(self, context: RunContext, frozen: Frozen, weights: State) -> dict[str, Ranks]:
        """The validation targets' ranks by query set, with the weights of a checkpoint.

        Raises NotFiniteError where a score would not be finite. A checkpoint of a CLIP replaces that of `frozen`.
        """
        return self.judge(self, context, frozen, weights)


def training_files(train: Split, val: Split) -> Files:
    """The distinct images that a run reads, with their files: of training triplets, and of all the validation split."""
    return files_of([train, val], [*train.triplet_images(), *val.images()])


def _build_finetuning(stage: Stage, context: RunContext, frozen: Frozen) -> TrainingSetup:
    settings = context.profile.finetune
    chunk_size = settings.chunk_size if isinstance(settings.chunk_size, int) else None
    clip, store, data = frozen.clip, frozen.store, frozen.data
    sources = (
        CachedFeatures(frozen.images.of(data.rows.images))
        if frozen.images
        else ImageEncoderSource(clip.encoder, frozen.image_cache, data.rows.images, chunk_size),
        CachedFeatures(frozen.texts.of(data.rows.captions))
        if frozen.texts
        else TextEncoderSource(clip.encoder, store.tokens(data.rows.captions), chunk_size),
    )
    objective = FinetuneObjective(clip.encoder, data.rows, *sources)
    if settings.checkpoint_blocks:
        clip.encoder.checkpoint_blocks()
    optimizer = finetune_optimizer(clip.encoder, stage.towers, settings.learning_rate)
    trainer = Trainer(objective, optimizer, stage.plan(context.profile), context.compute)
    evaluation = Evaluation(data.val, data.protocol)
    about = {"encoder": stage.encoder}
    return TrainingSetup(
        trainer,
        validate=lambda: evaluation.figures(_rank_by_sum(frozen, evaluation)).metrics,
        data=data,
        store=store,
        clip=clip,
        about=about,
        validation_work=lambda split: len(split.images()),
    )


def _judge_clip(stage: Stage, context: RunContext, frozen: Frozen, weights: State) -> dict[str, Ranks]:  # noqa: ARG001
    frozen.clip.encoder.clip.load_state_dict(dict(weights))
    return _rank_by_sum(frozen, Evaluation(frozen.data.val, frozen.data.protocol))


def _rank_by_sum(frozen: Frozen, evaluation: Evaluation) -> dict[str, Ranks]:
    """The ranks by CLIP as it is now."""
    data, store = frozen.data, frozen.store
    images = frozen.images or store.encode_images_now(frozen.image_cache, data.val.images())
    texts = frozen.texts or store.texts(data.val_captions(), banked=False)
    return evaluation.ranks(images, texts, sum_query)


def _find_bad(cache: ImageCache, context: RunContext) -> Mapping[str, BadImage]:
    with context.progress.bar(f"Reading {counted(len(cache), 'image')}", len(cache)) as advance:
        return {image.name: image for image in cache.find_bad(advance)}


def _build_combiner_training(stage: Stage, context: RunContext, frozen: Frozen) -> TrainingSetup:
    profile, settings = context.profile, context.profile.combiner
    data, images, texts = frozen.data, *_both(frozen)
    architecture = Architecture(
        feature_dim=frozen.clip.encoder.feature_dim,
        projection_dim=settings.projection_dim,
        hidden_dim=settings.hidden_dim,
        levels=settings.levels,
        learned_temperature=settings.learned_temperature,
        self_supervised=bool(settings.sscl),
    )
    torch.manual_seed(derive_seed(profile.seed, "combiner"))
    combiner = Combiner(architecture).to(context.compute.device)
    views = _views(context, frozen) if settings.sscl else None
    sources = CachedFeatures(images.of(data.rows.images)), CachedFeatures(texts.of(data.rows.captions))
    objective = CombinerObjective(combiner, data.rows, *sources, views, settings.sscl)
    optimizer = combiner_optimizer(combiner, settings.learning_rate)
    scheduler = cosine_restarts(optimizer) if settings.schedule == "cosine_restarts" else None
    trainer = Trainer(objective, optimizer, stage.plan(profile), context.compute, scheduler)
    evaluation = Evaluation(data.val, data.protocol)
    about = {
        "architecture": ArchitectureRecord.model_validate(architecture.describe()),
        "inference_weights": settings.inference_weights,
    }
    rows_per_image = 1 + (settings.augmented_views if isinstance(settings.augmented_views, int) else 0)
    return TrainingSetup(
        trainer,
        validate=lambda: evaluation.figures(_rank_by_combiner(context, frozen, evaluation, combiner)).metrics,
        data=data,
        store=frozen.store,
        clip=frozen.clip,
        about=about,
        validation_work=lambda split: len(split.triplets),
        features_per_image=rows_per_image,
    )


def _judge_combiner(stage: Stage, context: RunContext, frozen: Frozen, weights: State) -> dict[str, Ranks]:  # noqa: ARG001
    combiner = Combiner.from_state(weights, levels=context.profile.combiner.levels).to(context.compute.device)
    return _rank_by_combiner(context, frozen, Evaluation(frozen.data.val, frozen.data.protocol), combiner)


def _rank_by_combiner(
    context: RunContext, frozen: Frozen, evaluation: Evaluation, combiner: Combiner
) -> dict[str, Ranks]:
    compose = combiner_query(combiner.eval(), InferenceWeights(context.profile.combiner.inference_weights))
    return evaluation.ranks(*_both(frozen), compose)


def _both(frozen: Frozen) -> tuple[FeatureTable, FeatureTable]:
    """The features of images and texts, neither of which trains."""
    assert frozen.images is not None
    assert frozen.texts is not None
    return frozen.images, frozen.texts


def _views(context: RunContext, frozen: Frozen) -> Views:
    data, store = frozen.data, frozen.store
    rows, seed, count = data.rows, context.profile.seed, context.profile.combiner.augmented_views
    files = files_of([data.train, data.val], rows.images)
    if isinstance(count, int):
        return BankedViews(store.views(files, count, seed), rows.references, seed)
    cache = frozen.padded_cache
    return FreshViews(store.encoder, cache, files, rows.references, context.workers, seed, Augmentation())


FINETUNE = Stage(
    name="finetune",
    command="finetune",
    kind=Kind.CLIP,
    settings=lambda profile: profile.finetune,
    build=_build_finetuning,
    judge=_judge_clip,
    encoder="both",
)
COMBINER = Stage(
    name="combiner",
    command="train-combiner",
    kind=Kind.COMBINER,
    settings=lambda profile: profile.combiner,
    build=_build_combiner_training,
    judge=_judge_combiner,
)
STAGES = (FINETUNE, COMBINER)


def fine_tuning(encoder: str, start: str | Path | None = None) -> Stage:
    """The fine-tuning of `encoder` from `start`."""
    return replace(FINETUNE, encoder=encoder, start=start)


def stage_of_sweep(command: str, profile: Profile) -> Stage:
    """The stage that `command` trains, as one of several runs.

    Runs that fine-tune start from the CLIP that the profile names, by default the untuned one: which tuned CLIP is best
    would change while they train.
    """
    if command == COMBINER.command:
        return COMBINER
    return fine_tuning(profile.finetune.encoder, "none" if profile.clip.checkpoint == "auto" else None)
