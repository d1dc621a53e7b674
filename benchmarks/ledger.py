"""Appending to the attempts file and loading a million of them, beside pandas.read_json.

    python benchmarks/ledger.py [--quick] [--json] [--count N]

The rows are like mining's: the starter tasks' programs, 0.9 KB a row. Each load runs in a process of its own, all kinds
in turn, so that a busy machine is busy for all of them; wall time, CPU time and the most memory the process held are
the medians of ROUNDS. The file lies in the folder for temporary files: TMPDIR=/content/drive/MyDrive measures another
disk.
"""

import argparse
import collections
import functools
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import show  # noqa: E402
from lib.mining.ledger import Attempt, Ledger  # noqa: E402
from lib.tasks.task import Task, read_tasks  # noqa: E402

BLOCK = 10_000  # rows appended at a time to fill the file
BATCH = 8  # rows that mining appends at a time
ROUNDS = 3
Row = dict[str, Any]


def row(name: str, value: float, unit: str) -> Row:
    """One line of the result."""
    return {"name": name, "value": float(f"{value:.4g}"), "unit": unit}


@functools.cache
def starter() -> list[Task]:
    """The tasks that the attempts are of."""
    return read_tasks(ROOT / "data/starter_bn.jsonl")


def made_up(start: int, count: int) -> list[Attempt]:
    """Attempts of the starter tasks, no two alike."""
    tasks = starter()
    return [made_up_one(tasks[n % len(tasks)], n // len(tasks), n) for n in range(start, start + count)]


def made_up_one(task: Task, draw: int, number: int) -> Attempt:
    """A right answer below a docstring about as long as a small model's, or every third time one that is cut short."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    head, _, body = task.reference.partition(":\n")
    words = " ".join(digest[n : n + 7] for n in range(0, 56, 8))
    completion = f'\n    """{words}\n\n    Args:\n        {words}\n    """\n{body}'
    right = number % 3 > 0
    return Attempt(
        run_id="made-up", task_id=task.task_id, draw=draw, seed=int(digest[:15], 16), model="embedded", adapter="",
        sampler="openvino", temperature=0.8, top_p=0.95, max_new_tokens=96, prompt_hash=digest[:16],
        tests_hash=task.tests_digest, completion=completion, program=f"{head}:{completion}" if right else head,
        finished=right, n_tokens=len(completion) // 4, logprob_sum=None, status="success" if right else "compile-error",
        passed=8 * right, total=8, visible_ok=right, hidden_ok=right,
        failure="" if right else "SyntaxError: '(' was never closed (<solution>, line 12)", cpu_s=0.002 + number * 1e-9,
        wall_s=0.003 + number * 1e-9, peak_rss_mb=14.1, sandbox_mode="A", created_at="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------- append


def fill(ledger: Ledger, count: int) -> float:
    """Append `count` attempts in large blocks; the seconds that appending took."""
    seconds = 0.0
    for start in range(0, count, BLOCK):
        attempts = made_up(start, min(BLOCK, count - start))
        started = time.perf_counter()
        ledger.append(attempts)
        seconds += time.perf_counter() - started
    return seconds


def batches(ledger: Ledger, start: int, count: int) -> list[float]:
    """Seconds of each of `count` appends of mining's size."""
    seconds = []
    for number in range(count):
        attempts = made_up(start + number * BATCH, BATCH)
        started = time.perf_counter()
        ledger.append(attempts)
        seconds.append(time.perf_counter() - started)
    return seconds


# --------------------------------------------------------------------------------------------------------- load


def pandas_rows(path: str) -> Any:
    """The peer, as anyone would call it."""
    import pandas

    return pandas.read_json(path, lines=True)


LOADS: dict[str, Callable[[str], Any]] = {
    "table": lambda path: Ledger(path).table(),
    "table().to_pandas()": lambda path: Ledger(path).table().to_pandas(),
    "list(ledger)": lambda path: list(Ledger(path)),
    "keys()": lambda path: Ledger(path).keys(),
    "pandas.read_json": pandas_rows,
}


def load(name: str, path: str) -> None:
    """Child side: load the file once and print rows, wall seconds, CPU seconds and peak memory in GB."""
    import pandas  # noqa: F401  before the clock starts

    wall, cpu = time.perf_counter(), time.process_time()
    rows = len(LOADS[name](path))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps([rows, wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9]))


def loads(path: Path, rows: int) -> dict[str, tuple[float, ...]]:
    """Median (wall seconds, CPU seconds, GB) of every way to load. Raises ValueError when one misses rows."""
    found = collections.defaultdict(list)
    for _ in range(ROUNDS):
        for name in LOADS:
            command = [sys.executable, __file__, "--load", name, str(path)]
            read, *figures = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
            if read != rows:
                raise ValueError(f"{name}: {read} rows read, {rows} written")
            found[name].append(figures)
    return {name: tuple(map(statistics.median, zip(*figures, strict=True))) for name, figures in found.items()}


# ------------------------------------------------------------------------------------------------------ results


def measure(count: int, small: int) -> dict[str, Any]:
    """Fill, append in mining's batches, load."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "attempts.jsonl")
        filled = fill(ledger, count)
        appends = batches(ledger, count, small)
        size = os.path.getsize(ledger.path)
        total = count + small * BATCH
        found = loads(ledger.path, total)
    peer = found["pandas.read_json"]
    rows = [
        row("rows", total, "rows"),
        row("file", size / 1e6, "MB"),
        row(f"append, {BLOCK} at a time", count / filled, "rows/s"),
        row(f"append, {BATCH} at a time, synced", small * BATCH / sum(appends), "rows/s"),
        row("an append, median", 1e3 * statistics.median(appends), "ms"),
        row("an append, 99th percentile", 1e3 * statistics.quantiles(appends, n=100)[98], "ms"),
        *load_rows(found, total),
    ]
    ratios = {
        f"{name}/pandas.read_json, speed": peer[0] / found[name][0] for name in LOADS if name != "pandas.read_json"
    }
    return {"benchmark": "ledger", "rows": rows, "ratios": ratios}


def load_rows(found: dict[str, tuple[float, ...]], total: int) -> Iterator[Row]:
    """What each way to load takes, the time for a million rows first."""
    for name, (wall, cpu, memory) in found.items():
        yield row(f"{name}, a million rows", wall / total * 1e6, "s")
        yield row(f"{name}, a million rows, CPU", cpu / total * 1e6, "s")
        yield row(f"{name}, most memory", memory, "GB")


def main() -> None:
    """Print a table, or with --json one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000, metavar="N", help="attempts in the file")
    parser.add_argument("--quick", action="store_true", help="50,000 attempts, under a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--load", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        load(*options.load)
        return
    result = measure(50_000, 500) if options.quick else measure(options.count, 4_000)
    show(result, options.json)


if __name__ == "__main__":
    main()
