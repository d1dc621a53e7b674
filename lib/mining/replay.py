"""Run a prompt–draw pair of a finished run again, and show the stored verdict beside the new one."""

import dataclasses
from pathlib import Path
from typing import Any

from lib.base.errors import WorkbookError
from lib.mining.grading import decisive, grade_visible_and_hidden
from lib.mining.ledger import Attempt, Ledger
from lib.models.adapters import adapter_name
from lib.sampling import Request, SamplingParams, open_engine
from lib.sandbox import Sandbox
from lib.tasks.prompts import build_prompt
from lib.tasks.task import Task, read_tasks


class ReplayError(WorkbookError):
    """A pair that cannot be run again; the message names the run, the task and what is missing."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """One attempt of a run, the ledger it stands in, and its task with the tests that judged it."""

    ledger: str
    attempt: Attempt
    task: Task


def find(run: Path, task_id: str, draw: int) -> list[Stored]:
    """Return every attempt of the run at a task with this draw number, over all its ledgers, models and temperatures.

    Raises ReplayError for a run without ledgers, a task or draw it has none of, or tests that have changed since.
    """
    ledgers = sorted((run / "attempts").glob("*.jsonl"))
    if not ledgers:
        raise ReplayError(f"{run}: no ledger in {run / 'attempts'}; a run has mining.jsonl there")
    of_task = [(path.stem, one) for path in ledgers for one in Ledger(path) if one.task_id == task_id]
    if not of_task:
        raise ReplayError(f"{run}: no attempt at task {task_id!r} in {', '.join(path.name for path in ledgers)}")
    chosen = [(name, one) for name, one in of_task if one.draw == draw]
    if not chosen:
        known = sorted({one.draw for _, one in of_task})
        raise ReplayError(f"{run}: task {task_id!r} has no draw {draw}; its draws are {known[0]} to {known[-1]}")
    tasks = {
        task.tests_digest: task
        for path in sorted((run / "tasks").glob("*.jsonl")) for task in read_tasks(path) if task.task_id == task_id
    }  # fmt: skip
    changed = [one for _, one in chosen if one.tests_hash not in tasks]
    if changed:
        raise ReplayError(f"{run}: the tests of task {task_id!r} are no longer those that judged it")
    return [Stored(name, one, tasks[one.tests_hash]) for name, one in chosen]


def replay(stored: Stored, sandbox: Sandbox, program: str | None = None) -> dict[str, Any]:
    """Judge the stored program, or another one, again; return the stored verdict, the new one, and if they agree."""
    attempt = stored.attempt
    visible, hidden = grade_visible_and_hidden(sandbox, stored.task, attempt.program if program is None else program)
    new = decisive(visible, hidden)
    counted = (visible, hidden) if visible is not hidden else (visible,)
    before = {name: getattr(attempt, name) for name in ("status", "passed", "total", "failure", "exit_code")}
    after = {
        "status": new.status,
        "passed": sum(verdict.passed for verdict in counted),
        "total": sum(verdict.total for verdict in counted),
        "failure": new.failure,
        "exit_code": new.exit_code,
    }
    same = all(before[name] == after[name] for name in ("status", "passed", "total"))
    about = {name: getattr(attempt, name) for name in ("task_id", "draw", "model", "adapter", "temperature", "seed")}
    shown = {name: getattr(new, name) for name in ("commands", "stdout_head", "stderr_head")}
    return {"ledger": stored.ledger, **about, "stored": before, "new": after, "same": same, **shown}


def sample_again(stored: Stored, run: Path) -> str:
    """Return the completion that the stored model, adapter, settings and seed give now.

    Raises ReplayError for weights that are no longer there (another adapter, a later step of a training), or a prompt
    that is built otherwise now.
    """
    attempt = stored.attempt
    if (attempt.step or 1) > 1:
        raise ReplayError(f"{run}: the weights at step {attempt.step} of the training are not kept; its program is")
    folders = [folder for folder in sorted((run / "adapters").glob("*")) if folder.is_dir()]
    adapter = next((str(one) for one in folders if attempt.adapter and adapter_name(one) == attempt.adapter), None)
    if attempt.adapter and adapter is None:
        raise ReplayError(f"{run}: adapter {attempt.adapter} is no longer in {run / 'adapters'}")
    engine = open_engine(attempt.model, adapter)
    try:
        prompt = build_prompt(stored.task, engine.tokenizer)
        if prompt.digest != attempt.prompt_hash:
            raise ReplayError(f"{run}: the prompt of task {attempt.task_id!r} is built otherwise than it was then")
        params = SamplingParams(attempt.temperature, attempt.top_p, attempt.max_new_tokens)
        request = Request(attempt.key, prompt.text, prompt.stops, attempt.seed, prompt.prefill)
        return next(completion.text for _, completion in engine.stream(iter([request]), params))
    finally:
        engine.close()
