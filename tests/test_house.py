"""The shape of the house: who may import whom, how long files are, what the top level holds."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcl_cli.data.datasets import DATASETS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mlcl_cli"

BASE = {"atomic_files", "errors", "formatting", "progress", "safe_reading", "seeding", "signals", "suggestions"}
FEATURES = BASE | {"data", "images", "models"}
RUNS = BASE | {"artifacts", "data", "models"}
TRAINING = FEATURES | {"features", "runs"}
RETRIEVAL = FEATURES | {"features"}
MAY_IMPORT = {
    "__init__": {"workflows"},
    "__main__": {"cli", "openmp", "signals", "streams"},
    "errors": set(),
    "formatting": set(),
    "openmp": set(),
    "progress": set(),
    "safe_reading": set(),
    "seeding": set(),
    "signals": set(),
    "streams": set(),
    "suggestions": set(),
    "atomic_files": {"errors", "streams"},
    "config": {"data", "errors", "formatting", "safe_reading", "streams", "suggestions"},
    "artifacts": {"atomic_files", "errors"},
    "data": {"errors", "formatting", "progress", "safe_reading", "suggestions"},
    "images": {"errors", "formatting", "safe_reading"},
    "models": {"errors"},
    "features": FEATURES | {"artifacts"},
    "retrieval": RETRIEVAL,
    "runs": RUNS,
    "training": TRAINING,
    "catalog": BASE | {"data"},
    "stores": BASE,
    "demo": BASE | {"models"},
    "bench": TRAINING | {"training", "retrieval", "openmp"},
    "html_report": TRAINING | {"training", "retrieval"},
    "workflows": TRAINING
    | {"training", "retrieval", "catalog", "stores", "config", "demo", "bench", "html_report", "__init__"},
    "server": BASE | {"config", "images", "stores", "workflows", "__init__"},
    "cli": BASE | {"catalog", "config", "data", "demo", "runs", "server", "streams", "workflows", "__init__"},
}
TORCH_FREE = {
    "__init__", "atomic_files", "catalog", "cli", "config", "data", "errors", "formatting", "progress", "safe_reading",
    "seeding", "signals", "streams", "suggestions",
}  # fmt: skip
FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, *, everywhere: bool = True) -> set[str]:
    """Modules that a file imports, anywhere or at its top level alone."""
    tree = ast.parse(path.read_text())
    names = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            if node.module == "mlcl_cli":
                names |= {f"mlcl_cli.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_table(path: Path) -> None:
    part = part_of(path)
    own = {name.split(".")[1] for name in imports(path) if name.startswith("mlcl_cli.")} - {part, "__version__"}
    assert own <= MAY_IMPORT[part], f"{part} may not import {own - MAY_IMPORT[part]}"
    if part == "retrieval" and path.stem == "ranking":
        assert {name.split(".")[1] for name in imports(path) if name.startswith("mlcl_cli.")} <= {"errors", "retrieval"}


@pytest.mark.parametrize("path", [path for path in FILES if part_of(path) in TORCH_FREE], ids=str)
def test_what_starts_every_command_is_light(path: Path) -> None:
    heavy = {"torch", "torchvision", "clip", "kornia", "numpy", "PIL"}
    light = part_of(path) in ("cli", "config", "errors")
    assert not {name.split(".")[0] for name in imports(path, everywhere=light)} & heavy


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_can_be_understood_without_scrolling(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 320
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 60, node.name
            if not node.name.startswith("_") and length > 8:
                assert ast.get_docstring(node), f"{node.name} is public and says nothing"


def test_the_top_level_holds_what_the_design_lists() -> None:
    visible = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    known = {"mlcl_cli", "tests", "configs", "pyproject.toml", "README.md", "Makefile"}
    made = {"mlcl-demo", "build", "dist", "runs", "data"} | {name for name in visible if name.endswith(".egg-info")}
    assert {name for name in visible - made if not name.startswith("mlcl-demo-")} <= known


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_text_files_name_their_encoding(path: Path) -> None:
    """Else the user's locale decides."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr in ("read_text", "write_text"):
            given = {keyword.arg for keyword in node.keywords} | {ast.unparse(argument) for argument in node.args}
            assert given & {"encoding", "'utf-8'", "'ascii'"}, f"line {node.lineno}"


def comparisons(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Code that asks which of several words a value is, and each word: operators, `match`, tables, lookups."""
    for node in ast.walk(tree):
        operands: list[ast.AST | None] = []
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            operands = [node.value]
        elif isinstance(node, ast.Subscript):
            operands = [node.slice]
        elif isinstance(node, ast.Dict):
            operands = [*node.keys]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ASKING_METHODS:
            operands = [*node.args[:1]]
        for operand in operands:
            items = operand.elts if isinstance(operand, ast.Tuple | ast.List | ast.Set) else [operand]
            for item in items:
                if isinstance(item, ast.Constant) and isinstance(item.value, str):
                    yield ast.unparse(node), item.value


ASKING_METHODS = ("get", "pop", "setdefault", "startswith", "endswith", "removeprefix")
ASKING = [path for path in FILES if part_of(path) not in ("data", "demo", "bench")]


@pytest.mark.parametrize(
    "code",
    [
        "name == 'shoes'", "'shoes' != name", "name in ('cirr', 'shoes')", "{'shoes': 1}[name]", "table['shoes']",
        "table.get('shoes')", "match name:\n  case 'cirr' | 'shoes': pass",
    ],
)  # fmt: skip
def test_a_comparison_is_recognized(code: str) -> None:
    assert "shoes" in {word for _, word in comparisons(ast.parse(code))}


@pytest.mark.parametrize("path", ASKING, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_code_asks_which_data_set_it_is(path: Path) -> None:
    """What differs between data sets is a field of `DataSet`."""
    assert [code for code, word in comparisons(ast.parse(path.read_text())) if word in DATASETS] == []


@pytest.mark.parametrize("path", ASKING, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_code_asks_which_stage_it_is(path: Path) -> None:
    """What differs between the stages is a field of the stage."""
    words = ("finetune", "combiner", "train-combiner")
    asked = [code for code, word in comparisons(ast.parse(path.read_text())) if word in words and "stage" in code]
    assert asked == [] or path.name == "stages.py"
