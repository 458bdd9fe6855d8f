"""What `auto` relies on in a run's summary and in a checkpoint's description, checked before it is believed."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, FiniteFloat, ValidationError

from mlcl_cli.errors import DataError, UsageError
from mlcl_cli.runs.description import ClipRecord, ImageRecord
from mlcl_cli.runs.listing import ListedRun
from mlcl_cli.runs.summary import SUMMARY


class _Described(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", protected_namespaces=())


def _is_file_name(text: str) -> str:
    if not re.fullmatch(r"[^/\\\0]+", text) or text in (".", ".."):
        raise ValueError("must be the name of a file in the run's folder")
    return text


class BestRecord(_Described):
    """The best epoch by one metric: a finite score, and the name of its checkpoint in the run's folder."""

    score: FiniteFloat
    checkpoint: Annotated[str, AfterValidator(_is_file_name)]


class RunRecord(_Described):
    """What `auto` reads of a run's summary. Older versions recorded no `data`; `inference_weights` is a combiner's."""

    created: str
    state: str
    dataset: str
    protocol: str
    pruned: bool = False
    image: ImageRecord
    clip: ClipRecord
    bests: dict[str, BestRecord]
    seed: int | None = None
    data: dict[str, str] | None = None
    inference_weights: str | None = None
    encoder: Literal["text", "image", "both"] | None = None


def best_checkpoint(run: ListedRun, metric: str) -> Path:
    """A run's best checkpoint by `metric`, or by what it was judged by where it has no such metric.

    Raises DataError where the run's summary is damaged, UsageError where no epoch has been validated.
    """
    summary = read_record(run)
    if run.problem is not None:
        raise run.problem
    if isinstance(summary, str):
        raise DataError("is not a valid run summary", where=summary, remedy="Fix the file, or name another run")
    best = summary.bests.get(metric) or next(iter(summary.bests.values()), None)
    if best is None:
        raise UsageError("has no validated epoch yet", where=run.folder, remedy="Wait for its first one")
    return run.folder / best.checkpoint


def read_record(run: ListedRun) -> RunRecord | str:
    """The run's summary, or what is wrong with it."""
    if run.problem is not None:
        return f"{run.problem.where}: {run.problem.what}"
    try:
        return RunRecord.model_validate(run.summary)
    except ValidationError as error:
        return f"{run.folder / SUMMARY}: {_first(error)}"


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    message = first["msg"]
    return f"{'.'.join(map(str, first['loc']))}: {message[0].lower()}{message[1:]}"
