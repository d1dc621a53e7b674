"""Judge cases in this process's own mode; prints {"mode": …, "results": {name: [held, words]}}.

    python tests/case_runner.py sandbox|programs|hacks [name…]

`sandbox` are the files in tests/cases/sandbox: a program, what it is judged by, and what the verdict must be.

| field | meaning |
|---|---|
| `PROGRAM` | the program to judge |
| `TESTS` | asserts of a function task; with `ENTRY` (function under test, default `f`), `SETUP`, `PROMPT`, `ALIAS` |
| `CASES` | (stdin, stdout) pairs of a program, instead of `TESTS` |
| `LANG` | language, default `python`; `LIMIT`: CPU seconds, default 1; `MEM`: MB, default 512 |
| `EXPECT` | `pass`: the status is `success`; `fail`: any other but `sandbox-error`, which no program may bring about |
| `SECONDS` | the verdict must be there within this many seconds |
| `run(box, T, Case)` | a case that needs more than one program: returns (held, words) |

`programs` and `hacks` are rows of tests/cases/*.jsonl. After every case the same sandbox must pass a right program
and fail a wrong one.
"""

import json
import runpy
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib.sandbox import Sandbox, Verdict, probe  # noqa: E402
from lib.tasks.task import Case, Task  # noqa: E402

FOLDER = Path(__file__).resolve().parent / "cases"
Result = tuple[bool, str]


def names(kind: str) -> list[str]:
    """The cases of a kind."""
    if kind == "sandbox":
        return sorted(path.stem for path in (FOLDER / "sandbox").glob("*.py"))
    return list(rows(kind))


def rows(kind: str) -> dict[str, dict[str, Any]]:
    """Rows of a JSON Lines file by name."""
    lines = (FOLDER / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return {f"{row['kind']}/{row['name']}": row for row in found}


def make_task(
    tests: Any = (), id: str = "case", lang: str = "python", mode: str = "function", entry: str = "f", setup: str = "",
    limit: float = 1.0, mem: int = 512, cases: Any = (), prompt: str = "p", compare: str = "exact",
) -> Task:  # fmt: skip
    """A task of one case."""
    return Task(
        id, "cases", "test", prompt or "p", "en", lang, mode, entry, tuple(tests), cases=tuple(cases), setup_code=setup,
        time_limit_s=limit, memory_limit_mb=mem, compare=compare,
    )  # fmt: skip


def judge_file(box: Sandbox, name: str) -> Result:
    """One file of tests/cases/sandbox."""
    case = runpy.run_path(str(FOLDER / "sandbox" / f"{name}.py"))
    started = time.monotonic()
    if "run" in case:
        return case["run"](box, make_task, Case)
    limit, mem, language = case.get("LIMIT", 1.0), case.get("MEM", 512), case.get("LANG", "python")
    if "CASES" in case:
        cases = [Case(*pair) for pair in case["CASES"]]
        verdict = box.execute(language, case["PROGRAM"], cases, limit, mem)
    else:
        task = make_task(
            case["TESTS"], name, language, "function", case.get("ENTRY", "f"), case.get("SETUP", ""), limit, mem, (),
            case.get("PROMPT", ""),
        )  # fmt: skip
        verdict = box.grade(task, case["PROGRAM"], alias=case.get("ALIAS", "strict"))
    took = time.monotonic() - started
    held = as_expected(verdict, case["EXPECT"]) and took <= case.get("SECONDS", 3600)
    return held, f"{verdict.status}: {verdict.failure} ({took:.1f} s)"


def judge_row(kind: str, name: str, boxes: dict[tuple[str, ...], Sandbox]) -> Result:
    """One row of tests/cases/programs.jsonl or hacks.jsonl."""
    row = rows(kind)[name]
    cases = [Case(case["input"], case["output"]) for case in row.get("cases", ())]
    program, limit = row.get("source_code", row.get("program")), row.get("time_limit_s", 5)
    modules = tuple(row.get("modules", ()))
    box = boxes.setdefault(modules, boxes[()] if not modules else Sandbox(workers=1, modules=modules))
    if cases:
        verdict = box.execute(row["language"], program, cases, limit, 512, compare=row.get("compare", "exact"))
    else:
        setup, prompt = row.get("setup_code", ""), row.get("prompt", "")
        task = make_task(
            row["tests"], name, row["language"], "function", row["entry_point"], setup, limit, 512, (), prompt
        )
        verdict = box.grade(task, program)
    return as_expected(verdict, row["expect"]), f"{verdict.status}: {verdict.failure}"


def as_expected(verdict: Verdict, expected: str) -> bool:
    """Whether a verdict is the one a case names: a status, `pass` or `fail`."""
    if expected == "fail":
        return verdict.status not in ("success", "sandbox-error", "unsupported-test")
    return verdict.status == {"pass": "success"}.get(expected, expected)


def is_healthy(box: Sandbox, name: str) -> bool:
    """Whether a right program passes and a wrong one fails; the comment makes both new."""
    task, cases = make_task(["assert f(2) == 4", "assert f(3) == 9"], "healthy"), [Case("3\n", "9\n")]
    functions = [box.grade(task, f"def f(x): return {body}  # after {name}") for body in ("x * x", "x + x")]
    programs = [box.execute("python", f"print({body} * int(input()))", cases, 2.0, 256) for body in (3, 2)]
    return [verdict.status for verdict in functions + programs] == ["success", "wrong-output"] * 2


def main() -> None:
    """Judge the cases named, or all of a kind."""
    kind, *chosen = sys.argv[1:]
    results: dict[str, Result] = {}
    boxes = {(): Sandbox(workers=1)}
    for name in chosen or names(kind):
        try:
            held, words = judge_file(boxes[()], name) if kind == "sandbox" else judge_row(kind, name, boxes)
            if held and not all(is_healthy(box, name) for box in boxes.values()):
                held, words = False, f"{words}; after it a right program fails or a wrong one passes"
        except Exception as error:
            held, words = False, f"{type(error).__name__}: {error}"
        results[name] = (held, words)
        print(name, held, words[:150], file=sys.stderr, flush=True)
    for box in set(boxes.values()):
        box.close()
    print(json.dumps({"mode": probe().mode, "results": results}))


if __name__ == "__main__":
    main()
