"""`mlcl evaluate`: a protocol's metrics from trained weights, and the rankings behind them."""

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlcl_cli.atomic_files import require_replaceable, write_file
from mlcl_cli.config import Profile
from mlcl_cli.data.datasets import named_protocol
from mlcl_cli.data.protocols import Protocol, describe
from mlcl_cli.errors import DataError, UsageError
from mlcl_cli.progress import Progress
from mlcl_cli.retrieval import predictions
from mlcl_cli.retrieval.bootstrap import Interval, intervals
from mlcl_cli.retrieval.evaluation import ComposedSet, Evaluation, Figures
from mlcl_cli.retrieval.ranking import UNRANKED, Ranks
from mlcl_cli.workflows.provenance import versions
from mlcl_cli.workflows.retrieval_model import PreparedSplit, prepare_protocols, prepare_split
from mlcl_cli.workflows.run_context import RunContext, read_split

logger = logging.getLogger(__name__)

RANK_COLUMNS = ("set", "pair_id", "reference", "target", "caption", "rank", "subset_rank", "query_id")


@dataclass(frozen=True)
class EvaluationResult:
    """The metrics of a prepared split, and their intervals if these were asked for."""

    prepared: PreparedSplit
    figures: Figures
    intervals: Mapping[str, Interval] | None = None

    def as_json(self) -> dict[str, object]:
        """The object that `--json` prints (metrics: METHOD.md, Section 8.4)."""
        return {
            "command": "evaluate",
            "dataset": self.prepared.split.dataset,
            "split": self.prepared.split.name,
            "protocol": self.prepared.evaluation.protocol.label,
            "combining_function": self.prepared.model.combining_function,
            **counts_as_json(self.figures),
            **self.prepared.provenance(),
            "versions": versions(),
            "metrics": self.figures.metrics,
            **intervals_as_json(self.intervals),
        }


@dataclass(frozen=True)
class ComparisonResult:
    """The metrics of one model under several protocols of a data set."""

    results: Sequence[EvaluationResult]

    def as_json(self) -> dict[str, object]:
        """The object that `--json` prints: as for one protocol, with those of each under `protocols`."""
        each = [result.as_json() for result in self.results]
        varying = ("protocol", "queries", "gallery", "data", "metrics")
        shared = {key: value for key, value in each[0].items() if key not in varying}
        protocols = {
            result.prepared.evaluation.protocol.label: {
                **{key: values[key] for key in varying[1:]},
                "systems": result.prepared.evaluation.protocol.systems,
            }
            for result, values in zip(self.results, each, strict=True)
        }
        return {**shared, "protocols": protocols}


def counts_as_json(figures: Figures) -> dict[str, object]:
    """The numbers of queries and gallery images, by query set where there are several."""
    queries, gallery = figures.queries, figures.gallery
    single = len(queries) == 1
    return {
        "queries": next(iter(queries.values())) if single else queries,
        "gallery": next(iter(gallery.values())) if single else gallery,
    }


def intervals_as_json(intervals: Mapping[str, Interval] | None) -> dict[str, object]:
    """The lower and the upper bound of each metric under `intervals`, if there are any."""
    return {} if intervals is None else {"intervals": {key: [i.low, i.high] for key, i in intervals.items()}}


def under_protocol(profile: Profile, name: str | None) -> Profile:
    """The profile under the protocol of that name, by default its own.

    Raises UsageError if there is no such protocol, or it is another data set's.
    """
    if name is None:
        return profile
    dataset, protocol = named_protocol(name, profile.definition)
    if dataset.name != profile.dataset:
        what = f"{name} is a protocol of {dataset.name}, but this profile's data set is {profile.dataset}"
        raise UsageError(what, where="--protocol", remedy=f"Add --set dataset={dataset.name}")
    return profile.under(dataset.name, protocol)


