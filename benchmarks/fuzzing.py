"""What fuzzed asserts catch and what they cost: wrong answers rejected, and right ones rejected with them.

    python benchmarks/fuzzing.py [--count N] [--ledger FILE] [--quick] [--json]

Caught: the starter tasks' shipped wrong answers, by visible and by fuzzed asserts. Falsely rejected: the references of
the 240 starter tasks and, where data/external/mbpp lies, the 974 of MBPP; each is graded once more by the asserts made
with it. The asserts are made from the visible ones and the reference alone; hidden tests are not looked at. With a
mining ledger, also what they do to its winners by the visible tests: how many of these pass the hidden tests, before
and after, and how many right programs are lost.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.common import show  # noqa: E402
from lib.mining import fuzzing  # noqa: E402
from lib.mining.grading import grade_all  # noqa: E402
from lib.mining.ledger import Ledger  # noqa: E402
from lib.mining.select import syntax_digest  # noqa: E402
from lib.sandbox import Sandbox  # noqa: E402
from lib.stats.intervals import wilson_interval  # noqa: E402
from lib.tasks import readers  # noqa: E402
from lib.tasks.task import Task, read_tasks  # noqa: E402

Row = dict[str, Any]
Asserts = Sequence[tuple[str, ...]]


def row(name: str, value: float, unit: str) -> Row:
    """One line of the result."""
    return {"name": name, "value": round(float(value), 4), "unit": unit}


def share(name: str, part: int, whole: int) -> Iterator[Row]:
    """A count and its share with Wilson limits."""
    lo, hi = wilson_interval(part, whole)
    yield row(name, part, f"of {whole}")
    for what, value in (("share", part / whole), ("share, low", lo), ("share, high", hi)):
        yield row(f"{name}, {what}", value, "share")


def passes(box: Sandbox, task: Task, tests: Sequence[str], programs: Sequence[str]) -> list[bool]:
    """Which programs pass `tests`; all do where there are none."""
    if not tests:
        return [True] * len(programs)
    only = dataclasses.replace(task, visible_tests=(), hidden_tests=tuple(tests))
    return [verdict.reward == 1 for verdict in box.grade_many([(only, program) for program in programs])]


def wrong_answers(box: Sandbox, tasks: Sequence[Task], asserts: Asserts) -> Iterator[Row]:
    """The shipped wrong answers that pass the visible tests, and those that pass the fuzzed ones too."""
    seen = kept = total = 0
    for task, more in zip(tasks, asserts, strict=True):
        by_visible = passes(box, task, task.visible_tests, task.wrong_answers)
        by_fuzzed = passes(box, task, more, task.wrong_answers)
        total, seen = total + len(by_visible), seen + sum(by_visible)
        kept += sum(a and b for a, b in zip(by_visible, by_fuzzed, strict=True))
    yield from share("wrong answers that pass visible", seen, total)
    yield from share("wrong answers that pass visible + fuzzed", kept, total)


def falsely_rejected(box: Sandbox, name: str, tasks: Sequence[Task], asserts: Asserts) -> Iterator[Row]:
    """The references that the asserts made with them reject, and the tasks that got any."""
    jobs = [
        (dataclasses.replace(task, visible_tests=(), hidden_tests=tuple(more)), task.reference)
        for task, more in zip(tasks, asserts, strict=True)
        if more
    ]
    rejected = [
        (task.task_id, verdict.failure)
        for (task, _), verdict in zip(jobs, grade_all(box, jobs), strict=True)
        if verdict.status not in fuzzing.NOT_REJECTED
    ]
    for task_id, failure in rejected:
        print(f"{name} {task_id}: {failure}", file=sys.stderr)
    yield row(f"{name}, tasks with fuzzed asserts", len(jobs), f"of {len(tasks)}")
    yield from share(f"{name}, references rejected", len(rejected), len(tasks))


def mbpp(box: Sandbox, count: int, step: int) -> Iterator[Row]:
    """The same for MBPP, where it lies beside the project."""
    file = ROOT / "data/external/mbpp/mbpp.jsonl"
    if not file.is_file():
        print(f"{file} is absent: MBPP's references were not tried", file=sys.stderr)
        return
    tasks = readers.read(str(file))[::step]
    yield from falsely_rejected(box, "MBPP", tasks, fuzzing.fuzz_all(tasks, count, 0, box))


def recorded(box: Sandbox, tasks: Sequence[Task], asserts: Asserts, ledger: str) -> Iterator[Row]:
    """The effect on distinct programs of a ledger that pass the visible tests."""
    winners: dict[str, dict[str, tuple[str, bool]]] = {task.task_id: {} for task in tasks}
    for attempt in Ledger(ledger):
        if attempt.visible_ok and attempt.task_id in winners:
            digest = syntax_digest(attempt.program)
            winners[attempt.task_id][digest] = (attempt.program, attempt.hidden_ok)
    after: list[bool] = []
    right: list[bool] = []
    for task, more in zip(tasks, asserts, strict=True):
        pairs = list(winners[task.task_id].values())
        after += passes(box, task, more, [program for program, _ in pairs])
        right += [truth for _, truth in pairs]
    found = fuzzing.effect([True] * len(after), after, right)
    yield row("ledger, winners by visible tests", found.winners, "count")
    yield row("ledger, of these rejected by fuzzed asserts", found.rejected, "count")
    yield row("ledger, right winners", found.right, "count")
    yield row("ledger, right winners rejected", found.lost, "count")
    for when, precision in (("before", found.precision_before), ("after", found.precision_after)):
        if precision:
            value, (lo, hi) = precision
            for what, number in (("", value), (", low", lo), (", high", hi)):
                yield row(f"ledger, precision {when}{what}", number, "share")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as the one JSON object."""
    tasks = read_tasks(ROOT / "data/starter_bn.jsonl")[:: 8 if options.quick else 1]
    blind = [dataclasses.replace(task, hidden_tests=()) for task in tasks]
    with Sandbox() as box:
        started = time.monotonic()
        asserts = fuzzing.fuzz_all(blind, options.count, 0, box)
        seconds = time.monotonic() - started
        rows = [
            row("tasks", len(tasks), "count"),
            row("tasks with fuzzed asserts", sum(map(bool, asserts)), "count"),
            row("asserts asked for a task", options.count, "count"),
            row("asserts made for a task", sum(map(len, asserts)) / len(tasks), "count"),
            row("wall time for a task", seconds / len(tasks), "s"),
            *wrong_answers(box, tasks, asserts),
            *falsely_rejected(box, "starter", tasks, asserts),
            *mbpp(box, options.count, 40 if options.quick else 1),
            *(recorded(box, tasks, asserts, options.ledger) if options.ledger else ()),
        ]
    return {"benchmark": "fuzzing", "rows": rows, "ratios": {}}


def main() -> None:
    """Print a table, or with --json one JSON object."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--count", type=int, default=20, help="asserts for each task")
    parser.add_argument("--ledger", help="a mining ledger of the starter tasks")
    parser.add_argument("--quick", action="store_true", help="every eighth starter task, every fortieth of MBPP")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    show(measure(options), options.json)


if __name__ == "__main__":
    main()
