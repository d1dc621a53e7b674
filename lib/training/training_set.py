"""What to train on beside plain winners: rare difficulties more often, reference solutions that pass, and controls of equal size."""

import dataclasses
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from lib.mining.collect import matched_random_sample
from lib.mining.ledger import Attempt
from lib.sandbox import Sandbox, SandboxError, Status
from lib.tasks.prompts import build_prompt
from lib.tasks.task import Task
from lib.training.sft import Solution

AnySolution = TypeVar("AnySolution", bound=Solution)
PASS_RATE_CUTS = (0.5, 0.25, 0.125)  # success rates that part the four difficulties
DOES_NOT_RUN = (Status.COMPILE_ERROR, Status.NO_CODE)


@dataclasses.dataclass(frozen=True)
class ReferenceProgram:
    """A program for a task that nobody drew."""

    task_id: str
    program: str


def difficulty(attempts: Iterable[Attempt]) -> dict[str, int]:
    """{task: 0 (more than half of its draws pass), 1 (more than a quarter), 2 (more than an eighth) or 3}."""
    draws, passed = Counter[str](), Counter[str]()
    for attempt in attempts:
        draws[attempt.task_id] += 1
        passed[attempt.task_id] += attempt.solved
    return {task: sum(passed[task] / n <= limit for limit in PASS_RATE_CUTS) for task, n in draws.items()}


def balanced(solutions: Sequence[AnySolution], difficulties: dict[str, int], max_repeats: int = 4) -> list[AnySolution]:
    """The solutions of every difficulty repeated in turn until it has as many as the largest, but none more than `max_repeats` times.

    Easy tasks have more winners, and would otherwise be most of what is learnt. Raises ValueError for max_repeats < 1.
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
    """The tasks' own solutions where they pass every test and continue the prompt's prefill; {task: why not} of the others.

    Raises SandboxError when the sandbox could not judge one.
    """
    good, left_out = list[ReferenceProgram](), dict[str, str]()
    verdicts = sandbox.grade_many([(task, task.reference) for task in tasks])
    for task, verdict in zip(tasks, verdicts, strict=True):
        prefill = build_prompt(task, tokenizer).code_prefill
        if verdict.status == Status.SANDBOX_ERROR:
            raise SandboxError(f"{task.task_id}: the sandbox failed: {verdict.failure}")
        if not task.reference:
            left_out[task.task_id] = "no reference"
        elif verdict.status != Status.SUCCESS:
            left_out[task.task_id] = f"{verdict.status}, {verdict.passed} of {verdict.total} tests"
        elif not task.reference.startswith(prefill):
            left_out[task.task_id] = f"does not begin with {prefill!r}"
        else:
            good.append(ReferenceProgram(task.task_id, task.reference))
    return good, left_out


# --------------------------------------------------------------------------------------------------------- controls
# Each has as many programs as the winners, and is trained for as many steps: what differs is which programs they are.


def random_winners(attempts: Iterable[Attempt], size: int, seed: int) -> list[Attempt]:
    """`size` of all draws that passed, at random: no cap a task, repeats and all. What capping and distinctness bring."""
    solved = [attempt for attempt in attempts if attempt.solved]
    return random.Random(seed).sample(solved, min(size, len(solved)))


def failing_draws(attempts: Sequence[Attempt], winners: Sequence[Attempt], seed: int) -> list[Attempt]:
    """As many draws that compile and fail, from the winners' tasks as far as these have them, the rest from any task."""

    def keep(attempt: Attempt) -> bool:
        return not attempt.solved and attempt.status not in DOES_NOT_RUN

    control = matched_random_sample(attempts, winners, seed, keep)
    taken = {id(attempt) for attempt in control}
    others = [attempt for attempt in attempts if keep(attempt) and id(attempt) not in taken]
    missing = min(len(winners) - len(control), len(others))
    return control + random.Random(seed).sample(others, missing)


def equally_many(
    programs: Sequence[ReferenceProgram], winners: Sequence[Solution], seed: int
) -> list[ReferenceProgram]:
    """As many programs as winners: those of the winners' tasks first, then others at random, then all of them again."""
    if not programs:
        return []
    solved = {winner.task_id for winner in winners}
    rest = [program for program in programs if program.task_id not in solved]
    first = [program for program in programs if program.task_id in solved]
    order = first + random.Random(seed).sample(rest, len(rest))
    return [order[place % len(order)] for place in range(len(winners))]
