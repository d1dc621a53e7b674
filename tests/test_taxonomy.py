"""Every rule on a failure made for it, and the borders between neighbouring rules."""

import ast
import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.failure_labels import tally
from lib.evaluation.failures.taxonomy import (
    POLYCODE_TYPES,
    TROOPERS_RULES,
    TROOPERS_TYPES,
    Label,
    classify,
    difference,
    got_and_expected,
    text_difference,
    unknown_names,
)
from lib.tasks.task import Case, Task

ROOT = Path(__file__).resolve().parents[1]
ADD = Task(
    "t/add", "made", "test", "add two numbers", "en", "python", "function", "add",
    visible_tests=("assert add(2, 3) == 5",), hidden_tests=("assert add([1], [2]) == [1, 2]",),
)  # fmt: skip
SUM = Task("p/sum", "made", "test", "print the sum", "en", "python", "program", cases=(Case("2 3\n", "5\n"),))
RIGHT = "def add(a, b):\n    return a + b\n"
CALL = "assert add(2, 3) == 5"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A verdict's fields, as far as labels read them."""

    status: str
    failure: str = ""
    stdout_head: str = ""
    stderr_head: str = ""
    passed: int = 0
    total: int = 1
    exit_code: int | None = None


def label(status: str, failure: str = "", program: str | None = RIGHT, task: Task = ADD, **fields: str) -> Label:
    return classify(task, program, Outcome(status, failure, **fields))  # type: ignore[arg-type]


def kinds(found: Label) -> tuple[str, str]:
    return found.polycode_type, found.rule


def wrong(got: str, expected: str, program: str = RIGHT) -> tuple[str, str]:
    message = f"assert add(2, 3) == {expected}: got {got}, expected {expected}"
    return kinds(label("wrong-output", message, program))


def raised(message: str, program: str = RIGHT, task: Task = ADD) -> tuple[str, str]:
    return kinds(label("runtime-error", f"{CALL}: {message} (line 2)", program, task))


# ---- what is no failure of the program's


@pytest.mark.parametrize("status", ["success", "unsupported-test", "sandbox-error"])
def test_what_is_not_a_failure_is_refused(status: str) -> None:
    with pytest.raises(ValueError, match=status):
        label(status)


def test_unknown_status_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown status 'odd'"):
        label("odd")


# ---- Troopers' types


def troopers(status: str, failure: str, program: str = RIGHT, task: Task = ADD) -> int | None:
    return label(status, failure, program, task).troopers_type


def test_the_types_are_the_papers_four() -> None:
    names = {1: "specification", 2: "I/O contract", 3: "numerical or boundary case", 4: "resource or non-termination"}
    assert names == TROOPERS_TYPES
    assert {rule.troopers_type for rule in TROOPERS_RULES} == {None, 1, 2, 3, 4}


def test_an_argument_given_back_is_no_matter_of_kind() -> None:
    given = "def add(a, b):\n    return a\n"
    test = "assert add(2, 3) == 'five'"
    task = dataclasses.replace(ADD, visible_tests=(test,))
    assert troopers("wrong-output", f"{test}: got 2, expected 'five'", given, task) == 1
    assert troopers("wrong-output", f"{test}: got 2, expected 'five'", RIGHT, task) == 2


def test_the_first_rule_that_holds_decides_and_the_last_always_does() -> None:
    assert [rule.troopers_type for rule in TROOPERS_RULES][-1] == 1
    assert label("wrong-output", f"{CALL}: got 77, expected 5").troopers_rule == TROOPERS_RULES[-1].name


def test_the_criteria_name_every_rule_in_its_order() -> None:
    text = (ROOT / "data" / "failure_criteria.md").read_text(encoding="utf-8")
    places = [text.find(f"| {rule.name} |") for rule in TROOPERS_RULES]
    assert min(places) > 0 and places == sorted(places)


