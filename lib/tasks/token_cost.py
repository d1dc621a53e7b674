"""What a language costs in tokens: fertility of a tokenizer, joint tokenizers to compare it with, share of a context.

Differs from the paper (section 4) in: the joint tokenizers are trained for the study only and never replace the
model's own; they are small, since a training split is, so their vocabulary stands beside every number.

Intervals are for a ratio of totals over texts taken as a sample: they say how far another set of such texts may lie,
not how far another kind of text does.
"""

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import regex

from lib.tasks.task import Task

Encode = Callable[[str], Sequence[Any]]
Decode = Callable[[Sequence[Any]], str]

LANGUAGES = {"bn": "Bangla", "en": "English"}
Z95 = 1.959964  # the normal distribution's 97.5 % point
_GRAPHEME = regex.compile(r"\X")
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}_\u200c\u200d]+")
# Words are runs of letters, marks, digits and joiners; graphemes are extended grapheme clusters (UAX 29).
UNITS: dict[str, Callable[[str], int]] = {
    "word": lambda text: len(_WORD.findall(text)),
    "character": len,
    "grapheme": lambda text: len(_GRAPHEME.findall(text)),
    "text": lambda text: 1,
}


class Ratio(NamedTuple):
    """A ratio of totals with its 95 % interval, which is nan for a single text."""

    rate: float
    lo: float
    hi: float


class Fertility(NamedTuple):
    """Tokens a unit, for one tokenizer on one kind of text."""

    tokenizer: str
    texts: str
    unit: str  # word, character, grapheme or text
    n: int  # texts
    tokens: int
    rate: float
    lo: float
    hi: float
    round_trips: int  # texts that decode to themselves


class Cost(NamedTuple):
    """What prompts take of a model's context, and the time to read them once each, nothing cached."""

    prompts: int
    mean_tokens: float
    longest_tokens: int
    mean_share: float  # of the context window
    longest_share: float
    mean_prefill_s: float
    all_prefill_s: float


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """R = Σx/Σu with a linearised interval: se = sqrt(n/(n−1) Σ(x − R u)²)/Σu (Cochran 1977, section 6.3).

    Raises ValueError when the denominators sum to nothing.
    """
    n, total = len(denominators), sum(denominators)
    if total <= 0:
        raise ValueError(f"ratio: the denominators of {n} texts sum to {total}; it should be above 0")
    rate = sum(numerators) / total
    if n == 1:
        return Ratio(rate, math.nan, math.nan)
    squares = sum((x - rate * u) ** 2 for x, u in zip(numerators, denominators, strict=True))
    half = Z95 * math.sqrt(n / (n - 1) * squares) / total
    return Ratio(rate, rate - half, rate + half)


def fertility(tokenizer: str, name: str, texts: Sequence[str], encode: Encode, decode: Decode) -> list[Fertility]:
    """Tokens a word, a character, a grapheme and a text over `texts`, one row a unit.

    `encode` should add no special tokens. Raises ValueError when no text holds a word.
    """
    encoded = [encode(text) for text in texts]
    lengths = [len(ids) for ids in encoded]
    whole = sum(decode(ids) == text for ids, text in zip(encoded, texts, strict=True))
    counts = {unit: [count(text) for text in texts] for unit, count in UNITS.items()}
    if not sum(counts["word"]):
        raise ValueError(f"{name}: no words in {len(texts)} texts; fertility needs at least one")
    return [
        Fertility(tokenizer, name, unit, len(texts), sum(lengths), *ratio(lengths, units), whole)
        for unit, units in counts.items()
    ]


def study_texts(tasks: Sequence[Task]) -> dict[str, list[str]]:
    """What the study measures: prompts by language and Python targets, of the training split and of the others."""
    texts: dict[str, list[str]] = {}
    for task in tasks:
        side = "training" if task.split == "train" else "held out"
        language = LANGUAGES.get(task.natural_language, task.natural_language)
        texts.setdefault(f"{language} prompts, {side}", []).append(task.prompt)
        for target in _python(task):
            texts.setdefault(f"Python targets, {side}", []).append(target)
    return dict(sorted(texts.items()))


