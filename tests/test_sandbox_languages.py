"""Program mode in every language that has a manifest, and function mode where the language has one."""

import dataclasses
import os
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from lib.sandbox import Sandbox, SandboxError, languages
from lib.tasks.task import Case, Task, read_tasks

STARTER = Path(__file__).resolve().parent.parent / "data" / "starter_io.jsonl"
SLOW = {"r": 6, "ocaml": 20}  # references tried per language unless SANDBOX_FULL is set
DOUBLE = [Case("3\n", "6\n"), Case("-1\n", "-2\n")]
PROGRAMS = {
    "python": "print(2 * int(input()))",
    "lua": 'print(2 * io.read("n"))',
    "ocaml": 'let () = Scanf.scanf "%d" (fun n -> Printf.printf "%d\\n" (2 * n))',
    "r": 'n <- as.numeric(readLines(file("stdin")))\ncat(2 * n, "\\n", sep = "")',
    "fortran": "program main\n  integer :: n\n  read(*, *) n\n  write(*, '(i0)') 2 * n\nend program",
    "julia": "println(2 * parse(Int, readline()))",
}
BROKEN = {"ocaml": "let x = ", "fortran": "program main\n  integer n\n  n = 'a' + \nend program"}
SPINNING = {
    "lua": "while true do end",
    "ocaml": "let () = while true do () done",
    "r": "while (TRUE) {}",
    "fortran": "program main\n  integer :: i\n  i = 0\n  do while (i >= 0)\n    i = mod(i + 1, 7)\n  end do\n"
    "  write(*, *) i\nend program",
}


def need(language: str) -> str:
    if languages.version(language) is None:
        pytest.skip(f"{language} is not installed")
    return language


@pytest.fixture(params=languages.names())
def language(request) -> str:
    return need(request.param)


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as sandbox:
        yield sandbox


def test_every_manifest_loads_and_says_how_to_ask_its_version():
    assert all(languages.load(name).version and languages.load(name).install for name in languages.names())


def test_manifest_with_an_unknown_key_is_one_clear_error(tmp_path, monkeypatch):
    (tmp_path / "odd.yaml").write_text("install: [x]\nfile_ext: .x\nrun: [x]\nstdin: true\nstdout: true\ncolour: red\n")
    monkeypatch.setattr(languages, "FOLDER", tmp_path)
    with pytest.raises(SandboxError, match="odd.yaml.*colour"):
        languages.load.__wrapped__("odd")


def test_adding_a_language_is_adding_a_file(tmp_path, monkeypatch):
    fields = "language: awk\ninstall: []\nfile_ext: .awk\nrun: [awk, -f, main.awk]\nstdin: true\nstdout: true\n"
    (tmp_path / "awk.yaml").write_text(fields)
    monkeypatch.setattr(languages, "FOLDER", tmp_path)
    if languages.version("awk") is None:
        pytest.skip("awk is not installed")
    with Sandbox(workers=1) as box:
        verdict = box.execute("awk", "{ print 2 * $1 }", DOUBLE, 2, 256)
    assert verdict.status == "success", verdict.failure


PAPER = {
    "language": "Fortran",
    "install": ["apt-get", "install", "-y", "gfortran"],
    "compile": ["gfortran", "-O2", "-o", "prog", "solution.f90"],
    "run": ["./prog"],
    "file_ext": ".f90",
    "stdin": True,
    "stdout": True,
}


def test_a_manifest_in_the_paper_s_shape_is_read_as_it_stands(tmp_path, monkeypatch):
    need("fortran")
    (tmp_path / "fortran.yaml").write_text(yaml.safe_dump(PAPER))
    monkeypatch.setattr(languages, "FOLDER", tmp_path)
    monkeypatch.setattr(languages, "load", languages.load.__wrapped__)
    languages.version.cache_clear()
    with Sandbox(workers=1) as box:
        verdict = box.execute("fortran", PROGRAMS["fortran"], DOUBLE, 5, 512)
    languages.version.cache_clear()
    assert verdict.status == "success" and "gfortran -O2 -o prog main.f90" in verdict.commands[0], verdict


def test_words_with_blanks_stay_one_word_and_install_may_be_several_commands():
    install = [["apt-get", "update"], ["sh", "-c", "curl -f x | sh"]]
    read = languages.parse("fortran", PAPER | {"install": install, "run": ["./prog", "two words"]})
    assert read.install.splitlines() == ["apt-get update", "sh -c 'curl -f x | sh'"]
    assert read.command(read.run) == ["./prog", "two words"] and read.file_ext == "f90"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"stdin": False}, "stdin and stdout should be true"),
        ({"stdout": "print"}, "stdin and stdout should be true"),
        ({"run": 3}, "run is 3; a list of words"),
        ({"run": [["./prog"]]}, "run is .*a list of words"),
        ({"language": "cobol"}, "language is 'cobol', but the file is called fortran.yaml"),
    ],
)
def test_a_manifest_that_cannot_be_used_names_the_key(change, named):
    with pytest.raises(ValueError, match=named):
        languages.parse("fortran", PAPER | change)


