"""The report in a real browser: Chromium, headless, with no network to fall back on."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from world import world

from mlcl_cli.cli.app import app
from mlcl_cli.html_report.naming import spoken

Open = Callable[..., Any]


HOSTILE = "<script>alert('x')</script> & 50% \\textbf{red}_$1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuned CLIP and two combiners, a report of one of them (one.html) and one of all (all.html)."""
    folder = world(tmp_path_factory.mktemp("browser"), "cirr", triplets=60)
    captions = folder / "data/cirr/captions/cap.rc2.val.json"
    records = json.loads(captions.read_text())
    records[3]["caption"] = HOSTILE
    captions.write_text(json.dumps(records))
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


def test_the_page_opens_with_its_figure_and_its_interval(open_page: Open, folder: Path) -> None:
    page = open_page("one.html")
    best = summary_of(folder, 0)["bests"]["arithmetic_mean"]
    headline = page.get_by_role("heading", level=1).inner_text()
    assert headline.startswith(f"The combiner reaches {best['score']:.1f} % on cirr")
    low, high = map(float, re.findall(r"interval ([\d.]+) to ([\d.]+)", headline)[0])
    assert low < best["score"] < high
    table = page.get_by_role("table", name="Metrics of combiner")
    rows = [row.locator("th, td").all_inner_texts() for row in table.locator("tbody tr").all()]
    shown = {name: re.findall(r"[\d.]+", text) for name, text in rows}
    assert [texts[0] for texts in shown.values()] == [f"{value:.2f}" for value in best["metrics"].values()]
    assert [*shown] == [spoken(name) for name in best["metrics"]]
    assert all(float(low) <= float(value) <= float(high) for value, low, high in shown.values())
    assert page.get_by_role("heading", name="cirr, protocol cirr-val").is_visible()


def test_bars_compare_with_simpler_queries_and_end_at_their_values(open_page: Open) -> None:
    page = open_page("one.html")
    rows = page.locator("table.bars tbody tr").all()
    names = [row.locator("th").inner_text() for row in rows]
    assert names == ["Chance", "Image only", "Text only", "Sum of image and text", "Combiner"]
    for row in rows:
        value, *bounds = map(float, re.findall(r"[\d.]+", row.locator("td").first.inner_text()))
        track, bar = row.locator(".bar").bounding_box(), row.locator(".bar i").bounding_box()
        assert bar["width"] / track["width"] == pytest.approx(value / 100, abs=0.003)
        for whisker in row.locator(".bar u").all():
            box = whisker.bounding_box()
            ends = [(edge - track["x"]) / track["width"] for edge in (box["x"], box["x"] + box["width"])]
            assert ends == pytest.approx([bound / 100 for bound in bounds], abs=0.006)
        assert bool(bounds) == (row.locator(".bar u").count() == 1) == (row.locator("th").inner_text() != "Chance")


def test_every_entry_of_the_contents_leads_somewhere(open_page: Open) -> None:
    for name in ("one.html", "all.html"):
        page = open_page(name)
        links = page.get_by_role("navigation", name="Contents").get_by_role("link")
        assert links.count() >= 6
        for link in links.all():
            assert page.locator(link.get_attribute("href")).is_visible()


def test_six_strips_come_first_and_their_targets_are_marked(open_page: Open) -> None:
    page = open_page("one.html")
    strips = page.locator("section > .strips > .strip")
    assert strips.count() == 6
    for strip in strips.all():
        rank = int(strip.get_attribute("data-rank"))
        words = strip.locator(".chip").inner_text()
        assert words == f"{'hit' if rank <= 10 else 'miss'}, rank {rank}"
        found = strip.locator(".found > li")
        marked = [place for place, one in enumerate(found.all()) if "target" in (one.get_attribute("class") or "")]
        assert marked == [rank - 1 if rank <= 5 else 5]
        assert found.nth(marked[0]).locator("span").inner_text() == f"{rank} · target"
    assert strips.first.locator(".zoom").nth(1).bounding_box()["width"] > 100


