"""Token counts are what they say, intervals cover, and trained tokenizers give back what they were given."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.models.resolve import resolve
from lib.tasks import readers as corpora
from lib.tasks.task import Task
from lib.tasks.token_cost import (
    Fertility,
    fertility,
    joint_tokenizers,
    premium,
    prompt_cost,
    ratio,
    study,
    study_texts,
    train_sentencepiece,
    translations,
)

STARTER = Path(__file__).parent.parent / "data" / "starter_bn.jsonl"
EXTERNAL = Path(__file__).parent.parent / "data" / "external"
CORPUS = [
    "একটি সংখ্যা দেওয়া আছে, যোগফল বের করো।",
    "def add(a, b):\n    return a + b\n",
    "দুটি সংখ্যার গুণফল কত?",
] * 8


def joined(tokens: Any) -> str:
    return "".join(tokens)


def by_unit(rows: list[Fertility]) -> dict[str, Fertility]:
    return {row.unit: row for row in rows}


def task(name: str, prompt: str, reference: str = "", split: str = "train", language: str = "bn") -> Task:
    return Task(name, "s", split, prompt, language, "python", "function", reference=reference)


# ---------------------------------------------------------------------- ratios


def test_a_ratio_by_hand() -> None:
    """R = 6/4; residuals 1 − 1.5, 2 − 1.5, 3 − 3; se = sqrt(3/2 · 0.5)/4."""
    found = ratio([1, 2, 3], [1, 1, 2])
    half = 1.959964 * math.sqrt(1.5 * 0.5) / 4
    assert found == pytest.approx((1.5, 1.5 - half, 1.5 + half))


def test_a_mean_has_the_interval_of_a_mean() -> None:
    values = [3.0, 5.0, 10.0]
    found = ratio(values, [1, 1, 1])
    variance = sum((value - 6) ** 2 for value in values) / 2
    assert found.hi - found.rate == pytest.approx(1.959964 * math.sqrt(variance / 3))


def test_one_text_has_no_interval() -> None:
    found = ratio([4], [2])
    assert found.rate == 2 and math.isnan(found.lo) and math.isnan(found.hi)


def test_a_ratio_to_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="sum to 0"):
        ratio([1, 2], [0, 0])


def test_nineteen_intervals_in_twenty_cover_the_true_ratio() -> None:
    """Texts of 1 to 20 words, 2 tokens a word on average: samples of 60 cover 2 about 95 % of the time."""
    draw = random.Random(0)
    covered = 0
    for _ in range(400):
        words = [draw.randint(1, 20) for _ in range(60)]
        tokens = [sum(draw.choice((1, 2, 3)) for _ in range(count)) for count in words]
        found = ratio(tokens, words)
        covered += found.lo <= 2 <= found.hi
    assert 0.91 <= covered / 400 <= 0.98


# ---------------------------------------------------------------------- fertility


def test_fertility_by_hand() -> None:
    rows = by_unit(fertility("characters", "two", ["কি খা", "ab"], list, joined))
    assert {(row.tokens, row.n, row.round_trips) for row in rows.values()} == {(7, 2, 2)}
    assert rows["word"].rate == pytest.approx(7 / 3)  # কি, খা, ab
    assert rows["character"][5:8] == pytest.approx((1.0, 1.0, 1.0))  # every text spends the same
    assert rows["grapheme"].rate == pytest.approx(7 / 5)  # কি, space, খা, a, b
    assert rows["text"].rate == pytest.approx(3.5)


def test_a_word_with_joiners_and_marks_is_one_word() -> None:
    rows = fertility("one", "texts", ["র\u200d্যাম"], lambda text: [text], joined)
    assert by_unit(rows)["word"].rate == 1.0


def test_a_lossy_tokenizer_is_caught_by_its_round_trips() -> None:
    rows = fertility("lossy", "texts", ["Ab", "ab"], list, lambda tokens: joined(tokens).lower())
    assert {row.round_trips for row in rows} == {1}


@pytest.mark.parametrize("texts", [["!"], []])
def test_fertility_without_words_is_refused(texts: list[str]) -> None:
    with pytest.raises(ValueError, match=f"no words in {len(texts)} texts"):
        fertility("empty", "nothing", texts, list, joined)


def test_texts_are_told_apart_by_language_and_by_side() -> None:
    tasks = [
        task("1", "ক", "a = 1"),
        task("2", "খ", "", "dev"),
        task("3", "word", "b = 2", "test", "en"),
        Task("4", "s", "train", "গ", "bn", "lua", "program", reference="x", references=(("python", "c"),)),
    ]
    assert study_texts(tasks) == {
        "Bangla prompts, held out": ["খ"],
        "Bangla prompts, training": ["ক", "গ"],
        "English prompts, held out": ["word"],
        "Python targets, held out": ["b = 2"],
        "Python targets, training": ["a = 1", "c"],
    }


def test_a_study_crosses_texts_and_tokenizers() -> None:
    rows = study({"a": ["x y"], "b": ["z"]}, {"one": (list, joined), "two": (str.split, " ".join)})
    assert {(row.texts, row.tokenizer) for row in rows} == {(t, k) for t in "ab" for k in ("one", "two")}
    assert len(rows) == 4 * 4


# ---------------------------------------------------------------------- what Bangla costs


def test_translations_share_a_reference_that_nothing_else_has() -> None:
    left = [task("1", "ক", "f\n"), task("2", "খ", "g"), task("3", "গ", "g"), task("4", "ঘ"), task("5", "ঙ", "h")]
    right = [task("a", "one", "f"), task("b", "two", "g"), task("c", "none"), task("d", "other", "i")]
    assert [(one.task_id, other.task_id) for one, other in translations(left, right)] == [("1", "a")]


def test_the_premium_by_hand() -> None:
    assert premium([("abcd", "ab"), ("ab", "a")], list).rate == pytest.approx(6 / 3)


def test_prompt_cost_by_hand() -> None:
    assert prompt_cost([100, 300], 1000, 50.0) == (2, 200.0, 300, 0.2, 0.3, 4.0, 8.0)


@pytest.mark.parametrize(("lengths", "window", "speed"), [([], 10, 1.0), ([1], 0, 1.0), ([1], 10, 0.0)])
def test_a_cost_without_prompts_window_or_speed_is_refused(lengths: list[int], window: int, speed: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        prompt_cost(lengths, window, speed)


# ---------------------------------------------------------------------- real tokenizers


@pytest.fixture(scope="module")
def starter() -> list[Task]:
    return corpora.read(STARTER)


@pytest.fixture(scope="module")
def own() -> tuple[Callable[[str], list[int]], Callable[[Any], str]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(resolve("embedded") / "tokenizer.json"))
    return (
        lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
        lambda ids: tokenizer.decode(list(ids), skip_special_tokens=False),
    )


def test_every_starter_text_survives_every_tokenizer(starter: list[Task], own: Any) -> None:
    joint = joint_tokenizers([task for task in starter if task.split == "train"], 1024)
    rows = study(study_texts(starter), {"own": own, **joint})
    assert len(rows) == 4 * 3 * 4
    assert all(row.round_trips == row.n for row in rows)


def test_a_joint_tokenizer_is_cheaper_on_bangla_it_never_saw(starter: list[Task], own: Any) -> None:
    joint = joint_tokenizers([task for task in starter if task.split == "train"], 1024)
    texts = study_texts(starter)["Bangla prompts, held out"]
    words = {row.tokenizer: row for row in study({"": texts}, {"own": own, **joint}) if row.unit == "word"}
    assert 8 < words["own"].rate < 10  # the embedded model's tokenizer writes Bangla nearly byte by byte
    assert all(words[name].hi < words["own"].lo for name in joint)


@pytest.mark.skipif(not EXTERNAL.is_dir(), reason="data/external is absent: no translations to compare")
def test_blp_test_tasks_are_found_in_mbpp(own: Any) -> None:
    pairs = translations(corpora.read(EXTERNAL / "blp/test_full.csv"), corpora.read(EXTERNAL / "mbpp/mbpp.jsonl"))
    numbers = {int(bangla.task_id): int(english.task_id) for bangla, english in pairs}
    assert len(pairs) == 497  # three references solve two MBPP tasks each
    assert all(english == (blp + 10 if blp <= 490 else blp - 490) for blp, english in numbers.items())
    assert premium([(bangla.prompt, english.prompt) for bangla, english in pairs], own[0]).lo > 5


# ---------------------------------------------------------------------- joint tokenizers


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_trained_tokenizer_reads_back_text_it_never_saw(kind: str) -> None:
    for corpus in (CORPUS, ["nospace"]):
        model = train_sentencepiece(corpus, 305, kind)  # type: ignore[arg-type]
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
    assert sum(len(model.encode(text)) for text in CORPUS) < sum(len(text.encode()) for text in CORPUS) / 2


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_texts_with_little_in_them_give_a_smaller_vocabulary(kind: str) -> None:
    assert 256 < train_sentencepiece(["ab"], 5000, kind).get_piece_size() < 300  # type: ignore[arg-type]


@pytest.mark.parametrize(("texts", "size", "message"), [([" "], 300, "no text"), (["ab"], 100, "[Vv]ocabulary")])
def test_a_tokenizer_that_cannot_be_trained_says_why(texts: list[str], size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        train_sentencepiece(texts, size)
    assert "\n" not in str(caught.value)
