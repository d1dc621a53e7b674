"""Count failures: their shares with intervals, how training changes them, and the lengths of answers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas

from lib.evaluation.failures.taxonomy import failed_test_and_sides
from lib.evaluation.scores import failures
from lib.mining.ledger import Attempt
from lib.sandbox import Status
from lib.stats.intervals import ratio_interval
from lib.tasks.task import Task

SOLVED = "solved"
TAXONOMIES = ("troopers_type", "polycode_type")
BROWSED = (
    "model", "task_id", "troopers_type", "polycode_type", "rule", "status",
    "prompt", "program", "test", "got", "expected", "evidence",
)  # fmt: skip


def outcomes(attempts: Iterable[Attempt], tasks: Sequence[Task], names: Mapping[str, str]) -> pandas.DataFrame:
    """Return one row per attempt at one of the tasks, with its types as text; those of a success are `solved`.

    Attempts at tests that cannot be run here are left out.
    """
    by_id, rows = {task.task_id: task for task in tasks}, []
    for attempt in attempts:
        if (task := by_id.get(attempt.task_id)) is None or not attempt.counts:
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
    """Return the first failure per task and model (the greedy one, where it failed), with the columns to read."""
    failed = rows[rows["status"] != Status.SUCCESS].sort_values(["temperature", "draw"], kind="stable")
    first = failed.drop_duplicates(["model", "task_id"]).sort_index()
    return first[list(BROWSED)].reset_index(drop=True)


def shares(failed: pandas.DataFrame, column: str) -> pandas.DataFrame:
    """Return, per model and type, count and share of the failed samples with a 95 % bootstrap interval over tasks.

    share = Σ_t c_t / Σ_t f_t, with task t's f_t failed samples and c_t of them of the type. Samples of one task are
    correlated, so tasks are resampled, not samples; one task alone gives an interval of nan.
    """
    rows = []
    kinds = sorted(failed[column].unique())
    for model, part in failed.groupby("model", sort=False):
        counts = pandas.crosstab(part["task_id"], part[column]).reindex(columns=kinds, fill_value=0)
        totals = counts.sum(axis=1).to_numpy(dtype=float)
        for kind in kinds:
            of_kind = counts[kind].to_numpy(dtype=float)
            lo, hi = ratio_interval(of_kind, totals)
            count, total = int(of_kind.sum()), int(totals.sum())
            row = {"model": model, column: kind, "count": count, "of": total, "share": count / total}
            rows.append(row | {"lo": lo, "hi": hi, "n_tasks": len(totals)})
    return pandas.DataFrame(rows)


def flows(rows: pandas.DataFrame, before: str, after: str, column: str) -> pandas.DataFrame:
    """Cross-tabulate the greedy answers of two models to the same tasks: rows by `before`, columns by `after`.

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
    """Return completion tokens of solved and failed samples by model: count, mean and quartiles."""
    ended = rows["status"].eq(Status.SUCCESS).map({True: SOLVED, False: "failed"}).rename("outcome")
    found = rows.groupby(["model", ended], sort=False)["n_tokens"].describe()
    return found[["count", "mean", "25%", "50%", "75%"]].reset_index()


def log_prob_note(rows: pandas.DataFrame) -> str:
    """Describe the mean log-probability per token of solved and failed samples, or say that the ledger has none."""
    known = rows[rows["logprob_sum"].notna()]
    if known.empty:
        return "The ledger keeps no log-probabilities of these samples, so there is no L̂ for them."
    per_token = known["logprob_sum"].astype(float) / known["n_tokens"].clip(lower=1)
    means = per_token.groupby(known["status"].eq(Status.SUCCESS)).mean()
    shown = [f"{name} {means[key]:.3f}" for key, name in ((True, SOLVED), (False, "failed")) if key in means]
    return f"Mean log-probability per token, {len(known)} samples: {', '.join(shown)}."


def rollout_likelihoods(attempts: Iterable[Attempt]) -> pandas.DataFrame:
    """Return one row per rollout of GMPO: step, task_id, right, n_tokens, L (summed log-probability) and l_hat.

    l_hat = (L − μ)/σ over the completions of the same prompt and step (population σ), 0 where all are equal. This is
    the L̂ of GMPO without neighbours: the trainer's own pools similar prompts.
    """
    columns = ["step", "task_id", "right", "n_tokens", "L"]
    rows = pandas.DataFrame(
        [(one.step, one.task_id, one.solved, one.n_tokens, one.logprob_sum) for one in attempts if one.counts],
        columns=columns,
    ).dropna(subset=["L"])
    groups = rows.groupby(["step", "task_id"])["L"]
    spread = groups.transform("std", ddof=0).fillna(0.0)
    centred = rows["L"].astype(float) - groups.transform("mean").astype(float)
    return rows.assign(l_hat=(centred / spread.where(spread > 0)).fillna(0.0))


def verdict_steps(history: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    """Return the shares of verdicts over GMPO's steps, (step, status)."""
    marks = {name for row in history for name in row if name.startswith("verdict/")}
    table = pandas.DataFrame(
        {name.removeprefix("verdict/"): [row.get(name, 0.0) for row in history] for name in sorted(marks)},
        index=pandas.Index([row["step"] for row in history], name="step"),
    )
    return table
