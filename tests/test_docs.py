"""The documents: every link leads somewhere, and every section and equation that the code cites exists."""

import re
import tomllib
from pathlib import Path

import pytest

from mlcl_cli import __version__

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / ".github").glob("*.md"))]
CODE = sorted([*(ROOT / "mlcl_cli").rglob("*.py"), *(ROOT / "tests").rglob("*.py")])
NUMBERS = r"\d+(?:\.\d+)?(?:(?:–|, | and )\d+(?:\.\d+)?)*"


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def numbers(text: str) -> set[str]:
    """ "3", "4.1" and so on; a range of equations counts with all that it holds."""
    found = set(re.findall(r"\d+(?:\.\d+)?", text))
    for first, last in re.findall(r"(\d+)–(\d+)", text):
        found |= {str(number) for number in range(int(first), int(last) + 1)}
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_resolve(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def test_cited_sections_and_equations_exist() -> None:
    missing = []
    known = {}
    for name in ("METHOD.md", "DATASETS.md"):
        text = (ROOT / ".github" / name).read_text(encoding="utf-8")
        known[name, "Section"] = set(re.findall(r"^##+ (\d+(?:\.\d+)?)[. ]", text, re.MULTILINE))
        known[name, "Equation"] = set(re.findall(r"^\*\*Equation (\d+) \(", text, re.MULTILINE))
    assert known["METHOD.md", "Equation"] == {str(number) for number in range(1, 24)}
    for path in CODE:
        for name, kind, cited in re.findall(
            rf"(METHOD\.md|DATASETS\.md),\s+(Section|Equation)s? ({NUMBERS})", path.read_text(encoding="utf-8")
        ):
            missing += [f"{path}: {name}, {kind} {number}" for number in numbers(cited) - known[name, kind]]
    assert not missing


def test_cited_documents_exist() -> None:
    present = {document.name for document in DOCUMENTS}
    for path in CODE:
        cited = set(re.findall(r"\b[\w-]+\.md\b", path.read_text(encoding="utf-8")))
        assert cited <= present, path


def test_the_version_is_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "mlcl_cli.__version__"}
    assert f"## [{__version__}]" in (ROOT / ".github" / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_modules_exist(document: Path) -> None:
    """A path such as `training/loop.py` in a document leads to a file of the package or of the repository."""
    for name in re.findall(r"`([\w/]+/\w+\.py)`", document.read_text(encoding="utf-8")):
        if not name.endswith("/yours.py"):
            assert any((root / name).is_file() for root in (ROOT, ROOT / "mlcl_cli")), name