@pytest.mark.parametrize(
    ("status", "reason", "program", "expected"),
    [
        ("no-code", "", "", None),
        ("compile-error", "SyntaxError: invalid syntax", "def add(a, b)\n    return a\n", None),
        ("runtime-error", "NameError: name 'reduce' is not defined", RIGHT, None),
        ("runtime-error", "ModuleNotFoundError: No module named 'sympy'", RIGHT, None),
        ("runtime-error", "NameError: name 'add' is not defined", "def plus(a, b):\n    return a + b\n", 2),
        ("runtime-error", "TypeError: add() takes 1 positional argument but 2 were given", RIGHT, 2),
        ("runtime-error", "TypeError: unsupported operand type(s) for +: 'int' and 'str'", RIGHT, 2),
        ("runtime-error", "ValueError: invalid literal for int() with base 10: 'x'", RIGHT, 2),
        ("runtime-error", "AttributeError: 'NoneType' object has no attribute 'val'", RIGHT, 3),
        ("runtime-error", "IndexError: list index out of range", RIGHT, 3),
        ("runtime-error", "ZeroDivisionError: division by zero", RIGHT, 3),
        ("runtime-error", "ValueError: max() arg is an empty sequence", RIGHT, 3),
        ("runtime-error", "ValueError: [1] is not in list", RIGHT, 1),
        ("runtime-error", "RecursionError: maximum recursion depth exceeded", RIGHT, 4),
        ("timeout", "5 s of CPU time spent", RIGHT, 4),
        ("memory", "512 MB spent", RIGHT, 4),
        ("output-limit", "too much output", RIGHT, 4),
        ("wrong-output", "got None, expected 5", "def add(a, b):\n    print(a + b)\n", 2),
        ("wrong-output", "got '5', expected 5", RIGHT, 2),
        ("wrong-output", "got [5], expected 5", RIGHT, 2),
        ("wrong-output", "got 'none', expected 5", RIGHT, 2),
        ("wrong-output", "got 6, expected 5", RIGHT, 1),
        ("wrong-output", "got 71, expected 70", RIGHT, 3),
        ("wrong-output", "got [1, 2], expected [1, 2, 3]", RIGHT, 3),
        ("wrong-output", "got (4, 7), expected [1, 2]", RIGHT, 1),
        ("wrong-output", "got True, expected [1, 2]", RIGHT, 2),
        ("wrong-output", "got [1, 2, 3, ...], expected 5", RIGHT, 2),
        ("wrong-output", "got None, expected 5", "def add(a, b):\n    if a > b:\n        return a\n", 1),
        ("wrong-output", "got 3, expected 5", "def add(a, b):\n    return b\n", 1),
        ("wrong-output", "got 4.99, expected 5.0", RIGHT, 3),
        ("wrong-output", "got 0.30000000000000004, expected 0.3", RIGHT, 3),
        ("wrong-output", "got 77, expected 5", RIGHT, 1),
        ("wrong-output", "got -5, expected 5", RIGHT, 1),
        ("wrong-output", "got True, expected False", RIGHT, 1),
    ],
)
def test_troopers_types(status: str, reason: str, program: str, expected: int | None) -> None:
    assert troopers(status, f"{CALL}: {reason}", program) == expected


@pytest.mark.parametrize(
    ("tests", "failed", "expected"),
    [
        (("assert add(2, 3) == 5", "assert add(0, 3) == 3"), 1, 3),
        (("assert add(2, 3) == 5", "assert add([], [4, 5]) == [4, 5]"), 1, 3),
        (("assert add(2, 3) == 5", "assert add(7, 3) == 10"), 1, 1),
        (("assert add(0, 3) == 3", "assert add(0, 9) == 9"), 1, 1),
        (("assert add(0, 3) == 3", "assert add(2, 9) == 11"), 0, 1),
    ],
)
def test_a_boundary_input_counts_where_an_ordinary_one_passed(
    tests: tuple[str, ...], failed: int, expected: int
) -> None:
    task = dataclasses.replace(ADD, visible_tests=tests, hidden_tests=())
    expression = tests[failed].partition("== ")[2]
    message = f"{tests[failed]}: got {'[77, 78]' if '[' in expression else 77}, expected {expression}"
    assert troopers("wrong-output", message, task=task) == expected


@pytest.mark.parametrize(("case", "expected"), [("case 2", 3), ("case 3", 1)])
def test_boundary_cases_of_programs(case: str, expected: int) -> None:
    task = dataclasses.replace(SUM, cases=(Case("2 3\n", "5\n"), Case("0 3\n", "3\n"), Case("4 3\n", "7\n")))
    assert troopers("wrong-output", f"{case}: got '77', expected '5'", "print(77)", task) == expected


def test_a_name_of_the_test_that_the_program_never_mentions_is_the_contract() -> None:
    test = "assert add(Pair(2, 3), 1) == 5"
    task = dataclasses.replace(ADD, visible_tests=(test,))
    message = f"{test}: NameError: name 'Pair' is not defined"
    assert troopers("runtime-error", message, task=task) == 2
    assert troopers("runtime-error", message, "def add(a, b):\n    return Pair(a, b)\n", task) is None


