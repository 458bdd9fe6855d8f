"""The guide's examples of searching a catalog, run as they are written."""

import re
import shlex
from pathlib import Path

import pytest
from command_line import Mlcl
from shop import write_products
from typer.testing import CliRunner
from world import picture, world

from mlcl_cli.cli.app import app

GUIDE = (Path(__file__).parents[2] / ".github/GUIDE.md").read_text(encoding="utf-8")


def code(heading: str) -> list[str]:
    """The indented lines of a section."""
    section = re.split(r"\n#{2,3} ", GUIDE.split(f" {heading}\n", 1)[1])[0]
    return [line.removeprefix("    ") for line in section.splitlines() if line.startswith("    ") or not line]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a combiner and a catalog of boots and shoes."""
    folder = world(tmp_path_factory.mktemp("guide"), "fashioniq")
    profile = folder / "mlcl.yaml"
    profile.write_text(profile.read_text().replace("workspace: work", "workspace: runs"))
    rows = []
    for number in range(30):
        picture(folder / f"photos/{number}.jpg", 700 + number)
        category = "boots" if number % 2 else "shoes"
        rows.append(
            {"id": f"SKU-{number}", "image": f"photos/{number}.jpg", "category": category, "price": 4.0 * number}
        )
    write_products(folder / "products.csv", rows)
    picture(folder / "shoe.jpg", 900)
    for command in (["train-combiner", "--epochs", "1"], ["index", str(folder / "products.csv")]):
        outcome = CliRunner().invoke(app, [*command, "--profile", str(profile)], catch_exceptions=False)
        assert outcome.exit_code == 0, outcome.stderr
    return folder


def test_every_command_of_the_guide_finds_something(shop: Path, mlcl: Mlcl) -> None:
    commands = [line for line in code("Search a catalog") if line.startswith("mlcl search")]
    assert len(commands) == 5
    for line in commands:
        _, *arguments = shlex.split(line, comments=True)
        outcome = mlcl(*arguments, folder=shop)
        assert outcome.code == 0, outcome.err
        assert "SKU-" in outcome.out
    assert (shop / "found.html").is_file()


def test_the_python_of_the_guide_runs(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shop)
    names: dict[str, object] = {}
    exec("\n".join(code("From Python")), names)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 5
    assert all(line.startswith("SKU-") for line in printed)
    assert names["queries"].shape[0] == 2  # type: ignore[attr-defined]
    assert [*names["explained"]] == ["image", "text", "sum", "cat", "hybrid"]  # type: ignore[misc]
    assert [len(found) for found in names["several"]] == [5, 5]  # type: ignore[attr-defined]
    found = names["retriever"].search("boots", k=40)  # type: ignore[attr-defined]
    assert "SKU-99" in {hit.id for hit in found}
