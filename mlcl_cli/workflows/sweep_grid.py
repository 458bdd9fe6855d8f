"""The runs of a sweep as profiles, all of them checked before the first one starts. Imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeAlias

from mlcl_cli.config import Profile, load_profile
from mlcl_cli.errors import SeveralUsageError, UsageError
from mlcl_cli.signals import defer_signals
from mlcl_cli.suggestions import shown

SEPARATOR = "|"
MAX_RUNS = 10_000
Values: TypeAlias = Mapping[str, str]  # the text that each varied key is set to


@dataclass(frozen=True)
class Setting:
    """One combination of the varied values, with a profile for each seed."""

    values: Values
    profiles: Mapping[int, Profile]

    def __str__(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.values.items()) or "as in the profile"


@dataclass(frozen=True)
class Grid:
    """The settings in the order of their product, the last key varying fastest."""

    keys: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: tuple[Setting, ...]


def read_grid(path: Path, overrides: Sequence[str], seeds: str | None) -> Grid:
    """The grid of `overrides`, in which `|` separates values that are varied, and of `seeds` such as 0-4 or 0,2,5.

    Raises UsageError with every problem of every combination, one per line.
    """
    varied, problems = _varied(overrides)
    numbers: tuple[int, ...] = ()
    try:
        numbers = (load_profile(path).seed,) if seeds is None else parse_seeds(seeds)
    except UsageError as error:
        problems += error.lines
    names = [override.partition("=")[0].strip() for override in overrides]
    if seeds is not None and "seed" in names:
        problems.append("--set seed: cannot be combined with --seeds. Leave one of them out")
    if problems:
        raise SeveralUsageError(problems)
    total = len(numbers)
    for values in varied.values():
        total *= len(values)
    if total > MAX_RUNS:
        raise UsageError(f"this grid has {total:,} runs; at most {MAX_RUNS:,} are possible", remedy="Vary fewer values")
    combinations = [dict(zip(varied, values, strict=True)) for values in product(*varied.values())]
    settings = _load(path, overrides, combinations, numbers if seeds is not None else None)
    _require_distinct(settings)
    return Grid(tuple(varied), numbers, tuple(settings))


def parse_seeds(text: str) -> tuple[int, ...]:
    """The seeds that `0-4` or `0,2,5` or `0-2,7` names, in that order. Raises UsageError for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        bounds = [first, last if dash else first]
        if not all(word.isascii() and word.isdigit() and len(word) < 20 for word in bounds):
            raise UsageError(f"--seeds {text}: must be such as 0-4 or 0,2,5, not {shown(text)}")
        low, high = map(int, bounds)
        if high < low or high - low >= MAX_RUNS:
            what = "counts down" if high < low else f"has more than {MAX_RUNS:,} seeds"
            raise UsageError(f"--seeds {text}: {part.strip()} {what}")
        seeds += range(low, high + 1)
    if len({*seeds}) < len(seeds):
        raise UsageError(f"--seeds {text}: names a seed twice")
    return tuple(seeds)


def _varied(overrides: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The values of each key that several are given for, and what is wrong with the overrides as such."""
    varied: dict[str, list[str]] = {}
    problems = []
    names = [override.partition("=")[0].strip() for override in overrides]
    for name, override in zip(names, overrides, strict=True):
        text = override.partition("=")[2]
        if SEPARATOR not in text:
            continue
        values = [value.strip() for value in text.split(SEPARATOR)]
        if names.count(name) > 1:
            problems.append(f"--set {override}: {name} is also set by another --set. Leave one of them out")
        elif name == "seed":
            problems.append(f"--set {override}: use --seeds {','.join(values)}")
        elif not all(values):
            problems.append(f"--set {override}: has an empty value; write [] for an empty list")
        varied[name] = values
    return varied, list(dict.fromkeys(problems))


def _load(
    path: Path, overrides: Sequence[str], combinations: Sequence[Values], seeds: Sequence[int] | None
) -> list[Setting]:
    """The profiles of each combination. `seeds` are None for the profile's own. Raises UsageError with all problems."""
    settings, wrong = [], dict[str, list[Values]]()
    for values in combinations:
        chosen = [
            f"{name}={values[name.strip()]}" if name.strip() in values else override
            for override in overrides
            for name in [override.partition("=")[0]]
        ]
        profiles = {}
        for seed in [None] if seeds is None else seeds:
            options = {} if seed is None else {f"seed={seed}": f"--seeds {seed}"}
            try:
                profile = load_profile(path, chosen, options)
            except UsageError as error:
                for line in error.lines:
                    wrong.setdefault(line, []).append(values)
            else:
                profiles[profile.seed] = profile
        settings.append(Setting(values, profiles))
    if wrong:
        raise SeveralUsageError([line + _culprit(line, wrong, combinations) for line in wrong])
    return settings


def _culprit(line: str, wrong: Mapping[str, Sequence[Values]], combinations: Sequence[Values]) -> str:
    """The values that all combinations with this problem share, and others do not, unless a message names them."""
    where, named = wrong[line], " ".join(wrong)
    shared = []
    for key, value in where[0].items():
        # A value that is wrong by itself, and so has a line of its own, hides what else is wrong with it.
        others = {values[key] for values in combinations if f"{key}={values[key]}:" not in named}
        if all(values[key] == value for values in where) and others - {value} and f"{key}={value}:" not in line:
            shared.append(f"{key}={value}")
    return f" (with {', '.join(shared)})" if shared else ""


def _require_distinct(settings: Sequence[Setting]) -> None:
    known: dict[str, Setting] = {}
    for setting in settings:
        with defer_signals():  # pydantic turns an interruption within it into an error of its own
            content = next(iter(setting.profiles.values())).model_dump_json()
        if content in known:
            what = f"two settings of this grid are the same: {known[content]} and {setting}"
            raise UsageError(what, remedy="Leave one of them out")
        known[content] = setting
