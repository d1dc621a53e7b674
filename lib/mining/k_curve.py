"""The K ablation: what K draws a task bring, for every K from one pool of n draws (RSFT paper, Table 2 and Figure 2).

Differs from the paper in: one pool serves every K, each number being its expectation over all subsets of K draws, so
that no K is helped by its luck; selection (by visible tests) and truth (on hidden tests) stand side by side under names
of their own.

    best-of-K, visible   1 − C(n − v, K)/C(n, K): some draw passes the visible tests. The paper's number; not a pass@1.
    best-of-K, hidden    the program so selected passes every test: (x / v) (1 − C(n − v, K)/C(n, K))
    solved, all          1 − C(n − x, K)/C(n, K): some draw passes every test, found or not
    distinct             programs of different syntax trees among K: Σ_d 1 − C(n − m_d, K)/C(n, K)

v of a task's n draws pass the visible tests, x pass all, m_d share the syntax tree d. Where several draws pass the
visible tests the first drawn is submitted; where none does, nothing is, and the task counts as failed.
"""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

import numpy
import numpy.typing

from lib.mining.ledger import Attempt
from lib.mining.select import syntax_digest
from lib.stats.intervals import bca_interval, wilson_interval
from lib.stats.pass_at_k import best_of_k_per_task, solved_table
from lib.tasks.task import Task

Floats = numpy.typing.NDArray[numpy.float64]


@dataclasses.dataclass(frozen=True)
class Row:
    """One number of the table: `unit` says of what; `tests` which tests decide, empty where none do."""

    k: int
    quantity: str
    tests: str
    value: float
    lo: float
    hi: float
    unit: str
    n_tasks: int


ROW = tuple(field.name for field in dataclasses.fields(Row))


@dataclasses.dataclass(frozen=True)
class Pool:
    """Hold n draws of one task: how many pass visible tests, how many all, repeats per program and per winner."""

    draws: int
    visible: int
    solved: int
    programs: tuple[int, ...]
    winners: tuple[int, ...]
    tokens: int


def pools(attempts: Iterable[Attempt], tasks: Sequence[Task]) -> list[Pool]:
    """One pool a task, in order. Raises ValueError when tasks differ in their number of draws, or have none."""
    drawn: dict[str, list[Attempt]] = {task.task_id: [] for task in tasks}
    for attempt in attempts:
        if attempt.task_id in drawn:
            drawn[attempt.task_id].append(attempt)
    sizes = {len(pool) for pool in drawn.values()}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"tasks have {sorted(sizes)} draws; every task needs the same number, at least 1")
    return [_pool(pool) for pool in drawn.values()]


def _pool(attempts: Sequence[Attempt]) -> Pool:
    digests = [syntax_digest(attempt.program) for attempt in attempts]
    winners = [digest for digest, attempt in zip(digests, attempts, strict=True) if attempt.solved]
    return Pool(
        draws=len(attempts),
        visible=sum(attempt.visible_ok for attempt in attempts),
        solved=len(winners),
        programs=tuple(collections.Counter(digests).values()),
        winners=tuple(collections.Counter(winners).values()),
        tokens=sum(attempt.n_tokens for attempt in attempts),
    )


def powers_of_two_up_to(n: int) -> list[int]:
    """1, 2, 4, … and n."""
    return sorted({n, *(1 << bit for bit in range(n.bit_length()))})


def ablation(drawn: Sequence[Pool], ks: Sequence[int], greedy: Sequence[Attempt] = ()) -> list[Row]:
    """The table, K by K. `greedy` answers of the same tasks stand beside it as K = 1.

    Shares have Wilson's interval over tasks, means and ratios a bootstrap over tasks. Raises ValueError for a K
    outside 1..n.
    """
    n = drawn[0].draws
    wrong = [k for k in ks if not 1 <= k <= n]
    if wrong:
        raise ValueError(f"K={wrong[0]}: the pool has {n} draws a task; choose K from 1 to {n}")
    table = numpy.vstack([numpy.zeros(n + 1), solved_table(n).T])  # [k, c]: chance that k of n draws hold one of c
    rows = [row for k in sorted(set(ks)) for row in _at(k, drawn, table[k])]
    if greedy:
        seen, truth = ([getattr(a, name) for a in greedy] for name in ("visible_ok", "hidden_ok"))
        rows += [_share(1, "greedy", "visible", seen), _share(1, "greedy", "hidden", truth)]
    return rows


