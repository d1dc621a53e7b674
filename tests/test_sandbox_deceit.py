"""Programs that try to pass tests they do not answer: none is a success, none is an error of the sandbox."""

import dataclasses

import pytest

from lib.sandbox import Sandbox
from lib.tasks.task import Task

SQUARE = ("assert f(2) == 4", "assert f(3) == 9")
FRAME = "import sys\nsession = sys._getframe(1).f_locals['self']\nchannel = session.channel\n"


@dataclasses.dataclass(frozen=True)
class Deceit:
    """A program and the tests it must not pass."""

    name: str
    program: str
    tests: tuple[str, ...] = SQUARE
    entry: str = "f"
    setup: str = ""


def agreeing(base: str, make: str = "") -> str:
    """A program that returns an object of a subclass of `base` which agrees with everything."""
    return (
        f"class Yes({base}):\n __hash__ = None\n def __eq__(s, o): return True\n def __ne__(s, o): return False\n"
        f" __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __eq__\n def __bool__(s): return True\n"
        f"def f(x): return Yes({make})"
    )


ROWS = [
    Deceit(
        "class that answers numpy's own questions",
        "class M(type):\n def __getattr__(c, n): return lambda *a, **k: True\nclass C(metaclass=M):\n"
        " __array_function__ = __array_ufunc__ = lambda *a, **k: True\n __array_priority__ = 1e9\n"
        " def __array__(s, *a, **k): return [4]\n __sub__ = __rsub__ = __abs__ = lambda s, *o: s\n"
        " __le__ = __eq__ = __bool__ = lambda *a: True\ndef f(x): return C()",
        (
            "import numpy as np\nassert np.allclose(f(2), 4)",
            "assert np.array_equal(f(2), 4)",
            "assert np.isclose(f(2), 4)",
        ),
    ),
    Deceit(
        "helper under numpy's name",
        "class np: allclose = staticmethod(lambda *a, **k: True)\nnumpy = np\ndef f(x): return 0",
        ("import numpy as np\nassert np.allclose(f(2), 4)",),
    ),
    *[Deceit(f"agreeing {base}", agreeing(base)) for base in ("object", "int", "float", "complex", "Exception")],
    *[
        Deceit(f"agreeing {base}", agreeing(base), ("assert f('ab') == ['a', 'b']",))
        for base in ("str", "list", "tuple", "dict", "set", "frozenset", "bytes", "bytearray")
    ],
    Deceit(
        "metaclass that equals everything",
        "class M(type):\n def __eq__(s, o): return True\n __hash__ = None\nclass C(metaclass=M): pass\n"
        "def f(x): return C",
        SQUARE,
    ),
    Deceit(
        "class property says int",
        "class C:\n __class__ = int\n def __eq__(s, o): return True\n def __index__(s): return 4\ndef f(x): return C()",
        ("assert isinstance(f(2), int) and f(2) == 4",),
    ),
    Deceit(
        "metaclass says isinstance",
        "class M(type):\n def __instancecheck__(s, o): return True\nclass C(metaclass=M):\n"
        " def __eq__(s, o): return True\ndef f(x): return C()",
        ("assert isinstance(f([1]), list) and f([1]) == [1]",),
    ),
    Deceit(
        "reflected equality",
        "class C:\n def __eq__(s, o): return True\ndef f(x): return [C()]",
        ("assert f(2) == [4]", "assert [9] == f(3)", "assert (4,) == tuple(f(2))"),
    ),
    Deceit(
        "agreeing key",
        "class K:\n def __hash__(s): return hash('a')\n def __eq__(s, o): return True\ndef f(x): return {K(): 1}",
        ("assert f(0) == {'a': 1}", "assert f(0)['a'] == 1", "assert 'a' in f(0)"),
    ),
    Deceit(
        "agreeing member of a set",
        "class K:\n def __hash__(s): return 4\n def __eq__(s, o): return True\ndef f(x): return {K()}",
        ("assert f(2) == {4}", "assert 4 in f(2)", "assert f(2) & {4}", "assert not f(2) - {4}"),
    ),
    Deceit(
        "contains everything",
        "class C:\n def __contains__(s, o): return True\n def __iter__(s): return iter([])\ndef f(x): return C()",
        ("assert 4 in f(2)",),
    ),
    Deceit(
        "contains by a stream of agreeing items",
        "class Y:\n def __eq__(s, o): return True\ndef f(x): yield Y()",
        ("assert 4 in f(2)", "assert list(f(2)) == [4]"),
    ),
    Deceit("iterates without end", "def f(x):\n while True: yield 4", ("assert 5 in f(2)",)),
    Deceit(
        "orders itself",
        "class C:\n def __lt__(s, o): return True\n __gt__ = __le__ = __ge__ = __lt__\ndef f(x): return C()",
        ("assert f(2) > 3", "assert 3 < f(2) < 5", "assert max(f(2), 3) is not 3 and f(2) >= 4"),
    ),
    Deceit(
        "difference is zero",
        "class C:\n def __sub__(s, o): return 0\n __rsub__ = __sub__\n def __abs__(s): return 0\ndef f(x): return C()",
        ("assert abs(f(2) - 4) < 1e-6", "assert abs(4 - f(2)) < 1e-6", "assert f(2) - 4 == 0"),
    ),
    Deceit(
        "difference is itself, its size zero",
        "class C:\n def __sub__(s, o): return s\n def __abs__(s): return 0.0\ndef f(x): return C()",
        ("assert abs(f(2) - 4) < 1e-6",),
    ),
    Deceit(
        "difference in place",
        "class C:\n def __isub__(s, o): return 0\ndef f(x): return C()",
        ("r = f(2)\nr -= 4\nassert r == 0", "r = f(2)\nr -= 4\nassert not r"),
    ),
    Deceit(
        "symmetric difference by name",
        "class C:\n def symmetric_difference(s, o): return set()\n difference = symmetric_difference\n"
        "def f(x): return C()",
        ("assert f(1).symmetric_difference({1}) == set()", "assert not f(1).difference({1})"),
    ),
    Deceit(
        "predicates of every callable kind",
        "import functools\nclass C:\n startswith = print\n endswith = staticmethod(lambda o: True)\n"
        " issubset = functools.partial(lambda *a: 1)\n isdisjoint = classmethod(lambda c, o: [1])\n"
        " count = str\ndef f(x): return C()",
        (
            "assert f(1).startswith('a') is None and False",
            "assert f(1).endswith('a')",
            "assert f(1).issubset({1})",
            "assert f(1).isdisjoint({1})",
            "assert f(1).count('a')",
        ),
    ),
    Deceit(
        "predicate that returns an agreeing object",
        "class Y:\n def __eq__(s, o): return True\n def __bool__(s): return True\n"
        " def startswith(s, o): return s\ndef f(x): return Y()",
        ("assert f('x').startswith('abc')",),
    ),
    Deceit(
        "dunder by attribute",
        "class C:\n def __getattribute__(s, n): return lambda *a: True\ndef f(x): return C()",
        ("assert f(2).__eq__(4)", "assert f(2).__contains__(4)", "assert f([1]).equals([1])"),
    ),
    Deceit(
        "subclass of str with methods that agree",
        "class S(str):\n def endswith(s, o): return True\n startswith = __contains__ = endswith\n"
        " def lower(s): return s\ndef f(x): return S('x')",
        ("assert f('').startswith('abc')", "assert 'abc' in f('')", "assert f('').lower() == 'abc'"),
    ),
    Deceit(
        "content that lies about its length",
        "class L(list):\n def __len__(s): return 3\n def __iter__(s): return iter([1, 2, 3])\n"
        " def __getitem__(s, i): return i + 1\ndef f(x): return L()",
        ("assert len(f(0)) == 3", "assert list(f(0)) == [1, 2, 3]", "assert f(0)[1] == 2"),
    ),
    Deceit(
        "value that changes while it is read",
        "class D(dict):\n n = 0\n def items(s):\n  D.n += 1\n  return [('a', D.n)]\ndef f(x): return D()",
        ("assert f(0) == {'a': 1}",),
    ),
    Deceit(
        "equal by name of another class",
        "class P:\n def __init__(s, *a): pass\n def __eq__(s, o): return True\ndef f(x): return P()",
        ("assert f(2) == P(2, 4)",),
    ),
    Deceit(
        "attributes rewritten once the expected object is there",
        FRAME + "made = []\nclass P:\n def __init__(s, x):\n  s.x = x\n  for p in made: p.x = x\n  made.append(s)\n"
        " def __eq__(s, o): return True\ndef f(x): return P(0)",
        ("assert f(2) == P(4)",),
    ),
    Deceit(
        "attributes of another object in the answer",
        FRAME + "class P:\n def __init__(s, x): s.x = x\n def __eq__(s, o): return True\n"
        "real = session.compose\ndef compose(encode):\n out = real(encode)\n if out.get('states'):\n"
        "  last = out['states'][-1][1]\n"
        "  out['states'] = [[n, last] for n, v in session.objects.items() if isinstance(v, P)]\n return out\n"
        "session.compose = compose\ndef f(x): return P(0)",
        ("assert f(2) == P(4)",),
    ),
    Deceit(
        "list in an object rewritten once the expected object is there",
        "made = []\nclass P:\n def __init__(s, x):\n  s.x = [x]\n  for p in made: p.x[:] = [x]\n  made.append(s)\n"
        " def __eq__(s, o): return True\ndef f(x): return P(0)",
        ("assert f(2) == P(4)",),
    ),
    Deceit(
        "change of a list that was never handed over",
        FRAME + "real = session.compose\ndef compose(encode):\n"
        " return real(encode) | {'changed': [[n, [0]] for n in range(2, 20, 2)]}\n"
        "def f(x):\n session.compose = compose\n return [0]",
        ("want = [4]\nassert f([2]) == want",),
    ),
    Deceit(
        "list that only the test holds, handed over by number once more",
        FRAME + "def f(x):\n session.encode = lambda v: {'#': 4}\n return 0",
        ("want = [4]\nassert f([2]) == want",),
    ),
    Deceit(
        "exceptions that only look like the setup's",
        "def f(x): raise (type('Refused', (Exception,), {}) if x else ValueError)",
        tuple(f"try:\n f({x})\nexcept Refused:\n pass" for x in (0, 1)),
        setup="class Refused(Exception):\n pass",
    ),
    Deceit(
        "exception of the setup with operators of the program's",
        "Refused.__eq__ = lambda a, b: True\nRefused.__str__ = lambda e: '4'\ndef f(x): return Refused(0)",
        ("assert f(2) == Refused(4)", "assert str(f(2)) == '4'"),
        setup="class Refused(Exception):\n def __eq__(self, other):\n  return self.args == other.args",
    ),
    Deceit(
        "class of the setup defined once more, to agree with everything",
        "class P:\n def __init__(self, x):\n  self.x = 0\n def __eq__(self, other):\n  return True\n"
        "def f(x):\n return P(x)",
        ("assert f(2) == P(4)", "assert P(4) == f(2)"),
        setup="class P:\n def __init__(self, x):\n  self.x = x\n def __eq__(self, other):\n  return self.x == other.x",
    ),
    Deceit(
        "names that tests lean on",
        "def abs(x): return 0\nround = min = max = sum = sorted = len = abs\nTrue_ = 1\n"
        "isinstance = lambda *a: True\nclass math: isclose = staticmethod(lambda *a, **k: True)\n"
        "def f(x): return 0",
        (
            "assert math.isclose(f(2), 4)",
            "assert len(f(2)) == 4",
            "assert isinstance(f(2), str)",
            "assert sorted(f(2)) == [4]",
        ),
    ),
    Deceit(
        "answers with names nobody asked for",
        FRAME + "def f(x): return 0\nreal = channel.send\ndef send(a):\n"
        " if 'functions' in a: a['ok'] += [[n, 4] for n in ('abs', 'expected', 'AssertionError', "
        "'__builtins__')]\n real(a)\nchannel.send = send",
        ("assert abs(f(2) - 4) < 1e-9", "assert f(2) == expected"),
        setup="expected = 4",
    ),
    Deceit(
        "redefines the expected value of the setup",
        "answers = {2: 0}\ndef f(x): return 0",
        ("assert f(2) == answers[2]",),
        setup="answers = {2: 4}",
    ),
    Deceit(
        "redefines a function of the setup",
        "def same(a, b): return True\ndef f(x): return 0",
        ("assert same(f(2), 4)",),
        setup="def same(a, b):\n return a == b",
    ),
    Deceit("entry point defined by the setup alone", "x = 1", SQUARE, setup="def f(x):\n return x * x"),
    Deceit("entry point of the setup, spoken of", "print(f)", SQUARE, setup="def f(x):\n return x * x"),
    Deceit(
        "looks for a constant of the setup that it does not name",
        "def f(x): return [v for k, v in globals().items() if k[:3] == 'ans'][0][x]",
        ("assert f(2) == answers[2]",),
        setup="answers = {2: 4}",
    ),
    Deceit(
        "class derived from the setup's, to agree with everything",
        "class D(P):\n def __eq__(self, other): return True\n def same(self, other): return True\n"
        "def f(x): return D(0)",
        ("assert f(2) == P(4)", "assert P(4) == f(2)", "assert f(2).same(P(4))", "assert f(2) == 4"),
        setup="class P:\n def __init__(self, x):\n  self.x = x\n def __eq__(self, other):\n  return self.x == other.x\n"
        " def same(self, other):\n  return self.x == other.x",
    ),
    Deceit(
        "writes over a constant of the setup",
        "MOD = 1\ndef f(x): return x % MOD",
        ("assert f(3) == 3 % MOD",),
        setup="MOD = 7",
    ),
    Deceit(
        "shares the answer with the expected side",
        "def f(x):\n x.clear()\n return x",
        ("data = [1, 2]\nassert f(data) == [1, 2]",),
    ),
    Deceit(
        "finds the test in frames",
        "import sys, gc\ndef f(x):\n frame = sys._getframe()\n while frame:\n"
        "  for v in frame.f_locals.values():\n"
        "   if isinstance(v, str) and 'assert' in v: return eval(v.split('==')[1])\n  frame = frame.f_back\n"
        " for o in gc.get_objects():\n"
        "  if isinstance(o, str) and 'assert f(' in o: return eval(o.split('==')[1])\n return 0",
    ),
    Deceit(
        "answers ahead of the question",
        "import json, os\nfor _ in range(3):\n body = json.dumps({'ok': 4}).encode()\n"
        " for fd in range(3, 40):\n  try: os.write(fd, len(body).to_bytes(4, 'little') + body)\n"
        "  except OSError: pass\ndef f(x): return 0",
        SQUARE,
    ),
    Deceit(
        "answers with an error that is success",
        "class AssertionError_(AssertionError): pass\ndef f(x): raise SystemExit(0)",
    ),
    Deceit(
        "stops the loop of the test",
        "def f(x): raise StopIteration",
        ("for x in (1, 2):\n for y in (z for z in [f(x)]): assert y == 4\nassert f(2) == 4",),
    ),
    Deceit(
        "stops a map of the test's",
        "def f(x): raise StopIteration",
        ("assert all(map(lambda x: f(x) == x * x, (2, 3)))", "assert all(y == 4 for y in map(f, [2]))"),
    ),
    Deceit(
        "changes a global under a name of the test's",
        "four = answer = 0\ndef f(x):\n global four, answer\n four = answer = x\n return x",
        ("four = 4\nassert f(2) == four", "assert f(2) == answer"),
        setup="answer = 4",
    ),
    Deceit(
        "module that is none",
        "import sys\nclass Yes(type(sys)):\n def __eq__(self, other): return True\nx = Yes('csv')\ndef f(n): return x",
        (*SQUARE, "assert f(2) == 4 or x == 4", "assert f(2).answer == 4"),
    ),
    Deceit("generator exit", "def f(x): raise GeneratorExit"),
    Deceit("keyboard interrupt", "def f(x): raise KeyboardInterrupt"),
    Deceit(
        "exception whose class says it is expected",
        "class M(type):\n def __subclasscheck__(s, o): return True\n"
        " def __instancecheck__(s, o): return True\nclass E(Exception, metaclass=M): pass\n"
        "E.__name__ = 'ValueError'\nE.__module__ = 'builtins'\ndef f(x): raise E()",
        ("try:\n f(1)\n assert False\nexcept ValueError:\n pass",),
    ),
    Deceit(
        "tampered modules",
        "import sys, types\nsys.modules['math'] = types.ModuleType('math')\n"
        "sys.modules['math'].isclose = lambda *a, **k: True\nsys.modules['json'] = sys.modules['math']\n"
        "def f(x): return 0",
        ("import math\nassert math.isclose(f(2), 4)",),
    ),
    Deceit(
        "class in place of a function, callable attributes",
        "class f:\n def __init__(s, x): pass\n def __getattr__(s, n): return s\n"
        " def __call__(s, *a): return s\n def __eq__(s, o): return True\n def __bool__(s): return True",
        ("assert f('a').upper() == 'A'", "assert f([1]).pop() == 1", "assert f(2).real == 4"),
    ),
    Deceit(
        "class under a capital entry point that equals all",
        "class Solve:\n def __init__(s, x): pass\n def __eq__(s, o): return True\n def __bool__(s): return True",
        ("assert Solve(2) == 4", "assert Solve(3) in [9]"),
        "Solve",
    ),
    Deceit(
        "method of the class under test returns an agreeing object",
        "class Y:\n def __eq__(s, o): return True\nclass Solution:\n def run(s, x): return Y()",
        ("assert Solution().run(2) == 4",),
        "Solution",
    ),
    Deceit(
        "method of the class under test returns itself",
        "class Solution:\n def run(s, x): return s\n def __eq__(s, o): return True",
        ("assert Solution().run(2) == 4",),
        "Solution",
    ),
    Deceit("not a number is itself", "n = float('nan')\ndef f(x): return [float('nan')]", ("assert f(1) == f(2)",)),
    Deceit(
        "swallows the callback's assertion",
        "def f(g):\n try: g(0)\n except BaseException: pass\n return 4",
        ("def g(x): assert x == 1\nassert f(g) == 4",),
    ),
    Deceit(
        "signature that lies about a call",
        "class C:\n def __call__(s, *a): return s\n def __eq__(s, o): return True\nf = C()",
    ),
    Deceit(
        "exits cleanly from a thread while it waits",
        "import threading, os, time\nthreading.Thread(target=lambda: (time.sleep(.05), os._exit(0))).start()\n"
        "def f(x):\n time.sleep(5)\n return x * x",
    ),
    Deceit("deep answer", "def f(x):\n a = []\n for _ in range(100000): a = [a]\n return a"),
    Deceit(
        "deep answer by hand",
        FRAME + "import os\ndef f(x):\n body = b'{\"ok\":' + b'[' * 8000 + b']' * 8000 + b'}'\n"
        " os.write(channel.descriptor, len(body).to_bytes(4, 'little') + body)",
    ),
    Deceit(
        "answer that compiles for ever",
        FRAME + "class R: pass\nsession.encode = lambda v: {'re': ['(?i)' + '[\\x00-\\U0010ffff]' * 400, 0]}\n"
        "def f(x): return R()",
    ),
    Deceit(
        "huge number in few bytes", FRAME + "def f(x):\n session.encode = lambda v: {'D': ['1e999999999999999999']}"
    ),
    Deceit(
        "array of a terabyte in few bytes",
        FRAME + "def f(x):\n session.encode = lambda v: {'B': [99, [1 << 40], 'AAAA']}",
    ),
    Deceit(
        "a module to call into",
        FRAME + "def f(x):\n session.encode = lambda v: {'m': 'os'}",
        ("r = f(2)\nassert r.getpid()",),
    ),
    Deceit(
        "a type to call",
        FRAME + "def f(x):\n session.encode = lambda v: {'ty': 'subprocess:Popen'}",
        ("r = f(2)\nassert r(['true']).wait() == 0",),
    ),
    Deceit(
        "another's number",
        FRAME + "def f(x):\n session.encode = lambda v: {'#': 2}",
        ("g = lambda: 4\nassert f(g)() == 5",),
    ),
    Deceit(
        "a container of the request that is none",
        FRAME + "def f(x):\n session.encode = lambda v: [2, 4]",
        ("assert f([4]) == [5]",),
    ),
    Deceit(
        "asks the grader for what was never lent",
        FRAME + "def f(x):\n channel.send({'do': 'call', 'on': 2, 'args': []})\n return channel.receive()",
        ("class Secret:\n def __call__(self): return 4\ns = Secret()\nassert f(1) == 4",),
    ),
]


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=2) as sandbox:
        yield sandbox


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_no_test_is_passed(sandbox, row):
    """Each test alone, so that one which fails does not hide another."""
    for test in row.tests:
        task = Task(
            "t", "s", "d", "p", "en", "python", "function", row.entry, (test,), setup_code=row.setup, time_limit_s=1
        )
        verdict = sandbox.grade(task, row.program)
        if row.tests is SQUARE and verdict.status == "success":
            continue  # one value out of two may be right by chance
        assert verdict.status not in ("success", "sandbox-error"), test
        assert verdict.failure
