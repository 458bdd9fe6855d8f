"""What differs between runs, from the settings that each of them recorded."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from pydantic import JsonValue

from mlcl_cli.runs.summary import RunSummary


def flattened(value: JsonValue | Mapping[str, JsonValue], name: str = "") -> dict[str, object]:
    """Nested sections as one mapping from `section.key`; the section `profile` is left out of the names."""
    if not isinstance(value, Mapping):
        return {name: value}
    prefix = f"{name}." if name and name != "profile" else ""
    return {path: leaf for key, part in value.items() for path, leaf in flattened(part, f"{prefix}{key}").items()}


def differences(runs: Sequence[RunSummary]) -> list[dict[str, str]]:
    """For each run, the settings in which the runs differ and its values, in words.

    Settings are those that determine a run's result, named by the last part of their key where that is unambiguous.
    Differing CLIPs are named after the run that tuned them. Older runs recorded nothing but their seed.
    """
    settings = [_settings(run) for run in runs]
    keys = list(dict.fromkeys(key for each in settings for key in each))
    varying = [key for key in keys if len({each.get(key) for each in settings}) > 1]
    lasts = [key.rpartition(".")[2] for key in varying]
    names = {key: last if lasts.count(last) == 1 else key for key, last in zip(varying, lasts, strict=True)}
    return [{names[key]: each[key] for key in varying if key in each} for each in settings]


def in_words(settings: Mapping[str, str]) -> str:
    """Settings and their values on one line."""
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _settings(run: RunSummary) -> dict[str, str]:
    recorded = (run.identity or {}).get("profile")
    flat = flattened(recorded) if isinstance(recorded, Mapping) else {}
    flat |= {"seed": run.seed, "protocol": run.protocol}
    if run.encoder is not None:
        flat["finetune.encoder"] = run.encoder
    tuned_by = run.clip.checkpoint and PurePosixPath(run.clip.checkpoint).parent.name
    flat["clip"] = tuned_by or "untuned"
    return {key: _word(value) for key, value in flat.items()}


def _word(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
