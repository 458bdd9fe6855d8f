"""The data sets that mlcl knows, and the one way to read them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mlcl_cli.data import cirr, fashioniq, protocols, shoes
from mlcl_cli.data.annotations import OnDefect, refuse
from mlcl_cli.data.protocols import Protocol
from mlcl_cli.data.records import QuerySet, Split
from mlcl_cli.errors import UsageError

Reader = Callable[[Path, str, Path | None, OnDefect], Split]


@dataclass(frozen=True)
class DataSet:
    """A reader, its splits, and the protocol of each gallery that the field validates with; "original" is every image.

    `published` holds the triplets and the listed images of a complete split (DATASETS.md); of train, its triplets'
    images are not published, hence 0. Its caption rule is in `captions.RULES`.
    """

    read: Reader
    splits: tuple[str, ...]
    published: Mapping[str, tuple[int, int]]
    protocols: Mapping[str, Protocol]


DATASETS: Mapping[str, DataSet] = {
    fashioniq.NAME: DataSet(
        fashioniq.read,
        fashioniq.SPLITS,
        {"train": (18_000, 0), "val": (6_016, 15_536), "test": (6_118, 15_538)},
        {"original": protocols.FASHIONIQ_ORIGINAL, "val": protocols.FASHIONIQ_VAL},
    ),
    shoes.NAME: DataSet(
        shoes.read,
        shoes.SPLITS,
        {"train": (8_990, 0), "val": (1_761, 4_658)},
        {"original": protocols.SHOES},
    ),
    cirr.NAME: DataSet(
        cirr.read,
        cirr.SPLITS,
        {"train": (28_225, 0), "val": (4_181, 2_297), "test1": (4_148, 2_315)},
        {"original": protocols.CIRR_VAL},
    ),
}


def load_split(
    dataset: str,
    root: Path,
    split: str,
    *,
    gallery: str = "original",
    images: Path | None = None,
    on_defect: OnDefect = refuse,
) -> Split:
    """One split of a data set, by default with its images where the public download has them.

    `gallery` "val" keeps only the images that a category's own triplets name (FashionIQ's second protocol).
    Raises UsageError for an unknown data set, split or gallery, DataError for everything that is wrong on disk; what
    single records have wrong goes to `on_defect`, and where that returns they are left out.
    """
    known = _dataset(dataset)
    if split not in known.splits:
        raise UsageError(f"{dataset} has no split {split!r}", remedy=f"It has {', '.join(known.splits)}")
    protocol = protocol_of(dataset, gallery)
    loaded = known.read(root, split, images, on_defect)
    if protocol.name == protocols.FASHIONIQ_VAL.name:
        return replace(loaded, sets=tuple(_with_own_gallery(part) for part in loaded.sets))
    return loaded


def protocol_of(dataset: str, gallery: str = "original") -> Protocol:
    """The validation protocol; `gallery` matters only for FashionIQ, which has two protocols (METHOD.md, Section 8.2).

    Raises UsageError for an unknown data set, or a gallery that FashionIQ is not validated with.
    """
    known = _dataset(dataset).protocols
    if len(known) == 1:
        return next(iter(known.values()))
    if gallery not in known:
        raise UsageError(f"{dataset} has no gallery {gallery!r}", remedy=f"It has {', '.join(known)}")
    return known[gallery]


def _dataset(name: str) -> DataSet:
    if name not in DATASETS:
        raise UsageError(f"there is no data set {name!r}", remedy=f"There are {', '.join(DATASETS)}")
    return DATASETS[name]


def _with_own_gallery(part: QuerySet) -> QuerySet:
    """Candidates and targets in the split file's order; a candidate that only another split lists comes last."""
    used = {name: None for triplet in part.triplets for name in (triplet.reference, triplet.target) if name is not None}
    listed = [name for name in part.gallery if name in used]
    return replace(part, gallery=tuple(dict.fromkeys([*listed, *used]))) if part.gallery else part
