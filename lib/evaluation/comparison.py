"""Several runs side by side: the models of each on the hidden tests of the same tasks, and what they say together.

A task's value is the mean of its rates over runs, so a model is compared with the base over tasks, each task with itself;
runs are repetitions of one experiment (another seed), never more tasks.
"""

import collections
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pandas

from lib.base.errors import WorkbookError
from lib.mining.answers import passed_matrix
from lib.mining.ledger import Attempt, Ledger
from lib.stats.intervals import rate_over_tasks, wilson_interval
from lib.stats.paired import Comparison, compare
from lib.tasks.task import Task, read_tasks

NEEDED = ("manifest.json", "evaluation.json", "scores.csv", "tasks/test.jsonl", "attempts/evaluation.jsonl")
STAGE = "05_evaluation"


class ComparisonError(WorkbookError, ValueError):
    """Runs that cannot be compared; the message names the folder and what differs."""


@dataclasses.dataclass(frozen=True)
class Run:
    """An evaluated run: `passed[model, protocol]` is (tasks, draws) bool on the hidden tests."""

    name: str
    seed: int
    task_ids: tuple[str, ...]
    passed: dict[tuple[str, str], "numpy.ndarray"]
    scores: pandas.DataFrame


def read_run(folder: Path) -> Run:
    """Read what notebook 05 left. Raises ComparisonError for a folder that lacks some of it."""
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise ComparisonError(f"{folder}: not an evaluated run, {missing[0]} is missing")
    parameters = json.loads((folder / "manifest.json").read_text())["parameters"][STAGE]
    adapters = json.loads((folder / "evaluation.json").read_text())["adapters"]
    tasks = read_tasks(folder / "tasks" / "test.jsonl")
    attempts = list(Ledger(folder / "attempts" / "evaluation.jsonl"))
    passed = {
        (model, protocol): passed_matrix(chosen, tasks, "hidden")
        for model, adapter in adapters.items()
        for protocol, chosen in _by_protocol(attempts, tasks, adapter, parameters).items()
    }
    ids = tuple(task.task_id for task in tasks)
    return Run(folder.name, parameters["seed"], ids, passed, pandas.read_csv(folder / "scores.csv"))


def _by_protocol(
    attempts: Sequence[Attempt], tasks: Sequence[Task], adapter: str, parameters: dict[str, Any]
) -> dict[str, list[Attempt]]:
    """The attempts that the run's last parameters asked for; a ledger may hold those of earlier ones too."""
    wanted = {"greedy": (0.0, 1), "draws": (parameters["temperature"], parameters["draws"])}
    tests = {task.task_id: task.tests_digest for task in tasks}
    mine = [
        attempt
        for attempt in attempts
        if attempt.adapter == adapter
        and attempt.tests_hash == tests.get(attempt.task_id)
        and attempt.max_new_tokens == parameters["max_new_tokens"]
    ]
    return {
        protocol: [a for a in mine if a.temperature == temperature and a.draw < draws]
        for protocol, (temperature, draws) in wanted.items()
    }


def together(runs: Sequence[Run]) -> tuple[list[dict[str, Any]], list[Comparison]]:
    """One row a model and protocol over all runs, and each model against the first one.

    Rows: model, protocol, runs, n_tasks, draws (a task and run), rate with its Wilson interval over tasks, every run's rate
    and their standard deviation,
    and beside the first model the difference, its interval, the permutation p over tasks and in how many runs it rose.
    Raises ComparisonError for no run, one run twice, or runs of different tasks, models or numbers of draws.
    """
    _check(runs)
    base = next(iter(runs[0].passed))[0]
    rows, comparisons = [], []
    for model, protocol in runs[0].passed:
        rates = [float(run.passed[model, protocol].mean()) for run in runs]
        means = numpy.mean([run.passed[model, protocol].mean(axis=1) for run in runs], axis=0)  # (tasks,)
        lo, hi = wilson_interval(float(means.sum()), len(means))
        draws = runs[0].passed[model, protocol].shape[1]
        row = {"model": model, "protocol": protocol, "runs": len(runs), "n_tasks": len(means), "draws": draws,
               "rate": float(means.mean()), "lo": lo, "hi": hi, "rates": rates,
               "spread": float(numpy.std(rates, ddof=1)) if len(runs) > 1 else None}  # fmt: skip
        if model != base:
            reference = numpy.mean([run.passed[base, protocol].mean(axis=1) for run in runs], axis=0)
            found = compare(means, reference, name_a=f"{model} ({protocol})", name_b=base)
            rose = sum(rate > float(run.passed[base, protocol].mean()) for rate, run in zip(rates, runs, strict=True))
            row |= {"vs": base, "difference": found.difference, "difference_lo": found.lo, "difference_hi": found.hi,
                    "p_permutation": found.p_permutation, "rose": rose}  # fmt: skip
            comparisons.append(found)
        rows.append(row)
    return rows, comparisons