@pytest.mark.parametrize("key", languages.NEEDED)
def test_a_manifest_without_a_key_names_it(key):
    with pytest.raises(ValueError, match=f"{key} is missing"):
        languages.parse("fortran", {name: value for name, value in PAPER.items() if name != key})


@pytest.mark.parametrize("name", languages.names())
def test_our_manifests_have_the_paper_s_shape(name):
    fields = yaml.safe_load((languages.FOLDER / f"{name}.yaml").read_text())
    assert fields["language"] == name and fields["stdin"] is fields["stdout"] is True
    assert fields["file_ext"].startswith(".")
    commands = [fields[key] for key in languages.COMMANDS if key in fields]
    assert all(isinstance(words, list) and all(isinstance(word, str) for word in words) for words in commands)


def test_right_program(sandbox, language):
    verdict = sandbox.execute(language, PROGRAMS[language], DOUBLE, 5, 512)
    assert (verdict.status, verdict.passed) == ("success", 2), verdict.failure


def test_lua_has_temporary_files(sandbox):
    if languages.version("lua") is None:
        pytest.skip("lua is not installed")
    source = (
        'local f = io.tmpfile()\nf:write("12")\nf:seek("set")\nprint(f:read("n") + 1)\nlocal name = os.tmpname()\n'
        'io.open(name, "w"):write("x"):close()\nprint(io.open(name):read("a"), os.remove(name))'
    )
    verdict = sandbox.execute("lua", source, [Case("", "13\nx\ttrue\n")], 2, 256)
    assert verdict.status == "success", verdict


def test_missing_output_newline_is_wrong_when_exact(sandbox, language):
    cases = [Case("3\n", "6")]
    assert sandbox.execute(language, PROGRAMS[language], cases, 5, 512).status == "wrong-output"


@pytest.mark.parametrize("name", BROKEN)
def test_program_that_does_not_compile(sandbox, name):
    verdict = sandbox.execute(need(name), BROKEN[name], DOUBLE, 5, 512)
    assert verdict.status == "compile-error" and "rror" in verdict.failure and len(verdict.commands) == 1


@pytest.mark.parametrize("name", SPINNING)
def test_program_that_does_not_end(sandbox, name):
    assert sandbox.execute(need(name), SPINNING[name], DOUBLE, 1, 512).status == "timeout"


def test_starter_references(sandbox, language):
    tasks = [task for task in read_tasks(STARTER) if language in dict(task.references)]
    if not os.environ.get("SANDBOX_FULL"):
        tasks = tasks[: SLOW.get(language)]
    posed = [task.in_language(language) for task in tasks]
    verdicts = sandbox.grade_many((task, task.reference) for task in posed)
    failed = {task.task_id: v.failure for task, v in zip(posed, verdicts, strict=True) if not v.reward}
    assert failed == {}


def test_toolchain_that_is_missing_is_our_error(sandbox):
    missing = [name for name, version in languages.available().items() if version is None]
    if not missing:
        pytest.skip("every toolchain is installed")
    verdict = sandbox.execute(missing[0], "x", DOUBLE, 1, 256)
    assert verdict.status == "sandbox-error" and f"{missing[0]} is not installed here" in verdict.failure


# ------------------------------------------------------------------------------------------------- function mode

FUNCTIONS = {
    "lua": (
        "-- Double x.\nlocal function double(x)\n",
        "    return 2 * x\nend\n\nprint('chatter')\n",
        "lu = require('luaunit')\nfunction test_humaneval()\n  local candidate = double\n"
        "  lu.assertEquals(candidate(2), 4)\n  lu.assertEquals(candidate(-1), -2)\nend\n"
        "os.exit(lu.LuaUnit.run())",
        "    os.exit(0)\nend\n",
        "local function double(x) return x + x end",
    ),
    "r": (
        "# Double x.\ndouble <- function(x) {",
        "\n  2 * x\n}\n# chatter\nstop()",
        "test_humaneval <- function() {\n  candidate <- double\n"
        "  stopifnot(isTRUE(all.equal(candidate(2), 4)))\n}\ntest_humaneval()",
        "\n  quit(status = 0)\n}\n",
        "double <- function(x) x + x",
    ),
    "ocaml": (
        '(**Double x, "not half.\n*)\nlet double (x : int) : int =',
        "\n  2 * x\n\nlet other = 1 +",
        "\nlet assertions =\n let candidate = double in\n  (assert ((candidate 2) = 4));\n"
        "  (assert ((candidate (~1)) = (~2)));\n  ()\n",
        " exit 0\n",
        "let double x = x + x",
    ),
    "julia": (
        "function double(x::Int64)::Int64 \n",
        "    2 * x\nend\n\nchatter",
        "using Test\n@testset begin\ncandidate = double;\n\t@test(candidate(2) == 4)\nend\n",
        "    exit(0)\nend\n",
        "double(x) = x + x",
    ),
}


