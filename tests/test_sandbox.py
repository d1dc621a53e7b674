"""What the sandbox promises beside right verdicts: limits, bad input, modes, interruption, nothing left behind."""

import dataclasses
import os
import signal
import subprocess
import sys
import sysconfig
import textwrap
import threading
import time
from pathlib import Path

import pytest

from lib.sandbox import Sandbox, SandboxError, Verdict, probe
from lib.sandbox.confine import scratch
from lib.sandbox.trusted import jobs
from lib.sandbox.trusted.grader_process import GraderProcess
from lib.sandbox.trusted.outputs import same_output
from lib.sandbox.trusted.processes import loader_path
from lib.sandbox.trusted.remote import Remote
from lib.tasks.task import Case, Task

RIGHT = "def f(x):\n    return x * x"


def task(*tests: str, **fields: object) -> Task:
    base = Task("t", "s", "d", "p", "en", "python", "function", "f", tests, time_limit_s=1)
    return dataclasses.replace(base, **fields)


SQUARE = task("assert f(2) == 4", hidden_tests=("assert f(3) == 9", "assert f(0) == 0"))


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=2) as sandbox:
        yield sandbox


# ------------------------------------------------------------------------------------------------------ statuses


@pytest.mark.parametrize(
    "program, status",
    [
        (RIGHT, "success"),
        ("def f(x):\n    return x + x", "wrong-output"),
        ("def f(x):\n    return 1 / 0", "runtime-error"),
        ("def f(x:", "compile-error"),
        ("def f(x):\n    while True: pass", "timeout"),
        ("def f(x):\n    return bytearray(10 ** 10)", "memory"),
        ("def f(x):\n    open('a', 'wb').write(b'x' * (40 << 20))", "runtime-error"),
        ("import os\ndef f(x):\n    while os.write(1, b'x' * 100000): pass", "output-limit"),
        ("", "no-code"),
        ("  \n", "no-code"),
    ],
)
def test_status(sandbox, program, status):
    assert sandbox.grade(SQUARE, program).status == status


def test_chosen_tests_are_the_ones_run(sandbox):
    program = "def f(x):\n    return 4"
    assert [sandbox.grade(SQUARE, program, tests).passed for tests in ("visible", "hidden", "all")] == [1, 0, 1]


def test_reward_is_all_or_nothing_and_fraction_counts(sandbox):
    verdict = sandbox.grade(SQUARE, "def f(x):\n    return 4 if x else 0")
    assert (verdict.reward, verdict.fraction) == (0.0, 2 / 3)


def test_failure_names_the_assert_and_both_values(sandbox):
    assert sandbox.grade(SQUARE, "def f(x):\n    return x + 1").failure == "assert f(2) == 4: got 3, expected 4"


def test_failure_names_exception_and_line(sandbox):
    assert (
        "ZeroDivisionError: division by zero (line 2)" in sandbox.grade(SQUARE, "def f(x):\n    return 1 / 0").failure
    )


def test_printed_text_is_kept(sandbox):
    verdict = sandbox.grade(SQUARE, "import sys\nprint('out')\nprint('err', file=sys.stderr)\n" + RIGHT)
    assert (verdict.stdout_head, verdict.stderr_head) == ("out\n", "err\n")


def test_resources_are_measured(sandbox):
    program = "def f(x):\n    b = bytearray(60 << 20)\n    return sum(i for i in range(200000)) and x * x"
    verdict = sandbox.grade(SQUARE, program)
    assert verdict.cpu_s > 0.005 and verdict.wall_s > 0.005 and verdict.peak_rss_mb > 60


def test_recursion_room_is_a_script_s(sandbox):
    program = "def f(x):\n    return deep(980) and x * x\ndef deep(n):\n    return 1 if n == 0 else deep(n - 1)"
    assert sandbox.grade(SQUARE, program).status == "success"


def test_hash_seed_and_random_are_fixed(sandbox):
    same = task("assert f(0) == f(0)")
    heads = {
        sandbox.grade(same, f"import random\nprint(hash('a'), random.random())\ndef f(x): return {n}").stdout_head
        for n in range(4)
    }
    assert len(heads) == 1


