"""`mlcl score`: anyone's predictions, judged by the protocols that judge ours."""

import logging
from dataclasses import dataclass
from pathlib import Path

from mlcl_cli.config import Profile
from mlcl_cli.data.datasets import named_protocol
from mlcl_cli.data.protocols import Protocol
from mlcl_cli.data.records import Split
from mlcl_cli.progress import Progress
from mlcl_cli.retrieval import predictions
from mlcl_cli.retrieval.evaluation import Evaluation, Figures
from mlcl_cli.retrieval.ranking import Ranks
from mlcl_cli.workflows.evaluate import counts_as_json
from mlcl_cli.workflows.provenance import data_digest, versions
from mlcl_cli.workflows.run_context import read_split

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Score:
    """The metrics of a file of predictions."""

    path: Path
    split: Split
    protocol: Protocol
    figures: Figures

    def as_json(self) -> dict[str, object]:
        """The object that `--json` prints (metrics: METHOD.md, Section 8.4)."""
        return {
            "command": "score",
            "dataset": self.split.dataset,
            "split": self.split.name,
            "protocol": self.protocol.label,
            **counts_as_json(self.figures),
            "predictions": str(self.path),
            "data": data_digest(self.split),
            "versions": versions(),
            "metrics": self.figures.metrics,
        }


def score(profile: Profile, progress: Progress, path: Path, protocol_name: str | None = None) -> Score:
    """Judge predictions for the validation split by the protocol of that name, by default the profile's.

    Only annotations are read, no images. Raises UsageError for an unknown protocol or format, DataError for
    annotations that cannot be read, and for predictions that are damaged or do not answer every query.
    """
    predictions.require_format(path)
    if protocol_name is not None:
        dataset, chosen = named_protocol(protocol_name, profile.definition)
        profile = profile.under(dataset.name, chosen)
    split, protocol = read_split(profile, "val"), profile.protocol
    evaluation = Evaluation(split, protocol)
    with progress.bar("Ranking", len(split.triplets)) as advance:
        ranks = _ranks(path, evaluation)
        advance(len(split.triplets))
    return Score(path, split, protocol, evaluation.figures(ranks))


def _ranks(path: Path, evaluation: Evaluation) -> dict[str, Ranks]:
    if path.suffix.lower() != predictions.FEATURES:
        lists = predictions.read_lists(path)
        return predictions.rank_lists(path, evaluation.split, evaluation.protocol, lists)
    features = predictions.read_features(path)
    if not predictions.is_unit(features.images.values):
        logger.warning(f"{path}: image_features are not of unit length: ranking by inner product, not by cosine")
    return predictions.rank_features(path, evaluation, features)
