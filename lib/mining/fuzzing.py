"""Fuzzed asserts: more tests for a task, made from the ones it has and a program that is known to be right.

An assert `f(literals) == literal` gives arguments; perturbed by type and boundary, after the type-aware
mutation of EvalPlus (Liu et al. 2023, section 2), they make new calls. The value comes from an *oracle*: the
reference, or without one several independently sampled winners. A test is kept if every run of every oracle
answers alike, under two hash seeds. A passing sample must pass them too.

All programs run in the sandbox. Of what they print only plain literals are read, and what stands in a test is
written anew from their values: nothing a program wrote gets into one.

New arguments stay inside the domain that the tests show (`lib.mining.domain`): signs, ranges, lengths, characters,
order. Where a prompt allows less than its tests show and the reference answers all the same, a right program may still
be rejected; `Effect.lost` counts those, `benchmarks/fuzzing.py` measures the rate. Winners that agree may be wrong
together. Left out are calls that raise or take more than a tenth of the task's time, texts above 300 characters, and
floats inside a container, for which `==` is too strict.
"""

import ast
import collections
import dataclasses
import itertools
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lib.mining.domain import Arguments, Domain
from lib.mining.grading import checked, grade_all
from lib.mining.ledger import Attempt, Key
from lib.mining.select import syntax_digest
from lib.sandbox import Sandbox, SandboxError, Status
from lib.stats.intervals import Interval, wilson_interval
from lib.tasks.extract import parse
from lib.tasks.task import Case, Task, TestSet

Change = Callable[[Any], list[Any]]
NOT_REJECTED = (Status.SUCCESS, Status.UNSUPPORTED_TEST)
MOST_CHARACTERS = 300  # of the arguments and of the value of a test
CHOICE = 3  # answers to choose from for each test wanted
MOST_TRIES = 1000  # of arguments several steps away, where most lie outside the domain
MOST_DEATHS = 3  # of an oracle, by its limits or its own hand, before it is asked no more


def fuzz(task: Task, oracle_programs: Sequence[str], count: int, seed: int, sandbox: Sandbox) -> tuple[str, ...]:
    """At most `count` new asserts for a Python function task; none where there is nothing to perturb.

    Arguments come from the visible tests, from the hidden ones where those give none. The first oracle that
    passes all tests of the task gives the values, and all that pass them must agree; fewer tests come back
    where fewer can be had. Raises ValueError for count < 1, SandboxError when the sandbox itself fails.
    """
    if count < 1:
        raise ValueError(f"count={count}: should be at least 1")
    if (task.mode, task.programming_language) != ("function", "python"):
        return ()
    seeds = arguments_of(task, task.visible_tests) or arguments_of(task, task.hidden_tests)
    oracles = [program for program in oracle_programs if _passes(sandbox, task, program)] if seeds else []
    if not oracles:
        return ()
    mutator = Mutator(seeds, constants_of(oracles[0]), random.Random(f"{seed}:{task.task_id}"))
    known = arguments_of(task, task.tests("all"))
    calls = list(itertools.islice(mutator.arguments(known), 2 * CHOICE * count))
    first = answered(task, oracles[0], calls, CHOICE * count, sandbox=sandbox, hash_seed=1)
    again = answered(task, oracles[0], [call for call, _ in first], len(first), sandbox=sandbox, hash_seed=2)
    same = {(text_of(call), text_of(value)) for call, value in again}
    answers = [(call, value) for call, value in first if (text_of(call), text_of(value)) in same]
    tests = [as_assert(task.entry_point, call, value) for call, value in spread(answers)]
    if not tests or _all_pass(sandbox, task, oracles, tests[:count]):
        return tuple(tests[:count])
    each = (test for test in tests if _all_pass(sandbox, task, oracles, [test]))
    agreed = tuple(itertools.islice(each, count))
    return agreed if agreed and _all_pass(sandbox, task, oracles, agreed) else ()


