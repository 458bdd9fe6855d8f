"""`mlcl evaluate`: the validation protocol's metrics from trained weights."""

import csv
import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlcl_cli.atomic_files import require_replaceable, write_file
from mlcl_cli.config import Profile
from mlcl_cli.errors import UsageError
from mlcl_cli.progress import Progress
from mlcl_cli.retrieval.evaluation import Evaluation, Figures
from mlcl_cli.retrieval.ranking import UNRANKED, Ranks
from mlcl_cli.workflows.provenance import versions
from mlcl_cli.workflows.retrieval_model import PreparedSplit, prepare_split
from mlcl_cli.workflows.run_context import RunContext

logger = logging.getLogger(__name__)

RANK_COLUMNS = ("set", "pair_id", "reference", "target", "caption", "rank", "subset_rank")


@dataclass(frozen=True)
class EvaluationResult:
    """The metrics of a prepared split."""

    prepared: PreparedSplit
    figures: Figures

    def as_json(self) -> dict[str, object]:
        """The object that `--json` prints (metrics: METHOD.md, Section 8.4)."""
        queries, gallery = self.figures.queries, self.figures.gallery
        single = len(queries) == 1
        return {
            "command": "evaluate",
            "dataset": self.prepared.split.dataset,
            "split": self.prepared.split.name,
            "protocol": self.prepared.evaluation.protocol.label,
            "combining_function": self.prepared.model.combining_function,
            "queries": next(iter(queries.values())) if single else queries,
            "gallery": next(iter(gallery.values())) if single else gallery,
            **self.prepared.provenance(),
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
    """Evaluate the data set's validation protocol; write every target's rank to `ranks`, as CSV, if given.

    Raises UsageError for `ranks` that is not a .csv file, or holds something else.
    """
    if ranks is not None:
        require_replaceable(ranks, ",".join(RANK_COLUMNS), "a table of ranks")
        if ranks.suffix.lower() not in (".csv", ""):  # /dev/stdout has no suffix
            raise UsageError("must end in .csv", where=ranks, remedy="Choose another --ranks")
    context = RunContext.open(profile, progress, needs_disk=False)
    prepared = prepare_split(context, "val", combining_function, checkpoint)
    ranks_by_set = prepared.ranks()
    if ranks is not None:
        write_file(ranks, _as_csv(prepared.evaluation, ranks_by_set))
        logger.info(f"Ranks: {ranks}")
    return EvaluationResult(prepared, prepared.evaluation.figures(ranks_by_set))


def _as_csv(evaluation: Evaluation, ranks: Mapping[str, Ranks]) -> bytes:
    """One line per query, in the annotations' order; a target that is its own reference has no rank."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(RANK_COLUMNS)
    for part in evaluation.split.sets:
        set_ranks = ranks[part.name]
        for row, triplet in enumerate(part.triplets):
            columns = (set_ranks.gallery, set_ranks.subset)
            cells = [None if column is None or column[row] == UNRANKED else int(column[row]) for column in columns]
            writer.writerow((part.name, triplet.pair_id, triplet.reference, triplet.target, triplet.query_text, *cells))
    return text.getvalue().encode()
