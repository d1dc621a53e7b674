"""Prompts end in their prefill; completions become programs and programs completions."""

import ast
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.tasks.prompts import (
    FUNCTION_STOPS,
    Prompt,
    build_prompt,
    cut_at_stops,
    question,
    server_stops,
    signature,
    stop_at,
    winning_completion,
)
from lib.tasks.task import Task, TaskError


class PlainChat:
    """The smallest chat template there is."""

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        return f"<{messages[0]['content']}>"


FUNCTION = Task(
    "t", "s", "x", "লেখো `add(a, b)`।", "bn", "python", "function", entry_point="add",
    visible_tests=("assert add(1, 2) == 3",), hidden_tests=("assert add(0, 0) == 0",), reference="SECRET",
)  # fmt: skip
PROGRAM = Task("p", "s", "x", "Add two numbers.", "en", "lua", "program")


def test_a_function_prompt_ends_exactly_at_the_colon():
    prompt = build_prompt(FUNCTION, PlainChat())
    assert prompt.text.endswith("```python\ndef add(a, b):")
    assert prompt.code_prefill == "def add(a, b):"


def test_a_prompt_shows_nothing_hidden():
    text = build_prompt(FUNCTION, PlainChat()).text
    assert "add(0, 0)" not in text and "SECRET" not in text


def test_a_program_prompt_names_its_language_and_opens_its_fence():
    prompt = build_prompt(PROGRAM, PlainChat())
    assert "in Lua" in question(PROGRAM)
    assert prompt.text.endswith("```lua\n") and prompt.code_prefill == ""


def test_unstated_arguments_are_left_to_the_model():
    task = Task("t", "s", "x", "no signature here", "en", "python", "function", entry_point="f")
    assert signature(task) == "def f("


@pytest.mark.parametrize("tail", ["\n```\nand so on", "\nprint(add(1, 2))", "\n# demo", '\nif __name__ == "__main__":'])
def test_what_follows_the_function_is_cut(tail):
    prompt = build_prompt(FUNCTION, PlainChat())
    assert prompt.program("\n    return a + b" + tail) == "def add(a, b):\n    return a + b\n"


def test_a_helper_before_the_fence_is_kept():
    prompt = build_prompt(FUNCTION, PlainChat())
    assert "def helper" in prompt.program("\n    return helper(a)\n\ndef helper(x):\n    return x\n```")


@pytest.mark.parametrize("show, shown", [(None, 1), (0, 0), (1, 1), (2, 2), (9, 2)])
def test_a_prompt_shows_as_many_visible_tests_as_asked_for(show, shown):
    tests = ("assert add(1, 2) == 3", "assert add(2, 2) == 4")
    text = question(dataclasses.replace(FUNCTION, visible_tests=tests, show_tests=show))
    assert sum(test in text for test in tests) == shown and ("should pass" in text) == (shown > 0)


@pytest.mark.parametrize(
    "compare, words", [("exact", "byte by byte"), ("lines", "line by line"), ("tokens", "word by word")]
)
def test_a_program_prompt_says_how_output_is_compared_and_how_its_language_prints(compare, words):
    text = question(dataclasses.replace(PROGRAM, compare=compare))
    assert words in text and "tabs" in text


def test_an_edited_template_changes_the_attempts_key(tmp_path, monkeypatch):
    before = build_prompt(FUNCTION, PlainChat())
    (tmp_path / "function.md").write_text("Do this {now}: {prompt}\n", encoding="utf-8")
    monkeypatch.setattr("lib.tasks.prompts.TEMPLATES", tmp_path)
    after = build_prompt(FUNCTION, PlainChat())
    assert question(FUNCTION) == "Do this {now}: লেখো `add(a, b)`।" and before.digest != after.digest


def test_a_missing_template_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.tasks.prompts.TEMPLATES", tmp_path)
    with pytest.raises(TaskError, match="function.md: cannot be read"):
        question(FUNCTION)


@given(
    st.lists(st.sampled_from(["a", "b", "c: int", "d=')'", "*args", "e={1: 2}"]), unique=True, max_size=4),
    st.booleans(),
)
def test_the_prefill_closed_with_a_body_is_valid_python(parameters, as_stub):
    stub = f"def f({', '.join(sorted(parameters, key=lambda p: ('=' in p) + 2 * ('*' in p)))}):"
    prompt = f"Finish it.\n\n{stub}\n    # do it" if as_stub else f"Finish it: {stub[4:-1]} does it."
    task = Task("t", "s", "x", prompt, "en", "python", "function", "f", ("assert f(1, k=2) == 3",))
    prefill = build_prompt(task, PlainChat()).code_prefill
    ast.parse(prefill + "\n    return 0\n")
    assert prefill == stub or not as_stub


