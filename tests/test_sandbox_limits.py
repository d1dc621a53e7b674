"""What a program does to the processes around it costs that program its verdict, in time, and nobody else anything."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lib.sandbox import Sandbox, languages
from lib.sandbox.confine.limits import FEW, GroupClock
from lib.sandbox.trusted.programs import COMPILE_WALL_S
from lib.tasks.task import Case

ECHO = [Case("a\n", "a\n")]
RIGHT = "print(input())"


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=1) as sandbox:
        yield sandbox


def passes_then_goes_on(box: Sandbox, source: str, language: str = "python") -> tuple[str, float]:
    """The status of a program and how long its verdict took; the next program is judged rightly."""
    started = time.monotonic()
    status = box.execute(language, source, ECHO, 1.0, 512).status
    took = time.monotonic() - started
    assert box.execute("python", RIGHT, ECHO).status == "success"
    assert box.execute("python", "print('b')", ECHO).status == "wrong-output"
    return status, took


# ------------------------------------------------------------------------------------------------------ time

WAITED_FOR = """
import os
while True:
    pid = os.fork()
    if pid == 0:
        for i in range(3 * 10**6): pass
        os._exit(0)
    os.waitpid(pid, 0)
"""
NEVER_WAITED_FOR = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    try:
        if os.fork() == 0:
            for i in range(10**5): pass
            os._exit(0)
    except OSError: pass
    time.sleep(.004)
"""
ORPHANS = """
import os, time
def burn():
    if os.fork() == 0:
        for i in range(3 * 10**6): pass
        burn()
    os._exit(0)
if os.fork() == 0: burn()
time.sleep(1000)
"""


@pytest.mark.serial
@pytest.mark.parametrize("source", [WAITED_FOR, NEVER_WAITED_FOR, ORPHANS], ids=["waited", "ignored", "orphans"])
def test_cpu_time_of_children_counts_when_they_are_gone(sandbox, source):
    _, alone = passes_then_goes_on(sandbox, "while True: pass")  # about 1 s where nothing else runs
    status, took = passes_then_goes_on(sandbox, source)
    assert status == "timeout" and took < 2 * alone + 3


@pytest.mark.serial
def test_compiler_that_does_not_end_is_cut(sandbox):
    if languages.version("ocaml") is None:
        pytest.skip("no OCaml here")
    doubled = "\n".join(f"let f{n} x = f{n - 1} (f{n - 1} x)" for n in range(1, 8))
    status, took = passes_then_goes_on(sandbox, f"let f0 x = (x, x)\n{doubled}\nlet () = ignore (f7 0)\n", "ocaml")
    assert status == "timeout" and took < COMPILE_WALL_S + 3


def test_few_processes_are_counted_by_their_clocks_alone():
    clock = GroupClock()
    time.sleep(0.05)
    assert clock.look(range(2**22, 2**22 + FEW)) == 0  # no such processes: their clocks say nothing
    time.sleep(0.05)
    assert clock.look(range(2**22, 2**22 + FEW)) == 0


def test_past_many_processes_a_stretch_with_new_ones_counts_in_full():
    clock = GroupClock()
    clock.look(range(2**22, 2**22 + FEW + 1))
    time.sleep(0.05)
    assert clock.look([2**22 + 1000]) >= 0.05
    assert clock.look([2**22 + 1000]) == clock.hidden < 0.5


# ------------------------------------------------------------------------------------- processes of the sandbox


def launchers(at_work: bool = False) -> set[int]:
    """Launchers that this process's graders have started, or those whose program runs."""
    found, busy = set(), set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if b"untrusted.launcher" in line and b"/sandbox-%d-" % os.getpid() in line:
                found.add(int(entry.name))
            if b"main.py" in line:
                busy.add(parent)
    return found & busy if at_work else found


def test_program_whose_launcher_is_killed_twice_fails_and_the_next_one_passes():
    with Sandbox(workers=1) as box:
        assert box.execute("python", RIGHT, ECHO).status == "success"
        killed: set[int] = set()

        def kill() -> None:
            while len(killed) < 2:
                time.sleep(0.02)
                for pid in launchers(at_work=True) - killed:
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)

        thread = threading.Thread(target=kill, daemon=True)
        thread.start()
        verdict = box.execute("python", "import time\ntime.sleep(3)", ECHO, 5)
        thread.join(10)
        assert len(killed) == 2
        assert (verdict.status, "twice" in verdict.failure) == ("runtime-error", True), verdict
        assert passes_then_goes_on(box, RIGHT)[0] == "success"


def test_launcher_killed_once_costs_nobody_anything():
    with Sandbox(workers=1) as box:
        assert box.execute("python", RIGHT, ECHO).status == "success"
        for pid in launchers():
            os.kill(pid, signal.SIGKILL)
        assert passes_then_goes_on(box, RIGHT)[0] == "success"


def test_launcher_has_a_cpu_limit_of_its_own(sandbox):
    sandbox.execute("python", RIGHT, ECHO)
    for pid in launchers():
        (line,) = [
            row for row in Path(f"/proc/{pid}/limits").read_text().splitlines() if row.startswith("Max cpu time")
        ]
        assert line.split()[3].isdigit()


def test_that_limit_ends_a_process_that_goes_on():
    code = "from lib.sandbox.untrusted import worker\nworker.OWN_CPU_S = 1\nworker.limit_own_cpu()\nwhile True: pass"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -signal.SIGXCPU


# --------------------------------------------------------------------------------------------- what programs may try

HOSTILE = {
    "scratch full": "for n in range(9):\n open(str(n), 'wb').write(bytes(15 << 20))",
    "too many files": "for n in range(9000):\n open(str(n), 'wb').close()",
    "signals to everybody": "import os, signal\nfor pid in (os.getppid(), 1, -1, 0):\n for number in (19, 15, 9):\n"
    "  try: os.kill(pid, number)\n  except OSError: pass",
    "stopped": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    "real-time signal": "import os\nos.kill(os.getpid(), 40)",
    "garbage on every descriptor": "import os\nfor fd in range(64):\n try: os.write(fd, b'\\0\\xff{\"n\":1}' * 99)\n"
    " except OSError: pass",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_program_fails_alone(sandbox, source):
    status, _ = passes_then_goes_on(sandbox, source)
    assert status not in ("success", "sandbox-error")
