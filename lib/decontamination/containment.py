"""Texts that stand word for word inside longer ones: an evaluation task in a wrapper, or two tasks in one prompt.

Differs from the paper in: the paper compares whole items only, so a task inside a long text is not
similar to it and passes. Here containment is a match of its own, in both directions, however long the rest is.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Protocol

from lib.decontamination.canonical import ANYWHERE_WORDS

WRAPPED_WORDS = 8  # two texts that differ in as many words in a row, and hardly share any there, share a wrapper alone
UNRELATED = 0.3  # Jaccard similarity of character 4-grams below which two passages are about different things


class Text(Protocol):
    """What is needed of an item: its canonical statement, all its words, and its short sentences."""

    @property
    def exact_prompt(self) -> str: ...
    @property
    def whole_prompt(self) -> str: ...
    @property
    def sentences(self) -> frozenset[str]: ...


class Containment:
    """The texts of one side, indexed so that those which hold a given text, or stand in it, are found quickly.

    A statement of ANYWHERE_WORDS words or more counts wherever it stands; a shorter one only where it is a sentence
    or a run of sentences, since three words in a row prove nothing.
    """

    def __init__(self, texts: Sequence[Text]) -> None:
        self._statements = [f" {text.exact_prompt} " for text in texts]
        self._wholes = [(f" {text.exact_prompt} ", f" {text.whole_prompt} ") for text in texts]
        words = [text.exact_prompt.split() for text in texts]
        common = Counter(word for some in words for word in set(some))
        self._by_rarest_word: dict[str, list[int]] = defaultdict(list)
        self._short: dict[str, list[int]] = defaultdict(list)
        self._sentences: dict[str, list[int]] = defaultdict(list)
        self._with_word: dict[str, set[int]] = defaultdict(set)
        for number, (text, some) in enumerate(zip(texts, words, strict=True)):
            if len(some) >= ANYWHERE_WORDS:
                self._by_rarest_word[min(some, key=lambda word: (common[word], -len(word)))].append(number)
            elif some:
                self._short[text.exact_prompt].append(number)
            for sentence in text.sentences:
                self._sentences[sentence].append(number)
            for word in {*some, *text.whole_prompt.split()}:
                self._with_word[word].add(number)

    def matches(self, text: Text) -> Iterator[int]:
        """Yield the places of the texts that hold the statement of `text`, or whose statement stands in `text`."""
        longer = (f" {text.exact_prompt} ", f" {text.whole_prompt} ")
        for word in set(text.whole_prompt.split()):
            for number in self._by_rarest_word.get(word, ()):
                if any(self._statements[number] in whole for whole in longer):
                    yield number
        for sentence in text.sentences:
            yield from self._short.get(sentence, ())
        words = set(text.exact_prompt.split())
        if len(text.exact_prompt.split()) < ANYWHERE_WORDS:
            yield from self._sentences.get(text.exact_prompt, ())
        elif all(word in self._with_word for word in words):
            holding = set.intersection(*sorted((self._with_word[word] for word in words), key=len))
            yield from (n for n in holding if any(longer[0] in whole for whole in self._wholes[n]))


def only_wrapper_shared(first: str, second: str) -> bool:
    """Return whether two canonical texts are alike only in what stands before and after two unrelated passages."""
    one, other = first.split(), second.split()
    shortest = min(len(one), len(other))
    head = next((i for i in range(shortest) if one[i] != other[i]), shortest)
    rest = shortest - head
    tail = next((i for i in range(rest) if one[-1 - i] != other[-1 - i]), rest)
    passages = one[head : len(one) - tail], other[head : len(other) - tail]
    if head + tail == 0 or min(map(len, passages)) < WRAPPED_WORDS:
        return False
    grams = [{text[i : i + 4] for i in range(len(text) - 3)} for text in map(" ".join, passages)]
    return len(grams[0] & grams[1]) < UNRELATED * len(grams[0] | grams[1])
