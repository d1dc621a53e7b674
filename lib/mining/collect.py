"""Sampling programs and running them (RSFT paper, Algorithm 1, lines 1 to 7).

Differs from the paper in: the samples of all prompts are interleaved (sample 0 of every prompt, then sample 1, …), so a
prompt's prefill is computed once and found in the engine's cache afterwards; a passing sample must pass the hidden
tests of its training task too, not only the visible one.
"""

import collections
import dataclasses
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from lib.mining.adaptive import fit_prior, plan
from lib.mining.grading import decisive, grade_visible_and_hidden
from lib.mining.ledger import Attempt, Key, Ledger, now
from lib.mining.select import syntax_digest
from lib.sampling import Completion, Engine, Request, SamplingParams, exceeds_context, sample_seed
from lib.sandbox import Sandbox, Status, Verdict
from lib.tasks.prompts import Prompt, build_prompt
from lib.tasks.task import Task

Progress = Callable[[Iterable[Any], int], Iterable[Any]]


@dataclasses.dataclass(frozen=True)
class Source:
    """Where attempts come from: the run, the model with its adapter ("" for none), and the run's seed."""

    run_id: str
    model: str
    adapter: str
    seed: int


class AttemptRunner(Protocol):
    """What `attempt_all` does once engine and sandbox are chosen, in this process or on a cluster."""

    def __call__(
        self,
        tasks: Sequence[Task],
        num_samples: int,
        ledger: Ledger,
        *,
        params: SamplingParams,
        source: Source,
        progress: Progress = ...,
    ) -> list[Attempt]: ...


@dataclasses.dataclass(frozen=True)
class Job:
    """One sample to make: `draw` is its number among the task's samples."""

    task: Task
    prompt: Prompt
    draw: int
    params: SamplingParams
    source: Source
    parent: str = ""  # see `Attempt.parent`

    @property
    def seed(self) -> int:
        return sample_seed(self.source.seed, self.task.task_id, self.draw)

    @property
    def key(self) -> Key:
        """The ledger's key of the attempt that this job makes."""
        prompt = (self.task.task_id, self.prompt.digest, self.task.tests_digest, self.source.model, self.source.adapter)
        return (*prompt, self.params.temperature, self.params.top_p, self.params.max_new_tokens, self.seed)


def fits_context(tasks: Sequence[Task], engine: Engine, params: SamplingParams) -> tuple[list[Task], list[str]]:
    """Return the tasks whose prompts leave room for `max_new_tokens` in the context, and the other tasks' ids."""
    prompts = [build_prompt(task, engine.tokenizer) for task in tasks]
    skipped = [prompt.task_id for prompt in exceeds_context(prompts, engine, params)]
    return [task for task in tasks if task.task_id not in skipped], skipped


