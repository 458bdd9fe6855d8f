"""Whatever ranks a validation split, judged query by query: a run, a checkpoint, or a file of predictions."""

import logging
from dataclasses import dataclass
from pathlib import Path

from mlcl_cli.config import Profile
from mlcl_cli.progress import Progress
from mlcl_cli.retrieval import predictions
from mlcl_cli.retrieval.evaluation import Evaluation
from mlcl_cli.retrieval.ranking import Ranks
from mlcl_cli.runs.checkpoints import load_checkpoint
from mlcl_cli.runs.description import Kind
from mlcl_cli.workflows.retrieval_model import prepare_split
from mlcl_cli.workflows.run_context import RunContext, read_split
from mlcl_cli.workflows.run_names import checkpoint_named

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judged:
    """The ranks of a split's targets by query set, and what ranked them."""

    source: str
    evaluation: Evaluation
    ranks: dict[str, Ranks]


def judge(profile: Profile, progress: Progress, name: str) -> Judged:
    """Rank the validation split by the run, checkpoint or file of predictions that `name` names.

    A checkpoint of a CLIP queries by the element-wise sum. Raises as `checkpoint_named`, `prepare_split` and
    `judge_predictions` do.
    """
    path = checkpoint_named(profile, name)
    if path.suffix.lower() in (*predictions.LISTS, predictions.FEATURES):
        return judge_predictions(profile, progress, path)
    if load_checkpoint(path).about.kind is Kind.COMBINER:
        combining_function, combiner = "combiner", path
    else:
        combining_function, combiner = "sum", None
        profile = profile.model_copy(update={"clip": profile.clip.model_copy(update={"checkpoint": path})})
    context = RunContext.open(profile, progress, needs_disk=False)
    prepared = prepare_split(context, "val", combining_function, combiner)
    return Judged(str(path), prepared.evaluation, prepared.ranks())


def judge_predictions(profile: Profile, progress: Progress, path: Path) -> Judged:
    """Judge a file of predictions for the validation split. Only annotations are read, no images.

    Raises UsageError for an unknown format, DataError for annotations that cannot be read, and for predictions that
    are damaged or do not answer every query.
    """
    predictions.require_format(path)
    split = read_split(profile, "val")
    evaluation = Evaluation(split, profile.protocol)
    with progress.bar("Ranking", len(split.triplets)) as advance:
        ranks = _ranks(path, evaluation)
        advance(len(split.triplets))
    return Judged(str(path), evaluation, ranks)


def _ranks(path: Path, evaluation: Evaluation) -> dict[str, Ranks]:
    if path.suffix.lower() != predictions.FEATURES:
        lists = predictions.read_lists(path)
        return predictions.rank_lists(path, evaluation.split, evaluation.protocol, lists)
    features = predictions.read_features(path)
    if not predictions.is_unit(features.images.values):
        logger.warning(f"{path}: image_features are not of unit length: ranking by inner product, not by cosine")
    return predictions.rank_features(path, evaluation, features)
