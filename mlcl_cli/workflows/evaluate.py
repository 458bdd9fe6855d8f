"""`mlcl evaluate`: the validation protocol's metrics from trained weights."""

import csv
import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlcl_cli.atomic_files import require_own, write_file
from mlcl_cli.config import Profile
from mlcl_cli.errors import UsageError
from mlcl_cli.progress import Progress
from mlcl_cli.retrieval.evaluation import Evaluation, Figures
from mlcl_cli.retrieval.ranking import UNRANKED, Ranks
from mlcl_cli.workflows.retrieval_model import PreparedSplit, RetrievalModel, prepare_split
from mlcl_cli.workflows.run_context import Circumstances, RunContext, versions

logger = logging.getLogger(__name__)

RANK_COLUMNS = ("set", "pair_id", "reference", "target", "caption", "rank", "subset_rank")


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics of one evaluation, and what they depend on; `protocol` is the label."""

    dataset: str
    protocol: str
    model: RetrievalModel
    figures: Figures
    circumstances: Circumstances

    @classmethod
    def of(cls, prepared: PreparedSplit, ranks: Mapping[str, Ranks]) -> "EvaluationResult":
        """The result of ranking a prepared split."""
        evaluation = prepared.evaluation
        return cls(
            dataset=prepared.split.dataset,
            protocol=evaluation.protocol.label,
            model=prepared.model,
            figures=evaluation.figures(ranks),
            circumstances=prepared.circumstances,
        )

    def as_json(self) -> dict[str, object]:
        """The object that `--json` prints (README, "The five commands"; metrics: METHOD.md, Section 8.4)."""
        queries, gallery = self.figures.queries, self.figures.gallery
        single = len(queries) == 1
        return {
            "command": "evaluate",
            "dataset": self.dataset,
            "split": "val",
            "protocol": self.protocol,
            "combining_function": self.model.combining_function,
            "queries": next(iter(queries.values())) if single else queries,
            "gallery": next(iter(gallery.values())) if single else gallery,
            **self.model.as_json(),
            **self.circumstances.as_json(),
            "versions": versions(),
            "metrics": self.figures.metrics,
        }


def run_evaluation(
    profile: Profile,
    progress: Progress,
    *,
    combining_function: str = "combiner",
    checkpoint: Path | None = None,
    ranks: Path | None = None,
) -> EvaluationResult:
    """Evaluates the data set's validation protocol; writes every target's rank to `ranks`, as CSV, if given.

    Raises UsageError for `ranks` that is not a .csv file, or is a file of something else.
    """
    if ranks is not None:
        require_own(ranks, ",".join(RANK_COLUMNS), "a table of ranks")
        if ranks.suffix.lower() not in (".csv", ""):  # /dev/stdout has no suffix
            raise UsageError("expected a name that ends in .csv", where=ranks, remedy="Choose another --ranks")
    prepared = prepare_split(
        RunContext.open(profile, progress, needs_disk=False), "val", combining_function, checkpoint
    )
    result = prepared.ranks()
    if ranks is not None:
        write_file(ranks, _as_csv(prepared.evaluation, result))
        logger.info(f"Ranks: {ranks}")
    return EvaluationResult.of(prepared, result)


def _as_csv(evaluation: Evaluation, ranks: Mapping[str, Ranks]) -> bytes:
    """One line per query, in the annotations' order; a target that is its own reference has no rank."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(RANK_COLUMNS)
    for part in evaluation.split.sets:
        both = ranks[part.name]
        for row, triplet in enumerate(part.triplets):
            cells = [None if of is None or of[row] == UNRANKED else int(of[row]) for of in (both.gallery, both.subset)]
            caption = evaluation.caption_of(triplet)
            writer.writerow((part.name, triplet.pair_id, triplet.reference, triplet.target, caption, *cells))
    return text.getvalue().encode()
