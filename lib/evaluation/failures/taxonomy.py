"""What kind of failure a failed program is, by rules over its verdict, its syntax tree and the task's tests.

Differs from the papers in:
- both name their categories in a sentence and leave the borders open; the borders are fixed here, by rules
  that read the verdict first, then the message, then the program, and every label carries its evidence;
- a failure has one label of each taxonomy: the first failing test decides.

Types 1 to 4 (`troopers_type`), how far the program got; ours, not the four types that the Troopers paper names:
1 no code, or code that does not parse: prose, a syntax error, cut off;
2 wrong names or interface: entry point missing, unknown name, module or method, wrong number of arguments,
  prints or returns None where a value was asked, reads input in place of its arguments;
3 fails while running: exception, timeout, memory, recursion, too much output;
4 runs to an answer, and the answer is wrong.

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
from typing import TYPE_CHECKING, Any

from lib.evaluation.failures.mismatch import UNREADABLE, Polycode, difference, text_difference, value_of
from lib.sandbox import Status
from lib.tasks.task import Task

if TYPE_CHECKING:
    from lib.sandbox import Verdict

TROOPERS_TYPES = {1: "no code or syntax", 2: "names or interface", 3: "fails while running", 4: "wrong logic"}
POLYCODE_TYPES: tuple[Polycode, ...] = ("surface", "format", "semantic", "performance")
RESOURCE_LIMITS = (Status.TIMEOUT, Status.MEMORY, Status.OUTPUT_LIMIT)
LAZY = re.compile(r"<(?:map|filter|zip|enumerate|reversed|generator|<genexpr>) object.*>")
QUOTED = 159  # how much of a failed test a message opens with at least


@dataclasses.dataclass(frozen=True)
class Label:
    """One failure's place in both taxonomies; `rule` is the rule that fired, `evidence` what it saw."""

    troopers_type: int
    polycode_type: Polycode
    evidence: str
    rule: str


def classify(task: Task, program: str | None, verdict: "Verdict") -> Label:
    """Return the label of one failed program.

    Raises ValueError for `success`, which is no failure, and for `unsupported-test` and `sandbox-error`, which are not
    the program's.
    """
    status = verdict.status
    if status in (Status.SUCCESS, Status.UNSUPPORTED_TEST, Status.SANDBOX_ERROR):
        raise ValueError(f"task {task.task_id}: a verdict of {status} is no failure of the program")
    if status == Status.NO_CODE or not (program or "").strip():
        return Label(1, "format", "the answer holds no program", "no-code")
    assert program is not None
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


# ------------------------------------------------------------------------------- Type 1 and resource failures


def _compile_error(task: Task, program: str, message: str) -> Label:
    for rule in MESSAGES:
        if rule.compile and (match := rule.pattern.search(message)):
            return rule.label(match, message)
    if "```" in program:
        return Label(1, "format", f"a Markdown fence inside the program: {message}", "fence")
    cut = task.programming_language == "python" and _is_cut_off(program)
    kind, why = ("truncated", "the program stops in the middle") if cut else ("syntax", "does not compile")
    return Label(1, "surface", f"{why}: {message}", kind)


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


def _resource(program: str, verdict: "Verdict") -> Label:
    tree = _tree(program)
    loops = tree is not None and any(map(_never_ends, ast.walk(tree)))
    hint = "; it loops on a constant condition without break" if loops else ""
    return Label(3, "performance", f"{_message(verdict) or verdict.status}{hint}", verdict.status)


def _never_ends(node: ast.AST) -> bool:
    leaves = (ast.Break, ast.Return, ast.Raise)
    constant = isinstance(node, ast.While) and isinstance(node.test, ast.Constant) and bool(node.test.value)
    return constant and not any(isinstance(inner, leaves) for inner in ast.walk(node))


# ----------------------------------------------------------------------------------- messages of a failed run


