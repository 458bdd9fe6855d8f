"""What a profile says: frozen, typed, checked when made. Names and defaults are fixed; scripts rely on them."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from mlcl_cli.config.types import (
    BatchSize,
    ClipCheckpoint,
    ClipModel,
    ColumnName,
    ColumnNames,
    Count,
    Cutoffs,
    FilePath,
    Levels,
    Loggers,
    OptionalFile,
    SsclTerms,
)
from mlcl_cli.data.datasets import CAPTION_RULES, DATASETS, GALLERIES
from mlcl_cli.data.definition import DataSet
from mlcl_cli.data.own_data import own_dataset, own_protocol
from mlcl_cli.data.own_tables import Columns, Tables
from mlcl_cli.data.protocols import Protocol
from mlcl_cli.suggestions import did_you_mean, shown

CONTRADICTION = "contradiction"
FOLDER_SECTIONS = tuple(name for name, dataset in DATASETS.items() if dataset.folders)
# The sections that say where data is, and their defaults: a root per data set, and further folders of some.
DATA_SECTIONS: Mapping[str, Mapping[str, str]] = {
    "roots": {name: dataset.root for name, dataset in DATASETS.items()},
    **{
        name: {key: f"{DATASETS[name].root}/{below}" for key, below in DATASETS[name].folders.items()}
        for name in FOLDER_SECTIONS
    },
}
# All sections that say where data is.
DATA_KEYS = (*DATA_SECTIONS, "datasets")
OWN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _defaults_if_empty(cls, value: object) -> object:
        return {} if value is None else value


class ColumnSettings(_Section):
    """The columns of one's own tables; targets and captions may be in several columns.

    `split`, `category` and `id` are `none` where a column of the default name means something else.
    """

    reference: ColumnName = "reference"
    target: ColumnNames = ("target",)
    caption: ColumnNames = ("caption",)
    image: ColumnName = "image"
    split: ColumnName = "split"
    category: ColumnName = "category"
    id: ColumnName = "id"


class OwnProtocol(_Section):
    """How queries on one's own data are ranked and scored."""

    recall_at: Annotated[Cutoffs, Field(min_length=1)] = (1, 10, 50)
    map_at: Cutoffs = ()
    exclude_reference: bool = True
    per_category: bool = False
    captions: Literal["joined", "alternatives"] = "joined"


class OwnData(_Section):
    """A data set of one's own: a folder of images, and the tables that name them (DATASETS.md, Section 6)."""

    images: FilePath
    triplets: FilePath
    gallery: OptionalFile = "none"
    columns: ColumnSettings = ColumnSettings()
    val_fraction: float = Field(0.1, gt=0, lt=1, description="a number between 0 and 1")
    protocol: OwnProtocol = OwnProtocol()

    def definition(self, name: str) -> DataSet:
        """The data set as commands know it."""
        tables = Tables(
            name=name,
            images=self.images,
            triplets=self.triplets,
            gallery=self.gallery if isinstance(self.gallery, Path) else None,
            columns=Columns(**self.columns.model_dump(), chosen=frozenset(self.columns.model_fields_set)),
            val_fraction=self.val_fraction,
            per_category=self.protocol.per_category,
        )
        return own_dataset(tables, own_protocol(name, **self.protocol.model_dump(), gallery=tables.gallery))


def _own_names(datasets: dict[str, OwnData]) -> dict[str, OwnData]:
    for name in datasets:
        if name in DATASETS:
            raise ValueError(f"has {name}, which is the name of a built-in data set; choose another")
        if not OWN_NAME.fullmatch(name):
            raise ValueError(f"has the name {name!r}; use letters, digits, - and _")
    return datasets


def _known_dataset(name: str, info: ValidationInfo) -> str:
    names = (*DATASETS, *info.data.get("datasets", {}))
    if name not in names and "datasets" in info.data:
        raise ValueError(f"must be one of {', '.join(names)}, not {shown(name)}{did_you_mean(name, names)}")
    return name


