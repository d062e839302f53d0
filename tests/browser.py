"""Pages of the report in a real headless browser: what any of them, made up or not, must do there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from chromium import find_chromium

SMALLEST_CONTRAST = 4.5  # WCAG 2.2, success criterion 1.4.3
PHONE = {"width": 360, "height": 740}
ROWS = "#claims-table > tbody > tr[data-paper]"
TESTED = f"{ROWS}:not([data-verdict=NOT_TESTED])"

# Text and its contrast with the colour behind it, of each element with text of its own that can be seen.
_CONTRASTS = """() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const color = parse(getComputedStyle(one).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  return [...document.querySelectorAll("body *")]
    .filter((element) => element.checkVisibility() && (hasText(element) || element.tagName === "SELECT"))
    .map((element) => {
      const [a, b] = [luminance(parse(getComputedStyle(element).color)), luminance(behind(element))];
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      return [ratio, `${element.tagName} ${element.textContent.trim().slice(0, 40)}`];
    });
}"""
_WIDE = """() => [...document.querySelectorAll("body *")]
  .filter((element) => element.getBoundingClientRect().right > innerWidth + 1 && !element.closest(".scroll *, .skip"))
  .map((element) => `${element.tagName}.${element.className}`)"""


@contextmanager
def launch() -> Iterator[Browser]:
    """The installed browser, without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: Browser, path: Path, **options: object) -> Iterator[Page]:
    """A page of the report when its table is ready; at the end, without an error or a request to the network."""
    context = browser.new_context(**options)
    page, complaints = context.new_page(), list[str]()
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith(("data:", "file:")) else complaints.append(request.url),
    )
    try:
        page.goto(path.as_uri())
        if options.get("java_script_enabled", True):
            page.wait_for_selector(".dt-info")
        yield page
        assert not complaints, complaints
    finally:
        context.close()


def shown(page: Page, rows: str = ROWS) -> list[str]:
    """Ids of the claims in the table, in its order."""
    return page.eval_on_selector_all(rows, "rows => rows.map((row) => row.id)")


def show_all(page: Page) -> None:
    """Also the claims that were not tested."""
    page.locator("#filter-verdict").select_option("")


def check_page(browser: Browser, path: Path) -> None:
    """All that a page of the report must do, whatever its claims and figures."""
    with open_page(browser, path) as page:
        check_first_view(page)
        check_links_and_images(page)
        check_sorting(page)
        check_filters(page)
        check_opening(page)
        check_print(page)
    for scheme in ("light", "dark"):
        with open_page(browser, path, color_scheme=scheme) as page:
            check_contrast(page)
    with open_page(browser, path, viewport=PHONE) as page:
        check_width(page)


def check_first_view(page: Page) -> None:
    """The table opens with the claims that were tested; with all of them, if none was."""
    at_first = shown(page)
    show_all(page)
    assert at_first == (shown(page, TESTED) or shown(page))


def check_links_and_images(page: Page) -> None:
    """Every link within the page leads somewhere, also from rows not opened yet, and every picture is drawn."""
    show_all(page)
    lost = page.evaluate(
        """() => [...document.querySelectorAll('a[href^="#"]')].map((link) => link.hash.slice(1))
          .filter((id) => !document.getElementById(id))"""
    )
    assert lost == []
    drawn = page.evaluate(
        """() => Promise.all([...document.images].map((image) =>
          image.decode().then(() => image.naturalWidth > 100, () => false)))"""
    )
    assert drawn and all(drawn)


def check_sorting(page: Page) -> None:
    """By click and by key, and said to who cannot see it."""
    first = shown(page)
    header = page.locator("#claims-table thead th").first
    header.click()
    expect(header).to_have_attribute("aria-sort", "ascending")
    rising = shown(page)
    assert sorted(rising) == sorted(first)
    header.locator("[role=button]").focus()
    page.keyboard.press("Enter")
    expect(header).to_have_attribute("aria-sort", "descending")
    assert shown(page) == rising[::-1]


def check_filters(page: Page) -> None:
    """Each filter leaves the claims that it names, and no other."""
    show_all(page)
    everything, tested = len(shown(page)), len(shown(page, TESTED))
    for name in ("paper", "verdict", "fidelity"):
        select = page.locator(f"#filter-{name}")
        values = [
            value for value in select.locator("option").evaluate_all("all => all.map((one) => one.value)") if value
        ]
        wanted = page.eval_on_selector_all(ROWS, f"rows => rows.map((row) => row.dataset.{name})")
        for value in values:
            select.select_option(value)
            assert len(shown(page)) == (tested if value == "tested" else wanted.count(value))
        select.select_option("")
    word = page.locator("#claims-table .statement").first.inner_text()
    page.locator("#filter-text").fill(word)
    assert 1 <= len(shown(page)) < everything
    assert page.locator(".dt-info").inner_text() == f"{len(shown(page))} of {everything} claims"
    page.locator("#filter-text").fill("")
    assert len(shown(page)) == everything


def check_opening(page: Page) -> None:
    """Enter and Space open a row and close it; it holds its numbers, its command and, where it has one, its figure."""
    row = page.locator(TESTED).first
    opener = row.locator(".opener")
    opener.focus()
    for key in ("Enter", "Space"):
        page.keyboard.press(key)
        assert opener.get_attribute("aria-expanded") == "true"
        detail = page.locator(".detail:visible")
        assert detail.locator(".seeds tbody tr").count() >= 2
        assert "snakemake" in detail.locator(".command").inner_text()
        figure = detail.get_attribute("data-figure")
        assert detail.locator("img").count() == (1 if figure else 0)
        page.keyboard.press(key)
        assert opener.get_attribute("aria-expanded") == "false"
        assert page.locator(".detail:visible").count() == 0
    outline = opener.evaluate("one => [one.matches(':focus-visible'), getComputedStyle(one).outlineStyle]")
    assert outline == [True, "solid"]


def check_print(page: Page) -> None:
    """All claims with their essentials and without controls, whatever was filtered on the screen."""
    show_all(page)
    everything = shown(page)
    page.locator("#filter-text").fill("no claim says this")
    assert shown(page) == []
    page.emulate_media(media="print")
    page.wait_for_function(
        "count => document.querySelectorAll('#claims-table tr[data-paper]').length === count", arg=len(everything)
    )
    cells = page.eval_on_selector_all(
        "#claims-table tr[data-paper] td", "cells => cells.map((cell) => [cell.offsetWidth > 0, cell.innerText.trim()])"
    )
    assert len(cells) == 8 * len(everything)
    assert all(width and text for width, text in cells)
    for control in ("#filters", "nav", ".dt-info"):
        assert not page.locator(control).is_visible()
    page.emulate_media(media="screen")
    page.wait_for_function("() => !document.querySelector('#claims-table tr[data-paper]')")
    page.locator("#filter-text").fill("")


def check_contrast(page: Page) -> None:
    """Text can be read on what lies behind it, also in an opened row."""
    page.locator(".opener").first.click()
    contrasts = page.evaluate(_CONTRASTS)
    assert len(contrasts) > 100
    assert [text for ratio, text in contrasts if ratio < SMALLEST_CONTRAST] == []


def check_width(page: Page) -> None:
    """Nothing is wider than a phone, also in opened rows; wide tables of numbers scroll by themselves."""
    for opener in page.locator(".opener").all()[:5]:
        opener.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.evaluate(_WIDE) == []