@pytest.fixture(params=FUNCTIONS)
def function(request) -> tuple[Task, str, str, str]:
    prompt, right, tests, leaving, whole = FUNCTIONS[need(request.param)]
    task = Task("f", "s", "d", prompt, "en", request.param, "function", "", (tests,))
    return task, right, leaving, whole


def test_completion_is_cut_at_stop_tokens_and_passes(sandbox, function):
    verdict = sandbox.grade(function[0], function[1])
    assert (verdict.status, verdict.total) == ("success", 1), verdict


def test_function_written_whole_passes(sandbox, function):
    assert sandbox.grade(function[0], function[3]).status == "success"


def test_leaving_before_the_tests_is_no_success(sandbox, function):
    verdict = sandbox.grade(function[0], function[2])
    assert verdict.status == "wrong-output" and "before its last test" in verdict.failure


def test_wrong_function_fails_with_the_test_s_words(sandbox, function):
    wrong = function[1].replace("2 * x", "3 * x")
    assert sandbox.grade(function[0], wrong).status == "runtime-error"


@pytest.mark.parametrize("language", ["r", "julia"])
def test_a_runtime_s_own_memory_does_not_count_and_a_program_s_does(sandbox, language):
    need(language)
    small, large = {
        "r": ("cat(1)", "x <- numeric(5e7); x[] <- 1; cat(1)"),
        "julia": ("print(1)", "print(sum(ones(5 * 10^7)) > 0 ? 1 : 0)"),
    }[language]
    statuses = [sandbox.execute(language, source, [Case("", "1")], 10.0, 64).status for source in (small, large)]
    assert statuses == ["success", "memory"]


def test_language_without_function_mode_says_so(sandbox):
    task = dataclasses.replace(
        Task("f", "s", "d", "p", "en", "fortran", "function", "", ("x",)), programming_language="fortran"
    )
    assert "no function mode" in sandbox.grade(task, "x").failure


# ------------------------------------------------------------------------------- programs that want to please the tests

SQUARE = {
    "lua": "lu = require('luaunit')\nfunction test_humaneval()\n  lu.assertEquals(f(2), 4)\nend\n"
    "os.exit(lu.LuaUnit.run())",
    "r": "test_humaneval <- function() {\n  candidate <- f\n  if (!identical(candidate(2), 4)) { quit('no', 1) }\n}\n"
    "test_humaneval()",
    "ocaml": "let assertions =\n  let candidate = f in\n  assert ((candidate 2) = 4);\n  ()",
}
CHEATS = {
    "lua": [
        "function f() return 0 end rawequal = function() return true end next = nil error = nil",
        "function f() return 0 end local g = load('return _G')() if g then g.error = nil g.type = function() end end",
        "function f() return io.open('given.lua') or io.open('main.lua') or io.stdin:read('a') end",
        "function f() return setmetatable({}, {__eq = function() return true end, __index = function() return "
        "4 end}) end",
        "function f() return 0 end string.format = function() os.exit(0) end",
        "function f() error(setmetatable({}, {__tostring = function() os.exit(0) end})) end",
        "function f() return 0 end setmetatable({}, {__gc = function() os.exit(0) end})",
        "lu = {assertEquals = function() end} function require() return lu end function f() return 0 end",
        "getmetatable('').__index = function() return function() end end function f() return 0 end",
        "os.exit = function() end test_humaneval = print function f() return 0 end",
    ],
    "r": [
        "f <- function(x) 0\nunlockBinding('identical', baseenv())\nassign('identical', function(...) TRUE, baseenv())",
        "f <- function(x) 0\n`if` <- function(...) NULL\n`!` <- function(x) FALSE\nidentical <- function(...) TRUE",
        "f <- function(x) 0\nattach(list(identical = function(...) TRUE))",
        "f <- function(x) 0\nassignInNamespace('identical', function(...) TRUE, 'base')",
        "f <- function(x) { cat(readLines('main.r')); 0 }",
        "f <- function(x) { cat(readLines(file('stdin'))); 0 }",
        "f <- function(x) { options(error = function() quit('no', 0)); stop('x') }",
        "f <- function(x) 0\n.Last <- function() quit('no', 0)",
    ],
    "ocaml": [
        "let f x = 0\nlet (=) _ _ = true\nmodule Stdlib = struct let (=) _ _ = true end",
        "let f x = 0\nmodule Program = struct let f x = 4 end",
        "let f x = 0 end module Other = struct",
        "let f x = 0\nlet () = at_exit (fun () -> exit 0)",
        "let f x = print_string (input_line stdin); 0",
        "let f x = 0\nlet () = Printexc.set_uncaught_exception_handler (fun _ _ -> exit 0)",
    ],
}
HONEST = {
    "lua": "#!/usr/bin/env lua\nfunction string:twice() return self .. self end\nlocal s = ('a'):twice()\n"
    "local function f(x) return x ^ 2 // 1 end",
    "r": "`%+%` <- function(a, b) paste0(a, b)\nsame <- function(a, b) a == b\nx <- 'a' %+% 'b'\n"
    "f <- function(x) x * x",
    "ocaml": "let (+) a b = Stdlib.(+) a b\nmodule List = struct include List let sum = fold_left (+) 0 end\n"
    "let f x = x * x",
}


