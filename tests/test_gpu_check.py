"""benchmarks/gpu_check.py: every piece by name where there is no GPU, every piece at work where there is one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu_check.py"


def rows(*arguments: str, **environment: str) -> tuple[int, list[dict]]:
    command = [sys.executable, str(SCRIPT), "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    found = json.loads(done.stdout)
    assert (found["benchmark"], found["ratios"]) == ("gpu_check", {})
    return done.returncode, found["rows"]


def test_without_a_gpu_every_piece_is_skipped_by_name_and_nothing_failed() -> None:
    status, found = rows(CUDA_VISIBLE_DEVICES="")
    assert status == 0 and {row["unit"] for row in found} == {"skipped: no CUDA device"}
    assert len({row["name"] for row in found}) == len(found) == 8


@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="no GPU here: gpu_check's pieces were not tried")
def test_on_a_gpu_no_piece_fails() -> None:
    status, found = rows("--quick")
    assert status == 0, [row for row in found if row["unit"].startswith("failed")]
