"""Published numbers, and what a published submission says when it is run again.

The numbers stand in data/published.csv, each with its source. The submission is the RSFT paper's: 500 programs
for the BLP-2025 test split, each the best of 100 by one visible assert.

Differs from the papers in:
- they print bare percentages; here a published number has the Wilson interval of its n, or none where no n is known;
- visible and full suite are scored side by side, on the same programs;
- the test tasks that stand word for word in the submission's training file are counted apart from the rest.
"""

import csv
import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import numpy.typing

from lib.base.files import ROOT
from lib.decontamination import verbatim
from lib.sandbox import Sandbox, SandboxError, Status
from lib.stats.intervals import Rate, TwoSample, rate_over_tasks, two_proportion, wilson_interval
from lib.stats.paired import Comparison, compare
from lib.tasks import readers as corpora
from lib.tasks.extract import program_of
from lib.tasks.task import Task, TaskError

COLUMNS = (
    "paper", "item", "system", "benchmark", "language", "tests", "protocol", "k", "rate", "n_tasks", "note", "source",
)  # fmt: skip
NUMBERS = ROOT / "data" / "published.csv"
SETTINGS = ROOT / "data" / "published_settings.csv"
FILES = ("test_v1.csv", "test_full.csv", "troopers_submission.json", "troopers_rsft_ds.jsonl")
PROTOCOL = "best-of-100"
GROUPS = {"all": "all tasks", "trained": "trained on", "untrained": "not trained on"}
SUITES = {"visible": "visible assert", "all": "full suite"}

Bools = numpy.typing.NDArray[numpy.bool_]


# ------------------------------------------------------------------------------------------------- the numbers


