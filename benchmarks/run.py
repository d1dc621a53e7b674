"""Seconds and memory of a whole run: every stage, and the most that all its processes held at once.

    python benchmarks/run.py [--quick] [--json] [--preset NAME]

The run goes to a folder of its own that is removed afterwards. Memory is the sum of proportional set sizes, looked at
every second: pages that several processes share count once.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import show  # noqa: E402
from benchmarks.sandbox import process_tree  # noqa: E402

LOOK_S = 1.0


def held_gb(root: int) -> float:
    """Proportional set sizes of a process and all below it, in GB."""
    total = 0
    for pid in process_tree(root):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:  # it has ended since
            continue
        found = re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)
        total += int(found[1]) if found else 0
    return total * 1024 / 1e9


def measure(preset: str) -> dict[str, Any]:
    """Run a preset and watch it. Raises CalledProcessError when it fails."""
    peak, rows, started = 0.0, [], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "lib", "run", "--preset", preset, "--run-dir", folder]
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            lines: list[str] = []
            assert process.stdout is not None
            reader = threading.Thread(target=lines.extend, args=(process.stdout,))
            reader.start()
            while process.poll() is None:
                peak = max(peak, held_gb(process.pid))
                time.sleep(LOOK_S)
            reader.join()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, "".join(lines[-20:]))
    for line in lines:
        if found := re.fullmatch(r"(\d\d_\w+) … ([\d.]+) s", line.strip()):
            rows.append({"name": found[1], "value": float(found[2]), "unit": "s"})
    rows.append({"name": f"preset {preset}, whole", "value": round(time.perf_counter() - started, 1), "unit": "s"})
    rows.append({"name": "most memory at once", "value": round(peak, 2), "unit": "GB"})
    return {"benchmark": "run", "rows": rows, "ratios": {}}


def main() -> None:
    """Print a table, or with --json one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="cpu", help="of notebooks/presets")
    parser.add_argument("--quick", action="store_true", help="preset smoke, four to five minutes")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    result = measure("smoke" if options.quick else options.preset)
    show(result, options.json)


if __name__ == "__main__":
    main()
