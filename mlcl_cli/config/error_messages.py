"""pydantic's errors in plain words."""

from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from mlcl_cli.config.schema import CONTRADICTION, Profile
from mlcl_cli.config.strict_yaml import KeyPath
from mlcl_cli.suggestions import did_you_mean, nearest, shown

# What other tools call our keys. A key here is the end of a key, or a section of keys.
_OTHER_NAMES = {
    "batch_size": "batch batchsize bs train_batch_size",
    "checkpoints": "save_every",
    "clip.checkpoint": "weights",
    "clip.model": "arch backbone model_name name",
    "device": "gpu",
    "encode_batch": "clip_bs",
    "epochs": "epoch max_epochs n_epochs num_epochs",
    "hidden_dim": "hidden_size",
    "learned_temperature": "logit_scale tau temp temperature",
    "learning_rate": "lr",
    "precision": "amp dtype fp16 mixed_precision",
    "projection_dim": "proj_dim",
    "roots": "data data_dir data_path data_root root",
    "schedule": "lr_schedule scheduler",
    "seed": "random_seed",
    "transform": "preprocess",
    "validate_every": "eval_every eval_freq val_freq validation_frequency",
    "workers": "jobs num_workers",
    "workspace": "out_dir output output_dir save_dir",
}
SYNONYMS = {other: key for key, others in _OTHER_NAMES.items() for other in others.split()}


def _walk(model: type[BaseModel], above: KeyPath = ()) -> Iterator[tuple[KeyPath, FieldInfo]]:
    for name, info in model.model_fields.items():
        key = (*above, name)
        yield key, info
        section = info.annotation
        if get_origin(section) is dict:  # sections under names that the user chooses
            section, key = get_args(section)[1], (*key, ANY_NAME)
            yield key, FieldInfo(annotation=section)
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from _walk(section, key)


def _known(key: KeyPath) -> KeyPath:
    """The key as FIELDS has it: with ANY_NAME for a name that the user chose."""
    return (key[0], ANY_NAME, *key[2:]) if len(key) > 1 and (key[0], ANY_NAME) in FIELDS else key


ANY_NAME = "NAME"  # stands for a name that the user chooses
FIELDS: Mapping[KeyPath, FieldInfo] = dict(sorted(_walk(Profile), key=lambda item: item[0] != ("dataset",)))
SECTIONS: Mapping[KeyPath, list[str]] = {
    above: [key[-1] for key in FIELDS if key[:-1] == above] for above in {key[:-1] for key in FIELDS}
}
_LEAVES: tuple[KeyPath, ...] = tuple(key for key in FIELDS if key not in SECTIONS and ANY_NAME not in key)
KEYS: tuple[str, ...] = tuple(".".join(key) for key in _LEAVES)


def choices(key: str) -> list[str]:
    """The words that `key` takes; empty if it takes none, or a list of them."""
    annotation = FIELDS[tuple(key.split("."))].annotation
    return [] if get_origin(annotation) is tuple else [*_words(annotation)]


def _words(annotation: object) -> Iterator[str]:
    if annotation is bool:
        yield from ("true", "false")
    for part in get_args(annotation):
        if get_origin(annotation) is Literal:
            yield part
        else:
            yield from _words(part)


PLAIN: Mapping[object, str] = {bool: "true or false", Path: "a path", str: "text"}


