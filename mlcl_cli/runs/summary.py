"""What a run's `run.json` and its training states say about the run, validated before anything relies on it."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, JsonValue, ValidationError, model_validator

from mlcl_cli.atomic_files import to_json, write_file
from mlcl_cli.data.protocols import split_protocol_name
from mlcl_cli.errors import DataError
from mlcl_cli.runs.description import ClipRecord, Described, ImageRecord, Kind, TrainingDescription
from mlcl_cli.runs.logs import LogName
from mlcl_cli.safe_reading import open_regular, parse_json

SUMMARY = "run.json"
MAX_BYTES = 16 * 2**20


class RunState(StrEnum):
    """The state of a run; `DAMAGED` where its `run.json` is invalid, which is never recorded."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    DAMAGED = "damaged"


def _recordable(state: RunState) -> RunState:
    if state is RunState.DAMAGED:
        raise ValueError("must be running, finished or interrupted")
    return state


def _timestamp(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("the time zone is missing")
    return text


def _usable_paths(clip: ClipRecord) -> ClipRecord:
    if "\0" in clip.model or "\0" in (clip.checkpoint or ""):
        raise ValueError("a path cannot contain a NUL character")
    return clip


Epoch = Annotated[int, Field(ge=1, le=10**9)]
MetricName = Annotated[str, Field(pattern=r"^[A-Za-z0-9@_.,()/+-]{1,64}$")]


class BestCheckpoint(Described):
    """The best epoch by one metric: its score in percent, its weights' file in the run's folder, its metrics."""

    epoch: Epoch
    # The product of roots that gives a geometric mean of 100 may round to a little more.
    score: Annotated[float, Field(ge=0, le=100 + 1e-9)]
    # A plain file name: a best checkpoint is never outside its run's folder.
    checkpoint: Annotated[str, Field(pattern=r"^best(-[A-Za-z0-9@_.+-]{1,64})?\.safetensors$")]
    metrics: dict[str, float]


class RunSummary(TrainingDescription):
    """The content of `run.json`. `bests` holds the best checkpoint by metric, that of the deciding metric first."""

    dataset: str
    protocol: str
    clip: Annotated[ClipRecord, AfterValidator(_usable_paths)]
    image: ImageRecord
    seed: int
    device: str
    versions: dict[str, str]
    kind: Annotated[Kind, Field(strict=False)]
    command: str
    created: Annotated[str, AfterValidator(_timestamp)]
    state: Annotated[RunState, Field(strict=False), AfterValidator(_recordable)]
    epochs: Epoch
    epoch: Annotated[int, Field(ge=0, le=10**9)]
    bests: dict[MetricName, BestCheckpoint]

    @model_validator(mode="before")
    @classmethod
    def _read_older_protocol(cls, data: object) -> object:
        """Older versions store a pruned gallery in the protocol's name."""
        if isinstance(data, dict) and isinstance(data.get("protocol"), str):
            name, pruned = split_protocol_name(data["protocol"])
            return data | ({"protocol": name, "pruned": True} if pruned else {})
        return data

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a `run.json`. Raises DataError, which names the file and the key, where it is not a valid one."""
        try:
            with open_regular(path) as file:
                content = file.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES:
                raise ValueError(f"larger than {MAX_BYTES // 2**20} MiB")
            value = parse_json(content.decode())
            _require_shallow(value)
            return cls.model_validate(value)
        except (OSError, ValueError) as error:
            remedy = f"Fix the file, or delete the run with `mlcl runs rm {path.parent.name}`"
            raise DataError(f"is not a valid run summary ({_reason(error)})", where=path, remedy=remedy) from error

    def write(self, path: Path) -> None:
        write_file(path, to_json(self.as_json(), indent=2))

    def as_json(self) -> dict[str, JsonValue]:
        """The content of the file, as plain values."""
        return self.model_dump(exclude_unset=True)

    @property
    def best(self) -> BestCheckpoint | None:
        """The best checkpoint by the deciding metric; None before the first validation."""
        return next(iter(self.bests.values()), None)


class StateProgress(Described):
    """What a training state says about its run: the best checkpoints so far, and each log's length in bytes."""

    bests: dict[MetricName, BestCheckpoint]
    logs: dict[LogName, Annotated[int, Field(ge=0)]]

    @classmethod
    def of(cls, about: Mapping[str, object], path: Path) -> Self:
        """Validate a state's description. Raises DataError, which names the state file `path`."""
        try:
            return cls.model_validate(dict(about))
        except ValidationError as error:
            remedy = "Resume from another state of the run with --run FILE"
            raise DataError(f"is not a valid training state ({_reason(error)})", where=path, remedy=remedy) from error


def _require_shallow(value: object, depth: int = 32) -> None:
    if depth == 0:
        raise ValueError("nested too deeply")
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _require_shallow(part, depth - 1)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])[:200]
        what = "missing" if first["type"] == "missing" else first["msg"]
        return f"{key}: {what}" if key else what
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error)[:200]
