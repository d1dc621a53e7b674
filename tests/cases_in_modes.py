"""Run tests/case_runner.py once per mode for the cases that the running session selects."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lib.sandbox import probe

HERE = Path(__file__).parent
MODES = ("A", "B", "C")
_answers: dict[tuple[str, str], dict[str, tuple[bool, str]]] = {}


def result(request: pytest.FixtureRequest, kind: str, mode: str, name: str) -> tuple[bool, str]:
    """(held, words) of one case; the first one asked for runs all that are selected in its mode."""
    if mode == "A" and probe().mode != "A":
        pytest.skip("no namespaces here, so there is no mode A")
    if mode != "A" and os.geteuid() != 0:
        pytest.skip(f"mode {mode} is emulated by root only")
    if (kind, mode) not in _answers:
        chosen = [item.callspec.params for item in request.session.items if item.fspath == request.node.fspath]
        _answers[kind, mode] = _run(kind, mode, [params["name"] for params in chosen if params.get("mode") == mode])
    return _answers[kind, mode][name]


def _run(kind: str, mode: str, names: list[str]) -> dict[str, tuple[bool, str]]:
    prefix = [str(HERE / "emulate.py"), mode, "--"] if mode != "A" else []
    command = [sys.executable, *prefix, str(HERE / "case_runner.py"), kind, *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, cwd=HERE.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["mode"] == mode
    results: dict[str, tuple[bool, str]] = answer["results"]
    return results