def fuzz_all(tasks: Sequence[Task], count: int, seed: int, sandbox: Sandbox) -> list[tuple[str, ...]]:
    """`fuzz` for every task by its reference, several at a time; a task without a reference gets none."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda task: fuzz(task, oracles_of(task), count, seed, sandbox), tasks))


def oracles_of(task: Task, winners: Iterable[str] = ()) -> tuple[str, ...]:
    """The reference; without one, winners that differ in syntax, at least two; else none."""
    if task.reference:
        return (task.reference,)
    distinct = tuple({syntax_digest(winner): winner for winner in winners}.values())
    return distinct if len(distinct) > 1 else ()


def hardened(tasks: Sequence[Task], tests: TestSet, count: int, seed: int, sandbox: Sandbox) -> list[Task]:
    """The tasks with one set of their tests and up to `count` asserts made from these alone, added to the same set."""
    without: dict[str, Any] = {"visible": {"hidden_tests": ()}, "hidden": {"visible_tests": ()}, "all": {}}
    scored = [dataclasses.replace(task, **without[tests]) for task in tasks]
    name = "visible_tests" if tests == "visible" else "hidden_tests"
    return [
        dataclasses.replace(task, **{name: getattr(task, name) + more})
        for task, more in zip(scored, fuzz_all(scored, count, seed, sandbox), strict=True)
    ]


def rejected(
    attempts: Iterable[Attempt], tasks: Sequence[Task], asserts: Sequence[Sequence[str]], sandbox: Sandbox
) -> set[Key]:
    """Return the keys of attempts that fail a fuzzed assert of their task. Raises SandboxError as `grade_all` does."""
    only = {
        task.task_id: dataclasses.replace(task, visible_tests=(), hidden_tests=tuple(tests))
        for task, tests in zip(tasks, asserts, strict=True)
        if tests
    }
    graded = [attempt for attempt in attempts if attempt.task_id in only]
    verdicts = grade_all(sandbox, [(only[attempt.task_id], attempt.program) for attempt in graded])
    return {
        attempt.key for attempt, verdict in zip(graded, verdicts, strict=True) if verdict.status not in NOT_REJECTED
    }


def _passes(sandbox: Sandbox, task: Task, program: str) -> bool:
    return checked(sandbox.grade(task, program, "all"), task.task_id).status == Status.SUCCESS


def _all_pass(sandbox: Sandbox, task: Task, programs: Sequence[str], tests: Sequence[str]) -> bool:
    alone = dataclasses.replace(task, visible_tests=(), hidden_tests=tuple(tests))
    return all(_passes(sandbox, alone, program) for program in programs)


# -------------------------------------------------------------------------------------- from and to text


def arguments_of(task: Task, tests: Iterable[str]) -> list[Arguments]:
    """The arguments of each assert that says what one call of the entry point returns, all of them literals.

    `f(2) == 4`, `round(f(2), 1) == 4`, `abs(f(2) - 4) < 1e-9` and `math.isclose(f(2), 4)` say so;
    `sorted(f(2)) == [4]` and `f(2) in (4, 5)` leave it open.
    """
    found = []
    for test in tests:
        try:
            (statement,) = parse(test).body
            call = _said_of(statement.test) if isinstance(statement, ast.Assert) else None
            if isinstance(call, ast.Call) and call.args and not call.keywords:
                if ast.unparse(call.func) == task.entry_point:
                    found.append(tuple(ast.literal_eval(argument) for argument in call.args))
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
            continue
    return found


def _said_of(test: ast.expr) -> ast.expr | None:
    """What a test compares with a literal, by `==` or up to rounding; None for tests of other forms."""
    match test:
        case ast.Compare(left=ast.Call(func=ast.Name("round"), args=[inner, *_]), ops=[ast.Eq()]):
            return inner
        case ast.Compare(left=side, ops=[ast.Eq() | ast.Is()]):
            return side
        case ast.Compare(
            left=ast.Call(func=ast.Name("abs"), args=[ast.BinOp(left=side, op=ast.Sub())]),
            ops=[ast.Lt() | ast.LtE()],
        ):
            return side
        case ast.Call(func=ast.Name("isclose") | ast.Attribute(attr="isclose"), args=[side, *_]):
            return side
    return None


def as_assert(name: str, arguments: Arguments, value: Any) -> str:
    """The test that a call gives a value; a float may be off by 10⁻⁹, or by that share of it.

    Spelt with `abs`, since a test cannot count on the program to import math.
    """
    call = f"{name}({', '.join(map(text_of, arguments))})"
    if isinstance(value, float):
        return f"assert abs({call} - ({value!r})) <= {1e-9 * max(1.0, abs(value))!r}"
    return f"assert {call} == {text_of(value)}"


def text_of(value: Any) -> str:
    """`repr` of a literal, the items of a set sorted: the same text whatever the hash seed."""
    if isinstance(value, set):
        return f"{{{', '.join(sorted(map(text_of, value)))}}}" if value else "set()"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{text_of(key)}: {text_of(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(text_of, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(text_of, value))}{',' * (len(value) == 1)})"
    return repr(value)


def spread(answers: Sequence[tuple[Arguments, Any]]) -> list[tuple[Arguments, Any]]:
    """The same in an order in which every value comes three times, then three times more, and so on.

    A test that expects what most calls give anyway tells little: ten `== False` in a row are one test.
    """
    seen: collections.Counter[str] = collections.Counter()
    ranks = []
    for _, value in answers:
        ranks.append(seen[text_of(value)] // 3)
        seen[text_of(value)] += 1
    return [answers[i] for i in sorted(range(len(answers)), key=ranks.__getitem__)]


# ------------------------------------------------------------------------------------------ perturbation


def constants_of(program: str) -> list[Any]:
    """The numbers and short strings a program speaks of: where it changes its mind, most likely."""
    found = [node.value for node in ast.walk(parse(program)) if isinstance(node, ast.Constant)]
    usable = [item for item in found if type(item) in (int, float, str) and len(repr(item)) <= 20]
    return list(dict.fromkeys(usable))


@dataclasses.dataclass(frozen=True)
class Mutator:
    """Makes arguments out of arguments: of the same types, and never None where there was none."""

    seeds: Sequence[Arguments]
    constants: Sequence[Any]
    rng: random.Random

    def arguments(self, known: Iterable[Arguments]) -> Iterator[Arguments]:
        """Arguments not in `known`, each once: by turns a step from a seed and new ones; then more steps."""
        edge = [step for seed in self.seeds for step in self.steps(seed, self.edges)]
        near = [step for seed in self.seeds for step in self.steps(seed, self.near)]
        for some in (edge, near):
            self.rng.shuffle(some)
        seen, domain = set(map(text_of, known)), Domain(self.seeds)
        steps = [one for one in [*edge, *near] if domain.admits(one)]
        turns = (one for step in steps for one in (step, domain.draw(self.rng)))
        far = (
            one
            for _ in range(min(MOST_TRIES, 20 * len(near)))
            for one in (self.far([*edge, *near]), domain.draw(self.rng))
        )
        for arguments in itertools.chain(turns, far):
            text = text_of(arguments)
            if text not in seen and len(text) <= MOST_CHARACTERS and domain.admits(arguments):
                seen.add(text)
                yield arguments

    def far(self, reached: Sequence[Arguments]) -> Arguments:
        """One step from one of `reached`."""
        start = self.rng.choice(reached)
        return self.rng.choice([start, *self.steps(start, self.near)])

    def steps(self, arguments: Arguments, change: Change) -> list[Arguments]:
        """One argument changed, or made equal to or joined with one of its type; two exchanged."""
        made = []
        for place, value in enumerate(arguments):
            there = [seed[place] for seed in self.seeds if len(seed) > place]
            alike = [other for other in (*arguments, *there) if type(other) is type(value)]
            others = change(value) + alike + [joined(value, other) for other in alike]
            made += [(*arguments[:place], other, *arguments[place + 1 :]) for other in others]
        for i, j in itertools.combinations(range(len(arguments)), 2):
            if type(arguments[i]) is type(arguments[j]):
                swapped = list(arguments)
                swapped[i], swapped[j] = swapped[j], swapped[i]
                made.append(tuple(swapped))
        return made

    def edges(self, value: Any) -> list[Any]:
        """The boundaries of a type: nothing, one, the constants and what lies beside them."""
        own = [item for item in self.constants if type(item) is type(value)]
        if type(value) in (int, float):
            one = type(value)(1)
            beside = [item + step for item in own for step in (0 * one, one, -one)]
            return [0 * one, one, -one, -value, *beside]
        if isinstance(value, str):
            return ["", value[:1], value[::-1], *own, *(value + item for item in own)]
        if isinstance(value, list | tuple | set):
            items = _listed(value)
            first = [[other, *items[1:]] for other in self._inside(items[0], self.edges)] if items else []
            return [type(value)(made) for made in ([], items[:1], items[::-1], items + items[:1], *first)]
        if isinstance(value, dict):
            return [{}, dict(list(value.items())[:1])]
        return [not value] if isinstance(value, bool) else []

    def near(self, value: Any) -> list[Any]:
        """Values of the same type near by; None has none."""
        if isinstance(value, bool):
            return [not value]
        if isinstance(value, int):
            between = [self.rng.randint(min(0, value), max(0, value)) for _ in range(4)]
            return [*self.edges(value), *between, value + 1, value - 1, 2 * value]
        if isinstance(value, float):
            fractions = [round(self.rng.uniform(0, value), 1) for _ in range(4)]
            return [*self.edges(value), *fractions, value + 0.5, value - 1]
        if isinstance(value, str):
            return self._strings(value)
        if isinstance(value, list | tuple | set):
            return [type(value)(items) for items in self._sequences(_listed(value))]
        return self._dicts(value) if isinstance(value, dict) else []

    def _strings(self, text: str) -> list[str]:
        rng = self.rng
        made = [text[:-1], text[1:], text + text, text.swapcase(), "".join(rng.sample(text, len(text)))]
        for _ in range(3 if text else 0):
            place = rng.randrange(len(text))
            made += [text[: place + 1] + text[place:], text[:place] + rng.choice(text) + text[place + 1 :]]
        return made

    def _sequences(self, items: list[Any]) -> list[list[Any]]:
        rng = self.rng
        made = [items[:-1], items[1:], items + items, rng.sample(items, len(items))]
        if not items:
            return made
        made += [items[-1:] * len(items), [*items, rng.choice(items)]]
        for _ in range(3):
            place = rng.randrange(len(items))
            made += [[*items[:place], other, *items[place + 1 :]] for other in self._some(items[place])]
            made += [[*items, other] for other in self._some(items[place])]
        moved = list(zip(*(self._inside(item, self.near) for item in items), strict=False))  # all alike
        return made + [list(other) for other in rng.sample(moved, min(3, len(moved)))]

    def _dicts(self, items: dict[Any, Any]) -> list[dict[Any, Any]]:
        pairs = list(items.items())
        made = [dict(some) for some in (pairs[:-1], pairs[1:], pairs[::-1])]
        for _ in range(3 if pairs else 0):
            key, value = self.rng.choice(pairs)
            made += [items | {key: other} for other in self._some(value)]
            made += [items | {other: value} for other in self._some(key)]
        return made

    def _some(self, value: Any) -> list[Any]:
        choices = self._inside(value, self.near)
        return [self.rng.choice(choices)] if choices else []

    def _inside(self, value: Any, change: Change) -> list[Any]:
        """`change` for what stands in a container, where a tuple is a record and keeps its length."""
        if isinstance(value, tuple):
            other = [(i, item) for i, old in enumerate(value) for item in self._inside(old, change)]
            return [(*value[:i], item, *value[i + 1 :]) for i, item in other]
        return change(value)


def joined(first: Any, second: Any) -> Any:
    """What both hold, for containers of one type, so that arguments come to overlap; else the second."""
    if isinstance(first, set | dict):
        return first | second
    return first + second if isinstance(first, str | list) else second


def _listed(value: Any) -> list[Any]:
    """The items in an order that does not hang on hashes."""
    return sorted(value, key=repr) if isinstance(value, set) else list(value)


# -------------------------------------------------------------------------------------------- the oracle

# Prints one line per call, the value or nothing, and ends early rather than fill the little that a verdict keeps.
_ASK = """\
import os, sys
if os.environ.get("PYTHONHASHSEED") != "{hash_seed}":
    os.execve(sys.executable, sys.orig_argv, {{**os.environ, "PYTHONHASHSEED": "{hash_seed}"}})
