"""What kind of failure a failed program is, by rules over its verdict, its syntax tree and the task's tests.

Differs from the papers in:
- both name their categories in a sentence and leave the borders open; the borders are fixed in
  data/failure_criteria.md and implemented here, by rules that read the verdict first, then the message, then the
  program; every label carries its evidence;
- a failure has one label of each taxonomy: the first failing test decides;
- a program that never starts (no code, syntax, a name that does not exist) has none of Troopers' types: None.

Troopers (`troopers_type`), by the ordered list TROOPERS_RULES:
1 specification: runs to an answer that is not what the task asks;
2 I/O contract: name, signature, types and form of what goes in and comes out;
3 numerical or boundary case: arithmetic, precision, off by one, empty or extreme input;
4 resource or non-termination: time, memory, output, recursion depth.

PolyCode:
surface: syntax, unknown names and modules, wrong signature;
format: right content in the wrong form (no code block, printed for returned, extra output, whitespace, case,
  container or number type);
semantic: wrong answer, or an exception from the program's logic;
performance: time, memory, output, recursion depth.
"""

import ast
import builtins
import dataclasses
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from lib.evaluation.failures.mismatch import UNREADABLE, Polycode, difference, text_difference, token_value, value_of
from lib.sandbox import Status
from lib.tasks.task import Task

if TYPE_CHECKING:
    from lib.sandbox import Verdict

TROOPERS_TYPES = {
    1: "specification",
    2: "I/O contract",
    3: "numerical or boundary case",
    4: "resource or non-termination",
}
POLYCODE_TYPES: tuple[Polycode, ...] = ("surface", "format", "semantic", "performance")
SMALL = 10  # counts below this are off by one by chance
RESOURCE_LIMITS = (Status.TIMEOUT, Status.MEMORY, Status.OUTPUT_LIMIT)
LAZY = re.compile(r"<(?:map|filter|zip|enumerate|reversed|generator|<genexpr>) object.*>")
QUOTED = 159  # how much of a failed test a message opens with at least


@dataclasses.dataclass(frozen=True)
class Label:
    """One failure's place in both taxonomies.

    `rule` is the rule that gave PolyCode's category, `evidence` what it saw, `troopers_rule` the first of
    TROOPERS_RULES that holds. `troopers_type` is None for a program that never starts.
    """

    troopers_type: int | None
    polycode_type: Polycode
    evidence: str
    rule: str
    troopers_rule: str


class Found(NamedTuple):
    """PolyCode's category, the evidence and the name of the rule that gave it."""

    polycode_type: Polycode
    evidence: str
    rule: str


def classify(task: Task, program: str | None, verdict: "Verdict") -> Label:
    """Return the label of one failed program.

    Raises ValueError for `success`, which is no failure, and for `unsupported-test` and `sandbox-error`, which are not
    the program's.
    """
    if verdict.status in (Status.SUCCESS, Status.UNSUPPORTED_TEST, Status.SANDBOX_ERROR):
        raise ValueError(f"task {task.task_id}: a verdict of {verdict.status} is no failure of the program")
    found = _polycode(task, program or "", verdict)
    failure = Failure(task, program or "", _message(verdict), *found)
    first = next(rule for rule in TROOPERS_RULES if rule.holds(failure))
    return Label(first.troopers_type, *found, first.name)


def _polycode(task: Task, program: str, verdict: "Verdict") -> Found:
    status = verdict.status
    if status == Status.NO_CODE or not program.strip():
        return Found("format", "the answer holds no program", "no-code")
    if status in RESOURCE_LIMITS:
        return _resource(program, verdict)
    if status == Status.COMPILE_ERROR:
        return _compile_error(task, program, _message(verdict))
    if status == Status.RUNTIME_ERROR:
        return _runtime_error(task, program, _message(verdict))
    if status == Status.WRONG_OUTPUT:
        return _wrong_output(task, program, verdict)
    raise ValueError(f"task {task.task_id}: unknown status {status!r}")


def _message(verdict: "Verdict") -> str:
    return verdict.failure or " ".join(verdict.stderr_head.split())[-300:]


# ------------------------------------------------------------------------- what does not compile, and resources


