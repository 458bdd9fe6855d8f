"""What a run's `run.json` and its state files say about the run, checked before anything relies on it."""

import json
import math
import os
import stat
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from mlcl_cli.data.protocols import split_protocol_name
from mlcl_cli.errors import DataError
from mlcl_cli.runs.logs import NAMES

SUMMARY = "run.json"
MAX_BYTES, MAX_DEPTH = 16 * 2**20, 32
READ_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)  # a FIFO without a writer would block
Model = TypeVar("Model", bound=BaseModel)


def _timestamp(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("the time zone is missing")
    return text


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a path cannot hold a NUL character")
    return text


Count = Annotated[int, Field(ge=0, le=10**9)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Timestamp = Annotated[str, AfterValidator(_timestamp)]
Metric = Annotated[str, Field(pattern=r"^[A-Za-z0-9@_.,()/+-]{1,64}$")]
# A plain name: a best checkpoint never lies outside of its run's folder.
BestName = Annotated[str, Field(pattern=r"^best(-[A-Za-z0-9@_.+-]{1,64})?\.safetensors$")]
PathText = Annotated[str, AfterValidator(_without_nul)]
LogName = Annotated[str, AfterValidator(lambda name: name if name in NAMES else _refuse(name))]


def _refuse(name: str) -> str:
    raise ValueError(f"{name!r} is not a log; the logs are {', '.join(NAMES)}")


class _Part(BaseModel):
    """Strict types, no NaN. Keys that are not listed are kept."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", allow_inf_nan=False)


class BestSummary(_Part):
    """The best epoch by one metric: its score in percent, its checkpoint's name in the run's folder, its metrics."""

    epoch: Annotated[int, Field(ge=1, le=10**9)]
    score: Percent
    checkpoint: BestName
    metrics: dict[str, Finite]


class ClipSummary(_Part):
    """The CLIP that a run began with; paths start at the workspace."""

    model: PathText
    checkpoint: PathText | None
    fingerprint: str


class ImageSummary(_Part):
    """How images were prepared."""

    transform: str
    target_ratio: Finite


class RunSummary(_Part):
    """The content of `run.json`."""

    kind: Literal["clip", "combiner"]
    command: str
    created: Timestamp
    state: Literal["running", "finished", "interrupted"]
    epochs: Annotated[int, Field(ge=1, le=10**9)]
    epoch: Count
    bests: dict[Metric, BestSummary]
    dataset: str
    protocol: str
    pruned: bool = False
    clip: ClipSummary
    image: ImageSummary
    seed: int
    device: str
    versions: dict[str, str]
    identity: dict[str, Any] = Field(default_factory=dict)
    profile: dict[str, Any] = Field(default_factory=dict)
    encoder: Literal["text", "image", "both"] | None = None
    architecture: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_older_protocol(cls, data: object) -> object:
        """Older versions store a pruned gallery in the protocol's name."""
        if not isinstance(data, dict) or not isinstance(data.get("protocol"), str):
            return data
        name, pruned = split_protocol_name(data["protocol"])
        return {**data, "protocol": name, "pruned": True} if pruned else data

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a `run.json`. Raises DataError, which names the file and the key, for anything else."""
        remedy = f"Fix the file, or delete the run with `mlcl runs rm {path.parent.name}`"
        try:
            return cls.model_validate(_parsed(_content(path)))
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"is not a valid run summary ({_reason(error)})", where=path, remedy=remedy) from error

    def as_mapping(self) -> Mapping[str, Any]:
        """The keys that the file has, as plain values."""
        return self.model_dump(exclude_unset=True)


class StateProgress(_Part):
    """What a state file says about its run: the best epochs so far, and how long each log was, in bytes."""

    bests: dict[Metric, BestSummary]
    logs: dict[LogName, Annotated[int, Field(ge=0)]]

    @classmethod
    def of(cls, about: Mapping[str, Any], path: Path) -> Self:
        """Checks a state's description. Raises DataError that names the state file `path`."""
        try:
            return cls.model_validate(dict(about))
        except ValidationError as error:
            remedy = "Resume from another state of the run with --run FILE"
            raise DataError(f"is not a valid training state ({_reason(error)})", where=path, remedy=remedy) from error


def _content(path: Path) -> str:
    with open(os.open(path, READ_FLAGS), "rb") as file:  # noqa: PTH123
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("not a regular file")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES // 2**20} MiB")
    return content.decode()


def _parsed(text: str) -> Any:
    value = json.loads(text, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)
    _require_shallow(value)
    return value


def _require_shallow(value: Any, left: int = MAX_DEPTH) -> None:
    if left == 0:
        raise ValueError("nested too deeply")
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _require_shallow(part, left - 1)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key!r} appears twice")
        found[key] = value
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is not a finite number")
    return value


def _reason(error: BaseException) -> str:
    """What is wrong, in a few words; of a model's errors the first, with its key."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])[:200]
        what = "missing" if first["type"] == "missing" else first["msg"]
        return f"{key}: {what}" if key else what
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error)[:200]
