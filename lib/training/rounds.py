"""Iterated reward-selective fine-tuning: mine with the newest adapter, select, train, and look at what it cost in diversity.

Differs from the paper in: any number of rounds, where it has one. Every round's adapter is trained from the base model, on the
winners of all rounds (`union`) or of the last one (`replace`), so that rounds differ in their data alone. An adapter that is
there already, trained on the same rows under the same settings, is taken as it is: a run may be cut off anywhere.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lib.mining.answers import passed_matrix, sample_answers
from lib.mining.collect import Progress, Source, attempt_all, local_runner, select_winners
from lib.mining.k_curve import pools
from lib.mining.ledger import Attempt, Ledger
from lib.models.adapters import adapter_name
from lib.models.card import add_scores
from lib.sampling import SamplingParams, open_engine
from lib.sandbox import Sandbox
from lib.stats.intervals import Rate, rate_over_tasks
from lib.stats.pass_at_k import pass_at_k_rate
from lib.tasks.task import Task
from lib.training.sft import EvalFn, OnLog, Row, SftSettings, TrainingError, examples, train_once

Answers = dict[str, list[Attempt]]


@dataclasses.dataclass(frozen=True)
class RoundSettings:
    """How rounds are mined and looked at. `dev_samples` at the mining temperature measure a round's diversity."""

    rounds: int = 1
    winners_from: Literal["union", "replace"] = "union"
    draws: int = 16
    winners_per_task: int = 4
    dev_samples: int = 4
    sampling: SamplingParams = SamplingParams()
    engine: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds={self.rounds}: should be at least 1")
        if self.winners_from not in ("union", "replace"):
            raise ValueError(f"winners_from={self.winners_from!r}: choose union or replace")


def settings_from_mining(
    winners: Sequence[Attempt],
    mined: Sequence[Attempt],
    rounds: int,
    winners_from: Literal["union", "replace"],
    engine: str,
    seed: int,
) -> RoundSettings:
    """Later rounds mined as the first one was: as many draws a task on average, sampled alike, as many winners a task.

    Raises TrainingError without winners.
    """
    if not winners:
        raise TrainingError(
            f"no winners among {len(mined)} draws: mine more, or use a stronger model; nothing was trained"
        )
    first = winners[0]
    how = (first.temperature, first.top_p, first.max_new_tokens)
    alike = [one for one in mined if (one.temperature, one.top_p, one.max_new_tokens) == how and not one.adapter]
    draws = round(len(alike) / max(1, len({one.task_id for one in alike})))
    per_task = max(Counter(winner.task_id for winner in winners).values())
    return RoundSettings(
        rounds, winners_from, max(1, draws), per_task, sampling=SamplingParams(*how), engine=engine, seed=seed
    )


@dataclasses.dataclass(frozen=True)
class Round:
    """One round: its adapter (None: the base), what training said, what it answers on held-out tasks, and the figures."""

    number: int
    adapter: Path | None
    summary: dict[str, Any]
    answers: Answers
    metrics: dict[str, Any]


def iterate(
    model: str,
    tasks: Sequence[Task],
    held_out: Sequence[Task],
    winners: Sequence[Attempt],
    rows: Sequence[Row],
    folder: Path,
    plan: RoundSettings,
    settings: SftSettings,
    tokenizer: Any,
    sandbox: Sandbox,
    on_log: OnLog = lambda row: None,
    evaluate: EvalFn | None = None,
    progress: Progress = lambda items, total: items,
) -> list[Round]:
    """The base and `plan.rounds` rounds of mining and training, adapters in folder/round1, folder/round2, …

    `winners` are the base's, `rows` what round 1 learns from: examples of them, and more if wanted.
    Raises TrainingError as `train` does; when a later round has no winners, too.
    """

    def evaluate_round(number: int, adapter: Path | None, summary: dict[str, Any]) -> Round:
        ledger = Ledger(folder / "held_out.jsonl")
        given = sample_dev_answers(model, adapter, held_out, ledger, plan, sandbox, progress)
        return Round(number, adapter, summary, given, {"round": number} | round_metrics(given, held_out))

    found = [evaluate_round(0, None, {})]
    pool = list(winners)
    for number in range(1, plan.rounds + 1):
        adapter = folder / f"round{number}"
        if number > 1:
            mined = mine(model, found[-1].adapter, tasks, Ledger(folder / "mining.jsonl"), plan, sandbox, progress)
            pool = [*pool, *mined] if plan.winners_from == "union" else mined
            rows = examples(select_winners(pool, plan.winners_per_task, plan.seed), tasks, tokenizer)
        summary = train_once(model, rows, adapter, settings, on_log, evaluate)
        found.append(evaluate_round(number, adapter, summary))
        found[-1].metrics.update(rows=len(rows), tasks_trained_on=len({row["task_id"] for row in rows}))
        add_scores(adapter, rates(found[-1].answers, held_out))
    return found


