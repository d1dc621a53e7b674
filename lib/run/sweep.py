"""Several presets or seeds at once: each run is a `python -m lib run` of its own, in a folder of its own.

Nothing is remembered here. A run resumes by itself and holds its folder, so the same sweep again continues what was cut
off and repeats nothing; runs whose driver is killed end with it.
"""

import collections
import contextlib
import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lib.run.presets import NOTEBOOKS, ROOT, PipelineError, Say, short
from lib.sandbox.confine.linux import PR_SET_PDEATHSIG, prctl

LOOK_S = 0.2
END_S = 20.0  # what a run gets to end politely
LOG = "sweep.log"


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of a sweep."""

    preset: str
    seed: int
    run_dir: Path

    @property
    def name(self) -> str:
        """As it is shown: the run folder's own name."""
        return self.run_dir.name


def members(presets: Sequence[str], seeds: Sequence[int], folder: str | Path) -> list[Member]:
    """Every preset with every seed. Raises PipelineError for one named twice."""
    top = Path(os.path.abspath(folder))
    for what, given in (("preset", presets), ("seed", seeds)):
        twice = [value for value, count in collections.Counter(given).items() if count > 1]
        if twice:
            raise PipelineError(f"{what} {twice[0]}: named twice; a run counts once")
    pairs = itertools.product(presets, seeds)
    return [Member(preset, seed, top / f"{preset}-seed{seed}") for preset, seed in pairs]


def sweep(
    runs: Sequence[Member], jobs: int, arguments: Sequence[str] = (), notebooks: Path = NOTEBOOKS, say: Say = print
) -> list[dict[str, Any]]:
    """Run them all, `jobs` at a time; [{"preset", "seed", "run_dir", "seconds"}] in their order.

    `arguments` go to every `python -m lib run`. A run that fails holds up no other. Raises PipelineError in the end,
    with the last line of each failed run's log, and ValueError for jobs < 1. However this ends, its runs end too.
    """
    if jobs < 1:
        raise ValueError(f"jobs={jobs}: should be at least 1")
    waiting, seconds, failed = collections.deque(runs), dict[Member, float](), dict[Member, str]()
    with _ended(dict[Member, subprocess.Popen[bytes]]()) as running:
        started: dict[Member, float] = {}
        while waiting or running:
            while waiting and len(running) < jobs:
                member = waiting.popleft()
                say(f"{member.name} … started, {short(member.run_dir / LOG)}")
                started[member] = time.monotonic()
                running[member] = _start(member, arguments, notebooks)
            time.sleep(LOOK_S)
            for member in [member for member, process in running.items() if process.poll() is not None]:
                seconds[member] = round(time.monotonic() - started[member], 1)
                if running.pop(member).returncode:
                    failed[member] = _last_line(member.run_dir / LOG)
                say(f"{member.name} … {'failed' if member in failed else 'finished'} after {seconds[member]:.0f} s")
    if failed:
        reasons = [f"  {member.name}: {line}" for member, line in failed.items()]
        raise PipelineError(
            "\n".join([f"{len(failed)} of {len(runs)} runs failed; the same command goes on", *reasons])
        )
    return [
        {"preset": one.preset, "seed": one.seed, "run_dir": short(one.run_dir), "seconds": seconds[one]} for one in runs
    ]


def _start(member: Member, arguments: Sequence[str], notebooks: Path) -> "subprocess.Popen[bytes]":
    member.run_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "lib", "run", "--preset", member.preset, "--run-dir", str(member.run_dir)]
    command += ["--notebooks", str(notebooks), *arguments, "--set", f"seed={member.seed}"]
    own = {"UNSLOTH_COMPILE_LOCATION": str(member.run_dir / ".unsloth")}  # two that write one folder may meet
    with (member.run_dir / LOG).open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | own,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=_end_with_parent,
        )


def _end_with_parent() -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def _ended(running: "dict[Member, subprocess.Popen[bytes]]") -> Iterator["dict[Member, subprocess.Popen[bytes]]"]:
    """However this is left, what still runs is asked to end, as by Ctrl-C, and killed if it does not."""
    try:
        yield running
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return next((line.strip() for line in reversed(lines) if "executed notebook" not in line), "no word")