def _compile_error(task: Task, program: str, message: str) -> Found:
    for rule in MESSAGES:
        if rule.compile and (match := rule.pattern.search(message)):
            return rule.label(match, message)
    if "```" in program:
        return Found("format", f"a Markdown fence inside the program: {message}", "fence")
    cut = task.programming_language == "python" and _is_cut_off(program)
    kind, why = ("truncated", "the program stops in the middle") if cut else ("syntax", "does not compile")
    return Found("surface", f"{why}: {message}", kind)


def _is_cut_off(program: str) -> bool:
    """True when the parser was still waiting for something where a Python program ends."""
    try:
        ast.parse(program)
    except SyntaxError as error:
        if "was never closed" in str(error):
            return True
        waiting = re.search(r"unterminated|unexpected EOF|expected an indented block", str(error))
        return waiting is not None and (error.lineno or 0) >= len(program.rstrip().splitlines())
    except ValueError:
        return False
    return False


def _resource(program: str, verdict: "Verdict") -> Found:
    tree = _tree(program)
    loops = tree is not None and any(map(_never_ends, ast.walk(tree)))
    hint = "; it loops on a constant condition without break" if loops else ""
    return Found("performance", f"{_message(verdict) or verdict.status}{hint}", verdict.status)


def _never_ends(node: ast.AST) -> bool:
    leaves = (ast.Break, ast.Return, ast.Raise)
    constant = isinstance(node, ast.While) and isinstance(node.test, ast.Constant) and bool(node.test.value)
    return constant and not any(isinstance(inner, leaves) for inner in ast.walk(node))


# ----------------------------------------------------------------------------------- messages of a failed run


@dataclasses.dataclass(frozen=True)
class MessageRule:
    """A category for every message a pattern matches; `compile` marks those that also name compile errors."""

    pattern: re.Pattern[str]
    polycode_type: Polycode
    rule: str
    compile: bool = False

    def label(self, match: re.Match[str], message: str) -> Found:
        """The category, with what was matched ahead of the whole message."""
        return Found(self.polycode_type, f"{match[0]} | {message}", self.rule)


def _rules(polycode: Polycode, rule: str, *patterns: str, compiles: bool = False) -> Iterator[MessageRule]:
    return (MessageRule(re.compile(pattern), polycode, rule, compiles) for pattern in patterns)


# In order: the first match decides. Within a row Python comes first, then Lua, OCaml, R, Fortran and Julia.
MESSAGES = (
    *_rules(
        "performance", "recursion",
        r"RecursionError", r"[Ss]tack[ _]?[Oo]verflow", r"C stack usage", r"infinite recursion",
    ),
    *_rules(
        "performance", "memory",
        r"MemoryError", r"not enough memory", r"Out_of_memory", r"OutOfMemoryError", r"cannot allocate",
    ),
    *_rules(
        "surface", "unknown-module",
        r"(?:ModuleNotFound|Import)Error: .*", r"module '[\w.]+' not found", r"Unbound module \w+",
        r"there is no package called \S+", r"Cannot open module file \S+", r"Package \w+ not found",
        compiles=True,
    ),
    *_rules(
        "surface", "arguments",
        r"TypeError: .*takes .*arguments?\b.*", r"TypeError: .*missing \d+ required .*",
        r"TypeError: .*(?:unexpected keyword argument|multiple values for argument).*",
        r"TypeError: .*expected .*arguments?, got \d+", r"unused arguments? \(", r'argument "\w+" is missing',
        r"applied to too many arguments", r"(?:Missing|More) actual argument", compiles=True,
    ),
    *_rules(
        "surface", "unknown-name",
        r"NameError: name '(?P<name>\w+)' is not defined", r"AttributeError: module '[\w.]+' has no .*",
        r"attempt to call a nil value(?: \(\w+ '\w+'\))?", r"Unbound (?:value|constructor) \S+",
        r"could not find function \S+", r"object '\w+' not found", r"Symbol \S+ at \S+ has no IMPLICIT type",
        r"undefined reference to \S+", r"UndefVarError: \S+", compiles=True,
    ),
    *_rules("surface", "reads-input", r"EOFError: .*"),
    *_rules(
        "surface", "syntax",
        r"unexpected (?:symbol|string constant|numeric constant|end of input|'.{1,4}')", r"ParseError",
        r"syntax error", r"'\w+' expected .*near", r"unfinished string near",
    ),
)  # fmt: skip


