"""Shoes, as `mlcl prepare-shoes` writes it (DATASETS.md, Section 3.2)."""

from pathlib import Path

from mlcl_cli.data.annotations import OnDefect, read_names, read_records
from mlcl_cli.data.definition import DataSet, Folders, Preparation, Published
from mlcl_cli.data.layout import find_root, is_folder, keep_listed, make_split
from mlcl_cli.data.prepare_shoes import ShoesRecord, prepare_shoes
from mlcl_cli.data.protocols import SHOES as PROTOCOL
from mlcl_cli.data.records import QuerySet, Split, Triplet

NAME = "shoes"
SPLITS = ("train", "val")
REMEDY = "Set roots.shoes to the folder that holds annotations/, and run mlcl prepare-shoes once"


def read(root: Path, split: str, folders: Folders, on_defect: OnDefect) -> Split:
    """One query set; an image's name is its path below the image folder. The gallery is the whole split, none in train.

    Where the raw images (`folders`) are not, they are looked for beside the prepared annotations.
    Raises DataError if the prepared annotations are missing, damaged or contradictory.
    """
    root = find_root(root, "shoes", ("annotations",), REMEDY)
    listing, source = (root / "annotations" / f"{kind}.{split}.json" for kind in ("split", "triplet"))
    names = read_names(listing, remedy=REMEDY)
    triplets = read_records(source, ShoesRecord, _triplet, remedy=REMEDY, on_defect=on_defect)
    triplets = keep_listed(source, triplets, Triplet.images, set(names), str(listing), on_defect)
    raw = folders.get("images")
    images = raw if raw is not None and is_folder(raw) else root / "images"
    part = QuerySet(NAME, triplets, () if split == "train" else names)
    return make_split(NAME, split, [part], lambda name: (images / name,))


def _triplet(record: ShoesRecord, _where: str) -> Triplet:
    return Triplet(record.reference, record.target, (record.caption,))


SHOES = DataSet(
    name=NAME,
    root="data/shoes",
    read=read,
    splits=SPLITS,
    protocols={"original": PROTOCOL},
    published={"train": Published(8_990), "val": Published(1_761, 4_658)},
    folders={"images": "images", "annotations": "annotations"},
    preparation=Preparation(
        command="prepare-shoes",
        help="Turn the raw Shoes download into split and triplet files.",
        files=tuple(f"annotations/{kind}.{split}.json" for kind in ("split", "triplet") for split in SPLITS),
        prepare=prepare_shoes,
    ),
)
