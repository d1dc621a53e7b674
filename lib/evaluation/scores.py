"""Turn attempts into the rows of scores.csv: tests, protocol, rate with interval, and paired p-values."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy

from lib.evaluation.failures.taxonomy import classify
from lib.mining.answers import PASSED_FIELD, passed_matrix
from lib.mining.ledger import Attempt
from lib.mining.select import supported_tasks
from lib.sandbox import Status, Verdict
from lib.stats.intervals import (
    Rate,
    bca_interval,
    by_group,
    clopper_pearson_interval,
    delta_interval,
    rate_over_tasks,
)  # fmt: skip
from lib.stats.paired import compare
from lib.stats.pass_at_k import best_of_k_passed, pass_at_k_per_task, pass_at_k_rate
from lib.tasks.task import Task

NO_TYPE = "none"  # a failure that has no type of Troopers: the program never starts
COLUMNS = (
    "model", "split", "language", "tests", "protocol", "seed", "n_tasks", "draws",
    "rate", "lo", "hi", "vs", "p_mcnemar", "p_permutation",
)  # fmt: skip


def scores(
    answers: dict[str, dict[str, list[Attempt]]], tasks: Sequence[Task], seed: int, ks: Sequence[int] = (10,)
) -> list[dict[str, Any]]:
    """Return tidy rows for every model, test set and protocol, each compared with the first model on the same tasks.

    `answers[model]` is the result of `lib.mining.answers`. Rates are means over tasks, intervals Wilson's over tasks.
    Tasks whose tests cannot be run are left out.
    """
    base = next(iter(answers))
    tasks, _ = supported_tasks(tasks, *(attempts for protocols in answers.values() for attempts in protocols.values()))
    matrices = {
        (model, protocol, tests): passed_matrix(attempts, tasks, tests)
        for model, protocols in answers.items()
        for protocol, attempts in protocols.items()
        for tests in PASSED_FIELD
    }
    rows = []
    for (model, protocol, tests), passed in matrices.items():
        reference = None if model == base else matrices[base, protocol, tests]
        fixed = {
            "model": model,
            "split": "+".join(sorted({task.split for task in tasks})),
            "language": "+".join(sorted({task.programming_language for task in tasks})),
            "tests": tests,
            "seed": seed,
            "vs": "" if reference is None else base,
        }
        rows.append(fixed | _rate_row(protocol, passed, reference))
        if protocol == "draws":
            rows += [fixed | _pass_at_k_row(passed, reference, k) for k in ks if k <= passed.shape[1]]
        if (protocol, tests) == ("draws", "hidden") and passed.shape[1] > 1:
            rows.append(fixed | _best_of_row(matrices, model, base))
    return [{column: row[column] for column in COLUMNS} for row in rows]


def _rate_row(protocol: str, passed: "numpy.ndarray", reference: "numpy.ndarray | None") -> dict[str, Any]:
    return _columns(rate_over_tasks(passed, protocol=protocol)) | _p_values(passed, reference)


def _pass_at_k_row(passed: "numpy.ndarray", reference: "numpy.ndarray | None", k: int) -> dict[str, Any]:
    other = None if reference is None else pass_at_k_per_task(reference, k)
    return _columns(pass_at_k_rate(passed, k)) | _p_values(pass_at_k_per_task(passed, k), other)


def _best_of_row(matrices: "dict[tuple[str, str, str], numpy.ndarray]", model: str, base: str) -> dict[str, Any]:
    """Return the row of best-of-K: chosen from all samples by the visible tests, right when it passes all tests."""
    chosen = {}
    for name in {model, base}:
        visible, hidden = (matrices[name, "draws", tests] for tests in ("visible", "hidden"))
        chosen[name] = best_of_k_passed(visible, hidden, visible.shape[1])
    samples = matrices[model, "draws", "hidden"].shape[1]
    rate = dataclasses.replace(rate_over_tasks(chosen[model], protocol=f"best-of-{samples}"), samples=samples)
    return {"tests": "all"} | _columns(rate) | _p_values(chosen[model], None if model == base else chosen[base])


def rates_by_field(
    passed: "numpy.ndarray", tasks: Sequence[Task], protocol: str = "draws", tests: str = "hidden"
) -> list[dict[str, Any]]:
    """Return rates by tier, programming language and source, each with its macro and micro mean beside it.

    `passed`: (tasks, draws). The macro mean weights groups equally, the micro mean tasks.
    """
    rows = []
    for field in ("tier", "programming_language", "source"):
        found = by_group(passed, [str(getattr(task, field)) for task in tasks], protocol, tests=tests)
        named = found.groups | {"macro": found.macro, "micro": found.micro}
        rows += [{"by": field, "group": group} | _columns(rate) | {"tests": tests} for group, rate in named.items()]
    return rows


def interval_rows(greedy: "numpy.ndarray", sampled: "numpy.ndarray") -> list[dict[str, Any]]:
    """Return each 95 % interval of a model's two rates side by side: greedy (tasks, 1), samples (tasks, M).

    Greedy: Wilson and Clopper–Pearson. Macro average over prompts of the samples' rates: Wilson, delta method, BCa
    bootstrap. The delta method has none (nan) where every task has the same rate.
    """
    rates = sampled.mean(axis=1)
    one, exact = rate_over_tasks(greedy), rate_over_tasks(greedy, "clopper-pearson")
    macro = rate_over_tasks(sampled)
    delta = (math.nan, math.nan) if numpy.ptp(rates) == 0 else delta_interval(rates)
    found = [
        ("greedy", "wilson", one.rate, (one.lo, one.hi)),
        ("greedy", "clopper-pearson", exact.rate, (exact.lo, exact.hi)),
        ("macro average", "wilson", macro.rate, (macro.lo, macro.hi)),
        ("macro average", "delta", macro.rate, delta),
        ("macro average", "bca bootstrap", macro.rate, bca_interval(rates)),
    ]
    return [
        {"quantity": quantity, "interval": method, "rate": rate, "lo": lo, "hi": hi}
        for quantity, method, rate, (lo, hi) in found
    ]


def per_task_rows(
    sampled: "Mapping[str, numpy.ndarray]", tasks: Sequence[Task], tests: str = "hidden"
) -> list[dict[str, Any]]:
    """Return one row per task and model: passing samples of all, the rate, its Clopper–Pearson interval over samples.

    `sampled[model]`: (tasks, samples). This interval is of one task's own chance to be solved by one sample.
    """
    rows = []
    for place, task in enumerate(tasks):
        for model, passed in sampled.items():
            count, n = int(passed[place].sum()), passed.shape[1]
            lo, hi = clopper_pearson_interval(count, n)
            rows.append({"task_id": task.task_id, "tier": task.tier, "language": task.programming_language,
                         "model": model, "tests": tests, "passed": count, "draws": n, "rate": count / n,
                         "lo": round(lo, 6), "hi": round(hi, 6)})  # fmt: skip
    return rows


def _columns(rate: Rate) -> dict[str, Any]:
    return {
        "protocol": rate.protocol,
        "n_tasks": rate.n_tasks,
        "draws": rate.samples,
        "rate": round(rate.rate, 6),
        "lo": round(rate.lo, 6),
        "hi": round(rate.hi, 6),
    }


def _p_values(passed: "numpy.ndarray", reference: "numpy.ndarray | None") -> dict[str, Any]:
    if reference is None:
        return {"p_mcnemar": None, "p_permutation": None}
    found = compare(passed, reference)
    return {"p_mcnemar": found.p_mcnemar, "p_permutation": found.p_permutation}


def failures(attempts: Iterable[Attempt], tasks: Sequence[Task], names: dict[str, str]) -> list[dict[str, Any]]:
    """Return one labelled row per failed attempt; `names` gives the model's name for each adapter.

    Attempts at tests that cannot be run here are no failures and are left out.
    """
    by_id = {task.task_id: task for task in tasks}
    rows = []
    for attempt in attempts:
        if attempt.solved or not attempt.counts or attempt.task_id not in by_id:
            continue
        verdict = Verdict(Status(attempt.status), attempt.passed, attempt.total, failure=attempt.failure)
        label = classify(by_id[attempt.task_id], attempt.program, verdict)
        rows.append(
            {
                "model": names[attempt.adapter],
                "task_id": attempt.task_id,
                "draw": attempt.draw,
                "temperature": attempt.temperature,
                "status": attempt.status,
                "troopers_type": str(label.troopers_type or NO_TYPE),
                "polycode_type": label.polycode_type,
                "rule": label.rule,
                "evidence": label.evidence,
                "program": attempt.program,
            }
        )
    return rows