def test_permissive_alias_takes_the_only_function(sandbox):
    program = "def square(x):\n    return x * x"
    assert [sandbox.grade(SQUARE, program, alias=alias).status for alias in ("strict", "permissive")] == [
        "runtime-error",
        "success",
    ]


def test_permissive_alias_takes_the_same_name_in_other_case(sandbox):
    spelled = task("assert find_max([1, 3]) == 3", entry_point="find_max")
    program = "def helper(x):\n    return 0\ndef findMax(x):\n    return max(x)"
    assert sandbox.grade(spelled, program, alias="permissive").status == "success"


def test_permissive_alias_guesses_nothing_between_two(sandbox):
    program = "def a(x):\n    return x * x\ndef b(x):\n    return x * x"
    assert sandbox.grade(SQUARE, program, alias="permissive").status == "runtime-error"


# ----------------------------------------------------------------------------------------------------- bad input


def test_test_that_does_not_parse_cannot_be_asked(sandbox):
    verdict = sandbox.grade(task("assert f(2) == 4", "assert f(("), RIGHT)
    assert verdict.status == "unsupported-test" and "test 2 does not parse" in verdict.failure


def test_no_tests_is_our_error(sandbox):
    assert sandbox.grade(task("assert f(2) == 4"), RIGHT, "hidden").status == "sandbox-error"


@pytest.mark.parametrize("program", ["def f(x):\n    return '\ud800'", "\udcff" + RIGHT, RIGHT + "\0", "\0", "`" * 100])
def test_text_that_is_no_program_is_judged(sandbox, program):
    assert sandbox.grade(SQUARE, program).status in ("compile-error", "wrong-output")


def test_ten_megabytes_of_source_are_judged(sandbox):
    verdict = sandbox.grade(SQUARE, "x = 1\n" * 1_700_000 + RIGHT)
    assert verdict.status in ("timeout", "memory", "compile-error")


def test_assert_about_something_the_program_lacks(sandbox):
    verdict = sandbox.grade(task("assert other(2) == 4", entry_point="other"), RIGHT)
    assert verdict.status == "runtime-error" and "NameError" in verdict.failure


def test_test_that_never_ends_is_cut(sandbox):
    assert sandbox.grade(task("while f(2): pass"), RIGHT).status == "timeout"


def test_test_that_hands_over_what_cannot_cross(sandbox):
    odd = task("import threading\nassert f(threading.Lock()) == 4")
    assert sandbox.grade(odd, RIGHT).status == "unsupported-test"


def test_swallowing_tests_do_not_swallow_a_death(sandbox):
    swallowing = task("try:\n    f(-1)\nexcept BaseException:\n    pass")
    assert sandbox.grade(swallowing, "import os\ndef f(x):\n    os._exit(0)").status == "runtime-error"


def test_swallowed_assert_in_a_callback_still_fails(sandbox):
    checking = task("def check(x):\n    assert x == 4\nf(check)")
    program = "def f(g):\n    try:\n        g(5)\n    except BaseException:\n        pass"
    assert sandbox.grade(checking, program).status == "wrong-output"


PATCHED = task("from unittest.mock import patch\nwith patch('builtins.input', return_value='4'):\n    assert f() == 4")


def test_test_that_needs_the_program_s_process_is_unsupported_for_right_and_wrong_alike(sandbox):
    programs = ("def f(): return int(input())", "def f(): return 0")
    assert [sandbox.grade(PATCHED, program).status for program in programs] == ["unsupported-test"] * 2


def test_in_process_runs_such_a_test_and_says_so(sandbox):
    right = sandbox.grade(PATCHED, "def f(): return int(input())", in_process=True)
    wrong = sandbox.grade(PATCHED, "def f(): return 0", in_process=True)
    assert (right.status, right.in_process, right.reward) == ("success", True, 0.0)
    assert (wrong.status, wrong.in_process) == ("wrong-output", True)


