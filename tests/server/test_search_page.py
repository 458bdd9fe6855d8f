"""The page in a real browser: Chromium, headless, on a real server."""

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from served import COUNT, HOSTILE, Running

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
Open = Callable[..., Any]

SECONDS = 30  # for anything to happen; a machine may be busy


@pytest.fixture
def open_page(browser: Any, server: Running) -> Iterator[Open]:
    """Opens an address of the server. There must be no request to any other, and no error but what `expect` matches.

    Every picture of a product is shown, unless `grouped`; `levels` are offered as with a combiner.
    """
    contexts, requests, errors, expected = [], list[str](), list[str](), list[str]()

    def open_it(
        address: str = "/", *, expect: str = "", grouped: bool = False, levels: bool = False, **options: Any
    ) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.set_default_timeout(SECONDS * 1000)
        contexts.append(context)
        expected.append(expect)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        if levels:
            page.route(re.compile(f"^{server.address}/([?].*)?$"), with_levels)
        page.goto(server.address + (address if grouped or "group=" in address else ungrouped(address)))
        settle(page)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert [url for url in requests if not url.startswith((server.address + "/", "data:"))] == []
    assert requests, "not even the page was requested"
    assert [error for error in errors if not any(one and re.search(one, error) for one in expected)] == []


def ungrouped(address: str) -> str:
    return f"{address}{'&' if '?' in address else '?'}group=none"


def with_levels(route: Any) -> None:
    """Answer as a server with a combiner does."""
    answer = route.fetch()
    route.fulfill(response=answer, body=answer.text().replace("<body ", "<body data-has-levels ", 1))


def settle(page: Any, title: str = "") -> None:
    """Wait until the page shows what it was asked for."""
    script = """title => document.getElementById('heading').textContent.includes(title)
      && !document.getElementById('results').hasAttribute('aria-busy')
      && Boolean(document.querySelector('.card') || document.querySelector('.what'))"""
    wait_for(page, script, title)


def wait_for(page: Any, script: str, argument: object = None) -> None:
    """Wait until a script is true. Playwright's own way evaluates text within the page, which its policy forbids."""
    until = time.monotonic() + SECONDS
    while not page.evaluate(script, argument):
        assert time.monotonic() < until, f"{script} is still false: {page.locator('main').inner_text()[:1000]}"
        page.wait_for_timeout(20)


def wait_for_cards(page: Any, count: int) -> None:
    playwright.expect(page.locator(".card")).to_have_count(count, timeout=SECONDS * 1000)


def scroll_to_the_end(page: Any) -> None:
    until = time.monotonic() + SECONDS
    while len(ids(page)) < COUNT:
        assert time.monotonic() < until, f"{len(ids(page))} products are shown"
        page.locator(".card").last.scroll_into_view_if_needed()
        page.wait_for_timeout(20)


def ids(page: Any) -> list[str]:
    found: list[str] = page.eval_on_selector_all(".card a", "links => links.map(link => link.dataset.item)")
    return found


def search(server: Running, **request: Any) -> list[str]:
    """What the API finds."""
    answer = httpx.post(f"{server.address}/v1/search", json={"k": 24, **request}, timeout=20)
    assert answer.status_code == 200, answer.text
    return [hit["id"] for hit in answer.json()["hits"]]


def photo(server: Running, number: int = 7) -> Path:
    return server.folder / f"photos/{number}.jpg"


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def name(item: str) -> str:
    return item.replace("SKU/", "Shoe ")


def link(page: Any, number: int) -> Any:
    return page.locator(f".card a[data-item='SKU/{number}']")


ONE_LINE = """selector => [...document.querySelectorAll(selector)].every(
  (element) => element.getClientRects().length === 1 && element.offsetHeight < 30)"""
IDS_ALONE = """async () => {  // as they are where products have no names
  const { card } = await import(document.querySelector("script[type=module]").src.replace("main.js", "cards.js"));
  const item = { id: "mug-00003-0", score: 0.84, image: "", fields: {} };
  document.getElementById("grid").replaceChildren(card(item, "/"));
}"""
TRANSFER = """([data, name]) => {
  const transfer = new DataTransfer();
  const bytes = Uint8Array.from(atob(data), character => character.charCodeAt(0));
  transfer.items.add(new File([bytes], name, {type: 'image/jpeg'}));
  return transfer;
}"""


