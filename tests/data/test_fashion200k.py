"""Fashion200k's files, against TIRG's functions written again from its description, and every defect."""

from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.data.fashion200k import CATEGORIES
from mlcl_cli.errors import DataError

FASHION200K = DATASETS["fashion200k"]
DRESSES = "labels/dress_test_detect_all.txt"
FILES = (DRESSES, "labels/top_test_detect_all.txt", "test_queries.txt")
FILES_ALLOWED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def tirg_caption(text: str) -> str:
    text = text.strip()
    for mark, word in ((".", "dotmark"), ("?", "questionmark"), ("&", "andmark"), ("*", "starmark")):
        text = word.join(text.split(mark))
    return text


def tirg_modification(source: str, target: str) -> str:
    """The loops leave their last word where none differs."""
    x = y = ""
    for x in source.split():
        if target.split().count(x) == 0:
            break
    for y in target.split():
        if source.split().count(y) == 0:
            break
    return f"replace {x} with {y}"


def tirg_targets(captions: list[str]) -> dict[str, set[str]]:
    """For each caption, those that share a parent with it."""
    children = defaultdict(set)
    for caption in captions:
        for word in caption.split():
            children[caption.replace(word, "").replace("  ", " ").strip()].add(caption)
    return {
        caption: {other for group in children.values() if caption in group for other in group} - {caption}
        for caption in captions
    }


def write(root: Path, split: str, captions: list[str], queries: list[tuple[int, int]]) -> list[str]:
    """Images with those captions, spread over the categories; their names in the order of the label files."""
    (root / "labels").mkdir(parents=True, exist_ok=True)
    names = []
    for number, category in enumerate(CATEGORIES):
        own = captions[number :: len(CATEGORIES)]
        lines = [f"women/{category}/{place}.jpeg\t0.5\t {caption}\n" for place, caption in enumerate(own)]
        (root / f"labels/{category}_{split}_detect_all.txt").write_text("".join(lines))
        names += [line.split("\t")[0] for line in lines]
    (root / "test_queries.txt").write_text("".join(f"{names[a]} {names[b]}\n" for a, b in queries))
    return names


WORDS = st.sampled_from(["red", "re", "d", "blue", "no.", "a&b", "dress", "?", "*x", "dress."])
CAPTIONS = st.lists(st.lists(WORDS, min_size=1, max_size=4).map(" ".join), min_size=5, max_size=15)


@FILES_ALLOWED
@given(data=st.data(), captions=CAPTIONS)
def test_queries_and_hits_are_those_of_tirg(tmp_path: Path, data: st.DataObject, captions: list[str]) -> None:
    index = st.integers(0, len(captions) - 1)
    queries = data.draw(st.lists(st.tuples(index, index), min_size=1, max_size=6))
    names = write(tmp_path, "test", captions, queries)
    split = FASHION200K.load(tmp_path, "val")
    (part,) = split.sets
    assert part.gallery == tuple(names)
    ordered = [caption for number in range(len(CATEGORIES)) for caption in captions[number :: len(CATEGORIES)]]
    of = {name: tirg_caption(caption) for name, caption in zip(names, ordered, strict=True)}
    for triplet, (source, target) in zip(part.triplets, queries, strict=True):
        assert triplet.pair() == (names[source], names[target])
        assert triplet.query_text == tirg_modification(of[names[source]], of[names[target]])
        hits = {name for name in names if of[name] == of[names[target]]}
        assert {*triplet.targets()} - {triplet.reference} == hits - {triplet.reference}
        assert triplet.target == names[target]


@FILES_ALLOWED
@given(captions=CAPTIONS)
def test_training_pairs_are_among_those_of_tirg(tmp_path: Path, captions: list[str]) -> None:
    names = write(tmp_path, "train", captions, [])
    ordered = [caption for number in range(len(CATEGORIES)) for caption in captions[number :: len(CATEGORIES)]]
    of = {name: tirg_caption(caption) for name, caption in zip(names, ordered, strict=True)}
    allowed = tirg_targets([*of.values()])
    modifiable = [name for name in names if allowed[of[name]]]
    if not modifiable:
        with pytest.raises(DataError, match="no two captions of train differ in one word"):
            FASHION200K.load(tmp_path, "train")
        return
    split = FASHION200K.load(tmp_path, "train")
    assert [triplet.reference for triplet in split.triplets] == modifiable
    assert split.sets[0].gallery == ()
    for triplet in split.triplets:
        source, target = of[triplet.reference], of[triplet.target or ""]
        assert target in allowed[source]
        assert triplet.captions == (tirg_modification(source, target),)
    assert FASHION200K.load(tmp_path, "train") == split


