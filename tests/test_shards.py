"""Attempts in shards: the same as in one piece, nothing made twice, whoever makes them."""

import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from lib import shards
from lib.ledger import Attempt, Ledger
from lib.mining import Policy, attempt_all
from lib.sampling import Settings
from lib.shards import Shard, ShardError, Work, attempt_in_shards, here, run_shard
from lib.tasks import by_split, read_tasks

TASKS = [t for t in by_split(read_tasks(Path(__file__).parent.parent / "data/starter_bn.jsonl"), "train") if t.tier == 1][:2]
WORK = Work(2, Settings(temperature=0.8, max_new_tokens=8), Policy("test", "embedded", "", 0), "embedded")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Iterator[list[Attempt]]:
    """The attempts of one machine in one piece, by the engine and sandbox that the shards then use."""
    ledger = Ledger(tmp_path_factory.mktemp("whole") / "a.jsonl")
    engine, sandbox = shards._opened(WORK)
    yield attempt_all(TASKS, WORK.draws, engine, sandbox, ledger, WORK.settings, WORK.policy)
    shards.close()


def one_by_one(work: Work, parts: Sequence[Shard]) -> Iterator[list[Attempt]]:
    """The shards as they come back from several machines: last first; the engine stays open for the next test."""
    for shard in reversed(parts):
        yield run_shard(work, shard)


def test_shards_give_what_one_machine_gives_in_its_order(tmp_path: Path, whole: list[Attempt]) -> None:
    ledger = Ledger(tmp_path / "a.jsonl")
    attempts = attempt_in_shards(TASKS, WORK, ledger, one_by_one, size=1)
    assert [attempt.key for attempt in attempts] == [attempt.key for attempt in whole]
    assert sorted(attempt.key for attempt in ledger) == sorted(attempt.key for attempt in whole)


def test_what_is_in_the_ledger_is_not_made_again(tmp_path: Path, whole: list[Attempt]) -> None:
    ledger = Ledger(tmp_path / "a.jsonl")
    ledger.append(whole[:3])
    attempts = attempt_in_shards(TASKS, WORK, ledger, one_by_one, size=1)
    assert attempts[:3] == whole[:3] and len(list(ledger)) == len(whole)


def test_what_came_back_before_a_failure_is_on_disk(tmp_path: Path, whole: list[Attempt]) -> None:
    def dies(work: Work, parts: Sequence[Shard]) -> Iterator[list[Attempt]]:
        yield run_shard(work, parts[0])
        raise ConnectionError("the cluster is gone")

    ledger = Ledger(tmp_path / "a.jsonl")
    with pytest.raises(ConnectionError):
        attempt_in_shards(TASKS, WORK, ledger, dies, size=1)
    assert {attempt.task_id for attempt in ledger} == {task.task_id for task in TASKS[:1]}


def test_shards_of_no_task_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="size=0"):
        attempt_in_shards(TASKS, WORK, Ledger(tmp_path / "a.jsonl"), here, size=0)


def test_without_ray_one_line_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ShardError, match="Ray is not installed here; pip install ray=="):
        shards.over_ray("auto")


def test_two_nodes_of_a_ray_cluster_give_what_one_machine_gives_though_a_worker_is_killed(tmp_path: Path, whole) -> None:
    pytest.importorskip("ray", reason="ray is not installed: many machines were not tried")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    killed: list[int] = []

    def under_fire(work: Work, parts: Sequence[Shard]) -> Iterator[list[Attempt]]:
        for attempts in shards.over_ray(cluster.address)(work, parts):
            yield attempts
            killed.extend([] if killed else kill_one_worker())

    try:
        ledger = Ledger(tmp_path / "a.jsonl")
        attempts = attempt_in_shards(TASKS, WORK, ledger, under_fire, size=1)
    finally:
        cluster.shutdown()
    assert killed and [attempt.key for attempt in attempts] == [attempt.key for attempt in whole]
    assert len(list(ledger)) == len(whole)


def kill_one_worker() -> list[int]:
    """Kill a worker of this process's cluster that has a shard in hand; its id."""
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("ray::run_shard"):
            process.send_signal(signal.SIGKILL)
            return [process.pid]
    return []