def test_the_whole_catalog_can_be_browsed(open_page: Open) -> None:
    page = open_page()
    assert page.locator("#status").inner_text() == f"{COUNT} products"
    scroll_to_the_end(page)
    assert ids(page) == [f"SKU/{number}" for number in range(COUNT)]
    assert page.locator("#more").is_hidden()
    first = page.locator(".card").first
    assert first.get_by_role("heading", level=3).inner_text() == "Shoe 0"
    assert first.locator(".id").inner_text() == "SKU/0"
    assert first.get_by_role("img").get_attribute("alt") == "Shoe 0, red, boot, 0, 2026-01-01, yes"
    wait_for(page, "document.querySelector('.card img').naturalWidth > 0")


def test_a_click_on_a_product_and_words_find_what_the_api_finds(open_page: Open, server: Running) -> None:
    page = open_page()
    link(page, 5).click()
    settle(page, "Like Shoe 5")
    assert ids(page) == search(server, item="SKU/5")
    assert page.get_by_role("searchbox").evaluate("field => field === document.activeElement")
    page.keyboard.type("in green")
    page.keyboard.press("Enter")
    settle(page, "Like Shoe 5, but “in green”")
    assert ids(page) == search(server, item="SKU/5", text="in green")
    scores = [float(text) for text in page.locator(".score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    assert re.fullmatch(r"24 products, best first, in \d+ ms", page.get_by_role("status").inner_text())
    page.get_by_role("button", name="Show more").click()
    wait_for_cards(page, 48)
    assert ids(page) == search(server, item="SKU/5", text="in green", k=48)


@pytest.mark.parametrize("way", ["file", "camera", "drop", "paste"])
def test_a_picture_can_be_added(open_page: Open, server: Running, way: str) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    page = open_page(**phone if way == "camera" else {})
    if way in ("file", "camera"):
        button = {"file": "Add a picture", "camera": "Take a photo"}[way]
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name=button).click()
        chooser.value.set_files(photo(server))
    else:
        transfer = page.evaluate_handle(TRANSFER, [encoded(photo(server)), "photo.jpg"])
        if way == "drop":
            page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
            assert page.locator(".drop").is_visible()
            page.dispatch_event("body", "drop", {"dataTransfer": transfer})
        else:
            script = "(e, data) => e.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true}))"
            page.get_by_role("searchbox").evaluate(script, transfer)
    settle(page, "Like your picture")
    assert page.locator(".drop").is_hidden()
    assert ids(page) == search(server, image=encoded(photo(server)))
    page.reload()
    settle(page, "Like your picture")
    assert ids(page) == search(server, image=encoded(photo(server)))
    page.get_by_role("button", name="Remove the reference").click()
    settle(page, "All products")


def test_a_product_can_be_dragged_to_the_search_field(open_page: Open, server: Running) -> None:
    page = open_page()
    start, end = link(page, 1).bounding_box(), page.locator("#ask").bounding_box()
    page.mouse.move(start["x"] + 50, start["y"] + 50)
    page.mouse.down()
    for distance in (20, 5):  # a drag begins with a small movement
        page.mouse.move(end["x"] + 300, end["y"] + distance)
    assert page.locator(".drop").is_visible()
    page.mouse.up()
    settle(page, "Like Shoe 1")
    assert ids(page) == search(server, item="SKU/1")
    assert page.locator(".drop").is_hidden()


def test_a_large_picture_is_scaled_down_before_it_is_sent(open_page: Open, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    Image.effect_noise((2200, 1100), 60).convert("RGB").save(large)
    page = open_page()
    with page.expect_request("**/v1/search") as sent:
        page.locator("#file").set_input_files(large)
    kind, _, data = json.loads(sent.value.post_data)["image"].partition(",")
    assert kind == "data:image/jpeg;base64"
    assert len(data) < 2**20 < large.stat().st_size
    (tmp_path / "sent.jpg").write_bytes(base64.b64decode(data))
    with Image.open(tmp_path / "sent.jpg") as small:
        assert small.size == (1024, 512)
    settle(page, "Like your picture")


def test_a_file_that_is_no_picture_is_refused_plainly(open_page: Open, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    page = open_page()
    page.locator("#file").set_input_files(tmp_path / "notes.txt")
    alert = page.get_by_role("alert")
    alert.get_by_text("This browser cannot read that file as a picture.").wait_for()
    assert "notes.txt: Use a JPEG, PNG or WebP." in alert.inner_text()
    assert len(ids(page)) > 0, "the products stay"


def test_filters_narrow_the_catalog_and_the_hits(open_page: Open, server: Running) -> None:
    page = open_page()
    group = page.get_by_role("group", name="color")
    group.get_by_label("red").check(force=True)
    settle(page)
    page.get_by_text(f"{COUNT // 4} products", exact=True).wait_for()
    group.get_by_label("blue").check(force=True)
    page.get_by_text(f"{COUNT // 2} products", exact=True).wait_for()
    price = page.get_by_role("group", name="price")
    price.get_by_label("from").fill("10")
    price.get_by_label("to").fill("20")
    price.get_by_label("to").press("Tab")
    wanted = [n for n in range(COUNT) if n % 4 < 2 and 20 <= n <= 40]
    page.get_by_text(f"{len(wanted)} products", exact=True).wait_for()
    assert ids(page) == [f"SKU/{number}" for number in wanted]
    page.get_by_role("searchbox").fill("green")
    page.keyboard.press("Enter")
    settle(page, "“green”")
    where = [["color", "in", ["red", "blue"]], ["price", ">=", 10], ["price", "<=", 20]]
    assert ids(page) == search(server, text="green", where=where)
    page.go_back()
    settle(page, "All products")
    assert ids(page) == [f"SKU/{number}" for number in wanted]
    page.get_by_role("button", name="Clear all").click()
    page.get_by_text(f"{COUNT} products", exact=True).wait_for()
    assert price.get_by_label("from").input_value() == ""


def test_filters_of_dates_and_truths(open_page: Open) -> None:
    page = open_page()
    page.get_by_role("group", name="is new").get_by_label("yes").check(force=True)
    page.get_by_text(f"{COUNT // 5} products", exact=True).wait_for()
    since = page.get_by_role("group", name="since")
    since.get_by_label("from").fill("2026-01-20")
    since.get_by_label("from").press("Tab")
    wanted = [number for number in range(0, COUNT, 5) if number % 28 >= 19]
    page.get_by_text(f"{len(wanted)} products", exact=True).wait_for()
    assert ids(page) == [f"SKU/{number}" for number in wanted]


def test_no_match_is_said_and_the_filters_can_be_cleared(open_page: Open) -> None:
    page = open_page("/?is.color=red&from.price=29.9")
    assert page.get_by_role("alert").get_by_text("No products match these filters").is_visible()
    page.get_by_role("button", name="Clear the filters").click()
    page.get_by_text(f"{COUNT} products", exact=True).wait_for()


def test_the_trail_and_back_lead_to_earlier_steps(open_page: Open, server: Running) -> None:
    page = open_page()
    titles = ["All products", "Like Shoe 3", "Like Shoe 3, but “red”"]
    link(page, 3).click()
    settle(page, titles[1])
    page.get_by_role("searchbox").fill("red")
    page.get_by_role("button", name="Search", exact=True).click()
    settle(page, titles[2])
    further = ids(page)[1]
    page.locator(".card a").nth(1).click()
    settle(page, f"Like {name(further)}")
    assert page.get_by_role("searchbox").input_value() == ""
    trail = page.get_by_role("navigation", name="Your steps")
    assert trail.get_by_role("listitem").all_inner_texts() == [*titles, f"Like {name(further)}"]
    page.go_back()
    settle(page, titles[2])
    assert trail.get_by_role("listitem").all_inner_texts() == titles
    assert ids(page) == search(server, item="SKU/3", text="red")
    page.go_forward()
    settle(page, f"Like {name(further)}")
    trail.get_by_role("link", name=titles[1], exact=True).click()
    settle(page, titles[1])
    assert trail.get_by_role("listitem").all_inner_texts() == titles[:2]
    page.reload()
    settle(page, titles[1])
    assert trail.get_by_role("listitem").all_inner_texts() == titles[:2]


def test_back_returns_to_the_place_in_the_catalog(open_page: Open) -> None:
    page = open_page()
    scroll_to_the_end(page)
    link(page, COUNT - 2).scroll_into_view_if_needed()
    before = page.evaluate("scrollY")
    link(page, COUNT - 2).click()
    settle(page, "Like")
    assert page.evaluate("scrollY") == 0
    page.go_back()
    settle(page, "All products")
    wait_for(page, "scrollY > 0")
    assert abs(page.evaluate("scrollY") - before) < 5
    assert len(ids(page)) == COUNT


def test_a_shared_address_shows_the_same_products(open_page: Open, server: Running) -> None:
    page = open_page(levels=True)
    link(page, 8).click()
    settle(page, "Like Shoe 8")
    page.get_by_role("group", name="style").get_by_label("pump").check(force=True)
    page.get_by_label("One per product").check()
    page.get_by_role("searchbox").fill("blue & 100% “new”")
    page.keyboard.press("Enter")
    settle(page, "blue & 100%")
    page.get_by_label("Scores by level").check()
    page.locator(".levels").first.wait_for()
    other = open_page(page.url.removeprefix(server.address), grouped=True, levels=True)
    settle(other, "Like Shoe 8, but")
    assert ids(other) == ids(page)
    request = {"item": "SKU/8", "text": "blue & 100% “new”", "where": "style = 'pump'", "group_by": "product"}
    assert ids(page) == search(server, **request)
    assert other.get_by_label("pump").is_checked()
    assert other.get_by_label("One per product").is_checked()
    levels = other.locator(".levels").first
    assert levels.locator("dt").all_inner_texts()[:2] == ["image only", "text only"]
    assert all(re.fullmatch(r"-?[01]\.\d{3}", text) for text in levels.locator("dd").all_inner_texts())


def test_one_picture_of_each_product_is_shown_at_first(open_page: Open, server: Running) -> None:
    page = open_page(grouped=True)
    assert page.locator("#status").inner_text() == f"{COUNT // 2} products"
    assert ids(page) == [f"SKU/{number}" for number in range(0, 48, 2)]
    group = page.get_by_label("One per product")
    assert group.is_checked()
    group.uncheck()
    page.get_by_text(f"{COUNT} products", exact=True).wait_for()
    assert page.url.endswith("/?group=none")
    group.check()
    page.get_by_text(f"{COUNT // 2} products", exact=True).wait_for()
    page.get_by_role("searchbox").fill("red")
    page.keyboard.press("Enter")
    settle(page, "“red”")
    assert ids(page) == search(server, text="red", group_by="product")
    assert page.get_by_label("Scores by level").is_hidden(), "there is no combiner"


def test_names_are_text_whatever_they_hold(open_page: Open, server: Running) -> None:
    page = open_page(f"/?item=SKU/{COUNT - 1}&text=red&is.style=pump")
    settle(page, f"Like {HOSTILE}, but")
    assert page.locator("[onerror]").count() == 0
    assert page.title().startswith(f"Like {HOSTILE}")
    assert ids(page) == search(server, item=f"SKU/{COUNT - 1}", text="red", where="style = 'pump'")


def test_an_address_with_somebody_elses_picture_says_so(open_page: Open, server: Running) -> None:
    page = open_page()
    page.locator("#file").set_input_files(photo(server))
    settle(page, "Like your picture")
    page.get_by_role("button", name="Copy link").click()
    page.get_by_text("Your picture is not part of the link").wait_for()
    other = open_page(page.url.removeprefix(server.address) + "&text=red")
    assert "only the browser it was added in has" in other.get_by_role("alert").inner_text()
    other.locator("#file").set_input_files(photo(server))
    other.locator(".card").first.wait_for()
    settle(other, "Like your picture, but “red”")
    assert ids(other) == search(server, image=encoded(photo(server)), text="red")


def test_everything_works_by_keyboard(open_page: Open, server: Running) -> None:
    page = open_page(levels=True)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the products"
    page.keyboard.press("Enter")
    page.keyboard.press("/")
    page.keyboard.type("white")
    page.keyboard.press("Enter")
    settle(page, "“white”")
    reached = list[str]()
    while "a.picture" not in reached and len(reached) < 80:
        page.keyboard.press("Tab")
        seen = page.evaluate(
            """() => { const e = document.activeElement, around = e.closest('.chip') ?? e;
              return [e.matches('a.picture') ? 'a.picture' : e.id || e.type || e.textContent,
                getComputedStyle(around).outlineStyle !== 'none']; }"""
        )
        assert seen[1], f"{seen[0]} has the focus, which cannot be seen"
        reached.append(seen[0])
    assert {"checkbox", "number", "date", "explain", "share", "a.picture"} <= {*reached}
    first = ids(page)[0]
    page.keyboard.press("Enter")
    settle(page, f"Like {name(first)}")
    assert ids(page) == search(server, item=first)
    page.keyboard.type("a/b")  # the slash is a character here
    assert page.get_by_role("searchbox").input_value() == "a/b"


def test_a_busy_server_is_asked_again_once(open_page: Open, server: Running) -> None:
    page = open_page(expect="503")
    batcher = server.service.batcher
    usual, batcher.max_waiting = batcher.max_waiting, 0
    try:
        page.get_by_role("searchbox").fill("red")
        with page.expect_response("**/v1/search") as refused:
            page.keyboard.press("Enter")
        assert refused.value.status == 503
        batcher.max_waiting = usual
        settle(page, "“red”")
        assert ids(page) == search(server, text="red")
        batcher.max_waiting = 0
        page.get_by_role("searchbox").fill("blue")
        page.keyboard.press("Enter")
        page.get_by_text("The server is busy.").wait_for()
    finally:
        batcher.max_waiting = usual
    page.get_by_role("button", name="Try again").click()
    page.locator(".card").first.wait_for()
    assert ids(page) == search(server, text="blue")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("/?item=SKU/none", "The catalog has no item"),
        ("/?is.size=40", "There is no field 'size'"),
        ("/?from.price=cheap", "price is compared with 'cheap'"),
        ("/?is.color=%27%20or%201=1", "No products match these filters"),
    ],
)
def test_an_address_that_cannot_be_answered_says_why(open_page: Open, address: str, message: str) -> None:
    page = open_page(address, expect="responded with a status of 4|'cheap' cannot be parsed|\"cheap\" cannot be parsed")
    assert message.lower() in page.get_by_role("alert").inner_text().lower()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing_and_the_page_never_scrolls_sideways(open_page: Open, width: int, scheme: str) -> None:
    screen = {"viewport": {"width": width, "height": 844}, "color_scheme": scheme, "reduced_motion": "reduce"}
    page = open_page(grouped=True, levels=True, **screen)
    start = page.url
    for address in ("?from.price=900", "?item=SKU/3&text=red&explain=1&is.color=blue&is.color=red&k=6"):
        page.goto(start + address)
        settle(page)
        page.locator("#filters").evaluate("details => details.open = true")
        results = axe.Axe().run(page)
        assert results.violations_count == 0, results.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(ONE_LINE, ".score")
        assert page.evaluate(ONE_LINE, ".id")
    page.evaluate(IDS_ALONE)
    assert page.evaluate(ONE_LINE, ".code")
    assert page.evaluate(ONE_LINE, ".score")
    page.reload()
    settle(page)
    link(page, int(ids(page)[0].removeprefix("SKU/"))).click()
    settle(page)
    trail = page.locator("#trail")
    assert trail.is_visible()
    assert axe.Axe().run(page, context="#trail").violations_count == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_files_are_cached_and_named_by_their_content(server: Running) -> None:
    page = httpx.get(server.address)
    assert "'unsafe" not in page.headers["content-security-policy"]
    assert not re.search(r"<script(?! type=\"module\" src)|<style| style=| on\w+=", page.text)
    for address in re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text):
        answer = httpx.get(server.address + address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        again = httpx.get(server.address + address, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    other = httpx.get(f"{server.address}/static/0/main.js")
    assert (other.status_code, other.headers["cache-control"]) == (200, "no-cache")
    assert httpx.get(f"{server.address}/static/0/..%2fpage.py").status_code == 404
