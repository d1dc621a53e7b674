"""A mining run killed at random moments and restarted until it is done, beside one that nobody touched.

    python benchmarks/kills.py [--kills N] [--quick] [--json] [--tasks N] [--draws K] [--work SECONDS] [--seed N]

SIGKILL goes to the mining process alone, in turn at three kinds of moment (2 : 2 : 1), so that a run gets on however
slow the machine is just then:

- any time between its start and its first new row, evenly, by what the last run that came so far had taken;
- any time within `--work` seconds after its first new row, evenly;
- when the first row after such a time appears, that is while it is being synced.

Its children (sampling process, graders, workers, candidates) must end by themselves: they are adopted here and waited
for. A run that ends before it has been killed often enough is followed by another one with a new ledger.

What must hold, else it is printed and the exit code is 1:

- every ledger in the end holds exactly the keys of the untouched run, each once;
- the whole lines of the file before a kill are a prefix of the file ever after;
- a minute after a kill no process of the run is left and nobody holds the ledger's lock;
- in the end no scratch folder of any killed process is left, and nothing in the folder for temporary files.

Completions need not be those of the untouched run: a batch's composition changes the last bits of its logits. Their
share is reported.
"""

import argparse
import collections
import contextlib
import dataclasses
import fcntl
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import show  # noqa: E402
from lib.mining.ledger import Ledger  # noqa: E402
from lib.sandbox.confine import linux as kernel  # noqa: E402

NEW_TOKENS = 24
END_S = 60.0  # what the children of a killed process get to end by themselves
LOOK_S = 0.001
AIMS = ("before a row", "between rows", "before a row", "between rows", "at a row")
PHASES = ("in start-up", "before the first row", "between rows", "inside an append")
Row = dict[str, Any]


@dataclasses.dataclass
class Kill:
    """One kill: in which phase, whether it left a torn line, how long the children lived on."""

    phase: str
    torn: bool
    children_s: float


# ---------------------------------------------------------------------------------------------------- the run killed


def mine(path: str, tasks: int, draws: int) -> None:
    """Child side: one mining run as the notebook makes it."""
    from lib.mining.collect import Source, local_runner
    from lib.sampling import SamplingParams, open_engine
    from lib.sandbox import Sandbox
    from lib.tasks.task import by_split, read_tasks

    chosen = by_split(read_tasks(ROOT / "data/starter_bn.jsonl"), "train")[:tasks]
    with contextlib.closing(open_engine("embedded", engine="openvino")) as engine, Sandbox() as sandbox:
        print("ready", flush=True)
        settings, source = SamplingParams(max_new_tokens=NEW_TOKENS), Source("kills", "embedded", "", 0)
        local_runner(engine, sandbox)(chosen, draws, Ledger(path), params=settings, source=source)


class Run:
    """One start of the mining process; all its output and temporary files are in `folder`."""

    def __init__(self, ledger: Path, folder: Path, options: argparse.Namespace) -> None:
        self.ledger, self.errors = ledger, folder / "errors.txt"
        self.size = size(ledger)
        command = [sys.executable, __file__, "--mine", str(ledger), str(options.tasks), str(options.draws)]
        scratch = folder / "tmp"
        scratch.mkdir(exist_ok=True)
        with self.errors.open("w") as errors:
            self.started = time.perf_counter()
            folders = {"TMPDIR": str(scratch), "TORCHINDUCTOR_CACHE_DIR": str(folder / "torch")}
            self.process = subprocess.Popen(command, env=os.environ | folders, stdout=subprocess.PIPE, stderr=errors)
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)

    def lives_until(self, moment: Callable[[], bool]) -> bool:
        """Whether the moment comes before the run ends by itself. Raises RuntimeError when the run fails."""
        while self.process.poll() is None:
            if moment():
                return True
            time.sleep(LOOK_S)
        if self.process.returncode:
            raise RuntimeError(f"mining failed: {self.errors.read_text().strip()[-800:]}")
        return False

    def finish(self) -> None:
        """Wait for its end."""
        self.lives_until(lambda: False)

    def lives_for(self, seconds: float) -> bool:
        """Whether it is still going so many seconds from now."""
        end = time.perf_counter() + seconds
        return self.lives_until(lambda: time.perf_counter() >= end)

    def lives_until_a_row(self) -> bool:
        """Whether there is another row before it ends."""
        now = size(self.ledger)
        return self.lives_until(lambda: size(self.ledger) != now)

    def kill(self) -> str:
        """Kill it now; the phase in which it was."""
        assert self.process.stdout is not None
        inside = is_locked(self.ledger)
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        if inside:
            return "inside an append"
        if size(self.ledger) != self.size:
            return "between rows"
        return "before the first row" if b"ready" in (self.process.stdout.read() or b"") else "in start-up"


