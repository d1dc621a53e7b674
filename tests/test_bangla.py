"""Normalisation changes what the standard changes and nothing else; token counts are what they say."""

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lib.bangla import fertility, normalise, normalise_tasks, script_mix, train_sentencepiece
from lib.tasks import Task

BANGLA = st.text(
    st.characters(min_codepoint=0x0980, max_codepoint=0x09FF)
    | st.sampled_from("`\u1fef \n\u200c\u200d।a\u0301\u0300")
)
ANY = st.text() | BANGLA | st.lists(BANGLA | st.text(max_size=3), max_size=6).map("`".join)
CORPUS = [
    "একটি সংখ্যা দেওয়া আছে, যোগফল বের করো।",
    "def add(a, b):\n    return a + b\n",
    "দুটি সংখ্যার গুণফল কত?",
] * 8


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


def test_fertility_by_hand() -> None:
    study = fertility("characters", ["কি খা", "ab"], list, lambda tokens: "".join(tokens))
    assert (study.tokens, study.texts, study.round_trips) == (7, 2, 2)
    assert study.per_word == pytest.approx(7 / 3)  # কি, খা, ab
    assert study.per_character == pytest.approx(1.0)
    assert study.per_grapheme == pytest.approx(7 / 5)  # কি, space, খা, a, b
    assert study.per_text == pytest.approx(3.5)


def test_a_word_with_joiners_and_marks_is_one_word() -> None:
    assert fertility("one", ["র\u200d্যাম"], lambda text: [text]).per_word == 1.0


def test_a_lossy_tokenizer_is_caught_by_its_round_trips() -> None:
    assert fertility("lossy", ["Ab", "ab"], list, lambda tokens: "".join(tokens).lower()).round_trips == 1


def test_fertility_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match="no words in 1 texts"):
        fertility("empty", ["!"], list)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_trained_tokenizer_reads_back_text_it_never_saw(kind: str) -> None:
    model = train_sentencepiece(CORPUS, 305, kind)  # type: ignore[arg-type]
    for text in ["ৡ unseen ✓", "  two  spaces\n\n\tindented  ", "১২৩\u200d।", "", "x" * 300]:
        assert model.decode(model.encode(text)) == text


@given(st.text(st.characters(exclude_characters="\u2581\0", exclude_categories=("Cs",))))
@settings(max_examples=200, deadline=None)
def test_any_text_survives_the_joint_tokenizer(text: str) -> None:
    model = _model()
    assert model.decode(model.encode(text)) == text


def _model(cache: list[object] = []):  # type: ignore[no-untyped-def]  # noqa: B006  # trained once for all examples
    if not cache:
        cache.append(train_sentencepiece(CORPUS, 320, "bpe"))
    return cache[0]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_training_is_repeatable(kind: str) -> None:
    first, second = (train_sentencepiece(CORPUS, 305, kind) for _ in range(2))  # type: ignore[arg-type]
    assert first.serialized_model_proto() == second.serialized_model_proto()


def test_a_trained_tokenizer_spends_less_than_bytes_do_on_its_own_texts() -> None:
    model = train_sentencepiece(CORPUS, 320, "bpe")
    assert fertility("bpe", CORPUS, model.encode).tokens < sum(len(text.encode()) for text in CORPUS) / 2


@pytest.mark.parametrize(
    ("texts", "size", "message"), [([" "], 300, "no text"), (["ab"], 5000, "[Vv]ocabulary")]
)
def test_a_tokenizer_that_cannot_be_trained_says_why(texts: list[str], size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        train_sentencepiece(texts, size)
    assert "\n" not in str(caught.value)
