"""Repair turns: show a model how its program failed, and let it answer again.

A repaired program is an attempt like any other; its `parent` is the prompt of the attempt that it follows. Hidden tests
stay hidden: of a function task the failure on a visible test is shown, of a program task a crash, a compiler's message
or a limit, never the expected output. Repairs belong in a ledger of their own: rates are those of first answers.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from lib.mining.collect import Job, Source, graded_attempts
from lib.mining.ledger import Attempt, Ledger
from lib.sampling import Engine, SamplingParams, exceeds_context
from lib.sandbox import Sandbox, Status
from lib.tasks.prompts import FENCE, Prompt, build_prompt
from lib.tasks.task import Task

REQUEST = "This program fails:\n\n{}\n\nWrite the whole program again, corrected, and answer with the code alone."
SCRATCH = re.compile(r"/[^\s\"']*/(?=(?:main|program|tests)\.)")  # folders that change with every run


def shown_failure(task: Task, attempt: Attempt) -> str:
    """Return what a model may be shown of an attempt's failure; "" where it passed or where only hidden tests fail."""
    on_hidden_tests = attempt.visible_ok if task.mode == "function" else attempt.status == Status.WRONG_OUTPUT
    if attempt.solved or on_hidden_tests or not attempt.counts:
        return ""
    said = "\n".join(filter(None, (attempt.failure, attempt.stderr_head.strip()))) or attempt.status
    return SCRATCH.sub("", said)


def follow_up(task: Task, failed: Attempt, tokenizer: Any) -> Prompt:
    """Return the prompt of the next turn: the task, the program that failed, and how."""
    answer = f"{FENCE}{task.programming_language}\n{failed.program.rstrip()}\n{FENCE}"
    request = REQUEST.format(shown_failure(task, failed))
    said = [{"role": "assistant", "content": answer}, {"role": "user", "content": request}]
    return build_prompt(task, tokenizer, said)


def repair(
    tasks: Iterable[Task],
    attempts: Sequence[Attempt],
    turns: int,
    ledger: Ledger,
    *,
    engine: Engine,
    sandbox: Sandbox,
    params: SamplingParams,
    source: Source,
) -> list[Attempt]:
    """Return further attempts: each failing one is answered again, in up to `turns` turns, each with its `parent`.

    Those already in the ledger are not sampled again. A chain ends when its program passes, when its failure may not
    be shown, or when the prompt leaves no room for `max_new_tokens` in the context.
    """
    by_id, done, made = {task.task_id: task for task in tasks}, {one.key: one for one in ledger}, list[Attempt]()
    for _ in range(turns):
        failed = [(by_id[one.task_id], one) for one in attempts if shown_failure(by_id[one.task_id], one)]
        jobs = [
            Job(task, follow_up(task, one, engine.tokenizer), one.draw, params, source, one.prompt_hash)
            for task, one in failed
        ]
        too_long = exceeds_context([job.prompt for job in jobs], engine, params)
        jobs = [job for job in jobs if job.prompt not in too_long]
        todo = [job for job in jobs if job.key not in done]
        done |= {one.key: one for one in graded_attempts(todo, engine, sandbox, ledger)}
        attempts = [done[job.key] for job in jobs]
        made += attempts
    return made
