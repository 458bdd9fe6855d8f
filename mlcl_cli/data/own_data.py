"""Data sets of one's own: a folder of images, and tables of triplets and gallery images (DATASETS.md, Section 6)."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from mlcl_cli.data.annotations import OnDefect
from mlcl_cli.data.definition import TRAIN, DataSet, Folders
from mlcl_cli.data.layout import is_folder, make_split
from mlcl_cli.data.own_tables import VAL, Gallery, Tables, TripletTable
from mlcl_cli.data.protocols import CaptionRule, Protocol, averages, recall_mean
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.errors import DataError, some

logger = logging.getLogger(__name__)


def joined(captions: tuple[str, ...]) -> tuple[str, ...]:
    """All captions as one text, then each alone."""
    return (" and ".join(caption.strip(".?, ") for caption in captions), *captions) if len(captions) > 1 else captions


CAPTIONS: Mapping[str, CaptionRule] = {
    "joined": CaptionRule("joined", 'The query text is all captions of a triplet, joined by "and".', joined),
    "alternatives": CaptionRule("alternatives", "The query text is a triplet's first caption.", lambda given: given),
}


def own_protocol(
    name: str,
    *,
    recall_at: tuple[int, ...],
    map_at: tuple[int, ...],
    exclude_reference: bool,
    per_category: bool,
    captions: str,
    gallery: Path | None = None,
) -> Protocol:
    """The protocol of one's own data. Its name tells apart what makes scores incomparable.

    `gallery` is the table of gallery images, if there is one.
    """
    source = "the table of triplets names" if gallery is None else f"{gallery.name} lists for the split"
    own = " of the query's category" if per_category else ""
    parts = [name, *(["by-category"] if per_category else []), *([] if captions == "joined" else [captions])]
    parts.append(f"{'noref' if exclude_reference else 'withref'}@{','.join(map(str, recall_at))}")
    return Protocol(
        name="-".join(parts),
        recall_at=recall_at,
        map_at=map_at,
        any_target=True,
        exclude_reference=exclude_reference,
        bests=("average/recall" if per_category else "recall_mean",),
        summary=averages if per_category else recall_mean,
        gallery_words=f"every image{own} that {source}, in the order of the table",
        captions=CAPTIONS[captions],
    )


def own_dataset(tables: Tables, protocol: Protocol) -> DataSet:
    """The data set that the tables describe; its root is the table of triplets."""
    return DataSet(
        name=tables.name,
        root=str(tables.triplets),
        read=partial(read, tables),
        splits=(TRAIN, VAL),
        protocols=(protocol,),
        images_remedy=f"Set {tables.key('images')} to the folder that the names in the table start at",
    )


def read(tables: Tables, _root: Path, split: str, _folders: Folders, on_defect: OnDefect) -> Split:
    """One query set, or one for each category; the galleries are empty in train.

    A gallery is what the table of gallery images lists for the split, else every image that a triplet names. In train,
    each further target of a query makes one more triplet. Raises DataError if a table or the folder of images is
    missing, if a table is damaged or contradictory, or if the split would be empty.
    """
    if not is_folder(tables.images):
        what = "is not a folder" if tables.images.exists() else "does not exist"
        raise DataError(what, where=tables.images, remedy=f"Set {tables.key('images')} to the folder of the images")
    source = TripletTable(tables)
    split_of = source.splits(on_defect)
    gallery = Gallery.read(tables.gallery, tables) if tables.gallery else None
    named: dict[str, dict[str, None]] = {}
    triplets: dict[str, list[Triplet]] = {}
    strays: dict[str, int] = {}
    for row in source.rows(on_defect):
        category = row.category if tables.per_category else tables.name
        named.setdefault(category, {}).update(dict.fromkeys((row.reference, *row.targets)))
        if split_of(row) != split:
            continue
        if gallery and (names := gallery.strays(row, split, category)):
            strays = dict.fromkeys(names, row.number) | strays
            continue
        triplets.setdefault(category, []).extend(row.triplets(expand=split == TRAIN))
    if gallery and strays:
        on_defect(_not_listed(strays, gallery, tables, split, source.table.unit))
    if not triplets:
        remedy = f"Give some rows the split {split}" if source.has_splits else "Add a column `split` with train and val"
        raise DataError(f"has no triplets in {split}", where=tables.triplets, remedy=remedy)
    if split == VAL:
        _warn_of_odd_validation(tables, split_of.share, named.keys() - triplets.keys())
    sets = [
        QuerySet(category, tuple(found), _gallery_names(gallery, named, category, split))
        for category, found in triplets.items()
    ]
    files = make_split(tables.name, split, sets, lambda name: (tables.images / name,))
    return replace(files, unit=source.table.unit)


def _not_listed(strays: Mapping[str, int], gallery: Gallery, tables: Tables, split: str, unit: str) -> DataError:
    first = some([f"{name!r} ({unit} {number})" for name, number in strays.items()])
    conditions = [f"the split {split}"] * gallery.has_splits + ["the triplet's category"] * tables.per_category
    where = f"listed in {gallery.path}{' with ' * bool(conditions)}{' and '.join(conditions)}"
    are = "image that is" if len(strays) == 1 else "images that are"
    what = f"its triplets in {split} name {len(strays):,} {are} not {where}: {first}"
    return DataError(what, where=tables.triplets, remedy="Fix one of the tables")


def _warn_of_odd_validation(tables: Tables, share: float, missing: Collection[str]) -> None:
    """Say how far the drawn split is from `val_fraction`, and which categories have no queries."""
    if share and not tables.val_fraction / 2 <= share <= 2 * tables.val_fraction:
        why = f"{tables.key('val_fraction')} is {tables.val_fraction:g}, but triplets that share images stay together"
        logger.warning(f"{tables.triplets}: {share:.1%} of the triplets are for validation: {why}")
    if missing:
        names = some(sorted(missing))
        logger.warning(f"{tables.triplets}: no triplets in val, and so no part in the metrics: {names}")


def _gallery_names(
    gallery: Gallery | None, named: Mapping[str, Mapping[str, None]], category: str, split: str
) -> tuple[str, ...]:
    if split == TRAIN:
        return ()
    return gallery.of(category, split) if gallery else tuple(named[category])
