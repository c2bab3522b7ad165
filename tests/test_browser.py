"""Pages in a browser: what they do, at three widths, in the dark, on paper."""

import importlib.util
import re
import shutil

import pytest

from experiments.analysis import runs
from experiments.analysis.comparisons import Analysis
from experiments.reporting import page as pages
from experiments.reporting import runs as reporting_runs
from experiments.studies import store
from tests.stores import DOCUMENT, make_store
from tests.test_comparing_runs import make_run

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or not importlib.util.find_spec("axe_playwright_python"),
        reason="needs Chromium and pip install -e '.[browser]'",
    ),
]
DETAILS = "document.querySelectorAll('details').forEach(each => {each.open = true})"
# Arms enough for panels of their own, and names as long as they may be.
PLAN = DOCUMENT | {
    "arms": {
        "none": {"reg": "none", "title": "nothing"},
        "dropout": {"reg": "dropout", "rate": 0.2},
        **{
            f"plane_{n}": {
                "reg": "plane",
                "title": f"a title of forty characters, no. {n:2}",
            }
            for n in range(9)
        },
    },
    "comparisons": [["dropout", "none"], *([f"plane_{n}", "none"] for n in range(9))],
    "hypotheses": {
        "first": {
            "text": "Noise in the plane helps.",
            "comparisons": [["plane_0", "none"]],
            "confirmed_if": "all",
        }
    },
    "seeds": 12,
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    study = store.read(
        [make_store(folder, plan_document=PLAN, effects={"plane_0": 8, "plane_1": -40})]
    )
    (folder / "report.html").write_text(pages.build(Analysis(study)), encoding="utf-8")
    return folder / "report.html"


@pytest.fixture(scope="module")
def runs_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    folders = [
        make_run(folder / f"a name of some length, {gain}", "water", gain)
        for gain in range(4)
    ]
    return reporting_runs.write(runs.read(folders), folder)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )


@pytest.fixture
def show(browser, path):
    """Opens the page; nothing may be asked of a server or said on the console."""
    said, opened, local = [], [], set()

    def show(width=1400, scheme="light", path=path, **options):
        local.add(path.as_uri())
        view = {"width": width, "height": 900}
        page = browser.new_page(viewport=view, color_scheme=scheme, **options)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url))
        page.goto(path.as_uri())
        opened.append(page)
        return page

    yield show
    for page in opened:
        page.close()
    assert [
        s for s in said if s not in local and not s.startswith(("data:", "blob:"))
    ] == []


@pytest.mark.parametrize(
    ("width", "scheme", "kind"),
    [
        *((390, "dark", "path"), (820, "light", "path"), (1400, "light", "path")),
        *((390, "light", "runs_path"), (1400, "dark", "runs_path")),
    ],
)
def test_the_page_fits_and_axe_finds_nothing_serious(
    show, width, scheme, kind, request
):
    from axe_playwright_python.sync_playwright import Axe

    page = show(width, scheme, request.getfixturevalue(kind))
    page.evaluate(DETAILS)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    found = Axe().run(page).response["violations"]
    serious = [
        (each["id"], each["nodes"][0]["html"][:200], each["nodes"][0]["failureSummary"])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == []
    if width == 1400:  # nothing is hidden beyond the edge of what scrolls
        clipped = page.evaluate(
            "[...document.querySelectorAll('.scroll')].filter(each => "
            "each.scrollWidth > each.clientWidth + 1).map(each => each.ariaLabel)"
        )
        assert clipped == []


def test_the_answer_comes_first_and_sections_open_by_a_link_or_a_key(show):
    page = show()
    assert page.locator(".answers li").count() == 1
    bottom = page.evaluate(
        "document.querySelector('.forest').getBoundingClientRect().bottom"
    )
    assert bottom < 2 * 900
    assert page.evaluate("document.documentElement.scrollHeight") < 10 * 900
    training = page.locator("#training")
    assert training.get_attribute("open") is None
    page.get_by_role("link", name="Training").click()
    assert training.get_attribute("open") is not None
    calibration = page.locator("#calibration > summary")
    calibration.focus()
    page.keyboard.press("Enter")
    assert page.locator("#calibration").get_attribute("open") is not None


def test_a_table_is_sorted_and_filtered(show):
    page = show()
    forest = page.locator(".forest")
    shown = forest.locator("tbody tr:not(.group):visible")
    everything, field = shown.count(), page.get_by_label("Filter Differences with")
    field.fill("plane wins")
    assert shown.count() == 0
    field.fill("wins")
    assert 0 < shown.count() < everything
    field.fill("")
    page.get_by_role("button", name="difference [95 %]").click()
    cells = forest.locator("tbody").last.locator("tr:not(.group) td:nth-of-type(2)")
    values = [
        float(re.sub(r" .*", "", text).replace("−", "-"))
        for text in cells.all_inner_texts()
    ]
    assert len(values) > 3 and values == sorted(values)
    header = forest.locator("th[aria-sort]")
    assert header.get_attribute("aria-sort") == "ascending"


def test_a_seed_that_is_pointed_at_is_marked_in_every_arm(show):
    page = show()
    page.get_by_role("link", name="Every seed").click()
    page.locator("[data-seed='3']").first.hover(force=True)
    assert page.locator(".hot").count() == len(PLAN["arms"])
    assert set(
        page.locator(".hot").evaluate_all("all => all.map(e => e.dataset.seed)")
    ) == {"3"}


def test_tables_and_figures_are_saved_from_the_page(show):
    page = show()
    with page.expect_download() as download:
        page.get_by_role(
            "button", name="Save Differences with intervals as CSV"
        ).click()
    text = download.value.path().read_text(encoding="utf-8")
    assert text.splitlines()[0].startswith('"comparison"')
    page.evaluate(DETAILS)
    for kind, start in (("SVG", b"<svg"), ("PNG", b"\x89PNG")):
        with page.expect_download() as download:
            page.locator(f"button[aria-label^='Save as {kind}']").first.click()
        content = download.value.path().read_bytes()
        assert content.startswith(start) and b"var(--undefined" not in content


def test_paper_shows_what_is_closed(show, tmp_path):
    page = show()
    closed = page.locator("#calibration figure").first
    assert not closed.is_visible()
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert closed.is_visible()
    page.set_viewport_size({"width": 760, "height": 1000})
    assert page.evaluate("document.documentElement.scrollWidth") <= 760
    assert not page.locator("nav").is_visible()


def test_everything_can_be_read_without_the_script(browser, path):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    page.locator("#training > summary").click()
    assert page.locator("#training figure").first.is_visible()
    assert "Noise in the plane helps." in page.locator(".answers").inner_text()
    context.close()
