"""Random programs in six languages, and the disguises an overlap can wear: to measure what a screen finds.

A program is a few functions of assignments, loops and branches over integers, written out in a language's own
syntax. A disguise changes what a reader would change to hide a copy: names, order, literals, comments; never
what is computed by which statement.
"""

import dataclasses
import random
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from lib.tasks.task import Task


class Syntax(NamedTuple):
    """How one language writes the few statements the random programs are made of."""

    opening: str
    local: str
    assign: str
    loop: str
    loop_end: str
    branch: str
    otherwise: str
    branch_end: str
    result: str
    closing: str
    note: str
    variable: str = "{v}"
    comma: str = ", "


SYNTAXES = {
    "python": Syntax(
        "def {name}({parameters}):", "{v} = {e}", "{v} = {e}", "for {v} in range({a}, {b}):", "",
        "if {a} < {b}:", "else:", "", "return {e}", "", "# {text}",
    ),
    "lua": Syntax(
        "function {name}({parameters})", "local {v} = {e}", "{v} = {e}", "for {v} = {a}, {b} do", "end",
        "if {a} < {b} then", "else", "end", "return {e}", "end", "-- {text}",
    ),
    "ocaml": Syntax(
        "let {name} {parameters} =", "let {v} = ref ({e}) in", "{v} := {e};",
        "for {v} = {a} to {b} do", "done;",
        "if {a} < {b} then begin", "end else begin", "end;", "{e}", "", "(* {text} *)", "!{v}", " ",
    ),
    "r": Syntax(
        "{name} <- function({parameters}) {{", "{v} <- {e}", "{v} <- {e}", "for ({v} in {a}:{b}) {{", "}}",
        "if ({a} < {b}) {{", "}} else {{", "}}", "return({e})", "}}", "# {text}",
    ),
    "fortran": Syntax(
        "integer function {name}({parameters})\n  implicit integer (a-z)", "integer :: {v} = {e}",
        "{v} = {e}", "do {v} = {a}, {b}", "end do",
        "if ({a} < {b}) then", "else", "end if", "{name} = {e}", "end function {name}", "! {text}",
    ),
    "julia": Syntax(
        "function {name}({parameters})", "{v} = {e}", "{v} = {e}", "for {v} in {a}:{b}", "end",
        "if {a} < {b}", "else", "end", "return {e}", "end", "# {text}",
    ),
}  # fmt: skip
NOTES = (
    "add the two parts",
    "walk over the range",
    "keep the larger one",
    "start from nothing",
    "undo the last step",
)
PARAPHRASES = (
    "both parts are summed",
    "step through all values",
    "the bigger stays",
    "begin empty",
    "one step back",
)
TRANSLATIONS = ("দুই অংশ যোগ করো", "সীমার উপর হাঁটো", "বড়টি রাখো", "শূন্য থেকে শুরু", "শেষ ধাপ ফেরাও")
SYLLABLES = ("ba", "co", "di", "fu", "ga", "ho", "ki", "lo", "mu", "ne", "pa", "ro", "su", "ta", "ve", "zi")
Program = list[tuple[int, int, list[Any], Any]]  # functions: (number, parameters, statements, result)


@dataclasses.dataclass(frozen=True)
class Disguise:
    """What one rendering of a program changes; the seeds are arbitrary."""

    names: str = ""
    order: str = ""  # empty: as written
    literals: str = ""  # empty: as they are
    notes: tuple[str, ...] = NOTES


def random_program(rng: random.Random) -> Program:
    """Three or four functions of a few statements each."""
    return [
        (
            number,
            rng.randint(1, 3),
            [_statement(rng, 2) for _ in range(rng.randint(3, 5))],
            _expression(rng, 2),
        )
        for number in range(rng.randint(3, 4))
    ]


def _statement(rng: random.Random, depth: int) -> Any:
    kind = rng.choice(("assign", "assign", "loop", "branch") if depth else ("assign",))
    inner = [_statement(rng, depth - 1) for _ in range(rng.randint(1, 2))] if kind != "assign" else []
    if kind == "branch":
        return kind, _expression(rng, 1), _expression(rng, 1), inner, [_statement(rng, depth - 1)]
    return (kind, rng.randrange(3), _expression(rng, 2)) if kind == "assign" else (kind, _expression(rng, 1), inner)


def _expression(rng: random.Random, depth: int) -> Any:
    if depth == 0 or rng.random() < 0.3:
        return rng.choice((("number", rng.randrange(1, 99)), ("local", rng.randrange(3)), ("parameter", 0)))
    return rng.choice("+-*"), _expression(rng, depth - 1), _expression(rng, depth - 1)


