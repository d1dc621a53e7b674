"""Control groups of selection: each has as many programs as the winners and is trained for as many steps."""

import random
from collections.abc import Iterable, Sequence

from lib.mining.ledger import Attempt
from lib.mining.select import matched_random_sample
from lib.sandbox import Status
from lib.training.sft import Solution
from lib.training.training_set import ReferenceProgram


def random_winners(attempts: Iterable[Attempt], size: int, seed: int) -> list[Attempt]:
    """Return `size` of all draws that passed, at random, with repeats and without a cap per task."""
    solved = [attempt for attempt in attempts if attempt.solved]
    return random.Random(seed).sample(solved, min(size, len(solved)))


def failing_draws(attempts: Sequence[Attempt], winners: Sequence[Attempt], seed: int) -> list[Attempt]:
    """Return as many draws that compile and fail, from the winners' tasks while these have any, then from any task."""

    def keep(attempt: Attempt) -> bool:
        return attempt.counts and not attempt.solved and attempt.status not in (Status.COMPILE_ERROR, Status.NO_CODE)

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
