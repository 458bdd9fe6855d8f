"""Data of one's own: rows become triplets, splits share no image, and what is wrong has its line."""

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import Messages

from mlcl_cli.data.own_data import own_dataset, own_protocol
from mlcl_cli.data.own_tables import Columns, Components, Tables
from mlcl_cli.data.records import Split
from mlcl_cli.errors import DataError

EDGES = st.lists(st.lists(st.sampled_from("abcdefghijklmno"), min_size=2, max_size=3), min_size=2, max_size=25)


def tables(
    folder: Path, text: str | None = None, *, per_category: bool = False, **columns: str | tuple[str, ...]
) -> Tables:
    """A data set in `folder`, whose triplets are `text`."""
    (folder / "photos").mkdir(exist_ok=True)
    if text is not None:
        (folder / "t.csv").write_text(text)
    gallery = folder / "g.csv"
    return Tables(
        name="hats",
        images=folder / "photos",
        triplets=folder / "t.csv",
        gallery=gallery if gallery.exists() else None,
        columns=Columns(**columns, chosen=frozenset(columns)),  # type: ignore[arg-type]
        val_fraction=0.3,
        per_category=per_category,
    )


def load(described: Tables, split: str) -> Split:
    protocol = own_protocol(
        "hats",
        recall_at=(1,),
        map_at=(),
        exclude_reference=True,
        per_category=described.per_category,
        captions="joined",
    )
    return own_dataset(described, protocol).load(described.triplets, split)


def refusal(described: Tables, split: str = "val") -> str:
    with pytest.raises(DataError) as error:
        load(described, split)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_rows_become_triplets_and_further_targets(tmp_path: Path) -> None:
    targets = '"[""x//b.png"", ""c.png"", ""x/b.png""]"'
    text = f"reference,target,caption,split\n./a.png,{targets},is red,train\nd.png,a.png,,dev\n"
    train, val = (load(tables(tmp_path, text), split) for split in ("train", "val"))
    assert [(t.reference, t.target, t.other_targets, t.captions, t.row) for t in train.triplets] == [
        ("a.png", "x/b.png", (), ("is red",), 2),
        ("a.png", "c.png", (), ("is red",), 2),
    ]
    assert [(t.targets(), t.captions, t.row, t.query_id) for t in val.triplets] == [(("a.png",), ("",), 3, "1")]
    assert [part.gallery for part in (*train.sets, *val.sets)] == [(), ("a.png", "x/b.png", "c.png", "d.png")]
    assert train.paths["x/b.png"] == tmp_path / "photos/x/b.png"
    assert train.unit == "line"


def test_in_validation_a_query_keeps_all_its_targets(tmp_path: Path) -> None:
    text = "reference,tgt1,tgt2,text1,text2,split\na,b,c,is red,is long,val\na,b,,is red,,val\n"
    split = load(tables(tmp_path, text, target=("tgt1", "tgt2"), caption=("text1", "text2")), "val")
    assert [(t.targets(), t.captions, t.query_text) for t in split.triplets] == [
        (("b", "c"), ("is red", "is long"), "is red and is long"),
        (("b",), ("is red",), "is red"),
    ]


def test_categories_have_their_own_galleries(tmp_path: Path) -> None:
    text = "reference,target,caption,split,category\na,b,x,val,coat\nc,d,x,val,hat\ne,f,x,train,coat\n"
    split = load(tables(tmp_path, text, per_category=True), "val")
    assert {part.name: part.gallery for part in split.sets} == {"coat": ("a", "b", "e", "f"), "hat": ("c", "d")}


def test_a_category_without_validation_triplets_is_named(tmp_path: Path) -> None:
    text = "reference,target,caption,split,category\na,b,x,val,coat\ne,f,x,train,hat\n"
    messages = Messages()
    load(tables(tmp_path, text, per_category=True), "val")
    assert "no triplets in val, and so no part in the metrics: hat" in messages.warnings[-1]