@dataclasses.dataclass(frozen=True)
class MessageRule:
    """A label for every message a pattern matches; `compile` marks those that also name compile errors."""

    pattern: re.Pattern[str]
    troopers_type: int
    polycode_type: Polycode
    rule: str
    compile: bool = False

    def label(self, match: re.Match[str], message: str) -> Label:
        """The label, with what was matched ahead of the whole message."""
        return Label(self.troopers_type, self.polycode_type, f"{match[0]} | {message}", self.rule)


def _rules(kind: int, polycode: Polycode, rule: str, *patterns: str, compiles: bool = False) -> Iterator[MessageRule]:
    return (MessageRule(re.compile(pattern), kind, polycode, rule, compiles) for pattern in patterns)


# In order: the first match decides. Within a row Python comes first, then Lua, OCaml, R, Fortran and Julia.
MESSAGES = (
    *_rules(
        3, "performance", "recursion",
        r"RecursionError", r"[Ss]tack[ _]?[Oo]verflow", r"C stack usage", r"infinite recursion",
    ),
    *_rules(
        3, "performance", "memory",
        r"MemoryError", r"not enough memory", r"Out_of_memory", r"OutOfMemoryError", r"cannot allocate",
    ),
    *_rules(
        2, "surface", "unknown-module",
        r"(?:ModuleNotFound|Import)Error: .*", r"module '[\w.]+' not found", r"Unbound module \w+",
        r"there is no package called \S+", r"Cannot open module file \S+", r"Package \w+ not found",
        compiles=True,
    ),
    *_rules(
        2, "surface", "arguments",
        r"TypeError: .*takes .*arguments?\b.*", r"TypeError: .*missing \d+ required .*",
        r"TypeError: .*(?:unexpected keyword argument|multiple values for argument).*",
        r"TypeError: .*expected .*arguments?, got \d+", r"unused arguments? \(", r'argument "\w+" is missing',
        r"applied to too many arguments", r"(?:Missing|More) actual argument", compiles=True,
    ),
    *_rules(
        2, "surface", "unknown-name",
        r"NameError: name '(?P<name>\w+)' is not defined", r"AttributeError: module '[\w.]+' has no .*",
        r"attempt to call a nil value(?: \(\w+ '\w+'\))?", r"Unbound (?:value|constructor) \S+",
        r"could not find function \S+", r"object '\w+' not found", r"Symbol \S+ at \S+ has no IMPLICIT type",
        r"undefined reference to \S+", r"UndefVarError: \S+", compiles=True,
    ),
    *_rules(2, "surface", "reads-input", r"EOFError: .*"),
    *_rules(
        1, "surface", "syntax",
        r"unexpected (?:symbol|string constant|numeric constant|end of input|'.{1,4}')", r"ParseError",
        r"syntax error", r"'\w+' expected .*near", r"unfinished string near",
    ),
)  # fmt: skip


def _runtime_error(task: Task, program: str, message: str) -> Label:
    reason = _after_test(task, message)
    tree = _tree(program) if task.programming_language == "python" else None
    if method := _unknown_method(reason):
        return Label(2, "surface", f"no builtin type has a method {method} | {message}", "unknown-name")
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
        return Label(2, "surface", f"never defines {', '.join(unknown)} | {message}", "unknown-name")
    return Label(3, "semantic", message or "ended with an error and no message", name or "runtime-error")


def _failed_test(task: Task, message: str) -> str:
    """The test a message opens with, on one line and whole; empty when it opens with none."""
    quoted = (" ".join(test.split()) for test in task.tests("all"))
    return max((test for test in quoted if message.startswith(test[:QUOTED])), key=len, default="")


def _after_test(task: Task, message: str) -> str:
    """What a message says after quoting the failed test, whose text must not be taken for a symptom."""
    return message[min(len(_failed_test(task, message)), QUOTED) :]