def test_in_process_changes_nothing_for_tests_that_can_be_judged_outside(sandbox):
    verdict = sandbox.grade(SQUARE, RIGHT, in_process=True)
    assert (verdict.status, verdict.in_process, verdict.reward) == ("success", False, 1.0)


def test_variables_live_on_from_test_to_test_and_the_rest_does_not(sandbox):
    first = task("x = f(2)", "import builtins\nbuiltins.sum = None\nassert x == 4", "y = x + 1", "assert y == 5")
    assert sandbox.grade(first, RIGHT).status == "success"
    assert sandbox.grade(task("assert sum([f(2), 1]) == 5"), RIGHT).status == "success"


def test_module_that_a_test_imports_and_that_is_not_there_is_the_test_s_fault(sandbox):
    assert sandbox.grade(task("import no_such_module\nassert f(2) == 4"), RIGHT).status == "unsupported-test"


CLOSE = "import numpy as np\ndef check(candidate):\n    assert np.allclose(candidate(0.1), 0.01, atol=1e-9)\ncheck(f)"


def test_tests_and_set_up_code_see_numpy_and_the_program_does_not(sandbox):
    for close in (task(CLOSE), task("assert np.isclose(f(0.1), 0.01)", setup_code="import math, numpy as np")):
        programs = (RIGHT, "def f(x):\n    return x", "import numpy\n" + RIGHT)
        assert [sandbox.grade(close, program).status for program in programs] == [
            "success", "wrong-output", "runtime-error"
        ]  # fmt: skip


def test_value_of_numpy_cannot_be_handed_to_a_program_without_numpy(sandbox):
    handed = task("import numpy as np\nassert (f(np.ones(2)) == 1).all()")
    assert sandbox.grade(handed, RIGHT).status == "unsupported-test"


def test_set_up_code_that_imports_what_is_not_there_is_no_fault_of_the_program(sandbox):
    assert (
        sandbox.grade(task("assert f(2) == 4", setup_code="import no_such_module"), RIGHT).status == "unsupported-test"
    )


def test_sandboxes_side_by_side_do_not_count_each_other_s_processes(sandbox):
    fork = "import os, time\nfor _ in range({}):\n    if os.fork() == 0:\n        time.sleep(3)\n        os._exit(0)\n"
    many, few = (fork.format(count) + "time.sleep(2)\nprint(1)" for count in (50, 30))
    with Sandbox(workers=1) as other:
        waiting = threading.Thread(target=other.execute, args=("python", many, [Case("", "1\n")]))
        waiting.start()
        time.sleep(1)
        assert sandbox.execute("python", few, [Case("", "1\n")]).failure == ""
        assert sandbox.grade(SQUARE, RIGHT).status == "success"
        waiting.join()


def test_failure_that_blames_the_program_wins_over_a_test_that_cannot_be_asked(sandbox):
    mixed = task("import no_such_module", "assert f(2) == 5")
    assert sandbox.grade(mixed, RIGHT).status == "wrong-output"


def test_long_and_odd_answers_are_judged_in_a_copy(sandbox):
    long = task("assert f(3) == " + repr("abc" * 20_000), "assert f(0) == ''")
    assert sandbox.grade(long, "def f(n):\n    return 'abc' * 20_000 if n else ''").status == "success"
    odd = task("assert f(2) == 4", "assert f(3) == 9")
    assert (
        sandbox.grade(odd, "from fractions import Fraction\ndef f(n):\n    return Fraction(n * n)").status == "success"
    )


def test_setup_function_is_hidden_from_a_program_that_does_not_use_it(sandbox):
    compared = task("assert f(3) == answer(3)", setup_code="def answer(x):\n    return x * 7")
    nosy = "import sys\ndef f(x):\n    return [v for k, v in globals().items() if k.startswith('ans')][0](x)"
    assert sandbox.grade(compared, nosy).status == "runtime-error"
    assert sandbox.grade(compared, "def f(x):\n    return x * 7").status == "success"


# ------------------------------------------------------------------------------------------------------ programs

DOUBLE = [Case("3\n", "6\n"), Case("0\n", "0\n")]


