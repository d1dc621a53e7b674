"""Which attempts and tasks to learn from (RSFT paper, Algorithm 1, line 8).

Differs from the paper in: passing samples (winners) are de-duplicated by syntax tree and capped per task. Without a
scorer s(p, y) of your own they are drawn at random, so that neither short nor early programs are favoured.
"""

import ast
import collections
import random
from collections.abc import Callable, Collection, Iterable, Sequence

from lib.mining.ledger import Attempt, Key
from lib.tasks.task import Task


def select_winners(
    attempts: Iterable[Attempt],
    per_task: int,
    seed: int,
    *,
    rejected: Collection[Key] = (),
    threshold: float = 1.0,
    scorer: Callable[[Attempt], float] | None = None,
) -> list[Attempt]:
    """Return at most `per_task` attempts per task that pass every test, no two of a task with one syntax tree.

    They are drawn with `seed`; with a `scorer` those of the highest scores are taken, and `seed` decides between equal
    ones. `rejected` holds the keys of attempts that fuzzed tests found wrong. A `threshold` below 1 admits attempts
    that pass at least this share of their tests. Raises ValueError for one outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold}: a share of tests, above 0 and at most 1")
    good = (one for one in attempts if one.solved or threshold < 1 and one.passed >= threshold * max(1, one.total))
    rng, winners = random.Random(seed), list[Attempt]()
    for pool in _distinct(one for one in good if one.key not in rejected).values():
        drawn = rng.sample(pool, len(pool) if scorer else min(per_task, len(pool)))
        winners += sorted(drawn, key=scorer, reverse=True)[:per_task] if scorer else drawn
    return winners


def matched_random_sample(
    attempts: Iterable[Attempt], winners: Sequence[Attempt], seed: int, keep: Callable[[Attempt], bool]
) -> list[Attempt]:
    """Return a random control group: as many attempts per task as `winners` has, among those that `keep` admits.

    With `keep` always true: random samples; with `not attempt.solved`: failing ones. No two of a task have one syntax
    tree. A task that has too few gives what it has, so compare the lengths. Attempts at unsupported tests are left out.
    """
    wanted = collections.Counter(winner.task_id for winner in winners)
    pools = _distinct(one for one in attempts if one.task_id in wanted and one.counts and keep(one))
    rng = random.Random(seed)
    return [one for task_id, pool in pools.items() for one in rng.sample(pool, min(wanted[task_id], len(pool)))]


def _distinct(attempts: Iterable[Attempt]) -> dict[str, list[Attempt]]:
    """Return {task id: its attempts with distinct syntax trees}; tasks and attempts in an order of their own."""
    found: dict[str, dict[str, Attempt]] = collections.defaultdict(dict)
    for attempt in attempts:
        found[attempt.task_id].setdefault(syntax_digest(attempt.program), attempt)
    return {task_id: [found[task_id][digest] for digest in sorted(found[task_id])] for task_id in sorted(found)}


def syntax_digest(program: str) -> str:
    """Return a Python program's syntax tree as text, without positions, comments or layout; without a tree the text."""
    try:
        return ast.dump(ast.parse(program))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return program


def mixed_outcome(tasks: Iterable[Task], attempts: Iterable[Attempt]) -> list[Task]:
    """Return the tasks whose attempts are neither all right nor all wrong."""
    outcomes: dict[str, set[bool]] = collections.defaultdict(set)
    for attempt in attempts:
        if attempt.counts:
            outcomes[attempt.task_id].add(attempt.solved)
    return [task for task in tasks if len(outcomes[task.task_id]) == 2]


def supported_tasks(tasks: Iterable[Task], *attempts: Iterable[Attempt]) -> tuple[list[Task], dict[str, str]]:
    """Return the tasks whose tests could be run, and {task id: why not} of the others, which no rate may count."""
    unsupported: dict[str, str] = {}
    for attempt in (one for some in attempts for one in some):
        if not attempt.counts:
            unsupported.setdefault(attempt.task_id, attempt.failure)
    tasks = list(tasks)
    left_out = {task.task_id: unsupported[task.task_id] for task in tasks if task.task_id in unsupported}
    return [task for task in tasks if task.task_id not in left_out], left_out
