"""Folders of images and WebDataset archives as catalogs."""

import json
import os
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from catalog_files import Table, records, rows_of, tables, write_tar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from messages import Messages

from mlcl_cli.catalog.opening import open_source
from mlcl_cli.catalog.source import Shard
from mlcl_cli.errors import DataError, UsageError
from mlcl_cli.images.decode import read_part

NAME = st.text(st.sampled_from("ab.-#é {[*% \n"), min_size=1, max_size=5).filter(lambda name: not name.startswith("."))
PATHS = st.lists(st.lists(NAME, min_size=1, max_size=3).map("/".join), max_size=8).map(
    lambda names: sorted({f"{name}.jpg" for name in names})
)


@settings(max_examples=40, deadline=None)
@given(names=PATHS)
def test_a_folder_gives_its_images_in_the_order_of_their_paths(names: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        if not names:
            with pytest.raises(DataError, match=r"has no images\. Name the folder with your images"):
                rows_of(folder)
            return
        rows = rows_of(folder)
        assert [(row.id, row.product, row.image.name) for row in rows] == [(name, name, name) for name in names]
        assert [row.position for row in rows] == list(range(len(names)))
        assert all(row.image.path == folder / row.id and row.fields == () for row in rows)
        assert open_source(folder).rows_estimate == len(names)
        parts = [rows_of(folder, shard=Shard(index, 3)) for index in range(3)]
        assert sorted((row for part in parts for row in part), key=lambda row: row.position) == rows


def test_hidden_files_are_left_out_and_others_with_a_message(tmp_path: Path) -> None:
    for name in ("a.JPG", ".b.jpg", ".git/c.jpg", "sub.png/d.webp", "products.csv", "e.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    messages = Messages()
    assert [row.id for row in rows_of(tmp_path)] == ["a.JPG", "sub.png/d.webp"]
    what = f"{tmp_path}: left out 2 files with another ending than images have, such as 'e.heic'"
    assert messages.notes.count(what) == 1


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "shop/sub").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a.jpg").touch()
    (tmp_path / "shop/b").symlink_to(tmp_path / "other")
    (tmp_path / "shop/sub/up").symlink_to(tmp_path / "shop")
    (tmp_path / "shop/broken.jpg").symlink_to(tmp_path / "nowhere")
    assert [row.id for row in rows_of(tmp_path / "shop")] == ["b/a.jpg", "broken.jpg"]


def test_a_name_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")).touch()
    with pytest.raises(DataError, match="which is not UTF-8 text"):
        rows_of(tmp_path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=tables(), cut=st.integers(0, 8))
def test_archives_give_the_rows_and_types_of_the_same_table(tmp_path: Path, table: Table, cut: int) -> None:
    members = []
    for row, (own_id, record) in enumerate(zip(table.ids, records(table), strict=True)):
        members.append([(f"./x/{row:04d}.json", json.dumps({"id": own_id, **record}).encode())])
        members[-1] += [(f"x/{row:04d}.{number}.JPG", f"{row} {number}".encode()) for number in range(row % 3 + 1)]
        members[-1].append((f"x/{row:04d}.cls", b"3"))
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    for name, part in (("a.tar", members[:cut]), ("b.tar", members[cut:])):
        write_tar(folder / name, [member for sample in part for member in sample])
    for catalog in (folder, folder / "{a,b}.tar", folder / "*.tar"):
        source = open_source(catalog)
        rows = [row for batch in source.batches(Shard(), 3) for row in batch]
        assert sorted(source.fields, key=str) == sorted(table.schema(), key=str)
        order = [source.fields.names.index(name) for name in table.present()]
        found = [(row.id, row.product, tuple(row.fields[number] for number in order)) for row in rows]
        assert found == [
            (
                f"{own_id}#{number + 1}" if number else own_id,
                own_id,
                tuple(table.fields[name][row] for name in table.present()),
            )
            for row, own_id in enumerate(table.ids)
            for number in range(row % 3 + 1)
        ]
        for row in rows:
            data, _ = read_part(row.image.path, row.image.offset, row.image.size)
            number = int(row.id.rpartition("#")[2]) - 1 if row.id != row.product else 0
            assert data.decode() == f"{table.ids.index(row.product)} {number}"
            assert row.image.name == f"{row.image.path.name}/x/{data.decode()[0]:0>4}.{number}.JPG"


def test_a_sample_is_named_by_its_key_without_an_id(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, [("1.jpg", b"x"), ("1.txt", b"a red shoe"), ("._1.jpg", b""), ("2.png", b"y"), ("2.npy", b"")])
    messages = Messages()
    assert [(row.id, row.place, row.fields) for row in rows_of(path)] == [
        ("1", f"{path}, sample '1'", ("a red shoe",)),
        ("2", f"{path}, sample '2'", (None,)),
    ]
    assert open_source(path).fields == pa.schema({"txt": pa.string()})
    assert f"{path}: members such as '2.npy' are left out" in messages.notes


def test_columns_of_archives_are_fields_of_their_json(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, [("1.jpg", b"x"), ("1.json", b'{"id": 7, "sku": 12, "group": "g"}')])
    (row,) = rows_of(path, {"id": "sku", "product": "group"})
    assert (row.id, row.product, row.fields) == ("12", "g", (7,))
    assert rows_of(path, {"id": "none"})[0].id == "1"
    with pytest.raises(DataError, match="sample '1': has no 'skuu'; did you mean 'sku'"):
        rows_of(path, {"id": "skuu"})
    with pytest.raises(UsageError, match=r"the images of .tar files are their members"):
        open_source(path, {"image": "jpg"})


WRONG: dict[str, tuple[list[tuple[str, bytes]], str]] = {
    "no image": ([("1.json", b"{}")], "{path}, sample '1': has no image"),
    "bad JSON": ([("1.jpg", b""), ("1.json", b"{")], "{path}, sample '1': its .json is not JSON"),
    "no object": ([("1.jpg", b""), ("1.json", b"[]")], "{path}, sample '1': its .json is not an object"),
    "not UTF-8": ([("1.jpg", b""), ("1.txt", b"\xff")], "{path}, member '1.txt': is not UTF-8 text"),
    "repeated key": (
        [("1.jpg", b""), ("2.jpg", b""), ("1.png", b"")],
        "{path}, sample '1': repeats id '1' of {path}, sample '1'. Name a field of ids",
    ),
    "empty": ([], "{path}: has no images. Expected samples such as 0001.jpg and 0001.json"),
}


@pytest.mark.parametrize("case", [*WRONG])
def test_a_defect_of_an_archive_is_one_clear_line(tmp_path: Path, case: str) -> None:
    members, message = WRONG[case]
    write_tar(tmp_path / "a.tar", members)
    with pytest.raises(DataError) as error:
        rows_of(tmp_path / "a.tar")
    assert message.format(path=tmp_path / "a.tar") in str(error.value)


@pytest.mark.parametrize("damage", ["cut", "header", "gzip"])
def test_a_damaged_archive_never_passes_for_a_shorter_one(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w:gz" if damage == "gzip" else "w") as tar:
        for name in ("1.jpg", "2.jpg", "3.jpg"):
            (tmp_path / name).write_bytes(name.encode() * 200)
            tar.add(tmp_path / name, name)
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[:3_900])
    elif damage == "header":
        path.write_bytes(data.replace(b"2.jpg\0", b"2.jpX\0"))
    with pytest.raises(DataError, match="is not a tar file that can be read"):
        rows_of(path)


def test_links_in_archives_are_errors(tmp_path: Path) -> None:
    info = tarfile.TarInfo("1.jpg")
    info.type, info.linkname = tarfile.SYMTYPE, "0.jpg"
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(info)
    with pytest.raises(DataError, match=r"member '1\.jpg': is a link or has holes"):
        rows_of(tmp_path / "a.tar")


def test_ranges_of_archives_are_read_in_order(tmp_path: Path) -> None:
    for number in (8, 9, 10):
        write_tar(tmp_path / f"x-{number:02d}.tar", [(f"{number}.jpg", b"")])
    assert [row.id for row in rows_of(tmp_path / "x-{08..10}.tar")] == ["8", "9", "10"]
    with pytest.raises(DataError, match=r"x-11\.tar: cannot be read \(No such file or directory\)"):
        rows_of(tmp_path / "x-{08..11}.tar")
    with pytest.raises(DataError, match=r"y-\*\.tar: matches no file"):
        open_source(tmp_path / "y-*.tar")
    (tmp_path / "a.jpg").touch()
    with pytest.raises(UsageError, match=r"has archives, such as x-08\.tar, and images, such as a\.jpg"):
        open_source(tmp_path)