def study(texts: Mapping[str, Sequence[str]], tokenizers: Mapping[str, tuple[Encode, Decode]]) -> list[Fertility]:
    """Every tokenizer on every kind of text."""
    return [
        row
        for name, some in texts.items()
        for tokenizer, (encode, decode) in tokenizers.items()
        for row in fertility(tokenizer, name, some, encode, decode)
    ]


def joint_tokenizers(tasks: Sequence[Task], vocabulary: int) -> dict[str, tuple[Encode, Decode]]:
    """A BPE and a unigram tokenizer trained on the prompts and Python targets of `tasks`, named with their size."""
    texts = [text for task in tasks for text in (task.prompt, *_python(task))]
    tokenizers: dict[str, tuple[Encode, Decode]] = {}
    for kind, name in (("bpe", "BPE"), ("unigram", "unigram")):
        model = train_sentencepiece(texts, vocabulary, kind)  # type: ignore[arg-type]
        tokenizers[f"joint {name}, {model.get_piece_size():,} pieces"] = (model.encode, model.decode)
    return tokenizers


def _python(task: Task) -> Iterator[str]:
    own = task.reference if task.programming_language == "python" else ""
    target = own or dict(task.references).get("python", "")
    if target:
        yield target


def translations(left: Sequence[Task], right: Sequence[Task]) -> list[tuple[Task, Task]]:
    """Tasks of two corpora that have the same reference program, where only one of each side has it."""
    sides: list[dict[str, list[Task]]] = [{}, {}]
    for tasks, by_reference in zip((left, right), sides, strict=True):
        for task in tasks:
            if task.reference.strip():
                by_reference.setdefault(task.reference.strip(), []).append(task)
    shared = [(sides[0][code], sides[1].get(code, [])) for code in sides[0]]
    return [(mine[0], theirs[0]) for mine, theirs in shared if len(mine) == len(theirs) == 1]


def premium(pairs: Sequence[tuple[str, str]], encode: Encode) -> Ratio:
    """Tokens for the first text of a pair over tokens for the second: what asking in another language costs.

    Above 1, the first language is the dearer one (the tokenizer premium of Petrov et al. 2023, arXiv 2305.15425).
    """
    return ratio(
        [len(encode(first)) for first, _ in pairs],
        [len(encode(second)) for _, second in pairs],
    )


def prompt_cost(lengths: Sequence[int], window: int, tokens_per_second: float) -> Cost:
    """What prompts of these lengths, in tokens, take of a context of `window` tokens, and seconds to read them.

    Raises ValueError without a prompt, or for a window or a speed that is not above 0.
    """
    if not lengths or window <= 0 or tokens_per_second <= 0:
        raise ValueError(
            f"prompt_cost: {len(lengths)} prompts, window {window}, {tokens_per_second} tokens/s;"
            " each should be above 0"
        )
    mean, longest = sum(lengths) / len(lengths), max(lengths)
    return Cost(
        prompts=len(lengths),
        mean_tokens=mean,
        longest_tokens=longest,
        mean_share=mean / window,
        longest_share=longest / window,
        mean_prefill_s=mean / tokens_per_second,
        all_prefill_s=sum(lengths) / tokens_per_second,
    )


def train_sentencepiece(
    texts: Sequence[str], vocab_size: int, model_type: Literal["bpe", "unigram"] = "unigram", threads: int = 1
) -> Any:
    """A SentencePiece processor trained on `texts` alone, lossless: bytes for unseen characters, white space
    kept.

    It has at most `vocab_size` pieces, and fewer when the texts hold no more. Normalise the texts first; the
    model itself changes nothing, save that it reads U+2581 back as a space. Raises ValueError when the texts
    are empty or have more characters than there may be pieces (the paper's section 4: a joint tokenizer over
    Bangla and Python).
    """
    import sentencepiece

    if not any(text.strip() for text in texts):
        raise ValueError("train_sentencepiece: no text to train on")
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([line for text in texts for line in text.splitlines() if line.strip()]),
            model_writer=written,
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            model_type=model_type,
            num_threads=threads,
            byte_fallback=True,
            character_coverage=1.0,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            user_defined_symbols=["\n", "\t"],
            required_chars="\u2581",  # a space, also where no text has one
            max_sentence_length=1 << 16,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = regex.sub(r"^.*\] ", "", str(error).strip().splitlines()[-1])
        raise ValueError(f"train_sentencepiece: {reason}") from None
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