def size(path: Path) -> int:
    """Bytes, 0 for a file that is not there yet."""
    return path.stat().st_size if path.exists() else 0


def is_locked(path: Path) -> bool:
    """Whether any process holds an advisory lock on a file, without touching it."""
    if not path.exists():
        return False
    at = path.stat()
    name = f"{os.major(at.st_dev):02x}:{os.minor(at.st_dev):02x}:{at.st_ino}"
    return any(name in line.split() for line in Path("/proc/locks").read_text().splitlines())


def wait_for_orphans() -> float:
    """Seconds until the last adopted process has ended; infinite if one has not within END_S."""
    started = time.perf_counter()
    while time.perf_counter() - started < END_S:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(LOOK_S)
        except ChildProcessError:
            return time.perf_counter() - started
    return float("inf")


# ---------------------------------------------------------------------------------------------------------- the checks


def whole_lines(path: Path) -> bytes:
    """The file up to its last newline."""
    data = path.read_bytes() if path.exists() else b""
    return data[: data.rfind(b"\n") + 1]


def lock_is_free(path: Path) -> bool:
    """Whether the lock can be had at once."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def scratch_of(pids: set[int]) -> list[str]:
    """The sandbox's scratch folders that belong to these processes."""
    homes = {"/dev/shm", tempfile.gettempdir()}
    names = [name for home in homes if os.path.isdir(home) for name in os.listdir(home)]
    return [name for name in names if (owner := re.match(r"sandbox-(\d+)-", name)) and int(owner[1]) in pids]


