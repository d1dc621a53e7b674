"""Trusted evaluation of a task's asserts, with the program's names bound to what `remote` makes of them."""

import ast
import builtins
import dataclasses
import functools
import reprlib
from typing import Any

from lib.sandbox import wire
from lib.sandbox.conversation import Conversation, Raised, TimeUp, Unshippable
from lib.sandbox.remote import Misuse, Remote
from lib.sandbox.verdict import one_line

_GOT, _EXPECTED = "__got__", "__expected__"
_TEST_FILE = "<test>"
# Names a test may use without importing them. A program that defines one of these does not get to decide with it,
# unless it is the function under test.
_HELPERS = {
    name: module
    for module, names in {
        "math": "isclose sqrt floor ceil fabs fsum pi e inf nan isnan isinf",
        "collections": "Counter OrderedDict deque defaultdict namedtuple",
        "itertools": "permutations combinations product chain",
        "functools": "reduce",
        "copy": "deepcopy copy",
        "fractions": "Fraction",
        "decimal": "Decimal",
        "datetime": "datetime date timedelta",
    }.items()
    for name in names.split()
}
_MODULES = {"math", "cmath", "re", "collections", "itertools", "functools", "copy", "random", "string", "datetime", "json"}
_CLASS_MAKERS = {"namedtuple", "make_dataclass", "Enum", "NewType", "TypeVar", "NamedTuple"}


class BadTest(ValueError):
    """A test or setup code that is not Python; says which."""


@dataclasses.dataclass(frozen=True)
class Suite:
    """Compiled tests of one task."""

    sources: tuple[str, ...]
    codes: tuple[Any, ...]
    names: tuple[frozenset[str], ...]  # names each test loads
    setup: Any
    setup_names: frozenset[str]
    calls: tuple[tuple[Any, ...], ...]  # the calls the tests begin with, where they are plain to see
    definitions: str  # the part of the setup code that the program may rely on: imports, classes, functions
    entry_point: str


@dataclasses.dataclass
class Outcome:
    """How the asserts went: the first failure decides status and evidence."""

    passed: int = 0
    status: str = "success"
    failure: str = ""

    def fail(self, status: str, failure: str) -> None:
        """Record a failure; only the first is kept."""
        if self.status == "success":
            self.status, self.failure = status, failure


@functools.lru_cache(maxsize=512)
def compile_suite(tests: tuple[str, ...], setup: str, entry_point: str) -> Suite:
    """Parse and compile the tests of a task. Raises BadTest."""
    trees = [_parse(test, f"test {number}") for number, test in enumerate(tests, 1)]
    setup_tree = _parse(setup, "setup code")
    entry_point = entry_point or guess_entry_point(trees)
    calls = plain_calls(trees, entry_point) if not setup.strip() else ()
    codes = tuple(compile(_with_evidence(tree), _TEST_FILE, "exec") for tree in trees)
    setup_code = compile(setup_tree, _TEST_FILE, "exec")
    return Suite(
        tests,
        codes,
        tuple(frozenset(_names_of(code)) for code in codes),
        setup_code,
        frozenset(_names_of(setup_code)),
        calls,
        "\n".join(ast.unparse(node) for node in setup_tree.body if _is_definition(node)),
        entry_point,
    )


