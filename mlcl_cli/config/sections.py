"""The sections of a profile, each with its defaults: the published recipe."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, model_validator

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
    OptionalFile,
    SsclTerms,
    StoreAddress,
)
from mlcl_cli.data.datasets import CAPTION_RULES, GALLERIES
from mlcl_cli.data.definition import DataSet
from mlcl_cli.data.own_data import own_dataset, own_protocol
from mlcl_cli.data.own_tables import Columns, Tables
from mlcl_cli.suggestions import shown

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

if TYPE_CHECKING:  # The words that follow from the data sets: a type checker cannot see them.
    GalleryName: TypeAlias = str
    CaptionRule: TypeAlias = str
else:
    GalleryName = Literal[GALLERIES]
    CaptionRule = Literal[("auto", *CAPTION_RULES)]


class Section(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _defaults_if_empty(cls, value: object) -> object:
        return {} if value is None else value


class ColumnSettings(Section):
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


class OwnProtocol(Section):
    """How queries on one's own data are ranked and scored."""

    recall_at: Annotated[Cutoffs, Field(min_length=1)] = (1, 10, 50)
    map_at: Cutoffs = ()
    exclude_reference: bool = True
    per_category: bool = False
    captions: Literal["joined", "alternatives"] = "joined"


class OwnData(Section):
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


class Clip(Section):
    """The encoder: one of OpenAI's names or a file, a tuned checkpoint on top, and how many are encoded at once."""

    model: ClipModel = "RN50x4"
    checkpoint: ClipCheckpoint = "auto"
    encode_batch: Literal["auto"] | Count = "auto"


class Image(Section):
    """How an image becomes the encoder's input (METHOD.md, Section 7.1)."""

    transform: Literal["targetpad", "squarepad", "clip"] = "targetpad"
    target_ratio: float = Field(1.25, ge=1)
    max_megapixels: PositiveFloat = 64.0
    read_seconds: PositiveFloat = 120.0


class Finetune(Section):
    """Stage 1; the defaults are METHOD.md, Section 3.2."""

    encoder: Literal["text", "image", "both"] = "both"
    epochs: Count = 100
    batch_size: BatchSize = 128
    learning_rate: PositiveFloat = 2e-6
    validate_every: Count = 1
    chunk_size: Literal["none"] | Count = "none"
    checkpoint_blocks: bool = False


class Combiner(Section):
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


class Evaluate(Section):
    """The choices that a data set's protocols leave."""

    gallery: GalleryName = "original"
    exclude_reference: Literal["auto"] | bool = "auto"
    captions: CaptionRule = "auto"
    text_weight: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] = Field(
        "auto", description="auto or a number from 0 to 1"
    )


class Checkpoints(Section):
    """How often a run saves the state that it can resume from, and which epochs' weights it keeps for good."""

    every_epochs: Literal["none"] | Count = "none"
    every_minutes: PositiveFloat = 5.0
    keep_every: Literal["none"] | Count = "none"


def _catalog_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f"must consist of letters, digits, - and _, not {shown(name)}")
    return name


class Catalog(Section):
    """One's own products, which `index` encodes and `search` searches."""

    name: Annotated[str, AfterValidator(_catalog_name)] = "default"
    store: StoreAddress = "lancedb"
    search: Literal["auto", "exact", "index"] = "auto"
    vectors: Literal["fp16", "fp32"] = "fp16"
