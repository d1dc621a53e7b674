"""Compare several runs of one experiment: the models of each on the hidden tests of the same tasks.

A task's value is the mean of its rates over runs, so a model is compared with the base on the same tasks. Runs are
repetitions with another seed, never more tasks; with three or more, an interval treats both runs and tasks as random.
"""

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pandas

from lib.base.errors import WorkbookError
from lib.base.files import read_json
from lib.mining.answers import AnswersError, passed_matrix
from lib.mining.ledger import Attempt, Ledger
from lib.mining.select import supported_tasks
from lib.stats.components import variance_components, what_would_decide
from lib.stats.intervals import rate_over_tasks, wilson_interval
from lib.stats.paired import Comparison, compare, holm, paired_over_runs
from lib.tasks.task import Task, read_tasks

NEEDED = ("manifest.json", "evaluation.json", "scores.csv", "tasks/test.jsonl", "attempts/evaluation.jsonl")
STAGE = "05_evaluation"


class ComparisonError(WorkbookError, ValueError):
    """Runs that cannot be compared; the message names the folder and what differs."""


@dataclasses.dataclass(frozen=True)
class Run:
    """An evaluated run: `passed[model, protocol]` is (tasks, samples) bool on the hidden tests.

    `family` names the comparisons with the first model that were declared before the run, such as "rsft, draws".
    """

    name: str
    seed: int
    task_ids: tuple[str, ...]
    passed: dict[tuple[str, str], "numpy.ndarray"]
    scores: pandas.DataFrame
    family: tuple[str, ...] = ()
    tasks: tuple[Task, ...] = ()
    greedy: dict[str, list[Attempt]] = dataclasses.field(default_factory=dict)  # of each model, in the tasks' order


def read_run(folder: Path) -> Run:
    """Read the files that notebook 05 wrote. Raises ComparisonError for a folder that lacks some of it."""
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise ComparisonError(f"{folder}: not an evaluated run, {missing[0]} is missing")
    parameters = read_json(folder / "manifest.json").get("parameters", {}).get(STAGE, {})
    adapters = read_json(folder / "evaluation.json").get("adapters", {})
    lacking = [name for name in ("seed", "temperature", "draws", "max_new_tokens") if name not in parameters]
    if lacking or not adapters:
        what = f"manifest.json has no {lacking[0]} of {STAGE}" if lacking else "evaluation.json names no adapters"
        raise ComparisonError(f"{folder}: {what}; another version wrote it: run notebook 05 again")
    tasks = read_tasks(folder / "tasks" / "test.jsonl")
    attempts = list(Ledger(folder / "attempts" / "evaluation.jsonl"))
    tasks, _ = supported_tasks(tasks, attempts)
    chosen = {model: _by_protocol(attempts, tasks, adapter, parameters) for model, adapter in adapters.items()}
    try:
        passed = {
            (model, protocol): passed_matrix(some, tasks, "hidden")
            for model, found in chosen.items()
            for protocol, some in found.items()
        }
    except AnswersError as error:
        raise ComparisonError(f"{folder}: answers are missing ({error}); run notebook 05 again") from None
    greedy = {model: {one.task_id: one for one in found["greedy"]} for model, found in chosen.items()}
    ids = tuple(task.task_id for task in tasks)
    scores, family = pandas.read_csv(folder / "scores.csv"), tuple(parameters.get("family", ()))
    answers = {model: [found[name] for name in ids] for model, found in greedy.items()}
    return Run(folder.name, parameters["seed"], ids, passed, scores, family, tuple(tasks), answers)


