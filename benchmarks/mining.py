"""Mining's wall time beside that of sampling alone: is running the programs hidden behind drawing them?

    python benchmarks/mining.py [--quick] [--json] [--tasks N] [--draws K] [--rounds N]

Both sides draw K completions for each of N starter tasks from one open engine, with the same seeds. Sampling alone
throws them away; mining extracts programs, runs them against all tests and keeps a ledger. The two take turns (ABBA),
each round with seeds of its own, after a pass over the prompts that nobody times; every mining turn has a sandbox of
its own, so that no verdict is remembered from the turn before. Batches never come out exactly alike, so the tokens of
both sides are given too.
"""

import argparse
import contextlib
import dataclasses
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import show, spread  # noqa: E402
from benchmarks.sandbox import tree_cpu  # noqa: E402
from lib.mining.collect import Source, local_runner  # noqa: E402
from lib.mining.ledger import Ledger  # noqa: E402
from lib.sampling import Engine, Request, SamplingParams, open_engine, sample_seed  # noqa: E402
from lib.sandbox import Sandbox  # noqa: E402
from lib.tasks.prompts import build_prompt  # noqa: E402
from lib.tasks.task import Task, by_split, read_tasks  # noqa: E402

Row = dict[str, Any]


@dataclasses.dataclass
class Turn:
    """What one turn of one side took; the last three are mining's alone."""

    wall_s: float
    own_cpu_s: float
    engine_cpu_s: float
    samples: int
    tokens: int
    sandbox_cpu_s: float = 0.0
    sync_s: float = 0.0
    syncs: int = 0


class Clock:
    """Wall and CPU seconds of this process, and CPU seconds of others with all below them, while entered."""

    def __init__(self, pids: set[int]) -> None:
        self.pids = pids

    def __enter__(self) -> "Clock":
        self.other_cpu_s = sum(map(tree_cpu, self.pids))
        self.wall_s, self.own_cpu_s = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *details: object) -> None:
        self.wall_s, self.own_cpu_s = time.perf_counter() - self.wall_s, time.process_time() - self.own_cpu_s
        self.other_cpu_s = sum(map(tree_cpu, self.pids)) - self.other_cpu_s


class TimedSync:
    """While entered, os.fsync counts its calls and seconds."""

    def __enter__(self) -> "TimedSync":
        self.seconds, self.calls, self._real = 0.0, 0, os.fsync
        os.fsync = self._sync
        return self

    def _sync(self, descriptor: Any) -> None:
        started = time.perf_counter()
        self._real(descriptor)
        self.seconds, self.calls = self.seconds + time.perf_counter() - started, self.calls + 1

    def __exit__(self, *details: object) -> None:
        os.fsync = self._real


# --------------------------------------------------------------------------------------------------------- turns


def sampling(tasks: Sequence[Task], draws: int, seed: int, engine: Engine, settings: SamplingParams) -> Turn:
    """The completions alone."""
    prompts = [build_prompt(task, engine.tokenizer) for task in tasks]
    requests = [
        Request(None, prompt.text, prompt.stops, sample_seed(seed, task.task_id, draw), prompt.prefill)
        for draw in range(draws)
        for task, prompt in zip(tasks, prompts, strict=True)
    ]
    with Clock(children(os.getpid())) as clock:
        tokens = [len(completion.token_ids) for _, completion in engine.stream(requests, settings)]
    return Turn(clock.wall_s, clock.own_cpu_s, clock.other_cpu_s, len(tokens), sum(tokens))


def mining(tasks: Sequence[Task], draws: int, seed: int, engine: Engine, settings: SamplingParams) -> Turn:
    """Completions, verdicts and ledger, in a new sandbox that has started its workers."""
    engines = children(os.getpid())
    with tempfile.TemporaryDirectory() as folder, Sandbox() as sandbox, TimedSync() as sync:
        sandbox.grade_many([(tasks[0], f"# {number}") for number in range(2 * (os.cpu_count() or 1))])
        ledger, source = Ledger(Path(folder) / "mining.jsonl"), Source("benchmark", "embedded", "", seed)
        with Clock(children(os.getpid()) - engines) as graders, Clock(engines) as clock:
            attempts = local_runner(engine, sandbox)(tasks, draws, ledger, params=settings, source=source)
    tokens = sum(attempt.n_tokens for attempt in attempts)
    return Turn(
        clock.wall_s, clock.own_cpu_s, clock.other_cpu_s, len(attempts), tokens,
        graders.other_cpu_s, sync.seconds, sync.calls,
    )  # fmt: skip


