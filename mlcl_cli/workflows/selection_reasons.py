"""Why a command chose a CLIP or a run, and why it skipped others: the reasons, and their words."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from mlcl_cli.errors import some
from mlcl_cli.models.encoder import Tower

SHOWN = 3
START = "--from RUN|FILE|none chooses another start"


class ClipReason(StrEnum):
    """Why a CLIP is used; `{}` stands for a detail."""

    GIVEN = "given by {}"
    DISABLED = "{} is none"
    BOTH_ENCODERS = f"tuning both encoders starts from the untuned CLIP; {START}"
    BEST = "best of {}"
    BEST_START = f"best of {{}}; {START}"
    NONE_WITH_OTHER_ENCODER = f"none has only its {{}} encoder tuned here; {START}"
    NONE_TUNED = "none is tuned in this workspace yet"
    NONE_FITS = "no tuned one fits"
    RUN = "the run's"
    COMBINER = "the combiner was trained on it"


class SkipReason(StrEnum):
    """Why a run is not considered; a detail may follow."""

    DAMAGED = "damaged run.json"
    NOT_VALIDATED = "no validated epoch"
    CHECKPOINT_MISSING = "missing checkpoint"
    OTHER_CLIP = "trained on another CLIP"
    BASE_UNKNOWN = "base CLIP not recorded"
    TOWERS = "tuned"
    CONDITIONS = "scored under"
    UNFINISHED = "not finished"


class Difference(StrEnum):
    """What a score was measured with, where the profile differs; `{}` stands for a detail."""

    TRANSFORM = "transform {}"
    WEIGHTS = "inference_weights {}"
    PRUNED = "a pruned gallery"
    PROTOCOL = "protocol {}"
    OTHER_DATA = "other validation data"
    UNKNOWN_DATA = "unknown validation data"


@dataclass(frozen=True, slots=True)
class SkippedRun:
    """A run that was not considered, and why."""

    name: str
    reason: SkipReason
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({' '.join(filter(None, (self.reason, self.detail)))})"


def describe_skipped(runs: Iterable[SkippedRun]) -> str:
    """A few of the runs with their reasons, newest first: run names begin with their time."""
    return some(sorted(map(str, runs), reverse=True), SHOWN)


def describe_differences(differences: Iterable[tuple[Difference, str]]) -> str:
    """Differences with their details."""
    return ", ".join(difference.format(detail) for difference, detail in differences)


def describe_towers(towers: Iterable[Tower] | None) -> str:
    """The tuned encoders."""
    return "unknown sides" if towers is None else " and ".join(sorted(towers, reverse=True)) or "nothing"