def _expected(annotation: object, constraints: Sequence[object] = ()) -> str:
    """What a field of this type takes."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _expected(parts[0], parts[1:])
    if origin in (Union, UnionType):
        return " or ".join(_expected(part) for part in parts)
    if origin is tuple:
        if names := [*_words(annotation)]:
            return f"a list of {', '.join(names)}, such as [{names[-1]}]"
        of_text = str in (parts[0], *get_args(parts[0]))
        return "a name or a list of names" if of_text else "a list of positive integers, such as [1, 10]"
    if origin is Literal:
        return f"one of {', '.join(parts)}" if len(parts) > 1 else str(parts[0])
    if annotation in PLAIN:
        return PLAIN[annotation]
    article, noun = ("an", "integer") if annotation is int else ("a", "number")
    least = next((limit.ge for limit in constraints if hasattr(limit, "ge")), None)
    return f"a positive {noun}" if least is None else f"{article} {noun} of at least {least}"


class Problem(NamedTuple):
    """What is wrong, and the key that it is about."""

    key: KeyPath
    what: str


def validation_problems(error: ValidationError, written: Container[KeyPath]) -> list[Problem]:
    """One problem for each key; of keys that contradict each other, it is about one that was `written`."""
    by_key: dict[KeyPath, Problem] = {}
    for detail in error.errors(include_url=False):
        place = tuple(str(part) for part in detail["loc"])
        if detail["type"] == CONTRADICTION:
            for names, what in detail["ctx"]["problems"].items():
                keys = [(*place, name) for name in names]
                about = next((key for key in keys if key in written), keys[0])
                by_key[keys[0]] = Problem(about, what if about == keys[0] else f"{'.'.join(keys[0])} {what}")
        elif detail["type"] == "extra_forbidden":
            by_key[place] = Problem(place, unknown_key(place))
        else:
            # A union has an error for each of its members: one message for the field says it all.
            key = next(place[:size] for size in range(len(place), -1, -1) if _known(place[:size]) in FIELDS)
            by_key.setdefault(key, Problem(key, _wrong_value(key, detail)))
    return list(by_key.values())


def _wrong_value(key: KeyPath, detail: ErrorDetails) -> str:
    key = _known(key)
    field, value = FIELDS[key], detail["input"]
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    if detail["type"] == "less_than_equal":
        return f"must be at most {detail['ctx']['le']:,}, not {shown(value)}"
    if key in SECTIONS:
        return f"must be a section with the keys {', '.join(SECTIONS[key])}, not {shown(value)}"
    expected = field.description or _expected(field.annotation, field.metadata)
    if detail["type"] == "missing":
        return f"is required: {expected}"
    hint = did_you_mean(value, [*_words(field.annotation)])
    if value and not hint and isinstance(value, str) and Path in get_args(field.annotation):
        hint = f". A path needs a folder or an extension: ./{value}"
    return f"must be {expected}, not {shown(value)}{hint}"


def unknown_key(key: KeyPath) -> str:
    """What is wrong with a key that does not exist: the likeliest keys, or those of its section."""
    name, key = key[1:2], _known(key)

    def words(known: KeyPath) -> str:
        return ".".join((*known[:1], *name, *known[2:]) if ANY_NAME in key[1:2] == known[1:2] else known)

    if key in SECTIONS:
        return f"{words(key)} is a section; set one of its keys, such as {words((*key, SECTIONS[key][0]))}"
    if matches := _likely(key):
        return f"unknown key; did you mean {' or '.join(repr(words(match)) for match in matches)}?"
    return f"unknown key; valid keys here are {', '.join(SECTIONS.get(key[:-1], SECTIONS[()]))}"


def new_name(key: KeyPath, values: Mapping[str, object]) -> str | None:
    """What is wrong with a key below a name that the user would have chosen in the profile's `values`, but did not."""
    names = values.get(key[0]) or ()
    if ANY_NAME not in _known(key)[1:2] or not isinstance(names, dict | tuple) or key[1] in names:
        return None
    return f"the profile has no {key[0]}.{key[1]}{did_you_mean(key[1], [*names])}"


def _likely(key: KeyPath) -> list[KeyPath]:
    section, last = key[:-1], key[-1]
    if section in FIELDS and section not in SECTIONS:
        return [section]
    if near := nearest(".".join(key), [".".join(known) for known in FIELDS], cutoff=0.9):
        return [tuple(near.split("."))]
    meant = tuple(SYNONYMS.get(last.casefold().replace("-", "_"), last).split("."))
    matches = [leaf for leaf in _LEAVES if leaf[-len(meant) :] == meant or leaf[:-1] == meant]
    if not matches and (near := nearest(last, SECTIONS.get(section, ()))):
        return [(*section, near)]
    if not matches and (near := nearest(last, [leaf[-1] for leaf in _LEAVES])):
        matches = [leaf for leaf in _LEAVES if leaf[-1] == near]
    return [leaf for leaf in matches if leaf[:-1] == section] or matches


def is_key(key: KeyPath) -> bool:
    """Whether a profile has such a key, under any name that the user chooses."""
    return _known(key) in FIELDS.keys() - SECTIONS.keys()
