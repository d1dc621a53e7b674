"""Fuzzed asserts: what is read from a test, what is made of it, who answers, what the result catches."""

import ast
import dataclasses
import itertools
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.mining import fuzzing
from lib.mining.domain import Domain
from lib.sandbox import Sandbox
from lib.tasks.task import Task, read_tasks
from tests.test_ledger import ROW

ROOT = Path(__file__).parent.parent
STARTER = {task.task_id: task for task in read_tasks(ROOT / "data/starter_bn.jsonl")}


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=1) as box:
        yield box


def task(*tests, name="f", **more):
    fields = {"task_id": "t", "source": "here", "split": "train", "prompt": "?", "natural_language": "en"}
    fields |= {"programming_language": "python", "mode": "function", "time_limit_s": 1.0}
    return Task(**{**fields, "entry_point": name, "visible_tests": tests, **more})


# ------------------------------------------------------------------------------------- reading, writing


@pytest.mark.parametrize(
    ("test", "arguments"),
    [
        ("assert f(2, [-1.5], {'a': (1,)}) == 4", (2, [-1.5], {"a": (1,)})),
        ("assert f({1, 2}) is True", ({1, 2},)),
        ("assert round(f(2), 1) == 4.5", (2,)),
        ("assert abs(f(0) - 32) < 1e-9", (0,)),
        ("assert math.isclose(f('ক'), 0.1)", ("ক",)),
    ],
)
def test_arguments_are_read_from_asserts_that_say_what_a_call_returns(test, arguments):
    assert fuzzing.arguments_of(task(test), [test]) == [arguments]


@pytest.mark.parametrize(
    "test",
    [
        "assert sorted(f([2, 1])) == [1, 2]",  # the order is free
        "assert f(2) in (4, 5)",
        "assert f(2) != 4",
        "assert g(2) == 4",
        "assert f(n=2) == 4",
        "assert f(x) == 4",
        "assert f() == 4",
        "assert f(2).real == 4",
        "x = 2; assert f(2) == 4",
        "assert f(",
    ],
)
def test_asserts_that_leave_it_open_give_no_arguments(test):
    assert fuzzing.arguments_of(task(test), [test]) == []


def test_a_test_is_written_as_plain_python_and_floats_with_a_tolerance():
    assert fuzzing.as_assert("f", ({"b", "a"}, (1,)), {"k": [set()]}) == (
        "assert f({'a', 'b'}, (1,)) == {'k': [set()]}"
    )
    test = fuzzing.as_assert("f", (1,), -2.5)
    assert test == "assert abs(f(1) - (-2.5)) <= 2.5e-09"
    exec(test, {"f": lambda n: -2.5 - 1e-12})
    with pytest.raises(AssertionError):
        exec(test, {"f": lambda n: -2.5001})


def test_the_text_of_a_set_is_the_same_in_whatever_order_it_comes():
    assert repr({0, 8}) != repr({8, 0})
    assert fuzzing.text_of([{0, 8}, {"k": ({8, 0},)}]) == fuzzing.text_of([{8, 0}, {"k": ({0, 8},)}])


def test_rare_values_come_first():
    answers = [((n,), n == 7) for n in range(9)]
    assert [call[0] for call, _ in fuzzing.spread(answers)] == [0, 1, 2, 7, 3, 4, 5, 6, 8]


def test_floats_in_containers_and_what_is_no_number_are_no_expected_values():
    for text in ("[0.5]", "{'a': (1, 0.5)}", "nan", "inf", "1e999", "<f at 0x1>", "f(1)", "1j", "...", ""):
        assert fuzzing._literal(text) is ...
    assert fuzzing._literal("0.5") == 0.5 and fuzzing._literal("None") is None
    assert fuzzing._literal("set()") == set()


# ---------------------------------------------------------------------------------------- perturbation


def made(seeds, constants=(), count=400, seed=0):
    mutator = fuzzing.Mutator(seeds, constants, random.Random(seed))
    return list(itertools.islice(mutator.arguments(seeds), count))


def shape(value):
    """A value's type, and the types in it."""
    if isinstance(value, list | set | tuple):
        return type(value), {shape(item)[0] for item in value}
    return type(value), set()


SEEDS = [(3, -4), (2.5,), ("abc", "d"), ([3, 1, 2], 1), ({1, 2}, {3}), ({"a": 1},), (True,), ((1, 2), "x")]