# ---- no code, and what does not parse


@pytest.mark.parametrize("program", [None, "", "  \n"])
def test_no_program_is_a_matter_of_format(program: str | None) -> None:
    assert kinds(label("no-code", program=program)) == ("format", "no-code")


@pytest.mark.parametrize(
    ("program", "rule"),
    [
        ("def add(a, b)\n    return a + b\n", "syntax"),
        ("def add(a, b):\n", "truncated"),
        ("def add(a, b):\n    return max(a,\n", "truncated"),
        ('def add(a, b):\n    """adds\n', "truncated"),
        ("def add(a, b):\n    x = 'half\n", "truncated"),
        ("def add(a, b):\n    x = 'half\n    return a + b\n", "syntax"),
        ("Here is the function you asked for.\n", "syntax"),
    ],
)
def test_programs_that_do_not_parse(program: str, rule: str) -> None:
    with pytest.raises(SyntaxError) as error:
        ast.parse(program)
    assert kinds(label("compile-error", f"SyntaxError: {error.value}", program)) == ("surface", rule)


def test_a_fence_left_in_the_program_is_a_matter_of_format() -> None:
    found = label("compile-error", "SyntaxError: invalid syntax", "```python\n" + RIGHT)
    assert kinds(found) == ("format", "fence")


@pytest.mark.parametrize(
    ("language", "message", "expected"),
    [
        ("ocaml", "Error: Unbound value add_all", ("surface", "unknown-name")),
        ("ocaml", "Error: Unbound module Core", ("surface", "unknown-module")),
        ("ocaml", "Error: Syntax error", ("surface", "syntax")),
        ("ocaml", "Error: This expression has type int but string was expected", ("surface", "syntax")),
        ("fortran", "Error: Symbol 'k' at (1) has no IMPLICIT type", ("surface", "unknown-name")),
        ("fortran", "Error: Missing actual argument for argument 'b'", ("surface", "arguments")),
    ],
)
def test_compilers_that_check_names(language: str, message: str, expected: tuple[str, str]) -> None:
    task = dataclasses.replace(SUM, programming_language=language)
    assert kinds(label("compile-error", message, "x", task)) == expected


# ---- names and interface


def test_missing_entry_point_names_what_is_there_instead() -> None:
    program = "def sum_two(a, b):\n    return a + b\n"
    found = label("runtime-error", f"{CALL}: NameError: name 'add' is not defined", program)
    assert kinds(found) == ("surface", "entry-point")
    assert "sum_two" in found.evidence


@pytest.mark.parametrize(
    ("message", "rule"),
    [
        ("NameError: name 'reduce' is not defined", "unknown-name"),
        ("NameError: name 'math' is not defined", "unknown-module"),
        ("AttributeError: module 'math' has no attribute 'add'", "unknown-name"),
        ("AttributeError: 'list' object has no attribute 'add_all'", "unknown-name"),
        ("ModuleNotFoundError: No module named 'sympy'", "unknown-module"),
        ("ImportError: cannot import name 'add' from 'math'", "unknown-module"),
        ("TypeError: add() takes 1 positional argument but 2 were given", "arguments"),
        ("TypeError: add() takes from 1 to 2 positional arguments but 3 were given", "arguments"),
        ("TypeError: add() missing 1 required positional argument: 'c'", "arguments"),
        ("TypeError: add() got an unexpected keyword argument 'key'", "arguments"),
        ("TypeError: pop expected at most 1 argument, got 2", "arguments"),
        ("TypeError: len() takes exactly one argument (2 given)", "arguments"),
        ("EOFError: EOF when reading a line", "reads-input"),
    ],
)
def test_names_and_interface(message: str, rule: str) -> None:
    assert raised(message) == ("surface", rule)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("print(a + b)", ("format", "prints")),
        ("return print(a + b)", ("format", "prints")),
        ("return a.append(b)", ("format", "in-place")),
        ("c = a + b", ("semantic", "returns-none")),
        ("return", ("semantic", "returns-none")),
        ("def inner():\n        return a + b\n    inner()", ("semantic", "returns-none")),
        ("if a > b:\n        return a + b", ("semantic", "missing-return")),
        ("yield a + b", ("semantic", "missing-return")),
        ("if a > b:\n        print(a)\n        return a + b", ("semantic", "missing-return")),
    ],
)
def test_a_function_that_gives_none(body: str, expected: tuple[str, str]) -> None:
    assert wrong("None", "5", f"def add(a, b):\n    {body}\n") == expected


