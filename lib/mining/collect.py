"""Drawing programs, running them, keeping winners (RSFT paper, Algorithm 1).

Differs from the paper in: the draws of all prompts are interleaved (draw 0 of every prompt, then draw 1, …), so a prompt's
prefill is computed once and found in the engine's cache afterwards; winners are de-duplicated by syntax tree; a winner
must pass the hidden tests of its training task too, not only the visible one.
"""

import ast
import collections
import dataclasses
import math
import os
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, get_args

from lib.mining.adaptive import fit_prior, plan
from lib.mining.ledger import Attempt, Ledger, now
from lib.sampling import Completion, Engine, Request, SamplingParams, exceeds_context, sample_seed
from lib.sandbox import Sandbox, SandboxError, Status, Verdict
from lib.tasks.prompts import Prompt, build_prompt
from lib.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Source:
    """Whose attempts these are."""

    run_id: str
    model: str
    adapter: str
    seed: int


@dataclasses.dataclass(frozen=True)
class _Job:
    task: Task
    prompt: Prompt
    draw: int


Queue = collections.deque[tuple[Request, Completion, str, "Future[tuple[Verdict, Verdict]]"]]
SAME_FOR_EVERY_TEST = (Status.TIMEOUT, Status.MEMORY, Status.COMPILE_ERROR, Status.NO_CODE)
Scorer = Literal["random", "shortest", "likeliest", "distinct", "margin"]
Progress = Callable[[Iterable[Any], int], Iterable[Any]]
AttemptRunner = Callable[
    [Sequence[Task], int, Ledger, SamplingParams, Source, Progress], list[Attempt]
]  # `attempt_all`, somewhere


def fits_context(tasks: Sequence[Task], engine: Engine, settings: SamplingParams) -> tuple[list[Task], list[str]]:
    """The tasks whose prompts leave room for `max_new_tokens` in the model's context, and the ids of the others."""
    prompts = [build_prompt(task, engine.tokenizer) for task in tasks]
    skipped = [prompt.task_id for prompt in exceeds_context(prompts, engine, settings)]
    return [task for task in tasks if task.task_id not in skipped], skipped


def attempt_all(
    tasks: Sequence[Task],
    draws: int,
    engine: Engine,
    sandbox: Sandbox,
    ledger: Ledger,
    settings: SamplingParams,
    source: Source,
    progress: Progress = lambda items, total: items,
) -> list[Attempt]:
    """`draws` attempts for every task, those already in the ledger included; each new one is on disk once graded.

    Sampling and execution overlap: programs are graded in other processes while the engine draws the next ones.
    Raises ValueError for draws < 1 or greedy decoding with more than one draw, SandboxError when the sandbox itself fails.
    """
    if draws < 1:
        raise ValueError(f"draws={draws}: should be at least 1")
    if settings.temperature == 0 and draws > 1:
        raise ValueError(f"draws={draws} at temperature 0: greedy decoding has one answer; use draws=1")
    prompts = [build_prompt(task, engine.tokenizer) for task in tasks]
    jobs = [_Job(task, prompt, draw) for draw in range(draws) for task, prompt in zip(tasks, prompts, strict=True)]
    keys = [_key(job, settings, source) for job in jobs]
    done = {attempt.key: attempt for attempt in ledger}
    todo = [job for key, job in zip(keys, jobs, strict=True) if key not in done]
    for attempt in progress(_attempts(todo, engine, sandbox, ledger, settings, source), len(todo)):
        done[attempt.key] = attempt
    return [done[key] for key in keys]


def local_runner(engine: Engine, sandbox: Sandbox) -> AttemptRunner:
    """`attempt_all` with this engine and this sandbox."""

    def attempt(
        tasks: Sequence[Task], draws: int, ledger: Ledger, settings: SamplingParams, source: Source, progress: Progress
    ) -> list[Attempt]:
        return attempt_all(tasks, draws, engine, sandbox, ledger, settings, source, progress)

    return attempt