@pytest.mark.parametrize("seed", SEEDS)
def test_new_arguments_have_the_types_of_the_old(seed):
    for arguments in made([seed]):
        for new, old in zip(arguments, seed, strict=True):
            assert type(new) is type(old) and shape(new)[1] <= shape(old)[1]
    texts = [fuzzing.text_of(arguments) for arguments in made([seed])]
    assert len(set(texts)) == len(texts) and fuzzing.text_of(seed) not in texts
    assert all(ast.literal_eval(text) is not None for text in texts)


def test_boundaries_come_before_other_values():
    assert (1,) in made([(8,)], count=4)
    assert {17, 18, 19} <= {n for (n,) in made([(40,)], constants=[18, "x", 2.5], count=7)}


def test_arguments_come_to_be_equal_exchanged_and_overlapping():
    found = made([(3, 8), (9, 2)]) + made([({1, 2}, {3})])
    assert (8, 3) in found and (3, 3) in found and ({1, 2}, {1}) in found


@pytest.mark.parametrize(
    ("seeds", "inside", "outside"),
    [
        ([(8,), (3,)], [(1,), (8,), (5,)], [(0,), (-1,), (9,), (2.0,), (True,), (None,)]),
        ([(0,), (7,)], [(0,), (7,)], [(-1,), (8,)]),
        ([(-3,), (5,)], [(-3,), (5,), (2,)], [(-4,), (6,), (0,)]),
        ([(-2.5,)], [(-0.5,)], [(0.0,), (1.5,), (-3.0,), (-1,)]),
        ([("abc",), ("b",)], [("cab",), ("a",)], [("",), ("abca",), ("A",), ("d",), (" ",)]),
        (
            [([1, 4, 6],), ([2, 3],), ([2, 5],)],
            [([1, 6],), ([2],)],
            [([4, 1],), ([1, 1],), ([],), ([1, 2, 3, 4],), ([0, 1],)],
        ),
        ([([[1, 2], [3, 4]],)], [([[4, 1], [2, 3]],)], [([[1, 2], [3]],), ([1, 2],)]),
        ([([5, 1], 2), ([7, 2, 9], 3)], [([1, 5, 9], 3)], [([1, 5, 9], 2), ([1], 3)]),
        ([([5, 1], [2, 8])], [([1, 5], [8, 2])], [([1, 5], [8])]),
        ([([4, 9], 9), ([3, 1, 2], 1), ([7, 5], 7)], [([4, 2], 2)], [([4, 2], 3)]),
        ([((1, "a"),)], [((1, "a"),)], [((1,),), (("a", 1),)]),
        ([({"a": 1, "b": 2},)], [({"b": 1},)], [({"c": 1},), ({"a": 3},), ({},)]),
        ([(1j,), (b"ab",)], [(1j,)], [(2j,), (b"a",)]),
    ],
)
def test_the_domain_is_what_the_tests_show(seeds, inside, outside):
    domain = Domain(seeds)
    assert all(map(domain.admits, [*seeds, *inside]))
    assert not any(map(domain.admits, outside))


@given(
    st.lists(st.tuples(st.lists(st.integers(-9, 9), max_size=5), st.text("abc", max_size=4)), min_size=1, max_size=3)
)
@settings(deadline=None, max_examples=50)
def test_no_made_up_argument_leaves_the_domain(seeds):
    numbers, texts = [n for items, _ in seeds for n in items], "".join(text for _, text in seeds)
    for items, text in made(seeds, constants=[-100, 100, "xyz"], count=40):
        assert set(text) <= set(texts) and len(items) <= max(len(items) for items, _ in seeds)
        assert all((n > 0 or n >= min(numbers)) and (n < 0 or n <= max(numbers)) for n in items)


def test_arguments_repeat_tie_reach_their_limits_and_resemble_each_other():
    found = made([("listen", "silent", [4, 5, 3]), ("cat", "dog", [2, 5, 1])], count=200)
    assert any(len(set(first)) < len(first) for first, _, _ in found)
    assert any(first != second and sorted(first) == sorted(second) for first, second, _ in found)
    assert any(
        first != second and set(first) == set(second) and sorted(first) != sorted(second) for first, second, _ in found
    )
    for arrangement in ([5, 5, 5], [1, 1, 1]):
        assert any(items == arrangement for _, _, items in found)
    assert any(items == sorted(items) and len(set(items)) > 1 for _, _, items in found)
    prices = made([({"pen": 10, "bag": 40, "cup": 25},)], count=100)
    assert any(len(set(price.values())) < len(price) for (price,) in prices)


def test_none_stays_none_and_is_never_introduced():
    assert all(first is None and second is not None for first, second in made([(None, 5)]))