def _runtime_error(task: Task, program: str, message: str) -> Found:
    reason = _after_test(task, message)
    tree = _tree(program) if task.programming_language == "python" else None
    if method := _unknown_method(reason):
        return Found("surface", f"no builtin type has a method {method} | {message}", "unknown-name")
    if tree is not None and task.mode == "function" and "NoneType" in reason:
        label = _no_value(task, tree, message)
        if label is not None:
            return label
    for rule in MESSAGES:
        match = rule.pattern.search(reason)
        if match and not (rule.rule == "reads-input" and task.mode == "program"):
            return _missing_name(task, tree, match) or rule.label(match, message)
    name = _exception_name(reason)
    if tree is not None and not name and (unknown := unknown_names(tree)):
        return Found("surface", f"never defines {', '.join(unknown)} | {message}", "unknown-name")
    return Found("semantic", message or "ended with an error and no message", name or "runtime-error")


def _failed_test(task: Task, message: str) -> str:
    """The test a message opens with, on one line and whole; empty when it opens with none."""
    quoted = (" ".join(test.split()) for test in task.tests("all"))
    return max((test for test in quoted if message.startswith(test[:QUOTED])), key=len, default="")


def _after_test(task: Task, message: str) -> str:
    """What a message says after quoting the failed test, whose text must not be taken for a symptom."""
    return message[min(len(_failed_test(task, message)), QUOTED) :]


def _missing_name(task: Task, tree: ast.Module | None, match: re.Match[str]) -> Found | None:
    """The category of a NameError on the function under test, or on a module that is used and not imported."""
    name = match.groupdict().get("name")
    if name and name != task.entry_point and name in sys.stdlib_module_names:
        return Found("surface", f"{name} is a module it never imports", "unknown-module")
    if not name or name != task.entry_point:
        return None
    defined = _defined(tree) if tree is not None else []
    found = f"it defines {', '.join(defined)}" if defined else "it defines no function"
    return Found("surface", f"{name} is missing; {found}", "entry-point")


def _exception_name(message: str) -> str:
    found = re.search(r"\b([A-Z]\w*(?:Error|Exception|Exit|Interrupt|Iteration|Warning))\b", message)
    return found[1] if found else ""


def _unknown_method(message: str) -> str:
    """The missing attribute of an AttributeError on a builtin value, if no builtin type has that name."""
    match = re.search(r"AttributeError: '(\w+)' object has no attribute '(\w+)'", message)
    if not match or not isinstance(getattr(builtins, match[1], None), type):
        return ""
    types = [kind for kind in vars(builtins).values() if isinstance(kind, type)]
    return "" if any(hasattr(kind, match[2]) for kind in types) else match[2]


# -------------------------------------------------------------------------------------------- the syntax tree


def _tree(program: str) -> ast.Module | None:
    try:
        return ast.parse(program)
    except (SyntaxError, ValueError, RecursionError):
        return None


def _defined(tree: ast.Module) -> list[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node.name for node in tree.body if isinstance(node, kinds)]


