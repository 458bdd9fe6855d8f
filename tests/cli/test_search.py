"""`mlcl search`: every form of the query, filters, groups, explanations, and each form of the output."""

import json
import re
from datetime import date
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Mlcl
from shop import shop, stored, write_products
from typer.testing import CliRunner
from world import picture, tiny_clip

from mlcl_cli import Retriever
from mlcl_cli.cli.app import app

COLORS = ("red", "green", "blue")
SMALL = ("--quiet", "-k", "3")


@pytest.fixture(scope="session")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop with 24 products of one image and one with three, indexed; tests change copies of it."""
    folder = shop(tmp_path_factory.mktemp("stocked"), 24)
    rows = [
        {
            "id": f"sku{n}",
            "image": f"photos/{n}.jpg",
            "price": n / 2,
            "color": COLORS[n % 3],
            "name": f"<b>shoe</b> {n}",
        }
        for n in range(24)
    ]
    for view in range(3):
        picture(folder / f"photos/view{view}.jpg", 500 + view)
    write_products(folder / "products.csv", rows)
    with (folder / "products.jsonl").open("w") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
        views = [f"photos/view{view}.jpg" for view in range(3)]
        several = {"id": "boot", "image": views, "price": 99.5, "color": None, "name": "boot"}
        file.write(json.dumps(several) + "\n")
    command = ["index", str(folder / "products.jsonl"), "--profile", str(folder / "mlcl.yaml")]
    outcome = CliRunner().invoke(app, command, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.stderr
    return folder


@pytest.fixture
def store(stocked: Path, tmp_path: Path) -> Path:
    copytree(stocked, tmp_path, dirs_exist_ok=True)
    return tmp_path


def ids(found: Any) -> list[str]:
    return [hit["id"] for hit in found["hits"]]


@pytest.mark.usefixtures("store")
def test_all_forms_of_a_query_find_rows(mlcl: Mlcl) -> None:
    forms = {
        "words": ("in red",),
        "image": ("--image", "photos/3.jpg"),
        "item": ("--item", "sku3"),
        "image and words": ("--image", "photos/3.jpg", "in red"),
        "item and words": ("--item", "sku3", "in red"),
    }
    found = {name: mlcl("search", *form, "--json", "-k", "30").json for name, form in forms.items()}
    assert {name: len(one["hits"]) for name, one in found.items()} == {
        "words": 27, "image": 27, "item": 26, "image and words": 27, "item and words": 26,
    }  # fmt: skip
    for one in found.values():
        assert one["command"] == "search"
        assert one["model"]["combining_function"] == "sum"
        assert one["took_ms"] > 0
        scores = [hit["score"] for hit in one["hits"]]
        assert scores == sorted(scores, reverse=True)
        assert all(set(hit) == {"id", "score", "image", "product", "fields"} for hit in one["hits"])
    assert ids(found["image"])[0] == "sku3"  # the file is not known to be an item of the catalog
    assert found["image"]["hits"][0]["score"] == pytest.approx(1, abs=2e-3)
    without = [hit for hit in ids(found["image and words"]) if hit != "sku3"]
    assert sorted(without) == sorted(ids(found["item and words"]))


@pytest.mark.usefixtures("store")
def test_no_image_of_the_reference_product_is_found(mlcl: Mlcl) -> None:
    assert {"boot", "boot#2", "boot#3"} <= {*ids(mlcl("search", "in red", "--json", "-k", "30").json)}
    for item in ("boot", "boot#2"):
        found = ids(mlcl("search", "--item", item, "--json", "-k", "30").json)
        assert len(found) == 24
        assert not [one for one in found if one.startswith("boot")]
        assert len(ids(mlcl("search", "--item", item, "in red", "--json", "-k", "5").json)) == 5


@pytest.mark.usefixtures("store")
def test_a_product_is_named_by_its_id_or_by_the_product_of_its_images(mlcl: Mlcl, store: Path) -> None:
    rows = [{"product": "pair", "image": f"photos/view{view}.jpg"} for view in range(2)]
    write_products(store / "views.csv", rows)
    assert mlcl("index", "views.csv", "--catalog", "views").code == 0
    by_product = mlcl("search", "--item", "pair", "--catalog", "views", "--json").json
    assert ids(by_product) == []
    assert "Nothing in the catalog matches" in mlcl("search", "--item", "pair", "--catalog", "views").out


@pytest.mark.usefixtures("store")
def test_filters_and_groups(mlcl: Mlcl) -> None:
    every = mlcl("search", "in red", "--json", "-k", "30").json["hits"]
    cheap = mlcl("search", "in red", "--json", "-k", "30", "--where", "color = 'red' and price < 5").json["hits"]
    assert cheap == [hit for hit in every if hit["fields"]["color"] == "red" and hit["fields"]["price"] < 5]
    colors = mlcl("search", "in red", "--json", "--group-by", "color", "--where", "color in ('red', 'blue')").json
    best = {}
    for hit in every:
        best.setdefault(hit["fields"]["color"], hit["id"])
    assert {*ids(colors)} == {best["red"], best["blue"]}
    products = ids(mlcl("search", "in red", "--json", "-k", "30", "--group-by", "product").json)
    assert len(products) == 25


@pytest.mark.usefixtures("store")
def test_levels_are_scores_of_the_parts_of_the_query(mlcl: Mlcl) -> None:
    found = mlcl("search", "--image", "photos/3.jpg", "in red", "--explain", "--json").json["hits"]
    alone = {
        part: {hit["id"]: hit["score"] for hit in mlcl("search", *query, "--json", "-k", "30").json["hits"]}
        for part, query in {"image": ("--image", "photos/3.jpg"), "text": ("in red",)}.items()
    }
    for hit in found:
        assert hit["levels"] == pytest.approx({part: scores[hit["id"]] for part, scores in alone.items()}, abs=1e-5)
    words = mlcl("search", "in red", "--explain", "--json").json["hits"]
    assert [set(hit["levels"]) for hit in words] == [{"text"}] * 10
    table = mlcl("search", "--image", "photos/3.jpg", "in red", "--explain").out
    assert "image only" in table
    assert "text only" in table


@pytest.mark.usefixtures("store")
def test_the_table_shows_the_fields_that_fit(mlcl: Mlcl, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = mlcl("search", "--item", "sku3", "in red", "--where", "price >= 2", *SMALL)
    assert 'sku3 + "in red", where price >= 2' in wide.out
    assert len(re.findall(r"<b>shoe</b> \d+", wide.out)) == 3
    assert "\x1b" not in wide.out
    assert "▀" not in wide.out
    assert "No combiner in this workspace: a query is the element-wise sum" in wide.err
    monkeypatch.setenv("COLUMNS", "34")
    narrow = CliRunner().invoke(app, ["search", "red", *SMALL]).stdout
    assert "price" in narrow
    assert "shoe" not in narrow
    assert "shows all 3 fields" in narrow
    assert max(map(len, narrow.split("A wider")[0].splitlines())) <= 34


def test_the_sheet_is_one_file_with_query_hits_and_pictures(mlcl: Mlcl, store: Path) -> None:
    options = ("--explain", "--where", "price < 9", "--html", "found.html", "-k", "4")
    outcome = mlcl("search", "--item", "sku3", "in <i>red", *options)
    assert f"Open it in a browser: {store / 'found.html'}" in outcome.out
    page = (store / "found.html").read_text()
    assert "in &lt;i&gt;red" in page
    assert "price &lt; 9" in page
    assert "&lt;b&gt;shoe&lt;/b&gt;" in page
    assert "<b>shoe" not in page
    assert page.count("data:image/jpeg;base64,") == 5  # the reference, and four hits
    assert "image only" in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert mlcl("search", "--image", "photos/5.jpg", "--html", "found.html").code == 0
    (store / "mine.html").write_text("mine")
    refused = mlcl("search", "red", "--html", "mine.html")
    assert refused.code == 2
    assert "already exists and is not a page written by mlcl" in refused.err
    assert (store / "mine.html").read_text() == "mine"


def test_pictures_come_from_thumbnails_when_the_files_are_gone(mlcl: Mlcl, store: Path) -> None:
    for file in (store / "photos").iterdir():
        file.unlink()
    assert mlcl("search", "--item", "sku3", "--html", "found.html", "-k", "4").code == 0
    assert (store / "found.html").read_text().count("data:image/jpeg;base64,") == 5


@pytest.mark.usefixtures("store")
def test_a_session_lets_hits_become_references(mlcl: Mlcl) -> None:
    lines = [
        "in red", "2", "1 in blue", "/where price < 6", "/k 2", "/item sku5", "/image photos/4.jpg", "darker",
        "/where", "/new", "/words 2 laces", "/quit", "never",
    ]  # fmt: skip
    outcome = mlcl("search", "--interactive", "--json", "-k", "4", "--quiet", stdin="\n".join(lines))
    results = [json.loads(line) for line in outcome.out.splitlines()]
    one_shot = [
        ("in red", "-k", "4"),
        ("--item", ids(results[0])[1], "-k", "4"),
        ("--item", ids(results[1])[0], "in blue", "-k", "4"),
        ("--item", ids(results[1])[0], "in blue", "-k", "4", "--where", "price < 6"),
        ("--item", ids(results[1])[0], "in blue", "-k", "2", "--where", "price < 6"),
        ("--item", "sku5", "-k", "2", "--where", "price < 6"),
        ("--image", "photos/4.jpg", "-k", "2", "--where", "price < 6"),
        ("--image", "photos/4.jpg", "darker", "-k", "2", "--where", "price < 6"),
        ("--image", "photos/4.jpg", "darker", "-k", "2"),
        ("2 laces", "-k", "2"),
    ]
    assert [result["hits"] for result in results] == [mlcl("search", *q, "--json").json["hits"] for q in one_shot]


@pytest.mark.usefixtures("store")
def test_a_session_goes_on_after_errors_with_what_it_had(mlcl: Mlcl) -> None:
    lines = [
        "/what",
        "/wher x",
        "/where nope = 1",
        "/k 0",
        "/item skuu3",
        "/image none.jpg",
        "red",
        "9",
        "/help",
        "blue",
    ]
    outcome = mlcl("search", "-i", *SMALL, stdin="\n".join(lines))
    assert outcome.code == 0
    errors = [line for line in outcome.err.splitlines() if line.startswith("error:")]
    expected = [
        "unknown command /what", "did you mean '/where'?", "no field 'nope'", "/k: must be a number from 1 on",
        "no item 'skuu3'; did you mean 'sku3'?", "none.jpg: this image cannot be used: missing", "there is no hit 9",
    ]  # fmt: skip
    assert len(errors) == len(expected)
    for line, part in zip(errors, expected, strict=True):
        assert part in line
    assert outcome.out.count("score") == 2
    assert "/quit" in outcome.out


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ((), 2, "there is nothing to search for. Give words, --image FILE or --item ID"),
        (("  ",), 2, "there is nothing to search for"),
        (("red", "-k", "0"), 2, "-k"),
        (("--image", "photos/3.jpg", "--item", "sku3"), 2, "--image and --item exclude each other"),
        (("--item", "skuu3"), 2, "the catalog has no item 'skuu3'; did you mean 'sku3'?"),
        (("--image", "none.jpg"), 3, "none.jpg: this image cannot be used: missing"),
        (("--image", "products.csv"), 3, "products.csv: this image cannot be used: not an image"),
        (("red", "--where", "pric < 3"), 2, "there is no field 'pric'; did you mean 'price'?"),
        (("red", "--where", "price <"), 2, "expected a value, got the end"),
        (("red", "--group-by", "colour"), 2, "colour"),
        (("red", "--catalog", "other"), 3, "work/catalogs/other: there is no catalog yet. Run `mlcl index`"),
        (("red", "--html", "found.txt"), 2, "must end in .html or .htm"),
        (("red", "--html", "found.html", "--interactive"), 2, "--interactive and --html exclude each other"),
        (("red", "--combining-function", "combiner"), 3, "found no combiner for fashioniq"),
        (("red", "--checkpoint", "none.pt"), 3, "none.pt: this checkpoint does not exist"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("store")
def test_a_wrong_query_is_one_clear_line(mlcl: Mlcl, options: tuple[str, ...], code: int, message: str) -> None:
    outcome = mlcl("search", *options, "--quiet")
    assert outcome.code == code
    assert message in outcome.err
    assert not outcome.out


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("function", ["sum", "product", "weighted", "image", "text"])
def test_composers_without_training_can_be_chosen(mlcl: Mlcl, function: str) -> None:
    query = ("--image", "photos/3.jpg", "in red", "--combining-function", function)
    found = mlcl("search", *query, "--set", "evaluate.text_weight=0.5", "--json", "-k", "30").json
    assert found["model"]["combining_function"] == function
    alone = {"image": ("--image", "photos/3.jpg"), "text": ("in red",)}.get(function)
    if alone is not None:
        assert ids(found) == ids(mlcl("search", *alone, "--json", "-k", "30").json)


def test_another_clip_than_the_catalogs_is_an_error(mlcl: Mlcl, store: Path) -> None:
    tiny_clip(store / "other.pt", seed=1)
    outcome = mlcl("search", "red", "--set", "clip.model=other.pt", "--quiet")
    assert outcome.code == 3
    assert "work/catalogs/default: was encoded with a CLIP that is not in" in outcome.err
    outcome = mlcl("search", "red", "--set", "clip.model=other.pt", "--set", "clip.checkpoint=none", "--quiet")
    assert outcome.code == 3
    assert "default: was encoded with the CLIP" in outcome.err
    outcome = mlcl("search", "red", "--set", "image.transform=squarepad", "--quiet")
    assert outcome.code == 3
    assert "was not encoded with image.transform squarepad" in outcome.err


def test_field_values_of_all_types_are_json(mlcl: Mlcl, store: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    columns = {
        "id": ["a", "b"],
        "image": ["photos/1.jpg", "photos/2.jpg"],
        "since": [date(2026, 1, 31), None],
        "weight": [1.5, float("nan")],
        "sold": [True, None],
        "sizes": [["38", "39"], []],
    }
    parquet.write_table(pa.table(columns), store / "typed.parquet")
    assert mlcl("index", "typed.parquet", "--catalog", "typed", "--set", "catalog.vectors=fp32").code == 0
    found = {hit["id"]: hit["fields"] for hit in mlcl("search", "red", "--catalog", "typed", "--json").json["hits"]}
    assert found["a"] == {"since": "2026-01-31", "weight": 1.5, "sold": True, "sizes": ["38", "39"]}
    assert found["b"]["weight"] is None
    shown = mlcl("search", "red", "--catalog", "typed", "--html", "typed.html").out
    assert "2026-01-31" in shown
    assert " true " in shown
    page = (store / "typed.html").read_text()
    assert "true" in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "True" not in shown + page


def test_scores_are_those_of_a_naive_oracle(mlcl: Mlcl, store: Path) -> None:
    rows = stored(store)
    retriever = Retriever.load(store / "mlcl.yaml")
    (query,) = retriever.compose([store / "photos/3.jpg"], ["in red"])
    scores = {name: float(np.dot(np.float32(row["vector"]), query)) for name, row in rows.items()}
    found = mlcl("search", "--image", "photos/3.jpg", "in red", "--json", "-k", "30").json["hits"]
    assert {hit["id"]: hit["score"] for hit in found} == pytest.approx(scores, abs=1e-6)
    assert torch.tensor(query).norm().item() == pytest.approx(1, abs=1e-6)
