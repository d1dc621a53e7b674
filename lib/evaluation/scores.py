"""From attempts to the rows of scores.csv: which tests, which protocol, which interval, against whom."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy

from lib.evaluation.failures.taxonomy import classify
from lib.mining.answers import PASSED_FIELD, passed_matrix
from lib.mining.ledger import Attempt
from lib.sandbox import Status, Verdict
from lib.stats.estimators import (
    Rate,
    best_of_k_passed,
    by_group,
    compare,
    pass_at_k_per_task,
    rate_over_tasks,
    wilson_interval,
)
from lib.tasks.task import Task

COLUMNS = (
    "model", "split", "language", "tests", "protocol", "seed", "n_tasks", "draws",
    "rate", "lo", "hi", "vs", "p_mcnemar", "p_permutation",
)  # fmt: skip


def scores(
    answers: dict[str, dict[str, list[Attempt]]], tasks: Sequence[Task], seed: int, ks: Sequence[int] = (10,)
) -> list[dict[str, Any]]:
    """Tidy rows for every model, test set and protocol, each compared with the first model on the same tasks.

    `answers[model]` is what `answer` returned. Rates are means over tasks, intervals Wilson's over tasks.
    """
    base = next(iter(answers))
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
    values = pass_at_k_per_task(passed, k)
    lo, hi = wilson_interval(float(values.sum()), len(values))
    rate = Rate(float(values.mean()), lo, hi, len(values), passed.shape[1], "wilson", f"pass@{k}")
    return _columns(rate) | _p_values(values, None if reference is None else pass_at_k_per_task(reference, k))


def _best_of_row(matrices: "dict[tuple[str, str, str], numpy.ndarray]", model: str, base: str) -> dict[str, Any]:
    """Chosen from all draws by the visible tests, scored by the hidden ones."""
    draws = matrices[model, "draws", "hidden"].shape[1]
    chosen = {
        name: best_of_k_passed(matrices[name, "draws", "visible"], matrices[name, "draws", "hidden"], draws)
        for name in {model, base}
    }
    rate = rate_over_tasks(chosen[model], protocol=f"best-of-{draws}")
    against = None if model == base else chosen[base][:, None]
    return _columns(rate) | {"draws": draws} | _p_values(chosen[model][:, None], against)


def rates_by_field(
    passed: "numpy.ndarray", tasks: Sequence[Task], protocol: str = "draws", tests: str = "hidden"
) -> list[dict[str, Any]]:
    """Rates by tier, programming language and source, each with its macro and micro mean beside it.

    `passed`: (tasks, draws). In the macro mean each group counts alike, in the micro mean each task.
    """
    rows = []
    for field in ("tier", "programming_language", "source"):
        found = by_group(passed, [str(getattr(task, field)) for task in tasks], protocol, tests)
        named = found.groups | {"macro": found.macro, "micro": found.micro}
        rows += [{"by": field, "group": group} | _columns(rate) | {"tests": tests} for group, rate in named.items()]
    return rows


def _columns(rate: Rate) -> dict[str, Any]:
    return {
        "protocol": rate.protocol,
        "n_tasks": rate.n_tasks,
        "draws": rate.draws,
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
    """One labelled row for every attempt that failed; `names` gives the model's name for each adapter."""
    by_id = {task.task_id: task for task in tasks}
    rows = []
    for attempt in attempts:
        if attempt.solved or attempt.task_id not in by_id:
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
                "type_bangla": label.type_bangla,
                "type_polycode": label.type_polycode,
                "rule": label.rule,
                "evidence": label.evidence,
                "program": attempt.program,
            }
        )
    return rows