def test_all_queries_can_be_searched_filtered_and_ordered(open_page: Open, folder: Path) -> None:
    page = open_page("one.html")
    records = json.loads((folder / "data/cirr/captions/cap.rc2.val.json").read_text())
    search, results = page.get_by_role("search"), page.locator(".results > li")
    status = page.locator("p[role=status]")
    assert status.inner_text().startswith("60 of 60 queries")
    assert page.locator(".coverage").inner_text() == "All queries are shown with pictures."
    assert results.count() == 6
    search.get_by_label("Search").fill("Show RED")
    red = [number for number, record in enumerate(records) if "show red" in record["caption"]]
    assert status.inner_text().startswith(f"{len(red)} of 60 queries")
    while (more := page.get_by_role("button", name=re.compile("^Show .* more"))).is_visible():
        more.click()
    assert [int(one.get_attribute("data-query")) for one in results.all()] == red
    search.get_by_label("Result").select_option("hits")
    search.get_by_label("Order").select_option("best rank first")
    ranks = [int(one.get_attribute("data-rank")) for one in results.all()]
    assert ranks == sorted(ranks)
    assert max(ranks) <= 10
    search.get_by_label("Result").select_option("all")
    search.get_by_label("Search").fill(records[7]["reference"])
    assert "7" in [one.get_attribute("data-query") for one in results.all()]
    search.get_by_label("Search").fill("nothing like it")
    assert status.inner_text() == "No query matches."
    assert results.count() == 0
    search.get_by_label("Search").fill("")
    search.get_by_label("Kind of change").select_option("color")
    assert "of 60 queries" in status.inner_text()


def test_a_found_query_shows_all_ranks_and_the_first_ten_images(open_page: Open) -> None:
    page = open_page("all.html")
    strip = page.locator(".results > li").first
    strip.get_by_text("Ranks and further images").click()
    strip.locator("dl").wait_for()
    assert strip.locator(".found > li:not(.late)").count() == 10
    names = strip.locator("dt").all_inner_texts()
    runs = {"combiner, epochs 15, seed 0", "combiner, epochs 2, seed 1", "fine-tuned CLIP"}
    parts = ["image only", "text only", "sum", "mid level", "high level"]
    assert names[0] in runs
    assert [name for name in names if name not in runs] == parts[: 2 if names[0] == "fine-tuned CLIP" else 5]
    assert set(names) - set(parts) == runs


def test_a_hostile_caption_is_text_everywhere(open_page: Open) -> None:
    page = open_page("one.html")
    page.get_by_role("search").get_by_label("Search").fill("alert")
    strip = page.locator(".results > li")
    assert strip.count() == 1
    assert strip.locator("q").inner_text().strip('“”"') == HOSTILE
    strip.locator(".zoom").first.click()
    assert HOSTILE in page.locator("#viewer figcaption").inner_text()


def test_pictures_enlarge_by_pointer_and_keyboard(open_page: Open) -> None:
    page = open_page("one.html")
    first = page.locator("section > .strips > .strip").first
    pictures = first.locator(".zoom")
    small = pictures.nth(1).bounding_box()["width"]
    pictures.nth(1).focus()
    page.keyboard.press("Enter")
    viewer = page.locator("#viewer")
    assert viewer.is_visible()
    assert viewer.locator("svg").bounding_box()["width"] > 2 * small
    names = [one.get_attribute("aria-label") for one in first.locator(".zoom svg").all()]
    assert viewer.locator("figcaption b").inner_text() == names[1]
    page.keyboard.press("ArrowRight")
    assert viewer.locator("figcaption b").inner_text() == names[2]
    viewer.get_by_role("button", name="Previous").click()
    assert viewer.locator("figcaption b").inner_text() == names[1]
    page.keyboard.press("Escape")
    assert viewer.is_hidden()
    assert pictures.nth(1).evaluate("button => button === document.activeElement")


