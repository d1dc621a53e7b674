"""Function tasks and their tests: the verdict is what plain Python says, or that the test cannot be asked here."""

import json
from pathlib import Path

import pytest

from lib.sandbox import Sandbox
from lib.tasks.task import Task

ROWS = [
    json.loads(line) for line in Path(__file__).with_name("cases").joinpath("asserts.jsonl").read_text().splitlines()
]


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=1) as sandbox:
        yield sandbox


def task_of(row: dict) -> Task:
    setup = row.get("setup_code", "")
    limit = row.get("time_limit_s", 5)
    return Task(
        row["name"], "cases", "test", row.get("prompt", "p"), "en", "python", "function", row["entry_point"],
        tuple(row["tests"]), setup_code=setup, time_limit_s=limit,
    )  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['kind']}-{row['name']}")
def test_case(sandbox, row):
    verdict = sandbox.grade(task_of(row), row["program"])
    assert verdict.status in (row["expect"], *row.get("also_accepted", ())), verdict.failure


PLAIN = [row for row in ROWS if "pytest" not in row["name"] and row["expect"] not in ("timeout", "output-limit")]


@pytest.mark.parametrize("row", PLAIN, ids=lambda row: f"{row['kind']}-{row['name']}")
def test_plain_python_agrees(row):
    """The yardstick: set-up code, program and tests in one namespace."""
    passes = True
    try:
        namespace: dict[str, object] = {"__name__": "solution"}
        for source in (row.get("setup_code", ""), row["program"], *row["tests"]):
            exec(source, namespace)
            if source == row["program"] and row["kind"] == "setup-names":
                exec(row["setup_code"], namespace)  # variables of the set-up code are the tests' own
    except BaseException:
        passes = False
    accepted = (row["expect"], *row.get("also_accepted", ()))
    assert passes == ("success" in accepted) or accepted == ("unsupported-test",)