def _at(k: int, drawn: Sequence[Pool], chance: Floats) -> list[Row]:
    found = numpy.array([chance[pool.visible] for pool in drawn])
    places = numpy.arange(drawn[0].draws)  # which samples pass is the same to a mean over every order
    visible, solved = (places < [[getattr(pool, name)] for pool in drawn] for name in ("visible", "solved"))
    distinct = numpy.array([sum(chance[m] for m in pool.programs) for pool in drawn])
    winners = numpy.array([sum(chance[m] for m in pool.winners) for pool in drawn])
    tokens = numpy.array([k * pool.tokens / pool.draws for pool in drawn])
    return [
        _share(k, "best-of-K", "visible", found),
        _share(k, "best-of-K", "hidden", best_of_k_per_task(visible, solved, k).tolist()),
        _share(k, "solved", "all", [chance[pool.solved] for pool in drawn]),
        _share(k, "draws that pass", "all", [pool.solved / pool.draws for pool in drawn]),
        _mean(k, "distinct winners", "all", winners, "a task"),
        _mean(k, "repeated programs", "", numpy.maximum(0.0, 1 - distinct / k), "share of draws"),
        _ratio(k, "draws a distinct winner", numpy.full(len(drawn), float(k)), winners, "draws"),
        _ratio(k, "tokens a distinct winner", tokens, winners, "tokens"),
    ]


def _share(k: int, quantity: str, tests: str, values: Sequence[float] | Floats) -> Row:
    total, n = float(numpy.sum(values)), len(values)
    return Row(k, quantity, tests, total / n, *wilson_interval(total, n), "share of tasks", n)


def _mean(k: int, quantity: str, tests: str, values: Floats, unit: str) -> Row:
    return Row(k, quantity, tests, float(values.mean()), *bca_interval(values), unit, len(values))


def _ratio(k: int, quantity: str, cost: Floats, gain: Floats, unit: str) -> Row:
    """Σ cost / Σ gain, with a percentile bootstrap over tasks; infinite where a resample gains nothing."""
    draws = numpy.random.default_rng(0).integers(len(cost), size=(2000, len(cost)))
    with numpy.errstate(divide="ignore"):
        ratios = cost[draws].sum(axis=1) / gain[draws].sum(axis=1)
        value = float(numpy.divide(cost.sum(), gain.sum()))
    lo, hi = numpy.quantile(ratios, [0.025, 0.975], method="nearest")
    return Row(k, quantity, "all", value, float(lo), float(hi), unit, len(cost))


def table(rows: Sequence[Row]) -> str:
    """A Markdown table, a line a quantity and a column a K, each number with its interval."""
    ks = sorted({row.k for row in rows if row.quantity != "greedy"})
    lines = [
        f"| n = {rows[0].n_tasks} tasks | tests |" + "".join(f" K = {k} |" for k in ks),
        "|---|---|" + "---|" * len(ks),
    ]
    cells = {(row.quantity, row.tests, row.k): row for row in rows}
    for quantity, tests in dict.fromkeys((row.quantity, row.tests) for row in rows):
        shown = [_cell(cells[quantity, tests, k]) if (quantity, tests, k) in cells else "" for k in ks]
        if quantity == "greedy":
            shown = [_cell(cells[quantity, tests, 1]), *[""] * (len(ks) - 1)]
        lines.append(f"| {quantity} | {tests} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _cell(row: Row) -> str:
    if row.unit.startswith("share"):
        return f"{100 * row.value:.1f} % [{100 * row.lo:.1f}, {100 * row.hi:.1f}]"
    return f"{row.value:.3g} [{row.lo:.3g}, {row.hi:.3g}]"
