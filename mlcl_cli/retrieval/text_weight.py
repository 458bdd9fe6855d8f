"""How the weighted query's one parameter is chosen: by its recall on training triplets (METHOD.md, Section 5)."""

from dataclasses import replace

import torch

from mlcl_cli.data.records import QuerySet, Split
from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.retrieval.evaluation import Advance, Evaluation, weighted_query
from mlcl_cli.seeding import derive_generator

STEPS = 20
CANDIDATES = STEPS + 1


def choose_text_weight(
    evaluation: Evaluation, images: FeatureTable, texts: FeatureTable, advance: Advance = lambda _: None
) -> float:
    """The best of 21 weights from 0 to 1 by the metric that selects checkpoints.

    Of equally good ones, it is the nearest to 0.5, and the smaller of two. `advance` is called as by `rank_targets`,
    for each weight. Raises NotFiniteError where a score would not be finite.
    """
    metric = evaluation.protocol.bests[0]
    figures = (evaluation(images, texts, weighted_query(step / STEPS), advance) for step in range(CANDIDATES))
    scores = [round(own.metrics[metric], 9) for own in figures]  # equal means of unequal recalls differ by rounding
    best = (step for step, score in enumerate(scores) if score == max(scores))
    return min(best, key=lambda step: abs(2 * step - STEPS)) / STEPS


def drawn_triplets(split: Split, count: int, seed: int) -> Split:
    """At most `count` triplets of a training split, in its order; each query set's gallery is the images they name."""
    drawn = torch.randperm(len(split.triplets), generator=derive_generator(seed, "text weight"))[:count]
    kept = {*drawn.tolist()}
    sets, start = [], 0
    for part in split.sets:
        triplets = tuple(triplet for row, triplet in enumerate(part.triplets, start) if row in kept)
        start += len(part.triplets)
        if triplets:
            gallery = {name for triplet in triplets for name in triplet.images()}
            sets.append(QuerySet(part.name, triplets, tuple(sorted(gallery))))
    return replace(split, sets=tuple(sets))
