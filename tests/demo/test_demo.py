"""The demo through the real command line: its claims hold. `make ordering` runs it on all data sets, at length."""

import itertools
import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlcl_cli.cli.app import app
from mlcl_cli.errors import UsageError
from mlcl_cli.workflows.demo import _move_earlier_demo

DATASETS = ["fashioniq", "shoes", "cirr"] if os.environ.get("MLCL_WHOLE_DEMO") else ["cirr"]


@pytest.mark.timeout(900)
def test_combiner_beats_the_sum_and_the_sum_beats_image_or_text_alone(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    chosen = [word for name in DATASETS for word in ("--dataset", name)]
    result = CliRunner().invoke(app, ["demo", "--output", str(folder), "--json", *chosen])
    assert result.exit_code == 0, result.stderr
    output = json.loads(result.stdout)
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