def test_a_record_in_a_list_keeps_its_length():
    found = made([([(1, "a"), (2, "b")],)])
    assert {len(record) for (records,) in found for record in records} == {2}


def test_constants_are_the_numbers_and_short_strings_of_a_program():
    program = 'def f(n):\n    """Far too long a text."""\n    return n > 33 or "no" if n else 2.5 + True'
    assert set(fuzzing.constants_of(program)) == {33, "no", 2.5}


# ------------------------------------------------------------------------------------------ the oracle


def ask(sandbox, program, calls, **more):
    return fuzzing.answered(task("assert f(1) == 1", **more), program, calls, 99, sandbox=sandbox)


def test_values_are_read_back_whatever_else_is_printed(sandbox):
    program = "print('noise')\ndef f(x):\n    print('noise', x)\n    return {'ক': [x, None, (True,)]}\n"
    assert ask(sandbox, program, [(1,), ("\n",)]) == [
        ((1,), {"ক": [1, None, (True,)]}),
        (("\n",), {"ক": ["\n", None, (True,)]}),
    ]


def test_arguments_a_program_changes_are_fresh_each_time(sandbox):
    assert ask(sandbox, "def f(x):\n    x.append(0)\n    return len(x)\n", [([1],)]) == [(([1],), 2)]


@pytest.mark.parametrize(
    "body",
    [
        "import random; return random.random()",
        "seen.append(x); return len(seen)",
        "raise KeyError(x)",
        "raise SystemExit",
        "return object()",
        "return 'x' * 400",
        "return iter([x])",
        "return list({'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'})",
    ],
)
def test_calls_without_one_plain_answer_are_dropped(sandbox, body):
    oracle = f"seen = []\ndef f(x):\n    if x == 9: return 9\n    {body}\n"
    judged = task("assert f(9) == 9", reference=oracle)
    assert fuzzing.fuzz(judged, (oracle,), 6, 0, sandbox) == ()


def test_a_call_that_ends_or_outlasts_the_oracle_costs_only_itself(sandbox):
    program = "import os\ndef f(x):\n    x == 1 and os._exit(0)\n    while x == 2: pass\n    return x\n"
    assert ask(sandbox, program, [(0,), (1,), (2,), (3,)]) == [((0,), 0), ((3,), 3)]


def test_an_oracle_that_keeps_dying_is_given_up(sandbox):
    assert ask(sandbox, "import os\ndef f(x):\n    os._exit(1)\n", [(n,) for n in range(50)]) == []


def test_more_answers_than_a_verdict_keeps_are_asked_for_in_turns(sandbox):
    calls, program = [(n,) for n in range(40)], "def f(x):\n    return 'ক' * 50 + str(x)\n"
    assert ask(sandbox, program, calls) == [((n,), "ক" * 50 + str(n)) for n in range(40)]


# ---------------------------------------------------------------------------------------- whole suites


DOUBLE = "def f(n):\n    return 2 * n\n"
MEMORISED = "def f(n):\n    return 2 * n if n in (2, 30) else 2 * n + (n < 9)\n"


def test_fuzzing_is_decided_by_its_seed(sandbox):
    judged = task("assert f(2) == 4", "assert f(30) == 60")
    first, again, other = (fuzzing.fuzz(judged, (DOUBLE,), 8, seed, sandbox) for seed in (0, 0, 1))
    assert first == again != other and len(first) == len(other) == 8
    assert not set(first) & set(judged.visible_tests)


def test_tests_on_which_winners_disagree_are_dropped(sandbox):
    judged = task("assert f(2) == 4", "assert f(30) == 60")
    tests = fuzzing.fuzz(judged, (DOUBLE, MEMORISED), 8, 0, sandbox)
    assert len(tests) == 8 and not any(f"f({n})" in test for test in tests for n in range(9))


def test_a_program_that_fails_the_tests_is_no_oracle(sandbox):
    judged = task("assert f(2) == 4", "assert f(30) == 60")
    wrong = "def f(n):\n    return n\n"
    assert fuzzing.fuzz(judged, (wrong,), 4, 0, sandbox) == ()
    tests = fuzzing.fuzz(judged, (DOUBLE,), 4, 0, sandbox)
    assert fuzzing.fuzz(judged, (wrong, DOUBLE), 4, 0, sandbox) == tests