def test_val_ranks_all_test_images_and_counts_every_image_with_the_targets_caption(fashion200k: Path) -> None:
    split = FASHION200K.load(fashion200k, "val")
    (part,) = split.sets
    assert len(part.gallery) == 7
    first, second = part.triplets
    assert first.query_text == "replace black with red"
    assert first.targets() == ("women/dresses/test/2_0.jpeg", "women/dresses/test/2_1.jpeg")
    assert second.query_text == "replace top with skirt"
    assert [triplet.query_id for triplet in part.triplets] == ["0", "1"]
    assert split.paths[first.reference] == fashion200k / first.reference


def test_an_image_listed_again_with_its_caption_counts_once(fashion200k: Path) -> None:
    expected = FASHION200K.load(fashion200k, "val")
    path = fashion200k / DRESSES
    path.write_text(path.read_text() * 2)
    assert FASHION200K.load(fashion200k, "val") == expected


@pytest.mark.parametrize("file", FILES)
def test_line_ends_of_windows_and_a_byte_order_mark_are_accepted(fashion200k: Path, file: str) -> None:
    expected = FASHION200K.load(fashion200k, "val")
    path = fashion200k / file
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert FASHION200K.load(fashion200k, "val") == expected


@pytest.mark.parametrize("file", FILES)
def test_a_missing_or_empty_file_is_named(fashion200k: Path, file: str) -> None:
    path = fashion200k / file
    path.write_text("\n \n")
    with pytest.raises(DataError, match=f"{path.name}: is empty"):
        FASHION200K.load(fashion200k, "val")
    path.write_bytes(b"\xff")
    with pytest.raises(DataError, match=rf"{path.name}: is not UTF-8 text \(byte 0\)"):
        FASHION200K.load(fashion200k, "val")
    path.unlink()
    with pytest.raises(DataError, match=rf"{path.name}: does not exist\. Set roots\.fashion200k"):
        FASHION200K.load(fashion200k, "val")


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        (DRESSES, "women/x.jpeg 0.5 black dress", "line 4: expected a path, a score and a caption, separated by tabs"),
        (DRESSES, "../x.jpeg\t0.5\tblack", "line 4: '../x.jpeg' is not a valid image name"),
        (DRESSES, "\t0.5\tblack", "line 4: '' is not a valid image name"),
        (DRESSES, "women/dresses/test/2_0.jpeg\t0.5\tpink", "was listed before with the caption 'red dress no"),
        ("test_queries.txt", "women/tops/test/1_0.jpeg", "line 3: expected 2 images, got 1"),
        ("test_queries.txt", "women/tops/test/1_0.jpeg a b", "line 3: expected 2 images, got 3"),
        ("test_queries.txt", "women/tops/test/1_0.jpeg x", "line 3: image 'x' is in no label file of the test split"),
    ],
)
def test_a_damaged_line_is_named(fashion200k: Path, file: str, line: str, message: str) -> None:
    path = fashion200k / file
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(DataError, match=message):
        FASHION200K.load(fashion200k, "val")


def test_a_query_about_an_image_without_a_caption_is_refused(fashion200k: Path) -> None:
    with (fashion200k / DRESSES).open("a") as labels:
        labels.write("women/x.jpeg\t0.5\t \n")
    assert len(FASHION200K.load(fashion200k, "val").sets[0].gallery) == 8
    with (fashion200k / "test_queries.txt").open("a") as queries:
        queries.write("women/x.jpeg women/tops/test/1_0.jpeg\n")
    with pytest.raises(DataError, match=r"line 3: image 'women/x.jpeg' has no caption"):
        FASHION200K.load(fashion200k, "val")


@pytest.mark.parametrize("file", FILES)
@FILES_ALLOWED
@given(data=st.data())
def test_damaged_bytes_are_read_or_refused(fashion200k: Path, file: str, data: st.DataObject) -> None:
    path = fashion200k / file
    intact = path.read_bytes()
    start, length = data.draw(st.integers(0, len(intact))), data.draw(st.integers(0, 9))
    path.write_bytes(intact[:start] + data.draw(st.binary(max_size=9)) + intact[start + length :])
    try:
        split = FASHION200K.load(fashion200k, "val")
        assert split.triplets
        assert all(place.resolve().is_relative_to(fashion200k) for place in split.paths.values())
    except DataError as error:
        assert error.where
        assert error.remedy
    finally:
        path.write_bytes(intact)