def run_evaluation(
    profile: Profile,
    progress: Progress,
    *,
    combining_function: str = "combiner",
    checkpoint: Path | None = None,
    ranks: Path | None = None,
    predicted: Path | None = None,
    with_intervals: bool = False,
) -> EvaluationResult:
    """Evaluate under the profile's protocol.

    Writes every target's rank to `ranks`, as CSV, and every query's ranking or all features to `predicted`, if given.
    Raises UsageError for a file of another format, or that holds something else, DataError for intervals of too few
    queries.
    """
    if ranks is not None:
        require_replaceable(ranks, ",".join(RANK_COLUMNS[:-1]), "a table of ranks")  # also without query ids, as before
        if ranks.suffix.lower() not in (".csv", ""):  # /dev/stdout has no suffix
            raise UsageError("must end in .csv", where=ranks, remedy="Choose another --ranks")
    context = RunContext.open(profile, progress, needs_disk=False)
    if predicted is not None:
        predictions.require_format(predicted)
        require_replaceable(predicted, predictions.signature(predicted, context.split("val")), "predictions")
    prepared = prepare_split(context, "val", combining_function, checkpoint)
    composed, ranks_by_set = _ranked(prepared, keep=predicted is not None)
    if predicted is not None:
        write_file(predicted, predictions.to_bytes(predicted, composed, prepared.evaluation.protocol))
        logger.info(f"Predictions: {predicted}")
    if ranks is not None:
        write_file(ranks, _as_csv(prepared.evaluation, ranks_by_set))
        logger.info(f"Ranks: {ranks}")
    bounds = intervals_of(prepared.evaluation, ranks_by_set) if with_intervals else None
    return EvaluationResult(prepared, prepared.evaluation.figures(ranks_by_set), bounds)


def intervals_of(evaluation: Evaluation, ranks: Mapping[str, Ranks]) -> dict[str, Interval]:
    """The interval of each metric, by a bootstrap over queries. Raises DataError for too few queries."""
    return intervals(evaluation.protocol, evaluation.values(ranks))


def compare_protocols(
    profile: Profile, progress: Progress, *, combining_function: str = "combiner", checkpoint: Path | None = None
) -> ComparisonResult:
    """Evaluate one model under every protocol of the data set; the model is the one that the profile's own selects."""
    context = RunContext.open(profile, progress, needs_disk=False)
    protocols = profile.definition.protocols
    prepared = prepare_protocols(context, "val", protocols, combining_function, checkpoint)
    return ComparisonResult([EvaluationResult(one, one.evaluation.figures(one.ranks())) for one in prepared])


def described(profile: Profile, protocols: Sequence[Protocol]) -> dict[str, object]:
    """The protocols in words, with their sizes where the data can be read."""
    words: dict[str, object] = {}
    for protocol in protocols:
        queries, galleries = dict[str, int](), dict[str, int]()
        try:
            split = read_split(profile, "val", protocol)
        except DataError as error:
            logger.info(f"No sizes, since the data cannot be read: {error}")
        else:
            queries = {part.name: len(part.triplets) for part in split.sets}
            galleries = {part.name: len(part.gallery) for part in split.sets}
        words[protocol.name] = describe(protocol, queries, galleries)
    return {"command": "evaluate", "dataset": profile.dataset, "protocols": words}


def _ranked(prepared: PreparedSplit, *, keep: bool) -> tuple[list[ComposedSet], dict[str, Ranks]]:
    """The targets' ranks by query set, and the query sets with their features if they are to be kept."""
    composed, ranks = [], {}
    with prepared.ranking_bar() as advance:
        for part in prepared.evaluation.compose(prepared.images, prepared.texts, prepared.model.compose):
            ranks[part.part.name] = part.rank(advance)
            if keep:
                composed.append(part)
    return composed, ranks


def _as_csv(evaluation: Evaluation, ranks: Mapping[str, Ranks]) -> bytes:
    """One line per query, in the annotations' order; a target that is its own reference has no rank."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(RANK_COLUMNS)
    for part in evaluation.split.sets:
        set_ranks = ranks[part.name]
        counted = set_ranks.best if evaluation.protocol.any_target else set_ranks.gallery
        for row, triplet in enumerate(part.triplets):
            columns = (counted, set_ranks.subset)
            cells = [None if column is None or column[row] == UNRANKED else int(column[row]) for column in columns]
            named = (part.name, triplet.pair_id, triplet.reference, triplet.target, triplet.query_text)
            writer.writerow((*named, *cells, triplet.query_id))
    return text.getvalue().encode()
