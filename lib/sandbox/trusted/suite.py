"""Compile a task's tests once: their code, the names they use, the evidence they leave."""

import ast
import builtins
import dataclasses
import dis
import functools
import re
from typing import Any

from lib.sandbox.verdict import one_line

GOT, EXPECTED = "__got__", "__expected__"
TEST_FILE = "<test>"
# Names that a test may use without importing them: they are the standard library's, whatever the program defines,
# unless the name is the entry point or the tests define it themselves.
HELPERS = {
    name: module
    for module, names in {
        "math": "isclose sqrt floor ceil fabs fsum pi e tau inf nan isnan isinf isfinite gcd lcm factorial comb prod "
        "hypot",
        "cmath": "phase polar",
        "collections": "Counter OrderedDict deque defaultdict namedtuple ChainMap",
        "itertools": "permutations combinations product chain accumulate groupby islice zip_longest",
        "functools": "reduce partial lru_cache cmp_to_key",
        "copy": "deepcopy",
        "fractions": "Fraction",
        "decimal": "Decimal",
        "datetime": "date timedelta timezone",
        "statistics": "median stdev pstdev",
        "string": "ascii_lowercase ascii_uppercase ascii_letters",
        "pathlib": "Path",
        "io": "StringIO",
    }.items()
    for name in names.split()
}
MODULES = frozenset(
    "abc asyncio bisect calendar cmath collections contextlib copy dataclasses datetime decimal enum fractions "
    "functools heapq inspect io itertools json math numbers operator os pathlib random re statistics string struct "
    "sys textwrap time types typing unicodedata unittest uuid warnings".split()
)
PACKAGES = frozenset({"numpy"})  # what a test may import beside the standard library, where it is installed
_CLASS_MAKERS = {"namedtuple", "make_dataclass", "Enum", "NewType", "TypeVar", "NamedTuple"}
# What a test speaks of if it changes something that the program would see were both one process.
_SHARED_NAMES = {"open", "patch", "mock", "Mock", "MagicMock", "monkeypatch", "capsys", "capfd", "seed", "tempfile"}
_SHARED_ATTRIBUTES = {
    "sys": {"stdin", "argv", "setrecursionlimit", "path", "modules", "settrace"},
    "os": {"environ", "chdir", "mkdir", "makedirs", "remove", "putenv", "listdir", "path"},
    "random": {"seed", "setstate"},
    "mock": {"patch"},
    "decimal": {"getcontext", "setcontext", "localcontext"},
    "locale": {"setlocale"},
}


class BadTest(ValueError):
    """A test or setup code that is not Python; says which."""


@dataclasses.dataclass(frozen=True)
class Definition:
    """One statement of the setup code, as a program gets it: what goes wrong in it is passed over there."""

    names: frozenset[str]  # what it binds, or changes in place
    source: str
    always: bool  # an import or a class


@dataclasses.dataclass(frozen=True)
class Suite:
    """Compiled tests of one task."""

    sources: tuple[str, ...]
    codes: tuple[Any, ...]
    names: tuple[frozenset[str], ...]  # names each test loads
    stored: tuple[frozenset[str], ...]  # names each test assigns
    shares: tuple[bool, ...]  # whether a test changes what the program would see in one process
    setup: Any
    setup_names: frozenset[str]
    setup_stored: frozenset[str]
    plain: bool  # nothing but `assert entry_point(literals) == literal`
    definitions: tuple["Definition", ...]  # statements of the setup code that the program may rely on; see `shown_to`
    classes: dict[str, str]  # source, imports first, of every class of the tests that is complete with them
    entry_point: str