def test_none_met_by_the_test_itself_is_still_a_printing_function() -> None:
    message = "TypeError: object of type 'NoneType' has no len()"
    assert raised(message, "def add(a, b):\n    print(a + b)\n") == ("format", "prints")


def test_unknown_names_are_read_off_the_program_when_the_message_is_silent() -> None:
    program = "def add(a, b):\n    return helper(a) + b\n"
    assert kinds(label("runtime-error", "ended early", program)) == ("surface", "unknown-name")


def test_unknown_names_of_a_program_with_every_kind_of_binding() -> None:
    program = """
import os.path, math as m
from re import sub as s
class K: pass
def f(a, *b, c=1, **d):
    with open(a) as e, K() as (g, h):
        for i in b: j = [k for k in d if (l := k)]
    try: pass
    except ValueError as n: print(n)
    match a:
        case [o, *p] if o: return lambda q: (q, p, e, g, h, i, j, l, m, s, os, c, missing)
"""
    assert unknown_names(ast.parse(program)) == ["missing"]


def test_a_program_that_never_writes_is_an_interface_failure() -> None:
    task = dataclasses.replace(SUM, programming_language="lua")
    silent = "function add(a, b) return a + b end"
    found = label("wrong-output", "case 1: got '', expected '5'", silent, task)
    assert kinds(found) == ("format", "no-output")


# ---- limits and exceptions


@pytest.mark.parametrize("status", ["timeout", "memory", "output-limit"])
def test_spent_limits_are_performance(status: str) -> None:
    assert kinds(label(status, f"{CALL}: spent")) == ("performance", status)


def test_an_endless_loop_is_named_as_evidence() -> None:
    endless = "def add(a, b):\n    while True:\n        a += 1\n"
    leaves = "def add(a, b):\n    while True:\n        return a\n"
    assert "constant condition" in label("timeout", CALL, endless).evidence
    assert "constant condition" not in label("timeout", CALL, leaves).evidence


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("IndexError: list index out of range", ("semantic", "IndexError")),
        ("ZeroDivisionError: division by zero", ("semantic", "ZeroDivisionError")),
        ("UnboundLocalError: cannot access local variable 'x'", ("semantic", "UnboundLocalError")),
        ("TypeError: unsupported operand type(s) for +: 'int' and 'str'", ("semantic", "TypeError")),
        ("AttributeError: 'int' object has no attribute 'append'", ("semantic", "AttributeError")),
        ("AttributeError: 'NoneType' object has no attribute 'val'", ("semantic", "AttributeError")),
        ("RecursionError: maximum recursion depth exceeded", ("performance", "recursion")),
        ("MemoryError: ", ("performance", "memory")),
        ("the process exited with status 1", ("semantic", "runtime-error")),
    ],
)
def test_exceptions_from_the_logic(message: str, expected: tuple[str, str]) -> None:
    assert raised(message) == expected


@pytest.mark.parametrize(
    ("language", "message", "expected"),
    [
        ("lua", "attempt to call a nil value (global 'split')", ("surface", "unknown-name")),
        ("lua", "attempt to perform arithmetic on a nil value (local 'x')", ("semantic", "runtime-error")),
        ("lua", "stack overflow (message handler)", ("performance", "recursion")),
        ("lua", "main.lua:3: 'end' expected (to close 'if' at line 1) near <eof>", ("surface", "syntax")),
        ("r", 'Error in f(1) : could not find function "f"', ("surface", "unknown-name")),
        ("r", 'Error: unexpected symbol in "x y"', ("surface", "syntax")),
        ("r", "Error in f(1, 2) : unused argument (2)", ("surface", "arguments")),
        ("r", "Error: object 'n' not found", ("surface", "unknown-name")),
        ("ocaml", "Fatal error: exception Not_found", ("semantic", "runtime-error")),
        ("julia", "ERROR: UndefVarError: `n` not defined", ("surface", "unknown-name")),
        ("fortran", "Fortran runtime error: End of file", ("semantic", "runtime-error")),
    ],
)
def test_run_time_messages_of_other_languages(language: str, message: str, expected: tuple[str, str]) -> None:
    task = dataclasses.replace(SUM, programming_language=language)
    assert kinds(label("runtime-error", "", "x", task, stderr_head=message)) == expected


def test_a_program_task_may_run_out_of_input() -> None:
    assert raised("EOFError: EOF when reading a line", task=SUM) == ("semantic", "EOFError")


