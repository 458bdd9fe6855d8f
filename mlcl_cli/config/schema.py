"""What a profile says: frozen, typed, checked when made. Names and defaults are fixed; scripts rely on them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import (
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

from mlcl_cli.config.types import BatchSize, ClipCheckpoint, ClipModel, Count, FilePath, Levels, SsclTerms
from mlcl_cli.data.datasets import DATASETS, GALLERIES

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


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _defaults_if_empty(cls, value: object) -> object:
        return {} if value is None else value


if TYPE_CHECKING:  # The keys and words that follow from the data sets: a type checker cannot see them.
    GalleryName: TypeAlias = str

    class _DataKeys(_Section):
        dataset: str
        roots: BaseModel

else:
    GalleryName = Literal[GALLERIES]
    _fields = {"dataset": (Literal[tuple(DATASETS)], ...)}
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
    """What evaluation ranks."""

    gallery: GalleryName = "original"


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
    clip: Clip = Clip()
    image: Image = Image()
    finetune: Finetune = Finetune()
    combiner: Combiner = Combiner()
    evaluate: Evaluate = Evaluate()

    @property
    def root(self) -> Path:
        """The data set's folder."""
        root: Path = getattr(self.roots, self.dataset)
        return root

    @property
    def folders(self) -> Mapping[str, Path]:
        """The data set's further folders."""
        return dict(getattr(self, self.dataset)) if self.dataset in FOLDER_SECTIONS else {}

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
    if stage.select_by != "auto" and dataset is not None and best not in DATASETS[dataset].selectable_bests:
        fitting = " and ".join(name for name, other in DATASETS.items() if best in other.selectable_bests)
        problems["select_by",] = f"must be auto: only {fitting} has several bests, and the data set is {dataset}"
    return problems
