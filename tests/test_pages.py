"""The pages in a browser: what the filters of flips.html show, and that nothing is wider than a phone."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lib.evaluation.comparison import Run
from lib.figures import flips, report
from lib.tasks.task import Task
from tests.test_comparison import ONE, TWO
from tests.test_jupyterlab import BROWSER, QUIET
from tests.test_ledger import ROW
from tests.test_report import MANIFEST, SCORES

EVIL = "</script><script>alert(1)</script>"
TASKS = tuple(
    Task(name, "here", "test", f"দুইয়ের গুণ {EVIL}", "bn", language, "function", "double", tier=tier,
         visible_tests=("assert double(2) == 4",), hidden_tests=("assert double(-1) == -2",))
    for name, language, tier in (("a", "python", 1), ("b", "python", 2), ("c", "lua", 2))
)  # fmt: skip
PROGRAM = "def double(n):\n    return 2 * n  # " + "x" * 200 + EVIL


def run(named: Run, right: dict[str, str]) -> Run:
    """A run whose models have these greedy verdicts, one letter per task: r for right, w for wrong."""
    greedy = {
        model: [
            dataclasses.replace(ROW, task_id=task.task_id, program=PROGRAM, hidden_ok=letter == "r", visible_ok=True,
                                status="success" if letter == "r" else "wrong-output",
                                failure="" if letter == "r" else f"assert double(-1) == -2: got 2, expected -2 {EVIL}")
            for task, letter in zip(TASKS, letters, strict=True)
        ]
        for model, letters in right.items()
    }  # fmt: skip
    return dataclasses.replace(named, tasks=TASKS, greedy=greedy)


RUNS = [run(ONE, {"base": "wwr", "rsft": "rww"}), run(TWO, {"base": "www", "rsft": "wrw"})]


def test_no_value_becomes_markup_and_nothing_is_fetched() -> None:
    page = flips.render(RUNS)
    assert page.count("<script") == 1 and "&lt;script&gt;" in page
    assert "http" not in page and "<link" not in page and "src=" not in page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not BROWSER:
        pytest.skip("no Chromium: the pages were not tried in a browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=QUIET)
        yield opened
        opened.close()


@pytest.fixture
def pages(tmp_path: Path) -> dict[str, Path]:
    """flips.html of two runs and the report of a run with scores, comparisons, a figure and a banner."""
    (tmp_path / "flips.html").write_text(flips.render(RUNS))
    (tmp_path / "scores.csv").write_text(SCORES)
    (tmp_path / "manifest.json").write_text(json.dumps(MANIFEST))
    return {"flips": tmp_path / "flips.html", "report": report.build(tmp_path)}


@pytest.mark.parametrize("name", ["flips", "report"])
@pytest.mark.parametrize("width", [420, 1200])
def test_a_page_fits_its_width(browser: Any, pages: dict[str, Path], name: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(pages[name].as_uri())
    for fold in page.locator("details > summary").all():
        fold.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 420:  # tables are lists there: no cell is beyond the right edge
        assert page.evaluate(
            "[...document.querySelectorAll('td[data-name]')].every(cell => cell.getBoundingClientRect().right <= 420)"
        )
    page.close()


def test_the_filters_of_the_flips(browser: Any, pages: dict[str, Path]) -> None:
    page = browser.new_page()
    page.goto(pages["flips"].as_uri())

    def shown() -> list[str]:
        return [text[0] for text in page.locator("section:visible h2").all_inner_texts()]

    output = page.locator("form > output")
    assert shown() == ["a", "b"]  # seed0's rsft beside seed1's: a is lost, b gained, c wrong in both
    assert output.inner_text() == "1 gained, 1 lost, 1 the same"
    assert page.locator("section:visible .sides > div:visible").count() == 4
    page.select_option("[name=show]", "lost")
    assert shown() == ["a"]
    page.select_option("[name=show]", "all")
    page.select_option("[name=tier]", "2")
    assert shown() == ["b", "c"]
    page.select_option("[name=language]", "lua")
    assert shown() == ["c"]
    page.select_option("[name=language]", "")
    page.select_option("[name=tier]", "")
    page.select_option("[name=left]", label="seed0, base")
    page.select_option("[name=right]", label="seed0, rsft")
    page.select_option("[name=show]", "flips")
    assert shown() == ["a", "c"]
    kinds = page.locator("[name=troopers_type] option").all_inner_texts()
    page.select_option("[name=troopers_type]", kinds[1])
    assert shown() == ["a", "c"] and len(kinds) == 2
    page.close()
