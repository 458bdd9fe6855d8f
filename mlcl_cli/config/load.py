"""From a file and `--set`s to a Profile, and back to text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mlcl_cli.config.error_messages import KEYS, Source, at_override, problems, unknown_override
from mlcl_cli.config.schema import Profile
from mlcl_cli.config.strict_yaml import MAX_CHARACTERS, Document, KeyPath, Value, YamlError, parse
from mlcl_cli.config.suggestions import listed, printable, shown
from mlcl_cli.config.types import Typed
from mlcl_cli.errors import SeveralUsageError, UsageError
from mlcl_cli.safe_reading import open_regular

VARIABLE = "MLCL_PROFILE"
DEFAULT = "mlcl.yaml"


def find_profile(option: Path | None, env: Mapping[str, str], cwd: Path) -> tuple[Path, str]:
    """The profile's path and why it is this one: `--profile`, else `$MLCL_PROFILE`, else `./mlcl.yaml`.

    Raises UsageError where none of them is given. Whether a named file can be read shows when it is loaded.
    """
    if option is not None:
        return _home(cwd, option), "--profile"
    if env.get(VARIABLE):
        return _home(cwd, Path(env[VARIABLE])), f"${VARIABLE}"
    if (cwd / DEFAULT).exists():
        return cwd / DEFAULT, f"./{DEFAULT}"
    others = sorted(path.name for path in cwd.glob("mlcl.*.yaml"))
    choice = f", or choose one with --profile {listed(others)}" if others else ""
    raise UsageError(
        f"there is no profile: no --profile, no ${VARIABLE}, and no {DEFAULT} in {cwd}",
        remedy=f"Run `mlcl init` to write one{choice}",
    )


def load_profile(path: Path, overrides: Sequence[str] = ()) -> Profile:
    """Reads the profile in `path` with `key.path=value` overrides on top; the last one of a key counts.

    Relative paths start at the profile's folder; those in overrides at the working folder.
    Raises UsageError with every problem, one a line, or where the file cannot be read.
    """
    text = _read(path)
    try:
        document = parse(text)
    except YamlError as error:
        raise UsageError(Source(path, {}, {}).at_line(error.line, error.what)[1]) from error
    if not isinstance(document.value, dict | None):
        what = f"must be keys and values, such as `dataset: cirr`, not {shown(document.value)}"
        raise UsageError(Source(path, {}, {}).at_line(1, what)[1])
    typed, found = _read_overrides(overrides)
    source = Source(path, document.lines, {key: text for key, (text, _) in typed.items()})
    found += _repeats(document, source)
    values = _merge(document.value or {}, {key: value for key, (_, value) in typed.items()})
    try:
        profile = Profile.model_validate(values, context={"folder": path.parent.resolve()})
    except ValidationError as error:
        found += problems(error, source)
    if found:
        raise SeveralUsageError([line for _, line in sorted(found, key=lambda problem: problem[0])])
    return profile


def dump(profile: Profile) -> str:
    """The resolved profile as YAML; loading it gives an equal one, wherever it lies."""
    values = _escaped(profile.model_dump(mode="json"))
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**20)


class _Dumper(yaml.SafeDumper):
    """Lists on one line, as people write them."""


def _flow(dumper: _Dumper, items: list[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    # PyYAML writes exotic line breaks raw, and reading folds them; only double quotes escape them.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(list, _flow)
_Dumper.add_representer(str, _text)


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    return value.replace("$", "$$") if isinstance(value, str) else value


def _home(cwd: Path, path: Path) -> Path:
    try:
        return cwd / path.expanduser()
    except RuntimeError as error:
        raise UsageError(f"has no home folder ({error})", where=path) from error


def _read(path: Path) -> str:
    try:
        with open_regular(path) as file:
            content = file.read(4 * MAX_CHARACTERS + 1)
        return content.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError("does not exist", where=path, remedy="Run `mlcl init` to write a profile") from error
    except IsADirectoryError as error:
        raise UsageError("is a folder, not a profile", where=path, remedy=f"Name the file in it: {DEFAULT}") from error
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", where=path) from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError("is not UTF-8 text", where=f"{path}:{line}", remedy="Save it as UTF-8") from error


def _read_overrides(overrides: Sequence[str]) -> tuple[dict[KeyPath, tuple[str, Value]], list[tuple[int, str]]]:
    values: dict[KeyPath, tuple[str, Value]] = {}
    found: list[tuple[int, str]] = []
    for text in overrides:
        key, equals, written = text.partition("=")
        key = key.strip()
        if not equals:
            found.append(at_override(text, "must be KEY=VALUE, such as seed=1"))
        elif key not in KEYS:
            found.append(at_override(text, unknown_override(key)))
        else:
            try:
                value = parse(written).value
            except YamlError as error:
                found.append(at_override(text, error.what))
            else:
                values[tuple(key.split("."))] = (text, Typed(value) if isinstance(value, str) else value)
    return values, found


def _repeats(document: Document, source: Source) -> list[tuple[int, str]]:
    return [
        source.at_line(repeat.line, f"{printable('.'.join(repeat.key))}: is given twice, first on line {repeat.first}")
        for repeat in document.repeats
    ]


def _merge(values: dict[str, Value], overrides: Mapping[KeyPath, Value]) -> dict[str, Value]:
    merged = dict(values)
    for (*above, name), value in overrides.items():
        if not above:
            merged[name] = value
            continue
        section = merged.get(above[0]) or {}
        if isinstance(section, dict):
            merged[above[0]] = {**section, name: value}
    return merged