@dataclasses.dataclass(frozen=True)
class Published:
    """One number as printed elsewhere: `rate` a share, `n_tasks` and `k` None where they are not known."""

    paper: str
    item: str
    system: str
    benchmark: str
    language: str
    tests: str
    protocol: str
    k: int | None
    rate: float
    n_tasks: int | None
    note: str
    source: str

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, from rate and n; (nan, nan) without n."""
        if self.n_tasks is None:
            return math.nan, math.nan
        return wilson_interval(round(self.rate * self.n_tasks, 9), self.n_tasks)

    def row(self) -> dict[str, Any]:
        """The columns of the file, and lo and hi."""
        lo, hi = self.interval
        return dataclasses.asdict(self) | {"lo": lo, "hi": hi}


def read_published(path: str | Path) -> list[Published]:
    """The rows of data/published.csv. Raises ValueError naming file, line and value for one that cannot be used."""
    with Path(path).open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{path}: columns {reader.fieldnames}; expected {', '.join(COLUMNS)}")
        return [_published(row, f"{path}, line {reader.line_num}") for row in reader]


def read_settings(path: str | Path = SETTINGS) -> list[dict[str, str]]:
    """Return the rows of data/published_settings.csv. Raises ValueError for other columns or a row without a source."""
    with Path(path).open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        if tuple(reader.fieldnames or ()) != ("paper", "item", "setting", "value", "source"):
            raise ValueError(f"{path}: columns {reader.fieldnames}; expected paper, item, setting, value, source")
        rows = list(reader)
    for number, row in enumerate(rows, 2):
        if not row["value"] or not row["source"]:
            raise ValueError(f"{path}, line {number}: a published setting has a value and names where it was printed")
    return rows


def _published(row: dict[str, str], where: str) -> Published:
    if not row["source"]:
        raise ValueError(f"{where}: no source; a published number names where it was printed")
    try:
        rate = float(row["rate"])
        k, n = (int(row[name]) if row[name] else None for name in ("k", "n_tasks"))
    except ValueError as error:
        raise ValueError(f"{where}: {error}; rate is a share, k and n_tasks are whole or empty") from None
    if not 0 <= rate <= 1 or (n is not None and n < 1):
        raise ValueError(f"{where}: rate {rate:g} of {n} tasks; a rate is a share in 0..1 of at least 1 task")
    return Published(**{**row, "rate": rate, "k": k, "n_tasks": n})  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------- the submission


@dataclasses.dataclass(frozen=True)
class Audit:
    """A submission judged by two suites. Each array is (tasks,): passed the visible assert, passed the full
    suite, stood in the training file."""

    task_ids: tuple[str, ...]
    visible: Bools
    full: Bools
    trained: Bools


def missing_files(folder: str | Path) -> list[str]:
    """The public files an audit needs and `folder` lacks."""
    return [str(Path(folder) / name) for name in FILES if not (Path(folder) / name).is_file()]


def audit(folder: str | Path, sandbox: Sandbox) -> Audit:
    """Run the submission in `folder` against both suites of the same tasks.

    Raises TaskError when the suites or the submission name other tasks, SandboxError when the sandbox, not a
    program, failed, FileNotFoundError for a file that is not there.
    """
    shown, whole, submission, training = (Path(folder) / name for name in FILES)
    visible = corpora.read(shown)
    by_id = {task.task_id: task for task in corpora.read(whole)}
    answers = corpora.read_submission(submission)
    ids = tuple(task.task_id for task in visible)
    for name, there in ((whole, set(by_id)), (submission, set(answers))):
        odd = sorted(there ^ set(ids))
        if odd:
            raise TaskError(f"{name}: {len(odd)} tasks that only it or {shown.name} has, as {', '.join(odd[:3])}")
    programs = [program_of(answers[task.task_id][0], task) or "" for task in visible]
    trained = verbatim(corpora.read(training), visible)
    return Audit(
        ids,
        _passed(sandbox, visible, programs),
        _passed(sandbox, [by_id[name] for name in ids], programs),
        numpy.array([name in trained for name in ids]),
    )


def _passed(sandbox: Sandbox, tasks: Sequence[Task], programs: Sequence[str]) -> Bools:
    verdicts = sandbox.grade_many(list(zip(tasks, programs, strict=True)), tests="all")
    for task, verdict in zip(tasks, verdicts, strict=True):
        if verdict.status == Status.SANDBOX_ERROR:
            raise SandboxError(f"sandbox error at {task.task_id}: {verdict.failure}")
    return numpy.array([verdict.status == Status.SUCCESS for verdict in verdicts])


@dataclasses.dataclass(frozen=True)
class Findings:
    """What an audit says: rates by (group, suite), trained against untrained by suite, visible against full."""

    wilson: dict[tuple[str, str], Rate]
    clopper_pearson: dict[tuple[str, str], Rate]
    contamination: dict[str, TwoSample]
    drop: Comparison


def findings(judged: Audit) -> Findings:
    """Rates with both intervals, Fisher's test between the two groups of tasks, McNemar's between the suites."""
    members = {"all": numpy.ones_like(judged.trained), "trained": judged.trained, "untrained": ~judged.trained}
    passed = {"visible": judged.visible, "all": judged.full}
    kinds = {
        (group, suite): results[chosen]
        for group, chosen in members.items()
        for suite, results in passed.items()
        if chosen.any()
    }
    wilson = {key: rate_over_tasks(found, "wilson", PROTOCOL, tests=key[1]) for key, found in kinds.items()}
    exact = {key: rate_over_tasks(found, "clopper-pearson", PROTOCOL, tests=key[1]) for key, found in kinds.items()}
    contamination = {
        suite: two_proportion(
            int(results[judged.trained].sum()), int(judged.trained.sum()),
            int(results[~judged.trained].sum()), int((~judged.trained).sum()),
        )
        for suite, results in passed.items()
        if judged.trained.any() and not judged.trained.all()
    }  # fmt: skip
    drop = compare(
        judged.visible, judged.full, name_a=SUITES["visible"], name_b=SUITES["all"],
        tests_a="visible", tests_b="all", across_tests=True,
    )  # fmt: skip
    return Findings(wilson, exact, contamination, drop)


def rows(found: Findings) -> Iterator[dict[str, Any]]:
    """Tidy rows, one a group and suite: passed, n_tasks, rate, Wilson's lo and hi, Clopper-Pearson's."""
    for (group, suite), rate in found.wilson.items():
        exact = found.clopper_pearson[group, suite]
        yield {
            "group": GROUPS[group], "tests": SUITES[suite], "passed": round(rate.rate * rate.n_tasks),
            "n_tasks": rate.n_tasks, "rate": rate.rate, "lo": rate.lo, "hi": rate.hi,
            "exact_lo": exact.lo, "exact_hi": exact.hi,
        }  # fmt: skip


def in_words(found: Findings) -> str:
    """The table and the two tests, one fact a line."""
    head = f"{'tasks':15} {'tests':15} {'passed':>9}  {'rate':>6}  {'95 % Wilson':14}  95 % Clopper-Pearson"
    lines = [head]
    for row in rows(found):
        limits = [f"[{100 * row[lo]:.1f}, {100 * row[hi]:.1f}]" for lo, hi in (("lo", "hi"), ("exact_lo", "exact_hi"))]
        count = f"{row['passed']}/{row['n_tasks']}"
        rate = f"{100 * row['rate']:.1f} %"
        lines.append(f"{row['group']:15} {row['tests']:15} {count:>9}  {rate:>6}  {limits[0]:14}  {limits[1]}")
    for suite, test in found.contamination.items():
        lines.append(f"trained on against not, {SUITES[suite]}: {test}")
    return "\n".join([*lines, f"visible against full: {found.drop.sentence}"])