@pytest.mark.parametrize("key", ["loss", "temperature"])
def test_a_chart_tells_its_values_under_the_pointer_and_by_arrow_keys(open_page: Open, folder: Path, key: str) -> None:
    page = open_page("one.html")
    rows = summary_of(folder, 0)["rows"]
    figure = page.locator(f"figure[data-chart='run-0-{key}']")
    output, label = figure.locator("output"), {"loss": "loss", "temperature": "τ of mCCL"}[key]
    vertices = page.locator(f"#run-0-{key}-line-0 use")
    figure.scroll_into_view_if_needed()
    for number in (0, 6, 14) if vertices.count() else ():
        box = vertices.nth(number).bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"])
        assert output.inner_text().startswith(f"Epoch {number + 1}: {label} {float(f'{rows[number][key]:.4g}'):g}")
    page.mouse.move(0, 0)
    figure.focus()
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    assert output.inner_text().startswith(f"Epoch 2: {label} {float(f'{rows[1][key]:.4g}'):g}")


def test_a_table_is_copied_as_latex(open_page: Open) -> None:
    page = open_page("one.html", permissions=["clipboard-read", "clipboard-write"])
    copies = page.get_by_role("button", name="Copy as LaTeX")
    assert copies.count() == 4
    table = page.get_by_role("table", name="Metrics of combiner")
    values = [row.locator("th, td").all_inner_texts() for row in table.locator("tbody tr").all()]
    copies.nth(1).click()
    page.get_by_role("button", name="Copied").wait_for()
    text = page.evaluate("navigator.clipboard.readText()")
    lines = text.splitlines()
    assert lines[:4] == [r"\begin{tabular}{lr}", r"\toprule", r"metric & percent \\", r"\midrule"]
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    for line, (name, value) in zip(lines[4:-2], values, strict=True):
        figure, interval = value.split(" ", 1)
        bold = r"\textbf{%s}" if name == "arithmetic mean" else "%s"
        assert line == rf"{bold % name} & {bold % figure} {{\scriptsize {interval}}} \\"


def test_latex_is_escaped(open_page: Open) -> None:
    page = open_page("one.html")
    page.evaluate("caption => document.querySelector('table.figures tbody th').textContent = caption", HOSTILE)
    table = page.evaluate("asLatex(document.querySelector('table.figures'))")
    assert r"<script>alert('x')</script> \& 50\% \textbackslash{}textbf\{red\}\_\$1 & " in table


@pytest.mark.parametrize("name", ["one.html", "all.html"])
def test_nothing_is_behind_horizontal_scrolling_on_a_phone(open_page: Open, name: str) -> None:
    page = open_page(name, viewport={"width": 390, "height": 844})
    for details in page.locator("details").all():
        details.evaluate("details => details.open = true")
    page.evaluate("document.querySelectorAll('[role=tabpanel]').forEach(panel => panel.hidden = false)")
    script = """() => [...document.querySelectorAll('body *:not(.store, .store *, svg *, .skip, thead, thead *)')]
      .filter(e => e.checkVisibility() && !e.closest('dialog') && (e.getBoundingClientRect().right > 390.5 ||
        (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== 'visible' && e.tagName !== 'SELECT'
         && e.tagName !== 'INPUT' && !e.matches('.blank'))))
      .map(e => e.outerHTML.slice(0, 150))"""
    assert page.evaluate(script) == []


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
    assert card.locator(".chip").inner_text() == f"{'hit' if rank <= 10 else 'miss'}, rank {rank}"
    assert (rank <= 10) == (kind in ("hits", "easiest"))
    targets = [place for place in range(10) if "target" in (images.nth(place).get_attribute("class") or "")]
    assert targets == ([rank - 1] if rank <= 10 else [])
    scores = [float(re.findall(r"\d\.\d{3}", text)[0]) for text in images.all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    ranks = card.locator("dl.parts dd").all_inner_texts()
    assert ranks[0] == str(rank)
    parts = card.locator("dl.parts dt").all_inner_texts()
    assert parts == ["whole query", "image only", "text only", "sum", "mid level", "high level"]
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
    assert page.get_by_text("Searching needs JavaScript").is_visible()
    assert page.get_by_role("search").count() == 0


def test_a_link_opens_its_run_and_a_comparison_counts(open_page: Open, folder: Path) -> None:
    page = open_page("all.html")
    rows = page.locator("#g0-table tbody tr")
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
@pytest.mark.parametrize("width", [360, 390, 820, 1280, 1600])
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