if TYPE_CHECKING:  # The keys and words that follow from the data sets: a type checker cannot see them.
    GalleryName: TypeAlias = str

    CaptionRule: TypeAlias = str

    class _DataKeys(_Section):
        datasets: dict[str, OwnData]
        dataset: str
        roots: BaseModel

else:
    GalleryName = Literal[GALLERIES]
    CaptionRule = Literal[("auto", *CAPTION_RULES)]
    _known = Annotated[Literal[tuple(DATASETS)] | str, AfterValidator(_known_dataset)]
    _fields = {
        "datasets": (Annotated[dict[str, OwnData], AfterValidator(_own_names)], {}),
        "dataset": (_known, Field(description=f"one of {', '.join(DATASETS)}, or a name under datasets")),
    }
    for _name, _defaults in DATA_SECTIONS.items():
        _paths = {key: (FilePath, Path(default)) for key, default in _defaults.items()}
        _fields[_name] = create_model(_name.title(), __base__=_Section, **_paths), Field({}, validate_default=True)
    _DataKeys = create_model("_DataKeys", __base__=_Section, **_fields)


class Clip(_Section):
    """The encoder: one of OpenAI's names or a file, a tuned checkpoint on top, and how many are encoded at once."""

    model: ClipModel = "RN50x4"
    checkpoint: ClipCheckpoint = "auto"
    encode_batch: Literal["auto"] | Count = "auto"


class Image(_Section):
    """How an image becomes the encoder's input (METHOD.md, Section 7.1)."""

    transform: Literal["targetpad", "squarepad", "clip"] = "targetpad"
    target_ratio: float = Field(1.25, ge=1)
    max_megapixels: PositiveFloat = 64.0
    read_seconds: PositiveFloat = 120.0


class Finetune(_Section):
    """Stage 1; the defaults are METHOD.md, Section 3.2."""

    encoder: Literal["text", "image", "both"] = "both"
    epochs: Count = 100
    batch_size: BatchSize = 128
    learning_rate: PositiveFloat = 2e-6
    validate_every: Count = 1
    chunk_size: Literal["none"] | Count = "none"
    checkpoint_blocks: bool = False


class Combiner(_Section):
    """Stage 2: network, losses, training and use; the defaults are METHOD.md, Sections 4.1 and 4.4."""

    projection_dim: Count = 2560
    hidden_dim: Count = 5120
    epochs: Count = 1000
    batch_size: BatchSize = 2048
    learning_rate: PositiveFloat = 2e-5
    validate_every: Count = 1
    learned_temperature: bool = True
    levels: Levels = ("sum", "cat", "hybrid")
    sscl: SsclTerms = ("mid", "high")
    augmented_views: Literal["fresh"] | Count = "fresh"
    schedule: Literal["none", "cosine_restarts"] = "none"
    inference_weights: Literal["released", "matched"] = "released"
    select_by: Literal["auto", "arithmetic", "harmonic", "geometric"] = "auto"


class Evaluate(_Section):
    """The choices that a data set's protocols leave."""

    gallery: GalleryName = "original"
    exclude_reference: Literal["auto"] | bool = "auto"
    captions: CaptionRule = "auto"


class Checkpoints(_Section):
    """How often a run saves the state that it can resume from, and which epochs' weights it keeps for good."""

    every_epochs: Literal["none"] | Count = "none"
    every_minutes: PositiveFloat = 5.0
    keep_every: Literal["none"] | Count = "none"