class Writer:
    """Renders programs in one language; names, literals and notes come from a disguise."""

    def __init__(self, language: str, disguise: Disguise) -> None:
        self.syntax, self.disguise = SYNTAXES[language], disguise

    def program(self, program: Program) -> str:
        """The whole program as source text."""
        order = list(program)
        if self.disguise.order:
            random.Random(self.disguise.order).shuffle(order)
        return "\n\n".join("\n".join(self.function(*function)) for function in order) + "\n"

    def name(self, kind: str, number: int) -> str:
        """The disguised name of one function, parameter or local."""
        rng = random.Random(f"{self.disguise.names}/{kind}/{number}")
        return "".join(rng.choices(SYLLABLES, k=3)) + f"_{kind[0]}{number}"

    def function(self, number: int, parameters: int, statements: list[Any], result: Any) -> Iterator[str]:
        """The lines of one function."""
        syntax, name = self.syntax, self.name("function", number)
        self.base, self.depth = number * 10, 0
        listed = syntax.comma.join(self.name("parameter", self.base + i) for i in range(parameters))
        yield syntax.note.format(text=self.disguise.notes[number % len(NOTES)])
        yield syntax.opening.format(name=name, parameters=listed)
        for local in range(3):
            yield "  " + syntax.local.format(v=self.name("local", self.base + local), e=self.literal(local + 1))
        for statement in statements:
            yield from ("  " + line for line in self.statement(statement))
        yield "  " + syntax.result.format(e=self.expression(result), name=name)
        if syntax.closing:
            yield syntax.closing.format(name=name)

    def statement(self, statement: Any) -> Iterator[str]:
        """The lines of one statement, its block indented."""
        kind, *parts = statement
        syntax = self.syntax
        if kind == "assign":
            yield syntax.assign.format(v=self.name("local", self.base + parts[0]), e=self.expression(parts[1]))
        elif kind == "loop":
            step = self.name("step", self.base + self.depth)
            yield syntax.loop.format(v=step, a=self.literal(1), b=self.expression(parts[0]))
            yield from self.block(parts[1])
            yield from [syntax.loop_end.format()] if syntax.loop_end else []
        else:
            yield syntax.branch.format(a=self.expression(parts[0]), b=self.expression(parts[1]))
            yield from self.block(parts[2])
            yield syntax.otherwise.format()
            yield from self.block(parts[3])
            yield from [syntax.branch_end.format()] if syntax.branch_end else []

    def block(self, statements: list[Any]) -> Iterator[str]:
        """The lines of several statements, one level deeper."""
        self.depth += 1
        yield from ("  " + line for statement in statements for line in self.statement(statement))
        self.depth -= 1

    def expression(self, expression: Any) -> str:
        """One expression as source text."""
        kind, *parts = expression
        if kind == "number":
            return self.literal(parts[0])
        if kind == "local":
            return self.syntax.variable.format(v=self.name("local", self.base + parts[0]))
        if kind == "parameter":
            return self.name("parameter", self.base)
        return f"({self.expression(parts[0])} {kind} {self.expression(parts[1])})"

    def literal(self, number: int) -> str:
        """A number, or another in its place where literals are disguised."""
        if not self.disguise.literals:
            return str(number)
        return str(random.Random(f"{self.disguise.literals}/{number}").randrange(100, 999))


def disguises(number: int) -> dict[str, Disguise]:
    """The kinds of overlap for one program; the last is all at once."""
    plain, other = Disguise(names=f"{number}"), f"other {number}"
    return {
        "renamed variables": dataclasses.replace(plain, names=other),
        "reordered functions": dataclasses.replace(plain, order=other),
        "changed literals": dataclasses.replace(plain, literals=other),
        "paraphrased comment": dataclasses.replace(plain, notes=PARAPHRASES),
        "translated comment": dataclasses.replace(plain, notes=TRANSLATIONS),
        "all at once": Disguise(other, other, other, TRANSLATIONS),
    }


def planted_sides(language: str, pairs: int, seed: int = 0) -> tuple[list[Task], list[Task]]:
    """Training and evaluation tasks with unrelated prompts.

    Evaluation task i is an original. Training task "p{i}" is that original in the disguise number i mod 6;
    "c{i}" is a program of its own.
    """
    rng = random.Random(f"{language}/{seed}")
    originals = [random_program(rng) for _ in range(pairs)]
    clean = [random_program(rng) for _ in range(pairs)]

    def task(name: str, program: Program, disguise: Disguise) -> Task:
        prompt = " ".join("".join(rng.choices(SYLLABLES, k=3)) for _ in range(12))
        code = Writer(language, disguise).program(program)
        return Task(name, "planted", "any", prompt, "en", language, "program", reference=code)

    evaluation = [task(f"{i}", program, Disguise(names=f"{i}")) for i, program in enumerate(originals)]
    train = [
        task(f"p{i}", program, list(disguises(i).values())[i % len(disguises(i))])
        for i, program in enumerate(originals)
    ]
    train += [task(f"c{i}", program, Disguise(names=f"clean {i}")) for i, program in enumerate(clean)]
    return train, evaluation


@dataclasses.dataclass(frozen=True)
class Found:
    """What a screen made of planted sides."""

    recall: float  # share of the disguised programs matched with their own original
    precision: float  # of the training programs it excludes, those that are disguised ones
    by_kind: dict[str, float]  # recall


def score_planted(pairs: int, excluded: Iterable[tuple[str, str]]) -> Found:
    """Recall and precision of (training id, evaluation id) pairs; a clean program matched with anything is
    false.
    """
    excluded = set(excluded)
    right = {int(mine[1:]) for mine, other in excluded if mine == f"p{other}"}
    wrong = {mine for mine, _ in excluded if mine.startswith("c")}
    kinds = list(disguises(0))
    by_kind = {kind: range(k, pairs, len(kinds)) for k, kind in enumerate(kinds)}
    return Found(
        recall=len(right) / pairs,
        precision=len(right) / max(1, len(right) + len(wrong)),
        by_kind={kind: sum(i in right for i in some) / max(1, len(some)) for kind, some in by_kind.items()},
    )
