"""The validation protocols and their metrics (METHOD.md, Sections 8.2 and 8.4)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from statistics import fmean, harmonic_mean

Recalls = Mapping[str, float]
Summary = Callable[[Mapping[str, Recalls]], dict[str, float]]
PRUNED = " (pruned gallery)"


def averages(recalls: Mapping[str, Recalls]) -> dict[str, float]:
    """FashionIQ (Section 8.2): recalls per category, their averages over the categories, and the mean of those."""
    metrics = {f"{name}/{key}": value for name, values in recalls.items() for key, value in values.items()}
    keys = next(iter(recalls.values()))
    average = {f"average/{key}": fmean(values[key] for values in recalls.values()) for key in keys}
    return metrics | average | {"average/recall": fmean(average.values())}


def recall_mean(recalls: Mapping[str, Recalls]) -> dict[str, float]:
    """Shoes (Section 8.2): the recalls and their mean."""
    (values,) = recalls.values()
    return {**values, "recall_mean": fmean(values.values())}


def three_means(recalls: Mapping[str, Recalls]) -> dict[str, float]:
    """CIRR (Section 8.2): the recalls, three means, and (R@5 + R_subset@1) / 2.

    The harmonic and the geometric mean are 0 if a recall is 0.
    """
    (metrics,) = recalls.values()
    values = [*metrics.values()]
    return {
        **metrics,
        "arithmetic_mean": fmean(values),
        "harmonic_mean": harmonic_mean(values),
        "geometric_mean": prod(value ** (1 / len(values)) for value in values),
        "mean(recall@5,recall_subset@1)": fmean((metrics["recall@5"], metrics["recall_subset@1"])),
    }


@dataclass(frozen=True)
class Protocol:
    """How queries are ranked and scored.

    `recall_at` are the cut-offs K over the gallery, `subset_recall_at` those among a triplet's `members`;
    `exclude_reference` removes the reference image from both. Each metric in `bests` selects a checkpoint. `pruned`
    means that bad images are missing from the gallery or the queries, so that scores do not compare with others;
    `used_images_only`, that the gallery holds the triplets' images alone.
    """

    name: str
    recall_at: tuple[int, ...]
    exclude_reference: bool
    bests: tuple[str, ...]
    summary: Summary
    subset_recall_at: tuple[int, ...] = ()
    pruned: bool = False
    used_images_only: bool = False

    @property
    def label(self) -> str:
        """The name for display."""
        return protocol_label(self.name, pruned=self.pruned)


FASHIONIQ_ORIGINAL = Protocol("fashioniq-original", (10, 50), False, ("average/recall",), averages)
FASHIONIQ_VAL = replace(FASHIONIQ_ORIGINAL, name="fashioniq-val", used_images_only=True)
SHOES = Protocol("shoes", (1, 10, 50), True, ("recall_mean",), recall_mean)
CIRR_VAL = Protocol(
    "cirr-val", (1, 5, 10, 50), True, ("arithmetic_mean", "harmonic_mean", "geometric_mean"), three_means, (1, 2, 3)
)


def protocol_label(name: str, *, pruned: bool) -> str:
    """The name for display, which says where the gallery is pruned."""
    return f"{name}{PRUNED}" if pruned else name


def split_protocol_name(label: str) -> tuple[str, bool]:
    """The protocol's name and whether the gallery is pruned; older runs store both as one label."""
    return label.removesuffix(PRUNED), label.endswith(PRUNED)


def summarize(protocol: Protocol, recalls: Mapping[str, Recalls]) -> dict[str, float]:
    """The protocol's metrics, named and ordered as `--json` gives them, from the recalls of each query set.

    `recalls` maps a query set's name to its "recall@K" and "recall_subset@K" (METHOD.md, Equation 20), in percent.
    """
    keys = [f"recall@{k}" for k in protocol.recall_at] + [f"recall_subset@{k}" for k in protocol.subset_recall_at]
    return protocol.summary({name: {key: values[key] for key in keys} for name, values in recalls.items()})


def chance(protocol: Protocol, galleries: Mapping[str, int]) -> dict[str, float]:
    """The expected metrics of a random ranking (METHOD.md, Equation 20), from the gallery size of each query set.

    An image set has six members, one of which is the reference.
    """
    subset = {f"recall_subset@{k}": 100 * k / 5 for k in protocol.subset_recall_at}
    recalls = {}
    for name, size in galleries.items():
        ranked = size - protocol.exclude_reference
        recalls[name] = subset | {f"recall@{k}": 100 * min(1.0, k / ranked) for k in protocol.recall_at}
    return summarize(protocol, recalls)
