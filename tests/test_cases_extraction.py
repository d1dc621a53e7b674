"""Answers as models write them: every row of the cases, every wrapping of a program, time in proportion to length."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.sandbox import Sandbox
from lib.tasks.extract import defines, extract_code
from lib.tasks.task import Task

ROWS = [json.loads(line) for line in (Path(__file__).parent / "cases/extraction.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=1) as box:
        yield box


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_the_program_of_an_answer_gets_its_verdict(row, sandbox) -> None:
    task = Task(
        row["name"], "cases", "test", row.get("prompt", "Write it."), "en", row["language"], "function",
        entry_point=row["entry_point"], visible_tests=tuple(row["visible_tests"]),
    )  # fmt: skip
    program = extract_code(row["response"], task.programming_language, task.entry_point, task.prompt)
    verdict = sandbox.grade(task, program or "", "all")
    assert verdict.status in [row["expect"], *row.get("also_accepted", [])], (program, verdict.failure)


# ------------------------------------------------------------------------------------------------------------ wrappings

PROGRAMS = {
    "python": ["def f(n):\n    return n + 1\n", 'def f(s):\n    """Say ```x``` and </think>."""\n    return s\n',
               "import math\n\n\ndef f(n):\n    # it's <|im_end|>\n    return math.gcd(n, 3)\n",
               "def f(s):\n    t = '''\n```\n</s>\n'''\n    return t\n", "class f:\n    x = {'a': [1,\n2]}\n"],
    "lua": ["local function f(n)\n  return n * 2\nend\n", "f = function(n)\n  return '```' .. [[\n```\n]]\nend\n"],
    "r": ["f <- function(n) {\n  n * 2  # it's\n}\n", "f = \\(n) n * 2\n"],
    "ocaml": ["let rec f n = if n < 1 then 0 else f (n - 1)\n", "(* ```\nx\n``` *)\nlet f n = n * 2\n"],
    "fortran": ["program f\n  print *, 'it''s ```'\nend program f\n"],
    "julia": ['"""\n```jldoctest\nf(1)\n```\n"""\nf(n) = 2n\n', "function f(n)\n    return n\nend\n"],
}  # fmt: skip
SENTENCES = ["", "Here is the function:\n\n", "Sure! It's a product.\n\n", "এই ফাংশন:\n\n"]
WRAPPINGS = {
    "tag": lambda code, tag: f"```{tag}\n{code}```",
    "no tag": lambda code, tag: f"```\n{code}```\n",
    "attributes": lambda code, tag: f'```{{.{tag} title="a b"}}\n{code}```\n',
    "file name": lambda code, tag: f"```{tag}:solution.x\n{code}```",
    "odd tag": lambda code, tag: f"```{tag}3.11\n{code}```",
    "tilde": lambda code, tag: f"~~~{tag}\n{code}~~~",
    "longer": lambda code, tag: f"`````{tag}\n{code}`````",
    "longer end": lambda code, tag: f"```{tag}\n{code}`````\n",
    "inline end": lambda code, tag: f"```{tag}\n{code.rstrip()}```",
    "after a word": lambda code, tag: f"Answer: ```{tag}\n{code}```",
    "list": lambda code, tag: f"1. So:\n\n   ```{tag}\n" + indented(code, "   ") + "   ```\n\n2. Done.",
    "bullet": lambda code, tag: f"- ```{tag}\n" + indented(code, "  ") + "  ```\n",
    "quoted": lambda code, tag: "".join(f"> {line}\n" for line in f"```{tag}\n{code}```".split("\n")),
    "never closed": lambda code, tag: f"```{tag}\n{code}",
    "opened by the prompt": lambda code, tag: f"{code}```\nThat is all.\n",
    "other block first": lambda code, tag: f"```bash\npip install it\n```\n\n```{tag}\n{code}```",
    "output after": lambda code, tag: f"```{tag}\n{code}```\nOutput:\n```\n6\n```\n",
    "carriage returns": lambda code, tag: f"```{tag}\n{code}```\n".replace("\n", "\r\n"),
    "mark": lambda code, tag: f"\ufeff```{tag}\n\ufeff{code}```",
    "end token": lambda code, tag: f"```{tag}\n{code}```<|im_end|>",
    "end token and no fence": lambda code, tag: f"```{tag}\n{code}<|eot_id|>",
    "thought": lambda code, tag: f"<think>\nMaybe\n```{tag}\nf = no, it's\n```\n</think>\n```{tag}\n{code}```",
    "end of a thought": lambda code, tag: f"First ```{tag}\nx\n```, no.\n</think>\n\n```{tag}\n{code}```\nDone.",
    "channels": lambda code, tag: (
        "<|channel|>analysis<|message|>It's ```<|end|><|start|>assistant<|channel|>final<|message|>"
        f"```{tag}\n{code}```<|return|>"
    ),
}


def indented(code: str, by: str) -> str:
    return "".join(by + line if line.strip() else line for line in code.splitlines(keepends=True))


@pytest.mark.parametrize("language", PROGRAMS)
@pytest.mark.parametrize("wrapping", WRAPPINGS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_wrapped_program_comes_out_as_it_went_in(language, wrapping, data) -> None:
    code = data.draw(st.sampled_from(PROGRAMS[language]))
    before = "" if wrapping == "opened by the prompt" else data.draw(st.sampled_from(SENTENCES))
    after = data.draw(st.sampled_from(["", "\n\nIt returns the result.\n"])) if wrapping in ("tag", "tilde") else ""
    wrapped = WRAPPINGS[wrapping](code, language)
    answer = wrapped + after if wrapping in ("mark", "channels") else before + wrapped + after
    found = extract_code(answer, language, "f")
    assert found is not None and found.strip() == code.strip()


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "Here you go:\n\n{}\nThis returns it.\n",
        "[PYTHON]\n{}[/PYTHON]",
        "<pre><code>{}</code></pre>",
        "{}<|endoftext|>",
        "<think>hm, it's easy</think>\n{}",
        "{}\nDone",
        "Note: easy\n\n{}",
    ],
)
@pytest.mark.parametrize("code", PROGRAMS["python"][:3])
def test_bare_code_is_found_between_sentences(form, code) -> None:
    assert (extract_code(form.format(code), "python", "f") or "").strip() == code.strip()


@pytest.mark.parametrize(
    "answer",
    [
        "````markdown\n```python\ndef f(n):\n    return n\n```\n````",
        "```pycon\n>>> def f(n):\n...     return n\n...\n>>> 2\n2\n```",
        "The tag `<think>` is not used.\n```python\ndef f(n):\n    return n\n```",
        "<s> def f(n):\n    return n\n</s>",
        "```def f(n): return n```",
        "```def f(n):\n    return n```",
        "    def f(n):\n        return n\n",
        "Here:\n\n    def f(n):\n        return n\n\nDone",
        ".. code-block:: python\n\n\tdef f(n):\n\t    return n\n",
        "First:\ndef f(n):\n    return 0\n\nWait, better:\ndef f(n):\n    return n\n",
        "First:\ndef f(n):\n    m = n\n    m += 1\n    return m\n\nWait, better:\ndef f(n):\n    return n\n",
        "[PYTHON]\ndef f(n):\n    return n\n[/PYTHON]\n[TESTS]\nassert f(1) == 2\n[/TESTS]",
        "[TESTS]\nassert f(1) == 1\n[/TESTS]\n[PYTHON]\ndef f(n):\n    return n\n[/PYTHON]",
        "Without the [CODE] mark:\n\ndef f(n):\n    return n\n",
        "```python\ndef f(n):\n    return n\n\nThis function returns its argument.\nIt is short",
        "```python\ndef f(n):\n    return n\n\n**Explanation:**\nIt returns n.",
        "```python\ndef f(n):\n    return n\n\nExplanation:\n```text\nabc\n```\n",
        "[PYTHON]\ndef f(n):\n    return n\n[TESTS]\nassert f(1) == 2",
        "'''\ndef f(n):\n    return n\n'''",
        "```python\ndef f(n):\n    return n\n\n* It returns `n`.\n* It is fast\n",
        "'''python\ndef f(n):\n    return n\n'''",
        "Here it is:\n\n'''python\ndef f(n):\n    return n\n'''\n\nIt returns n.",
        '"""py\ndef f(n):\n    """Return n.\n    """\n    return n\n"""',
    ],
)
def test_rarer_wrappings_of_a_program(answer) -> None:
    scope: dict = {}
    exec(extract_code(answer, "python", "f") or "", scope)  # a program of this test
    assert scope["f"](3) == 3


@pytest.mark.parametrize(
    "form",
    [
        "```lua\n{}\nThis function returns it, in the end.",
        "[LUA]\n{}[/LUA]\n[TESTS]\nprint(f(1))\n[/TESTS]",
        "Here:\n\n'''lua\n{}'''\n",
    ],
)
@pytest.mark.parametrize("entry_point", ["f", ""])
def test_rarer_wrappings_of_a_program_in_another_language(form, entry_point) -> None:
    code = "local function f(n)\n  return n\nend\n"
    assert (extract_code(form.format(code), "lua", entry_point) or "").strip() == code.strip()


def test_a_definition_that_was_cut_off_is_no_talk() -> None:
    cut = "```python\ndef f(n):\n    return n\n\ndef f(n, by"
    assert "by" in (extract_code(cut, "python", "f") or "")


def test_a_session_of_the_interpreter_loses_its_prompts_and_output() -> None:
    found = extract_code(">>> def f(n):\n...     return n\n...\n>>> f(2)\n2\n", "python", "f")
    assert found == "def f(n):\n    return n\n\nf(2)\n"


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " \n\t",
        "```python\n```",
        "```\n\n```",
        "<think>```python\nx = 1\n```",
        "\ufeff",
        "<|im_end|>",
        "```python\nx = 1\n```\n</think>",
        "<|channel|>analysis<|message|>```python\nx = 1\n```",
    ],
)
def test_no_program_is_none(answer) -> None:
    assert extract_code(answer, "python") is None


def test_a_later_definition_counts_and_a_later_use_does_not() -> None:
    first, second = "def f():\n    return 1\n", "def f():\n    return 2\n"
    use = "print(f())\n" * 9
    assert extract_code("\n".join(f"```python\n{code}```" for code in (first, second, use)), "python", "f") == second


def test_blocks_are_joined_when_names_are_missing() -> None:
    imports, helper, main = "import math\n", "def g():\n    return math.pi\n", "def f():\n    return g()\n"
    answer = "\n".join(f"```python\n{code}```" for code in (imports, "x = 1\n", helper, main))
    assert extract_code(answer, "python", "f") == "\n".join([imports, helper, main])


@pytest.mark.parametrize(
    "body", ["    return n\n", "return n", "x = n\n    return x\n", "```python\nreturn n\n```", "    return n\n```"]
)
def test_a_body_continues_the_prompts_function(body) -> None:
    prompt = 'Finish it:\n\ndef f(n):\n    """Return n."""\n'
    found = extract_code(body, "python", "f", prompt) or ""
    scope: dict = {}
    exec(found, scope)  # a program of this test
    assert scope["f"](3) == 3


@pytest.mark.parametrize(
    "language, code",
    [
        ("r", "f <- function(n) n"),
        ("r", "f <<- function(n) n"),
        ("r", "function(n) n -> f"),
        ("r", "f = \\(n) n"),
        ("lua", "function f(n)"),
        ("lua", "local f = function(n)"),
        ("ocaml", "let rec g n = n\nand f n = g n"),
        ("python", "f = lambda n: n"),
    ],
)
def test_every_way_to_bind_a_name_defines_it(language, code) -> None:
    assert defines(code, "f", language)


@pytest.mark.parametrize(
    "language, code",
    [
        ("r", "# f <- function(n) n"),
        ("lua", "-- function f doubles\nreturn 1"),
        ("ocaml", "(* let f n = n *)"),
        ("python", "'''\ndef f(n): 1\n'''"),
        ("r", 'cat("f <- function")'),
        ("lua", "if f == 3 then end"),
        ("python", "def g():\n    def f(): 1\n"),
    ],
)
def test_what_only_names_it_does_not_define_it(language, code) -> None:
    assert not defines(code, "f", language)


SIZE = 30_000
LONG = {
    "blanks": "```" + " " * SIZE + "`\n",
    "bare blanks": " " * SIZE,
    "lines": "\n" * SIZE,
    "ticks": "`" * SIZE,
    "fences": "```\n" * (SIZE // 4),
    "spans": "``` " * (SIZE // 4),
    "quotes": "```python\n" + "'" * SIZE,
    "docstrings": '"""\n' * (SIZE // 4),
    "sentences": "It is so.\n" * (SIZE // 10),
    "brackets": "```lua\n" + "[" * SIZE,
    "comments": "```ocaml\n" + "(*" * (SIZE // 2),
    "escapes": '```r\n"' + '\\"' * (SIZE // 2),
    "marks": "<think>" * (SIZE // 7),
    "tokens": "<|im_end|>" * (SIZE // 10),
    "wrappers": "x " + "[CODE] " * (SIZE // 7) + "x",
    "quoted": "> ```\n" * (SIZE // 6),
    "three quotes": "'''python\n" * (SIZE // 10),
    "marks without an end": "[CODE]\nx = 1 y\n" * (SIZE // 15),
    "talk": "```python\ndef f(n):\n    return n\n" + "It is so.\n" * (SIZE // 10),
    "broken": "x = 1 apples\n" * (SIZE // 13),
}


@pytest.mark.parametrize("language", ["python", "lua", "ocaml", "r"])
@pytest.mark.parametrize("name", LONG)
def test_time_is_in_proportion_to_length(name, language) -> None:
    started = time.process_time()
    extract_code(LONG[name], language, "f", "def f(x):\n")
    assert time.process_time() - started < 2  # quadratic ones take ten times as long
