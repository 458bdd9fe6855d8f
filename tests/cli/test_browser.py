"""The report in a real browser: Chromium, headless, with no network to fall back on."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from world import world

from mlcl_cli.cli.app import app

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: `make browser` installs Debian's")
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuned CLIP and two combiners, a report of one of them (one.html) and one of all (all.html)."""
    folder = world(tmp_path_factory.mktemp("browser"), "cirr", triplets=60)
    lines = (
        ["finetune", "--encoder", "text"],
        ["train-combiner", "--epochs", "15"],
        ["report", "--output", str(folder / "one.html")],
        ["train-combiner", "--set", "seed=1"],
        ["report", "--all", "--output", str(folder / "all.html")],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLCL_PROFILE", str(folder / "mlcl.yaml"))
        for line in lines:
            result = CliRunner().invoke(app, line)
            assert result.exit_code == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any, folder: Path) -> Iterator[Open]:
    """Opens a page of `folder`; afterwards there must have been no request but for the page, and no error."""
    contexts, events = [], []

    def open_it(name: str, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: events.append(f"request for {request.url[:100]}"))
        page.on("console", lambda message: events.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: events.append(f"error: {error}"))
        page.goto((folder / name).as_uri())
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert [line for line in events if not re.match(r"request for (file:///.*/(one|all)\.html$|data:)", line)] == []
    assert events, "not even the page was requested"


def summary_of(folder: Path, number: int) -> dict[str, Any]:
    runs = sorted(folder.glob("work/combiner/*/run.json"))
    summary: dict[str, Any] = json.loads(runs[number].read_text())
    log = (runs[number].parent / "metrics.jsonl").read_text()
    return summary | {"rows": [json.loads(line) for line in log.splitlines()]}


def test_headline_metrics_are_those_of_the_run(open_page: Open, folder: Path) -> None:
    page = open_page("one.html")
    best = summary_of(folder, 0)["bests"]["arithmetic_mean"]
    tiles = page.locator(".tiles li")
    shown = dict(reversed(text.split("\n", 1)) for text in tiles.all_inner_texts())
    assert shown == {name: f"{best['metrics'][name]:.2f}" for name in shown}
    assert {"arithmetic_mean", "recall@1", "recall_subset@1"} <= shown.keys()
    assert tiles.first.inner_text().startswith(f"{best['score']:.2f}")
    assert page.get_by_role("heading", name="cirr, protocol cirr-val").is_visible()


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("run-0-loss-line-0", "loss"),
        ("run-0-loss-line-1", "hybrid"),
        ("run-0-recall-line-0", "recall@1"),
        ("run-0-temperature-line-0", "temperature"),
        ("run-0-weight-line-0", "level_weight"),
    ],
)
def test_curves_show_the_log(open_page: Open, folder: Path, line: str, key: str) -> None:
    page = open_page("one.html")
    path = page.locator(f"#{line} > path").first
    script = """path => { const matrix = path.getScreenCTM();
      return path.getAttribute('d').trim().split(/[ML]/).slice(1).map(pair => {
        const [x, y] = pair.trim().split(/\\s+/).map(Number);
        const point = new DOMPoint(x, y).matrixTransform(matrix); return [point.x, point.y]; }) }"""
    points = np.array(path.evaluate(script))
    values = [row[key] for row in summary_of(folder, 0)["rows"]]
    assert len(points) == len(values) == 15
    assert np.ptp(points[:, 0]) > 100, "it is wide enough to be seen"
    slope, offset = np.polyfit(values, points[:, 1], 1)
    assert slope < 0
    assert np.allclose(slope * np.array(values) + offset, points[:, 1], atol=0.05)
    assert path.evaluate("path => getComputedStyle(path).stroke") == "rgb(0, 114, 178)" or line.endswith("1")


