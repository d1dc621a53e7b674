"""Sweeps: a folder a run, failures that hold up nobody, and what a kill leaves."""

import fcntl
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lib.__main__ import main
from lib.run import sweep
from lib.run.pipeline import ROOT
from lib.run.presets import PipelineError
from tests.processes import is_alive, wait_for

Make = Callable[..., Path]
# A first stage that fails for seed 1 until a file is there, and starts only when both runs have: they run at once.
TOGETHER = """
import time
from pathlib import Path
Path(run_dir, "started").touch()
while len(list(Path(run_dir).parent.glob("*/started"))) < 2:
    time.sleep(0.05)
if seed == 1 and not Path(run_dir).parent.joinpath("mended").exists():
    raise ValueError("not yet")
"""
ENDLESS = (
    "import os, time\nfrom pathlib import Path\nPath(run_dir, 'pid').write_text(str(os.getpid()))\ntime.sleep(600)\n"
)


def arguments(books: Path, out: Path, *more: str) -> list[str]:
    """A sweep of the tiny preset over two seeds, first stage alone."""
    return [
        "sweep",
        "--preset",
        "p",
        "--seeds",
        "0,1",
        "--notebooks",
        str(books),
        "--to",
        "environment",
        "--out",
        str(out),
        *more,
    ]


def test_a_run_has_its_own_folder_and_one_that_fails_holds_up_no_other(tiny: Make, tmp_path: Path, capsys) -> None:
    books, out = tiny(s00=TOGETHER), tmp_path / "out"
    assert main(arguments(books, out, "--jobs", "2")) == 1
    assert "1 of 2 runs failed" in (said := capsys.readouterr().err) and "p-seed1: ValueError: not yet" in said
    assert (out / "p-seed0" / "environment.json").read_text() == "3 0" and not (
        out / "p-seed1" / "environment.json"
    ).exists()
    (out / "mended").touch()
    assert main(arguments(books, out, "--jobs", "2")) == 0
    assert (out / "p-seed1" / "environment.json").read_text() == "3 1"
    assert (out / "p-seed0" / "calls.txt").read_text() == "00_environment\n"  # finished before, not repeated
    assert f"compare {out / 'p-seed0'} {out / 'p-seed1'}" in capsys.readouterr().out


def test_the_runs_of_a_killed_sweep_end_and_let_go_of_their_folders(tiny: Make, tmp_path: Path) -> None:
    books, out = tiny(s00=ENDLESS), tmp_path / "out"
    driver = subprocess.Popen([sys.executable, "-m", "lib", *arguments(books, out, "--jobs", "2")], cwd=ROOT)
    wait_for(lambda: len([path for path in out.glob("*/pid") if path.read_text()]) == 2)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    for folder in (out / "p-seed0", out / "p-seed1"):
        wait_for(lambda folder=folder: is_free(folder / ".lock"))
        wait_for(lambda folder=folder: not is_alive((folder / "pid").read_text()))


def is_free(lock: Path) -> bool:
    """Whether nobody holds a run folder's lock."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--seeds", "0,x"], "--seeds 0,x: whole numbers"),
        (["--seeds", "0,0"], "seed 0: named twice"),
        (["--preset", "q"], "no preset 'q'; there are p"),
        (["--jobs", "0"], "--jobs 0: runs at a time"),
        (["--set", "drawz=1"], "--set: no stage has a parameter 'drawz'"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_starts(
    tiny: Make, tmp_path: Path, capsys, more: list[str], said: str
) -> None:
    assert main(arguments(tiny(), tmp_path / "out", *more)) == 1
    error = capsys.readouterr().err
    assert error.startswith(said) and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_every_preset_meets_every_seed_in_a_folder_that_names_both() -> None:
    found = sweep.members(["cpu", "smoke"], [0, 7], "/x")
    assert [str(one.run_dir) for one in found] == ["/x/cpu-seed0", "/x/cpu-seed7", "/x/smoke-seed0", "/x/smoke-seed7"]


def test_fewer_jobs_than_one_are_refused() -> None:
    with pytest.raises(ValueError, match="jobs=0"):
        sweep.sweep([], 0)


def test_a_preset_named_twice_is_refused() -> None:
    with pytest.raises(PipelineError, match="preset cpu: named twice"):
        sweep.members(["cpu", "cpu"], [0], "/x")
