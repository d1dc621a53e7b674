"""Which arguments a task is made for, as far as its tests show: nothing that fuzzing makes up may leave that domain.

A prompt states its domain in words ("a positive number", "two lists of one length"), the tests show it in values.
Learnt from the arguments of the tests: the types at each place, the signs and the largest magnitude of numbers, the
lengths and the characters of texts, the lengths of containers, what all lists at a place have in common (sorted,
distinct, rows of one length), and how two arguments hang together (equal lengths, a length, an order, an index,
membership).
"""

import collections
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Arguments = tuple[Any, ...]
Place = tuple[Any, ...]  # an argument's number, then a step per level of nesting


def places(value: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    """Yield every value inside a value with its place; items of a list or set share one, those of a tuple do not."""
    yield place, value
    if isinstance(value, dict):
        inside = [
            ((*place, step), item) for pair in value.items() for step, item in zip(("key", "value"), pair, strict=True)
        ]
    elif isinstance(value, tuple):
        inside = [((*place, step), item) for step, item in enumerate(value)]
    else:
        inside = [((*place, "item"), item) for item in value] if isinstance(value, list | set) else []
    for where, item in inside:
        yield from places(item, where)


ENOUGH = 3  # examples before an order or a lack of repeats is taken for a rule; equal lengths are one from the first
SHAPE_RULES: tuple[Callable[[list[Any]], bool], ...] = (lambda items: len({len(item) for item in items}) <= 1,)
LIST_RULES: tuple[Callable[[list[Any]], bool], ...] = (
    lambda items: all(a <= b for a, b in itertools.pairwise(items)),
    lambda items: all(a >= b for a, b in itertools.pairwise(items)),
    lambda items: len(set(map(repr, items))) == len(items),
)
LENGTH_RULES: tuple[Callable[[Any, Any], bool], ...] = (
    lambda a, b: len(a) == len(b),
    lambda a, b: len(a) == b,
    lambda a, b: len(a) >= b,
)
PAIR_RULES: tuple[Callable[[Any, Any], bool], ...] = (
    lambda a, b: len(a) > b,
    lambda a, b: a <= b,
    lambda a, b: a < b,
    lambda a, b: b in a,
)


def holds(rule: Callable[..., bool], *values: Any) -> bool:
    """Return whether a rule holds; not where it has no meaning for these values."""
    try:
        return bool(rule(*values))
    except TypeError:
        return False


class Domain:
    """The domain that the arguments of some tests show."""

    def __init__(self, seeds: Sequence[Arguments]) -> None:
        self._seeds = seeds
        self._seen: dict[Place, list[Any]] = collections.defaultdict(list)
        for place, value in (found for seed in seeds for found in places(seed, ())):
            self._seen[place].append(value)
        self._list_rules: dict[Place, list[Callable[[list[Any]], bool]]] = {}
        for place, values in self._seen.items():
            lists = [value for value in values if isinstance(value, list) and len(value) > 1]
            rules = SHAPE_RULES + (LIST_RULES if len(lists) >= ENOUGH else ())
            self._list_rules[place] = [rule for rule in rules if lists and all(holds(rule, one) for one in lists)]
        pairs = itertools.permutations(range(min(map(len, seeds), default=0)), 2)
        pair_rules = LENGTH_RULES + (PAIR_RULES if len(seeds) >= ENOUGH else ())
        self._pair_rules = [
            (i, j, rule)
            for i, j in pairs
            for rule in pair_rules
            if all(holds(rule, seed[i], seed[j]) for seed in seeds)
        ]

    def admits(self, arguments: Arguments) -> bool:
        """Return whether arguments lie in the domain."""
        return all(self._admits(place, value) for place, value in places(arguments, ())) and all(
            holds(rule, arguments[i], arguments[j]) for i, j, rule in self._pair_rules
        )

    def draw(self, rng: random.Random) -> Arguments:
        """Return arguments made anew from the ranges, lengths and characters seen; they may still lie outside.

        Now and then all numbers are the largest or smallest seen, and an argument is made out of an earlier one.
        """
        at_ends, drawn = rng.random() < 0.2, list[Any]()
        for number, value in enumerate(rng.choice(self._seeds)):
            made = self._drawn((number,), value, rng, at_ends)
            alike = [other for other in drawn if type(other) is type(made)]
            drawn.append(_related(rng.choice(alike), made, rng) if alike and rng.random() < 0.5 else made)
        return tuple(drawn)

    def _drawn(self, place: Place, value: Any, rng: random.Random, at_ends: bool) -> Any:
        alike = [other for other in self._seen[place] if type(other) is type(value)]
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _number(min(alike), max(alike), rng, at_ends)
        if isinstance(value, str):
            return "".join(_arranged([rng.choice("".join(alike)) for _ in range(_length(alike, rng))], rng))
        if isinstance(value, tuple):
            return tuple(self._drawn((*place, number), item, rng, at_ends) for number, item in enumerate(value))
        if isinstance(value, list | set | dict):
            items = [item for other in alike for item in (other.values() if isinstance(other, dict) else other)]
            inside = (*place, "value" if isinstance(value, dict) else "item")
            made = [self._drawn(inside, rng.choice(items), rng, at_ends) for _ in range(_length(alike, rng))]
            if not isinstance(value, dict):
                return type(value)(_arranged(made, rng))
            keys = list(dict.fromkeys(key for other in alike for key in other))
            return dict(zip(rng.sample(keys, min(len(keys), len(made))), _arranged(made, rng), strict=False))
        return rng.choice(alike)

    def _admits(self, place: Place, value: Any) -> bool:
        alike = [other for other in self._seen.get(place, ()) if type(other) is type(value)]
        if not alike:
            return False
        if isinstance(value, bool) or value is None:
            return True
        if isinstance(value, int | float):
            least, greatest = min(alike), max(alike)
            return (value > 0 or least <= value) and (value < 0 or value <= greatest) and (value != 0 or 0 in alike)
        if not isinstance(value, str | list | tuple | set | dict):  # complex numbers, bytes
            return value in alike
        sizes = [len(other) for other in alike]
        if isinstance(value, tuple):
            return len(value) in sizes
        if not min(1, min(sizes)) <= len(value) <= max(sizes) or (
            isinstance(value, str) and not set(value) <= set().union(*alike)
        ):
            return False
        return (
            not isinstance(value, list) or len(value) < 2 or all(holds(rule, value) for rule in self._list_rules[place])
        )


def _length(alike: Sequence[Any], rng: random.Random) -> int:
    """Return a length from 1 to the largest seen, 0 where nothing else was seen."""
    most = max(map(len, alike))
    return rng.choice([1, most, most, rng.randint(1, most)]) if most else 0


def _arranged(items: list[Any], rng: random.Random) -> list[Any]:
    """Return drawn items as they are, or with repeats, all equal, the same backwards, sorted or reversed."""
    few, half = items[: rng.randint(1, 3)], items[: (len(items) + 1) // 2]
    repeated = [rng.choice(few) for _ in items]
    ordered = sorted(
        items, key=lambda item: (type(item).__name__, item if isinstance(item, int | float) else repr(item))
    )
    return rng.choice([items, repeated, repeated, half + half[: len(items) // 2][::-1], ordered, ordered[::-1]])


def _related(first: Any, second: Any, rng: random.Random) -> Any:
    """Return a value of two alike ones' type that is close to the first: an argument often is close to another."""
    if isinstance(first, tuple) and len(first) == len(second):
        return tuple(rng.choice(pair) for pair in zip(first, second, strict=True))
    if isinstance(first, str | list) and first:
        items = list(first)
        items[rng.randrange(len(items))] = rng.choice(items)
        items = rng.choice([list(first), items, rng.sample(list(first), len(first)), rng.sample(items, len(items))])
        return "".join(items) if isinstance(first, str) else items
    return first


def _number(least: Any, greatest: Any, rng: random.Random, at_ends: bool) -> Any:
    """Return a number of a sign that was seen and no larger than those seen: a limit, one beside it, or any between."""
    end = rng.choice([end for end in (least, greatest) if end] or [least])
    if at_ends or not end:
        return end
    if isinstance(end, float):
        return rng.choice([end, end / 2, round(rng.uniform(0, end), 1), round(rng.uniform(0, end), 2)])
    size, sign = abs(end), -1 if end < 0 else 1
    small = min(size, 2 ** rng.randint(0, size.bit_length()))
    return sign * rng.choice([size, max(1, size - 1), 1, rng.randint(1, size), rng.randint(1, size), small])
