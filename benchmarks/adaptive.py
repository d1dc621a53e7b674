"""Winners for one draw, adaptive against uniform K at equal budget: recorded attempts replayed in any order.

    python benchmarks/adaptive.py [--ledger FILE --tasks FILE] [--quick] [--json]

FILE is a mining ledger with equally many draws for each task, as runs/cpu/attempts/mining.jsonl. Without one
the attempts are made up: tasks as unlike as Beta(0.3, 1.2), winners one of nine programs, some likelier than
others. The covariate is the logarithm of the prompt's length; made-up tasks have none.
"""

import argparse
import collections
import dataclasses
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import show  # noqa: E402
from lib.mining.adaptive import fit_prior, plan  # noqa: E402
from lib.mining.ledger import Ledger  # noqa: E402
from lib.mining.select import syntax_digest  # noqa: E402
from lib.tasks.task import read_tasks  # noqa: E402

WINNERS_PER_TASK = 4
Row = dict[str, Any]
Pool = Sequence[tuple[bool, str]]  # a task's samples: solved?, syntax digest


@dataclasses.dataclass(frozen=True)
class ReplayResult:
    """What a way of spending draws brought: `winners` at most m a task, `distinct` without that limit."""

    draws: int
    winners: int
    distinct: int
    solved: int  # tasks with a winner

    @property
    def per_draw(self) -> float:
        """Winners for one draw."""
        return self.winners / self.draws if self.draws else 0.0


def simulate(
    pools: Sequence[Pool], budget: int, m: int, *, covariate: Sequence[float] | None = None, seed: int = 0
) -> tuple[ReplayResult, ReplayResult]:
    """Return (adaptive, uniform): recorded attempts replayed in an order shuffled by `seed`, at one budget.

    Uniform gives every task budget // tasks samples, and one more to as many as the remainder says. Adaptive makes
    rounds of a tenth of the tasks. Neither takes more of a task than was recorded, which costs adaptive the more, the
    nearer budget / tasks comes to the length of the pools. Raises ValueError for a budget below 1 or one that uniform
    cannot spend.
    """
    tasks, shortest = len(pools), min(map(len, pools), default=0)
    if not 1 <= budget <= tasks * shortest:
        raise ValueError(f"budget={budget}: 1 to {tasks * shortest} draws, {tasks} tasks of {shortest} draws")
    rng = np.random.default_rng(seed)
    found = [_distinct([pool[i] for i in rng.permutation(len(pool))]) for pool in pools]
    uniform = np.full(tasks, budget // tasks)
    uniform[rng.permutation(tasks)[: budget % tasks]] += 1
    made = np.zeros(tasks, dtype=np.int64)
    while made.sum() < budget:
        counts = [(int(n), winners[n]) for n, winners in zip(made, found, strict=True)]
        closed = [bool(n >= len(pool)) for pool, n in zip(pools, made, strict=True)]
        total = min(max(1, tasks // 10), budget - int(made.sum()))
        chosen = plan(counts, m, total, prior=fit_prior(counts, covariate), closed=closed, seed=seed)
        if not chosen:
            break
        made[chosen] += 1
    return _yield(found, made, m), _yield(found, uniform, m)


def _distinct(pool: Pool) -> list[int]:
    """Distinct winners after 0, 1, … draws."""
    seen: set[str] = set()
    found = [0]
    for solved, digest in pool:
        if solved:
            seen.add(digest)
        found.append(len(seen))
    return found


def _yield(found: Sequence[Sequence[int]], made: np.ndarray, m: int) -> ReplayResult:
    distinct = np.array([winners[n] for winners, n in zip(found, made, strict=True)])
    capped = int(np.minimum(distinct, m).sum())
    return ReplayResult(int(made.sum()), capped, int(distinct.sum()), int((distinct > 0).sum()))


def recorded(ledger: str, tasks: str) -> tuple[list[Pool], list[float]]:
    """The pools of a ledger, in the order of task ids, and the covariate of each task."""
    pools: dict[str, list[tuple[bool, str]]] = collections.defaultdict(list)
    for attempt in Ledger(ledger):
        digest = syntax_digest(attempt.program) if attempt.solved else ""
        pools[attempt.task_id].append((attempt.solved, digest))
    prompts = {task.task_id: task.prompt for task in read_tasks(tasks)}
    names = sorted(pools)
    return [pools[name] for name in names], [math.log(len(prompts[name])) for name in names]


def made_up(tasks: int = 150, draws: int = 20) -> list[Pool]:
    """Pools of tasks that differ as real ones do."""
    rng = np.random.default_rng(0)
    q = rng.beta(0.3, 1.2, tasks)
    shares = 1 / np.arange(1, 10)
    programs = rng.choice(9, size=(tasks, draws), p=shares / shares.sum())
    solved = rng.random((tasks, draws)) < q[:, None]
    pairs = zip(solved.tolist(), programs.tolist(), strict=True)
    return [list(zip(won, map(str, drawn), strict=True)) for won, drawn in pairs]


def rows(pools: Sequence[Pool], covariate: Sequence[float] | None, ks: Sequence[int], seeds: int) -> Iterator[Row]:
    """Means over seeds for each budget, in draws a task."""
    kinds = [("no covariate", None), ("prompt length", covariate)] if covariate else [("no covariate", None)]
    for name, known in kinds:
        for k in ks:
            pairs = [
                simulate(pools, k * len(pools), WINNERS_PER_TASK, covariate=known, seed=seed) for seed in range(seeds)
            ]
            ratios = [ours.per_draw / uniform.per_draw for ours, uniform in pairs]
            where = f"K={k}, {name}"
            for what in ("winners", "distinct", "solved", "draws"):
                for who, index in (("adaptive", 0), ("uniform", 1)):
                    mean = float(np.mean([getattr(pair[index], what) for pair in pairs]))
                    yield {"name": f"{what}, {who}, {where}", "value": round(mean, 2), "unit": "count"}
            for what, value in (("mean", np.mean(ratios)), ("least", min(ratios)), ("most", max(ratios))):
                full_name = f"ratio, {what} of seeds, {where}"
                yield {"name": full_name, "value": round(float(value), 4), "unit": "ratio"}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as the one JSON object."""
    pools, covariate = recorded(options.ledger, options.tasks) if options.ledger else (made_up(), None)
    shortest = min(map(len, pools))
    ks = [k for k in (2, 4, 6, 8, 12, 20, 50) if k <= shortest / 2]
    lines = list(rows(pools, covariate, ks, 3 if options.quick else 10))
    best = "prompt length" if covariate else "no covariate"
    values = {line["name"]: line["value"] for line in lines}
    mean, least, most = (
        {f"winners per draw, adaptive/uniform, K={k}": values[f"ratio, {what} of seeds, K={k}, {best}"] for k in ks}
        for what in ("mean", "least", "most")
    )
    between = {name: [least[name], most[name]] for name in mean}
    return {"benchmark": "adaptive", "rows": lines, "ratios": mean, "spread": between}


def main() -> None:
    """Print a table, or with --json one JSON object."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--ledger", help="a mining ledger; made-up attempts without one")
    parser.add_argument("--tasks", default="data/starter_bn.jsonl", help="the tasks it was mined on")
    parser.add_argument("--quick", action="store_true", help="3 seeds for 10")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    show(measure(options), options.json)


if __name__ == "__main__":
    main()