def test_words_in_the_quoted_test_are_no_symptom() -> None:
    test = "assert add('MemoryError', ', got 1, expected 2') == 'syntax error'"
    task = dataclasses.replace(ADD, hidden_tests=(test,))
    assert kinds(label("runtime-error", f"{test}: KeyError: 'x'", RIGHT, task)) == ("semantic", "KeyError")
    found = label("wrong-output", f"{test}: got 4, expected 5", RIGHT, task)
    assert kinds(found) == ("semantic", "off-by-one")


# ---- wrong answers


@pytest.mark.parametrize(
    ("got", "expected", "polycode", "rule"),
    [
        ("(1, 2)", "[1, 2]", "format", "type-differs"),
        ("{1, 2}", "[1, 2]", "format", "type-differs"),
        ("[(1, 2)]", "[[1, 2]]", "format", "type-differs"),
        ("'5'", "5", "format", "type-differs"),
        ("['1', '2']", "[1, 2]", "format", "type-differs"),
        ("{'1': 2}", "{1: 2}", "format", "type-differs"),
        ("'Yes'", "True", "format", "type-differs"),
        ("[5]", "5", "format", "wrapped"),
        ("5", "(5,)", "format", "wrapped"),
        ("'Abc d'", "'abcd'", "format", "case-or-whitespace"),
        ("['A']", "['a']", "format", "case-or-whitespace"),
        ("4", "5", "semantic", "off-by-one"),
        ("[1, 2]", "[1, 2, 3]", "semantic", "off-by-one"),
        ("'bc'", "'abc'", "semantic", "off-by-one"),
        ("3.14", "3.14159", "format", "rounded"),
        ("33.333333333333336", "33.33", "format", "rounded"),
        ("0.30000000000000004", "0.3", "format", "rounded"),
        ("78.5", "78.53981633974483", "semantic", "near-miss"),
        ("12.56", "12.566370614359172", "semantic", "near-miss"),
        ("(5, 'a')", "5", "format", "extra-output"),
        ("'Sum: 5'", "5", "format", "extra-output"),
        ("'5 or 6'", "6", "semantic", "wrong-type"),
        ("(1, 'a')", "True", "semantic", "wrong-type"),
        ("[5, 6, 7]", "5", "semantic", "wrong-type"),
        ("3.7", "3", "semantic", "near-miss"),
        ("[1.0, 2.001]", "[1.0, 2.0]", "semantic", "near-miss"),
        ("[2, 1]", "[1, 2]", "semantic", "reordered"),
        ("True", "False", "semantic", "inverted"),
        ("-7", "7", "semantic", "sign"),
        ("0", "120", "semantic", "wrong-answer"),
        ("'007'", "'7'", "semantic", "wrong-answer"),
        ("[]", "[1]", "semantic", "wrong-answer"),
        ("[1, 2, 3, ...]", "[1, 2]", "semantic", "wrong-answer"),
        ("<Node object>", "5", "semantic", "wrong-answer"),
        ("<map object>", "[1, 2]", "format", "iterator"),
        ("5", "None", "semantic", "wrong-type"),
        ("True", "'Matched!'", "semantic", "wrong-type"),
        ("[(1, 2)]", "'[(1, 2)]'", "format", "type-differs"),
    ],
)
def test_wrong_answers(got: str, expected: str, polycode: str, rule: str) -> None:
    assert wrong(got, expected) == (polycode, rule)


@pytest.mark.parametrize(
    ("got", "expected", "other", "found"),
    [
        ("True", "Matched!", "Not matched!", ("format", "wrong-token")),
        ("False", "Not matched!", "Matched!", ("format", "wrong-token")),
        ("True", "Not matched!", "Matched!", ("semantic", "inverted")),
        ("False", "Matched!", "Not matched!", ("semantic", "inverted")),
        ("True", "even", "odd", ("semantic", "wrong-type")),
        ("True", "No entry", "No exit", ("semantic", "wrong-type")),
        ("1", "Matched!", "Not matched!", ("semantic", "wrong-type")),
    ],
)
def test_a_truth_value_where_the_tests_want_one_of_two_marks(
    got: str, expected: str, other: str, found: tuple[str, str]
) -> None:
    tests = (f"assert add(2, 3) == {expected!r}", f"assert add(2, 4) == {other!r}")
    task = dataclasses.replace(ADD, visible_tests=tests, hidden_tests=())
    message = f"{tests[0]}: got {got}, expected {expected!r}"
    assert kinds(label("wrong-output", message, task=task)) == found


