"""What to train on beside passing samples: rare difficulties more often, and reference solutions that pass."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from lib.mining.grading import grade_all
from lib.mining.ledger import Attempt
from lib.sandbox import Sandbox, Status
from lib.tasks.prompts import build_prompt
from lib.tasks.task import Task
from lib.training.sft import Solution

AnySolution = TypeVar("AnySolution", bound=Solution)
PASS_RATE_CUTS = (0.5, 0.25, 0.125)  # success rates that part the four difficulties


@dataclasses.dataclass(frozen=True)
class ReferenceProgram:
    """A program that was not sampled from the model, such as a task's own solution."""

    task_id: str
    program: str


def difficulty(attempts: Iterable[Attempt]) -> dict[str, int]:
    """Return {task: 0 (more than half of its samples pass), 1 (more than a quarter), 2 (more than an eighth) or 3}.

    Attempts at tests that cannot be run do not count.
    """
    samples, passed = Counter[str](), Counter[str]()
    for attempt in attempts:
        samples[attempt.task_id] += attempt.counts
        passed[attempt.task_id] += attempt.solved
    return {task: sum(passed[task] / n <= cut for cut in PASS_RATE_CUTS) for task, n in samples.items() if n}


def balanced(solutions: Sequence[AnySolution], difficulties: dict[str, int], max_repeats: int = 4) -> list[AnySolution]:
    """Return the solutions, those of each difficulty repeated until it has as many as the largest one.

    None is used more than `max_repeats` times. Easy tasks have more winners, and would otherwise be most of what is
    learnt. Raises ValueError for max_repeats < 1.
    """
    if max_repeats < 1:
        raise ValueError(f"max_repeats={max_repeats}: each solution is used at least once")
    groups: dict[int, list[AnySolution]] = defaultdict(list)
    for solution in solutions:
        groups[difficulties.get(solution.task_id, len(PASS_RATE_CUTS))].append(solution)
    largest = max(map(len, groups.values()), default=0)
    return [
        group[place % len(group)]
        for _, group in sorted(groups.items())
        for place in range(min(largest, max_repeats * len(group)))
    ]


def references(
    tasks: Sequence[Task], tokenizer: Any, sandbox: Sandbox
) -> tuple[list[ReferenceProgram], dict[str, str]]:
    """Return the tasks' own solutions that pass every test and continue the prompt's prefill, and {task: why not}.

    Raises SandboxError when the sandbox could not grade one.
    """
    good, left_out = list[ReferenceProgram](), dict[str, str]()
    verdicts = grade_all(sandbox, [(task, task.reference) for task in tasks])
    for task, verdict in zip(tasks, verdicts, strict=True):
        prefill = build_prompt(task, tokenizer).code_prefill
        if not task.reference:
            left_out[task.task_id] = "no reference"
        elif verdict.status != Status.SUCCESS:
            left_out[task.task_id] = f"{verdict.status}, {verdict.passed} of {verdict.total} tests"
        elif not task.reference.startswith(prefill):
            left_out[task.task_id] = f"does not begin with {prefill!r}"
        else:
            good.append(ReferenceProgram(task.task_id, task.reference))
    return good, left_out
