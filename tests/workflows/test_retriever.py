"""The Python API: what it loads, what it composes, and that its ranks are those of `mlcl evaluate`."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from shutil import copytree, move

import numpy as np
import pytest
from PIL import Image
from shop import shop, write_products
from typer.testing import CliRunner
from world import tiny_clip, world

from mlcl_cli import Hit, Query, Retriever
from mlcl_cli.cli.app import app
from mlcl_cli.config import load_profile
from mlcl_cli.errors import DataError, UsageError
from mlcl_cli.workflows.run_context import read_split

DUPLICATES = 4  # of each gallery's images


def run(folder: Path, *command: str) -> str:
    outcome = CliRunner().invoke(app, [*command, "--profile", str(folder / "mlcl.yaml")], catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.stderr
    return outcome.stdout


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FashionIQ with duplicate images, a combiner on a tuned CLIP, and a catalog of each gallery in fp32."""
    folder = world(tmp_path_factory.mktemp("trained"), "fashioniq", images=12)
    profile = load_profile(folder / "mlcl.yaml")
    parts = read_split(profile, "val").sets
    for part in parts:
        paths = [folder / f"data/images/{name}.jpg" for name in part.gallery]
        for copy, original in zip(paths[-DUPLICATES:], paths, strict=False):
            copy.write_bytes(original.read_bytes())
    run(folder, "finetune", "--encoder", "text", "--epochs", "1")
    run(folder, "train-combiner", "--epochs", "1", "--set", "combiner.augmented_views=1")
    for part in parts:
        table = folder / f"{part.name}.csv"
        write_products(table, [{"id": name, "image": f"data/images/{name}.jpg"} for name in part.gallery])
        run(folder, "index", str(table), "--catalog", part.name, "--set", "catalog.vectors=fp32")
    return folder


