"""What runs, levels and metrics are called on the page: runs by what differs between them, not by time stamps."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from mlcl_cli.runs.description import Kind
from mlcl_cli.runs.differences import CLIP, DATA, EPOCHS, SEED, settings_of, varying
from mlcl_cli.runs.summary import RunState, RunSummary

KINDS = {Kind.CLIP: "fine-tuned CLIP", Kind.COMBINER: "combiner"}
LEVELS = {"sum": "low", "cat": "mid", "hybrid": "high"}  # METHOD.md, Section 4.1: the profile's word, and the method's
TERMS = {
    **{word: f"mCCL, {level} level" for word, level in LEVELS.items()},
    "sscl_mid": "SSCL, mid level",
    "sscl_high": "SSCL, high level",
}
MEANINGS = {
    "average/recall": "mean of {recalls} over the query sets",
    "recall_mean": "mean of {recalls}",
    "arithmetic_mean": "arithmetic mean of {recalls}",
    "harmonic_mean": "harmonic mean of {recalls}",
    "geometric_mean": "geometric mean of {recalls}",
}
RECALL = re.compile(r"(average/)?(?P<kind>recall(_subset)?)@(?P<cutoff>\d+)")  # not those of one query set
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


@dataclass(frozen=True)
class Names:
    """What runs are called, each by what differs from the other runs of its kind: "combiner, levels high, seed 1".

    `settings` are the names without the seed. What most of three runs or more share is in `shared`, not in names.
    """

    runs: Sequence[str]
    settings: Sequence[str]
    shared: str

    @classmethod
    def of(cls, summaries: Sequence[RunSummary]) -> "Names":
        """Names in the order of the runs.

        The CLIP and the training data appear only where nothing else tells settings apart. Runs that do not differ at
        all are numbered.
        """
        settings = [KINDS[summary.kind] for summary in summaries]
        runs, shared = [*settings], []
        for kind in dict.fromkeys(summary.kind for summary in summaries):
            places = [place for place, summary in enumerate(summaries) if summary.kind is kind]
            rows, usual = _told([summaries[place] for place in places])
            seeds = {summaries[place].seed for place in places}
            for place, row in zip(places, rows, strict=True):
                settings[place] = ", ".join([KINDS[kind], *(f"{k} {v}" for k, v in row.items() if usual.get(k) != v)])
                runs[place] = settings[place] + (f", seed {summaries[place].seed}" if len(seeds) > 1 else "")
            if usual:
                shared.append(f"a {KINDS[kind]} has {', '.join(f'{k} {v}' for k, v in usual.items())}")
        return cls(_numbered(runs), settings, "; ".join(shared))


def _told(summaries: Sequence[RunSummary]) -> tuple[list[dict[str, str]], dict[str, str]]:
    """The settings but the seed in which the runs differ, in words, and which values most of them share."""
    settings = _settings_of(summaries)
    for own in settings:
        del own[SEED]
    keys = varying(settings, spare=(DATA, CLIP))
    rows = [{_label(key): _in_words(key, own.get(key, "unknown")) for key in keys} for own in settings]
    columns = {key: [row[key] for row in rows] for key in (rows[0] if len(rows) > 2 else ())}
    most = {key: max(column, key=column.count) for key, column in columns.items()}
    return rows, {key: value for key, value in most.items() if 2 * columns[key].count(value) > len(rows)}


def setting_keys(summaries: Sequence[RunSummary]) -> list[tuple[str, ...]]:
    """For each run a key that is equal for runs that differ in the seed alone."""
    return [
        (summary.kind, summary.clip.fingerprint, *(f"{k}={v}" for k, v in own.items() if k not in (SEED, CLIP)))
        for own, summary in zip(_settings_of(summaries), summaries, strict=True)
    ]


def titled(given: str | None, name: str) -> str:
    """The name that the user gave a run, if any, and what is known about it."""
    return f"{given} ({name})" if given else name


def _settings_of(summaries: Sequence[RunSummary]) -> list[dict[str, object]]:
    """The settings with the epochs of a run that has not finished, whose result does not count as that of all."""
    settings = settings_of(summaries)
    for own, summary in zip(settings, summaries, strict=True):
        if summary.state is not RunState.FINISHED:
            own[EPOCHS] = f"{summary.epoch:,} of {summary.epochs:,}"
    return settings


def _label(key: str) -> str:
    return key.replace("_", " ").replace("sscl", "SSCL").replace("clip", "CLIP")


def spoken(metric: str) -> str:
    """A metric's name for people: "average recall@10"."""
    words = re.sub(r"^mean\((.*),(.*)\)$", r"mean of \1 and \2", metric)
    return words.replace("/", " ").replace("_", " ").replace("map@", "mAP@")


def meaning(metric: str, metrics: Collection[str]) -> str:
    """What a deciding metric is, after "the", from the names of all metrics."""
    cutoffs: dict[str, list[str]] = {}
    for found in filter(None, map(RECALL.fullmatch, metrics)):
        cutoffs.setdefault(spoken(found["kind"]), []).append(found["cutoff"])
    recalls = [f"{kind}@{_listed(own)}" for kind, own in cutoffs.items()]
    return MEANINGS.get(metric, spoken(metric)).format(recalls=" and of ".join(recalls))


def _listed(items: Sequence[str]) -> str:
    *others, last = items
    return f"{', '.join(others)} and {last}" if others else last


def without_places(text: str, folder: Path) -> str:
    """`text` without absolute paths: those below `folder` become relative, of others the last part remains."""
    text = re.sub(rf"{re.escape(str(folder))}(/|(?![\w.@+~-]))", lambda found: "" if found[1] else ".", text)
    return ABSOLUTE.sub(lambda found: f"…/{found[0].rstrip('/').rpartition('/')[2]}", text)


def _in_words(key: str, value: object) -> str:
    if isinstance(value, list):
        words = [LEVELS.get(str(part), str(part)) for part in value] if key == "levels" else map(str, value)
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