def _missing_name(task: Task, tree: ast.Module | None, match: re.Match[str]) -> Label | None:
    """The label for a NameError on the function under test, or on a module that is used and not imported."""
    name = match.groupdict().get("name")
    if name and name != task.entry_point and name in sys.stdlib_module_names:
        return Label(2, "surface", f"{name} is a module it never imports", "unknown-module")
    if not name or name != task.entry_point:
        return None
    defined = _defined(tree) if tree is not None else []
    found = f"it defines {', '.join(defined)}" if defined else "it defines no function"
    return Label(2, "surface", f"{name} is missing; {found}", "entry-point")


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


def _no_value(task: Task, tree: ast.Module, message: str) -> Label | None:
    """Type 2 when the function under test cannot return a value: it prints, works in place, or just ends."""
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
        return Label(2, "format", f"{name} prints and returns None | {message}", "prints")
    if any(map(_is_none_call, values)):
        return Label(2, "format", f"{name} returns the None of an in-place call | {message}", "in-place")
    return Label(2, "semantic", f"{name} has no return with a value | {message}", "returns-none")


# ---------------------------------------------------------------------------------------------- wrong answers


def _wrong_output(task: Task, program: str, verdict: "Verdict") -> Label:
    message = _message(verdict)
    got_text, expected_text = got_and_expected(_after_test(task, message))
    if task.mode == "program":
        return _wrong_text(program, verdict, got_text, expected_text)
    if got_text == "None" and expected_text != "None":
        tree = _tree(program) if task.programming_language == "python" else None
        label = _no_value(task, tree, message) if tree is not None else None
        return label or Label(4, "semantic", f"None on some path | {message}", "missing-return")
    if LAZY.fullmatch(got_text):
        return Label(4, "format", f"an iterator in place of its items | {message}", "iterator")
    given, literal = _assert_sides(task, message)
    got, expected = value_of(got_text), value_of(expected_text)
    expected = literal if expected is UNREADABLE else expected
    if isinstance(got, str | list | tuple | dict | set) and got and got in given:
        return Label(4, "semantic", f"gives back its argument | {message}", "unchanged")
    if got is UNREADABLE or expected is UNREADABLE:
        return Label(4, "semantic", message or "an assert failed", "wrong-answer")
    polycode, rule = _decision(task, got, expected) or difference(got, expected)
    return Label(4, polycode, f"{rule} | {message}", rule)


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
    tree = _tree(_failed_test(task, message))
    nodes = list(ast.walk(tree)) if tree is not None else []
    calls = [node for node in nodes if isinstance(node, ast.Call) and _called(node) == task.entry_point]
    given = [value_of(ast.unparse(argument)) for argument in (calls[0].args if calls else [])]
    return given, _compared(tree)


def _compared(tree: ast.Module | None) -> Any:
    """The literal an assert compares with."""
    nodes = ast.walk(tree) if tree is not None else ()
    compared = next((node.comparators[-1] for node in nodes if isinstance(node, ast.Compare)), None)
    return value_of(ast.unparse(compared)) if compared else UNREADABLE


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _wrong_text(program: str, verdict: "Verdict", got_text: str, expected_text: str) -> Label:
    """Program tasks: stdout against the case's output."""
    got = _unquoted(got_text) if got_text else verdict.stdout_head
    expected = _unquoted(expected_text)
    evidence = f"got {got_text or repr(got[:80])}, expected {expected_text}"
    if got.strip() or not expected.strip():
        polycode, rule = text_difference(got, expected)
        return Label(4, polycode, f"{rule} | {evidence}", rule)
    if re.search(r"print|write|put|cat\(|output|format", program, re.IGNORECASE):
        return Label(4, "semantic", f"prints nothing | {evidence}", "empty-output")
    return Label(2, "format", f"prints nothing, and has no statement that would | {evidence}", "no-output")


def _unquoted(text: str) -> str:
    value = value_of(text)
    return value if isinstance(value, str) else text