def test_every_case_counts(sandbox):
    verdict = sandbox.execute("python", "print(6)", DOUBLE, 2, 256)
    assert (verdict.status, verdict.passed, verdict.total) == ("wrong-output", 1, 2)
    assert "case 2 (input '0\\n'): got '6\\n', expected '0\\n'" in verdict.failure


def test_outputs_are_compared_as_asked_and_the_verdict_says_how(sandbox):
    modes = ("exact", "lines", "tokens")
    verdicts = [sandbox.execute("python", "print('', 6, end=' \\n\\n')", DOUBLE[:1], 2, 256, compare=m) for m in modes]
    assert [v.status for v in verdicts] == ["wrong-output", "success", "success"]
    assert tuple(v.compare for v in verdicts) == modes


def test_program_environment_is_fixed(sandbox):
    source = (
        "import os, time, locale\nprint(sorted(k for k in os.environ if 'SECRET' in k), time.tzname[0], hash('a') % 7)"
    )
    os.environ["MY_SECRET"] = "x"
    heads = {sandbox.execute("python", source + f"\n# {n}", DOUBLE, 2, 256).stdout_head for n in range(2)}
    assert len(heads) == 1 and next(iter(heads)).startswith("[] UTC")


@pytest.mark.parametrize(
    ("shared", "where", "handed_on"), [(1, "/opt/lib", True), (0, "/opt/lib", False), (1, "", False)]
)
def test_only_an_interpreter_that_is_a_shared_library_gets_the_loader_s_path(monkeypatch, shared, where, handed_on):
    monkeypatch.setenv("LD_LIBRARY_PATH", where)
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: {"Py_ENABLE_SHARED": shared}[name])
    assert loader_path() == ({"LD_LIBRARY_PATH": "/opt/lib"} if handed_on else {})


@pytest.mark.parametrize(
    "source, status",
    [
        ("print(int(input()) * 2)", "success"),
        ("print(int(input()) * 2", "runtime-error"),
        ("while True: pass", "timeout"),
        ("import time; time.sleep(60)", "timeout"),
        ("while True: print('x' * 100000)", "output-limit"),
        ("x = [bytearray(10 ** 9) for _ in range(1000)]", "memory"),
        ("import sys; sys.exit(3)", "runtime-error"),
        ("", "no-code"),
    ],
)
def test_program_status(sandbox, source, status):
    assert sandbox.execute("python", source, DOUBLE, 1.5, 256).status == status


def test_unknown_language_is_refused(sandbox):
    with pytest.raises(SandboxError, match="no language 'cobol'; there are fortran"):
        sandbox.execute("cobol", "x", DOUBLE, 1, 256)


def test_program_exit_code_and_commands_are_kept(sandbox):
    verdict = sandbox.execute("python", "import sys; sys.exit(3)", DOUBLE, 1, 256)
    assert (verdict.exit_code, verdict.commands) == (3, ("python3 -B -P -s main.py",))


# ---------------------------------------------------------------------------------------------- interruption, leftovers


def test_order_is_kept_over_workers(sandbox):
    programs = [f"import time\ntime.sleep({0.03 * (i % 3)})\ndef f(x):\n    return x * x + {i % 2}" for i in range(12)]
    rewards = [verdict.reward for verdict in sandbox.grade_many((SQUARE, program) for program in programs)]
    assert rewards == [1.0 - i % 2 for i in range(12)]


def test_identical_jobs_are_judged_once(sandbox):
    first, second = (sandbox.submit(SQUARE, RIGHT + "\n# same") for _ in range(2))
    assert first is second


def test_submit_does_not_wait(sandbox):
    started = time.monotonic()
    future = sandbox.submit(SQUARE, "import time\ntime.sleep(0.3)\n" + RIGHT)
    assert time.monotonic() - started < 0.1 and future.result().status == "success"


@pytest.mark.parametrize("program, judged", [("import time\ntime.sleep(60)", 2), ("while True: pass", 1)])
def test_wall_timeout_is_retried_alone_and_cpu_timeout_is_not(monkeypatch, program, judged):
    calls = []
    with Sandbox(workers=1) as box:
        judge = box._graders[0].judge
        monkeypatch.setattr(box._graders[0], "judge", lambda *args: calls.append(args) or judge(*args))
        assert box.grade(dataclasses.replace(SQUARE, time_limit_s=0.5), program).status == "timeout"
    assert len(calls) == judged


