"""Fashion200k, with the queries of TIRG (DATASETS.md, Section 7)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

from pydantic import TypeAdapter

from mlcl_cli.data.annotations import FIX_FILE, ImageName, OnDefect, Text, read_text, validated
from mlcl_cli.data.definition import TRAIN, DataSet, Folders, Published
from mlcl_cli.data.layout import find_root, make_split
from mlcl_cli.data.protocols import CaptionRule, Protocol, recall_mean
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.errors import DataError

NAME = "fashion200k"
CATEGORIES = ("dress", "jacket", "pants", "skirt", "top")
LABELS = {"train": "train", "val": "test"}  # what the label files call each split
MARKS = str.maketrans({".": "dotmark", "?": "questionmark", "&": "andmark", "*": "starmark"})
REMEDY = "Set roots.fashion200k to the folder that contains labels/, women/ and test_queries.txt"


def read(root: Path, split: str, _folders: Folders, on_defect: OnDefect) -> Split:
    """One query set; an image's name is its path below the root. The gallery is every test image, empty in train.

    In val, the targets of a query are all images that have its target's caption. In train, each image that has one is
    paired with one target, drawn once and always the same.
    Raises DataError if a label file or test_queries.txt is missing, damaged or contradictory.
    """
    root = find_root(root, NAME, ("labels",), REMEDY)
    captions: dict[str, str] = {}
    for category in CATEGORIES:
        _read_labels(root / "labels" / f"{category}_{LABELS[split]}_detect_all.txt", captions, on_defect)
    if split == TRAIN:
        part = QuerySet(NAME, tuple(_drawn(captions)), ())
        if not part.triplets:
            raise DataError("no two captions of train differ in one word", where=root / "labels", remedy=FIX_FILE)
    else:
        part = QuerySet(NAME, _read_queries(root / "test_queries.txt", captions, on_defect), tuple(captions))
    return make_split(NAME, split, [part], lambda name: (root / name,))


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a file that are not blank, and the place of each."""
    lines = [(number, line) for number, line in enumerate(read_text(path, REMEDY).split("\n"), 1) if line.strip()]
    if not lines:
        raise DataError("is empty", where=path, remedy=FIX_FILE)
    return ((line, f"{path}, line {number}") for number, line in lines)


def _read_labels(path: Path, captions: dict[str, str], on_defect: OnDefect) -> None:
    """Add the caption of every image that the file lists. An image may be listed again, with the same caption."""
    names, texts = TypeAdapter[str](ImageName), TypeAdapter[str](Text)
    for line, where in _lines(path):
        fields = line.split("\t")
        try:
            if len(fields) < 3:
                what = f"expected a path, a score and a caption, separated by tabs, got {len(fields)} of them"
                raise DataError(what, where=where, remedy=FIX_FILE)
            name, caption = validated(names, fields[0], where), validated(texts, fields[2], where)
            caption = caption.strip().translate(MARKS)
            if captions.setdefault(name, caption) != caption:
                what = f"image {name!r} was listed before with the caption {captions[name]!r}"
                raise DataError(what, where=where, remedy=FIX_FILE)
        except DataError as error:
            on_defect(error)


def _read_queries(path: Path, captions: Mapping[str, str], on_defect: OnDefect) -> tuple[Triplet, ...]:
    images = _images_by_caption(captions)
    triplets = []
    for line, where in _lines(path):
        pair = line.split()
        try:
            if len(pair) != 2:
                raise DataError(f"expected 2 images, got {len(pair)}", where=where, remedy=FIX_FILE)
            for name in pair:
                if not captions.get(name):
                    problem = "has no caption" if name in captions else "is in no label file of the test split"
                    raise DataError(f"image {name!r} {problem}", where=where, remedy=FIX_FILE)
            reference, target = pair
            others = tuple(name for name in images[captions[target]] if name not in pair)
            text = modification(captions[reference], captions[target])
            triplets.append(Triplet(reference, target, (text,), other_targets=others))
        except DataError as error:
            on_defect(error)
    return tuple(triplets)


def _images_by_caption(captions: Mapping[str, str]) -> dict[str, list[str]]:
    images: dict[str, list[str]] = {}
    for name, caption in captions.items():
        images.setdefault(caption, []).append(name)
    return images


def modification(source: str, target: str) -> str:
    """ "replace X with Y": the first word of each caption that the other does not have, else its last word."""
    ours, theirs = source.split(), target.split()
    x = next((word for word in ours if word not in theirs), ours[-1])
    y = next((word for word in theirs if word not in ours), theirs[-1])
    return f"replace {x} with {y}"


def _siblings(captions: Mapping[str, None]) -> dict[str, list[list[str]]]:
    """For each caption, the groups of captions that a word less makes equal; one without such a group is left out.

    As in TIRG, a word is taken out wherever its letters occur, even within other words.
    """
    groups: dict[str, dict[str, None]] = {}
    for caption in captions:
        for word in caption.split():
            shorter = caption.replace(word, "").replace("  ", " ").strip()
            groups.setdefault(shorter, {})[caption] = None
    siblings: dict[str, list[list[str]]] = {}
    for group in groups.values():
        if len(group) > 1:
            members = [*group]
            for caption in members:
                siblings.setdefault(caption, []).append(members)
    return siblings


def _drawn(captions: Mapping[str, str]) -> Iterator[Triplet]:
    """A triplet for each image whose caption can be modified, with a target drawn as TIRG draws one at every step."""
    images = _images_by_caption(captions)
    siblings = _siblings(dict.fromkeys(captions.values()))
    draw = Random(0)
    for name, caption in captions.items():
        if caption not in siblings:
            continue
        drawn = caption
        while drawn == caption:
            drawn = draw.choice(draw.choice(siblings[caption]))
        yield Triplet(name, draw.choice(images[drawn]), (modification(caption, drawn),))


REPLACE = CaptionRule(
    "replace",
    'The query text is "replace X with Y", X and Y being the first words in which the captions of reference and target '
    "differ.",
    lambda captions: captions,
)
FASHION200K = DataSet(
    name=NAME,
    root="data/fashion200k",
    read=read,
    splits=tuple(LABELS),
    protocols=(
        Protocol(
            name="fashion200k",
            recall_at=(1, 10, 50),
            exclude_reference=True,
            bests=("recall_mean",),
            summary=recall_mean,
            any_target=True,
            gallery_words="every test image, in the order of the label files dress, jacket, pants, skirt and top",
            target_words="Every image that has the target's caption is a target.",
            captions=REPLACE,
            systems="TIRG, VAL, CLVC-Net, DQU-CIR",
        ),
    ),
    published={"train": Published(106_464), "val": Published(33_480, 29_789)},
)
