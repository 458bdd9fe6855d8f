"""The kinds of values that a profile holds. A field's description is how its error message names what it takes."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field, ValidationInfo

from mlcl_cli.config.suggestions import did_you_mean, nearest, printable, shown

LARGEST = 2**31 - 1
LARGEST_SEED = 2**63 - 1
CLIP_NAMES = ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px")
PATH_WORDS = "a path"

Level: TypeAlias = Literal["sum", "cat", "hybrid"]
SsclTerm: TypeAlias = Literal["mid", "high"]

_VARIABLE = re.compile(r"\$(?:(\$)|([A-Za-z_][A-Za-z0-9_]*)|\{([^}]*)\})")


class Typed(str):
    """Text from the command line: a relative path in it starts at the working folder, as a shell completes it."""

    __slots__ = ()


def expand(text: str) -> str:
    """Puts environment variables in for `$X` and `${X}`; `$$` is a dollar sign.

    Raises ValueError that names a variable that is not set.
    """

    def value(match: re.Match[str]) -> str:
        if match[1]:
            return "$"
        name = match[2] or match[3]
        if name not in os.environ:
            raise ValueError(f"takes the environment variable {shown(name)}, which is not set")
        return os.environ[name]

    return _VARIABLE.sub(value, text)


def resolve(text: str | Path, folder: Path) -> Path:
    """The absolute path that `text` names when it starts at `folder`; `~` is the home folder.

    Raises ValueError for what no file system takes.
    """
    try:
        path = (folder / Path(text).expanduser()).resolve()
        str(path).encode()
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: no such user, or links in a circle
        raise ValueError(f"is no usable path, {shown(str(text))} ({error!s:.80})") from error
    if "\0" in str(path):
        raise ValueError(f"is no usable path, {shown(str(text))}")
    return path


def _path(value: object, info: ValidationInfo) -> object:
    if isinstance(value, str):
        return resolve(_filled(value), _folder(value, info))
    return resolve(value, _folder(value, info)) if isinstance(value, Path) else value


def _word_or_path(words: Sequence[str], what: str) -> Callable[[object, ValidationInfo], object]:
    def _validate(value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str):
            return _path(value, info)
        text = _filled(value)
        if text in words:
            return text
        if not _looks_like_file(text, words):
            hint = did_you_mean(text, words) or f". A file needs a folder or an ending: {printable('./' + text)}"
            raise ValueError(f"must be {what}, not {shown(text)}{hint}")
        return resolve(text, _folder(value, info))

    return _validate


def _filled(value: str) -> str:
    if not value.strip():
        raise ValueError(f"must be {PATH_WORDS}, not empty")
    return expand(value)


def _looks_like_file(text: str, words: Sequence[str]) -> bool:
    if text.startswith((".", "/", "~")) or Path(text).suffix:
        return True
    return "/" in text and nearest(text, words, cutoff=0.75) is None


def _folder(value: object, info: ValidationInfo) -> Path:
    if isinstance(value, Typed) or not info.context:
        return Path.cwd()
    folder: Path = info.context["folder"]
    return folder


def _subset(names: Sequence[str]) -> Callable[[object], object]:
    def _validate(value: object) -> object:
        if not isinstance(value, list | tuple):
            raise ValueError(f"must be a list of {', '.join(names)}, such as [{names[-1]}], not {shown(value)}")
        for item in value:
            if item not in names:
                raise ValueError(f"must be a list of {', '.join(names)}, not {shown(item)}{did_you_mean(item, names)}")
            if value.count(item) > 1:
                raise ValueError(f"has {shown(item)} twice")
        return tuple(name for name in names if name in value)

    return _validate


_CLIP = f"one of {', '.join(CLIP_NAMES)}, or a file"

Seed: TypeAlias = Annotated[int, Field(ge=0, le=LARGEST_SEED, description="a whole number of at least 0")]
WholeFrom1: TypeAlias = Annotated[int, Field(ge=1, le=LARGEST, description="a whole number of at least 1")]
WholeFrom2: TypeAlias = Annotated[int, Field(ge=2, le=LARGEST, description="a whole number of at least 2")]
Rate: TypeAlias = Annotated[float, Field(gt=0, description="a number above 0")]
Positive: TypeAlias = Annotated[float, Field(gt=0, description="a number above 0")]
Ratio: TypeAlias = Annotated[float, Field(ge=1, description="a number of at least 1")]
Switch: TypeAlias = Annotated[bool, Field(description="true or false")]
AutoOrWhole: TypeAlias = Annotated[
    Literal["auto"] | WholeFrom1, Field(description="auto or a whole number of at least 1")
]
NoneOrWhole: TypeAlias = Annotated[
    Literal["none"] | WholeFrom1, Field(description="none or a whole number of at least 1")
]
FreshOrWhole: TypeAlias = Annotated[
    Literal["fresh"] | WholeFrom1, Field(description="fresh or a whole number of at least 1")
]
FilePath: TypeAlias = Annotated[Path, BeforeValidator(_path), Field(description=PATH_WORDS)]
ClipModel: TypeAlias = Annotated[
    str | Path, BeforeValidator(_word_or_path(CLIP_NAMES, _CLIP)), Field(description=_CLIP)
]
ClipCheckpoint: TypeAlias = Annotated[
    Literal["auto", "none"] | Path,
    BeforeValidator(_word_or_path(("auto", "none"), "auto, none or a file")),
    Field(description="auto, none or a file"),
]
Levels: TypeAlias = Annotated[tuple[Level, ...], BeforeValidator(_subset(("sum", "cat", "hybrid")))]
SsclTerms: TypeAlias = Annotated[tuple[SsclTerm, ...], BeforeValidator(_subset(("mid", "high")))]
