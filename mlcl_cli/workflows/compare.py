"""`mlcl compare`: two models on the same queries, with a paired bootstrap."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from mlcl_cli.config import Profile
from mlcl_cli.errors import DataError
from mlcl_cli.progress import Progress
from mlcl_cli.retrieval.bootstrap import DRAWS, LEVEL, Difference, compare
from mlcl_cli.retrieval.evaluation import Evaluation
from mlcl_cli.workflows.judged import Judged, judge
from mlcl_cli.workflows.provenance import data_digest, versions


@dataclass(frozen=True)
class Comparison:
    """The differences of each metric, the second model minus the first."""

    first: Judged
    second: Judged
    differences: Mapping[str, Difference]

    def as_json(self) -> dict[str, object]:
        """The object that `--json` prints."""
        evaluation = self.first.evaluation
        return {
            "command": "compare",
            "dataset": evaluation.split.dataset,
            "split": evaluation.split.name,
            "protocol": evaluation.protocol.label,
            "first": self.first.source,
            "second": self.second.source,
            "queries": len(evaluation.split.triplets),
            "draws": DRAWS,
            "level": LEVEL,
            "data": data_digest(evaluation.split),
            "versions": versions(),
            "differences": {
                key: {"difference": difference.value, **asdict(difference)}
                for key, difference in self.differences.items()
            },
        }


def compare_models(profile: Profile, progress: Progress, first: str, second: str) -> Comparison:
    """Compare two runs, checkpoints or files of predictions under the profile's protocol.

    Raises as `judge` does, and DataError if the two were not judged on the same queries and galleries, as where one
    drops bad images, or if there are too few queries.
    """
    sides = judge(profile, progress, first), judge(profile, progress, second)
    queries = [_judged_on(side.evaluation) for side in sides]
    if queries[0] != queries[1]:
        what = f"{first} and {second} are judged on different queries or galleries"
        raise DataError(what, remedy="Use the same data for both; fix missing images instead of dropping them")
    values = [side.evaluation.values(side.ranks) for side in sides]
    return Comparison(*sides, compare(sides[0].evaluation.protocol, *values))


def _judged_on(evaluation: Evaluation) -> tuple[str, bool, object]:
    sets = [(part.name, [t.query_id for t in part.triplets], part.gallery) for part in evaluation.split.sets]
    return evaluation.protocol.name, evaluation.protocol.pruned, sets