@pytest.fixture(scope="session")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop without a combiner, indexed."""
    folder = shop(tmp_path_factory.mktemp("stocked"), 12)
    run(folder, "index", str(folder / "products.csv"))
    return folder


@pytest.fixture
def in_shop(stocked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copytree(stocked, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("function", ["combiner", "sum"])
@pytest.mark.parametrize("excluded", [False, True])
def test_ranks_are_those_of_evaluate_to_the_tie(trained: Path, tmp_path: Path, function: str, excluded: bool) -> None:
    predictions = tmp_path / "predictions.json"
    setting = ("--set", f"evaluate.exclude_reference={str(excluded).lower()}")
    run(trained, "evaluate", "--combining-function", function, "--predictions", str(predictions), *setting)
    ranked = json.loads(predictions.read_text())
    split = read_split(load_profile(trained / "mlcl.yaml"), "val")
    compared = 0
    for part in split.sets:
        retriever = Retriever.load(trained / "work", catalog=part.name, combining_function=function)
        for triplet in part.triplets:
            reference = (
                Query(triplet.query_text, item=triplet.reference)
                if excluded
                else Query(triplet.query_text, image=split.paths[triplet.reference])
            )
            (hits,) = retriever.search_many([reference], k=50)
            assert [hit.id for hit in hits] == ranked[triplet.query_id]
            compared += 1
            ties = [a for a, b in pairwise(hits) if a.score == b.score]
            assert len(ties) >= DUPLICATES - excluded
    assert compared == len(split.triplets)


def test_what_is_loaded_is_found_from_a_workspace_a_checkpoint_and_a_profile(trained: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    copytree(trained, moved)
    (checkpoint,) = (moved / "work").glob("combiner/*/best.safetensors")
    sources = [moved / "work", str(checkpoint), checkpoint.parent, moved / "mlcl.yaml", moved]
    found = []
    for source in sources:
        retriever = Retriever.load(source, catalog="dress")
        assert retriever.combining_function == "combiner"
        assert str(moved) in str(retriever.about()["checkpoint"])
        assert str(moved) in str(retriever.about()["clip"])
        found.append([hit.id for hit in retriever.search("is red", k=5)])
    assert len({*map(tuple, found)}) == 1
    levels = Retriever.load(moved, catalog="dress").search("is red", item="dval01", explain=True, k=3)[0].levels
    assert levels is not None
    assert [*levels] == ["image", "text", "sum", "cat", "hybrid"]


def test_a_combiner_of_another_clip_is_an_error(trained: Path, tmp_path: Path) -> None:
    copytree(trained, tmp_path, dirs_exist_ok=True)
    (checkpoint,) = (tmp_path / "work").glob("combiner/*/best.safetensors")
    run(tmp_path, "index", str(tmp_path / "dress.csv"), "--catalog", "untuned", "--set", "clip.checkpoint=none")
    with pytest.raises(DataError, match=r"was trained on the CLIP .*, but .*untuned was encoded with"):
        Retriever.load(checkpoint, catalog="untuned")
    with pytest.raises(DataError, match=r"on which no combiner in .* was trained"):
        Retriever.load(tmp_path, catalog="untuned")
    assert Retriever.load(tmp_path, catalog="untuned", combining_function="sum").search("red", k=1)
    tiny_clip(tmp_path / "clip.pt", seed=5)
    with pytest.raises(DataError, match="fingerprint"):
        Retriever.load(tmp_path, catalog="dress")


def test_what_cannot_be_loaded_is_an_error(tmp_path: Path, in_shop: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no runs that say which CLIP"):
        Retriever.load(tmp_path / "empty")
    with pytest.raises(DataError, match="does not exist"):
        Retriever.load(tmp_path / "none.safetensors")
    with pytest.raises(UsageError, match=r"catalog\.name: must consist of letters"):
        Retriever.load(in_shop, catalog="a/b")
    with pytest.raises(UsageError, match=r"catalog\.store: must be lancedb"):
        Retriever.load(in_shop, store="sqlite")
    with pytest.raises(DataError, match="there is no catalog yet"):
        Retriever.load(in_shop, catalog="other").search("red")


def test_images_are_taken_as_paths_pictures_and_arrays(in_shop: Path) -> None:
    retriever = Retriever.load("mlcl.yaml")
    picture = Image.open(in_shop / "photos/3.jpg")
    forms = ["photos/3.jpg", in_shop / "photos/3.jpg", picture, np.asarray(picture)]
    queries = retriever.compose([*forms, None, "photos/3.jpg"], ["in red"] * 5 + [None])
    assert queries.dtype == np.float32
    assert np.linalg.norm(queries, axis=1) == pytest.approx(1, abs=1e-6)
    for row in queries[1:4]:
        assert row == pytest.approx(queries[0], abs=1e-6)
    assert retriever.compose(None, ["in red"])[0] == pytest.approx(queries[4], abs=1e-6)
    assert retriever.compose([picture])[0] == pytest.approx(queries[5], abs=1e-6)
    assert retriever.compose([], []).shape == (0, queries.shape[1])
    for wrong in (np.zeros((3, 8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8)):
        with pytest.raises(UsageError, match=r"expected an array \(H, W, 3\) of uint8"):
            retriever.compose([wrong])
    with pytest.raises(UsageError, match="query 1: has neither an image nor words"):
        retriever.compose(["photos/3.jpg", None], [None, " "])
    with pytest.raises(UsageError, match="got 1 images and 2 texts"):
        retriever.compose([None], ["red", "blue"])
    with pytest.raises(DataError, match=r"products\.csv: this image cannot be used: not an image"):
        retriever.compose(["products.csv"])


def test_searches_in_batches_and_threads_equal_single_ones(in_shop: Path) -> None:
    retriever = Retriever.load(in_shop)
    queries = [
        Query("in red"), Query(image="photos/1.jpg"), Query("blue", item="sku2"), Query(item="sku3", exclude=["sku4"]),
    ]  # fmt: skip

    def ids(found: list[Hit]) -> list[str]:
        return [hit.id for hit in found]

    single = [retriever.search(q.text, image=q.image, item=q.item, exclude=q.exclude, k=5) for q in queries]
    assert [ids(one) for one in retriever.search_many(queries, k=5)] == [ids(one) for one in single]
    assert "sku4" not in ids(single[3])
    assert retriever.search_many([]) == []
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda query: ids(retriever.search_many([query], k=5)[0]), queries * 5))
    assert found == [ids(one) for one in single] * 5
    filtered = retriever.search("in red", where=[("price", "<", 2)], k=20)
    assert ids(filtered) == ids(retriever.search("in red", where="price < 2", k=20))
    with pytest.raises(UsageError, match="k: must be at least 1"):
        retriever.search("red", k=0)


def test_rows_are_added_and_replaced(in_shop: Path) -> None:
    retriever = Retriever.load(in_shop)
    rows = [
        {"id": "new", "image": "photos/1.jpg", "price": 3.5, "color": "green"},
        {"id": "sku2", "image": "photos/2.jpg", "fields": {"price": 77.0, "color": "blue"}},
    ]
    counts = retriever.index(rows)
    assert (counts.added, counts.updated, counts.encoded) == (1, 1, 1)
    found = {hit.id: hit for hit in retriever.search("in red", k=50)}
    assert len(found) == 13
    assert found["sku2"].fields == {"price": 77.0, "color": "blue"}
    assert found["new"].fields == {"price": 3.5, "color": "green"}
    assert found["new"].product == "new"
    assert found["new"].thumbnail.startswith(b"\xff\xd8")
    assert retriever.index(rows).unchanged == 2
    for wrong, message in (
        ({"id": "x"}, "row 0: expected text under 'image'"),
        ({"image": "photos/1.jpg"}, "row 0: expected text under 'id'"),
        ({"id": "x", "image": "photos/none.jpg"}, "1 image missing or unreadable"),
    ):
        with pytest.raises(DataError, match=message):
            retriever.index([wrong])


def test_rows_begin_a_catalog(in_shop: Path) -> None:
    retriever = Retriever.load(in_shop, catalog="fresh")
    rows = [{"id": n, "image": f"photos/{n}.jpg", "product": f"p{n // 2}"} for n in range(6)]
    assert retriever.index(rows).added == 6
    assert {hit.product for hit in retriever.search("red", group_by="product")} == {"p0", "p1", "p2"}


def test_the_import_is_fast_and_light() -> None:
    code = (
        "import sys, time\nbegan = time.perf_counter()\nfrom mlcl_cli import Retriever\n"
        "print(time.perf_counter() - began, 'torch' in sys.modules, Retriever.load.__doc__ is not None)"
    )
    seconds, *facts = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert facts == ["False", "True"]
    assert float(seconds) < 0.5


def test_a_run_without_its_profile_still_loads_by_its_checkpoint(trained: Path, tmp_path: Path) -> None:
    copytree(trained, tmp_path / "here")
    (checkpoint,) = (tmp_path / "here/work").glob("combiner/*/best.safetensors")
    move(tmp_path / "here/work/catalogs", tmp_path / "catalogs")
    retriever = Retriever.load(checkpoint)
    assert retriever.compose(None, ["red"]).shape[0] == 1
    with pytest.raises(DataError, match="there is no catalog yet"):
        retriever.search("red")
