"""Iterated reward-selective fine-tuning: mine with the newest adapter, select, train, measure the lost diversity.

Differs from the paper in: any number of rounds, where it has one. Every round's adapter is trained from the base model,
on the winners of all rounds (`union`) or of the last one (`replace`), so that rounds differ in their data alone. An
adapter that exists already, trained on the same rows under the same settings, is taken as it is: a run may be cut off
anywhere.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from lib.mining.answers import passed_matrix, sample_answers
from lib.mining.collect import Progress, Source, local_runner
from lib.mining.k_curve import pools
from lib.mining.ledger import Attempt, Ledger
from lib.mining.select import select_winners, supported_tasks
from lib.models.adapters import adapter_name
from lib.models.card import add_scores
from lib.sampling import SamplingParams, open_engine
from lib.sandbox import Sandbox
from lib.stats.intervals import Rate, rate_over_tasks
from lib.stats.pass_at_k import pass_at_k_rate
from lib.tasks.task import Task
from lib.training.resume import TrainingError
from lib.training.sft import EvalFn, OnLog, Row, SftSettings, examples, train_once

Answers = dict[str, list[Attempt]]


@dataclasses.dataclass(frozen=True)
class RoundSettings:
    """How rounds are mined and evaluated: `dev_samples` samples per development task, at the mining temperature.

    Raises ValueError for values out of range.
    """

    rounds: int = 1
    winners_from: Literal["union", "replace"] = "union"
    num_samples: int = 16
    winners_per_task: int = 4
    threshold: float = 1.0
    dev_samples: int = 2
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
    *,
    rounds: int,
    winners_from: Literal["union", "replace"],
    engine: str,
    seed: int,
) -> RoundSettings:
    """Return settings that mine later rounds as the first one was: as many samples and winners per task, sampled alike.

    Raises TrainingError without winners.
    """
    if not winners:
        raise TrainingError(
            f"no winners among {len(mined)} samples: mine more, or use a stronger model; nothing was trained"
        )
    first = winners[0]
    how = (first.temperature, first.top_p, first.max_new_tokens)
    alike = [one for one in mined if (one.temperature, one.top_p, one.max_new_tokens) == how and not one.adapter]
    return RoundSettings(
        rounds=rounds,
        winners_from=winners_from,
        num_samples=max(1, round(len(alike) / max(1, len({one.task_id for one in alike})))),
        winners_per_task=max(Counter(winner.task_id for winner in winners).values()),
        threshold=min(winner.passed / max(1, winner.total) for winner in winners),
        sampling=SamplingParams(*how),
        engine=engine,
        seed=seed,
    )


@dataclasses.dataclass(frozen=True)
class Round:
    """Hold one round: its adapter (None: the base), the training's summary, its development answers, metrics."""

    number: int
    adapter: Path | None
    summary: dict[str, Any]
    answers: Answers
    metrics: dict[str, Any]


def iterate(
    model: str,
    tasks: Sequence[Task],
    dev: Sequence[Task],
    *,
    winners: Sequence[Attempt],
    rows: Sequence[Row],
    folder: Path,
    rounds: RoundSettings,
    settings: SftSettings,
    tokenizer: Any,
    sandbox: Sandbox,
    on_log: OnLog = lambda row: None,
    eval_fn: EvalFn | None = None,
    progress: Progress = lambda items, total: items,
) -> list[Round]:
    """Return the base and `rounds.rounds` rounds of mining and training; adapters lie in folder/round1 and so on.

    `winners` are the base's, `rows` what round 1 learns from: examples of them, and more if wanted.
    Raises TrainingError as `train` does; when a later round has no winners, too.
    """

    def evaluate(number: int, adapter: Path | None, summary: dict[str, Any]) -> Round:
        ledger = Ledger(folder / "held_out.jsonl")
        answers = sample_dev_answers(model, adapter, dev, ledger, settings=rounds, sandbox=sandbox, progress=progress)
        return Round(number, adapter, summary, answers, {"round": number} | round_metrics(answers, dev))

    found = [evaluate(0, None, {})]
    pool = list(winners)
    for number in range(1, rounds.rounds + 1):
        adapter = folder / f"round{number}"
        if number > 1:
            ledger = Ledger(folder / "mining.jsonl")
            mined = mine(model, found[-1].adapter, tasks, ledger, settings=rounds, sandbox=sandbox, progress=progress)
            pool = [*pool, *mined] if rounds.winners_from == "union" else mined
            chosen = select_winners(pool, rounds.winners_per_task, rounds.seed, threshold=rounds.threshold)
            rows = examples(chosen, tasks, tokenizer)
        summary = train_once(model, rows, adapter, settings, on_log=on_log, eval_fn=eval_fn)
        found.append(evaluate(number, adapter, summary))
        found[-1].metrics.update(rows=len(rows), tasks_trained_on=len({row["task_id"] for row in rows}))
        add_scores(adapter, rates(found[-1].answers, dev))
    return found