import io, signal, time
out, sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8"), io.StringIO()
class TooSlow(BaseException):
    pass
def stop(*_):
    raise TooSlow
signal.signal(signal.SIGVTALRM, stop)
def answer(call):
    signal.setitimer(signal.ITIMER_VIRTUAL, {seconds!r})
    try:
        return repr(function(*eval(call)))
    except BaseException:
        return ""
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
space = {{"__name__": "solution"}}
for source in {sources!r}:
    exec(source, space)
function, bytes_left = space[{name!r}], {bytes_left}
for call in {calls!r}:
    text = answer(call)
    if not (text and text == answer(call) and len(text) <= {characters} and text.isprintable()):
        text = ""
    out.write(text + "\\n")
    out.flush()
    bytes_left -= len(text.encode()) + 1
    if bytes_left < 0 or time.process_time() > 5 * {seconds!r}:
        break
"""
BYTES_LEFT = 1900 - 4 * MOST_CHARACTERS  # of a verdict's head, after which no more calls are made


def answered(
    task: Task, program: str, calls: Sequence[Arguments], enough: int, *, sandbox: Sandbox, hash_seed: int = 1
) -> list[tuple[Arguments, Any]]:
    """Return (call, value) of the first `enough` calls that `program` answers with a literal, twice alike."""
    found: list[tuple[Arguments, Any]] = []
    todo, deaths = list(calls), 0
    while todo and len(found) < enough and deaths < MOST_DEATHS:
        source = _ASK.format(
            sources=[task.setup_code, program],
            name=task.entry_point,
            calls=[text_of(call) for call in todo],
            seconds=task.time_limit_s / 10,
            characters=MOST_CHARACTERS,
            bytes_left=BYTES_LEFT,
            hash_seed=hash_seed,
        )
        limits = task.time_limit_s + 1, task.memory_limit_mb
        verdict = checked(sandbox.execute("python", source, [Case("", "")], *limits), task.task_id)
        if verdict.exit_code == 127:
            raise SandboxError(f"fuzzing runs Python as a program: {verdict.stderr_head.strip()}")
        lines = verdict.stdout_head.split("\n")[:-1]
        for call, line in zip(todo, lines, strict=False):
            value = _literal(line)
            found += [(call, value)] if value is not Ellipsis else []
        died = verdict.exit_code != 0 or not lines
        deaths += died
        todo = todo[len(lines) + died :]  # the call it died of is not made again
    return found[:enough]


def _literal(text: str) -> Any:
    """The value of a literal that a test can compare with by `==`; Ellipsis for anything else."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return ...
    return value if isinstance(value, float) and value - value == 0 or not _holds_float(value) else ...