def _by_protocol(
    attempts: Sequence[Attempt], tasks: Sequence[Task], adapter: str, parameters: dict[str, Any]
) -> dict[str, list[Attempt]]:
    """Return the attempts of the run's last parameters; a ledger may hold those of earlier ones too."""
    wanted = {"greedy": (0.0, 1), "draws": (parameters["temperature"], parameters["draws"])}
    tests = {task.task_id: task.tests_digest for task in tasks}
    mine = [
        attempt
        for attempt in attempts
        if attempt.adapter == adapter
        and not attempt.parent
        and attempt.tests_hash == tests.get(attempt.task_id)
        and attempt.max_new_tokens == parameters["max_new_tokens"]
    ]
    return {
        protocol: [a for a in mine if a.temperature == temperature and a.draw < draws]
        for protocol, (temperature, draws) in wanted.items()
    }


def pool_runs(runs: Sequence[Run]) -> tuple[list[dict[str, Any]], list[Comparison]]:
    """Return one row per model and protocol over all runs, and the comparison of each model with the first one.

    Rows: model, protocol, runs, n_tasks, draws (per task and run), rate with its Wilson interval over tasks, every
    run's rate and their standard deviation (`spread`). Beside models other than the first: the difference with interval
    and p over tasks; with three runs or more, interval and p over runs and tasks (`runs_lo`, `runs_hi`, `p_runs`); in
    how many runs the model is ahead (`rose`); the least difference that the test detects (`mde`); and `p_holm`, p (over
    runs and tasks, where there is one) adjusted over the runs' declared family, None outside it. Raises ComparisonError
    for no run, one run twice, runs of different tasks, models, families or numbers of samples, or a family that names
    no comparison.
    """
    _check(runs)
    base = next(iter(runs[0].passed))[0]
    rows, comparisons = [], []
    for model, protocol in runs[0].passed:
        ours, reference = (
            numpy.array([run.passed[name, protocol].mean(axis=1) for run in runs]) for name in (model, base)
        )  # (runs, tasks)
        rates, means = ours.mean(axis=1), ours.mean(axis=0)
        lo, hi = wilson_interval(round(float(means.sum()), 9), len(means))
        row = {"model": model, "protocol": protocol, "runs": len(runs), "n_tasks": len(means),
               "draws": runs[0].passed[model, protocol].shape[1], "rate": float(means.mean()), "lo": lo, "hi": hi,
               "rates": rates.tolist(), "spread": float(rates.std(ddof=1)) if len(runs) > 1 else None}  # fmt: skip
        if model != base:
            found = compare(means, reference.mean(axis=0), name_a=f"{model} ({protocol})", name_b=base)
            row |= {"vs": base, "difference": found.difference, "difference_lo": found.lo, "difference_hi": found.hi,
                    "p_permutation": found.p_permutation, "mde": found.mde,
                    "rose": int((rates > reference.mean(axis=1)).sum())}  # fmt: skip
            if len(runs) > 2:
                both = paired_over_runs(ours - reference)
                row |= {"runs_lo": both.lo, "runs_hi": both.hi, "p_runs": both.p}
            comparisons.append(found)
        rows.append(row)
    _adjust(rows, runs[0].family)
    return rows, comparisons


def _adjust(rows: Sequence[dict[str, Any]], family: Sequence[str]) -> None:
    """Add `p_holm` to the rows of comparisons: Holm's adjustment over the family."""
    compared = {f"{row['model']}, {row['protocol']}": row for row in rows if "vs" in row}
    unknown = [name for name in family if name not in compared]
    if unknown or len(set(family)) < len(family):
        wrong = f"{unknown[0]!r} is no comparison" if unknown else "a comparison stands in it twice"
        raise ComparisonError(f"family: {wrong}; there are {', '.join(map(repr, compared))}")
    adjusted = dict(zip(family, holm([_p(compared[name]) for name in family]), strict=True))
    for name, row in compared.items():
        row["p_holm"] = adjusted.get(name)


def _p(row: dict[str, Any]) -> float:
    """Return the p-value over runs and tasks, over tasks alone where there are fewer than three runs."""
    return float(row.get("p_runs", row["p_permutation"]))