def test_expected_value_is_taken_from_the_test_where_the_message_cuts_it() -> None:
    assert kinds(label("wrong-output", "assert add([1], [2]) == [1, 2]: got (1, 2), expected [1, ...]")) == (
        "format", "type-differs",
    )  # fmt: skip


def test_an_argument_given_back_is_wrong_logic_even_where_only_whitespace_differs() -> None:
    test = "assert add(' a b', 'c') == 'ab'"
    task = dataclasses.replace(ADD, hidden_tests=(test,))
    found = label("wrong-output", f"{test}: got ' a b', expected 'ab'", RIGHT, task)
    assert kinds(found) == ("semantic", "unchanged")


def test_evidence_quotes_got_and_expected() -> None:
    assert "got 4, expected 5" in label("wrong-output", f"{CALL}: got 4, expected 5").evidence


@pytest.mark.parametrize(
    ("got", "expected", "found"),
    [
        ("Answer: 5\n", "5\n", ("format", "extra-output")),
        ("5 \n", "5\n", ("format", "case-or-whitespace")),
        ("YES\n", "Yes\n", ("format", "case-or-whitespace")),
        ("5.0\n", "5\n", ("format", "type-differs")),
        ("4\n", "5\n", ("semantic", "off-by-one")),
        ("-5\n", "5\n", ("semantic", "sign")),
        ("1 2 3\n", "2\n", ("semantic", "wrong-answer")),
        ("2 1\n", "1 2\n", ("semantic", "reordered")),
        ("9\n", "5\n", ("semantic", "wrong-answer")),
    ],
)
def test_printed_answers(got: str, expected: str, found: tuple[str, str]) -> None:
    assert text_difference(got, expected) == found
    message = f"case 1: got {got!r}, expected {expected!r}"
    assert kinds(label("wrong-output", message, "print(1)", SUM)) == found


def test_a_program_that_writes_only_sometimes_is_wrong_logic() -> None:
    found = label("wrong-output", "case 1: got '', expected '5'", "if x: print(x)", SUM)
    assert kinds(found) == ("semantic", "empty-output")


@pytest.mark.parametrize(
    ("message", "sides"),
    [
        ("case 1: got 'a', expected 'b'", ("'a'", "'b'")),
        ("expected [1, 2], got (1, 2)", ("(1, 2)", "[1, 2]")),
        ("got: 1; expected: 2", ("1", "2")),
        ("got 'x, expected y', expected 'z'", ("'x, expected y'", "'z'")),
        ("got <a object>, expected 5", ("<a object>", "5")),
        ("no sides here", ("", "")),
    ],
)
def test_sides_of_a_message(message: str, sides: tuple[str, str]) -> None:
    assert got_and_expected(message) == sides


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda part: st.lists(part, max_size=3) | st.tuples(part, part) | st.dictionaries(st.integers(), part),
    max_leaves=5,
)


@given(plain, plain)
def test_any_two_values_have_a_label(got: object, expected: object) -> None:
    polycode, rule = difference(got, expected)
    assert polycode in POLYCODE_TYPES and rule


def test_large_numbers_are_compared_exactly() -> None:
    assert difference(10**20, 10**20 + 1) == ("semantic", "off-by-one")
    assert text_difference(f"{10**20}", f"{10**20 + 1}") == ("semantic", "off-by-one")


@given(st.integers(), st.integers(-3, 3).filter(bool))
def test_off_by_one_is_exactly_a_distance_of_one(value: int, step: int) -> None:
    assert (difference(value, value + step)[1] == "off-by-one") == (abs(step) == 1)


@given(st.text(), st.text(), st.sampled_from(["wrong-output", "runtime-error", "compile-error", "timeout"]))
def test_any_program_and_message_has_a_label_with_evidence(program: str, failure: str, status: str) -> None:
    found = label(status, failure, program)
    assert found.troopers_type in (None, *TROOPERS_TYPES) and found.polycode_type in POLYCODE_TYPES and found.evidence


# ---- counts


def test_tally_counts_both_taxonomies_and_keeps_empty_categories() -> None:
    labels = [label("timeout"), label("timeout"), label("wrong-output", f"{CALL}: got 4, expected 5")]
    counts = tally(labels)
    assert counts.total == 3
    assert counts.troopers == {None: 0, 1: 1, 2: 0, 3: 0, 4: 2}
    assert counts.polycode == {"surface": 0, "format": 0, "semantic": 1, "performance": 2}
    assert counts.rules == {"timeout": 2, "off-by-one": 1}