def _parse(source: str, what: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise BadTest(f"{what} does not parse ({error}): {one_line(source, 120)}") from None


def _names_of(code: Any) -> set[str]:
    """Every name a code object and those inside it mention; attributes are among them, which does no harm."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if hasattr(constant, "co_names"):
            names |= _names_of(constant)
    return names


def _is_definition(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
        maker = node.value.func
        return (maker.id if isinstance(maker, ast.Name) else getattr(maker, "attr", "")) in _CLASS_MAKERS
    if isinstance(node, ast.FunctionDef):
        return not any(isinstance(inner, ast.Assert) for inner in ast.walk(node))
    return isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef)


def guess_entry_point(trees: list[ast.Module]) -> str:
    """The name most asserts call, builtins and helpers only if there is no other; empty when nothing is called."""
    counts: dict[str, int] = {}
    for tree in trees:
        call = _asserted_call(tree)
        nodes = [call] if call and not _is_common(call.func.id) else ast.walk(tree)  # type: ignore[attr-defined]
        called = {n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        for name in called:
            counts[name] = counts.get(name, 0) + (1 if _is_common(name) else 1000)
    return max(sorted(counts), key=lambda name: counts[name], default="")


def _is_common(name: str) -> bool:
    return name in vars(builtins) or name in _HELPERS


def _asserted_call(tree: ast.Module) -> ast.Call | None:
    """The call of `assert name(…) == …` where the test is that and no more."""
    if len(tree.body) == 1 and isinstance(tree.body[0], ast.Assert):
        test = tree.body[0].test
        if isinstance(test, ast.Compare) and isinstance(test.left, ast.Call) and isinstance(test.left.func, ast.Name):
            return test.left
    return None


def plain_calls(trees: list[ast.Module], entry_point: str) -> tuple[tuple[Any, ...], ...]:
    """Arguments of the calls that the tests will make first and in this order, whatever the program is.

    Only tests of the form `assert entry_point(literals) == literal` are so plain; the first other one ends the list.
    """
    calls = []
    for tree in trees:
        call = _asserted_call(tree)
        if call is None or call.keywords or call.func.id != entry_point:  # type: ignore[attr-defined]
            break
        try:
            arguments = tuple(ast.literal_eval(argument) for argument in call.args)
            for side in tree.body[0].test.comparators:  # type: ignore[attr-defined]
                ast.literal_eval(side)
        except (ValueError, TypeError, RecursionError, MemoryError):
            break
        calls.append(arguments)
    return tuple(calls)


def _with_evidence(tree: ast.Module) -> ast.Module:
    """Keep both sides of every `assert left == right` where a failure can read them."""
    nodes = tree.body if all(isinstance(node, ast.Assert) for node in tree.body) else ast.walk(tree)
    for node in nodes:
        test = node.test if isinstance(node, ast.Assert) else None
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            test.left = _kept(_GOT, test.left)
            test.comparators = [_kept(_EXPECTED, test.comparators[0])]
    return tree


def _kept(name: str, value: ast.expr) -> ast.expr:
    target = ast.copy_location(ast.Name(name, ast.Store()), value)
    return ast.copy_location(ast.NamedExpr(target, value), value)


# ------------------------------------------------------------------------------------------------------------ names


class Names:
    """The namespace tests run in: their own names, then the entry point, then builtins, then the program's others."""

    def __init__(self, talk: Conversation, suite: Suite, alias: str) -> None:
        self.talk, self.suite, self.permissive = talk, suite, alias == "permissive"
        self.namespace: dict[str, Any] = {"__builtins__": builtins, "__name__": "tests"}
        self.stale: set[str] = set()

    def wanted(self) -> list[str]:
        """Names to ask the program for."""
        used = self.suite.setup_names.union(*self.suite.names)
        return sorted(name for name in used if name == self.suite.entry_point or name not in vars(builtins))

    def bind(self, values: dict[str, Any], functions: list[str]) -> None:
        """Bind the program's names, then run the setup code over them."""
        entry = self.suite.entry_point
        for name, form in values.items():
            if name != entry and name in _MODULES:
                form = {"m": name}
            self._bind(name, form)
        if self.permissive and entry not in values:
            self._bind_alias(functions)
        if self.suite.setup_names or self.suite.definitions:
            exec(self.suite.setup, self.namespace)
        for name, item in self.namespace.items():
            if isinstance(item, type) and item.__module__ == "tests":
                self.talk.shared[name] = item

    def _bind(self, name: str, form: Any) -> None:
        value = self.talk.read(form)
        defined_there = isinstance(value, Remote) and value._facts.kind in ("function", "class")
        if name in _HELPERS and name != self.suite.entry_point and defined_there:
            value = getattr(self.talk.module(_HELPERS[name]), name)
        self.namespace[name] = value
        if not isinstance(value, Remote | type) and type(form) is not dict or type(form) is dict and "m" not in form:
            self.stale.add(name)

    def _bind_alias(self, functions: list[str]) -> None:
        entry = self.suite.entry_point
        same = [name for name in functions if _folded(name) == _folded(entry)]
        chosen = same[:1] or (functions if len(functions) == 1 else [])
        if entry and chosen:
            self.namespace[entry] = self.talk.current_value(str(chosen[0]))

    def refresh(self, names: frozenset[str]) -> None:
        """Read again the plain globals a test is about to use: the program may have changed them."""
        for name in self.stale & names:
            if not isinstance(self.namespace[name], Remote):
                self.namespace[name] = self.talk.current_value(name)


def _folded(name: str) -> str:
    return name.replace("_", "").lower()


# -------------------------------------------------------------------------------------------------------- judgement


def judge(talk: Conversation, suite: Suite, job: dict[str, Any]) -> Outcome:
    """Run the program, then every assert in order in one shared state."""
    outcome = Outcome()
    names = Names(talk, suite, job["alias"])
    request = {
        "source": job["source"],
        "setup": suite.definitions,
        "names": names.wanted(),
        "cpu_s": job["cpu_s"],
        "memory_mb": job["memory_mb"],
    }
    try:
        answer = talk.run(request, suite.calls, suite.entry_point)
        if "compile" in answer:
            outcome.fail("compile-error", one_line(str(answer["compile"])))
            return outcome
        if "memory" in answer:
            outcome.fail("memory", one_line(str(answer["memory"])))
            return outcome
        if "err" in answer:
            raise talk.read({"x": answer["err"]})
        names.bind(dict(answer["ok"]), list(answer["functions"]))
        talk.take_up(names.namespace[suite.entry_point] if suite.entry_point in answer["ok"] else None)
    except BaseException as error:
        _record(outcome, talk, error, "running the program")
        return outcome
    for test, code, used in zip(suite.sources, suite.codes, suite.names, strict=True):
        _run_test(outcome, names, test, code, used)
        if talk.broken:
            break
    return outcome


def _run_test(outcome: Outcome, names: Names, test: str, code: Any, used: frozenset[str]) -> None:
    talk = names.talk
    try:
        names.refresh(used)
        names.namespace.pop(_GOT, None)
        exec(code, names.namespace)
        if talk.failed_callback:
            raise talk.failed_callback
        if talk.broken:  # a test that swallows every exception must not swallow this one
            raise talk.broken
        outcome.passed += 1
    except BaseException as error:
        _record(outcome, talk, error, one_line(test, 160))


def _record(outcome: Outcome, talk: Conversation, error: BaseException, where: str) -> None:
    error = talk.broken or error
    if isinstance(error, TimeUp):
        outcome.fail(error.status, f"{where}: {error}")
    elif isinstance(error, Unshippable):
        outcome.fail("sandbox-error", f"{where}: {error}")
    elif isinstance(error, wire.Closed):
        outcome.fail("died", where)
    elif isinstance(error, wire.Garbage):
        outcome.fail("runtime-error", f"{where}: the program broke the protocol ({error})")
    elif isinstance(error, MemoryError):
        outcome.fail("memory", f"{where}: MemoryError")
    elif isinstance(error, Raised):
        place = f" (line {error.line})" if error.line else ""
        outcome.fail("runtime-error", one_line(f"{where}: {type(error).__name__}: {error.message}{place}"))
    elif isinstance(error, AssertionError | Misuse):
        outcome.fail("wrong-output", one_line(where + _evidence(error)))
    else:
        outcome.fail("runtime-error", one_line(f"{where}: {type(error).__name__}: {error}"))


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60
_short.maxlist = _short.maxtuple = _short.maxdict = _short.maxset = 8


def _evidence(error: BaseException) -> str:
    """": got …, expected …" from the frame the assert failed in."""
    if isinstance(error, Misuse):
        return f": {error}"
    trace, found = error.__traceback__, ""
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_filename == _TEST_FILE and _GOT in frame.f_locals:
            found = f": got {_shown(frame.f_locals[_GOT])}, expected {_shown(frame.f_locals.get(_EXPECTED))}"
        trace = trace.tb_next
    message = str(error)
    return found or (f": {message}" if message else "")


def _shown(value: Any) -> str:
    try:
        return f"<{value._facts.name} object>" if isinstance(value, Remote) else _short.repr(value)
    except BaseException:
        return f"<{type(value).__name__}>"
