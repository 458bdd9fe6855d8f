"""What a profile says: frozen, typed, checked when made. Names and defaults are fixed; scripts rely on them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, create_model, field_validator
from pydantic_core import PydanticCustomError

from mlcl_cli.config.sections import (
    NAME,
    Catalog,
    Checkpoints,
    Clip,
    Combiner,
    Evaluate,
    Finetune,
    Image,
    OwnData,
    Section,
)
from mlcl_cli.config.types import Count, FilePath, Loggers
from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.data.definition import DataSet
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


def _own_names(datasets: dict[str, OwnData]) -> dict[str, OwnData]:
    for name in datasets:
        if name in DATASETS:
            raise ValueError(f"has {name}, which is the name of a built-in data set; choose another")
        if not NAME.fullmatch(name):
            raise ValueError(f"has the name {name!r}; use letters, digits, - and _")
    return datasets


def _known_dataset(name: str, info: ValidationInfo) -> str:
    names = (*DATASETS, *info.data.get("datasets", {}))
    if name not in names and "datasets" in info.data:
        raise ValueError(f"must be one of {', '.join(names)}, not {shown(name)}{did_you_mean(name, names)}")
    return name


if TYPE_CHECKING:  # The keys that follow from the data sets: a type checker cannot see them.

    class _DataKeys(Section):
        datasets: dict[str, OwnData]
        dataset: str
        roots: BaseModel

else:
    _known = Annotated[Literal[tuple(DATASETS)] | str, AfterValidator(_known_dataset)]
    _fields = {
        "datasets": (Annotated[dict[str, OwnData], AfterValidator(_own_names)], {}),
        "dataset": (_known, Field(description=f"one of {', '.join(DATASETS)}, or a name under datasets")),
    }
    for _name, _defaults in DATA_SECTIONS.items():
        _paths = {key: (FilePath, Path(default)) for key, default in _defaults.items()}
        _section = create_model(_name.title(), __base__=Section, **_paths)
        globals()[_name.title()] = _section  # where pickle looks for it: a server's workers receive profiles
        _fields[_name] = _section, Field({}, validate_default=True)
    _DataKeys = create_model("_DataKeys", __base__=Section, **_fields)


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
    catalog: Catalog = Catalog()

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