@functools.lru_cache(maxsize=512)
def compile_suite(tests: tuple[str, ...], setup: str, entry_point: str) -> Suite:
    """Parse and compile the tests of a task. Raises BadTest."""
    trees = [_parse(test, f"test {number}") for number, test in enumerate(tests, 1)]
    setup_tree = _parse(setup, "setup code")
    setup_code = compile(setup_tree, TEST_FILE, "exec")
    entry_point = entry_point or guess_entry_point(trees, _stored_names(setup_code))
    plain = not setup.strip() and all(_is_plain(tree, entry_point) for tree in trees)
    nodes = [] if plain else [node for tree in (setup_tree, *trees) for node in ast.walk(tree)]
    shares = tuple(not plain and shares_the_process(tree) for tree in trees)
    codes = tuple(compile(_with_evidence(tree), TEST_FILE, "exec") for tree in trees)
    names = tuple(frozenset(_names_of(code)) for code in codes)
    return Suite(
        tests,
        codes,
        names,
        tuple(_stored_names(code) for code in codes),
        shares,
        setup_code,
        frozenset(_names_of(setup_code)),
        _stored_names(setup_code),
        plain,
        tuple(_definition(node) for node in setup_tree.body if not _asserts(node)),
        _complete_classes(nodes),
        entry_point,
    )


def _parse(source: str, what: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadTest(f"{what} does not parse ({error}): {one_line(source, 120)}") from None


def _names_of(code: Any) -> set[str]:
    """Every name a code object and those inside it mention; attributes are among them, which does no harm."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if hasattr(constant, "co_names"):
            names |= _names_of(constant)
    return names


def _stored_names(code: Any) -> frozenset[str]:
    """The globals that a code object, and functions inside it, assign or delete."""
    stored = set()
    if code.co_names:
        for step in dis.get_instructions(code):
            if step.opname in ("STORE_NAME", "STORE_GLOBAL", "DELETE_NAME", "DELETE_GLOBAL"):
                stored.add(step.argval)
    for constant in code.co_consts:
        if hasattr(constant, "co_names"):
            inner = dis.get_instructions(constant)
            stored |= {step.argval for step in inner if step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL")}
    return frozenset(stored - {GOT, EXPECTED})


def shares_the_process(tree: ast.AST) -> bool:
    """Whether a test patches, seeds or writes what the program would see if both were one process."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in _SHARED_NAMES:
            return True
        if isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else getattr(node.value, "attr", "")
            replaced = isinstance(node.ctx, ast.Store) and owner in MODULES | {"builtins"}
            written = node.attr in ("write_text", "write_bytes")
            if replaced or written or node.attr in _SHARED_ATTRIBUTES.get(owner, ()):
                return True
    return False


def _complete_classes(nodes: list[ast.AST]) -> dict[str, str]:
    """Sources of the classes that need nothing but imports, builtins and each other, and that assert nothing."""
    imports = {name: f"from {module} import {name}" for name, module in HELPERS.items()}
    imports |= {name: f"import {name}" for name in MODULES}
    for node in nodes:
        if isinstance(node, ast.Import):
            imports |= {
                (alias.asname or alias.name).partition(".")[0]: ast.unparse(ast.Import([alias])) for alias in node.names
            }
        if isinstance(node, ast.ImportFrom):
            imports |= {
                alias.asname or alias.name: ast.unparse(ast.ImportFrom(node.module, [alias], node.level))
                for alias in node.names
            }
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    named = {node.name for node in classes}
    sources: dict[str, str] = {}
    for node in classes:
        needed = _free_names(node) - named - vars(builtins).keys()
        source = "\n".join([*(imports[name] for name in sorted(needed & imports.keys())), ast.unparse(node)])
        complete = needed <= imports.keys() and not _asserts(node) and sources.get(node.name, source) == source
        sources[node.name] = source if complete else ""
    return sources


def _free_names(tree: ast.AST) -> set[str]:
    """The names that a piece of code reads and binds nowhere in itself."""
    read: set[str] = set()
    bound: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return read - bound


def _asserts(node: ast.AST) -> bool:
    return any(
        isinstance(inner, ast.Assert) or isinstance(inner, ast.Attribute) and inner.attr.startswith("assert")
        for inner in ast.walk(node)
    )


def shown_to(suite: Suite, program: str) -> list[Definition]:
    """The setup code a program gets: imports and classes, and the rest only if it speaks of that, directly or not.

    A function or constant of the setup's may be the very answer the tests compare with; the entry point's own is.
    """
    shown = {item for item in suite.definitions if item.always}
    spoken = words(program).union(*(words(item.source) for item in shown))
    while more := {
        item
        for item in suite.definitions
        if item not in shown and item.names & spoken and suite.entry_point not in item.names
    }:
        shown |= more
        spoken = spoken.union(*(words(item.source) for item in more))
    return [item for item in suite.definitions if item in shown]


def words(text: str) -> set[str]:
    """The names, keywords and numbers in a text."""
    return set(re.findall(r"\w+", text))


def classes_under_test(suite: Suite, prompt: str) -> frozenset[str]:
    """Return names that the task, not the program, calls classes: by its prompt or the entry point's capital."""
    names = set(re.findall(r"^\s*class\s+(\w+)", prompt, re.MULTILINE)) | set(
        re.findall(r"\bclass\s+`?([A-Z]\w*)", prompt)
    )
    if re.match(r"_*[A-Z]", suite.entry_point) and "_" not in suite.entry_point.strip("_"):
        names.add(suite.entry_point)
    return frozenset(names)


def _definition(node: ast.stmt) -> Definition:
    call = node.value.func if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) else None
    maker = call.id if isinstance(call, ast.Name) else getattr(call, "attr", "")
    always = isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef) or maker in _CLASS_MAKERS
    names = _stored_names(compile(ast.Module([node], []), TEST_FILE, "exec")) | _changed_names(node)
    return Definition(names, _unparsed(node), always)


