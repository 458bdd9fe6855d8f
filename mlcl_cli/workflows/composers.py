"""The ways to compose a query without a combiner, by the name that `--combining-function` takes."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mlcl_cli.errors import DataError, MachineError, MlclError
from mlcl_cli.features.store import FeatureStore
from mlcl_cli.formatting import counted
from mlcl_cli.progress import NOTICE
from mlcl_cli.retrieval.evaluation import (
    Compose,
    Evaluation,
    image_query,
    product_query,
    sum_query,
    text_query,
    weighted_query,
)
from mlcl_cli.retrieval.text_weight import CANDIDATES, choose_text_weight, drawn_triplets
from mlcl_cli.workflows.run_context import RunContext, files_of

logger = logging.getLogger(__name__)

MAX_TRIPLETS = 2_000


@dataclass(frozen=True)
class TextWeight:
    """The text's weight in a query, and the number of training triplets that chose it; None if the profile did."""

    value: float
    triplets: int | None = None


@dataclass(frozen=True)
class Composer:
    """A way to compose queries, with the weight of their text if it has one."""

    compose: Compose
    text_weight: TextWeight | None = None


MakeComposer = Callable[[RunContext, FeatureStore], Composer]


def weighted(context: RunContext, store: FeatureStore) -> Composer:
    """The weighted mean, with the profile's `evaluate.text_weight`, or the best one on training triplets.

    Raises DataError if there are no training triplets to choose it on, or their images are bad.
    """
    setting = context.profile.evaluate.text_weight
    weight = TextWeight(setting) if isinstance(setting, float) else _best_text_weight(context, store)
    return Composer(weighted_query(weight.value), weight)


def _best_text_weight(context: RunContext, store: FeatureStore) -> TextWeight:
    try:
        drawn = drawn_triplets(context.split("train"), MAX_TRIPLETS, context.profile.seed)
        encoded = store.images(files_of([drawn], [name for part in drawn.sets for name in part.gallery]))
        split = context.without_bad(drawn, encoded.bad.values())
    except MachineError:
        raise
    except MlclError as error:
        remedy = "Set evaluate.text_weight to a number from 0 to 1: auto chooses it on training triplets"
        raise DataError(error.what, where=error.where, remedy=remedy) from error
    texts = store.texts([triplet.query_text for triplet in split.triplets])
    count = len(split.triplets)
    words = counted(count, "training triplet")
    with context.progress.bar(f"Choosing the text weight on {words}", CANDIDATES * count) as advance:
        value = choose_text_weight(Evaluation(split, context.protocol), encoded.table, texts, advance)
    metric = context.protocol.bests[0]
    logger.log(NOTICE, f"Text weight: {value:g}, the best of {CANDIDATES} on {words} by {metric}")
    return TextWeight(value, count)


def _fixed(compose: Compose) -> MakeComposer:
    return lambda _context, _store: Composer(compose)


COMPOSERS: Mapping[str, MakeComposer] = {
    "sum": _fixed(sum_query),
    "weighted": weighted,
    "product": _fixed(product_query),
    "image": _fixed(image_query),
    "text": _fixed(text_query),
}