class Trial:
    """Ledgers made under kills, checked against the untouched one."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.options, self.rng = folder, options, random.Random(options.seed)
        self.kills: list[Kill] = []
        self.problems: list[str] = []
        self.pids: set[int] = set()
        self.ledgers = self.equal = self.rows = 0
        self.first_s = 0.0  # from a start to the first new row

    def untouched(self) -> None:
        """Make the ledger to compare with."""
        ledger = self.folder / "untouched.jsonl"
        run = self.start(ledger)
        self.to_first_row(run)
        run.finish()
        self.after(ledger, b"")
        self.expected = {attempt.key: attempt.completion for attempt in Ledger(ledger)}

    def to_first_row(self, run: Run) -> bool:
        """Whether a run gets as far as a new row; how long that took is kept."""
        came = run.lives_until_a_row()
        self.first_s = time.perf_counter() - run.started if came else self.first_s
        return came

    def start(self, ledger: Path) -> Run:
        run = Run(ledger, self.folder, self.options)
        self.pids.add(run.process.pid)
        return run

    def lives_to_be_killed(self, run: Run) -> bool:
        """Wait for the moment of the next kill; False when the run ends before."""
        aim, share = AIMS[len(self.kills) % len(AIMS)], self.rng.random()
        if aim == "before a row":
            return run.lives_for(share * self.first_s)
        lives = self.to_first_row(run) and run.lives_for(share * self.options.work)
        return lives and (aim == "between rows" or run.lives_until_a_row())

    def under_kills(self) -> None:
        """One ledger, killed until there are kills enough, then left alone until it is done."""
        self.ledgers += 1
        ledger, before = self.folder / f"killed {self.ledgers}.jsonl", b""
        while len(self.kills) < self.options.kills:
            run = self.start(ledger)
            if not self.lives_to_be_killed(run):
                break  # it was done before its moment came
            after_s, phase = time.perf_counter() - run.started, run.kill()
            lived = self.after(ledger, before)
            before = whole_lines(ledger)
            self.kills.append(Kill(phase, size(ledger) > len(before), lived))
            lines = before.count(b"\n")
            print(f"kill {len(self.kills)} after {after_s:.1f} s, {phase}: {lines} rows", file=sys.stderr, flush=True)
        else:
            self.start(ledger).finish()
        self.after(ledger, before)
        self.compare(ledger)

    def after(self, ledger: Path, before: bytes) -> float:
        """What must hold once the mining process has ended; the seconds its children lived on."""
        lived, name = wait_for_orphans(), f"{ledger.name}, {len(self.kills)} kills before"
        if lived == float("inf"):
            self.problems.append(f"{name}: processes are left after {END_S:.0f} s")
        if ledger.exists() and not lock_is_free(ledger):
            self.problems.append(f"{name}: the lock is still held")
        if not whole_lines(ledger).startswith(before):
            self.problems.append(f"{name}: rows written before have changed")
        return lived

    def compare(self, path: Path) -> None:
        """A finished ledger with the untouched one."""
        attempts = list(Ledger(path))
        counts = collections.Counter(attempt.key for attempt in attempts)
        twice = sum(count - 1 for count in counts.values())
        missing, extra = len(self.expected.keys() - counts.keys()), len(counts.keys() - self.expected.keys())
        if twice or missing or extra:
            self.problems.append(f"{path.name}: {missing} keys missing, {extra} too many, {twice} rows repeat a key")
        self.rows += len(attempts)
        self.equal += sum(self.expected.get(attempt.key) == attempt.completion for attempt in attempts)

    def left_over(self) -> None:
        """Folders and files that should be gone in the end."""
        if left := [*scratch_of(self.pids), *(path.name for path in (self.folder / "tmp").iterdir())]:
            self.problems.append(f"left behind: {', '.join(left)}")


# ------------------------------------------------------------------------------------------------------------ results


def measure(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """The untouched run, the killed ones, and what did not hold."""
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder), options)
        trial.untouched()
        while len(trial.kills) < options.kills:
            trial.under_kills()
        trial.left_over()
    phases = collections.Counter(kill.phase for kill in trial.kills)
    lived = [kill.children_s for kill in trial.kills]
    rows = [
        row("kills", len(trial.kills), "kills"),
        *(row(f"kills {phase}", phases[phase], "kills") for phase in PHASES),
        row("kills that left a torn line", sum(kill.torn for kill in trial.kills), "kills"),
        row("ledgers", trial.ledgers, "ledgers"),
        row("keys of the untouched run", len(trial.expected), "keys"),
        row("start to first new row, last", trial.first_s, "s"),
        row("children's end after a kill, median", statistics.median(lived), "s"),
        row("children's end after a kill, longest", max(lived), "s"),
        row("completions as in the untouched run", trial.equal / trial.rows, "share"),
        row("what must hold and did not", len(trial.problems), "problems"),
        row("time", time.perf_counter() - started, "s"),
    ]
    return {"benchmark": "kills", "rows": rows, "ratios": {}}, trial.problems


def row(name: str, value: float, unit: str) -> Row:
    """One line of the result."""
    return {"name": name, "value": float(f"{value:.4g}"), "unit": unit}


def main() -> None:
    """Print a table, or with --json one JSON object; problems go to stderr and make the exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, metavar="N")
    parser.add_argument("--tasks", type=int, default=100, metavar="N", help="starter tasks of the training split")
    parser.add_argument("--draws", type=int, default=50, metavar="K", help="completions for each task")
    parser.add_argument("--work", type=float, default=2.0, metavar="SECONDS", help="time for kills after the first row")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--quick", action="store_true", help="5 kills, few rows, about a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else on stdout")
    parser.add_argument("--mine", nargs=3, metavar=("LEDGER", "TASKS", "DRAWS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.mine:
        mine(options.mine[0], *map(int, options.mine[1:]))
        return
    if options.quick:
        options.kills, options.tasks, options.draws, options.work = 5, 10, 20, 1.0
    result, problems = measure(options)
    show(result, options.json)
    print(*problems, sep="\n", end="\n" if problems else "", file=sys.stderr)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