def _changed_names(node: ast.stmt) -> frozenset[str]:
    """Names whose objects a statement changes: it stores into them or calls their methods."""
    changed = set()
    for inner in [] if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else ast.walk(node):
        owner: Any = inner.func if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute) else inner
        if owner is inner and not isinstance(getattr(inner, "ctx", None), ast.Store | ast.Del):
            continue
        while isinstance(owner, ast.Attribute | ast.Subscript):
            owner = owner.value
        changed |= {owner.id} if isinstance(owner, ast.Name) else set()
    return frozenset(changed)


def _unparsed(node: ast.stmt) -> str:
    """The source of a definition, which passes over what the program's process cannot import, make or find."""
    if isinstance(node, ast.ImportFrom) and node.module == "__future__":
        return ast.unparse(node)
    parts = [ast.Import([alias]) for alias in node.names] if isinstance(node, ast.Import) else [node]
    caught = ast.ExceptHandler(ast.Name("Exception", ast.Load()), None, [ast.Pass()])
    return "\n".join(ast.unparse(ast.Try([part], [caught], [], [])) for part in parts)


def guess_entry_point(trees: list[ast.Module], defined: frozenset[str] = frozenset()) -> str:
    """The name most asserts call, builtins and helpers only if there is no other; empty when nothing is called."""
    counts: dict[str, int] = {}
    for tree in trees:
        call = _asserted_call(tree)
        nodes = [call] if call and not _is_common(call.func.id) else ast.walk(tree)  # type: ignore[attr-defined]
        called = {n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        for name in called - defined:
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


def _is_plain(tree: ast.Module, entry_point: str) -> bool:
    """Whether a test is `assert entry_point(literals) == literal`, so that no code runs but the comparison."""
    call = _asserted_call(tree)
    if call is None or call.keywords or call.func.id != entry_point:  # type: ignore[attr-defined]
        return False
    try:
        for value in (*call.args, *tree.body[0].test.comparators):  # type: ignore[attr-defined]
            ast.literal_eval(value)
    except (ValueError, TypeError, RecursionError, MemoryError):
        return False
    return True


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