def test_a_table_of_gallery_images_is_the_gallery(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("image,split\nz,val\n./b,val\nb,validation\ne,train\n")
    text = "reference,target,caption,split\na,b,x,val\ne,f,x,train\n"
    described = tables(tmp_path, text)
    assert load(described, "val").sets[0].gallery == ("z", "b")
    assert load(described, "train").sets[0].gallery == ()


def naive_components(edges: Sequence[Sequence[str]]) -> set[frozenset[str]]:
    parts = [frozenset(edge) for edge in edges]
    while touching := next(((a, b) for a, b in itertools.combinations(parts, 2) if a & b), None):
        parts = [part for part in parts if part not in touching] + [touching[0] | touching[1]]
    return set(parts)


@given(EDGES)
def test_components_are_those_of_a_naive_search(edges: list[list[str]]) -> None:
    parts = Components()
    for edge in edges:
        parts.join(edge)
    by_root: dict[str, set[str]] = {}
    for name in itertools.chain(*edges):
        by_root.setdefault(parts.root(name), set()).add(name)
    assert set(map(frozenset, by_root.values())) == naive_components(edges)
    sizes = {root: sum(parts.root(edge[0]) == root for edge in edges) for root in by_root}
    assert parts.sizes == sizes


@given(EDGES, st.floats(0.05, 0.9), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_the_drawn_split_is_whole_components_whatever_the_order(
    edges: list[list[str]], fraction: float, draw: random.Random
) -> None:
    drawn = []
    for order in (edges, draw.sample(edges, len(edges))):
        parts = Components()
        for edge in order:
            parts.join(edge)
        held_out, share = parts.held_out(fraction)
        val = [edge for edge in edges if parts.root(edge[0]) in held_out]
        drawn.append(val)
        assert share == len(val) / len(edges)
        rest = [edge for edge in edges if edge not in val]
        assert set().union(*val).isdisjoint(set().union(*rest))
        assert bool(val) == bool(val and rest) == (len(naive_components(edges)) > 1)
        smallest = min(sum(set(edge) <= part for edge in edges) for part in naive_components(edges))
        assert len(val) <= max(fraction * len(edges), smallest)
    assert drawn[0] == drawn[1]


def test_one_giant_component_leaves_the_small_ones_and_says_so(tmp_path: Path) -> None:
    rows = [f"hub,{number},x" for number in range(99)] + ["p,q,x"]
    messages = Messages()
    split = load(tables(tmp_path, "reference,target,caption\n" + "\n".join(rows)), "val")
    assert [t.reference for t in split.triplets] == ["p"]
    assert "1.0% of the triplets are for validation: datasets.hats.val_fraction is 0.3" in messages.warnings[-1]


HEADER = "reference,target,caption,split"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t.csv: is empty"),
        (HEADER, "t.csv: has no rows"),
        ("reference,target,caption", "t.csv: has no rows"),
        ("ref,target,caption\na,b,c", "has no column 'reference'; its columns are 'ref', 'target', 'caption'. Set d"),
        (f"{HEADER}\n,b,x,val", "line 2: has no reference image"),
        (f'{HEADER}\n"[""a"", ""b""]",b,x,val', "line 2: has several reference images"),
        (f"{HEADER}\na, ,x,val", "line 2: has no target image"),
        (f"{HEADER}\na,b,x,vla", "line 2: split must be train, val or test, not 'vla'"),
        (f"{HEADER}\na,b,x,", "line 2: split must be train, val or test, not an empty value"),
        (f"{HEADER}\n\na\\b,b,x,val", r"line 3: image 'a\\b' has a backslash. Write it relative to"),
        (f"{HEADER}\n/a,b,x,val", "line 2: '/a' is not a valid image name"),
        (f"{HEADER}\n../a,b,x,val", "line 2: '../a' is not a valid image name"),
        (f"{HEADER}\na,b,x,train", "t.csv: has no triplets in val. Give some rows the split val"),
        (f"{HEADER},id\na,b,x,val,7\n\na,c,x,val,7", "line 4: id '7' is already used by line 2"),
        (f"{HEADER},id\na,b,x,val,", "line 2: has no id"),
        ("reference,target,caption\na,b,x\nb,c,x", "cannot be split: all of its triplets are connected by shared"),
        ("reference,target,caption\na,,x\nb,c,x", "line 2: has no target image"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_one_line_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(tables(tmp_path, text))


def test_columns_that_the_profile_names_must_exist(tmp_path: Path) -> None:
    text = f"{HEADER}\na,b,x,val\n"
    assert "has no column 'fold'" in refusal(tables(tmp_path, text, split="fold"))
    assert "has no column 'category'" in refusal(tables(tmp_path, text, per_category=True))
    assert "cannot be split" in refusal(tables(tmp_path, text, split="none"))


@pytest.mark.parametrize(
    ("gallery", "message"),
    [
        ("image\nb", "t.csv: its triplets in val name 1 image that is not listed in {}: 'c' (line 3). Fix one of"),
        ("image,split\nb,val\nc,train", "name 1 image that is not listed in {} with the split val: 'c' (line 3)"),
        ("image,split\na,train\nb,val\nc,val", "not listed in {} with the split val: 'a' (line 2)"),
        ("image\n\n../b", "g.csv, line 3: '../b' is not a valid image name"),
        ('image,split\n"",val', "g.csv, line 2: has no image"),
        ("image,split\nb,vla", "g.csv, line 2: split must be train, val or test, not 'vla'"),
        ("image", "g.csv: has no rows"),
        ("img\nb", "g.csv: has no column 'image'"),
    ],
)
def test_a_wrong_gallery_is_one_line_with_its_place(tmp_path: Path, gallery: str, message: str) -> None:
    (tmp_path / "g.csv").write_text(gallery)
    described = tables(tmp_path, f"{HEADER}\na,b,x,val\na,c,x,val\n")
    assert message.format(tmp_path / "g.csv") in refusal(described)


def test_a_category_missing_from_the_gallery_names_its_targets(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("image,category\nb,coat\nd,coat\n")
    text = f"{HEADER},category\na,b,x,val,coat\nc,d,x,val,hat\n"
    message = refusal(tables(tmp_path, text, per_category=True))
    assert "1 image that is not listed in" in message
    assert "with the triplet's category: 'd' (line 3)" in message


def test_a_triplet_across_splits_of_the_gallery_is_an_error_in_train_too(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("image,split\na,val\nb,train\n")
    message = refusal(tables(tmp_path, f"{HEADER}\na,b,x,train\n"), "train")
    assert "its triplets in train name 1 image that is not listed in" in message


def test_the_folder_of_images_must_exist(tmp_path: Path) -> None:
    described = tables(tmp_path, f"{HEADER}\na,b,x,val\n")
    (tmp_path / "photos").rmdir()
    assert (
        refusal(described)
        == f"{tmp_path / 'photos'}: does not exist. Set datasets.hats.images to the folder of the images"
    )
