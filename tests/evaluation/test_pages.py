"""The pages of evaluate and compare in a browser: sorted, filtered, listened to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from caspi import commands
from caspi.evaluation.summary import RESULTS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


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
    commands.evaluate("tiny", [str(small_corpus)], out)
    return out


def rows(page: Any, title: str) -> list[list[str]]:
    """Cells of the rows that are seen, of the table under a heading."""
    section = page.locator("section", has=page.locator("h2", has_text=title))
    return section.locator("tbody tr:visible").evaluate_all(  # type: ignore[no-any-return]
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent.trim()))"
    )


@pytest.mark.parametrize("width", [1200, 390])
def test_the_worst_utterances_are_sorted_filtered_and_heard(browser: Any, evaluated: Path, width: int) -> None:
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
    """B hears half of it right, and one that A had right not at all."""
    found = [json.loads(line) for line in (evaluated / RESULTS).read_text(encoding="utf-8").split("\n") if line]
    for name in ("a", "b"):
        lines = [
            {key: row[key] for key in ("id", "reference", "group", "language")}
            | {"hypothesis": row["reference"] if (number % 2 == (name == "b")) else row["hypothesis"]}
            for number, row in enumerate(found)
        ]
        file = tmp_path / f"{name}.jsonl"
        file.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
        commands.score(file, "Hebrew", tmp_path / name)
    shutil.copy(evaluated / "report.json", tmp_path / "a" / "report.json")  # says which corpus it is of
    outcome = commands.compare(tmp_path / "a", tmp_path / "b", tmp_path / "compare")
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(outcome.path.as_uri())
    better, worse = rows(page, "Better in B"), rows(page, "Worse in B")
    assert len(better) == outcome.summary["better"] == 6
    assert len(worse) == outcome.summary["worse"] == 6
    assert all(int(row[0]) > int(row[1]) == 0 for row in better)
    assert page.locator("audio").count() == 12


def test_hebrew_runs_from_right_to_left_whatever_a_row_begins_with(browser: Any, tmp_path: Path) -> None:
    """Every word wrong, a Latin word among them: the first word said is on the right."""
    lines = ["reference,hypothesis", "היא קנתה iPhone חדש אתמול,הוא מכר iphone ישן היום", "iPhone חדש,אייפון חדש"]
    (tmp_path / "x.csv").write_text("\n".join(lines), encoding="utf-8")
    outcome = commands.score(tmp_path / "x.csv", "Hebrew", tmp_path / "out")
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(outcome.path.as_uri())
    cells = page.locator("section", has=page.locator("h2", has_text="with the most errors")).locator("td.speech")
    for cell in cells.all():
        assert cell.evaluate("cell => getComputedStyle(cell).direction") == "rtl"
    words = cells.first.locator("del").evaluate_all("all => all.map(e => [e.textContent, e.getBoundingClientRect().x])")
    places = dict(words)
    assert places["היא"] > places["קנתה"] > places["חדש"] > places["אתמול"]
    assert "iPhone" in cells.first.text_content()  # as it was written, not as it was compared
