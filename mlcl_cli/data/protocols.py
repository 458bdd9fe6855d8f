"""The validation protocols and their metrics (METHOD.md, Sections 8.2 and 8.4)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from statistics import fmean, harmonic_mean

Recalls = Mapping[str, float]
Summary = Callable[[Mapping[str, Recalls]], dict[str, float]]


def averages(recalls: Mapping[str, Recalls]) -> dict[str, float]:
    """FashionIQ: every category's recalls, their averages over the categories, and the mean of those."""
    figures = {f"{name}/{key}": value for name, figures in recalls.items() for key, value in figures.items()}
    keys = next(iter(recalls.values()))
    average = {f"average/{key}": fmean(figures[key] for figures in recalls.values()) for key in keys}
    return figures | average | {"average/recall": fmean(average.values())}


def recall_mean(recalls: Mapping[str, Recalls]) -> dict[str, float]:
    """Shoes: the recalls and their mean."""
    (figures,) = recalls.values()
    return {**figures, "recall_mean": fmean(figures.values())}


def three_means(recalls: Mapping[str, Recalls]) -> dict[str, float]:
    """CIRR: the recalls, their means (harmonic and geometric: 0 if one is 0), and the field's (R@5 + R_subset@1)/2."""
    (figures,) = recalls.values()
    values = tuple(figures.values())
    return {
        **figures,
        "arithmetic_mean": fmean(values),
        "harmonic_mean": harmonic_mean(values),
        "geometric_mean": prod(value ** (1 / len(values)) for value in values),
        "mean(recall@5,recall_subset@1)": fmean((figures["recall@5"], figures["recall_subset@1"])),
    }


@dataclass(frozen=True)
class Protocol:
    """How queries are ranked and scored.

    `recall_at` are the cut-offs over the gallery, `subset_recall_at` those among a triplet's `members`;
    `exclude_reference` takes the reference image out of both. `bests` are the metrics that each keep a checkpoint.
    `used_images_only` leaves only the images in a query set's gallery that its own triplets name.
    """

    name: str
    recall_at: tuple[int, ...]
    exclude_reference: bool
    bests: tuple[str, ...]
    summary: Summary
    subset_recall_at: tuple[int, ...] = ()
    used_images_only: bool = False


FASHIONIQ_ORIGINAL = Protocol("fashioniq-original", (10, 50), False, ("average/recall",), averages)
FASHIONIQ_VAL = replace(FASHIONIQ_ORIGINAL, name="fashioniq-val", used_images_only=True)
SHOES = Protocol("shoes", (1, 10, 50), True, ("recall_mean",), recall_mean)
CIRR_VAL = Protocol(
    "cirr-val", (1, 5, 10, 50), True, ("arithmetic_mean", "harmonic_mean", "geometric_mean"), three_means, (1, 2, 3)
)


def summarize(protocol: Protocol, recalls: Mapping[str, Recalls]) -> dict[str, float]:
    """The protocol's metrics, named and ordered as `--json` gives them, from the recalls of each query set.

    `recalls` maps a query set's name to its "recall@K" and "recall_subset@K", in percent.
    """
    keys = [f"recall@{k}" for k in protocol.recall_at] + [f"recall_subset@{k}" for k in protocol.subset_recall_at]
    return protocol.summary({name: {key: figures[key] for key in keys} for name, figures in recalls.items()})


def chance(protocol: Protocol, galleries: Mapping[str, int]) -> dict[str, float]:
    """The protocol's metrics of a random ranking, by the size of each query set's gallery.

    An image set has six members, one of which is the reference.
    """
    left_out = 1 if protocol.exclude_reference else 0
    return summarize(
        protocol,
        {
            name: {f"recall@{k}": 100 * min(1.0, k / (size - left_out)) for k in protocol.recall_at}
            | {f"recall_subset@{k}": 100 * k / 5 for k in protocol.subset_recall_at}
            for name, size in galleries.items()
        },
    )