def square(language: str) -> Task:
    return Task("f", "s", "d", "p", "en", need(language), "function", "f", (SQUARE[language],))


@pytest.mark.parametrize(("language", "program"), [(name, each) for name, some in CHEATS.items() for each in some])
def test_program_that_sets_out_to_please_the_tests_fails(sandbox, language, program):
    assert sandbox.grade(square(language), program).status in ("wrong-output", "runtime-error", "compile-error")


@pytest.mark.parametrize("language", HONEST)
def test_program_with_helpers_and_operators_of_its_own_passes(sandbox, language):
    verdict = sandbox.grade(square(language), HONEST[language])
    assert verdict.status == "success", verdict.failure


@pytest.mark.parametrize(
    ("language", "program"),
    [
        ("lua", "local M = {}\nfunction M.g(x) return x * x end\nfunction f(x) return M.g(x) end\nreturn M"),
        ("r", "library(parallel)\nf <- function(x) if (nchar(tools::toTitleCase('a')) == 1) x * x"),
        ("r", "A <- setRefClass('A', fields = list(x = 'numeric'), methods = list(g = function() x * x))\n"
              "B <- setRefClass('B', contains = 'A')\nf <- function(x) B$new(x = x)$g()"),
    ],
)  # fmt: skip
def test_modules_packages_and_reference_classes_work(sandbox, language, program):
    verdict = sandbox.grade(square(language), program)
    assert verdict.status == "success", verdict.failure


COUNTS = {
    "python": "import os\nprint(len(os.listdir('.')))\nopen('left', 'w').close()\n"
    "open('main.py', 'w').write('print(7)')",
    "lua": "local f = io.open('left') print(f and 2 or 1) io.open('left', 'w'):close() "
    "io.open('main.lua', 'w'):write('print(7)')",
    "r": "cat(1 + file.exists('left'), '\\n', sep = '')\nwriteLines('', 'left')\nwriteLines('cat(7)', 'main.r')",
    "ocaml": 'let () = print_endline (if Sys.file_exists "left" then "2" else "1"); close_out (open_out "left");\n'
    'Sys.rename "left" "main"; close_out (open_out "left")',
    "fortran": "logical :: old\ninquire(file='left', exist=old)\nprint '(i0)', merge(2, 1, old)\n"
    "open(9, file='left')\nwrite(9, *) 1\nclose(9)\nend",
}


@pytest.mark.parametrize("name", COUNTS)
def test_no_case_finds_what_another_one_left(sandbox, name):
    verdict = sandbox.execute(need(name), COUNTS[name], [Case("", "1\n"), Case("", "1\n"), Case("", "1\n")], 5, 512)
    assert (verdict.status, verdict.passed) == ("success", 3), verdict.failure


@pytest.mark.parametrize("language", ["lua", "r", "ocaml"])
def test_output_shown_holds_no_mark(sandbox, language):
    assert sandbox.grade(square(language), HONEST[language]).stdout_head == ""


def test_manifest_that_is_no_yaml_is_one_clear_error_each_time(tmp_path, monkeypatch):
    (tmp_path / "odd.yaml").write_text("install: [x\nrun: {")
    monkeypatch.setattr(languages, "FOLDER", tmp_path)
    for _ in range(2):
        with pytest.raises(SandboxError, match="odd.yaml") as raised:
            languages.load("odd")
        assert len(str(raised.value).splitlines()) == 1
