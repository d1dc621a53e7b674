"""Compile a task's tests once: their code, the names they use, the calls they begin with, what they leave as evidence."""

import ast
import builtins
import dataclasses
import functools
import re
from typing import Any

from lib.sandbox.verdict import one_line

GOT, EXPECTED = "__got__", "__expected__"
TEST_FILE = "<test>"
# Names a test may use without importing them. A program that defines one of these does not get to decide with it,
# unless it is the function under test.
HELPERS = {
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
    definitions: tuple[tuple[str, str], ...]  # (name, source) of what the program may rely on; see `shown_to`
    entry_point: str


@functools.lru_cache(maxsize=512)
def compile_suite(tests: tuple[str, ...], setup: str, entry_point: str) -> Suite:
    """Parse and compile the tests of a task. Raises BadTest."""
    trees = [_parse(test, f"test {number}") for number, test in enumerate(tests, 1)]
    setup_tree = _parse(setup, "setup code")
    entry_point = entry_point or guess_entry_point(trees)
    calls = plain_calls(trees, entry_point) if not setup.strip() else ()
    codes = tuple(compile(_with_evidence(tree), TEST_FILE, "exec") for tree in trees)
    setup_code = compile(setup_tree, TEST_FILE, "exec")
    return Suite(
        tests,
        codes,
        tuple(frozenset(_names_of(code)) for code in codes),
        setup_code,
        frozenset(_names_of(setup_code)),
        calls,
        tuple((getattr(node, "name", ""), ast.unparse(node)) for node in setup_tree.body if _is_definition(node)),
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


def shown_to(suite: Suite, program: str) -> str:
    """The setup code a program gets: imports and classes, and functions only if it speaks of them.

    A setup function may be the very answer the tests compare with.
    """
    return "\n".join(
        source
        for name, source in suite.definitions
        if not source.lstrip("@").startswith(("def ", "async def "))
        and not source.startswith("@")
        or re.search(rf"\b{re.escape(name)}\b", program)
    )


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
    return name in vars(builtins) or name in HELPERS


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
            test.left = _kept(GOT, test.left)
            test.comparators = [_kept(EXPECTED, test.comparators[0])]
    return tree


def _kept(name: str, value: ast.expr) -> ast.expr:
    target = ast.copy_location(ast.Name(name, ast.Store()), value)
    return ast.copy_location(ast.NamedExpr(target, value), value)
