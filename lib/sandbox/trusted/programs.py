"""Program mode, in the grader: write, compile once, run every case, compare outputs. Algorithm 3 of the paper.

Function tasks of other languages run here too, see `functions`: one case, whose output ends with the mark that is its
input.
"""

import os
import re
import signal
from collections.abc import Callable, Sequence
from typing import Any

from lib.sandbox.confine.confinement import MEBIBYTE
from lib.sandbox.confine.limits import wall_limit
from lib.sandbox.trusted.outputs import difference, same_output
from lib.sandbox.trusted.processes import ANSWER_S
from lib.sandbox.verdict import Status, head, one_line

OUTPUT_BYTES = 16 * MEBIBYTE
COMPILE_S, COMPILE_WALL_S, COMPILE_MB = 5.0, 15.0, 2048
Ask = Callable[..., dict[str, Any]]


class Run:
    """What one command did."""

    def __init__(self, ask: Ask, argv: list[str], stdin: str, limits: dict[str, Any], once: bool = False) -> None:
        """Run it to its end. With `once`, what it reads from stdin cannot be read again."""
        descriptors = [_file(stdin) if not once else _pipe(stdin), *(os.memfd_create(n) for n in ("stdout", "stderr"))]
        try:
            patience_s = limits.get("wall_s", wall_limit(limits["cpu_s"])) + ANSWER_S
            answer = _ask(ask, "run", descriptors, patience_s=patience_s, argv=argv, file_bytes=OUTPUT_BYTES, **limits)
            self.out, self.err = (os.pread(item, OUTPUT_BYTES, 0) for item in descriptors[1:])
            largest = max(os.fstat(item).st_size for item in descriptors[1:])
        finally:
            for item in descriptors:
                os.close(item)
        self.code: int = answer["status"]
        self.cpu_s: float = answer["cpu_s"]
        self.wall_s: float = answer["wall_s"]
        self.rss_mb: float = answer["rss_mb"]
        self.reason: str = answer["reason"]
        self.status, self.why = self._judge(limits, largest)

    def _judge(self, limits: dict[str, Any], largest: int) -> tuple[str, str]:
        if self.reason == "cpu" or self.cpu_s >= limits["cpu_s"]:
            return Status.TIMEOUT, f"used its {limits['cpu_s']:g} s of CPU time"
        if self.reason == "wall":
            return Status.TIMEOUT, f"took {self.wall_s:.1f} s of wall time with {self.cpu_s:.2f} s of CPU time"
        if self.reason == "scratch":
            return Status.OUTPUT_LIMIT, "filled its scratch space"
        if self.reason == "memory":
            return Status.MEMORY, f"used more than {limits['asked_mb']} MB"
        if largest >= OUTPUT_BYTES or self.code == -signal.SIGXFSZ:
            return Status.OUTPUT_LIMIT, f"wrote {OUTPUT_BYTES // MEBIBYTE} MiB"
        if self.code == 0 and not self.reason:
            return Status.SUCCESS, ""
        if self.rss_mb > 0.85 * limits["resident_mb"] or _NO_MEMORY.search(self.err[-4000:]):
            return Status.MEMORY, f"ran out of its {limits['asked_mb']} MB"
        said = _telling_line(self.err)
        return Status.RUNTIME_ERROR, f"exit code {self.code}" + (f": {said}" if said else "")


_NO_MEMORY = re.compile(
    rb"MemoryError|not enough memory|[Oo]ut[ _][Oo]f[ _][Mm]emory|cannot allocate|Cannot allocate|OutOfMemory",
    re.IGNORECASE,
)


def _telling_line(raw: bytes) -> str:
    """The line of stderr that says what went wrong: the first that speaks of an error, else the first."""
    lines = [line for line in raw.decode("utf-8", "replace").splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"[Ee]rror\b", line) and not line.startswith(" ")]
    return one_line((telling or lines or [""])[0], 200)


def judge(ask: Ask, job: dict[str, Any]) -> dict[str, Any]:
    """Run one program on its cases; return the verdict row."""
    language = job["language"]
    runs: list[Run] = []
    commands: list[str] = []
    verdict: dict[str, Any] = {"status": Status.SUCCESS, "passed": 0, "failure": ""}
    shown: Run | None = None
    main = f"main.{language['file_ext']}"
    try:
        for name, text in {**job["files"], main: job["source"]}.items():
            _send_file(ask, name, text)
        if language["compile"]:
            commands.append(language["compile_line"])
            built = _compile(ask, job)
            runs.append(built)
            if built.status != Status.SUCCESS:
                status = Status.COMPILE_ERROR if built.status == Status.RUNTIME_ERROR else built.status
                verdict.update(
                    status=status,
                    failure=one_line(_compiler_words(built)),
                    retry=built.reason == "wall" and built.cpu_s < 1,
                )
                shown = built
            _ask(ask, "executable")
            for name in (*job["files"], main):
                _ask(ask, "remove", name=name)
        if shown is None:
            commands.append(language["run_line"])
            if len(job["cases"]) > 1:
                _ask(ask, "keep")
            shown = _run_cases(ask, job, verdict, runs)
    except _Refused as refused:
        verdict.update(status=Status.SANDBOX_ERROR, passed=0, failure=str(refused))
    finally:
        ask("wipe")
    row = verdict | _resources(runs, commands, shown)
    if job["compare"] == "mark":
        mark = job["cases"][0][1]
        return row | {"stdout_head": row["stdout_head"].removesuffix(f"\n{mark}\n")}
    return row | {"compare": job["compare"]}