def test_every_tab_and_query_of_the_sheet_opens(open_page: Open) -> None:
    page = open_page("one.html")
    tabs = page.get_by_role("tab")
    assert tabs.all_inner_texts() == ["hits", "misses", "hardest", "easiest"]
    for number, name in enumerate(("hits", "misses", "hardest", "easiest")):
        tabs.nth(number).click()
        panels = page.get_by_role("tabpanel")
        assert panels.count() == 1
        assert panels.get_attribute("id") == f"run-0-{name}"
        cards = panels.locator("details.query")
        assert cards.count() > 0
        for place in range(min(2, cards.count())):
            card = cards.nth(place)
            assert card.locator("ol.top").is_hidden()
            card.locator("summary").click()
            require_consistent_card(card, name)


def require_consistent_card(card: Any, kind: str) -> None:
    images = card.locator("ol.top > li")
    assert images.count() == 10
    rank = int(card.get_attribute("data-rank"))
    assert card.locator(".chip").inner_text() == f"rank {rank}"
    assert (rank <= 10) == (kind in ("hits", "easiest"))
    targets = [place for place in range(10) if "target" in (images.nth(place).get_attribute("class") or "")]
    assert targets == ([rank - 1] if rank <= 10 else [])
    scores = [float(re.findall(r"\d\.\d{3}", text)[0]) for text in images.all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    ranks = card.locator("table tbody td").all_inner_texts()
    assert ranks[0] == str(rank)
    parts = card.locator("table thead th").all_inner_texts()
    assert parts == ["whole query", "image only", "text only", "sum", "cat", "hybrid"]
    assert all(1 <= int(one) <= 60 for one in ranks)
    for place in range(10):
        box = images.nth(place).locator("svg.picture use").bounding_box()
        assert box is not None
        assert box["width"] > 20


def test_tabs_work_by_keyboard_and_are_announced(open_page: Open) -> None:
    page = open_page("one.html")
    first = page.get_by_role("tab", name="hits")
    first.focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="misses").get_attribute("aria-selected") == "true"
    assert page.evaluate("document.activeElement.textContent") == "misses"
    page.keyboard.press("ArrowLeft")
    assert page.locator("#run-0-hits").is_visible()
    pictures = page.locator("#run-0-hits svg.picture")
    assert re.match(r"(reference|target|retrieved): val-\d+-img0", pictures.first.get_attribute("aria-label"))


def test_without_scripts_everything_is_visible(open_page: Open) -> None:
    page = open_page("one.html", java_script_enabled=False)
    for name in ("hits", "misses", "hardest", "easiest"):
        assert page.locator(f"#run-0-{name}").is_visible()


def test_a_link_opens_its_run_and_a_comparison_counts(open_page: Open, folder: Path) -> None:
    page = open_page("all.html")
    rows = page.locator("#runs tbody tr")
    assert rows.count() == 3
    assert page.locator("#run-1").get_attribute("open") is None
    rows.nth(1).get_by_role("link").click()
    page.wait_for_function("document.querySelector('#run-1').open")
    for number in (0, 1):
        score = summary_of(folder, number)["bests"]["arithmetic_mean"]["score"]
        assert f"{score:.2f}" in rows.nth(number + 1).inner_text()
    pair = page.locator(".comparison").last
    pair.locator("summary").click()
    higher, lower, same = map(int, re.findall(r"(\d+) (?:rank higher|lower,|the same)", pair.inner_text())[:3])
    assert higher + lower + same == 60


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 820, 1600])
@pytest.mark.parametrize("name", ["one.html", "all.html"])
def test_the_page_fits_every_screen_and_color_scheme(
    open_page: Open, tmp_path: Path, name: str, scheme: str, width: int
) -> None:
    page = open_page(name, viewport={"width": width, "height": 900}, color_scheme=scheme)
    for details in page.locator("details").all():
        details.evaluate("details => details.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    ground, ink = (page.evaluate(f"getComputedStyle(document.body).{key}") for key in ("backgroundColor", "color"))
    dark, bright = sorted((ground, ink), key=luminance)
    assert (ground == dark) == (scheme == "dark")
    assert (luminance(bright) + 0.05) / (luminance(dark) + 0.05) > 7
    page.screenshot(path=tmp_path / "page.png")
    picture = np.asarray(Image.open(tmp_path / "page.png").convert("L"), dtype=float)
    assert (picture.mean() < 100) == (scheme == "dark")
    assert picture.std() > 10, "there is something on it"


def luminance(color: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, by WCAG."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