PREFILLS = ("", "```python\ndef f(a):", "```python\n", "```lua\n")
PIECES = st.sampled_from(["\n```", "\nprint(", "\nassert ", "\n    return a", "'''", "\n# it's", "g()", "\ndef g(): 1"])


@given(st.lists(PIECES, max_size=12).map("".join), st.sampled_from(PREFILLS))
def test_cutting_is_idempotent_and_without_a_prefill_leaves_no_stop(text, prefill):
    cut = cut_at_stops(text, FUNCTION_STOPS, prefill)
    assert text.startswith(cut) and cut_at_stops(cut, FUNCTION_STOPS, prefill) == cut
    assert prefill or not any(stop in cut for stop in FUNCTION_STOPS)


# Right programs for add(a, b), each with something in it that looks like the end of an answer.
BODIES = (
    "\n    return a + b",
    "\n    mark = '```'\n    return a + b + len(mark) - 3",
    '\n    """Add.\n\n```\nadd(1, 2)\n```\n"""\n    return a + b',
    "\n    text = '''\nprint(1)\nassert \nif __name__\nclass A:\n'''\n    return a + b + 0 * len(text)",
    "\n    return plus(a, b)\n\n# a helper\ndef plus(x, y):\n    return x + y",
    "\n    return plus(a, b)\n\nprint('a helper')\n\ndef plus(x, y):\n    return x + y",
    "\n    return Sum(a, b).value\n\nclass Sum:\n    def __init__(self, x, y):\n        self.value = x + y",
    "\n    return a + b + ZERO\n\nassert True\nZERO = 0",
    "\n# at the margin\n    return a + b",
)
TALK = "\n```\n\nThis adds them:\n```python\nprint(add(1, 2))\n```\n"
COMPLETE_AT = {  # what follows the program: where the answer is seen to be complete
    "": "", "\n": "\n", "\n```": "\n```", "\n```\n": "\n```", TALK: "\n```", "\n\nprint(add(1, 2))": "\n\nprint(",
    "\n\nassert add(1, 2) == 3\n```": "\n\nassert ", '\n\nif __name__ == "__main__":\n    print(1)': "\n\nif __name__",
    "\n\n# Example\nadd(1, 2)": "\n\n# Example\nadd(1, 2)",
    "\n```\n\nA shorter one:\n```python\ndef add(a, b):\n    return 0\n```": "\n```",
}  # fmt: skip


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("end", COMPLETE_AT)
def test_a_completion_stops_where_its_program_is_complete_and_no_earlier(body, end):
    prompt, whole = build_prompt(FUNCTION, PlainChat()), body + end
    stops = (stop_at(whole[:n], prompt.stops, prompt.prefill) is not None for n in range(len(whole) + 1))
    drawn = next((whole[:n] for n, stopped in enumerate(stops) if stopped), whole)
    assert drawn == body + COMPLETE_AT[end]
    program, space = prompt.program(whole), {}
    exec(program, space)  # a program of this test
    assert space["add"](2, 3) == 5
    assert program == prompt.program(drawn) == prompt.program(cut_at_stops(drawn, prompt.stops, prompt.prefill))


@pytest.mark.parametrize(
    "completion, program",
    [
        ("print(1)\n```\nThat is all.", "print(1)"),
        ("\n```lua\nprint(1)\n```", "print(1)"),
        ("Here is the program:\n```lua\nprint(1)\n```\nDone.", "print(1)"),
        ("local s = [[\n```\n]]\nprint(s)\n```", "local s = [[\n```\n]]\nprint(s)"),
        ("-- it's [[ here\nprint(1)\n```\nprint(2)", "-- it's [[ here\nprint(1)"),
    ],
)
def test_a_program_s_completion_ends_where_its_fence_closes(completion, program):
    prompt = build_prompt(PROGRAM, PlainChat())
    cut = cut_at_stops(completion, prompt.stops, prompt.prefill)
    assert prompt.program(completion).strip() == prompt.program(cut).strip() == program


def test_a_server_is_given_the_fence_alone():
    assert server_stops(FUNCTION_STOPS, "```python\ndef f(a):") == ["\n```"]
    assert server_stops((" 8", "x")) == [" 8", "x"]


@given(st.text(alphabet="abc \n()", max_size=40))
def test_a_winning_completion_gives_its_program_back(body):
    prompt = build_prompt(FUNCTION, PlainChat())
    program = prompt.program(body)
    assert prompt.program(winning_completion(prompt, program)) == program


def test_a_program_without_the_prefill_is_refused():
    prompt = Prompt("t", "x", "```python\ndef f(a):", FUNCTION_STOPS)
    with pytest.raises(ValueError, match="does not begin with the prompt's prefill"):
        winning_completion(prompt, "def g(a): return a\n")
