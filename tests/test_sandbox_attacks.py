"""The attack corpus in every mode of this machine: no attack wins, and the next program is judged rightly."""

import concurrent.futures
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lib.sandbox import probe

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in (HERE / "attacks").glob("*.attack"))
FILES_ONLY = [name for name in NAMES if "secret" in name or "outside" in name or name.startswith(("read_", "proc_"))]
MODES = {
    "A": ([], NAMES),
    "A as a plain user": (["A"], FILES_ONLY),
    "B": (["B"], NAMES),
    "C": (["C"], NAMES),
    "B without Landlock": (["B", "no-landlock"], FILES_ONLY),
    "C without Landlock": (["C", "no-landlock"], FILES_ONLY),
}
REFUSED = "programs of other languages need namespaces or Landlock"


def run_corpus(mode: str) -> dict[str, object] | None:
    """Results of the corpus in a mode, None where this machine cannot be that."""
    emulation, names = MODES[mode]
    if emulation and os.geteuid() != 0 or not emulation and probe().mode != "A":
        return None
    prefix = [str(HERE / "emulate.py"), *emulation, "--"] if emulation else []
    command = [sys.executable, *prefix, str(HERE / "attack_runner.py"), *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.fixture(scope="module")
def corpora():
    """All modes, two at a time."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return dict(zip(MODES, pool.map(run_corpus, MODES), strict=True))


@pytest.fixture(params=MODES)
def corpus(request, corpora):
    if corpora[request.param] is None:
        pytest.skip(f"mode {request.param} needs root to be emulated, or namespaces")
    return request.param, corpora[request.param]


def test_corpus_is_large_enough():
    assert len(NAMES) >= 60


def test_machine_was_in_the_mode_it_should_play(corpus):
    mode, answer = corpus
    assert answer["mode"] == mode[0]


def test_every_attack_was_run(corpus):
    mode, answer = corpus
    assert sorted(answer["results"]) == sorted(MODES[mode][1])


def test_no_attack_succeeds(corpus):
    won = [name for name, result in corpus[1]["results"].items() if result["status"] == "success"]
    assert won == []


def test_no_attack_breaks_the_sandbox(corpus):
    broken = {
        name: result["failure"]
        for name, result in corpus[1]["results"].items()
        if result["status"] == "sandbox-error" and not result["failure"].startswith(REFUSED)
    }
    assert broken == {}


def test_next_program_is_judged_rightly_after_every_attack(corpus):
    unwell = [
        name
        for name, result in corpus[1]["results"].items()
        if not result["healthy"] and not result["failure"].startswith(REFUSED)
    ]
    assert unwell == []


def test_files_of_the_user_are_as_they_were(corpus):
    assert corpus[1]["untouched"]


def test_every_failure_carries_evidence(corpus):
    silent = [name for name, result in corpus[1]["results"].items() if not result["failure"].strip()]
    assert silent == []


def test_corpus_wins_in_a_harness_without_defences():
    """The attacks are real: many of them pass where a program is trusted to judge itself."""
    won = 0
    for name in (
        "equal_int",
        "equal_list",
        "shadow_builtins",
        "patched_math",
        "tolerant_zero",
        "stop_iteration_ends_all",
    ):
        source = (HERE / "attacks" / f"{name}.attack").read_text()
        tests = [line.removeprefix("# test: ") for line in source.splitlines() if line.startswith("# test: ")]
        program = "\n".join([source, *(tests or ["assert f(2) == 4"])])
        won += subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0
    assert won >= 5
