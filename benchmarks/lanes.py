"""What benchmarks that time lanes apart have in common: a process a run, a table or one JSON object at the end."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def apart(script: str, *arguments: str) -> dict[str, float]:
    """What a benchmark, called again with `arguments`, prints last. Raises CalledProcessError when it fails."""
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, cwd=Path(__file__).resolve().parents[1], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def show(benchmark: str, rows: list[dict[str, Any]], ratios: dict[str, float], as_json: bool) -> None:
    """Print a table, or one JSON object."""
    if as_json:
        print(json.dumps({"benchmark": benchmark, "rows": rows, "ratios": ratios}))
        return
    for row in rows:
        print(f"{row['name']:<44} {row['value']:>10} {row['unit']} {row.get('runs', '')}".rstrip())
    for name, ratio in ratios.items():
        print(f"{name:<44} {ratio:>10}")
