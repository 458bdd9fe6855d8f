"""From the raw Shoes download to the files that the reader takes."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from messages import Messages

from mlcl_cli.atomic_files import write_files
from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.data.definition import Prepared
from mlcl_cli.data.records import Triplet
from mlcl_cli.data.shoes import prepare_shoes
from mlcl_cli.errors import DataError, MachineError

LAYOUTS = ("womens/clogs/{}/", "attributedata/womens_clogs/{}/", "womens_clogs/{}/")
TRAIN = [f"img_womens_clogs_{number}.jpg" for number in (12, 3, 7)]
VAL = [f"img_womens_clogs_{number}.jpg" for number in (851, 512)]
PREPARED = ["split.train.json", "split.val.json", "triplet.train.json", "triplet.val.json"]
Write = Callable[[Path, object], Path]


class Listener:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.advanced = 0
        self.total = 0

    @contextmanager
    def bar(self, _label: str, total: int) -> Iterator[Callable[[int], None]]:
        self.total = total
        yield self._advance

    def _advance(self, count: int) -> None:
        self.advanced += count


def raw(target: str, reference: str, caption: str = "is red") -> dict[str, str]:
    return {"ImageName": target, "ReferenceImageName": reference, "RelativeCaption": caption}


TRIPLETS = [
    raw(VAL[0], VAL[1], "is more of a textured material"),
    raw(TRAIN[0], TRAIN[1], "has a high heel – “Größe”"),
    raw(TRAIN[2], TRAIN[2]),
    raw(TRAIN[0], VAL[0]),
    raw(TRAIN[0], "img_womens_boots_1.jpg"),
]


@pytest.fixture
def annotations(tmp_path: Path, write: Write) -> Path:
    folder = tmp_path / "shoes" / "annotations"
    write(folder / "relative_captions_shoes.json", TRIPLETS)
    (folder / "train_im_names.txt").write_bytes("\r\n".join(["", *TRAIN, "", ""]).encode())
    (folder / "eval_im_names.txt").write_text("\n".join(VAL))
    return folder


def draw_images(folder: Path, layout: str, names: list[str]) -> Path:
    for number, name in enumerate(names):
        path = folder / layout.format(number % 2) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def prepare(annotations: Path, progress: Listener | None = None, root: Path | None = None) -> Prepared:
    folders = {"images": annotations.parent / "images", "annotations": annotations}
    prepared = prepare_shoes(root or annotations.parent, folders, progress or Listener())
    write_files(prepared.contents)
    return prepared


def test_every_layout_is_prepared_and_read_back(annotations: Path, layout: str) -> None:
    draw_images(annotations.parent / "images", layout, TRAIN + VAL)
    listener, messages = Listener(), Messages()
    prepared = prepare(annotations, listener)
    assert prepared.images == {"train": 3, "val": 2}
    assert prepared.triplets == {"train": 2, "val": 1, "dropped": 2}
    assert prepared.target_is_reference == 1
    assert list(prepared.contents) == [annotations / name for name in PREPARED]
    assert not messages.warnings
    assert listener.advanced == listener.total == 5
    paths = {name: layout.format(number % 2) + name for number, name in enumerate(TRAIN + VAL)}
    val = DATASETS["shoes"].load(annotations.parent, "val")
    assert val.sets[0].gallery == tuple(paths[name] for name in VAL)
    assert val.triplets == (Triplet(paths[VAL[1]], paths[VAL[0]], ("is more of a textured material",)),)
    assert all(path.exists() for path in val.paths.values())
    train = DATASETS["shoes"].load(annotations.parent, "train")
    assert [triplet.captions for triplet in train.triplets] == [("has a high heel – “Größe”",), ("is red",)]


def test_the_files_are_readable_and_always_the_same(annotations: Path, tmp_path: Path) -> None:
    draw_images(annotations.parent / "images", LAYOUTS[0], TRAIN + VAL)
    outputs = (tmp_path / "a/annotations", tmp_path / "b/annotations")
    for output in outputs:
        prepare(annotations, root=output.parent)
        assert sorted(path.name for path in output.iterdir()) == PREPARED
    for name in PREPARED:
        content = (outputs[0] / name).read_bytes()
        assert content == (outputs[1] / name).read_bytes()
        assert len(content.splitlines()) == len(json.loads(content)) + 2
    assert "Größe" in (outputs[0] / "triplet.train.json").read_text()


def test_the_first_of_several_files_in_path_order_is_used(annotations: Path) -> None:
    images = annotations.parent / "images"
    draw_images(images, "womens/clogs/9/", TRAIN + VAL)
    draw_images(images, "attributedata/womens_clogs/9/", [TRAIN[1], VAL[0]])
    listener, messages = Listener(), Messages()
    prepare(annotations, listener)
    (warning,) = messages.warnings
    assert warning.startswith(
        "2 listed images are in more than one folder; using the first in path order, such as attributedata"
    )
    train = json.loads((annotations / "split.train.json").read_text())
    assert [Path(path).parts[0] for path in train] == ["womens", "attributedata", "womens"]
    assert listener.advanced == 5


def test_all_missing_images_are_named_at_once_and_nothing_is_written(annotations: Path, tmp_path: Path) -> None:
    draw_images(annotations.parent / "images", LAYOUTS[0], TRAIN[:1])
    with pytest.raises(DataError, match=rf"4 of 5 listed images are missing: {TRAIN[1]}, {TRAIN[2]}, {VAL[0]}"):
        prepare(annotations, root=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_are_followed_unless_broken(annotations: Path) -> None:
    images = draw_images(annotations.parent / "images", LAYOUTS[0], [*TRAIN, VAL[0]])
    (images / "womens" / "linked").symlink_to(images)
    (images / "womens" / "itself").symlink_to(images / "womens" / "itself")
    (images / "womens" / VAL[1]).symlink_to("nowhere")
    with pytest.raises(DataError, match=f"1 of 5 listed images are missing: {VAL[1]}"):
        prepare(annotations)
    (images / "womens" / VAL[1]).unlink()
    (images / "womens" / VAL[1]).symlink_to(images / "womens" / "clogs" / "0" / TRAIN[0])
    prepare(annotations)
    assert json.loads((annotations / "split.val.json").read_text())[1] == f"womens/{VAL[1]}"


def test_a_name_listed_twice_counts_once(annotations: Path) -> None:
    draw_images(annotations.parent / "images", LAYOUTS[0], TRAIN + VAL)
    (annotations / "eval_im_names.txt").write_text("\n".join([*VAL, VAL[0]]))
    listener, messages = Listener(), Messages()
    assert prepare(annotations, listener).images == {"train": 3, "val": 2}
    assert ["eval_im_names.txt repeats names (1);" in warning for warning in messages.warnings] == [True]


def test_a_name_in_both_lists_is_refused(annotations: Path) -> None:
    draw_images(annotations.parent / "images", LAYOUTS[0], TRAIN + VAL)
    (annotations / "eval_im_names.txt").write_text("\n".join([*VAL, TRAIN[0]]))
    with pytest.raises(DataError, match=rf"eval_im_names\.txt: lists images that are also in .* \(1\): {TRAIN[0]}"):
        prepare(annotations)


@pytest.mark.parametrize("file", ["relative_captions_shoes.json", "train_im_names.txt", "eval_im_names.txt"])
@pytest.mark.parametrize("content", [None, b"", b"[]", b"\xff", b"../x.jpg", b"[7]"])
def test_a_damaged_download_is_refused(annotations: Path, file: str, content: bytes | None, tmp_path: Path) -> None:
    draw_images(annotations.parent / "images", LAYOUTS[0], TRAIN + VAL)
    if content is None:
        (annotations / file).unlink()
    else:
        (annotations / file).write_bytes(content)
    with pytest.raises(DataError) as caught:
        prepare(annotations, root=tmp_path / "out")
    assert caught.value.remedy
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "edit",
    [
        lambda rows: rows[1].update(ImageName="../x.jpg"),
        lambda rows: rows[1].update(ReferenceImageName=3),
        lambda rows: rows[1].pop("RelativeCaption"),
    ],
)
def test_a_damaged_triplet_is_named(annotations: Path, edit: Callable[[Any], object]) -> None:
    draw_images(annotations.parent / "images", LAYOUTS[0], TRAIN + VAL)
    path = annotations / "relative_captions_shoes.json"
    rows = json.loads(path.read_text())
    edit(rows)
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"relative_captions_shoes\.json, record 2"):
        prepare(annotations)


def test_a_split_without_triplets_is_refused(annotations: Path, write: Write) -> None:
    draw_images(annotations.parent / "images", LAYOUTS[0], TRAIN + VAL)
    write(annotations / "relative_captions_shoes.json", TRIPLETS[:1])
    with pytest.raises(DataError, match="no triplet has both of its images in train"):
        prepare(annotations)


def test_a_missing_image_folder_is_named(annotations: Path) -> None:
    with pytest.raises(DataError, match=r"images: does not exist\. Set roots\.shoes"):
        prepare(annotations)


def test_an_output_that_cannot_be_written_is_an_error(annotations: Path, tmp_path: Path) -> None:
    draw_images(annotations.parent / "images", LAYOUTS[0], TRAIN + VAL)
    (tmp_path / "out").touch()
    with pytest.raises(MachineError, match="cannot be written"):
        prepare(annotations, root=tmp_path / "out")
