"""The types of values that a profile holds. Messages and completion derive from them what a key takes."""

import os
import re
from pathlib import Path
from string import Template
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, ValidationInfo

from mlcl_cli.suggestions import nearest, shown

ClipName: TypeAlias = Literal[
    "RN50", "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px"
]
CLIP_NAMES: tuple[str, ...] = get_args(ClipName)
STORE = re.compile(r"milvus://[^/\s]+:\d+(/\w+)?")


class _Variables(Template):
    braceidpattern = "[^}]*"


class _Environment(dict[str, str]):
    def __missing__(self, name: str) -> str:
        raise ValueError(f"uses the environment variable {shown(name)}, which is not set")


class CommandLineText(str):
    """Text from the command line: a relative path in it starts at the working folder, as a shell completes it."""

    __slots__ = ()


def _expand(text: str) -> str:
    """`text` with environment variables in place of `$X` and `${X}`, and a dollar sign in place of `$$`."""
    return _Variables(text).safe_substitute(_Environment(os.environ))


def _path(value: object, info: ValidationInfo) -> object:
    """The absolute path that text names, starting at the profile's folder; `~` is the home folder."""
    if not isinstance(value, str | Path):
        return value
    if not str(value).strip():
        raise ValueError("must be a path, not an empty value")
    folder: Path = Path.cwd() if isinstance(value, CommandLineText) else (info.context or {}).get("folder", Path.cwd())
    text = _expand(value) if isinstance(value, str) else str(value)
    try:
        path = (folder / Path(text).expanduser()).resolve()
        if b"\0" in str(path).encode():
            raise ValueError("null character")
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: an unknown user, or a loop of links
        raise ValueError(f"is not a valid path, {shown(text)} ({error!s:.80})") from error
    return path


def _word_or_path(*words: str) -> BeforeValidator:
    """One of `words`, or a path; text that looks like neither stays as it is, and the field's type refuses it."""

    def validate(value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str):
            return _path(value, info)
        text = _expand(value)
        is_file = text.startswith((".", "/", "~")) or Path(text).suffix
        if text not in words and (is_file or ("/" in text and not nearest(text, words, cutoff=0.75))):
            return _path(value, info)
        return text

    return BeforeValidator(validate)


def _in_order(*names: str) -> AfterValidator:
    def validate(value: tuple[str, ...]) -> tuple[str, ...]:
        if repeated := next((name for name in names if value.count(name) > 1), None):
            raise ValueError(f"lists {shown(repeated)} twice")
        return tuple(name for name in names if name in value)

    return AfterValidator(validate)


Level: TypeAlias = Literal["sum", "cat", "hybrid"]
SsclTerm: TypeAlias = Literal["mid", "high"]
Levels: TypeAlias = Annotated[tuple[Level, ...], Field(strict=False), _in_order(*get_args(Level))]
Logger: TypeAlias = Literal["wandb", "mlflow"]
Loggers: TypeAlias = Annotated[tuple[Logger, ...], Field(strict=False), _in_order(*get_args(Logger))]
SsclTerms: TypeAlias = Annotated[tuple[SsclTerm, ...], Field(strict=False), _in_order(*get_args(SsclTerm))]


def _one_or_several(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _expanded(value: object) -> object:
    return _expand(value) if isinstance(value, str) else value


def _ascending(values: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(set(values)))


def _store(value: str) -> str:
    if value != "lancedb" and not STORE.fullmatch(value):
        raise ValueError(f"must be lancedb, or an address such as milvus://localhost:19530, not {shown(value)}")
    return value


ColumnName: TypeAlias = Annotated[str, BeforeValidator(_expanded)]
ColumnNames: TypeAlias = Annotated[
    tuple[ColumnName, ...], Field(strict=False, min_length=1), BeforeValidator(_one_or_several)
]
Count: TypeAlias = Annotated[PositiveInt, Field(le=2**31 - 1)]
Cutoffs: TypeAlias = Annotated[tuple[Count, ...], Field(strict=False), AfterValidator(_ascending)]
BatchSize: TypeAlias = Annotated[int, Field(ge=2, le=2**31 - 1)]
FilePath: TypeAlias = Annotated[Path, BeforeValidator(_path)]
OptionalFile: TypeAlias = Annotated[Literal["none"] | Path, _word_or_path("none")]
ClipModel: TypeAlias = Annotated[ClipName | Path, _word_or_path(*CLIP_NAMES)]
ClipCheckpoint: TypeAlias = Annotated[Literal["auto", "none"] | Path, _word_or_path("auto", "none")]
StoreAddress: TypeAlias = Annotated[str, AfterValidator(_store)]