def mine(
    model: str,
    adapter: Path | None,
    tasks: Sequence[Task],
    ledger: Ledger,
    plan: RoundSettings,
    sandbox: Sandbox,
    progress: Progress = lambda items, total: items,
) -> list[Attempt]:
    """`plan.draws` attempts at every task by the model with `adapter`."""
    engine = open_engine(model, str(adapter) if adapter else None, plan.engine)
    source = Source("mining", model, adapter_name(adapter) if adapter else "", plan.seed)
    try:
        return attempt_all(tasks, plan.draws, engine, sandbox, ledger, plan.sampling, source, progress)
    finally:
        engine.close()


def sample_dev_answers(
    model: str,
    adapter: Path | None,
    tasks: Sequence[Task],
    ledger: Ledger,
    plan: RoundSettings,
    sandbox: Sandbox,
    progress: Progress = lambda items, total: items,
) -> Answers:
    """Greedy answers and `plan.dev_samples` draws for every task by the model with `adapter`."""
    engine = open_engine(model, str(adapter) if adapter else None, plan.engine)
    source = Source("held out", model, adapter_name(adapter) if adapter else "", plan.seed)
    how = plan.sampling.temperature, plan.sampling.max_new_tokens
    try:
        return sample_answers(tasks, local_runner(engine, sandbox), ledger, source, plan.dev_samples, *how, progress)
    finally:
        engine.close()


# ---------------------------------------------------------------------------------------------------------- figures


def rates(answers: Answers, tasks: Sequence[Task], tests: str = "hidden") -> dict[str, Rate]:
    """{what was measured: its rate over tasks}."""
    split = "+".join(sorted({task.split for task in tasks}))
    return {
        f"pass@1, {split}, {protocol}": rate_over_tasks(
            passed_matrix(given, tasks, tests), protocol=protocol, tests=tests
        )
        for protocol, given in answers.items()
    }


def round_metrics(answers: Answers, tasks: Sequence[Task], tests: str = "hidden") -> dict[str, Any]:
    """pass@1 greedy and over n draws, pass@n, and how unlike a task's draws are.

    `distinct` is the share of a task's n draws that differ in syntax tree, `distinct_winners` how many do among those that pass
    every test; both are means over tasks. Sharpening raises pass@1 and lowers both; pass@n says whether that costs solutions.
    """
    greedy, drawn = (passed_matrix(answers[name], tasks, tests) for name in ("greedy", "draws"))
    n, drawn_pools = drawn.shape[1], pools(answers["draws"], tasks)
    return {
        "n_tasks": len(tasks),
        "tests": tests,
        "greedy": float(greedy.mean()),
        "pass@1": float(drawn.mean()),
        f"pass@{n}": pass_at_k_rate(drawn, n).rate,
        "distinct": sum(len(pool.programs) / n for pool in drawn_pools) / len(tasks),
        "distinct_winners": sum(len(pool.winners) for pool in drawn_pools) / len(tasks),
    }


def before_and_after(before: Round, after: Round, tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """The greedy answers of two rounds to the same tasks, side by side."""
    answers = [{attempt.task_id: attempt for attempt in one.answers["greedy"]} for one in (before, after)]
    return [
        {
            "prompt": task.prompt,
            "before": answers[0][task.task_id].program,
            "passed before": answers[0][task.task_id].solved,
            "after": answers[1][task.task_id].program,
            "passed after": answers[1][task.task_id].solved,
        }
        for task in tasks
    ]
