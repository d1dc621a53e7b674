"""Do the public corpora's own solutions pass their own tests? One row per file, each failure by name.

python benchmarks/canonical.py [--quick] [--json]
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from lib.sandbox import Sandbox  # noqa: E402
from lib.tasks import readers  # noqa: E402

FOLDER = ROOT / "data" / "external"
FILES = (
    "mbpp/mbpp.jsonl",
    "humaneval/HumanEval.jsonl.gz",
    "mhumaneval/mHumanEval-ben_Beng-python.json",
    "mhumaneval/mHumanEval-ben_Beng-lua.json",
    "mhumaneval/mHumanEval-ben_Beng-r.json",
    "blp/test_full.csv",
)


def check(name: str, sandbox: Sandbox, most: int | None) -> dict[str, Any]:
    """Return how many references of a file pass, and the status and evidence of every other."""
    tasks = [task for task in readers.read(FOLDER / name) if task.reference.strip()][:most]
    verdicts = sandbox.grade_many([(task, task.reference) for task in tasks], tests="all")
    failed = {
        task.task_id: [str(verdict.status), verdict.failure]
        for task, verdict in zip(tasks, verdicts, strict=True)
        if not verdict.reward
    }
    statuses = Counter(str(verdict.status) for verdict in verdicts)
    return {
        "file": name,
        "references": len(tasks),
        "passed": len(tasks) - len(failed),
        "statuses": dict(statuses),
        "failed": failed,
    }


def main() -> None:
    """Print the table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="the first ten tasks of each file")
    args = parser.parse_args()
    with Sandbox() as sandbox:
        rows = [check(name, sandbox, 10 if args.quick else None) for name in FILES if (FOLDER / name).is_file()]
    if args.json:
        print(json.dumps({"benchmark": "canonical", "rows": rows, "ratios": {}}))
        return
    for row in rows:
        print(f"{row['file']}: {row['passed']} of {row['references']}  {row['statuses']}")
        for name, (status, failure) in row["failed"].items():
            print(f"    {name}: {status}: {failure[:140]}")


if __name__ == "__main__":
    main()
