"""What differs between runs, from the settings that each of them recorded."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from pydantic import JsonValue

from mlcl_cli.data.definition import TRAIN
from mlcl_cli.runs.summary import RunSummary

EPOCHS, SEED, CLIP, DATA = "epochs", "seed", "clip", "training data"


def flattened(value: JsonValue | Mapping[str, JsonValue], name: str = "") -> dict[str, object]:
    """Nested sections as one mapping from `section.key`; the section `profile` is left out of the names."""
    if not isinstance(value, Mapping):
        return {name: value}
    prefix = f"{name}." if name and name != "profile" else ""
    return {path: leaf for key, part in value.items() for path, leaf in flattened(part, f"{prefix}{key}").items()}


def settings_of(runs: Sequence[RunSummary]) -> list[dict[str, object]]:
    """What the result of each run depends on; the seed, the CLIP and the training data come last.

    Settings are named by the last part of their key where that is unambiguous. CLIPs are named after the run that tuned
    them, and training data by the beginning of its digest. Older runs recorded only epochs, seed and CLIP.
    """
    settings = [_recorded(run) for run in runs]
    clips = {(own[CLIP], run.clip.fingerprint) for own, run in zip(settings, runs, strict=True)}
    names = [name for name, _ in clips]
    for own, run in zip(settings, runs, strict=True):
        if names.count(own[CLIP]) > 1:
            own[CLIP] = f"{own[CLIP]} {run.clip.fingerprint[:6]}"
    keys = list(dict.fromkeys(key for own in settings for key in own))
    lasts = [key.rpartition(".")[2] for key in keys]
    short = {key: last if lasts.count(last) == 1 else key for key, last in zip(keys, lasts, strict=True)}
    return [{short[key]: value for key, value in own.items()} for own in settings]


def varying(settings: Sequence[Mapping[str, object]], *, spare: Sequence[str] = (DATA,)) -> list[str]:
    """The settings in which runs differ, without those in `spare` that always differ together with another one."""

    def distinct(keys: Sequence[str]) -> int:
        return len({tuple(repr(own.get(key)) for key in keys) for own in settings})

    keys = [key for key in dict.fromkeys(key for own in settings for key in own) if distinct([key]) > 1]
    for key in spare:
        others = [other for other in keys if other != key]
        keys = others if distinct(others) == distinct(keys) else keys
    return keys


def differences(runs: Sequence[RunSummary]) -> list[dict[str, str]]:
    """For each run, the settings in which the runs differ and its values, as a profile writes them."""
    settings = settings_of(runs)
    keys = varying(settings)
    return [{key: _word(own[key]) for key in keys if key in own} for own in settings]


def in_words(settings: Mapping[str, str]) -> str:
    """Settings and their values on one line."""
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _recorded(run: RunSummary) -> dict[str, object]:
    profile = (run.identity or {}).get("profile")
    found = flattened(profile) if isinstance(profile, Mapping) else {}
    found = {key: value for key, value in found.items() if key != SEED and not key.endswith(f".{EPOCHS}")}
    found |= {EPOCHS: run.epochs, "protocol": run.protocol}
    if run.encoder is not None:
        found["finetune.encoder"] = run.encoder
    found[SEED] = run.seed
    found[CLIP] = (run.clip.checkpoint and PurePosixPath(run.clip.checkpoint).parent.name) or "untuned"
    if run.data and TRAIN in run.data:
        found[DATA] = run.data[TRAIN][:6]
    return found


def _word(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
