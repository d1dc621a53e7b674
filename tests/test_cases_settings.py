"""Cases from public reports about commands: settings, closed pipes, numbers no estimator takes, names of languages."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lib.tasks.task import read_tasks

ROOT = Path(__file__).resolve().parents[1]
FILE = Path(__file__).parent / "cases" / "settings.jsonl"
CASES = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def run(case: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a case's command in the checkout with this Python, its placeholders replaced by paths."""
    files = dict(case.get("files", {}))
    if "ANSWERS" in case["command"]:
        tasks = read_tasks(ROOT / "data" / "starter_bn.jsonl")[:5]
        files["ANSWERS"] = json.dumps([{"id": task.task_id, "response": task.reference} for task in tasks])
    command = case["command"].replace("python -", f"{shlex.quote(sys.executable)} -")
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
        command = command.replace(name, str(folder / name))
    command = command.replace("RUN", str(folder / "run"))
    return subprocess.run(shlex.split(command), cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_command_ends_as_the_case_says(case: dict[str, Any], tmp_path: Path) -> None:
    done, expect = run(case, tmp_path), case["expect"]
    lines = done.stderr.splitlines()
    if "exit" in expect:
        assert (done.returncode == 0) == (expect["exit"] == 0), done.stderr
    if "stderr_lines" in expect:
        assert len(lines) == expect["stderr_lines"], done.stderr
    assert all(words in done.stderr for words in expect.get("says", ()))
    assert not any(words in done.stderr for words in expect.get("never_says", ()))
    if "stdout" in expect:
        assert done.stdout == expect["stdout"]
    if "last_line_starts" in expect:
        assert lines[-1].startswith(expect["last_line_starts"])
    if "status" in expect:
        assert json.loads(done.stdout)["status"] == expect["status"]
    if expect.get("before_start"):
        assert not list(tmp_path.glob("run/notebooks/*")) and not list(tmp_path.glob("run/stages/*"))
