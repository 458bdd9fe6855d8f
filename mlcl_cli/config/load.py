"""From a file and `--set`s to a Profile, and back to text."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from pydantic import JsonValue, ValidationError

from mlcl_cli.config.error_messages import is_key, new_name, unknown_key, validation_problems
from mlcl_cli.config.schema import Profile
from mlcl_cli.config.strict_yaml import MAX_CHARACTERS, KeyPath, LineError, Value, parse
from mlcl_cli.config.types import CommandLineText
from mlcl_cli.errors import DataError, SeveralUsageError, UsageError
from mlcl_cli.safe_reading import open_regular
from mlcl_cli.streams import printable
from mlcl_cli.suggestions import shown

VARIABLE = "MLCL_PROFILE"
DEFAULT = "mlcl.yaml"


def find_profile(option: Path | None, env: Mapping[str, str], cwd: Path) -> tuple[Path, str]:
    """The profile's path and why it is this one: `--profile`, else `$MLCL_PROFILE`, else `./mlcl.yaml`.

    Raises UsageError if there is none, or if the variable names a missing one. Whether the file can be read shows when
    it is loaded.
    """
    named, why = (option, "--profile") if option is not None else (env.get(VARIABLE), f"${VARIABLE}")
    if named:
        try:
            path = cwd / Path(named).expanduser()
        except RuntimeError as error:
            raise UsageError(f"has no home folder ({error})", where=named) from error
        if option is None and not path.exists():
            remedy = "Set the variable to a profile, or unset it"
            raise UsageError(f"the profile that ${VARIABLE} names does not exist", where=path, remedy=remedy)
        return path, why
    if (cwd / DEFAULT).exists():
        return cwd / DEFAULT, f"./{DEFAULT}"
    others = ", ".join(sorted(path.name for path in cwd.glob("mlcl.*.yaml")))
    raise UsageError(
        f"no profile found: no --profile, no ${VARIABLE}, and no {DEFAULT} in {cwd}",
        remedy="Run `mlcl init` to write one" + (f", or choose one with --profile: {others}" if others else ""),
    )


def load_profile(path: Path, overrides: Sequence[str] = (), options: Mapping[str, str] | None = None) -> Profile:
    """The profile in `path` with `key.path=value` overrides on top; the last one of a key wins.

    `options` are further overrides, each with the option that was typed for it, which messages name.
    Relative paths start at the profile's folder; those in overrides at the working folder.
    Raises UsageError with every problem, one per line, or if the file cannot be read.
    """
    try:
        document = parse(_read(path))
        if not isinstance(document.value, dict | None):
            raise LineError(f"must be keys and values, such as `dataset: cirr`, not {shown(document.value)}", 1)
    except LineError as error:
        raise UsageError(error.what, where=_place(path, error.line)) from error
    values, lines, written = dict(document.value or {}), document.lines, dict[KeyPath, str]()
    in_file, in_overrides = document.duplicates, list[str]()
    typed = [*((override, f"--set {override}") for override in overrides), *(options or {}).items()]
    for override, option in typed:
        try:
            written[_apply_override(values, override)] = option
        except (UsageError, LineError) as error:
            in_overrides.append(f"{option}: {error.what}")
    try:
        profile = Profile.model_validate(values, context={"folder": path.parent.resolve()})
    except ValidationError as error:
        for key, what in validation_problems(error, {*lines, *written}):
            if key in written:
                in_overrides.append(f"{written[key]}: {what}")
            else:
                line = next((lines[key[:size]] for size in range(len(key), 0, -1) if key[:size] in lines), None)
                in_file.append(LineError(f"{'.'.join(key)}: {what}", line))
    in_file.sort(key=lambda problem: problem.line or 0)
    problems = [f"{_place(path, problem.line)}: {problem.what}" for problem in in_file] + in_overrides
    if problems:
        raise SeveralUsageError([printable(problem) for problem in problems])
    return profile


def recorded_profile(values: Mapping[str, JsonValue], place: Path) -> Profile:
    """The profile that a run or a checkpoint at `place` recorded in JSON's types.

    Raises DataError if it is not valid, as one of another version may be.
    """
    try:
        return Profile.model_validate(_escaped(dict(values)))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = f"recorded a profile that is not valid here ({'.'.join(map(str, first['loc']))}: {first['msg']})"
        raise DataError(what, where=place, remedy="Name a profile instead") from error


def _escaped(value: JsonValue) -> JsonValue:
    """A value whose dollar signs are not those of environment variables."""
    if isinstance(value, dict):
        return {key: _escaped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_escaped(inner) for inner in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def _place(path: Path, line: int | None) -> str:
    return f"{path}:{line}" if line else str(path)


def dump(profile: Profile) -> str:
    """The resolved profile as YAML; loading it gives an equal one from any folder."""
    values = profile.model_dump(mode="json")
    datasets = {"datasets": values.pop("datasets")} if profile.datasets else values.pop("datasets")
    values = {"dataset": values.pop("dataset"), **datasets, **values}
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**20)


def inline(value: str | list[str]) -> str:
    """Text or a list of texts as YAML on one line."""
    text = yaml.dump(value, Dumper=_Dumper, allow_unicode=True, width=2**20)
    return text.removesuffix("\n").removesuffix("\n...")


class _Dumper(yaml.SafeDumper):
    """Lists on one line, as people write them, and `$$` for a dollar sign."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    # PyYAML writes unusual line breaks raw, and reading folds them; only double quotes escape them.
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text.replace("$", "$$"), style)


_Dumper.add_representer(list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, True))
_Dumper.add_representer(str, _represent_text)


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


def _apply_override(values: dict[str, Value], override: str) -> KeyPath:
    """Set one key of the profile's values. Raises UsageError if there is no such key, LineError for its value."""
    name, equals, text = override.partition("=")
    key = tuple(name.strip().split("."))
    if not equals:
        raise UsageError("must be KEY=VALUE, such as seed=1")
    if not is_key(key):
        raise UsageError(unknown_key(key))
    if problem := new_name(key, values):
        raise UsageError(problem)
    value = parse(text).value
    value = CommandLineText(value) if isinstance(value, str) else value
    section = values
    for name in key[:-1]:
        inner = section.get(name) or {}
        if not isinstance(inner, dict):  # the section itself is wrong
            return key
        section[name] = copy = {**inner}
        section = copy
    section[key[-1]] = value
    return key