class Profile(_DataKeys):
    """A whole profile. Relative paths start at the validation context's `folder`, else at the working folder."""

    workspace: FilePath = Path("runs")
    device: Literal["auto", "cuda", "cpu"] = "auto"
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    seed: int = Field(0, ge=0, le=2**63 - 1)
    workers: Literal["auto"] | Count = "auto"
    bad_images: Literal["stop", "drop"] = "stop"
    resume: Literal["none", "auto"] = "none"
    checkpoints: Checkpoints = Checkpoints()
    tensorboard: Literal["auto", "none"] = "auto"
    loggers: Loggers = ()
    clip: Clip = Clip()
    image: Image = Image()
    finetune: Finetune = Finetune()
    combiner: Combiner = Combiner()
    evaluate: Evaluate = Evaluate()

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    @property
    def root(self) -> Path:
        """The data set's folder."""
        own = self.datasets.get(self.dataset)
        root: Path = own.triplets if own else getattr(self.roots, self.dataset)
        return root

    @property
    def definition(self) -> DataSet:
        """The data set: a built-in one, or one of the section `datasets`."""
        own = self.datasets.get(self.dataset)
        return own.definition(self.dataset) if own else DATASETS[self.dataset]

    @property
    def protocol(self) -> Protocol:
        """The protocol that `evaluate` chooses, with the metric that selects checkpoints first."""
        choice = self.evaluate
        exclude = choice.exclude_reference if isinstance(choice.exclude_reference, bool) else None
        protocol = self.definition.protocol(choice.gallery, choice.captions, exclude_reference=exclude)
        if self.combiner.select_by == "auto":
            return protocol
        first = f"{self.combiner.select_by}_mean"
        return replace(protocol, bests=(first, *(best for best in protocol.bests if best != first)))

    @property
    def folders(self) -> Mapping[str, Path]:
        """The data set's further folders."""
        return dict(getattr(self, self.dataset)) if self.dataset in FOLDER_SECTIONS else {}

    def under(self, dataset: str, protocol: Protocol) -> "Profile":
        """The profile with that data set and protocol chosen."""
        choice = self.evaluate.model_copy(
            update={
                "gallery": protocol.gallery,
                "captions": protocol.captions.name,
                "exclude_reference": protocol.exclude_reference,
            }
        )
        return self.model_copy(update={"dataset": dataset, "evaluate": choice})

    @field_validator(*FOLDER_SECTIONS, mode="before")
    @classmethod
    def _below_root(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, Mapping | None) or "roots" not in info.data:
            return value
        name = str(info.field_name)
        root: Path = getattr(info.data["roots"], name)
        return {key: root / below for key, below in DATASETS[name].folders.items()} | dict(value or {})

    @field_validator("finetune", "combiner", mode="after")
    @classmethod
    def _agrees(cls, value: Finetune | Combiner, info: ValidationInfo) -> Finetune | Combiner:
        if problems := _contradictions(value, info.data.get("dataset")):
            text = "; ".join(f"{info.field_name}.{keys[0]} {what}" for keys, what in problems.items())
            raise PydanticCustomError(CONTRADICTION, "{text}", {"text": text, "problems": problems})
        return value


def _selectable_bests(dataset: str) -> tuple[str, ...]:
    return DATASETS[dataset].selectable_bests if dataset in DATASETS else ()


def _contradictions(stage: Finetune | Combiner, dataset: str | None) -> dict[tuple[str, ...], str]:
    """The keys that contradict each other, the culprit first, and what is wrong with it."""
    problems: dict[tuple[str, ...], str] = {}
    if stage.validate_every > stage.epochs:
        what = f"must be at most the number of epochs, {stage.epochs}, not {stage.validate_every}"
        problems["validate_every", "epochs"] = what
    if isinstance(stage, Finetune):
        return problems
    if not {"cat", "hybrid"} & set(stage.levels):
        problems["levels",] = "must have cat or hybrid: without them there is nothing to train"
    if "high" in stage.sscl and "hybrid" not in stage.levels:
        problems["sscl", "levels"] = "has high, which needs the level hybrid, and combiner.levels has none"
    best = f"{stage.select_by}_mean"
    if stage.select_by != "auto" and dataset is not None and best not in _selectable_bests(dataset):
        fitting = " and ".join(name for name, other in DATASETS.items() if best in other.selectable_bests)
        problems["select_by",] = f"must be auto: only {fitting} has several bests, and the data set is {dataset}"
    return problems
