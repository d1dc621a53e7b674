"""Attempts by many machines: tasks in shards, each drawn and judged by `attempt_all` wherever a worker is.

A worker has an engine and a sandbox of its own and sends attempts back; the driver alone writes the ledger. A shard comes with
the attempts that the ledger has for its tasks, so what was made before is not made again, and a worker that dies costs the
shard it was at.

    attempt_in_shards(tasks, work, ledger, here)                        # on this machine, one shard after the other
    attempt_in_shards(tasks, work, ledger, over_ray("10.0.0.1:6379"))   # on every machine of a Ray cluster
"""

import collections
import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lib.ledger import Attempt, Ledger
from lib.mining import Policy, Progress, attempt_all
from lib.models import ROOT, cache_dir
from lib.sampling import Engine, Settings, open_engine
from lib.sandbox import Sandbox
from lib.tasks import Task

IN_FLIGHT = 1000  # shards handed to Ray at a time
RETRIES = 5  # workers that may die over one shard
RAY = "ray==2.60.0"


class ShardError(RuntimeError):
    """Machines that cannot be used; the message says what is missing."""


@dataclasses.dataclass(frozen=True)
class Work:
    """What all shards share. `model` and `adapter` are the same names on every machine."""

    draws: int
    settings: Settings
    policy: Policy
    model: str
    adapter: str | None = None
    engine: str = "auto"


@dataclasses.dataclass(frozen=True)
class Shard:
    """Some tasks, and the attempts that are there for them."""

    tasks: tuple[Task, ...]
    there: tuple[Attempt, ...]


Elsewhere = Callable[[Work, Sequence[Shard]], Iterator[list[Attempt]]]  # attempts of whole shards, in any order


def attempt_in_shards(
    tasks: Sequence[Task],
    work: Work,
    ledger: Ledger,
    elsewhere: Elsewhere,
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
        for attempts in elsewhere(work, shards):
            ledger.append(attempt for attempt in attempts if attempt.key not in known)
            made.update({(attempt.task_id, attempt.draw): attempt for attempt in attempts})
            yield from attempts

    collections.deque(progress(arrived(), len(tasks) * work.draws), maxlen=0)
    return [made[task.task_id, draw] for draw in range(work.draws) for task in tasks]


# --------------------------------------------------------------------------------------------------------- the workers

_workshop: dict[tuple[str, str | None, str], tuple[Engine, Sandbox]] = {}  # of this process: one at a time


def run_shard(work: Work, shard: Shard) -> list[Attempt]:
    """A shard's attempts, those already there included. Engine and sandbox stay open for this process's next shard."""
    engine, sandbox = _opened(work)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "shard.jsonl")
        ledger.append(shard.there)
        return attempt_all(list(shard.tasks), work.draws, engine, sandbox, ledger, work.settings, work.policy)


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


def here(work: Work, shards: Sequence[Shard]) -> Iterator[list[Attempt]]:
    """The shards one after the other in this process."""
    try:
        for shard in shards:
            yield run_shard(work, shard)
    finally:
        close()


def over_ray(address: str, cpus: float = 1, gpus: float = 0) -> Elsewhere:
    """The shards on the machines of the Ray cluster at `address`, each worker taking `cpus` and `gpus` of its machine.

    An engine uses every core it may: give a worker as many as a machine has, or one GPU. This repository and its environment
    have the same path on every machine; models are converted into each one's cache folder. A shard whose worker
    dies is run again, RETRIES times. Raises ShardError where Ray is not installed.
    """
    ray = _ray()

    def run(work: Work, shards: Sequence[Shard]) -> Iterator[list[Attempt]]:
        environment = {"env_vars": {"PYTHONPATH": str(ROOT), "WORKBOOK_CACHE": str(cache_dir())}}
        ray.init(address=address, runtime_env=environment, log_to_driver=False)
        try:
            remote = ray.remote(run_shard).options(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)
            shared, waiting = ray.put(work), iter(shards)
            flying = [remote.remote(shared, shard) for shard in itertools.islice(waiting, IN_FLIGHT)]
            while flying:
                done, flying = ray.wait(flying)
                yield ray.get(done[0])
                flying += [remote.remote(shared, shard) for shard in itertools.islice(waiting, 1)]
        finally:
            ray.shutdown()

    return run


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ShardError(f"many machines: Ray is not installed here; pip install {RAY}") from None
    return ray
