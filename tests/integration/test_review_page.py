"""The page of `review` in a browser: a reader opens a series, turns its slices, windows it and judges it."""

import json
import shutil
import time

import pytest

from anomalib_medical.edge.review import VERDICTS, Review
from anomalib_medical.edge.review_pages import ReviewPages, ReviewServer
from tests.helpers.file_server import answering
from tests.helpers.results import score, write_originals

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright, and Chromium")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        # Its sandbox does not start for root, which containers run as.
        opened = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def server(tmp_path):
    output = score(write_originals(tmp_path / "in"), tmp_path / "out")
    with answering(ReviewServer(ReviewPages(Review(output), "Scrd fp32, bundle 0123", None))) as started:
        yield started, output


def open_page(browser, server, **settings):
    page = browser.new_page(**settings)
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda said: "Content Security" in said.text and page.problems.append(said.text))
    page.on("request", lambda asked: asked.url.startswith(server.address) or page.problems.append(asked.url))
    page.goto(server.address)
    page.wait_for_selector("#worklist button")
    return page


def shade(page, x, y):
    """The red of the canvas where it is so far from its upper left corner, in shares."""
    return page.evaluate(
        "([x, y]) => { const c = document.getElementById('image');"
        " return c.getContext('2d').getImageData(x * c.width, y * c.height, 1, 1).data[0]; }",
        [x, y],
    )


def until(page, expression):
    """Wait for an expression; Playwright's own waiting evaluates strings in the page, which its policy forbids."""
    end = time.monotonic() + 20
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)


def painted(page, number):
    until(
        page,
        f"document.getElementById('slice-number').textContent.startsWith('{number} ')"
        " && document.getElementById('image').width === 30 && document.getElementById('over').complete",
    )
    page.wait_for_load_state("networkidle")


def test_a_reader_works_with_the_keyboard_alone(browser, server):
    started, output = server
    page = open_page(browser, started)
    names = page.locator("#worklist button").all_inner_texts()
    assert [name.split("\n")[0].split()[1] for name in names] == ["abnormal", "abnormal", "normal", "normal"]
    assert "5 slices" in names[1]
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    painted(page, 3)  # the worst slice
    assert page.evaluate("document.activeElement.id") == "study-title"
    page.keyboard.press("ArrowUp")
    painted(page, 2)
    page.keyboard.press("ArrowDown")
    painted(page, 3)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "stage"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for key, number in (("ArrowDown", 4), ("End", 5), ("ArrowDown", 5), ("Home", 1), ("PageDown", 5), ("ArrowUp", 4)):
        page.keyboard.press(key)
        painted(page, number)
    page.locator("#comment").focus()
    page.keyboard.type("beam hardening")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # disagree
    until(page, "document.getElementById('status').textContent.startsWith('Kept')")
    (line,) = (output / VERDICTS).read_text().splitlines()
    kept = json.loads(line)
    assert (kept["verdict"], kept["label"], kept["comment"]) == ("disagree", "normal", "beam hardening")
    assert kept["item"] in names[1]
    assert "1 with a verdict" in page.locator("#worklist-title").inner_text()
    assert page.problems == []


def test_wheel_window_and_blending(browser, server):
    page = open_page(browser, server[0])
    page.locator("#worklist button").nth(1).click()
    painted(page, 3)
    page.locator("#stage").hover()
    page.mouse.wheel(0, -100)
    painted(page, 2)
    before = shade(page, 0.25, 0.5), shade(page, 0.75, 0.5)
    assert before[0] > before[1]
    page.locator("#level").focus()
    page.keyboard.press("End")  # the level as high as can be: all is darker
    page.wait_for_timeout(100)
    assert shade(page, 0.25, 0.5) < before[0]
    page.locator("#reset").click()
    page.wait_for_timeout(100)
    assert (shade(page, 0.25, 0.5), shade(page, 0.75, 0.5)) == before
    page.locator("#stage").scroll_into_view_if_needed()
    box = page.locator("#image").bounding_box()
    page.mouse.move(box["x"] + 50, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 50, box["y"] + 200, steps=5)
    page.mouse.up()
    page.wait_for_timeout(100)
    assert shade(page, 0.25, 0.5) < before[0]
    page.locator("#blend").fill("40")
    until(page, "document.getElementById('over').style.opacity === '0.4'")
    page.locator("#two").check()
    until(page, "document.getElementById('map').offsetWidth > 50")
    left, right = (page.locator(f"#{name}").bounding_box() for name in ("image", "map"))
    assert right["x"] >= left["x"] + left["width"]
    assert abs(right["height"] - left["height"]) < 2
    assert page.problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_nothing_is_wider_than_the_window_and_all_has_a_name(browser, server, scheme, width):
    page = open_page(browser, server[0], viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.locator("#worklist button").nth(1).click()
    painted(page, 3)
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.locator("#two").check()
        page.wait_for_timeout(100)
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, input, textarea, canvas, #stage')].filter((e) =>"
        " !(e.labels?.length || e.textContent.trim() || e.getAttribute('aria-label'))).map((e) => e.id)"
    )
    assert nameless == []
    paper, ink = page.evaluate(
        "(({backgroundColor, color}) => [backgroundColor, color])(getComputedStyle(document.body))"
    )
    is_dark = [sum(map(int, colour[4:-1].split(","))) < 384 for colour in (paper, ink)]
    assert is_dark == [scheme == "dark", scheme == "light"]
    assert page.problems == []