def test_sleep_within_the_wall_guard_is_no_timeout(sandbox):
    assert sandbox.grade(SQUARE, "import time\ntime.sleep(1.5)\n" + RIGHT).status == "success"


def descendants() -> set[str]:
    """Command lines of every process under this one, orphans of its sessions included."""
    marks = ("lib.sandbox", "/sandbox-")
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == os.getpid() and any(mark in line for mark in marks):
                found.add(entry.name)
    return found


def own_folders() -> set[str]:
    return {name for name in os.listdir("/dev/shm") if name.startswith(f"sandbox-{os.getpid()}-")}


def test_close_leaves_no_process_descriptor_or_folder():
    before, folders = descendants(), own_folders()
    descriptors = len(os.listdir("/proc/self/fd"))
    with Sandbox(workers=2) as box:
        box.grade_many((SQUARE, f"{RIGHT}\n# {n}") for n in range(6))
        box.execute("python", "print(6)", DOUBLE, 1, 256)
    assert (descendants(), own_folders()) == (before, folders)
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_folders_of_killed_processes_are_removed():
    program = (
        "import sys, os\nsys.path.insert(0, '.')\nfrom lib.sandbox import Sandbox\nb = Sandbox(workers=1)\n"
        "print(b._folder, flush=True)\nos.kill(os.getpid(), 9)"
    )
    root = Path(__file__).resolve().parent.parent
    folder = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True).stdout.strip()
    assert os.path.isdir(folder)
    Sandbox(workers=1).close()
    assert not os.path.exists(folder)


def test_closed_sandbox_says_so():
    box = Sandbox(workers=1)
    box.close()
    with pytest.raises(SandboxError, match="closed"):
        box.grade(SQUARE, RIGHT)


INTERRUPTED = """
    import sys
    sys.path.insert(0, {root!r})
    from lib.sandbox import Sandbox
    from lib.tasks.task import Task
    task = Task("t", "s", "d", "p", "en", "python", "function", "f", ("assert f(2) == 4",), time_limit_s=60)
    box = Sandbox(workers=2)
    print("ready", flush=True)
    try:
        box.grade_many([(task, f"while True: pass # {{n}}") for n in range(6)])
    except KeyboardInterrupt:
        right = box.grade(task, "def f(x): return x * x")
        print("interrupted", right.status, flush=True)
"""


def test_interrupt_stops_what_runs_and_the_sandbox_goes_on():
    program = textwrap.dedent(INTERRUPTED).format(root=str(Path(__file__).resolve().parent.parent))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted success\n"
        assert process.wait(20) == 0
    assert not any(f"f(x): return x * x # {process.pid}" in line for line in descendants())


def test_worker_that_dies_is_replaced():
    with Sandbox(workers=1) as box:
        assert box.grade(SQUARE, RIGHT).status == "success"
        process = box._graders[0].process
        assert process is not None
        process.kill()
        assert box.grade(SQUARE, RIGHT + "\n# again").status == "success"