def attempt_adaptively(
    tasks: Sequence[Task],
    budget: int,
    per_task: int,
    engine: Engine,
    sandbox: Sandbox,
    ledger: Ledger,
    settings: SamplingParams,
    source: Source,
    progress: Progress = lambda items, total: items,
) -> list[Attempt]:
    """`budget` attempts spread over the tasks by what the next draw of each promises, `per_task` distinct winners being enough.

    Rounds of a tenth of the tasks, planned by `lib.mining.adaptive` with the prompt's length as a covariate. A rerun finds each round's
    attempts in the ledger and so plans the same rounds. Raises ValueError for a budget below 1 or greedy decoding.
    """
    if budget < 1 or settings.temperature == 0:
        raise ValueError(f"budget={budget}, temperature={settings.temperature}: a budget of 1 or more, and sampling")
    prompts = [build_prompt(task, engine.tokenizer) for task in tasks]
    covariate = [math.log(len(task.prompt)) for task in tasks]
    there = {attempt.key: attempt for attempt in ledger}
    made: list[Attempt] = []

    def rounds() -> Iterator[Attempt]:
        while len(made) < budget:
            counts = _counts(tasks, made)
            total = min(budget - len(made), max(1, len(tasks) // 10))
            chosen = plan(counts, per_task, total, fit_prior(counts, covariate), seed=source.seed)
            jobs = [
                _Job(*pair, n)
                for pair, (n, _), one in zip(zip(tasks, prompts, strict=True), counts, chosen, strict=True)
                if one
            ]
            if not jobs:
                return
            keys = [_key(job, settings, source) for job in jobs]
            todo = [job for key, job in zip(keys, jobs, strict=True) if key not in there]
            for attempt in _attempts(todo, engine, sandbox, ledger, settings, source):
                there[attempt.key] = attempt
                yield attempt
            made.extend(there[key] for key in keys)

    collections.deque(progress(rounds(), budget), maxlen=0)
    return made


def _counts(tasks: Sequence[Task], attempts: Iterable[Attempt]) -> list[tuple[int, int]]:
    """(draws made, distinct winners) of each task."""
    draws: collections.Counter[str] = collections.Counter()
    winners: dict[str, set[str]] = collections.defaultdict(set)
    for attempt in attempts:
        draws[attempt.task_id] += 1
        if attempt.solved:
            winners[attempt.task_id].add(syntax_digest(attempt.program))
    return [(draws[task.task_id], len(winners[task.task_id])) for task in tasks]


def _key(job: _Job, settings: SamplingParams, source: Source) -> tuple[Any, ...]:
    """The ledger's KEY of an attempt that may not have been made yet."""
    asked = (job.task.task_id, job.prompt.digest, job.task.tests_digest, source.model, source.adapter)
    how = (settings.temperature, settings.top_p, settings.max_new_tokens)
    return (*asked, *how, sample_seed(source.seed, job.task.task_id, job.draw))


def _attempts(
    jobs: Sequence[_Job], engine: Engine, sandbox: Sandbox, ledger: Ledger, settings: SamplingParams, source: Source
) -> Iterator[Attempt]:
    requests = (
        Request(job, job.prompt.text, job.prompt.stops, sample_seed(source.seed, job.task.task_id, job.draw))
        for job in jobs
    )
    queue: Queue = collections.deque()
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as judges:
        for request, completion in engine.stream(requests, settings):
            program = request.key.prompt.program(completion.text)
            queue.append(
                (
                    request,
                    completion,
                    program,
                    judges.submit(grade_visible_and_hidden, sandbox, request.key.task, program),
                )
            )
            yield from _collect(queue, ledger, settings, source, engine.name, wait=False)
        yield from _collect(queue, ledger, settings, source, engine.name, wait=True)


def grade_visible_and_hidden(sandbox: Sandbox, task: Task, program: str) -> tuple[Verdict, Verdict]:
    """The verdicts on the visible and on the hidden tests; a program task's cases count as both.

    A program that never gets as far as a test, or does not end, is not run a second time.
    """
    if task.mode == "program" or not (task.visible_tests and task.hidden_tests):
        verdict = sandbox.grade(task, program, "all")
        return verdict, verdict
    visible = sandbox.grade(task, program, "visible")
    if visible.status in SAME_FOR_EVERY_TEST:
        return visible, dataclasses.replace(visible, passed=0, total=len(task.hidden_tests), cpu_s=0.0, wall_s=0.0)
    return visible, sandbox.grade(task, program, "hidden")


def _collect(
    queue: Queue,
    ledger: Ledger,
    settings: SamplingParams,
    source: Source,
    sampler: str,
    wait: bool,
) -> Iterator[Attempt]:
    """Take what has been judged, write it down, hand it on; a slow program holds up nobody behind it."""
    batch = []
    for _ in range(len(queue)):
        request, completion, program, judged = queue.popleft()
        if wait or judged.done():
            batch.append(_attempt(request, completion, program, judged.result(), settings, source, sampler))
        else:
            queue.append((request, completion, program, judged))
    ledger.append(batch)
    yield from batch


def _attempt(
    request: Request,
    completion: Completion,
    program: str,
    verdicts: tuple[Verdict, Verdict],
    settings: SamplingParams,
    source: Source,
    sampler: str,
) -> Attempt:
    for verdict in verdicts:
        if verdict.status == Status.SANDBOX_ERROR:
            raise SandboxError(f"{request.key.task.task_id}: the sandbox failed, not the program: {verdict.failure}")
    visible, hidden = verdicts
    worst = hidden if visible.status == Status.SUCCESS else visible
    counted = verdicts if visible is not hidden else verdicts[:1]
    return Attempt(
        run_id=source.run_id,
        task_id=request.key.task.task_id,
        draw=request.key.draw,
        seed=request.seed,
        model=source.model,
        adapter=source.adapter,
        sampler=sampler,
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_new_tokens=settings.max_new_tokens,
        prompt_hash=request.key.prompt.digest,
        tests_hash=request.key.task.tests_digest,
        completion=completion.text,
        program=program,
        finished=completion.finished,
        n_tokens=len(completion.token_ids),
        logprob_sum=completion.logprob_sum,
        status=worst.status,
        passed=sum(verdict.passed for verdict in counted),
        total=sum(verdict.total for verdict in counted),
        visible_ok=visible.status == Status.SUCCESS,
        hidden_ok=hidden.status == Status.SUCCESS,
        failure=worst.failure,
        cpu_s=sum(verdict.cpu_s for verdict in counted),
        wall_s=sum(verdict.wall_s for verdict in counted),
        peak_rss_mb=max(verdict.peak_rss_mb for verdict in verdicts),
        sandbox_mode=worst.sandbox_mode,
        created_at=now(),
    )


def select_winners(
    attempts: Iterable[Attempt],
    per_task: int,
    seed: int,
    scorer: Scorer = "random",
    margins: Mapping[tuple[Any, ...], float] | None = None,
) -> list[Attempt]:
    """At most `per_task` attempts a task among those that pass every test, no two with one syntax tree.

    scorer s(p, y): `random` draws with `seed`, so that neither short nor early programs are favoured; `shortest`; `likeliest`
    by log-probability a token; `distinct` takes, one after the other, the program least like those taken (Jaccard distance of
    tokens); `margin` prefers those that pass more of the fuzzed tests. `margins` gives that share by an attempt's key; under
    every other scorer a winner must pass them all. Ties go by syntax tree. Raises ValueError for an unknown scorer, `likeliest`
    without log-probabilities, `margin` without margins.
    """
    if scorer not in get_args(Scorer):
        raise ValueError(f"scorer={scorer!r}: choose one of {', '.join(get_args(Scorer))}")
    if scorer == "margin" and margins is None:
        raise ValueError("scorer='margin': needs fuzzed tests; set fuzzed_tests to 1 or more")
    share = margins or {}
    by_task: dict[str, dict[str, Attempt]] = collections.defaultdict(dict)
    for attempt in attempts:
        if attempt.solved and (scorer == "margin" or share.get(attempt.key, 1.0) == 1.0):
            by_task[attempt.task_id].setdefault(syntax_digest(attempt.program), attempt)
    rng = random.Random(seed)
    kept = []
    for task_id in sorted(by_task):
        distinct = [by_task[task_id][digest] for digest in sorted(by_task[task_id])]
        if scorer == "margin":
            kept += sorted(distinct, key=lambda attempt: -share.get(attempt.key, 1.0))[:per_task]
        else:
            kept += _best(distinct, min(per_task, len(distinct)), scorer, rng)
    return kept


def _best(distinct: Sequence[Attempt], count: int, scorer: Scorer, rng: random.Random) -> list[Attempt]:
    if scorer == "random":
        return rng.sample(distinct, count)
    if scorer == "shortest":
        return sorted(distinct, key=lambda attempt: len(attempt.program))[:count]
    if scorer == "likeliest":
        return sorted(distinct, key=_likelihood, reverse=True)[:count]
    tokens = {id(attempt): set(re.findall(r"\w+|[^\w\s]", attempt.program)) for attempt in distinct}
    taken = [rng.choice(distinct)] if count else []
    while len(taken) < count:
        rest = [attempt for attempt in distinct if attempt not in taken]
        taken.append(max(rest, key=lambda a: min(_jaccard(tokens[id(a)], tokens[id(b)]) for b in taken)))
    return taken


def _likelihood(attempt: Attempt) -> float:
    if attempt.logprob_sum is None:
        raise ValueError(f"{attempt.task_id}: no log-probability was kept; `likeliest` needs it")
    return attempt.logprob_sum / max(1, attempt.n_tokens)


def _jaccard(a: set[str], b: set[str]) -> float:
    """Jaccard distance, 0 for equal sets."""
    return 1 - len(a & b) / len(a | b) if a | b else 0.0


def matched_random_sample(
    attempts: Iterable[Attempt], winners: Sequence[Attempt], seed: int, keep: Callable[[Attempt], bool]
) -> list[Attempt]:
    """As many attempts a task as `winners` has, drawn at random from those that `keep` admits: what selection is measured by.

    With `keep` always true: random draws; with `not attempt.solved`: losers. No two have one syntax tree. A task that has too few
    gives what it has, so compare the lengths.
    """
    wanted = collections.Counter(winner.task_id for winner in winners)
    pools: dict[str, dict[str, Attempt]] = collections.defaultdict(dict)
    for attempt in attempts:
        if attempt.task_id in wanted and keep(attempt):
            pools[attempt.task_id].setdefault(syntax_digest(attempt.program), attempt)
    rng = random.Random(seed)
    control = []
    for task_id in sorted(wanted):
        pool = [pools[task_id][digest] for digest in sorted(pools[task_id])]
        control += rng.sample(pool, min(wanted[task_id], len(pool)))
    return control


def syntax_digest(program: str) -> str:
    """A Python program's syntax tree as text, without positions, comments or layout; the text itself if it has none."""
    try:
        return ast.dump(ast.parse(program))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return program


def mixed_outcome(tasks: Iterable[Task], attempts: Iterable[Attempt]) -> list[Task]:
    """The tasks whose attempts are neither all right nor all wrong."""
    outcomes: dict[str, set[bool]] = collections.defaultdict(set)
    for attempt in attempts:
        outcomes[attempt.task_id].add(attempt.solved)
    return [task for task in tasks if len(outcomes[task.task_id]) == 2]
