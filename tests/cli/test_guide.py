"""Examples of searching a catalog, in the guide and in README, run as they are written."""

import os
import re
import shlex
import textwrap
from pathlib import Path

import pytest
from command_line import Mlcl
from shop import write_products
from typer.testing import CliRunner
from world import picture, tiny_clip, world

from mlcl_cli.cli.app import app

ROOT = Path(__file__).parents[2]
GUIDE, README = (ROOT / name for name in (".github/GUIDE.md", "README.md"))


def blocks(document: Path, heading: str) -> list[str]:
    """The indented blocks of a section."""
    section = re.split(r"\n#{2,3} ", document.read_text(encoding="utf-8").split(f"# {heading}\n", 1)[1])[0]
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", section, re.MULTILINE)
    return [textwrap.dedent(block).strip() for block in found]


def code(document: Path, heading: str) -> str:
    return "\n\n".join(blocks(document, heading))


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
    commands = [line for line in code(GUIDE, "Search a catalog").splitlines() if line.startswith("mlcl search")]
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
    exec(code(GUIDE, "From Python"), names)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 5
    assert all(line.startswith("SKU-") for line in printed)
    assert names["queries"].shape[0] == 2  # type: ignore[attr-defined]
    assert [*names["explained"]] == ["image", "text", "sum", "cat", "hybrid"]  # type: ignore[misc]
    assert [len(found) for found in names["several"]] == [5, 5]  # type: ignore[attr-defined]
    found = names["retriever"].search("boots", k=40)  # type: ignore[attr-defined]
    assert "SKU-99" in {hit.id for hit in found}


@pytest.fixture
def products(tmp_path: Path) -> Path:
    """A shop's folder: a table of products, their pictures, and a picture to search with."""
    rows = []
    for number in range(40):
        picture(tmp_path / f"photos/{number}.jpg", 700 + number)
        color, style = ("red", "blue", "black", "white")[number % 4], ("boot", "sandal")[number // 4 % 2]
        rows.append(
            {"id": f"SKU-{number}", "image": f"photos/{number}.jpg", "color": color, "style": style, "price": number}
        )
    write_products(tmp_path / "products.csv", rows)
    picture(tmp_path / "shoe.jpg", 900)
    tiny_clip(tmp_path / "clip.pt")
    return tmp_path


def test_readme_leads_from_a_table_to_results_in_five_lines(
    products: Path, mlcl: Mlcl, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands, python, _, _, machines = blocks(README, "Search your own products")
    lines = commands.splitlines()
    assert len(lines) == 5
    small = ("combiner.epochs=1", "combiner.projection_dim=16", "combiner.hidden_dim=32", "combiner.batch_size=16")
    for line in lines:
        _, command, *arguments = shlex.split(line, comments=True)
        if command == "train-combiner":
            arguments += [part for setting in small for part in ("--set", setting)]
        assert mlcl(command, *arguments).code == 0
        if command == "init":
            profile = products / "mlcl.yaml"
            profile.write_text(profile.read_text().replace("RN50x4 ", f"{products / 'clip.pt'} ", 1))
    assert "SKU-" in (products / "found.html").read_text()

    monkeypatch.chdir(products)
    names: dict[str, object] = {}
    exec(python, names)
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert names["queries"].shape[0] == 1  # type: ignore[attr-defined]

    shards = {"RANK": "1", "WORLD_SIZE": "2", "SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "2"}
    for name, value in shards.items():
        monkeypatch.setenv(name, value)
    for line in re.findall(r"mlcl (index products.csv --shard [^']+)'", machines):
        assert mlcl(*os.path.expandvars(line).split(), "--json").json["unchanged"] > 0


def test_products_are_searched_without_training(products: Path, mlcl: Mlcl) -> None:
    assert mlcl("init").code == 0
    for line in blocks(README, "Search your own products")[0].splitlines()[3:]:
        _, *arguments = shlex.split(line, comments=True)
        outcome = mlcl(*arguments, "--set", f"clip.model={products / 'clip.pt'}")
        assert outcome.code == 0, outcome.err
    assert "No combiner in this workspace: a query is the element-wise sum" in outcome.err