def _check(runs: Sequence[Run]) -> None:
    if not runs:
        raise ComparisonError("no run to compare")
    twice = [name for name, count in collections.Counter(run.name for run in runs).items() if count > 1]
    if twice:
        raise ComparisonError(f"{twice[0]}: named twice; a run counts once")
    first = runs[0]
    for run in runs[1:]:
        if run.task_ids != first.task_ids:
            differing = len(set(run.task_ids) ^ set(first.task_ids))
            raise ComparisonError(f"{run.name}: evaluated on other tasks than {first.name} ({differing} differ)")
        shapes = [{key: passed.shape for key, passed in each.passed.items()} for each in (first, run)]
        if shapes[0] != shapes[1]:
            raise ComparisonError(f"{run.name}: other models or numbers of draws than {first.name}")


def all_scores(runs: Sequence[Run]) -> pandas.DataFrame:
    """Every run's scores.csv, one below the other; the seed tells them apart."""
    return pandas.concat([run.scores for run in runs], ignore_index=True)


def on_visible_tests(runs: Sequence[Run]) -> dict[str, float]:
    """{model: mean over runs of its draws' rate on the *visible* tests}: what choosing by these would report."""
    rows = all_scores(runs).query("tests == 'visible' and protocol == 'draws'")
    return {str(model): float(rate) for model, rate in rows.groupby("model", sort=False)["rate"].mean().items()}


def in_words(rows: Sequence[dict[str, Any]], comparisons: Sequence[Comparison]) -> str:
    """A line a row, then a sentence a comparison."""
    lines = [
        f"{row['model']:8} {row['protocol']:7} {row['rate']:6.1%} [{row['lo']:.1%}, {row['hi']:.1%}]  "
        f"n = {row['n_tasks']} tasks × {row['draws']} draws × {row['runs']} runs: "
        + ", ".join(f"{rate:.1%}" for rate in row["rates"])
        + (f" (± {100 * row['spread']:.1f} points)" if row["spread"] is not None else "")
        for row in rows
    ]
    return "\n".join([*lines, *(found.sentence for found in comparisons)])


def table(rows: Sequence[dict[str, Any]], comparisons: Sequence[Comparison]) -> str:
    """The same as a Markdown table with the sentences below it."""
    lines = [
        "| model | protocol | each run (± s) | mean [95 %] | against the base | permutation p |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        each = ", ".join(f"{100 * rate:.1f}" for rate in row["rates"])
        each += f" (± {100 * row['spread']:.1f})" if row["spread"] is not None else ""
        mean = f"{100 * row['rate']:.1f} % [{100 * row['lo']:.1f}, {100 * row['hi']:.1f}]"
        against, p = "", ""
        if "difference" in row:
            limits = f"[{100 * row['difference_lo']:+.1f}, {100 * row['difference_hi']:+.1f}]"
            against, p = f"{100 * row['difference']:+.1f} points {limits}", f"{row['p_permutation']:.3g}"
        protocol = "greedy" if row["protocol"] == "greedy" else f"{row['draws']} draws"
        lines.append(f"| {row['model']} | {protocol} | {each} | {mean} | {against} | {p} |")
    return "\n".join([*lines, "", *(f"- {found.sentence}" for found in comparisons), ""])


def rates_of_runs(runs: Sequence[Run]) -> pandas.DataFrame:
    """Tidy rows for the figure: run, seed, model, protocol, rate, lo, hi, n_tasks, draws."""
    rows = []
    for run in runs:
        for (model, protocol), passed in run.passed.items():
            rate = rate_over_tasks(passed, protocol=protocol, tests="hidden")
            rows.append(
                {"run": run.name, "seed": run.seed, "model": model, "protocol": protocol, "rate": rate.rate,
                 "lo": rate.lo, "hi": rate.hi, "n_tasks": rate.n_tasks, "draws": rate.samples}
            )  # fmt: skip
    return pandas.DataFrame(rows)
