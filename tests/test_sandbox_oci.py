"""The container backend: what it builds and starts everywhere, the real thing where an engine answers."""

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest

from lib.__main__ import main
from lib.sandbox import Sandbox, SandboxError, languages
from lib.sandbox.trusted import oci
from lib.tasks.task import Case, Task, read_tasks, write_tasks

DATA = Path(__file__).resolve().parent.parent / "data"
DOUBLE = [Case("3\n", "6\n"), Case("-1\n", "-2\n")]


def test_container_gets_no_network_no_rights_and_limits():
    command = oci.run_command("podman", 61_000, "/folder")
    wanted = {
        "--network=none", "--ipc=none", "--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL",
        "--security-opt=no-new-privileges", "--pids-limit=128", "--cpus=1", "--user=61000:61000",
    }  # fmt: skip
    assert wanted <= set(command)
    assert not any(word.endswith(":rw") for word in command if word.startswith("--volume"))


@pytest.mark.parametrize("name", languages.names())
def test_image_has_a_base_of_fixed_digest_and_packages_of_fixed_versions(name, monkeypatch):
    monkeypatch.delenv("WORKBOOK_BASE_IMAGE", raising=False)
    language = languages.load(name)
    text = oci.containerfile(language)
    assert "@sha256:" in text.splitlines()[0]
    assert language.packages and all(f" {package}={version}" in text for package, version in language.packages.items())


def test_another_base_makes_another_image(monkeypatch):
    monkeypatch.setenv("WORKBOOK_BASE_IMAGE", "localhost/base@sha256:0")
    assert oci.containerfile(languages.load("lua")).startswith("FROM localhost/base@sha256:0\n")


def test_versions_that_are_no_mapping_are_refused_by_name():
    fields = {"install": [], "run": ["x"], "file_ext": ".x", "stdin": True, "stdout": True}
    with pytest.raises(ValueError, match="packages is 'lua'"):
        languages.parse("lua", fields | {"packages": "lua"})


def test_missing_engine_is_said(monkeypatch):
    monkeypatch.setattr(oci, "engine", lambda: None)
    with pytest.raises(SandboxError, match="no container engine"):
        Sandbox(container=True)


def test_score_without_an_engine_is_one_clear_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(oci, "engine", lambda: None)
    assert main(["score", *scored(tmp_path, "lua"), "--container"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("no container engine: ")


def test_modules_are_refused():
    with pytest.raises(SandboxError, match="numpy"):
        Sandbox(container=True, modules=("numpy",))


def scored(folder, language):
    """Arguments of `score`: two starter programs in a language, the first answered rightly, the second by the first."""
    tasks = [task.in_language(language) for task in read_tasks(DATA / "starter_io.jsonl")[:2]]
    write_tasks(folder / "tasks.jsonl", tasks)
    rows = [{"id": task.task_id, "response": f"```{language}\n{tasks[0].reference}```"} for task in tasks]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["--tasks", str(folder / "tasks.jsonl"), "--submission", str(folder / "answers.jsonl")]


@pytest.fixture(scope="module")
def engine():
    """An engine that has the base image or can fetch it."""
    name = oci.engine()
    if name is None:
        pytest.skip(f"no container engine: {oci.describe()}")
    known = any(
        subprocess.run([name, *words, oci.base()], capture_output=True).returncode == 0
        for words in (["image", "inspect"], ["pull"])
    )
    if not known:
        pytest.skip(f"{name} neither has nor can fetch {oci.base()}; WORKBOOK_BASE_IMAGE names another image")
    return name


@pytest.fixture(scope="module")
def sandbox(engine):
    with Sandbox(workers=1, container=True) as box:
        yield box


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("print(2 * io.read('n'))", "success"),
        ("print(6)", "wrong-output"),
        ("error('no')", "runtime-error"),
        ("while true do end", "timeout"),
        ("local t = {} while true do t[#t + 1] = ('x'):rep(1000000) .. #t end", "memory"),
        ("while true do io.write(('x'):rep(1000)) end", "output-limit"),
    ],
)
def test_programs_in_a_container(sandbox, program, status):
    verdict = sandbox.execute("lua", program, DOUBLE, 5, 256)
    assert (verdict.status, verdict.sandbox_mode, verdict.confined) == (status, "container", True), verdict
    assert verdict.cpu_s > 0 and verdict.wall_s > 0 and verdict.peak_rss_mb > 0


