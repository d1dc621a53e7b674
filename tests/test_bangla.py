"""Normalisation changes what the standard changes and nothing else."""

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lib.tasks.bangla import count_changes, normalise, normalise_tasks, script_mix
from lib.tasks.task import Case, Task

BANGLA = st.text(
    st.characters(min_codepoint=0x0980, max_codepoint=0x09FF) | st.sampled_from("`\u1fef \n\u200c\u200d।a\u0301\u0300")
)
ANY = st.text() | BANGLA | st.lists(BANGLA | st.text(max_size=3), max_size=6).map("`".join)


@given(ANY)
@example("\u1fefA`\u09dfB`")  # a character whose canonical form is a backtick
@example("`a`` b\u09df`")
@settings(max_examples=500)
def test_normalising_twice_is_normalising_once(text: str) -> None:
    once, _ = normalise(text)
    assert normalise(once) == (once, {})


@given(ANY.filter(lambda text: "`" not in text and "\u1fef" not in text))
def test_without_code_it_is_nfc_exactly(text: str) -> None:
    assert normalise(text)[0] == unicodedata.normalize("NFC", text)


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_is_untouched(text: str) -> None:
    assert normalise(text) == (text, {})


@given(BANGLA.filter(lambda text: "`" not in text and "\u1fef" not in text and "\n" not in text and text))
def test_code_spans_are_untouched_byte_for_byte(code: str) -> None:
    for text in (
        f"য\u09bc `{code}` য\u09bc",
        f"য\u09bc ``{code}`` য\u09bc",
        f"য\u09bc\n```\n{code}\n{code}\n```\n",
    ):
        assert code in normalise(text)[0]


@given(ANY)
def test_something_is_reported_exactly_when_something_changed(text: str) -> None:
    normal, changes = normalise(text)
    assert bool(changes) == (normal != text)


@pytest.mark.parametrize(
    ("composed", "pair"), [("\u09dc", "\u09a1\u09bc"), ("\u09dd", "\u09a2\u09bc"), ("\u09df", "\u09af\u09bc")]
)
def test_nfc_takes_the_nukta_letters_apart(composed: str, pair: str) -> None:
    name = f"U+{ord(composed):04X} → {' '.join(f'U+{ord(character):04X}' for character in pair)}"
    assert normalise(f"ক{composed} {composed}।") == (f"ক{pair} {pair}।", {name: 2})


def test_nfc_joins_split_vowel_signs() -> None:
    assert normalise("ক\u09c7\u09be") == ("ক\u09cb", {"U+09C7 U+09BE → U+09CB": 1})


@pytest.mark.parametrize("text", ["০১২৩৪৫৬৭৮৯", "বাক্য। শেষ॥", "র\u200d্যাম", "ক\u09cd\u200cষ", "৳ ৫০"])
def test_digits_danda_and_joiners_stay(text: str) -> None:
    assert normalise(text) == (text, {})


def test_an_open_fence_protects_the_code_after_it() -> None:
    text = "```python\ns = '\u09df'"
    assert normalise(text) == (text, {})


def test_only_changed_rows_are_reported() -> None:
    tasks = [
        Task(name, "mine", "train", prompt, "bn", "python", "function", "f", ("assert f(1) == 2",))
        for name, prompt in (("1", "ক\u09df"), ("2", "কখ"))
    ]
    normal, report = normalise_tasks(tasks)
    assert report == [("1", {"U+09DF → U+09AF U+09BC": 1})]
    assert [task.prompt for task in normal] == ["ক\u09af\u09bc", "কখ"]


COMPOSED = {"য়": "\u09df", "ড়": "\u09dc", "ঢ়": "\u09dd", "ো": "ক\u09cb"}  # as one code point
APART = {"য়": "য\u09bc", "ড়": "ড\u09bc", "ঢ়": "ঢ\u09bc", "ো": "ক\u09c7\u09be"}


@pytest.mark.parametrize("letter", COMPOSED)
@pytest.mark.parametrize(
    ("shown", "judged"), [(COMPOSED, COMPOSED), (COMPOSED, APART), (APART, COMPOSED), (APART, APART)]
)
@pytest.mark.parametrize("mode", ["function", "program"])
def test_what_a_program_writes_for_the_prompt_s_literal_is_what_its_tests_expect(letter, shown, judged, mode) -> None:
    prompt, text = f"\u201c{shown[letter]}\u201d লেখো।", judged[letter]
    tests, cases = (f"assert f() == '{text}'",), (Case(text, text),)
    task = Task(
        "t", "mine", "test", prompt, "bn", "python", mode, "f", tests, cases=cases, reference=f"print('{text}')"
    )
    ((normal,), _) = normalise_tasks([task])
    written = normal.prompt[1 : normal.prompt.index("\u201d")]
    assert normal.visible_tests == (f"assert f() == '{written}'",)
    assert normal.cases == (Case(written, written),) and normal.reference == f"print('{written}')"


def test_a_test_of_a_text_s_length_stays_true() -> None:
    task = Task("t", "mine", "test", "অক্ষর গোনো।", "bn", "python", "function", "f", ("assert f('\u09df') == 1",))
    assert normalise_tasks([task]) == ([task], [])


def test_changes_of_all_rows_are_added_up() -> None:
    assert count_changes([("1", {"a": 1, "b": 2}), ("2", {"b": 3})]) == {"b": 5, "a": 1}
    assert count_changes([]) == {}


def test_script_mix_by_hand() -> None:
    mix = script_mix("কখ ab। ৫5 +\u200d")
    assert {name: round(share * 9) for name, share in mix.items()} == {
        "bengali": 3,  # ক খ ৫
        "latin": 2,
        "danda": 1,
        "digit": 1,
        "joiner": 1,
        "other": 1,
    }


@given(st.text())
def test_script_shares_sum_to_one(text: str) -> None:
    total = sum(script_mix(text).values())
    assert total == pytest.approx(1 if text.split() else 0)
