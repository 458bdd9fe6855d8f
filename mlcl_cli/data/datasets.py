"""The data sets that mlcl knows, and the one way to read them. To add one, write its file and list it here."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from mlcl_cli.data.annotations import OnDefect, refuse
from mlcl_cli.data.cirr import CIRR
from mlcl_cli.data.definition import DataSet, Submission
from mlcl_cli.data.fashioniq import FASHIONIQ
from mlcl_cli.data.protocols import Protocol
from mlcl_cli.data.records import QuerySet, Split
from mlcl_cli.data.shoes import SHOES
from mlcl_cli.errors import UsageError

DATASETS: dict[str, DataSet] = {dataset.name: dataset for dataset in (FASHIONIQ, SHOES, CIRR)}
# Every gallery that some data set is validated with.
GALLERIES = tuple(dict.fromkeys(gallery for dataset in DATASETS.values() for gallery in dataset.protocols))


def load_split(
    dataset: str,
    root: Path,
    split: str,
    *,
    gallery: str = "original",
    folders: Mapping[str, Path] = {},
    on_defect: OnDefect = refuse,
) -> Split:
    """One split of a data set; `folders` are those of `DataSet.folders` that are not where the download has them.

    Raises UsageError for an unknown data set, split or gallery, DataError for everything that is wrong on disk. The
    error of a single record goes to `on_defect`; if that returns, the record is left out.
    """
    protocol = protocol_of(dataset, gallery)
    require_split(DATASETS[dataset], split)
    loaded = DATASETS[dataset].read(root, split, folders, on_defect)
    if protocol.used_images_only:
        return replace(loaded, sets=tuple(_with_used_gallery(part) for part in loaded.sets))
    return loaded


def require_split(dataset: DataSet, split: str) -> None:
    """Raise UsageError if the data set has no such split."""
    _require(split, dataset.splits, f"{dataset.name} has no split")


def protocol_of(dataset: str, gallery: str = "original") -> Protocol:
    """The validation protocol; `gallery` counts only for a data set with several (METHOD.md, Section 8.2).

    Raises UsageError for an unknown data set, or a gallery that it is not validated with.
    """
    _require(dataset, DATASETS, "unknown data set")
    protocols = DATASETS[dataset].protocols
    if len(protocols) == 1:
        return next(iter(protocols.values()))
    _require(gallery, protocols, f"{dataset} has no gallery")
    return protocols[gallery]


def require_submission(dataset: str, command: str) -> Submission:
    """The submission that `command` writes. Raises UsageError if it is for another data set."""
    submissions = {name: known.submission for name, known in DATASETS.items() if known.submission}
    fitting = {name: submission for name, submission in submissions.items() if submission.command == command}
    if dataset not in fitting:
        raise UsageError(
            f"{command} is for {' and '.join(fitting)}, but this profile's data set is {dataset}",
            where="dataset",
            remedy=f"Set dataset: {next(iter(fitting))} and its root",
        )
    return fitting[dataset]


def _require(name: str, known: Iterable[str], problem: str) -> None:
    if name not in known:
        raise UsageError(f"{problem} {name!r}", remedy=f"Choose one of {', '.join(known)}")


def _with_used_gallery(part: QuerySet) -> QuerySet:
    """References and targets in the split file's order; a reference that only another split lists comes last."""
    used = [name for triplet in part.triplets for name in triplet.pair()]
    listed = set(part.gallery).intersection(used)
    gallery = dict.fromkeys([*(name for name in part.gallery if name in listed), *used])
    return replace(part, gallery=tuple(gallery)) if part.gallery else part
