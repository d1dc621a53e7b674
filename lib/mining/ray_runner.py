"""Attempts by many machines: tasks in shards, each sampled and graded by `attempt_all` wherever a worker is.

A worker has an engine and a sandbox of its own and sends attempts back; the driver alone writes the ledger. A shard
comes with the attempts that the ledger has for its tasks, so what was made before is not made again, and a worker that
dies costs the shard it was at. Tried on one machine with a Ray cluster of two nodes; not yet on several machines.

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

    num_samples: int
    params: SamplingParams
    source: Source
    model: str
    adapter: str | None = None
    engine: str = "auto"
    container: bool = False


@dataclasses.dataclass(frozen=True)
class Shard:
    """Some tasks, and the attempts that exist for them."""

    tasks: tuple[Task, ...]
    existing: tuple[Attempt, ...]


def attempt_in_shards(
    tasks: Sequence[Task],
    work: Work,
    ledger: Ledger,
    *,
    map_fn: Machines,
    size: int = 8,
    progress: Progress = lambda items, total: items,
) -> list[Attempt]:
    """Return what `attempt_all` returns, in its order, made in shards of `size` tasks; each is on disk once it is back.

    Raises ValueError for size < 1 and what `attempt_all` raises.
    """
    if size < 1:
        raise ValueError(f"size={size}: should be at least 1")
    existing: dict[str, list[Attempt]] = collections.defaultdict(list)
    for attempt in ledger:
        existing[attempt.task_id].append(attempt)
    parts = [tuple(tasks[start : start + size]) for start in range(0, len(tasks), size)]
    shards = [Shard(part, tuple(one for task in part for one in existing[task.task_id])) for part in parts]
    known = {attempt.key for attempts in existing.values() for attempt in attempts}
    made: dict[tuple[str, int], Attempt] = {}

    def arrived() -> Iterator[Attempt]:
        for attempts in map_fn(functools.partial(run_shard, work), shards):
            ledger.append(attempt for attempt in attempts if attempt.key not in known)
            made.update({(attempt.task_id, attempt.draw): attempt for attempt in attempts})
            yield from attempts

    for _ in progress(arrived(), len(tasks) * work.num_samples):
        pass
    return [made[task.task_id, draw] for draw in range(work.num_samples) for task in tasks]


def ray_runner(model: str, adapter: str | None, engine: str, *, cluster: str, container: bool = False) -> AttemptRunner:
    """Return `attempt_all` on the Ray cluster at address `cluster`, programs in containers there with `container`.

    Raises ClusterError where Ray is not installed.
    """
    map_fn = machines(cluster)

    def attempt(
        tasks: Sequence[Task],
        num_samples: int,
        ledger: Ledger,
        *,
        params: SamplingParams,
        source: Source,
        progress: Progress = lambda items, total: items,
    ) -> list[Attempt]:
        work = Work(num_samples, params, source, model, adapter, engine, container)
        return attempt_in_shards(tasks, work, ledger, map_fn=map_fn, progress=progress)

    return attempt


# --------------------------------------------------------------------------------------------------------- the workers

_opened: dict[tuple[str, str | None, str, bool], tuple[Engine, Sandbox]] = {}  # of this process: one at a time


def run_shard(work: Work, shard: Shard) -> list[Attempt]:
    """Return a shard's attempts, the existing ones included. Engine and sandbox stay open for the next shard."""
    engine, sandbox = open_for(work)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "shard.jsonl")
        ledger.append(shard.existing)
        return attempt_all(
            shard.tasks,
            work.num_samples,
            ledger,
            engine=engine,
            sandbox=sandbox,
            params=work.params,
            source=work.source,
        )


def open_for(work: Work) -> tuple[Engine, Sandbox]:
    """Return this process's engine and sandbox for `work`, opened at most once; those of other work are closed."""
    name = (work.model, work.adapter, work.engine, work.container)
    if name not in _opened:
        close()
        _opened[name] = open_engine(*name[:3]), Sandbox(container=work.container)
    return _opened[name]


def close() -> None:
    """Close what this process's last shard used."""
    while _opened:
        engine, sandbox = _opened.popitem()[1]
        engine.close()
        sandbox.close()
