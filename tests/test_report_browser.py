"""The report in a real headless browser, on one small page. Not collected where no browser is found."""

import pytest

import browser as checks
from browser import launch, open_page, shown
from report_page import draw_figures, make_page

pytestmark = pytest.mark.slow  # a browser


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    draw_figures(folder)
    path = folder / "report.html"
    path.write_text(make_page(folder), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def chromium():
    with launch() as browser:
        yield browser


@pytest.fixture
def page(chromium, path):
    with open_page(chromium, path) as page:
        yield page


def test_links_resolve_and_images_load_without_a_network(page):
    checks.check_links_and_images(page)


def test_the_table_sorts_by_click_and_by_key(page):
    checks.check_sorting(page)


@pytest.mark.parametrize(
    ("column", "first"), [("Claim", "A2.1"), ("Here [95 %]", "A2.1"), ("p", "A15.1"), ("Verdict", "A5.1")]
)
def test_columns_sort_by_what_they_mean(page, column, first):
    checks.show_all(page)
    page.locator("#claims-table .dt-column-title").get_by_text(column, exact=True).click()
    page.wait_for_selector("#claims-table th[aria-sort=ascending]")
    order = shown(page)
    assert order[0] == f"claim-{first}"
    if column == "Claim":
        assert order.index("claim-A3.1") < order.index("claim-A10.1") < order.index("claim-B1.1")


def test_the_table_opens_with_the_claims_that_were_tested(page):
    checks.check_first_view(page)


def test_the_table_filters(page):
    checks.check_filters(page)


def test_filters_combine_and_work_by_key(page):
    checks.show_all(page)
    page.locator("#filter-paper").focus()
    page.keyboard.press("B")
    assert shown(page) == ["claim-B1.1", "claim-B2.1"]
    page.locator("#filter-text").focus()
    page.keyboard.type("LATER run")  # words of the reason, in any case
    assert shown(page) == ["claim-B1.1"]


def test_a_row_opens_by_key(page):
    checks.check_opening(page)


def test_a_row_opens_by_a_click_with_its_figure_and_its_seeds_and_a_link_in_it_does_not_close_it(page):
    row = page.locator('[id="claim-A5.1"]')
    row.locator(".statement").click()
    detail = page.locator('[id="detail-A5.1"]')
    assert detail.locator(".seeds tbody tr").count() == 2
    own, of_section = (
        page.locator(f"{where} img").get_attribute("src") for where in (".detail", "#figure-reach_radii_leaves")
    )
    assert own == of_section
    detail.locator("a", has_text="D1").click()
    assert page.url.endswith("#D1")
    assert detail.is_visible()
    row.locator(".statement").click()
    assert not detail.is_visible()


def test_a_link_to_a_claim_opens_its_row_even_if_it_was_filtered_out(page):
    page.locator("#filter-paper").select_option("B")
    page.locator("#figure-reach_radii_leaves a", has_text="A5.1").click()
    page.wait_for_selector('[id="detail-A5.1"]')
    assert page.locator('[id="claim-A5.1"] .opener').get_attribute("aria-expanded") == "true"


def test_a_square_of_a_claim_that_was_not_tested_opens_its_row(page):
    assert "claim-B1.1" not in shown(page)
    page.locator('a[href="#claim-B1.1"]').first.click()
    page.wait_for_selector('[id="detail-B1.1"]')


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible(chromium, path, scheme):
    with open_page(chromium, path, color_scheme=scheme) as page:
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (scheme == "light")
        checks.check_contrast(page)


def test_nothing_is_wider_than_a_phone(chromium, path):
    with open_page(chromium, path, viewport=checks.PHONE) as page:
        checks.check_width(page)


def test_print_shows_all_claims_and_no_controls(page):
    checks.check_print(page)


def test_without_scripts_the_page_is_a_plain_table_with_all_details_below(chromium, path):
    with open_page(chromium, path, java_script_enabled=False) as page:
        assert page.locator("#claims-table tbody tr").count() == 8
        assert not page.locator("#filters").is_visible()
        assert page.locator("a.opener").first.get_attribute("href") == "#detail-A5.1"
        assert page.locator('[id="detail-A5.1"]').is_visible()


def test_the_page_refuses_to_fetch_anything(chromium, path):
    with pytest.raises(AssertionError, match="Content Security Policy"), open_page(chromium, path) as page:
        page.evaluate("fetch('https://example.org').catch(() => null)")
