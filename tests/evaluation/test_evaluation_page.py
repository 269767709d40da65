"""The pages of evaluate and compare in a browser: sorting, filtering, playing audio."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from caspi import commands
from caspi.evaluation.evaluation_page import difference
from caspi.evaluation.pairs import TranscriptPair
from caspi.evaluation.results import RESULTS
from caspi.reporting.charts import Chart, Line, draw
from tests.support import CHROMIUM

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, or no playwright (extra dev)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"],
        )


@pytest.fixture(scope="module")
def evaluated(small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pages") / "tiny"
    commands.evaluate.run("tiny", [str(small_corpus)], out)
    return out


def rows(page: Any, title: str) -> list[list[str]]:
    """Cells of the visible rows of the table under a heading."""
    section = page.locator("section", has=page.locator("h2", has_text=title))
    return section.locator("tbody tr:visible").evaluate_all(  # type: ignore[no-any-return]
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent.trim()))"
    )


@pytest.mark.parametrize("width", [1200, 390])
def test_the_worst_utterances_can_be_sorted_filtered_and_played(browser: Any, evaluated: Path, width: int) -> None:
    requested: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark")
    page.on("request", lambda request: requested.append(request.url))
    page.goto((evaluated / "report.html").as_uri())
    worst = page.locator("section", has=page.locator("h2", has_text="with the most errors"))
    before = [int(row[0]) for row in rows(page, "with the most errors")]
    assert before == sorted(before, reverse=True)
    worst.locator("th button", has_text="errors").click()
    worst.locator("th button", has_text="errors").click()
    assert [int(row[0]) for row in rows(page, "with the most errors")] == sorted(before)
    wanted = rows(page, "with the most errors")[0][-1]
    worst.locator(".filter").fill(wanted)
    assert [row[-1] for row in rows(page, "with the most errors")] == [wanted]
    worst.locator(".filter").fill("nobody said this")
    assert rows(page, "with the most errors") == []
    worst.locator(".filter").fill("")
    played = worst.locator("audio").first.evaluate(
        "async audio => { await audio.play(); await new Promise(f => setTimeout(f, 300)); return audio.currentTime; }"
    )
    assert played > 0
    assert worst.locator("del").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    assert all(url.startswith(("file:", "data:")) for url in requested)


def test_the_comparison_shows_what_got_better_and_worse(browser: Any, evaluated: Path, tmp_path: Path) -> None:
    """B has half of the utterances right, and one wrong that A had right."""
    found = [json.loads(line) for line in (evaluated / RESULTS).read_text(encoding="utf-8").split("\n") if line]
    for name in ("a", "b"):
        lines = [
            {key: row[key] for key in ("id", "reference", "group", "language")}
            | {"hypothesis": row["reference"] if (number % 2 == (name == "b")) else row["hypothesis"]}
            for number, row in enumerate(found)
        ]
        file = tmp_path / f"{name}.jsonl"
        file.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
        commands.score.run(file, "Hebrew", tmp_path / name)
    shutil.copy(evaluated / "report.json", tmp_path / "a" / "report.json")  # names the corpus
    outcome = commands.compare.run(tmp_path / "a", tmp_path / "b", tmp_path / "compare")
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(outcome.path.as_uri())
    better, worse = rows(page, "Better in B"), rows(page, "Worse in B")
    assert len(better) == outcome.summary["better"] == 6
    assert len(worse) == outcome.summary["worse"] == 6
    assert all(int(row[0]) > int(row[1]) == 0 for row in better)
    assert page.locator("audio").count() == 12


def test_hebrew_is_right_to_left_even_if_a_row_begins_with_latin(browser: Any, tmp_path: Path) -> None:
    """Every word is wrong, and one is Latin: the first reference word is on the right."""
    lines = ["reference,hypothesis", "היא קנתה iPhone חדש אתמול,הוא מכר iphone ישן היום", "iPhone חדש,אייפון חדש"]
    (tmp_path / "x.csv").write_text("\n".join(lines), encoding="utf-8")
    outcome = commands.score.run(tmp_path / "x.csv", "Hebrew", tmp_path / "out")
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(outcome.path.as_uri())
    cells = page.locator("section", has=page.locator("h2", has_text="with the most errors")).locator("td.speech")
    for cell in cells.all():
        assert cell.evaluate("cell => getComputedStyle(cell).direction") == "rtl"
    words = cells.first.locator("del").evaluate_all("all => all.map(e => [e.textContent, e.getBoundingClientRect().x])")
    places = dict(words)
    assert places["היא"] > places["קנתה"] > places["חדש"] > places["אתמול"]
    assert "iPhone" in cells.first.text_content()  # the original spelling, not the normalised one


def dom(page: Path) -> str:
    """The DOM of a page in a real browser, after its scripts."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def test_all_utterances_can_be_browsed_with_original_text(tmp_path: Path) -> None:
    rows = [
        {"id": f"u{n}", "reference": f"מחיר 3.11 [צחוק] {n} <b>", "hypothesis": f"מחיר 3.11 {n}", "source": "x"}
        for n in range(120)
    ]
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    commands.score.run(path, "Hebrew", tmp_path / "out")
    found = dom(tmp_path / "out" / "report.html")
    section = found.split("All utterances</h2>")[1]
    assert section.split("</tbody>")[0].count("<tr>") == 51  # fifty and the header row
    assert "1 to 50 of 120" in section
    assert "מחיר 3.11 [צחוק] 0 &lt;b&gt;" in section


def test_text_that_the_score_ignores_is_shown_in_place() -> None:
    pair = TranscriptPair("u", "מחיר 3.11 [צחוק] טוב", "", language="Hebrew")
    steps = difference(pair, "מחיר 3.11 רע").steps
    written = [expected for _, expected, _ in steps if expected]
    assert written == ["מחיר", "3.11", "[צחוק]", "טוב"]  # 3.11 is two words for the score
    assert [kind for kind, *_ in steps] == ["equal", "equal", "equal", "replace"]


def test_two_point_curves_are_bars_and_large_steps_have_no_exponent() -> None:
    drawn = str(draw(Chart("t", [Line("a", [(0, 1.0), (2_000_000, 2.0)]), Line("b", [(0, 1.0)])], "step", "loss")))
    assert "2,000,000" in drawn
    assert "e+06" not in drawn
    assert '<p class="legend">' in drawn


def test_a_comparison_has_breakdowns_and_shows_equally_wrong_changes(tmp_path: Path) -> None:
    folders = []
    for name, said in (("a", ["שלום רע", "ילד קטן"]), ("b", ["שלום עולם", "ילד אחר"])):
        rows = [
            {"id": str(n), "reference": ("שלום עולם", "ילד גדול")[n % 2], "hypothesis": said[n % 2],
             "source": f"set{n % 2}", "group": f"s{n % 4}", "seconds": 2.0 + 8 * (n % 3)}
            for n in range(24)
        ]  # fmt: skip
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
        commands.score.run(path, "Hebrew", tmp_path / name)
        folders.append(tmp_path / name)
    summary = commands.compare.run(*folders, tmp_path / "c").summary
    assert summary["by"]["source"]["set0"]["difference"] == 0.5
    assert summary["by"]["source"]["set1"]["difference"] == 0
    assert set(summary["by"]) == {"source", "duration", "speaker or recording"}
    page = (tmp_path / "c" / "report.html").read_text(encoding="utf-8")
    assert "Different hypotheses, same number of errors" in page
    assert "Difference by duration" in page
