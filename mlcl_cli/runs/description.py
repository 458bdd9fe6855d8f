"""What a run, its checkpoints and its training states say about themselves."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, NonNegativeInt

from mlcl_cli.models.combiner import Level
from mlcl_cli.models.encoder import Tower


class Kind(StrEnum):
    """The network that a checkpoint holds."""

    CLIP = "clip"
    COMBINER = "combiner"


class Described(BaseModel):
    """Strict types, no NaN. Unknown keys, which other versions may write, are kept."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", allow_inf_nan=False)


class ClipRecord(Described):
    """The CLIP that a run started from, or that a combiner belongs to.

    `model` and `checkpoint` are names, or paths relative to the workspace. `fingerprint` identifies that CLIP, `base`
    identifies `model` before tuning, and `tuned` lists the encoders that tuning changed. Files of older versions lack
    `base` and `tuned`.
    """

    model: str
    checkpoint: str | None = None
    fingerprint: str
    base: str | None = None
    tuned: list[Tower] | None = None

    @property
    def known_base(self) -> str | None:
        """The base's fingerprint, if this record shows it: an untuned CLIP is its own base."""
        return self.base or (self.fingerprint if self.checkpoint is None else None)


class ImageRecord(Described):
    """How images were turned into the encoder's input."""

    transform: str
    target_ratio: float

    @property
    def settings(self) -> str:
        """The profile settings that produce it, in words."""
        return f"image.transform {self.transform} and image.target_ratio {self.target_ratio:g}"

    def __str__(self) -> str:
        return f"{self.transform} {self.target_ratio:g}" if self.transform == "targetpad" else self.transform


class ArchitectureRecord(Described):
    """The levels of a combiner. Its sizes are read from its weights."""

    levels: list[Level]


class ProbeRecord(Described):
    """The features of a tuned CLIP's probe (see `models.probe`)."""

    image: list[float]
    text: list[float]


class TrainingDescription(Described):
    """How weights were trained, as recorded in `run.json`, in checkpoints and in training states.

    Files of other versions and of the original code may lack any of it.
    """

    dataset: str | None = None
    protocol: str | None = None
    pruned: bool | None = None
    clip: ClipRecord | None = None
    image: ImageRecord | None = None
    seed: int | None = None
    data: dict[str, str] | None = None
    encoder: Literal["text", "image", "both"] | None = None
    architecture: ArchitectureRecord | None = None
    inference_weights: str | None = None
    device: str | None = None
    precision: str | None = None
    versions: dict[str, str] | None = None
    identity: dict[str, JsonValue] | None = None
    profile: dict[str, JsonValue] | None = None
    note: str | None = None


class CheckpointDescription(TrainingDescription):
    """The description of a checkpoint: what it holds, and the epoch and score that it was kept for."""

    kind: Annotated[Kind, Field(strict=False)]
    fingerprint: str
    epoch: NonNegativeInt = 0
    selected_by: str | None = None
    score: float | None = None
    metrics: Mapping[str, float] | None = None
    probe: ProbeRecord | None = None
