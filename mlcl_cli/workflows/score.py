"""`mlcl score`: anyone's predictions, judged by the protocols that judge ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlcl_cli.config import Profile
from mlcl_cli.data.datasets import named_protocol
from mlcl_cli.progress import Progress
from mlcl_cli.retrieval.bootstrap import Interval
from mlcl_cli.retrieval.evaluation import Figures
from mlcl_cli.workflows.evaluate import counts_as_json, intervals_as_json, intervals_of
from mlcl_cli.workflows.judged import Judged, judge_predictions
from mlcl_cli.workflows.provenance import data_digest, versions


@dataclass(frozen=True)
class Score:
    """The metrics of a file of predictions, and their intervals if these were asked for."""

    judged: Judged
    figures: Figures
    intervals: Mapping[str, Interval] | None

    def as_json(self) -> dict[str, object]:
        """The object that `--json` prints (metrics: METHOD.md, Section 8.4)."""
        evaluation = self.judged.evaluation
        return {
            "command": "score",
            "dataset": evaluation.split.dataset,
            "split": evaluation.split.name,
            "protocol": evaluation.protocol.label,
            **counts_as_json(self.figures),
            "predictions": self.judged.source,
            "data": data_digest(evaluation.split),
            "versions": versions(),
            "metrics": self.figures.metrics,
            **intervals_as_json(self.intervals),
        }


def score(
    profile: Profile,
    progress: Progress,
    path: Path,
    protocol_name: str | None = None,
    *,
    with_intervals: bool = False,
) -> Score:
    """Judge predictions for the validation split by the protocol of that name, by default the profile's.

    Raises as `judge_predictions` does, and UsageError for an unknown protocol.
    """
    if protocol_name is not None:
        dataset, chosen = named_protocol(protocol_name, profile.definition)
        profile = profile.under(dataset.name, chosen)
    judged = judge_predictions(profile, progress, path)
    bounds = intervals_of(judged.evaluation, judged.ranks) if with_intervals else None
    return Score(judged, judged.evaluation.figures(judged.ranks), bounds)
