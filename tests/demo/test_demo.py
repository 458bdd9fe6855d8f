"""The demo through the real command line: its claims hold. `make ordering` runs it on all data sets, at length."""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from shop import shop, write_products
from typer.testing import CliRunner

from mlcl_cli import Query, Retriever
from mlcl_cli.cli.app import app
from mlcl_cli.errors import UsageError
from mlcl_cli.workflows.demo import _move_earlier_demo, _search

DATASETS = ["fashioniq", "shoes", "cirr"] if os.environ.get("MLCL_WHOLE_DEMO") else ["cirr"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The demo's folder, and what the command returned."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    chosen = [word for name in DATASETS for word in ("--dataset", name)]
    return folder, run("demo", "--output", str(folder), *chosen)


def run(*command: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.stderr
    output: dict[str, Any] = json.loads(result.stdout)
    return output


@pytest.mark.timeout(900)
def test_combiner_beats_the_sum_and_the_sum_beats_image_or_text_alone(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, output = demo
    scores = output["scores"]
    assert list(scores) == DATASETS
    for row in scores.values():
        alone = max(row["image only"], row["text only"])
        ranked = [row["combiner"], row["element-wise sum"], alone, row["chance"]]
        assert all(better > worse + 1 for better, worse in itertools.pairwise(ranked)), row
    assert len(list(folder.glob("runs/submissions/*/*.json"))) == 2  # CIRR's
    page = Path(output["report"]).read_text()
    assert page.count('<div data-tabs id="run-') == 3 * len(DATASETS)
    for row in scores.values():
        assert f'data-value="{row["combiner"]}"' in page
    assert {path.name for path in folder.glob("mlcl.*.yaml")} == {f"mlcl.{name}.yaml" for name in DATASETS}


def test_searches_of_its_images_reach_the_recall_of_evaluate(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = demo
    profile, images = str(folder / "mlcl.cirr.yaml"), folder / "data/cirr_dataset/dev"
    indexed = run("index", str(images), "--profile", profile, "--set", "catalog.vectors=fp32")
    assert indexed["added"] == len(list(images.iterdir()))
    metrics = run("evaluate", "--profile", profile)["metrics"]
    triplets = json.loads((images.parent / "cirr/captions/cap.rc2.val.json").read_text())
    targets = [f"{triplet['target_hard']}.png" for triplet in triplets]
    queries = [Query(triplet["caption"], item=f"{triplet['reference']}.png") for triplet in triplets]
    found = Retriever.load(profile).search_many(queries, k=50)
    for k in (1, 5, 10, 50):
        hits = [target in [hit.id for hit in rows[:k]] for target, rows in zip(targets, found, strict=True)]
        assert 100 * sum(hits) / len(hits) == pytest.approx(metrics[f"recall@{k}"])
    reference, caption = triplets[0]["reference"], triplets[0]["caption"]
    by_file = run("search", caption, "--image", str(images / f"{reference}.png"), "--profile", profile, "-k", "51")
    others = [hit["id"] for hit in by_file["hits"] if hit["id"] != f"{reference}.png"]
    assert others[:50] == [hit.id for hit in found[0]]


def test_the_drawn_products_are_searched_at_the_end(tmp_path: Path) -> None:
    folder = shop(tmp_path, 6)
    rows = [{"image": f"photos/{number}.jpg", "color": "red" if number % 2 else "blue"} for number in range(6)]
    write_products(folder / "products.csv", rows)
    search = _search(folder / "products.csv", folder / "mlcl.yaml", lambda command: run(*command))
    assert (search.item, search.text) == ("photos/0.jpg", "in red")
    assert {hit.id for hit in search.hits} == {f"photos/{number}.jpg" for number in range(1, 6)}


def test_demo_refuses_a_folder_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    result = CliRunner().invoke(app, ["demo", "--output", str(tmp_path)])
    assert result.exit_code == 2
    assert "folder contains other files" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_earlier_demo_is_moved_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "demo"
    (folder / "runs").mkdir(parents=True)
    (folder / ".mlcl-demo").write_text("")
    (folder / "runs/mine").write_text("precious")
    _move_earlier_demo(folder)
    assert (tmp_path / "demo-1/runs/mine").read_text() == "precious"
    assert [path.name for path in folder.iterdir()] == [".mlcl-demo"]
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match="is the current folder"):
        _move_earlier_demo(folder)