def _holds_float(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_holds_float(item) for pair in value.items() for item in pair)
    if isinstance(value, list | tuple | set):
        return any(map(_holds_float, value))
    return isinstance(value, float | complex) or value is ...


# -------------------------------------------------------------------------------------------- the effect


@dataclasses.dataclass(frozen=True)
class Effect:
    """What fuzzed tests do to a set of winners.

    `right` winners pass the hidden tests; `lost` of these are rejected. Precision is the share of right ones
    among those let through, with its Wilson 95 % interval; None when none is let through.
    """

    winners: int
    right: int
    rejected: int
    lost: int
    precision_before: tuple[float, Interval] | None
    precision_after: tuple[float, Interval] | None


def effect(before: Sequence[bool], after: Sequence[bool], right: Sequence[bool]) -> Effect:
    """From verdicts on the same programs: on the tests at hand, the fuzzed ones and the hidden ones.

    Raises ValueError when the three differ in length.
    """
    rows = [(kept, truth) for won, kept, truth in zip(before, after, right, strict=True) if won]
    kept = [truth for passed, truth in rows if passed]
    truths = [truth for _, truth in rows]
    lost = sum(truths) - sum(kept)
    rejected = len(rows) - len(kept)
    return Effect(len(rows), sum(truths), rejected, lost, _precision(truths), _precision(kept))


def _precision(truths: Sequence[bool]) -> tuple[float, Interval] | None:
    return (sum(truths) / len(truths), wilson_interval(sum(truths), len(truths))) if truths else None


def in_words(found: Effect) -> str:
    """The effect as a sentence, every share with its interval."""
    if not found.winners:
        return "No program passes the visible tests: nothing to harden."
    parts = [
        f"{found.winners} programs pass the visible tests, {found.right} of them the hidden ones too;",
        f"fuzzed asserts reject {found.rejected}, {found.lost} of these right.",
    ]
    for when, precision in (("before", found.precision_before), ("after", found.precision_after)):
        if precision:
            rate, (lo, hi) = precision
            parts.append(f"Precision {when}: {rate:.1%} [{lo:.1%}, {hi:.1%}].")
    return " ".join(parts)
