"""Labels by rules against labels by reading, on real failures of a public submission.

    python benchmarks/taxonomy.py [--quick] [--json]

Judges blp/troopers_submission.json on the full suite, labels the failures with lib.evaluation.failures.taxonomy and
compares those of data/failure_labels.csv with what reading gave (criteria: data/failure_criteria.md): Cohen's kappa
with its asymptotic 95 % interval, the confusion matrix, precision and recall of each class; on the half that rules were
fitted to, on the half that was left alone, and on both. Without --quick also the rules' labels of all failures of the
submission.
"""

import argparse
import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.common import show  # noqa: E402
from benchmarks.failure_labels import HALVES, TROOPERS_CLASSES, Agreement, Read, agreement, read_labels, tally  # noqa: E402
from lib.evaluation.failures.taxonomy import POLYCODE_TYPES, Label, classify  # noqa: E402
from lib.evaluation.scores import NO_TYPE  # noqa: E402
from lib.sandbox import Sandbox  # noqa: E402
from lib.stats.intervals import clopper_pearson_interval  # noqa: E402
from lib.tasks import readers as corpora  # noqa: E402
from lib.tasks.extract import program_of  # noqa: E402

BLP = ROOT / "data" / "external" / "blp"
CLASSES = {"troopers_type": TROOPERS_CLASSES, "polycode_type": POLYCODE_TYPES}
Row = dict[str, Any]


def row(name: str, value: float, unit: str) -> Row:
    """One line of the result."""
    return {"name": name, "value": round(float(value), 4), "unit": unit}


def ruled(wanted: Sequence[Read] | None = None) -> dict[str, Label]:
    """The rules' label of each failed program of the submission; with `wanted`, of those alone.

    Raises ValueError where a program is not the one that was read, or does not fail.
    """
    tasks = {task.task_id: task for task in corpora.read(BLP / "test_full.csv")}
    responses = corpora.read_submission(BLP / "troopers_submission.json")
    ids = list(tasks) if wanted is None else [read.task_id for read in wanted]
    programs = {name: program_of(responses[name][0], tasks[name]) or "" for name in ids}
    for read in wanted or ():
        if hashlib.sha256(programs[read.task_id].encode()).hexdigest() != read.sha256:
            raise ValueError(f"failure_labels.csv, task_id {read.task_id}: the submission holds another program")
    with Sandbox() as box:
        verdicts = box.grade_many([(tasks[name], programs[name]) for name in ids], tests="all")
    failed = [(name, verdict) for name, verdict in zip(ids, verdicts, strict=True) if verdict.status != "success"]
    if wanted is not None and len(failed) < len(wanted):
        raise ValueError(f"{len(wanted) - len(failed)} of {len(wanted)} labelled programs pass here; all should fail")
    return {name: classify(tasks[name], programs[name], verdict) for name, verdict in failed}


def compared(read: Sequence[Read], labels: dict[str, Label], taxonomy: str) -> Agreement:
    """Reading against rules in one taxonomy."""
    by_rules = [str(getattr(labels[one.task_id], taxonomy) or NO_TYPE) for one in read]
    return agreement([getattr(one, taxonomy) for one in read], by_rules, CLASSES[taxonomy])


def lines(name: str, found: Agreement) -> Iterator[Row]:
    """Kappa, raw agreement, every cell that is not empty, and each class."""
    low, high = clopper_pearson_interval(found.agreed, found.total)
    yield row(f"{name}: kappa", found.kappa, "of 1")
    yield row(f"{name}: kappa, low", found.lo, "of 1")
    yield row(f"{name}: kappa, high", found.hi, "of 1")
    yield row(f"{name}: agree", found.agreed, f"of {found.total}")
    yield row(f"{name}: agree, low", low, "share")
    yield row(f"{name}: agree, high", high, "share")
    for read, cells in found.confusion.iterrows():
        yield from (row(f"{name}: {read} labelled {ruled}", n, "programs") for ruled, n in cells.items() if n)
    for kind, values in found.per_class().dropna().iterrows():
        yield row(f"{name}: {kind}, precision", values["precision"], f"of {values['ruled']:.0f}")
        yield row(f"{name}: {kind}, recall", values["recall"], f"of {values['read']:.0f}")


def measure(quick: bool) -> dict[str, Any]:
    """Everything, as the one JSON object."""
    read, started = read_labels(), time.monotonic()
    labels = ruled(read if quick else None)
    rows = [row("judging and labelling", time.monotonic() - started, "s")]
    parts = {half: [one for one in read if one.half == half] for half in HALVES} | {"both": read}
    for taxonomy, classes in CLASSES.items():
        first, second = ([getattr(one, f"{taxonomy}_{turn}") for one in read] for turn in (1, 2))
        rows += lines(f"{taxonomy}, first pass against second", agreement(first, second, classes))
        for part, some in parts.items():
            rows += lines(f"{taxonomy}, {part}", compared(some, labels, taxonomy))
    if not quick:
        counts = tally(labels.values())
        rows += [row(f"all failures, Type {kind}", n, f"of {counts.total}") for kind, n in counts.troopers.items()]
        rows += [row(f"all failures, {kind}", n, f"of {counts.total}") for kind, n in counts.polycode.items()]
    return {"benchmark": "taxonomy", "rows": rows, "ratios": {}}


def main() -> None:
    """Print a table, or with --json one JSON object."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--quick", action="store_true", help="judge the labelled programs alone")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    if not BLP.is_dir():
        parser.exit(1, f"{BLP} is not here: this benchmark reads public data, see data/README.md\n")
    result = measure(options.quick)
    show(result, options.json)


if __name__ == "__main__":
    main()