def unknown_names(tree: ast.Module) -> list[str]:
    """Names a Python program reads and never binds: no builtin, import, definition, argument or target."""
    known = set(vars(builtins)) | {"__name__", "__file__", "__doc__"}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            known.add(node.name)
        elif isinstance(node, ast.arg):
            known.add(node.arg)
        elif isinstance(node, ast.alias):
            known.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            known.add(node.id)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            known.add(node.name)
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
    return sorted({node.id for node in names if isinstance(node.ctx, ast.Load)} - known)


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function that are not inside a function or class nested in it."""
    for node in ast.iter_child_nodes(function):
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _own_nodes(node)


def _calls(nodes: Iterable[ast.AST], test: Callable[[ast.Call], bool]) -> bool:
    return any(isinstance(node, ast.Call) and test(node) for node in nodes)


def _is_print(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "print"


def _is_none_call(value: ast.expr | None) -> bool:
    """`print(…)` or a method that works in place: calls whose value is always None."""
    if not isinstance(value, ast.Call):
        return False
    in_place = {"sort", "reverse", "append", "extend", "insert", "update", "clear", "remove", "discard"}
    return _is_print(value) or (isinstance(value.func, ast.Attribute) and value.func.attr in in_place)


def _no_value(task: Task, tree: ast.Module, message: str) -> Found | None:
    """Say when the function under test cannot return a value: it prints, works in place, or just ends."""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    named = [node for node in functions if node.name == task.entry_point] or functions[:1]
    if not named:
        return None
    nodes = list(_own_nodes(named[-1]))
    returned = [node.value for node in nodes if isinstance(node, ast.Return)]
    values = [value for value in returned if not (isinstance(value, ast.Constant) and value.value is None)]
    yields = any(isinstance(node, ast.Yield | ast.YieldFrom) for node in nodes)
    if yields or any(value is not None and not _is_none_call(value) for value in values):
        return None
    name = named[-1].name
    if _calls(nodes, _is_print):
        return Found("format", f"{name} prints and returns None | {message}", "prints")
    if any(map(_is_none_call, values)):
        return Found("format", f"{name} returns the None of an in-place call | {message}", "in-place")
    return Found("semantic", f"{name} has no return with a value | {message}", "returns-none")


# ---------------------------------------------------------------------------------------------- wrong answers


def _wrong_output(task: Task, program: str, verdict: "Verdict") -> Found:
    message = _message(verdict)
    got_text, expected_text = got_and_expected(_after_test(task, message))
    if task.mode == "program":
        return _wrong_text(program, verdict, got_text, expected_text)
    if got_text == "None" and expected_text != "None":
        tree = _tree(program) if task.programming_language == "python" else None
        label = _no_value(task, tree, message) if tree is not None else None
        return label or Found("semantic", f"None on some path | {message}", "missing-return")
    if LAZY.fullmatch(got_text):
        return Found("format", f"an iterator in place of its items | {message}", "iterator")
    given, literal = _assert_sides(task, message)
    got, expected = value_of(got_text), value_of(expected_text)
    expected = literal if expected is UNREADABLE else expected
    if isinstance(got, str | list | tuple | dict | set) and got and got in given:
        return Found("semantic", f"gives back its argument | {message}", "unchanged")
    if got is UNREADABLE or expected is UNREADABLE:
        return Found("semantic", message or "an assert failed", "wrong-answer")
    polycode, rule = _decision(task, got, expected) or difference(got, expected)
    return Found(polycode, f"{rule} | {message}", rule)


_DENIES = re.compile(r"\b(?:no|not|non|never|false|invalid|unequal)\b", re.IGNORECASE)


def _decision(task: Task, got: Any, expected: Any) -> tuple[Polycode, str] | None:
    """A truth value where the tests want one of two texts, one of which denies: True for 'Matched!'."""
    if not isinstance(got, bool) or not isinstance(expected, str):
        return None
    tokens = {value for test in task.tests("all") if isinstance(value := _compared(_tree(test)), str)}
    if len(tokens) != 2 or sum(_DENIES.search(token) is not None for token in tokens) != 1:
        return None
    right = got == (_DENIES.search(expected) is None)
    return ("format", "wrong-token") if right else ("semantic", "inverted")


_SIDE = re.compile(r"\b(got|expected):? ")


def got_and_expected(message: str) -> tuple[str, str]:
    """The two sides of "… got X, expected Y" or "… expected Y, got X"; empty where a message has neither.

    A value may hold these words too: of several ways to cut, the first that leaves two literals is taken.
    """
    marks = list(_SIDE.finditer(message))
    pairs = [(one, two) for one in marks for two in marks if one.start() < two.start() and one[1] != two[1]]
    cuts = [
        {one[1]: message[one.end() : two.start()].strip(" ,;"), two[1]: message[two.end() :].strip()}
        for one, two in pairs[:20]
    ]
    readable = [cut for cut in cuts if all(value_of(text) is not UNREADABLE for text in cut.values())]
    best = next(iter(readable or cuts), {"got": "", "expected": ""})
    return best["got"].removesuffix(", but"), best["expected"].removesuffix(", but")


def failed_test_and_sides(task: Task, message: str) -> tuple[str, str, str]:
    """The failing test, what it got (or the exception), what it expected, as a message tells them."""
    test, rest = _failed_test(task, message), _after_test(task, message).lstrip("…: ")
    got, expected = got_and_expected(rest)
    literal = _compared(_tree(test)) if test else UNREADABLE
    return test, got or rest, expected or ("" if literal is UNREADABLE else repr(literal))


def _assert_sides(task: Task, message: str) -> tuple[list[Any], Any]:
    """The literal arguments of the failed assert's call, and the literal it compares with."""
    test = _failed_test(task, message)
    return _given(task, test), _compared(_tree(test))


