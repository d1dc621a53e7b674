"""Attempts and screens in shards: the same as in one piece, nothing made twice, whoever makes them."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from lib.base import parallel as cluster
from lib.base.parallel import ClusterError  # noqa: E402
from lib.decontamination import screen  # noqa: E402
from lib.mining import ray_runner as shards  # noqa: E402
from lib.mining.collect import Source, local_runner  # noqa: E402
from lib.mining.ledger import Attempt, Ledger  # noqa: E402
from lib.mining.ray_runner import Work, attempt_in_shards, ray_runner  # noqa: E402
from lib.sampling import SamplingParams  # noqa: E402
from lib.tasks.task import by_split, read_tasks  # noqa: E402

TASKS = [
    t for t in by_split(read_tasks(Path(__file__).parent.parent / "data/starter_bn.jsonl"), "train") if t.tier == 1
][:2]
WORK = Work(2, SamplingParams(temperature=0.8, max_new_tokens=8), Source("test", "embedded", "", 0), "embedded")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Iterator[list[Attempt]]:
    """The attempts of one machine in one piece, by the engine and sandbox that the shards then use."""
    ledger = Ledger(tmp_path_factory.mktemp("whole") / "a.jsonl")
    engine, sandbox = shards.open_for(WORK)
    yield local_runner(engine, sandbox)(TASKS, WORK.num_samples, ledger, params=WORK.params, source=WORK.source)
    shards.close()


def backwards(function: Callable[[Any], Any], parts: Iterable[Any]) -> Iterator[Any]:
    """Results as they may come back from several machines: last first."""
    return map(function, reversed(list(parts)))


def test_shards_give_what_one_machine_gives_in_its_order(tmp_path: Path, whole: list[Attempt]) -> None:
    ledger = Ledger(tmp_path / "a.jsonl")
    attempts = attempt_in_shards(TASKS, WORK, ledger, map_fn=backwards, size=1)
    assert [attempt.key for attempt in attempts] == [attempt.key for attempt in whole]
    assert sorted(attempt.key for attempt in ledger) == sorted(attempt.key for attempt in whole)


def test_what_is_in_the_ledger_is_not_made_again(tmp_path: Path, whole: list[Attempt]) -> None:
    ledger = Ledger(tmp_path / "a.jsonl")
    ledger.append(whole[:3])
    attempts = attempt_in_shards(TASKS, WORK, ledger, map_fn=backwards, size=1)
    assert attempts[:3] == whole[:3] and len(list(ledger)) == len(whole)


def test_what_came_back_before_a_failure_is_on_disk(tmp_path: Path, whole: list[Attempt]) -> None:
    def dies(function: Callable[[Any], Any], parts: Iterable[Any]) -> Iterator[Any]:
        yield function(next(iter(parts)))
        raise ConnectionError("the cluster is gone")

    ledger = Ledger(tmp_path / "a.jsonl")
    with pytest.raises(ConnectionError):
        attempt_in_shards(TASKS, WORK, ledger, map_fn=dies, size=1)
    assert {attempt.task_id for attempt in ledger} == {task.task_id for task in TASKS[:1]}


def test_shards_of_no_task_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="size=0"):
        attempt_in_shards(TASKS, WORK, Ledger(tmp_path / "a.jsonl"), map_fn=map, size=0)


def test_a_screen_in_shards_finds_what_one_piece_does(monkeypatch) -> None:
    tasks = read_tasks(Path(__file__).parent.parent / "data/starter_bn.jsonl")
    whole = screen(tasks, tasks[:30])
    monkeypatch.setattr("lib.decontamination.SHARD", 7)
    assert whole.excluded and screen(tasks, tasks[:30], map_fn=backwards) == whole


def test_without_ray_one_line_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match="Ray is not installed here; pip install ray=="):
        ray_runner("embedded", None, "auto", cluster="10.0.0.1:6379")


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([{"CPU": 4}, {"CPU": 2}], {"num_cpus": 2}),  # a worker uses every core of its machine
        ([{"CPU": 16, "GPU": 2}, {"CPU": 8, "GPU": 2}, {"CPU": 4}], {"num_gpus": 1, "num_cpus": 4}),
    ],
)
def test_a_worker_takes_a_machine_or_one_gpu(nodes: list[dict[str, float]], expected: dict[str, float]) -> None:
    dead = {"Alive": False, "Resources": {"CPU": 1}}
    assert cluster.share([*({"Alive": True, "Resources": node} for node in nodes), dead]) == expected


# ------------------------------------------------------------------------------------------- a Ray cluster of two nodes


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[str]:
    """The address of a cluster of two nodes with one core each."""
    pytest.importorskip("ray", reason="ray is not installed: many machines were not tried")
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes.add_node(num_cpus=1)
    yield nodes.address
    nodes.shutdown()


def test_two_nodes_give_what_one_machine_gives_though_a_worker_is_killed(tmp_path: Path, whole, two_nodes: str) -> None:
    killed: list[int] = []

    def under_fire(function: Callable[[Any], Any], parts: Iterable[Any]) -> Iterator[Any]:
        for result in cluster.machines(two_nodes)(function, parts):
            yield result
            killed.extend([] if killed else kill_one_worker())

    ledger = Ledger(tmp_path / "a.jsonl")
    attempts = attempt_in_shards(TASKS, WORK, ledger, map_fn=under_fire, size=1)
    assert killed and [attempt.key for attempt in attempts] == [attempt.key for attempt in whole]
    assert len(list(ledger)) == len(whole)


def test_a_killed_driver_loses_only_what_had_not_come_back(tmp_path: Path, whole, two_nodes: str) -> None:
    path = tmp_path / "a.jsonl"
    driver = subprocess.Popen([sys.executable, __file__, two_nodes, str(path)])
    try:
        deadline = time.monotonic() + 240
        while not (path.exists() and path.read_bytes().count(b"\n")):
            assert driver.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        driver.kill()
        driver.wait()
    before = path.read_bytes()
    attempt_in_shards(TASKS, WORK, Ledger(path), map_fn=cluster.machines(two_nodes), size=1)
    assert path.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    assert sorted(attempt.key for attempt in Ledger(path)) == sorted(attempt.key for attempt in whole)


def test_two_nodes_screen_as_one_machine_does(two_nodes: str, monkeypatch) -> None:
    tasks = read_tasks(Path(__file__).parent.parent / "data/starter_bn.jsonl")
    monkeypatch.setattr("lib.decontamination.SHARD", 100)
    assert screen(tasks, tasks[:30], map_fn=cluster.machines(two_nodes)) == screen(tasks, tasks[:30])


def kill_one_worker() -> list[int]:
    """Kill a worker of this process's cluster that has a part in hand; its id."""
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("ray::_apply"):
            process.send_signal(signal.SIGKILL)
            return [process.pid]
    return []


if __name__ == "__main__":  # the driver that a test kills
    attempt_in_shards(TASKS, WORK, Ledger(sys.argv[2]), map_fn=cluster.machines(sys.argv[1]), size=1)
