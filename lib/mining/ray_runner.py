"""Attempts by many machines: tasks in shards, each drawn and judged by `attempt_all` wherever a worker is.

A worker has an engine and a sandbox of its own and sends attempts back; the driver alone writes the ledger. A shard comes with
the attempts that the ledger has for its tasks, so what was made before is not made again, and a worker that dies costs the
shard it was at.

    attempt_in_shards(tasks, work, ledger, machines("10.0.0.1:6379"))   # on every machine of a Ray cluster

In this process (`machines("")`) the engine stays open for the next call; `close` ends it.
"""

import collections
import dataclasses
import functools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from lib.base.parallel import Machines, machines
from lib.mining.collect import AttemptRunner, Progress, Source, attempt_all
from lib.mining.ledger import Attempt, Ledger
from lib.sampling import Engine, SamplingParams, open_engine
from lib.sandbox import Sandbox
from lib.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Work:
    """What all shards share. `model` and `adapter` are the same names on every machine."""

    draws: int
    settings: SamplingParams
    source: Source
    model: str
    adapter: str | None = None
    engine: str = "auto"


@dataclasses.dataclass(frozen=True)
class Shard:
    """Some tasks, and the attempts that are there for them."""

    tasks: tuple[Task, ...]
    there: tuple[Attempt, ...]


def attempt_in_shards(
    tasks: Sequence[Task],
    work: Work,
    ledger: Ledger,
    on: Machines,
    size: int = 8,
    progress: Progress = lambda items, total: items,
) -> list[Attempt]:
    """What `attempt_all` returns, in its order, made in shards of `size` tasks; each is on disk once it has come back.

    Raises ValueError for size < 1 and what `attempt_all` raises.
    """
    if size < 1:
        raise ValueError(f"size={size}: should be at least 1")
    there: dict[str, list[Attempt]] = collections.defaultdict(list)
    for attempt in ledger:
        there[attempt.task_id].append(attempt)
    parts = [tuple(tasks[start : start + size]) for start in range(0, len(tasks), size)]
    shards = [Shard(part, tuple(one for task in part for one in there[task.task_id])) for part in parts]
    known = {attempt.key for attempts in there.values() for attempt in attempts}
    made: dict[tuple[str, int], Attempt] = {}

    def arrived() -> Iterator[Attempt]:
        for attempts in on(functools.partial(run_shard, work), shards):
            ledger.append(attempt for attempt in attempts if attempt.key not in known)
            made.update({(attempt.task_id, attempt.draw): attempt for attempt in attempts})
            yield from attempts

    collections.deque(progress(arrived(), len(tasks) * work.draws), maxlen=0)
    return [made[task.task_id, draw] for draw in range(work.draws) for task in tasks]


def ray_runner(model: str, adapter: str | None, engine: str, cluster: str) -> AttemptRunner:
    """`attempt_all` on the machines of the Ray cluster at address `cluster`. Raises ClusterError where Ray is not installed."""
    on = machines(cluster)

    def attempt(
        tasks: Sequence[Task], draws: int, ledger: Ledger, settings: SamplingParams, source: Source, progress: Progress
    ) -> list[Attempt]:
        work = Work(draws, settings, source, model, adapter, engine)
        return attempt_in_shards(tasks, work, ledger, on, progress=progress)

    return attempt


# --------------------------------------------------------------------------------------------------------- the workers

_workshop: dict[tuple[str, str | None, str], tuple[Engine, Sandbox]] = {}  # of this process: one at a time


def run_shard(work: Work, shard: Shard) -> list[Attempt]:
    """A shard's attempts, those already there included. Engine and sandbox stay open for this process's next shard."""
    engine, sandbox = _opened(work)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "shard.jsonl")
        ledger.append(shard.there)
        return attempt_all(list(shard.tasks), work.draws, engine, sandbox, ledger, work.settings, work.source)


def _opened(work: Work) -> tuple[Engine, Sandbox]:
    name = (work.model, work.adapter, work.engine)
    if name not in _workshop:
        close()
        _workshop[name] = open_engine(*name), Sandbox()
    return _workshop[name]


def close() -> None:
    """Close what this process's last shard used."""
    while _workshop:
        engine, sandbox = _workshop.popitem()[1]
        engine.close()
        sandbox.close()