def attempt_all(
    tasks: Sequence[Task],
    num_samples: int,
    ledger: Ledger,
    *,
    engine: Engine,
    sandbox: Sandbox,
    params: SamplingParams,
    source: Source,
    progress: Progress = lambda items, total: items,
) -> list[Attempt]:
    """Return `num_samples` attempts per task, those already in the ledger included; new ones are on disk once graded.

    Sampling and execution overlap: programs are graded in other processes while the engine writes the next ones.
    Raises ValueError for num_samples < 1 or greedy decoding with more than one sample, SandboxError when the sandbox
    itself fails.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples={num_samples}: should be at least 1")
    if params.temperature == 0 and num_samples > 1:
        raise ValueError(f"num_samples={num_samples} at temperature 0: greedy decoding has one answer; use 1")
    prompts = [build_prompt(task, engine.tokenizer) for task in tasks]
    jobs = [
        Job(task, prompt, draw, params, source)
        for draw in range(num_samples)
        for task, prompt in zip(tasks, prompts, strict=True)
    ]
    done = {attempt.key: attempt for attempt in ledger}
    todo = [job for job in jobs if job.key not in done]
    for attempt in progress(graded_attempts(todo, engine, sandbox, ledger), len(todo)):
        done[attempt.key] = attempt
    return [done[job.key] for job in jobs]


def local_runner(engine: Engine, sandbox: Sandbox) -> AttemptRunner:
    """Return `attempt_all` with this engine and this sandbox."""
    return functools.partial(attempt_all, engine=engine, sandbox=sandbox)


def attempt_adaptively(
    tasks: Sequence[Task],
    budget: int,
    ledger: Ledger,
    *,
    max_winners: int,
    engine: Engine,
    sandbox: Sandbox,
    params: SamplingParams,
    source: Source,
    progress: Progress = lambda items, total: items,
) -> list[Attempt]:
    """Return `budget` attempts, spread over the tasks by how many new winners the next sample of each should bring.

    `max_winners` distinct winners of a task are enough. Rounds of a tenth of the tasks are planned by
    `lib.mining.adaptive` with the prompt's length as covariate. A rerun finds each round's attempts in the ledger and
    so plans the same rounds. A task whose tests cannot be run gets no further samples. Raises ValueError for a budget
    below 1 or greedy decoding.
    """
    if budget < 1 or params.temperature == 0:
        raise ValueError(f"budget={budget}, temperature={params.temperature}: a budget of 1 or more, and sampling")
    prompts = [build_prompt(task, engine.tokenizer) for task in tasks]
    lengths = [math.log(len(task.prompt)) for task in tasks]
    existing = {attempt.key: attempt for attempt in ledger}
    made: list[Attempt] = []

    def rounds() -> Iterator[Attempt]:
        while len(made) < budget:
            counts = _counts(tasks, made)
            unsupported = {attempt.task_id for attempt in made if not attempt.counts}
            closed = [task.task_id in unsupported for task in tasks]
            total = min(budget - len(made), max(1, len(tasks) // 10))
            prior = fit_prior(counts, lengths)
            chosen = plan(counts, max_winners, total, prior=prior, closed=closed, seed=source.seed)
            jobs = [Job(tasks[i], prompts[i], counts[i][0], params, source) for i in chosen]
            if not jobs:
                return
            for attempt in graded_attempts([job for job in jobs if job.key not in existing], engine, sandbox, ledger):
                existing[attempt.key] = attempt
                yield attempt
            made.extend(existing[job.key] for job in jobs)

    for _ in progress(rounds(), budget):
        pass
    return made


def _counts(tasks: Sequence[Task], attempts: Iterable[Attempt]) -> list[tuple[int, int]]:
    """Return (samples, distinct winners) of each task."""
    samples: collections.Counter[str] = collections.Counter()
    winners: dict[str, set[str]] = collections.defaultdict(set)
    for attempt in attempts:
        samples[attempt.task_id] += 1
        if attempt.solved:
            winners[attempt.task_id].add(syntax_digest(attempt.program))
    return [(samples[task.task_id], len(winners[task.task_id])) for task in tasks]


Pending = tuple[Request, Completion, str, "Future[tuple[Verdict, Verdict]]"]


def graded_attempts(jobs: Sequence[Job], engine: Engine, sandbox: Sandbox, ledger: Ledger) -> Iterator[Attempt]:
    """Yield an attempt per job as soon as it is graded and on disk."""
    if not jobs:
        return
    requests = (Request(job, job.prompt.text, job.prompt.stops, job.seed, job.prompt.prefill) for job in jobs)
    pending: list[Pending] = []
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as graders:
        for request, completion in engine.stream(requests, jobs[0].params):
            program = request.key.prompt.program(completion.text)
            verdicts = graders.submit(grade_visible_and_hidden, sandbox, request.key.task, program)
            pending.append((request, completion, program, verdicts))
            graded = [one[3].done() for one in pending]
            yield from _write(list(itertools.compress(pending, graded)), ledger, engine.name)
            pending = [one for one, done in zip(pending, graded, strict=True) if not done]
        yield from _write(pending, ledger, engine.name)


def _write(graded: Sequence[Pending], ledger: Ledger, sampler: str) -> list[Attempt]:
    """Append finished attempts to the ledger; waits for verdicts that are not there yet."""
    attempts = [_attempt(one, sampler) for one in graded]
    ledger.append(attempts)
    return attempts


def judged_fields(verdict: Verdict) -> dict[str, Any]:
    """Return what an attempt keeps of how its program ran: exit code, commands, first bytes of stdout and stderr."""
    return {name: getattr(verdict, name) for name in ("exit_code", "commands", "stdout_head", "stderr_head")}


def _attempt(graded: Pending, sampler: str) -> Attempt:
    request, completion, program, verdicts = graded
    job: Job = request.key
    visible, hidden = verdicts.result()
    decided = decisive(visible, hidden)
    counted = (visible, hidden) if visible is not hidden else (visible,)
    return Attempt(
        run_id=job.source.run_id,
        task_id=job.task.task_id,
        draw=job.draw,
        seed=request.seed,
        model=job.source.model,
        adapter=job.source.adapter,
        sampler=sampler,
        temperature=job.params.temperature,
        top_p=job.params.top_p,
        max_new_tokens=job.params.max_new_tokens,
        prompt_hash=job.prompt.digest,
        tests_hash=job.task.tests_digest,
        completion=completion.text,
        program=program,
        finished=completion.finished,
        n_tokens=len(completion.token_ids),
        logprob_sum=completion.logprob_sum,
        status=decided.status,
        passed=sum(verdict.passed for verdict in counted),
        total=sum(verdict.total for verdict in counted),
        visible_ok=visible.status == Status.SUCCESS,
        hidden_ok=hidden.status == Status.SUCCESS,
        failure=decided.failure,
        cpu_s=sum(verdict.cpu_s for verdict in counted),
        wall_s=sum(verdict.wall_s for verdict in counted),
        peak_rss_mb=max(verdict.peak_rss_mb for verdict in counted),
        sandbox_mode=decided.sandbox_mode,
        created_at=now(),
        parent=job.parent,
        **judged_fields(decided),
    )
