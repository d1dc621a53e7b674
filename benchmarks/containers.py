"""Do programs get the same verdicts in containers as in the native sandbox, and what does a container cost?

    python benchmarks/containers.py [--quick] [--json] [--language NAME]

All references of the starter programs, and 100 programs per language that fail: another task's reference, a reference
cut in two, endless loops, memory, output, exit codes. A difference is a row by name. Needs podman or docker; a language
that is not installed here has no native verdict, so that its container is held to what is known of each program.
"""

import argparse
import dataclasses
import random
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.common import show  # noqa: E402
from lib.sandbox import Sandbox, Verdict, languages  # noqa: E402
from lib.tasks.task import Task, read_tasks  # noqa: E402

OF_TASKS, CUT, OF_A_KIND = 60, 20, 5  # failing programs per language: 60 + 20 + 4 · 5
# By language: what does not end, takes memory without end, writes without end, and leaves with status 3.
ENDLESS = {
    "python": (
        "while True: pass",
        "x = [0]\nwhile True: x += x",
        "while True: print('x' * 1000)",
        "raise SystemExit(3)",
    ),
    "lua": (
        "while true do end",
        "local t = {} while true do t[#t + 1] = string.rep(#t .. ' ', 100000) end",
        "while true do io.write(string.rep('x', 1000)) end",
        "os.exit(3)",
    ),
    "ocaml": (
        "let () = while true do () done",
        "let rec f l = f (Bytes.make 1000000 'x' :: l)\nlet () = f []",
        "let () = while true do print_string (String.make 1000 'x') done",
        "let () = exit 3",
    ),
    "r": (
        "while (TRUE) {}",
        "x <- list()\nwhile (TRUE) x[[length(x) + 1]] <- runif(1e6)",
        "while (TRUE) cat(strrep('x', 1000))",
        "quit(status = 3)",
    ),
    "fortran": (
        "integer :: i\ni = 0\ndo while (i >= 0)\n  i = mod(i + 1, 7)\nend do\nprint *, i\nend",
        "type :: box\n  real, allocatable :: x(:)\nend type\ntype(box) :: boxes(100000)\ninteger :: i\n"
        "do i = 1, 100000\n  allocate(boxes(i)%x(1000000))\n  boxes(i)%x = i\nend do\nprint *, boxes(7)%x(7)\nend",
        "do\n  write(*, '(a)') repeat('x', 1000)\nend do\nend",
        "stop 3\nend",
    ),
    "julia": (
        "while true end",
        "x = []\nwhile true\n    push!(x, rand(1000000))\nend",
        'while true\n    print("x"^1000)\nend',
        "exit(3)",
    ),
}


def programs(tasks: list[Task], language: str, seed: int = 0) -> list[tuple[Task, str]]:
    """Return 100 programs of a language that cannot be right, each with the task whose cases it runs on."""
    lot = random.Random(f"{seed} {language}")
    shifted = [
        (task, dict(other.references)[language]) for task, other in zip(tasks, [*tasks[1:], tasks[0]], strict=True)
    ]
    found = lot.sample(shifted, OF_TASKS)
    for task in lot.sample(tasks, CUT):
        source = dict(task.references)[language]
        found.append((task, source[: len(source) // 2]))
    for source in ENDLESS[language]:
        found += [(dataclasses.replace(task, time_limit_s=1.0), source) for task in lot.sample(tasks, OF_A_KIND)]
    return found


def judged(box: Sandbox, jobs: list[tuple[Task, str]]) -> tuple[list[Verdict], float]:
    """Return the verdicts and the seconds per program, those of the first, which starts a container, left out."""
    box.grade(*jobs[0])
    started = time.monotonic()
    verdicts = box.grade_many(jobs)
    return verdicts, (time.monotonic() - started) / len(jobs)


def compare(language: str, native: Sandbox, container: Sandbox, quick: bool) -> dict[str, Any]:
    """Return counts, seconds and differences of one language."""
    tasks = [task.in_language(language) for task in read_tasks(ROOT / "data" / "starter_io.jsonl")]
    jobs = [(task, task.reference) for task in tasks]
    jobs += programs(tasks, language)
    if quick:
        jobs = jobs[:: len(jobs) // 16]
    references = sum(program == task.reference for task, program in jobs)
    inside, seconds = judged(container, jobs)
    beside, native_seconds = judged(native, jobs) if languages.version(language) else ([], 0.0)
    passed = [verdict.status == "success" for verdict in inside]
    found: dict[str, Any] = {
        "references": references,
        "references_passed": sum(passed[:references]),
        "failing": len(jobs) - references,
        "failing_failed": len(jobs) - references - sum(passed[references:]),
        "seconds": seconds,
        "native_seconds": native_seconds,
        "same": sum((a.status, a.passed) == (b.status, b.passed) for a, b in zip(inside, beside, strict=False)),
        "statuses": {},
        "differences": [
            {"task": task.task_id, "program": program, "container": str(a.status), "native": str(b.status),
             "passed": [a.passed, b.passed], "evidence": [a.failure, b.failure]}
            for (task, program), a, b in zip(jobs, inside, beside, strict=False)
            if (a.status, a.passed) != (b.status, b.passed)
        ],
    }  # fmt: skip
    for verdict in inside[references:]:
        found["statuses"][str(verdict.status)] = found["statuses"].get(str(verdict.status), 0) + 1
    return found


def main() -> None:
    """Print the table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="some sixteen programs of each language")
    parser.add_argument("--language", action="append", choices=sorted(ENDLESS), help="one of them, may be repeated")
    options = parser.parse_args()
    rows, ratios, found = [], {}, {}
    with Sandbox() as native, Sandbox(container=True) as container:
        for language in options.language or sorted(ENDLESS):
            one = found[language] = compare(language, native, container, options.quick)
            print(language, {name: value for name, value in one.items() if value}, file=sys.stderr, flush=True)
            for name in ("references", "references_passed", "failing", "failing_failed", "same"):
                rows.append({"name": f"{language}, {name.replace('_', ' ')}", "value": one[name], "unit": "programs"})
            rows.append({"name": f"{language}, in a container", "value": one["seconds"], "unit": "s per program"})
            if one["native_seconds"]:
                ratios[f"{language}, seconds native/container"] = one["native_seconds"] / one["seconds"]
    show({"benchmark": "containers", "rows": rows, "ratios": ratios, "languages": found}, options.json)


if __name__ == "__main__":
    main()
