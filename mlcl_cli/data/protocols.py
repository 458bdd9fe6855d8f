"""The validation protocols and their metrics (METHOD.md, Sections 8.2 and 8.4)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from statistics import fmean, harmonic_mean

Metrics = Mapping[str, float]
Summary = Callable[[Mapping[str, Metrics]], dict[str, float]]
Texts = Callable[[tuple[str, ...]], tuple[str, ...]]
PRUNED = " (pruned gallery)"
CITATION = "Images are ranked by cosine similarity to the query; equal scores rank in gallery order."


def averages(metrics: Mapping[str, Metrics]) -> dict[str, float]:
    """FashionIQ (Section 8.2): metrics per category, their averages over the categories, and the recalls' mean."""
    by_category = {f"{name}/{key}": value for name, values in metrics.items() for key, value in values.items()}
    keys = next(iter(metrics.values()))
    average = {f"average/{key}": fmean(values[key] for values in metrics.values()) for key in keys}
    recalls = [value for key, value in average.items() if key.startswith("average/recall@")]
    return by_category | average | {"average/recall": fmean(recalls)}


def recall_mean(metrics: Mapping[str, Metrics]) -> dict[str, float]:
    """Shoes (Section 8.2): the metrics, and the recalls' mean."""
    (values,) = metrics.values()
    return {**values, "recall_mean": fmean(value for key, value in values.items() if key.startswith("recall@"))}


def three_means(metrics: Mapping[str, Metrics]) -> dict[str, float]:
    """CIRR (Section 8.2): the recalls, three means, and (R@5 + R_subset@1) / 2.

    The harmonic and the geometric mean are 0 if a recall is 0.
    """
    (recalls,) = metrics.values()
    values = [*recalls.values()]
    return {
        **recalls,
        "arithmetic_mean": fmean(values),
        "harmonic_mean": harmonic_mean(values),
        "geometric_mean": prod(value ** (1 / len(values)) for value in values),
        "mean(recall@5,recall_subset@1)": fmean((recalls["recall@5"], recalls["recall_subset@1"])),
    }


@dataclass(frozen=True)
class CaptionRule:
    """How a triplet's captions become its query texts; validation takes the first, training draws one of them.

    `name` is the profile's word for it, `words` say it in a sentence.
    """

    name: str
    words: str
    texts: Texts


def joined_or_alone(captions: tuple[str, ...]) -> tuple[str, ...]:
    """FashionIQ: both captions joined, in either order, or one of them (METHOD.md, Section 6).

    They are equally likely in training; validation takes the first. Punctuation at the ends is stripped.
    """
    a, b = (caption.strip(".?, ") for caption in captions)
    return (f"{a.capitalize()} and {b}", f"{b.capitalize()} and {a}", a.capitalize(), b.capitalize())


AS_ANNOTATED = CaptionRule("annotated", "The query text is the caption as annotated.", lambda captions: captions)
PAIR = CaptionRule("pair", 'The query text is both captions, joined by "and".', joined_or_alone)


@dataclass(frozen=True)
class Protocol:
    """How queries are ranked and scored.

    `recall_at` are the cut-offs K over the gallery, `subset_recall_at` those among a triplet's `members`, `map_at`
    those of the mean average precision over all of a query's targets; the latter is also given per semantic aspect at
    the cut-off `aspect_map_at`. `any_target` says that a recall counts any target, not the first alone.
    `exclude_reference` removes the reference image from what is ranked. Each metric in `bests` selects a checkpoint.
    `pruned` means that bad images are missing from the gallery or the queries, so that scores do not compare with
    others; `used_images_only`, that the gallery holds the triplets' images alone. `gallery` is the profile's word for
    the gallery; `gallery_words`, `target_words` (a sentence on what the targets are, where there are several) and
    `systems` (which published systems report it) are words for people.
    """

    name: str
    recall_at: tuple[int, ...]
    exclude_reference: bool
    bests: tuple[str, ...]
    summary: Summary
    subset_recall_at: tuple[int, ...] = ()
    map_at: tuple[int, ...] = ()
    aspect_map_at: int | None = None
    any_target: bool = False
    gallery: str = "original"
    gallery_words: str = "every image of the split, in the order of the split file"
    target_words: str = ""
    captions: CaptionRule = AS_ANNOTATED
    systems: str = ""
    pruned: bool = False
    used_images_only: bool = False

    @property
    def label(self) -> str:
        """The name for display."""
        return protocol_label(self.name, pruned=self.pruned)

    @property
    def depth(self) -> int:
        """How many images of a ranking its metrics look at."""
        return max((*self.recall_at, *self.map_at))

    def with_reference(self, *, excluded: bool) -> "Protocol":
        """This protocol with the reference excluded or kept; the name says where that is not the usual way."""
        if excluded == self.exclude_reference:
            return self
        suffix = "-noref" if excluded else "-withref"
        return replace(self, name=f"{self.name}{suffix}", exclude_reference=excluded, systems="")