def _given(task: Task, test: str) -> list[Any]:
    """The literal arguments of a test's first call of the function under test."""
    tree = _tree(test)
    nodes = list(ast.walk(tree)) if tree is not None else []
    calls = [node for node in nodes if isinstance(node, ast.Call) and _called(node) == task.entry_point]
    return [value_of(ast.unparse(argument)) for argument in (calls[0].args if calls else [])]


def _compared(tree: ast.Module | None) -> Any:
    """The literal an assert compares with."""
    nodes = ast.walk(tree) if tree is not None else ()
    compared = next((node.comparators[-1] for node in nodes if isinstance(node, ast.Compare)), None)
    return value_of(ast.unparse(compared)) if compared else UNREADABLE


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _wrong_text(program: str, verdict: "Verdict", got_text: str, expected_text: str) -> Found:
    """Program tasks: stdout against the case's output."""
    got = _unquoted(got_text) if got_text else verdict.stdout_head
    expected = _unquoted(expected_text)
    evidence = f"got {got_text or repr(got[:80])}, expected {expected_text}"
    if got.strip() or not expected.strip():
        polycode, rule = text_difference(got, expected)
        return Found(polycode, f"{rule} | {evidence}", rule)
    if re.search(r"print|write|put|cat\(|output|format", program, re.IGNORECASE):
        return Found("semantic", f"prints nothing | {evidence}", "empty-output")
    return Found("format", f"prints nothing, and has no statement that would | {evidence}", "no-output")


def _unquoted(text: str) -> str:
    value = value_of(text)
    return value if isinstance(value, str) else text


# ------------------------------------------------------------------------------------------- Troopers' types


class Failure(NamedTuple):
    """What TROOPERS_RULES read: the task, the program, the verdict's message, and what PolyCode's rules found."""

    task: Task
    program: str
    message: str
    polycode_type: Polycode
    evidence: str
    rule: str

    @property
    def reason(self) -> str:
        """The message after the quoted test."""
        return _after_test(self.task, self.message)


class TypeRule(NamedTuple):
    """One rule: its name, the type it gives, and whether it holds."""

    name: str
    troopers_type: int | None
    holds: Callable[[Failure], bool]


def _is_any(*rules: str) -> Callable[[Failure], bool]:
    return lambda failure: failure.rule in rules


def _says(pattern: str) -> Callable[[Failure], bool]:
    found = re.compile(pattern)
    return lambda failure: failure.rule not in _ANSWERED and found.search(failure.reason) is not None


def _lacks_what_the_test_names(failure: Failure) -> bool:
    """True where the missing name is one that the test uses and the program never mentions."""
    name = re.search(r"NameError: name '(\w+)' is not defined", failure.reason)
    test = _failed_test(failure.task, failure.message)
    return name is not None and _mentions(test, name[1]) and not _mentions(failure.program, name[1])


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", text) is not None


def _sides(failure: Failure) -> tuple[Any, Any]:
    """What the program gave and what the test compares it with, UNREADABLE where a message does not show it."""
    got, expected = got_and_expected(failure.reason)
    if failure.task.mode == "program":
        return token_value(_unquoted(got)), token_value(_unquoted(expected))
    shown, test = value_of(expected), _failed_test(failure.task, failure.message)
    return value_of(got), _compared(_tree(test)) if shown is UNREADABLE else shown


def _gives_an_argument_back(failure: Failure) -> bool:
    """True where the answer is an argument of the call, and the program has a statement that returns one as it is."""
    got, tree = _sides(failure)[0], _tree(failure.program)
    given = _given(failure.task, _failed_test(failure.task, failure.message))
    if tree is None or got is UNREADABLE or got not in given:
        return False
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return any(
        isinstance(node, ast.Return) and isinstance(node.value, ast.Name) and node.value.id in _arguments(function)
        for function in functions for node in _own_nodes(function)
    )  # fmt: skip


def _arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    return {argument.arg for argument in (*function.args.posonlyargs, *function.args.args)}