def children(pid: int) -> set[int]:
    """Ids of a process's own children."""
    lists = [Path(f"/proc/{pid}/task/{thread}/children").read_text() for thread in os.listdir(f"/proc/{pid}/task")]
    return {int(child) for text in lists for child in text.split()}


# ------------------------------------------------------------------------------------------------------- results


def measure(count: int, draws: int, rounds: int, settings: SamplingParams) -> dict[str, Any]:
    """`rounds` rounds; the second, fourth, … begin with mining."""
    tasks = by_split(read_tasks(ROOT / "data/starter_bn.jsonl"), "train")[:count]
    alone, mined = [], []
    with contextlib.closing(open_engine("embedded", engine="openvino")) as engine:
        sampling(tasks, 1, -1, engine, settings)
        for number in range(rounds):
            for side in (sampling, mining)[:: -1 if number % 2 else 1]:
                (alone if side is sampling else mined).append(side(tasks, draws, number, engine, settings))
    return summary(alone, mined)


def summary(alone: Sequence[Turn], mined: Sequence[Turn]) -> dict[str, Any]:
    """Rates of both sides, mining's cost, and the ratio of each round."""
    pairs = list(zip(mined, alone, strict=True))
    walls = [ours.wall_s / theirs.wall_s for ours, theirs in pairs]
    a_token = [ours.wall_s / ours.tokens / (theirs.wall_s / theirs.tokens) for ours, theirs in pairs]
    rows = [
        *side_rows("sampling alone", alone),
        *side_rows("mining", mined),
        row("mining: CPU of the sandbox", mean(mined, "sandbox_cpu_s", "samples") * 1e3, "ms a sample"),
        row("mining: waiting for sync", 100 * mean(mined, "sync_s", "wall_s"), "% of the time"),
        row("mining: a sync", 1e3 * mean(mined, "sync_s", "syncs"), "ms"),
        row("mining: rows a sync", mean(mined, "samples", "syncs"), "rows"),
    ]
    ratios = {
        "mining/sampling, wall": statistics.median(walls),
        "mining/sampling, wall a token": statistics.median(a_token),
        "mining/sampling, CPU": sum(map(cpu_s, mined)) / sum(map(cpu_s, alone)),
    }
    between = {"mining/sampling, wall": spread(*([turn.wall_s for turn in side] for side in (mined, alone)))}
    return {"benchmark": "mining", "rows": rows, "ratios": ratios, "spread": between}


def side_rows(name: str, turns: Sequence[Turn]) -> list[Row]:
    """Rates of one side over all its turns."""
    return [
        row(name, mean(turns, "samples", "wall_s"), "samples/s"),
        row(f"{name}: tokens", mean(turns, "tokens", "wall_s"), "tokens/s"),
        row(f"{name}: a turn", statistics.mean(turn.wall_s for turn in turns), "s"),
        row(f"{name}: CPU of the engine", 1e3 * mean(turns, "engine_cpu_s", "samples"), "ms a sample"),
        row(f"{name}: CPU of the caller", 1e3 * mean(turns, "own_cpu_s", "samples"), "ms a sample"),
    ]


def cpu_s(turn: Turn) -> float:
    """CPU seconds of all processes."""
    return turn.own_cpu_s + turn.engine_cpu_s + turn.sandbox_cpu_s


def mean(turns: Sequence[Turn], what: str, by: str) -> float:
    """Σ what / Σ by."""
    return sum(getattr(turn, what) for turn in turns) / sum(getattr(turn, by) for turn in turns)


def row(name: str, value: float, unit: str) -> Row:
    """One line of the result."""
    return {"name": name, "value": float(f"{value:.4g}"), "unit": unit}


def main() -> None:
    """Print a table, or with --json one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=24, metavar="N", help="starter tasks of the training split")
    parser.add_argument("--draws", type=int, default=20, metavar="K", help="completions for each task")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--quick", action="store_true", help="8 tasks, two rounds, short answers, under a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    if options.quick:
        result = measure(8, options.draws, 2, SamplingParams(max_new_tokens=32))
    else:
        result = measure(options.tasks, options.draws, options.rounds, SamplingParams(max_new_tokens=64))
    show(result, options.json)


if __name__ == "__main__":
    main()