FASHIONIQ_ORIGINAL = Protocol(
    name="fashioniq-original",
    recall_at=(10, 50),
    exclude_reference=False,
    bests=("average/recall",),
    summary=averages,
    gallery_words="every image of the category's split, in the order of its split file",
    captions=PAIR,
    systems="CLIP4Cir, SPRC, MLCL",
)
FASHIONIQ_ORIGINAL_NOREF = replace(FASHIONIQ_ORIGINAL.with_reference(excluded=True), systems="DCNet, ARTEMIS, CoVR")
FASHIONIQ_VAL = replace(
    FASHIONIQ_ORIGINAL,
    name="fashioniq-val",
    gallery="val",
    gallery_words="every image that a triplet of the category names, in the order of its split file; "
    "references that only another split lists come last",
    used_images_only=True,
    systems="FashionERN, in its VAL test",
)
FASHIONIQ_VAL_NOREF = replace(FASHIONIQ_VAL.with_reference(excluded=True), systems="VAL, CLVC-Net, TG-CIR, DQU-CIR")
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


def summarize(protocol: Protocol, metrics: Mapping[str, Metrics]) -> dict[str, float]:
    """The protocol's metrics, named and ordered as `--json` gives them, from those of each query set.

    `metrics` maps a query set's name to its "recall@K", "recall_subset@K" (METHOD.md, Equation 20), "map@K" and
    "map@K/ASPECT" (Section 8.5), in percent; others are left out.
    """
    keys = [f"recall@{k}" for k in protocol.recall_at] + [f"recall_subset@{k}" for k in protocol.subset_recall_at]
    keys += [f"map@{k}" for k in protocol.map_at]
    aspects = f"map@{protocol.aspect_map_at}/"
    chosen = {}
    for name, values in metrics.items():
        by_aspect = {key: value for key, value in values.items() if key.startswith(aspects)}
        chosen[name] = {key: values[key] for key in keys} | by_aspect
    return protocol.summary(chosen)


def chance(protocol: Protocol, galleries: Mapping[str, int]) -> dict[str, float]:
    """The expected metrics of a random ranking (METHOD.md, Equation 20), from the gallery size of each query set.

    An image set has six members, one of which is the reference. The protocol counts one target, and no mean average
    precision.
    """
    subset = {f"recall_subset@{k}": 100 * k / 5 for k in protocol.subset_recall_at}
    recalls = {}
    for name, size in galleries.items():
        ranked = size - protocol.exclude_reference
        recalls[name] = subset | {f"recall@{k}": 100 * min(1.0, k / ranked) for k in protocol.recall_at}
    return summarize(protocol, recalls)


def describe(protocol: Protocol, queries: Mapping[str, int], galleries: Mapping[str, int]) -> list[str]:
    """The protocol in sentences that a paper can cite; the counts are by query set, empty if the data is not there."""
    cutoffs = ", ".join(map(str, protocol.recall_at))
    counted = "any of the query's targets is" if protocol.any_target else "the target is"
    if protocol.map_at and not protocol.any_target:
        counted = "the query's first target is"
    sentences = [f"Recall@K (K = {cutoffs}) is the percentage of queries for which {counted} among the first K images."]
    if protocol.subset_recall_at:
        cutoffs = ", ".join(map(str, protocol.subset_recall_at))
        sentences.append(f"Recall_subset@K (K = {cutoffs}) ranks only the images of the query's image set.")
    if protocol.map_at:
        cutoffs = ", ".join(map(str, protocol.map_at))
        what = "is the mean over queries of the average precision of all targets among the first K images"
        sentences.append(f"mAP@K (K = {cutoffs}) {what}, divided by the smaller of K and the number of targets.")
    if (k := protocol.aspect_map_at) is not None:
        sentences.append(f"mAP@{k} is also given per semantic aspect, over the queries that have it.")
    sizes = "; ".join(f"{name}: {queries[name]:,} queries, {galleries[name]:,} gallery images" for name in queries)
    return [
        f"Protocol {protocol.label}" + (f" ({sizes})." if sizes else "."),
        f"The gallery is {protocol.gallery_words}.",
        "The reference image is removed from what is ranked."
        if protocol.exclude_reference
        else "The reference image stays in the gallery.",
        protocol.captions.words,
        CITATION,
        *([protocol.target_words] if protocol.target_words else []),
        *sentences,
        *(["Metrics are averaged over the query sets."] if protocol.summary is averages else []),
        f"The best checkpoint is selected by {', '.join(protocol.bests)}.",
        *([f"Systems that rank this way: {protocol.systems}."] if protocol.systems else []),
    ]