class _Refused(Exception):
    """The launcher could not do what was asked, for a reason that is not the program's."""


def _ask(ask: Ask, do: str, descriptors: Sequence[int] = (), **details: Any) -> dict[str, Any]:
    answer = ask(do, descriptors, **details)
    if "error" in answer:
        raise _Refused(answer["error"])
    return answer


def _compile(ask: Ask, job: dict[str, Any]) -> Run:
    """Compile; where that fails and there is another reading of the program, compile that."""
    limits = _limits(job) | {
        "cpu_s": COMPILE_S,
        "wall_s": COMPILE_WALL_S,
        "asked_mb": COMPILE_MB,
        "memory_mb": COMPILE_MB,
        "resident_mb": COMPILE_MB,
        "processes": True,
    }
    built = Run(ask, job["language"]["compile"], "", limits)
    if built.status == Status.RUNTIME_ERROR and job.get("other"):
        _send_file(ask, f"program.{job['language']['file_ext']}", job["other"])
        again = Run(ask, job["language"]["compile"], "", limits)
        return again if again.status == Status.SUCCESS else built
    return built


def _run_cases(ask: Ask, job: dict[str, Any], verdict: dict[str, Any], runs: list[Run]) -> Run | None:
    """Run every case (none after a timeout); the run to show: the first that failed, else the first."""
    shown: Run | None = None
    limits = _limits(job)
    marked = job["compare"] == "mark"
    for number, (stdin, expected) in enumerate(job["cases"], 1):
        if number > 1 and (why := ask("restore").get("error", "")):  # no case finds what another one left
            verdict.update(status=Status.RUNTIME_ERROR, failure=f"case {number}: {why}")
            break
        run = Run(ask, job["language"]["run"], stdin, limits, once=marked)
        runs.append(run)
        status, why = run.status, run.why
        if status == Status.SUCCESS and not _accepts(run.out, expected, job["compare"]):
            status, why = Status.WRONG_OUTPUT, _difference(run.out, expected, job["compare"])
        if status == Status.SUCCESS:
            verdict["passed"] += 1
        elif verdict["status"] == Status.SUCCESS:
            what = "the tests" if marked else f"case {number} (input {one_line(repr(stdin[:60]))})"
            verdict.update(status=status, failure=one_line(f"{what}: {why}"), retry=run.reason == "wall")
            shown = run
        if status == Status.TIMEOUT:
            break
    return shown or (runs[-1] if runs else None)


def _accepts(got: bytes, expected: str, compare: str) -> bool:
    wanted = expected.encode("utf-8", "surrogatepass")
    if compare == "mark":
        return got.rstrip().rpartition(b"\n")[2] == wanted
    return same_output(got, wanted, compare)


def _difference(got: bytes, expected: str, compare: str) -> str:
    if compare == "mark":
        return "the program ended before its last test"
    return difference(got, expected.encode("utf-8", "surrogatepass"), compare)


def _limits(job: dict[str, Any]) -> dict[str, Any]:
    return {
        "cpu_s": job["cpu_s"],
        "asked_mb": job["memory_mb"],
        "memory_mb": job["memory_mb"] + job["language"]["reserve_mb"],  # of address space
        "resident_mb": job["memory_mb"] + job["language"]["runtime_mb"],
        "processes": job["language"]["processes"],
        "python": job["language"]["python"],
    }


def _compiler_words(built: Run) -> str:
    said = (built.err or built.out).decode("utf-8", "replace")
    lines = [line for line in said.splitlines() if "rror" in line] or said.splitlines()
    return " ".join(lines[:2]) or built.why


def _resources(runs: list[Run], commands: list[str], shown: Run | None) -> dict[str, Any]:
    return {
        "cpu_s": sum(run.cpu_s for run in runs),
        "wall_s": sum(run.wall_s for run in runs),
        "peak_rss_mb": max((run.rss_mb for run in runs), default=0.0),
        "exit_code": shown.code if shown else None,
        "commands": commands,
        "stdout_head": head(shown.out) if shown else "",
        "stderr_head": head(shown.err) if shown else "",
    }


def _send_file(ask: Ask, name: str, text: str) -> None:
    descriptor = _file(text)
    try:
        _ask(ask, "write", [descriptor], name=name)
    finally:
        os.close(descriptor)


def _file(text: str) -> int:
    """A descriptor of a nameless file that holds `text`."""
    descriptor = os.memfd_create("file")
    view = memoryview(text.encode("utf-8", "surrogatepass"))
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _pipe(text: str) -> int:
    """The reading end of a pipe that holds `text`, a short one, and its end."""
    reader, writer = os.pipe()
    with open(writer, "w", encoding="utf-8") as file:
        file.write(text)
    return reader