def decisive_sentences(runs: Sequence[Run]) -> list[str]:
    """Say for each sampled model and the first one what would decide it: more samples, more tasks or more runs."""
    base = next(iter(runs[0].passed))[0]
    drawn = {model: numpy.array([run.passed[model, "draws"] for run in runs])
             for model, protocol in runs[0].passed if protocol == "draws"}  # fmt: skip
    return [
        f"{model} against {base}: {what_would_decide(variance_components(results, drawn[base]))}"
        for model, results in drawn.items() if model != base
    ]  # fmt: skip


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
            raise ComparisonError(f"{run.name}: other models or numbers of samples than {first.name}")
        if run.family != first.family:
            raise ComparisonError(f"{run.name}: another family of comparisons than {first.name}")


def all_scores(runs: Sequence[Run]) -> pandas.DataFrame:
    """Return every run's scores.csv, one below the other; the seed tells them apart."""
    return pandas.concat([run.scores for run in runs], ignore_index=True)


def visible_test_rates(runs: Sequence[Run]) -> dict[str, float]:
    """Return {model: mean over runs of its samples' rate on the *visible* tests}: what choosing by these reports."""
    rows = all_scores(runs).query("tests == 'visible' and protocol == 'draws'")
    return {str(model): float(rate) for model, rate in rows.groupby("model", sort=False)["rate"].mean().items()}


def _cells(row: dict[str, Any]) -> tuple[str, str, str, str]:
    """Return a row's rates of single runs, mean with interval, difference with interval, and p, in words."""
    each = ", ".join(f"{100 * rate:.1f}" for rate in row["rates"])
    each += f" (± {100 * row['spread']:.1f})" if row["spread"] is not None else ""
    mean = f"{100 * row['rate']:.1f} % [{100 * row['lo']:.1f}, {100 * row['hi']:.1f}]"
    if "difference" not in row:
        return each, mean, "", ""
    limits = f"[{100 * row['difference_lo']:+.1f}, {100 * row['difference_hi']:+.1f}]"
    against, p = f"{100 * row['difference']:+.1f} points {limits}", f"{row['p_permutation']:.3g}"
    if "p_runs" in row:
        against += f"; over runs and tasks [{100 * row['runs_lo']:+.1f}, {100 * row['runs_hi']:+.1f}]"
        p += f"; {row['p_runs']:.3g}"
    if row["p_holm"] is not None:
        p += f" (Holm {row['p_holm']:.3g})"
    return each, mean, against, p


def summary(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return one line per row."""
    lines = []
    for row in rows:
        each, mean, against, p = _cells(row)
        size = f"n = {row['n_tasks']} tasks × {row['draws']} samples × {row['runs']} runs"
        lines.append(
            f"{row['model']:8} {row['protocol']:7} {mean}  {size}: {each}" + (f"; {against}, p {p}" if p else "")
        )
    return lines


def table(rows: Sequence[dict[str, Any]], sentences: Sequence[str]) -> str:
    """Return the same as a Markdown table with sentences below it."""
    p = "p over tasks; runs and tasks (Holm)"
    lines = [
        f"| model | protocol | each run (± s) | mean [95 %] | against the base | {p} |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        protocol = "greedy" if row["protocol"] == "greedy" else f"{row['draws']} samples"
        lines.append(f"| {row['model']} | {protocol} | {' | '.join(_cells(row))} |")
    return "\n".join([*lines, "", *(f"- {sentence}" for sentence in sentences), ""])


def rates_of_runs(runs: Sequence[Run]) -> pandas.DataFrame:
    """Return tidy rows for the figure: run, seed, model, protocol, rate, lo, hi, n_tasks, draws."""
    rows = []
    for run in runs:
        for (model, protocol), passed in run.passed.items():
            rate = rate_over_tasks(passed)
            rows.append(
                {"run": run.name, "seed": run.seed, "model": model, "protocol": protocol, "rate": rate.rate,
                 "lo": rate.lo, "hi": rate.hi, "n_tasks": rate.n_tasks, "draws": rate.samples}
            )  # fmt: skip
    return pandas.DataFrame(rows)
