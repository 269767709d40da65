"""Reports as a person sees them: in a browser, without a network."""

from __future__ import annotations

import html
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caspi import commands
from caspi.reporting.charts import Chart, Line, draw, ticks
from caspi.reporting.report import Page, Table, fingerprint, write_report
from tests.support import CHROMIUM


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    lines = [
        {"reference": "הילד הגדול קנה ספר", "hypothesis": "הילד גדול קנה", "source": "a", "seconds": 3.0},
        {"reference": "<script>alert(1)</script> שלום", "hypothesis": "", "source": "<script>b", "seconds": 20.0},
    ]
    file = folder / "x.jsonl"
    file.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    commands.score.run(file, "Hebrew", folder / "out")
    return folder / "out" / "report.html"


def test_nothing_is_fetched_and_nothing_of_the_text_runs(evaluation: Path) -> None:
    page = evaluation.read_text(encoding="utf-8")
    # Its own, which sorts and filters, and the rows of the table that it pages through.
    assert page.count("<script>") == page.count('<script type="application/json">') == 1
    assert "<script>alert" not in page.replace(html.escape("<script>alert"), "").split("application/json")[0]
    assert page.count("</script>") == 2
    assert "&lt;script&gt;" in page
    for attribute in ("src=", 'href="http', "@import", "url(", "fetch(", "import("):
        assert attribute not in page


def test_reports_carry_where_they_come_from(evaluation: Path) -> None:
    content = json.loads((evaluation.parent / "report.json").read_text(encoding="utf-8"))
    assert content["fingerprint"] == fingerprint(evaluation.parents[1] / "x.jsonl")
    assert {"date", "revision", "python", "machine", "libraries"} == content["environment"].keys()
    assert content["environment"]["libraries"]["transformers"][0].isdigit()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, or no playwright (extra dev)")
def test_a_browser_shows_hebrew_right_to_left_and_fits_a_phone(evaluation: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        requested: list[str] = []
        for width in (1200, 390):
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="light")
            page.on("request", lambda request: requested.append(request.url))
            page.goto(evaluation.as_uri())
            assert "WER" in page.inner_text(".headline")
            worst = page.locator("section", has=page.locator("h2", has_text="with the most errors"))
            cells = worst.locator("td.speech", has_text="הילד")
            assert cells.count() == 1
            for index in range(cells.count()):
                assert cells.nth(index).evaluate("e => getComputedStyle(e).direction") == "rtl"
            overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            assert overflow <= 0, f"the page is wider than a window of {width}"
        assert all(url.startswith("file:") for url in requested)
        browser.close()


@pytest.mark.parametrize("point", [(30.0, 1.0), (0.0, 0.0), (7.0, 0.0)])
def test_a_chart_of_one_point_shows_it(point: tuple[float, float]) -> None:
    """A run with a single evaluation, at a round step or with a WER of 0."""
    assert draw(Chart("t", [Line("a", [point])], "x", "y")).count("<circle") == 1


def test_charts_are_drawn_within_their_frame() -> None:
    svg = str(draw(Chart("c", [Line("loss", [(0, 5.0), (10, 2.0), (20, 0.5)])], "step", "loss")))
    points = [tuple(map(float, p.split(","))) for p in svg.split('points="')[1].split('"', maxsplit=1)[0].split()]
    assert len(points) == 3
    assert all(0 <= x <= 720 and 0 <= y <= 260 for x, y in points)
    assert points[0][1] < points[1][1] < points[2][1], "larger is higher"


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_and_enclose_the_data(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert 2 <= len(found) <= 7
    step = found[1] - found[0]
    assert found[0] <= low + 1e-6 * step
    assert found[-1] >= low + span - 1e-6 * step


def test_a_report_without_data_still_reads(tmp_path: Path) -> None:
    path = write_report(tmp_path, Page("t", "h", [], [Chart("c", [], "x", "y"), Table("t", ("a",), [])]), {})
    assert "no data" in path.read_text()
