"""What runs, levels and metrics are called on the page: runs by what differs between them, not by time stamps."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from mlcl_cli.runs.description import Kind
from mlcl_cli.runs.differences import flattened
from mlcl_cli.runs.summary import RunSummary

KINDS = {Kind.CLIP: "fine-tuned CLIP", Kind.COMBINER: "combiner"}
LEVELS = {"sum": "low", "cat": "mid", "hybrid": "high"}  # METHOD.md, Section 4.1: the profile's word, and the method's
TERMS = {
    **{word: f"mCCL, {level} level" for word, level in LEVELS.items()},
    "sscl_mid": "SSCL, mid level",
    "sscl_high": "SSCL, high level",
}
MEANINGS = {
    "average/recall": "average recall, over cut-offs and query sets",
    "recall_mean": "mean recall, over cut-offs",
    "arithmetic_mean": "arithmetic mean of the recalls",
    "harmonic_mean": "harmonic mean of the recalls",
    "geometric_mean": "geometric mean of the recalls",
}
SEED, CLIP = "seed", "CLIP"
ABSOLUTE = re.compile(r"(?<![\w.…/~-])(?:/[\w.@+~-]+)+/?")


@dataclass(frozen=True, slots=True)
class Spread:
    """The mean of a metric over runs, and its standard deviation (of a sample: n − 1)."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of two values or more."""
        return cls(fmean(values), stdev(values))


def settings_of(summary: RunSummary) -> dict[str, str]:
    """The settings that a run's result depends on, in words; the seed and the CLIP come last."""
    identity = summary.identity or {}
    found: dict[str, str] = {}
    profile = identity.get("profile")
    for key, value in flattened(profile if isinstance(profile, Mapping) else {}).items():
        found[key.rpartition(".")[2].replace("_", " ").replace("sscl", "SSCL")] = _in_words(key, value)
    if summary.encoder is not None:
        found["encoder"] = summary.encoder
    found |= {"epochs": f"{summary.epochs:,}", SEED: str(summary.seed), CLIP: summary.clip.fingerprint[:6]}
    return found | {name: found.pop(name) for name in (SEED, CLIP)}


def name_runs(summaries: Sequence[RunSummary], *, without: Collection[str] = ()) -> list[str]:
    """A name for each run, which says what differs from the other runs of its kind: "combiner, seed 1".

    The CLIP is named only where nothing else tells two runs apart; runs that do not differ at all are numbered.
    Settings in `without` are not named.
    """
    names = []
    settings = [settings_of(summary) for summary in summaries]
    for summary, own in zip(summaries, settings, strict=True):
        peers = [each for each, other in zip(settings, summaries, strict=True) if other.kind is summary.kind]
        keys = list(dict.fromkeys(key for peer in peers for key in peer))
        differing = [key for key in keys if key not in without and len({peer.get(key) for peer in peers}) > 1]
        without_clip = [key for key in differing if key != CLIP]
        if len({tuple(peer.get(key) for key in without_clip) for peer in peers}) == len(peers):
            differing = without_clip
        names.append(", ".join([KINDS[summary.kind], *(f"{key} {own.get(key, 'unknown')}" for key in differing)]))
    return _numbered(names)


def setting_keys(summaries: Sequence[RunSummary]) -> list[tuple[str, ...]]:
    """For each run a key that is equal for runs that differ in the seed alone."""
    return [
        (summary.kind, *(f"{k}={v}" for k, v in settings_of(summary).items() if k != SEED)) for summary in summaries
    ]


def spoken(metric: str) -> str:
    """A metric's name for people: "average recall@10"."""
    words = re.sub(r"^mean\((.*),(.*)\)$", r"mean of \1 and \2", metric)
    return words.replace("/", " ").replace("_", " ").replace("map@", "mAP@")


def meaning(metric: str) -> str:
    """What a deciding metric is, after "the"."""
    return MEANINGS.get(metric, spoken(metric))


def without_places(text: str, folder: Path) -> str:
    """`text` without absolute paths: those below `folder` become relative, of others the last part remains."""
    text = re.sub(rf"{re.escape(str(folder))}(/|(?![\w.@+~-]))", lambda found: "" if found[1] else ".", text)
    return ABSOLUTE.sub(lambda found: f"…/{found[0].rstrip('/').rpartition('/')[2]}", text)


def _in_words(key: str, value: object) -> str:
    if isinstance(value, list):
        words = [LEVELS.get(str(part), str(part)) for part in value] if key.endswith(".levels") else map(str, value)
        return "+".join(words) or "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _numbered(names: Sequence[str]) -> list[str]:
    seen: dict[str, int] = {}
    numbered = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        numbered.append(f"{name}, run {seen[name]}" if names.count(name) > 1 else name)
    return numbered