def mine(
    model: str,
    adapter: Path | None,
    tasks: Sequence[Task],
    ledger: Ledger,
    *,
    settings: RoundSettings,
    sandbox: Sandbox,
    progress: Progress = lambda items, total: items,
) -> list[Attempt]:
    """Return `settings.num_samples` attempts per task by the model with `adapter`."""
    source = Source("mining", model, adapter_name(adapter) if adapter else "", settings.seed)
    with closing(open_engine(model, str(adapter) if adapter else None, settings.engine)) as engine:
        run = local_runner(engine, sandbox)
        return run(tasks, settings.num_samples, ledger, params=settings.sampling, source=source, progress=progress)


def sample_dev_answers(
    model: str,
    adapter: Path | None,
    tasks: Sequence[Task],
    ledger: Ledger,
    *,
    settings: RoundSettings,
    sandbox: Sandbox,
    progress: Progress = lambda items, total: items,
) -> Answers:
    """Return greedy answers and `settings.dev_samples` samples per task by the model with `adapter`."""
    source = Source("held out", model, adapter_name(adapter) if adapter else "", settings.seed)
    with closing(open_engine(model, str(adapter) if adapter else None, settings.engine)) as engine:
        return sample_answers(
            tasks,
            settings.dev_samples,
            ledger,
            attempt=local_runner(engine, sandbox),
            temperature=settings.sampling.temperature,
            max_new_tokens=settings.sampling.max_new_tokens,
            source=source,
            progress=progress,
        )


# ---------------------------------------------------------------------------------------------------------- metrics


def rates(answers: Answers, tasks: Sequence[Task], tests: str = "hidden") -> dict[str, Rate]:
    """Return {what was measured: its rate over tasks}."""
    tasks, _ = supported_tasks(tasks, *answers.values())
    split = "+".join(sorted({task.split for task in tasks}))
    return {
        f"pass@1, {split}, {protocol}": rate_over_tasks(
            passed_matrix(given, tasks, tests), protocol=protocol, tests=tests
        )
        for protocol, given in answers.items()
    }


def round_metrics(answers: Answers, tasks: Sequence[Task], tests: str = "hidden") -> dict[str, Any]:
    """Return pass@1 (greedy and over n samples), pass@n, and how much a task's samples differ.

    `distinct` is the share of a task's n samples that differ in syntax tree, `distinct_winners` how many do among those
    that pass every test; both are means over tasks. Sharpening raises pass@1 and lowers both; pass@n says whether that
    costs solutions. Tasks whose tests cannot be run are left out and counted as `unsupported`.
    """
    judged, unsupported = supported_tasks(tasks, *answers.values())
    greedy, sampled = (passed_matrix(answers[name], judged, tests) for name in ("greedy", "draws"))
    n, task_pools = sampled.shape[1], pools(answers["draws"], judged)
    return {
        "n_tasks": len(judged),
        "unsupported": len(unsupported),
        "tests": tests,
        "greedy": float(greedy.mean()),
        "pass@1": float(sampled.mean()),
        f"pass@{n}": pass_at_k_rate(sampled, n).rate,
        "distinct": sum(len(pool.programs) / n for pool in task_pools) / len(judged),
        "distinct_winners": sum(len(pool.winners) for pool in task_pools) / len(judged),
    }


def before_and_after(before: Round, after: Round, tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """Return the greedy answers of two rounds to the same tasks, side by side."""
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
