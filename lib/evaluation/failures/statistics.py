"""Failures counted: their shares with intervals, where they go after training, and how long the answers are."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy
import pandas
from scipy import stats

from lib.evaluation.failures.taxonomy import failed_test_and_sides
from lib.evaluation.scores import failures
from lib.mining.ledger import Attempt
from lib.sandbox import Status
from lib.tasks.task import Task

SOLVED = "solved"
TAXONOMIES = ("troopers_type", "polycode_type")
BROWSED = (
    "model", "task_id", "troopers_type", "polycode_type", "rule", "status",
    "prompt", "program", "test", "got", "expected", "evidence",
)  # fmt: skip


def outcomes(attempts: Iterable[Attempt], tasks: Sequence[Task], names: Mapping[str, str]) -> pandas.DataFrame:
    """One row an attempt at one of the tasks, with its types as text; those of a success are `solved`."""
    by_id, rows = {task.task_id: task for task in tasks}, []
    for attempt in attempts:
        if (task := by_id.get(attempt.task_id)) is None:
            continue
        found = failures([attempt], [task], dict(names))
        label = found[0] if found else dict.fromkeys((*TAXONOMIES, "rule"), SOLVED) | {"evidence": ""}
        test, got, expected = failed_test_and_sides(task, attempt.failure)
        rows.append(
            {
                "model": names[attempt.adapter],
                "task_id": attempt.task_id,
                "draw": attempt.draw,
                "temperature": attempt.temperature,
                "status": attempt.status,
                **{name: str(label[name]) for name in (*TAXONOMIES, "rule", "evidence")},
                "n_tokens": attempt.n_tokens,
                "logprob_sum": attempt.logprob_sum,
                "prompt": task.prompt,
                "program": attempt.program,
                "test": test,
                "got": got,
                "expected": expected,
            }
        )
    return pandas.DataFrame(rows)


def browsable(rows: pandas.DataFrame) -> pandas.DataFrame:
    """The first failure of each task and model (the greedy one, where it failed), with the columns to read."""
    failed = rows[rows["status"] != Status.SUCCESS].sort_values(["temperature", "draw"], kind="stable")
    first = failed.drop_duplicates(["model", "task_id"]).sort_index()
    return first[list(BROWSED)].reset_index(drop=True)


def shares(failed: pandas.DataFrame, column: str, replicates: int = 2000) -> pandas.DataFrame:
    """Of each model's failed draws, how many have each type: count, share, 95 % percentile bootstrap over tasks.

    share = Σ_t c_t / Σ_t f_t, with task t's f_t failed draws and c_t of them of the type. Draws of one task are
    alike, so tasks are resampled, not draws; one task alone gives an interval of nan.
    """
    rows = []
    kinds = sorted(failed[column].unique())
    for model, part in failed.groupby("model", sort=False):
        counts = pandas.crosstab(part["task_id"], part[column]).reindex(columns=kinds, fill_value=0)
        totals = counts.sum(axis=1).to_numpy(dtype=float)
        for kind in kinds:
            of_kind = counts[kind].to_numpy(dtype=float)
            lo, hi = _ratio_interval(of_kind, totals, replicates)
            count, total = int(of_kind.sum()), int(totals.sum())
            row = {"model": model, column: kind, "count": count, "of": total, "share": count / total}
            rows.append(row | {"lo": lo, "hi": hi, "n_tasks": len(totals)})
    return pandas.DataFrame(rows)


def _ratio_interval(parts: "numpy.ndarray", totals: "numpy.ndarray", replicates: int) -> tuple[float, float]:
    if len(totals) < 2:
        return numpy.nan, numpy.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # a share of 0 or 1 in every resample
        found = stats.bootstrap(
            (parts, totals), lambda part, total, axis: part.sum(axis) / total.sum(axis),
            paired=True, vectorized=True, method="percentile", n_resamples=replicates, rng=0,
        )  # fmt: skip
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def flows(rows: pandas.DataFrame, before: str, after: str, column: str) -> pandas.DataFrame:
    """Greedy answers of two models to the same tasks: rows are where `before` left a task, columns where `after` does.

    Raises ValueError when the two have no task in common.
    """
    greedy = rows[rows["temperature"] == 0].drop_duplicates(["model", "task_id"], keep="last")
    table = greedy.pivot(index="task_id", columns="model", values=column)
    both = table.reindex(columns=[before, after]).dropna()
    if both.empty:
        raise ValueError(f"{before} and {after} have no greedy answer to the same task")
    kinds = sorted(set(greedy[column]) - {SOLVED})
    order = [SOLVED, *kinds]
    counts = pandas.crosstab(both[before], both[after], rownames=[before], colnames=[after])
    return counts.reindex(index=order, columns=order, fill_value=0)


def lengths(rows: pandas.DataFrame) -> pandas.DataFrame:
    """Completion tokens of solved and failed draws by model: how many, mean and quartiles."""
    ended = rows["status"].eq(Status.SUCCESS).map({True: SOLVED, False: "failed"}).rename("outcome")
    found = rows.groupby(["model", ended], sort=False)["n_tokens"].describe()
    return found[["count", "mean", "25%", "50%", "75%"]].reset_index()


def log_prob_note(rows: pandas.DataFrame) -> str:
    """Mean log-probability a token of solved and failed draws, or that the ledger has none."""
    known = rows[rows["logprob_sum"].notna()]
    if known.empty:
        return "The ledger keeps no log-probabilities of these draws, so there is no L̂ for them."
    per_token = known["logprob_sum"].astype(float) / known["n_tokens"].clip(lower=1)
    means = per_token.groupby(known["status"].eq(Status.SUCCESS)).mean()
    told = [f"{name} {means[key]:.3f}" for key, name in ((True, SOLVED), (False, "failed")) if key in means]
    return f"Mean log-probability a token, {len(known)} draws: {', '.join(told)}."


def verdict_steps(history: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    """Shares of verdicts over GMPO's steps, (step, status): what the step records keep of its rollouts."""
    marks = {name for row in history for name in row if name.startswith("verdict/")}
    table = pandas.DataFrame(
        {name.removeprefix("verdict/"): [row.get(name, 0.0) for row in history] for name in sorted(marks)},
        index=pandas.Index([row["step"] for row in history], name="step"),
    )
    return table