def test_hidden_tests_are_not_made_again(sandbox):
    judged = task("assert f(2) == 4", hidden_tests=("assert f(0) == 0", "assert f(1) == 2"))
    assert not set(fuzzing.fuzz(judged, (DOUBLE,), 30, 0, sandbox)) & set(judged.hidden_tests)


def test_what_has_nothing_to_perturb_is_left_alone(sandbox):
    assert fuzzing.fuzz(task("assert sorted(f([1])) == [1]"), ("def f(x): return x",), 4, 0, sandbox) == ()
    other = task("assert f(2) == 4", programming_language="lua")
    assert fuzzing.fuzz(other, (DOUBLE,), 4, 0, sandbox) == ()
    with pytest.raises(ValueError, match="count=0"):
        fuzzing.fuzz(task("assert f(2) == 4"), (DOUBLE,), 0, 0, sandbox)


def test_the_reference_is_the_oracle_or_two_winners_are():
    bare = task("assert f(2) == 4")
    assert fuzzing.oracles_of(dataclasses.replace(bare, reference=DOUBLE), [MEMORISED]) == (DOUBLE,)
    assert fuzzing.oracles_of(bare, [DOUBLE, MEMORISED]) == (DOUBLE, MEMORISED)
    assert fuzzing.oracles_of(bare, [DOUBLE, "def f(n):  # twice\n    return 2 * n\n"]) == ()


def test_an_answer_that_depends_on_the_hash_seed_is_dropped(sandbox):
    judged = task("assert f('ab') == 2", "assert f('abcdefgh') == 8")
    order = "def f(s):\n    return len(s) if s in ('ab', 'abcdefgh') else ''.join(set(s))\n"
    tests = fuzzing.fuzz(judged, (order,), 12, 0, sandbox)
    assert all(len(set(ast.parse(test).body[0].test.left.args[0].value)) == 1 for test in tests)


def test_the_effect_counts_what_is_rejected_and_what_is_lost():
    found = fuzzing.effect([1, 1, 1, 1, 0], [1, 0, 0, 1, 1], [1, 0, 1, 1, 1])
    assert (found.winners, found.right, found.rejected, found.lost) == (4, 3, 2, 1)
    assert found.precision_before[0] == 0.75 and found.precision_after[0] == 1.0
    assert found.precision_before[1][0] < 0.75 < found.precision_before[1][1]
    assert fuzzing.effect([0], [1], [1]).precision_before is None
    with pytest.raises(ValueError):
        fuzzing.effect([1], [1, 0], [1])


def test_from_two_visible_asserts_most_plausible_wrong_answers_are_rejected(sandbox):
    """Every twentieth starter task with 20 asserts."""
    rejected = wrong = 0
    for judged in list(STARTER.values())[::20]:
        blind = dataclasses.replace(judged, hidden_tests=())
        tests = fuzzing.fuzz(blind, fuzzing.oracles_of(judged), 20, 0, sandbox)
        only = dataclasses.replace(blind, visible_tests=(), hidden_tests=tests)
        assert sandbox.grade(only, judged.reference, "hidden").status == "success"
        verdicts = [sandbox.grade(only, answer, "hidden") for answer in judged.wrong_answers]
        wrong += len(verdicts)
        rejected += sum(verdict.status != "success" for verdict in verdicts)
    print(f"{rejected} of {wrong} plausible wrong answers rejected")
    assert rejected / wrong >= 0.4  # staying inside what two asserts show costs half of what wider arguments caught


def test_what_fails_a_fuzzed_assert_is_rejected(sandbox):
    tests = ["assert f(1) == 1", "assert f(2) == 2"]
    programs = ["def f(a):\n    return a\n", "def f(a):\n    return 1\n", "def f(a):\n    return 0\n"]
    attempts = [dataclasses.replace(ROW, task_id="t", program=program, seed=n) for n, program in enumerate(programs)]
    found = fuzzing.rejected(attempts, [task("assert f(0) == 0")], [tests], sandbox)
    assert found == {attempt.key for attempt in attempts[1:]}
    assert fuzzing.rejected(attempts, [task("assert f(0) == 0")], [()], sandbox) == set()


def test_an_effect_is_told_with_its_intervals():
    told = fuzzing.in_words(fuzzing.effect([True] * 4, [True, True, True, False], [True, True, False, False]))
    assert "4 programs pass the visible tests, 2 of them" in told and "reject 1, 0 of these right" in told
    assert "before: 50.0% [15.0%, 85.0%]" in told and "after: 66.7% [20.8%, 93.9%]" in told
    assert fuzzing.in_words(fuzzing.effect([False], [True], [True])).startswith("No program")