def test_threads_may_share_a_sandbox(sandbox):
    results: list[Verdict] = []
    work = [
        threading.Thread(target=lambda n=n: results.append(sandbox.grade(SQUARE, f"{RIGHT}\n# t{n}"))) for n in range(8)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert [verdict.status for verdict in results] == ["success"] * 8


# --------------------------------------------------------------------------------------------------------- modes


def test_weaker_modes_can_be_asked_for():
    with Sandbox(workers=1, mode="C") as box:
        verdict = box.grade(SQUARE, RIGHT)
    assert (verdict.status, verdict.sandbox_mode, verdict.confined) == ("success", "C", True)


def test_unconfined_is_refused_unless_allowed_and_then_said(monkeypatch):
    from lib.sandbox.trusted import pool

    nothing = dataclasses.replace(probe(), mode="none", namespaces=False, landlock=0, seccomp=False)
    monkeypatch.setattr(pool.probe, "probe", lambda: nothing)
    with pytest.raises(SandboxError, match="allow_unconfined"):
        Sandbox(workers=1)
    with Sandbox(workers=1, allow_unconfined=True) as box:
        verdict = box.grade(SQUARE, RIGHT)
    assert (verdict.status, verdict.confined, verdict.sandbox_mode) == ("success", False, "none")


def test_report_speaks_of_every_layer():
    text = str(probe())
    assert all(word in text for word in ("sandbox mode", "namespaces", "landlock", "seccomp", "second user"))


def test_allowed_modules_and_only_they():
    pytest.importorskip("numpy")
    arrays = task(
        "assert f(3).sum() == 3", "assert f(2).tolist() == [0, 1]", "assert (f(2) == np.array([0, 1])).all()",
        "import numpy\nassert numpy.allclose(f(2) / 2, [0, .5])", "assert g(numpy.ones(2)) == 2.0",
        "a = numpy.zeros(2)\nh(a)\nassert a[0] == 7",
    )  # fmt: skip
    program = (
        "import numpy as np\ndef f(n):\n    return np.arange(n)\ndef g(a):\n    return a.sum()\ndef h(a):\n    a[0] = 7"
    )
    with Sandbox(workers=1, modules=("numpy",)) as box:
        verdict = box.grade(arrays, program)
    assert verdict.status == "success", verdict.failure
    with Sandbox(workers=1) as box:
        assert box.grade(arrays, program).status == "runtime-error"


def test_docstrings_of_remotes_do_not_show():
    assert isinstance(vars(Remote)["__doc__"], property)


# ------------------------------------------------------------------------------------------------------- outputs


@pytest.mark.parametrize(
    ("got", "expected", "exact", "lines", "tokens"),
    [
        ("6\n", "6", False, True, True),
        (" 6 \r\n\n", "6\n", False, True, True),
        ("1  2\n", "1 2\n", False, False, True),
        ("1\n\n2\n", "1\n2\n", False, False, True),
        ("0.30000000000000004", "0.3", False, False, True),
        ("0.300001", "0.3", False, False, True),  # 1e-6 apart in decimal digits, more in binary ones
        ("0.3000011", "0.3", False, False, False),
        ("1000001", "1000000", False, False, False),
        ("1000001.0", "1000000", False, False, True),
        ("+3 -0 007", "3 0 7", False, False, True),
        ("-3", "3", False, False, False),
        ("nan inf", "nan inf", True, True, True),
        ("nan", "NaN", False, False, False),
        ("inf", "1e400", False, False, False),
        ("1e401", "1e400", False, False, False),
        ("1e400", "1.0e400", False, False, True),
        ("1_0", "10", False, False, False),
        ("٣", "3", False, False, False),
        ("1 2", "1 2 3", False, False, False),
        ("9" * 6000, "9" * 5999 + "8", False, False, False),
    ],
)
def test_same_output(got, expected, exact, lines, tokens):
    pair = got.encode(), expected.encode()
    assert [same_output(*pair, mode) for mode in ("exact", "lines", "tokens")] == [exact, lines, tokens]


# ----------------------------------------------------------------------------------- programs that start processes

POOL = """
from multiprocessing import Pool
def square(x): return x * x
if __name__ == "__main__":
    with Pool(2) as pool: print(pool.map(square, range(3)))
"""
LOCKS = """
import multiprocessing
def work(queue, lock, number):
    with lock: queue.put(number)
if __name__ == "__main__":
    queue, lock = multiprocessing.Queue(), multiprocessing.Lock()
    parts = [multiprocessing.Process(target=work, args=(queue, lock, n)) for n in range(3)]
    for part in parts: part.start()
    print(sum(queue.get() for _ in parts))
    for part in parts: part.join()
"""
SHARED = """
import multiprocessing as mp
def work(total, squares, lock, number):
    with lock: total.value += number
    squares[number] = number * number
total, squares, lock = mp.Value("i", 0), mp.Array("d", 3), mp.BoundedSemaphore(1)
parts = [mp.Process(target=work, args=(total, squares, lock, n)) for n in range(3)]
for part in parts: part.start()
for part in parts: part.join()
with total.get_lock(): print(total.value, list(squares), list(mp.RawArray("i", [1])))
"""
SPINNERS = "import os\nfor _ in range(3):\n    if os.fork() == 0:\n        while True: pass\nos.wait()"
HOARDERS = """
import os, time
for _ in range(6):
    if os.fork() == 0:
        held = b"x" * (100 << 20)
        time.sleep(30)
time.sleep(30)
"""
KILLERS = """
import os, signal
for target in (os.getppid(), 1):
    for number in range(1, 65):
        try: os.kill(target, number)
        except (OSError, ValueError): pass
print(6)
"""


@pytest.mark.parametrize(
    ("source", "output", "status"),
    [
        (POOL, "[0, 1, 4]\n", "success"),
        (LOCKS, "3\n", "success"),
        (SHARED, "3 [0.0, 1.0, 4.0] [1]\n", "success"),
        (SPINNERS, "", "timeout"),
        (HOARDERS, "", "memory"),
        (KILLERS, "6\n", "success"),
        ("import os\nif os.fork() == 0:\n    while True: pass\nprint(6)", "6\n", "success"),
    ],
)
def test_program_with_several_processes(sandbox, source, output, status):
    verdict = sandbox.execute("python", source, [Case("", output)], 2.0, 256)
    assert verdict.status == status, verdict.failure
    assert sandbox.execute("python", f"print(6)\n# after {hash(source)}", DOUBLE[:1], 2, 256).status == "success"


def test_launcher_that_cannot_start_is_one_clear_line():
    with Sandbox(workers=1) as box:
        grader = GraderProcess(box._graders[0].settings | {"launcher": {"plan": None}})
        row = grader.judge(dict(jobs.for_program("python", "print(6)", DOUBLE[:1], 1, 256, "exact").body), 60)
        grader.stop()
        assert row["status"] == "sandbox-error" and "the launcher cannot start" in row["failure"]
        assert box.execute("python", "print(6)", DOUBLE[:1], 2, 256).status == "success"


def test_source_that_is_too_long_is_the_program_s_fault(sandbox):
    verdicts = (sandbox.grade(SQUARE, "#" * (17 << 20)), sandbox.execute("lua", "-" * (17 << 20), DOUBLE, 1, 256))
    assert [verdict.status for verdict in verdicts] == ["compile-error"] * 2


def test_scratch_is_emptied_whatever_is_in_it(tmp_path):
    deep = tmp_path
    for _ in range(40):
        deep = deep / ("d" * 100)
        os.mkdir(os.path.relpath(deep)) if len(str(deep)) < 4000 else None
    (tmp_path / "link").symlink_to("/etc")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / b"\xff".decode("utf-8", "surrogateescape")).touch()
    (tmp_path / ("d" * 100)).chmod(0)
    scratch.empty(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_usage_counts_what_is_hidden(tmp_path):
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "file").write_bytes(b"x" * 100_000)
    (tmp_path / "closed").chmod(0o300)
    with open(tmp_path / "gone", "wb") as held:
        held.write(b"x" * 100_000)
        held.flush()
        os.unlink(held.name)
        size, entries = scratch.usage(str(tmp_path))
        assert size >= 100_000 and entries == 2 and (scratch.unlinked(os.getpid()) or 0) >= 100_000


def test_a_fork_waits_for_a_machine_that_has_no_process_to_give():
    code = (
        "import os, resource, threading\nfrom lib.sandbox.confine.linux import plain_fork\n"
        "if os.getuid() == 0:\n    os.setuid(54321)\n"
        "hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]\n"
        "threading.Timer(0.2, resource.setrlimit, (resource.RLIMIT_NPROC, (hard, hard))).start()\n"
        "resource.setrlimit(resource.RLIMIT_NPROC, (0, hard))\n"
        "child = plain_fork()\nif child:\n    print(os.waitpid(child, 0)[1], flush=True)\nos._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("0\n", "")
