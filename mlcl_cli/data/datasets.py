"""The data sets that mlcl knows, and the one way to read them. To add one, write its file and list it here."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mlcl_cli.data.annotations import OnDefect, refuse
from mlcl_cli.data.cirr import CIRR
from mlcl_cli.data.definition import DataSet, Folders, Submission
from mlcl_cli.data.fashioniq import FASHIONIQ
from mlcl_cli.data.protocols import Protocol
from mlcl_cli.data.records import QuerySet, Split
from mlcl_cli.data.shoes import SHOES
from mlcl_cli.errors import UsageError

DATASETS: dict[str, DataSet] = {dataset.name: dataset for dataset in (FASHIONIQ, SHOES, CIRR)}
# Every gallery that some data set is validated with.
GALLERIES = tuple(dict.fromkeys(gallery for dataset in DATASETS.values() for gallery in dataset.protocols))

NO_FOLDERS: Mapping[str, Path] = {}


def load_split(
    dataset: str,
    root: Path,
    split: str,
    *,
    gallery: str = "original",
    folders: Folders = NO_FOLDERS,
    on_defect: OnDefect = refuse,
) -> Split:
    """One split of a data set; `folders` are those of `DataSet.folders` that do not lie where the download has them.

    Raises UsageError for an unknown data set, split or gallery, DataError for everything that is wrong on disk. The
    error of a single record goes to `on_defect`; if that returns, the record is left out.
    """
    definition = find_dataset(dataset)
    require_split(definition, split)
    protocol = protocol_of(dataset, gallery)
    loaded = definition.read(root, split, folders, on_defect)
    if protocol.used_images_only:
        return replace(loaded, sets=tuple(_with_used_gallery(part) for part in loaded.sets))
    return loaded


def find_dataset(name: str) -> DataSet:
    """The data set called `name`. Raises UsageError if there is none."""
    if name not in DATASETS:
        raise UsageError(f"there is no data set {name!r}", remedy=f"Choose one of {', '.join(DATASETS)}")
    return DATASETS[name]


def require_split(dataset: DataSet, split: str) -> None:
    """Raises UsageError if the data set has no such split."""
    if split not in dataset.splits:
        raise UsageError(f"{dataset.name} has no split {split!r}", remedy=f"Choose one of {', '.join(dataset.splits)}")


def protocol_of(dataset: str, gallery: str = "original") -> Protocol:
    """The validation protocol; `gallery` counts only for a data set with several (METHOD.md, Section 8.2).

    Raises UsageError for an unknown data set, or a gallery that it is not validated with.
    """
    protocols = find_dataset(dataset).protocols
    if len(protocols) == 1:
        return next(iter(protocols.values()))
    if gallery not in protocols:
        raise UsageError(f"{dataset} has no gallery {gallery!r}", remedy=f"Choose one of {', '.join(protocols)}")
    return protocols[gallery]


def require_submission(dataset: str, command: str) -> Submission:
    """The submission that `command` writes. Raises UsageError if it is for another data set."""
    submission = find_dataset(dataset).submission
    if submission is not None and submission.command == command:
        return submission
    fitting = [name for name, known in DATASETS.items() if known.submission and known.submission.command == command]
    raise UsageError(
        f"{command} is for {' and '.join(fitting)}, but this profile's data set is {dataset}",
        where="dataset",
        remedy=f"Set dataset: {fitting[0]} and its root",
    )


def _with_used_gallery(part: QuerySet) -> QuerySet:
    """References and targets in the split file's order; a reference that only another split lists comes last."""
    used = {name: None for triplet in part.triplets for name in (triplet.reference, triplet.target) if name is not None}
    listed = [name for name in part.gallery if name in used]
    return replace(part, gallery=tuple(dict.fromkeys([*listed, *used]))) if part.gallery else part
