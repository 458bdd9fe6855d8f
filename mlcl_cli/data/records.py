"""The one record type that every data set is read into; downstream code never asks which data set it is."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Triplet:
    """A reference image, a modifier and the target image, by image name.

    `captions` are the modifiers as annotated: two in FashionIQ, the relative caption and the shared concept in CIRCO,
    one elsewhere. `target` is None in a test split; `other_targets` are further right answers. `pair_id` is CIRR's and
    CIRCO's number of the query, `members` (the distinct names of the image set, reference included) are CIRR's,
    `aspects` CIRCO's semantic aspects. `texts` are the query texts that follow from the captions, which are the
    default: training draws one of them, all equally likely. `query_id` names the query in a file of predictions; it is
    unique in a split. `row` is where its table has it, if it is from one.
    """

    reference: str
    target: str | None
    captions: tuple[str, ...]
    pair_id: int | None = None
    members: tuple[str, ...] = ()
    # Out of `repr`, of which a run's identity is made: they are newer than runs that can be resumed.
    other_targets: tuple[str, ...] = field(default=(), repr=False)
    aspects: tuple[str, ...] = field(default=(), repr=False)
    # Out of `==`, too: they follow from the captions and from the place in the split.
    texts: tuple[str, ...] = field(default=(), repr=False, compare=False)
    query_id: str = field(default="", repr=False, compare=False)
    row: int | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.texts:
            object.__setattr__(self, "texts", self.captions)

    @property
    def query_text(self) -> str:
        """The text of the query in validation and test."""
        return self.texts[0]

    def pair(self) -> tuple[str, ...]:
        """The reference, and the target where it is known."""
        return (self.reference,) if self.target is None else (self.reference, self.target)

    def without(self, bad: Collection[str]) -> "Triplet":
        """The triplet without the other targets that are `bad`."""
        if not any(name in bad for name in self.other_targets):
            return self
        return replace(self, other_targets=tuple(name for name in self.other_targets if name not in bad))

    def targets(self) -> tuple[str, ...]:
        """All right answers, the first one first; none in a test split."""
        return () if self.target is None else (self.target, *self.other_targets)

    def images(self) -> tuple[str, ...]:
        """All image names: the pair, the other targets and the members."""
        return (*self.pair(), *self.other_targets, *self.members)


@dataclass(frozen=True, slots=True)
class QuerySet:
    """Triplets that are evaluated together against one gallery of image names: a category, or a whole split."""

    name: str
    triplets: tuple[Triplet, ...]
    gallery: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """One split of a data set. `paths` holds the file of every image named in `sets`, whether it exists or not.

    `others` holds further files with the same name; they are not used. `unit` is what the triplets' `row` counts.
    """

    dataset: str
    name: str
    sets: tuple[QuerySet, ...]
    paths: Mapping[str, Path]
    others: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    unit: str = "row"

    @property
    def triplets(self) -> tuple[Triplet, ...]:
        """The triplets of all sets, pooled in order."""
        return tuple(triplet for part in self.sets for triplet in part.triplets)

    def triplet_images(self) -> tuple[str, ...]:
        """The distinct names of references and targets, in order of first use."""
        return tuple(dict.fromkeys(name for triplet in self.triplets for name in triplet.pair()))

    def images(self) -> tuple[str, ...]:
        """The distinct names of gallery, references and targets, gallery first."""
        gallery = (name for part in self.sets for name in part.gallery)
        return tuple(dict.fromkeys([*gallery, *self.triplet_images()]))

    def with_texts(self, texts_of: Callable[[tuple[str, ...]], tuple[str, ...]]) -> "Split":
        """The split with the query texts that `texts_of` makes of each triplet's captions."""

        def with_texts(triplet: Triplet) -> Triplet:
            texts = texts_of(triplet.captions)
            return triplet if texts == triplet.texts else replace(triplet, texts=texts)

        return self._with_sets(replace(part, triplets=tuple(map(with_texts, part.triplets))) for part in self.sets)

    def with_used_galleries(self) -> "Split":
        """The split with galleries of the triplets' images alone, in their order.

        A reference that only another split lists comes last. A set without a gallery stays without one.
        """
        return self._with_sets(_with_used_gallery(part) if part.gallery else part for part in self.sets)

    def _with_sets(self, sets: Iterable[QuerySet]) -> "Split":
        return replace(self, sets=tuple(sets))

    def without(self, bad: Collection[str]) -> "Split":
        """The split less `bad` images: they leave the galleries, and triplets that need one leave with them."""
        parts = (
            QuerySet(
                part.name,
                tuple(
                    triplet.without(bad) for triplet in part.triplets if not any(name in bad for name in triplet.pair())
                ),
                tuple(name for name in part.gallery if name not in bad),
            )
            for part in self.sets
        )
        return self._with_sets(parts)


def _with_used_gallery(part: QuerySet) -> QuerySet:
    used = [name for triplet in part.triplets for name in (*triplet.pair(), *triplet.other_targets)]
    listed = set(part.gallery).intersection(used)
    gallery = dict.fromkeys([*(name for name in part.gallery if name in listed), *used])
    return replace(part, gallery=tuple(gallery))