def _is_off_by_little(failure: Failure) -> bool:
    """True for rounding and near misses; for off by one where the expected number is not so small that it is chance."""
    expected = _sides(failure)[1]
    small = isinstance(expected, int) and abs(expected) < SMALL
    return failure.rule in ("near-miss", "rounded") or (failure.rule == "off-by-one" and not small)


def _is_of_another_kind(failure: Failure) -> bool:
    """True for a number in place of a sequence, a text in place of a truth value, …; lists and tuples are one kind."""
    got, expected = (_kind_of(value) for value in _sides(failure))
    if got == "" and failure.task.mode == "function":  # a long value is shown cut
        got = {"[": "sequence", "(": "sequence", "'": "text", '"': "text"}.get(
            got_and_expected(failure.reason)[0][:1], ""
        )
    return failure.rule in _ANSWERED and bool(got and expected) and got != expected


def _kind_of(value: Any) -> str:
    if value is None or value is UNREADABLE:
        return ""
    kinds = {bool: "truth value", str: "text", list: "sequence", tuple: "sequence", int: "number", float: "number"}
    return kinds.get(type(value), type(value).__name__)


def _fails_at_the_boundary_alone(failure: Failure) -> bool:
    """True where the input is extreme (empty, one element, 0, 1, negative, huge) and an ordinary one passed before."""
    task, inputs = failure.task, []
    if task.mode == "program":
        number = re.match(r"case (\d+)", failure.message)
        inputs = [case.input.split() for case in task.cases[: int(number[1]) if number else 0]]
        inputs = [[token_value(word) for word in words] or [""] for words in inputs]
    else:
        failed, tests = _failed_test(task, failure.message), list(task.tests("all"))
        quoted = [" ".join(test.split()) for test in tests]
        inputs = [_given(task, test) for test in quoted[: quoted.index(failed) + 1]] if failed else []
    return (
        len(inputs) > 1 and any(map(_extreme, inputs[-1])) and not all(any(map(_extreme, one)) for one in inputs[:-1])
    )


def _extreme(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, int | float):
        return value in (0, 1) or value < 0 or abs(value) >= 10**6
    return value is None or (isinstance(value, str | list | tuple | dict | set) and len(value) <= 1)


_ANSWERED = (
    "off-by-one", "near-miss", "rounded", "reordered", "inverted", "sign", "wrong-type", "wrong-answer", "unchanged",
    "missing-return", "empty-output",
)  # fmt: skip
_OUTSIDE = (
    r"ZeroDivisionError|OverflowError|FloatingPointError|math domain error|DivideError|DomainError|InexactError|"
    r"Division_by_zero|divide by zero|IndexError|KeyError|StopIteration|BoundsError|Not_found|index out of bounds|"
    r"subscript out of bounds|out of range|outside of expected range|empty (?:sequence|range|list|set|iterable)|"
    r"is an empty|NoneType"
)
_OTHER_INPUT = (
    r"TypeError|AttributeError|MethodError|invalid literal|could not convert|values to unpack|non-numeric argument|"
    r"EOFError|End of file"
)

# In order: the first that holds decides. data/failure_criteria.md has the same list in words.
TROOPERS_RULES = (
    TypeRule("no program that starts", None, _is_any("no-code", "fence", "truncated", "syntax")),
    TypeRule("a limit is spent", 4, lambda failure: failure.polycode_type == "performance"),
    TypeRule("the test's name is missing", 2, _lacks_what_the_test_names),
    TypeRule("name that does not exist", None, _is_any("unknown-name", "unknown-module")),
    TypeRule("signature or return", 2, _is_any(
        "entry-point", "arguments", "reads-input", "prints", "in-place", "returns-none", "no-output")),
    TypeRule("argument given back", 1, _gives_an_argument_back),
    TypeRule("off by little", 3, _is_off_by_little),
    TypeRule("form of the answer", 2, lambda failure: failure.polycode_type == "format"),
    TypeRule("kind of the answer", 2, _is_of_another_kind),
    TypeRule("outside what is there", 3, _says(_OUTSIDE)),
    TypeRule("input of another kind", 2, _says(_OTHER_INPUT)),
    TypeRule("boundary input alone", 3, _fails_at_the_boundary_alone),
    TypeRule("another task", 1, lambda failure: True),
)  # fmt: skip