ESCAPES = {
    "network": "import socket\ntry:\n    socket.create_connection(('1.1.1.1', 53), 1)\nexcept OSError:\n    print(6)",
    "root": "try:\n    open('/usr/bin/x', 'w')\nexcept OSError:\n    print(6)",
    "library": "try:\n    open('/opt/workbook/lib/x', 'w')\nexcept OSError:\n    print(6)",
    "control": "import os\ntry:\n    print(6 if not os.listdir('/opt/workbook/control') else 0)\n"
    "except PermissionError:\n    print(6)",
    "writable": "import os\nfound = [top for top, *_ in os.walk('/') if os.access(top, os.W_OK)]\n"
    "print(6 if not [top for top in found if not top.startswith(('/work', '/proc'))] else found)",
    "capabilities": "lines = [x.split() for x in open('/proc/self/status')]\n"
    "print(6 if all(int(x[1], 16) == 0 for x in lines if x[0].startswith('Cap')) else 0)",
    "processes": "import os\nprint(6 if sum(x.isdigit() for x in os.listdir('/proc')) <= 3 else 0)",
    "environment": "import os\nprint(6 if set(os.environ) <= {'PATH', 'LANG', 'LC_ALL', 'TZ', 'PYTHONHASHSEED', "
    "'PYTHONUTF8', 'OPENBLAS_NUM_THREADS', 'HOME', 'TMPDIR', 'PYTHONPATH', 'LC_CTYPE'} else dict(os.environ))",
    "launcher": "found = []\nfor name in ('mem', 'environ', 'maps', 'fd/3'):\n    try:\n"
    "        found.append(open('/proc/1/' + name, 'rb'))\n    except OSError:\n        pass\nprint(found or 6)",
}


@pytest.mark.parametrize("what", ESCAPES)
def test_a_container_holds_nothing_to_reach_for(sandbox, what):
    verdict = sandbox.execute("python", ESCAPES[what], [Case("", "6\n")], 2, 256)
    assert verdict.status == "success", verdict


def test_no_program_finds_what_another_one_left(sandbox):
    source = "import os\nprint(len(os.listdir('.')))\nopen('left', 'w').close()"
    for _ in range(2):
        verdict = sandbox.execute("python", source, [Case("", "1\n"), Case("", "1\n")], 2, 256)
        assert verdict.status == "success", verdict


def test_function_tests_run_in_a_container_too(sandbox):
    tasks = [task for task in read_tasks(DATA / "starter_bn.jsonl")][:10]
    assert all(sandbox.grade(task, task.reference).status == "success" for task in tasks)
    wrong = [sandbox.grade(task, task.wrong_answers[0], "hidden").status for task in tasks]
    assert "success" not in wrong


def test_image_that_cannot_be_built_is_one_clear_error(engine, monkeypatch):
    load = languages.load
    lua = dataclasses.replace(load("lua"), packages={"lua5.4": "0-none"})
    monkeypatch.setattr(languages, "load", lambda name: lua if name == "lua" else load(name))
    with pytest.raises(SandboxError, match="cannot build the image for lua") as raised:
        oci.image.__wrapped__("lua")
    assert len(str(raised.value).splitlines()) == 1


def test_more_memory_gets_a_larger_container(sandbox):
    task = Task("t", "s", "d", "p", "en", "python", "function", "f", ("assert f() == 2400000000",), memory_limit_mb=512)
    source = "def f():\n    return len(b'x' * 2400000000)"
    assert sandbox.grade(task, source).status == "memory"
    assert sandbox.grade(dataclasses.replace(task, memory_limit_mb=3000), source).status == "success"


@pytest.mark.parametrize("name", ["julia", "ocaml"])
def test_starter_references_pass_and_those_of_other_tasks_fail(sandbox, name):
    tasks = [task.in_language(name) for task in read_tasks(DATA / "starter_io.jsonl")][::16]
    assert {task.task_id: v.failure for task in tasks if not (v := sandbox.grade(task, task.reference)).reward} == {}
    shifted = zip(tasks, [*tasks[1:], tasks[0]], strict=True)
    assert not any(sandbox.grade(task, other.reference).reward for task, other in shifted)


def test_score_in_containers_runs_languages_that_are_not_installed(engine, capsys, tmp_path):
    assert main(["score", *scored(tmp_path, "julia"), "--container", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["passed"], found["n"], found["sandbox_mode"]) == (1, 2, "container") and "skipped" not in found


JULIA = Task(
    "f", "s", "d", "function double(x::Int64)::Int64 \n", "en", "julia", "function", "",
    ("using Test\n@testset begin\ncandidate = double;\n\t@test(candidate(2) == 4)\nend\n",),
)  # fmt: skip


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("    2 * x\nend\n\nchatter", "success"),
        ("double(x) = x + x", "success"),
        ("    3 * x\nend\n", "runtime-error"),
        ("    exit(0)\nend\n", "wrong-output"),
        ("    2 * x\n", "runtime-error"),
        ("    while true end\nend\n", "timeout"),
    ],
)
def test_function_tests_in_julia(sandbox, program, status):
    assert sandbox.grade(dataclasses.replace(JULIA, time_limit_s=3), program).status == status


def test_a_program_that_is_slow_to_give_back_its_memory_ran_out_of_memory(sandbox):
    source = "held = []\nwhile True:\n    held.append(b'x' * 50_000_000)"
    for _ in range(3):
        verdict = sandbox.execute("python", source, [Case("", "6\n")], 10, 2000)
        assert verdict.status == "memory", verdict
