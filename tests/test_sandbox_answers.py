"""No right answer refused: each row is a right program in some dress, and each has a wrong twin that must fail."""

import dataclasses

import pytest

from lib.sandbox import Sandbox
from lib.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Row:
    """A program, tests it passes, and one more test it fails."""

    name: str
    program: str
    tests: tuple[str, ...]
    fails: str
    setup: str = ""


ROWS = [
    Row(
        "generator returned",
        "def f(n):\n yield from range(n)",
        ("assert list(f(3)) == [0, 1, 2]", "assert next(f(1)) == 0"),
        "assert list(f(3)) == [0, 1]",
    ),
    Row(
        "endless generator",
        "def f():\n n = 0\n while True:\n  yield n\n  n += 1",
        (
            "g = f()\nassert [next(g), next(g)] == [0, 1]",
            "import itertools\nassert list(itertools.islice(f(), 3)) == [0, 1, 2]",
        ),
        "assert next(f()) == 1",
    ),
    Row(
        "map, filter, zip returned",
        "def f(x):\n return map(str, x)\ndef g(x):\n return filter(None, x)\ndef h(a, b):\n return zip(a, b)",
        (
            "assert list(f([1, 2])) == ['1', '2']",
            "assert list(g([0, 1])) == [1]",
            "assert dict(h('ab', [1, 2])) == {'a': 1, 'b': 2}",
        ),
        "assert list(f([1])) == [1]",
    ),
    Row(
        "reversed and enumerate",
        "def f(x):\n return reversed(x)\ndef g(x):\n return enumerate(x)",
        ("assert list(f([1, 2])) == [2, 1]", "assert list(g('a')) == [(0, 'a')]"),
        "assert list(f([1, 2])) == [1, 2]",
    ),
    Row(
        "argument mutated",
        "def f(x):\n x.sort()\n x.append(0)",
        ("x = [3, 1]\nf(x)\nassert x == [1, 3, 0]", "x = [1]\nassert f(x) is None and x == [1, 0]"),
        "x = [3, 1]\nf(x)\nassert x == [3, 1]",
    ),
    Row(
        "nested argument mutated",
        "def f(m):\n m[0][1] = 9\n m[1]['k'].add(5)",
        ("row = [1, 2]\nm = [row, {'k': {4}}]\nf(m)\nassert m == [[1, 9], {'k': {4, 5}}]\nassert row == [1, 9]",),
        "m = [[1, 2], {'k': {4}}]\nf(m)\nassert m[0] == [1, 2]",
    ),
    Row(
        "mutated dict, set, bytearray, deque",
        "def f(d, s, b, q):\n d['x'] = 1\n s.discard(1)\n b[0] = 65\n q.rotate(1)",
        (
            "from collections import deque\nd, s, b, q = {}, {1, 2}, bytearray(b'b'), deque([1, 2, 3])\n"
            "f(d, s, b, q)\nassert (d, s, b, q) == ({'x': 1}, {2}, bytearray(b'A'), deque([3, 1, 2]))",
        ),
        "d = {}\nf(d, set(), bytearray(b'b'), __import__('collections').deque())\nassert d == {}",
    ),
    Row(
        "argument returned",
        "def f(x):\n x.append(1)\n return x",
        ("x = []\nassert f(x) is x and x == [1]",),
        "assert f([]) == []",
    ),
    Row(
        "namedtuple returned",
        "from collections import namedtuple\nPoint = namedtuple('Point', 'x y')\ndef f(a, b):\n return Point(a, b)",
        (
            "assert f(1, 2) == (1, 2)",
            "assert f(1, 2).x == 1",
            "assert f(1, 2) == Point(1, 2)",
            "assert isinstance(f(1, 2), Point)",
            "x, y = f(1, 2)\nassert y == 2",
        ),
        "assert f(1, 2) == (2, 1)",
    ),
    Row(
        "typing.NamedTuple",
        "from typing import NamedTuple\nclass P(NamedTuple):\n x: int\n y: int = 0\ndef f(a):\n return P(a)",
        ("assert f(1) == (1, 0)", "assert f(1)._asdict() == {'x': 1, 'y': 0}", "assert f(1)._replace(y=5) == (1, 5)"),
        "assert f(1) == (1, 1)",
    ),
    Row(
        "dataclass returned",
        "from dataclasses import dataclass\n@dataclass\nclass P:\n x: int\n y: int\ndef f(a):\n return P(a, a + 1)",
        (
            "assert f(1) == P(1, 2)",
            "assert f(1).y == 2",
            "assert repr(f(1)) == 'P(x=1, y=2)'",
            "assert f(1) != P(1, 3)",
            "assert P(1, 2) == P(1, 2)",
        ),
        "assert f(1) == P(1, 3)",
    ),
    Row(
        "nested dataclass",
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass A:\n v: tuple\n@dataclass\n"
        "class B:\n a: A\n l: list\ndef f():\n return B(A((1,)), [A((2,))])",
        ("assert f() == B(A((1,)), [A((2,))])",),
        "assert f() == B(A((1,)), [A((3,))])",
    ),
    Row(
        "class under test",
        "class Stack:\n def __init__(self):\n  self.items = []\n def push(self, x):\n  self.items.append(x)\n"
        "  return self\n def pop(self):\n  return self.items.pop()\n def __len__(self):\n"
        "  return len(self.items)\n def __bool__(self):\n  return bool(self.items)\n"
        " def __contains__(self, x):\n  return x in self.items\n @property\n def top(self):\n"
        "  return self.items[-1]\n @staticmethod\n def make():\n  return Stack()\n limit = 5",
        (
            "s = Stack()\ns.push(1).push(2)\nassert len(s) == 2\nassert s.top == 2\nassert s.pop() == 2\n"
            "assert 1 in s and 3 not in s",
            "s = Stack()\nassert not s\ns.push(0)\nassert s and s.items == [0]",
            "assert Stack.limit == 5 and isinstance(Stack.make(), Stack)",
            "s = Stack()\ntry:\n s.pop()\n assert False\nexcept IndexError:\n pass",
        ),
        "s = Stack()\ns.push(1)\nassert s.pop() == 2",
    ),
    Row(
        "operators under test",
        "class V:\n def __init__(self, x, y):\n  self.x, self.y = x, y\n def __add__(self, o):\n"
        "  return V(self.x + o.x, self.y + o.y)\n def __mul__(self, k):\n  return V(self.x * k, self.y * k)\n"
        " __rmul__ = __mul__\n def __neg__(self):\n  return V(-self.x, -self.y)\n def __eq__(self, o):\n"
        "  return (self.x, self.y) == (o.x, o.y)\n def __abs__(self):\n"
        "  return (self.x ** 2 + self.y ** 2) ** .5\n def __getitem__(self, i):\n"
        "  return (self.x, self.y)[i]\n def __lt__(self, o):\n  return abs(self) < abs(o)\n"
        " def __iter__(self):\n  yield self.x\n  yield self.y\n def __repr__(self):\n"
        "  return f'V({self.x}, {self.y})'",
        (
            "assert V(1, 2) + V(3, 4) == V(4, 6)",
            "assert V(1, 2) * 3 == V(3, 6) and 3 * V(1, 2) == V(3, 6)",
            "assert abs(V(3, 4)) == 5.0 and -V(1, 2) == V(-1, -2)",
            "assert V(3, 4)[1] == 4 and list(V(1, 2)) == [1, 2]",
            "assert V(1, 1) < V(2, 2) and sorted([V(2, 2), V(1, 1)])[0] == V(1, 1)",
            "assert str(V(1, 2)) == 'V(1, 2)' and f'{V(1, 2)}' == 'V(1, 2)'",
            "assert V(1, 2) != V(2, 1)",
        ),
        "assert V(1, 2) + V(3, 4) == V(4, 7)",
    ),
    Row(
        "own equality under test",
        "class R:\n def __init__(self, a, b):\n  self.a, self.b = a, b\n def __eq__(self, o):\n"
        "  return self.a * o.b == o.a * self.b",
        ("assert R(1, 2) == R(2, 4)", "assert not R(1, 2) == R(1, 3)"),
        "assert R(1, 2) == R(1, 3)",
    ),
    Row(
        "attributes set and deleted",
        "class Box:\n def __init__(self):\n  self.v = 1\n def get(self):\n  return self.v",
        (
            "b = Box()\nb.v = 7\nassert b.get() == 7 and hasattr(b, 'v') and not hasattr(b, 'w')\ndel b.v\n"
            "assert not hasattr(b, 'v')",
        ),
        "b = Box()\nb.v = 7\nassert b.get() == 1",
    ),
    Row(
        "items set",
        "class Grid:\n def __init__(self):\n  self.d = {}\n def __setitem__(self, k, v):\n  self.d[k] = v\n"
        " def __getitem__(self, k):\n  return self.d[k]\n def __delitem__(self, k):\n  del self.d[k]",
        ("g = Grid()\ng[1, 2] = 'a'\nassert g[1, 2] == 'a'\ndel g[1, 2]\nassert g.d == {}",),
        "g = Grid()\ng[0] = 1\nassert g[0] == 2",
    ),
    Row(
        "context manager",
        "class C:\n def __enter__(self):\n  self.open = True\n  return self\n def __exit__(self, *a):\n"
        "  self.open = False",
        ("with C() as c:\n assert c.open\nassert not c.open",),
        "with C() as c:\n assert not c.open",
    ),
    Row(
        "tree nodes",
        "class Node:\n def __init__(self, v, left=None, right=None):\n"
        "  self.v, self.left, self.right = v, left, right\ndef depth(n):\n"
        " return 0 if n is None else 1 + max(depth(n.left), depth(n.right))\ndef build(x):\n"
        " return Node(x[0], build(x[1:])) if x else None",
        ("assert depth(root) == 3", "assert build([1, 2]).left.v == 2", "assert build([]) is None"),
        "assert depth(root) == 2",
        "root = Node(1)\nroot.left = Node(2)\nroot.left.right = Node(3)",
    ),
    Row(
        "setup class used by program",
        "def total(pairs):\n return sum(p.a * p.b for p in pairs)\ndef swap(p):\n return Pair(p.b, p.a)",
        (
            "assert total([Pair(1, 2), Pair(3, 4)]) == 14",
            "assert swap(Pair(1, 2)).a == 2",
            "assert swap(Pair(1, 2)) == Pair(2, 1)",
        ),
        "assert swap(Pair(1, 2)) == Pair(1, 2)",
        "class Pair:\n def __init__(self, a, b):\n  self.a = a\n  self.b = b\n def __eq__(self, o):\n"
        "  return (self.a, self.b) == (o.a, o.b)",
    ),
    Row(
        "setup instance mutated",
        "def move(p):\n p.x += 1",
        ("p = P(1)\nmove(p)\nassert p.x == 2",),
        "p = P(1)\nmove(p)\nassert p.x == 1",
        "class P:\n def __init__(self, x):\n  self.x = x",
    ),
    Row(
        "setup imports and helpers",
        "def area(r):\n return round(math.pi * square(r), 2)",
        ("assert area(1) == 3.14",),
        "assert area(1) == 3",
        "import math\ndef square(x):\n return x * x",
    ),
    Row(
        "setup namedtuple",
        "def f(p):\n return Point(p.y, p.x)",
        ("assert f(Point(1, 2)) == Point(2, 1)", "assert f(Point(1, 2)).x == 2"),
        "assert f(Point(1, 2)) == Point(1, 2)",
        "from collections import namedtuple\nPoint = namedtuple('Point', 'x y')",
    ),
    Row(
        "lambda as argument",
        "def f(g, x):\n return [g(i) for i in x]",
        ("assert f(lambda i: i * i, [1, 2]) == [1, 4]", "def half(i):\n return i / 2\nassert f(half, [1]) == [.5]"),
        "assert f(lambda i: i, [1]) == [2]",
    ),
    Row(
        "builtins as arguments",
        "def f(g, x):\n return g(x)",
        (
            "assert f(len, [1, 2]) == 2",
            "assert f(sorted, (2, 1)) == [1, 2]",
            "assert f(str.upper, 'a') == 'A'",
            "assert f(int, '5') == 5",
            "import math\nassert f(math.sqrt, 4) == 2",
            "import operator\nassert f(operator.itemgetter(1), 'ab') == 'b'",
        ),
        "assert f(len, []) == 1",
    ),
    Row(
        "program's function as argument",
        "def apply(g, x):\n return g(x)\ndef double(x):\n return 2 * x",
        (
            "assert apply(double, 4) == 8",
            "assert list(map(double, [1, 2])) == [2, 4]",
            "assert sorted([3, 1], key=double) == [1, 3]",
        ),
        "assert apply(double, 4) == 9",
    ),
    Row(
        "callback that raises",
        "def f(g):\n try:\n  g()\n except ValueError as e:\n  return str(e)",
        ("def bad():\n raise ValueError('no')\nassert f(bad) == 'no'",),
        "def bad():\n raise ValueError('no')\nassert f(bad) == 'yes'",
    ),
    Row(
        "callback calls back",
        "def f(n, g):\n return 1 if n == 0 else g(n)\ndef h(n):\n return n",
        ("assert f(3, lambda n: h(n) + f(n - 1, lambda m: 10)) == 13",),
        "assert f(3, lambda n: h(n)) == 4",
    ),
    Row(
        "iterator as argument",
        "def f(it):\n return sum(it)\ndef g(it):\n return next(it)",
        (
            "assert f(iter([1, 2])) == 3",
            "assert f(x for x in (1, 2)) == 3",
            "import itertools\nassert g(itertools.count(5)) == 5",
        ),
        "assert f(iter([1])) == 2",
    ),
    Row(
        "closure returned",
        "def adder(n):\n return lambda x: x + n\ndef counter():\n c = 0\n def inc():\n  nonlocal c\n  c += 1\n"
        "  return c\n return inc",
        ("assert adder(2)(3) == 5", "c = counter()\nc()\nassert c() == 2"),
        "assert adder(2)(3) == 6",
    ),
    Row(
        "decorator",
        "import functools\ndef twice(g):\n @functools.wraps(g)\n def inner(*a, **k):\n"
        "  return g(*a, **k) * 2\n return inner",
        ("@twice\ndef one():\n return 1\nassert one() == 2", "assert twice(lambda x, y=1: x + y)(1, y=2) == 6"),
        "assert twice(lambda: 1)() == 1",
    ),
    Row(
        "functools.partial returned",
        "from functools import partial\ndef f(n):\n return partial(pow, n)",
        ("assert f(2)(3) == 8",),
        "assert f(2)(3) == 9",
    ),
    Row(
        "truthiness",
        "import re\ndef f(s):\n return re.search('b+', s)\ndef g(x):\n return x or []",
        ("assert f('abb')", "assert not f('a')", "assert f('abb').group() == 'bb'", "assert not g(0)"),
        "assert f('a')",
    ),
    Row(
        "expected exceptions",
        "class Mine(ValueError):\n def __init__(self, code):\n  super().__init__(f'code {code}')\n"
        "  self.code = code\ndef f(x):\n if x < 0:\n  raise ValueError('negative')\n if x == 0:\n"
        "  raise Mine(7)\n return x",
        (
            "try:\n f(-1)\n assert False\nexcept ValueError as e:\n assert str(e) == 'negative'",
            "try:\n f(0)\n assert False\nexcept Mine as e:\n assert e.code == 7 and str(e) == 'code 7'",
            "import unittest\nunittest.TestCase().assertRaises(ValueError, f, -1)",
            "from contextlib import suppress\nwith suppress(ValueError):\n f(0)",
        ),
        "try:\n f(1)\n assert False, 'no error'\nexcept ValueError:\n pass",
    ),
    Row(
        "standard exceptions",
        "def f(d, k):\n return d[k]\ndef g():\n raise NotImplementedError\ndef h():\n raise KeyError('k')",
        (
            "try:\n f({}, 1)\nexcept KeyError as e:\n assert e.args == (1,)\nelse:\n assert False",
            "try:\n g()\nexcept NotImplementedError:\n ok = True\nassert ok",
            "try:\n f([], 1)\nexcept LookupError:\n pass\nelse:\n assert False",
        ),
        "try:\n f([1], 0)\nexcept IndexError:\n pass\nelse:\n assert False",
    ),
    Row(
        "exception returned",
        "def f(x):\n return ValueError(x)",
        ("assert isinstance(f('a'), ValueError) and f('a').args == ('a',)",),
        "assert isinstance(f('a'), KeyError)",
    ),
    Row(
        "big ints",
        "def f(n):\n return 7 ** n\ndef g(n):\n return -n",
        ("assert f(3000) == 7 ** 3000", "assert g(10 ** 40) == -10 ** 40", "assert f(30000) % 10 == 1"),
        "assert f(3000) == 7 ** 3000 + 1",
    ),
    Row(
        "floats",
        "def f(x):\n return x / 3\ndef g():\n return -0.0\ndef h():\n return float('inf')",
        (
            "assert f(1) == 1 / 3",
            "import math\nassert math.copysign(1, g()) == -1",
            "assert h() == float('inf')",
            "assert abs(f(1) - 0.3333) < 1e-3",
            "assert round(f(1), 2) == 0.33",
        ),
        "assert f(1) == 0.3333",
    ),
    Row(
        "nan",
        "def f():\n return float('nan')",
        ("import math\nassert math.isnan(f())", "assert f() != f()"),
        "assert f() == f()",
    ),
    Row("complex", "def f(a):\n return a * 1j", ("assert f(2) == 2j and f(1j) == -1",), "assert f(2) == 2"),
    Row(
        "sets and frozensets",
        "def f(x):\n return set(x)\ndef g(x):\n return frozenset(x)\ndef h(x):\n return {frozenset(x): 1}",
        ("assert f('aab') == {'a', 'b'}", "assert g([1, (2,)]) == {1, (2,)}", "assert h([1]) == {frozenset([1]): 1}"),
        "assert f('a') == {'b'}",
    ),
    Row(
        "tuples, nested and as keys",
        "def f():\n return (1, (2, [3, (4,)]), {(5, 6): (7,)})",
        ("assert f() == (1, (2, [3, (4,)]), {(5, 6): (7,)})", "assert f()[1][1] == [3, (4,)]"),
        "assert f() == [1, (2, [3, (4,)]), {(5, 6): (7,)}]",
    ),
    Row(
        "int keys stay ints",
        "def f(s):\n return {len(w): w for w in s.split()}",
        ("assert f('a bb') == {1: 'a', 2: 'bb'}", "assert list(f('bb a')) == [2, 1]"),
        "assert f('a') == {'1': 'a'}",
    ),
    Row(
        "bool and int",
        "def f(x):\n return x > 1\ndef g():\n return 1",
        ("assert f(2) is True and f(1) is False", "assert type(g()) is int and g() == True"),
        "assert g() is True",
    ),
    Row(
        "bytes",
        "def f(s):\n return s.encode()\ndef g(b):\n return bytearray(b)\ndef h(b):\n return b[::-1]",
        (
            "assert f('é') == b'\\xc3\\xa9'",
            "assert g(b'a') == bytearray(b'a')",
            "assert h(b'\\x00\\xff') == b'\\xff\\x00'",
        ),
        "assert f('a') == 'a'",
    ),
    Row(
        "text",
        "def f(s):\n return s[::-1]",
        (
            "assert f('বাংলা') == 'বাংলা'[::-1]",
            "assert f('a\\ud800') == '\\ud800a'",
            "assert f('\\x00\\u2028😀') == '😀\\u2028\\x00'",
        ),
        "assert f('ab') == 'ab'",
    ),
    Row(
        "Decimal and Fraction",
        "from decimal import Decimal\nfrom fractions import Fraction\ndef f(a, b):\n"
        " return Decimal(a) / Decimal(b)\ndef g(a, b):\n return Fraction(a, b)",
        (
            "from decimal import Decimal\nassert f('1', '8') == Decimal('0.125')",
            "from fractions import Fraction\nassert g(2, 4) == Fraction(1, 2) and g(2, 4).denominator == 2",
            "assert g(1, 2) == 0.5",
        ),
        "assert g(1, 2) == 1",
    ),
    Row(
        "datetime",
        "import datetime\ndef f(d, n):\n return d + datetime.timedelta(days=n)\ndef g():\n"
        " return datetime.datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=datetime.timezone.utc)\ndef h():\n"
        " return datetime.time(1, 2)",
        (
            "import datetime\nassert f(datetime.date(2024, 2, 28), 1) == datetime.date(2024, 2, 29)",
            "assert g().isoformat() == '2024-02-29T01:02:03.000004+00:00'",
            "assert h() == datetime.time(1, 2)",
            "assert f(datetime.datetime(2024, 1, 1), 1) - datetime.datetime(2024, 1, 1) == datetime.timedelta(1)",
        ),
        "assert h() == datetime.time(1, 3)",
    ),
    Row(
        "Counter",
        "from collections import Counter\ndef f(s):\n return Counter(s)",
        (
            "assert f('aab') == {'a': 2, 'b': 1}",
            "from collections import Counter\n"
            "assert f('aab') == Counter('aab') and f('aab').most_common(1) == [('a', 2)]",
            "assert f('a')['z'] == 0",
        ),
        "assert f('a') == {'a': 2}",
    ),
    Row(
        "defaultdict",
        "from collections import defaultdict\ndef f(x):\n d = defaultdict(list)\n for i in x:\n"
        "  d[i % 2].append(i)\n return d\ndef g():\n return defaultdict(lambda: 7)",
        ("assert f([1, 2, 3]) == {1: [1, 3], 0: [2]}", "assert f([])['x'] == []", "assert g()['x'] == 7"),
        "assert f([1]) == {}",
    ),
    Row(
        "OrderedDict and deque",
        "from collections import OrderedDict, deque\ndef f(x):\n return OrderedDict(x)\ndef g(x):\n"
        " return deque(x, maxlen=2)",
        (
            "from collections import OrderedDict, deque\n"
            "assert f([(2, 'a'), (1, 'b')]) == OrderedDict([(2, 'a'), (1, 'b')])",
            "assert g([1, 2, 3]) == deque([2, 3]) and g([1]).maxlen == 2",
            "assert list(g([1, 2, 3])) == [2, 3]",
        ),
        "assert g([1, 2, 3]) == [2, 3]",
    ),
    Row(
        "ranges and dict views",
        "def f(n):\n return range(n)\ndef g(d):\n return d.keys()\ndef h(d):\n return d.values()\ndef i(d):\n"
        " return d.items()",
        (
            "assert f(3) == range(3) and list(f(2)) == [0, 1]",
            "assert g({1: 2}) == {1} and list(h({1: 2})) == [2] and sorted(i({1: 2})) == [(1, 2)]",
        ),
        "assert f(3) == [0, 1, 2]",
    ),
    Row(
        "subclasses of builtins",
        "class Celsius(float):\n pass\nclass Name(str):\n def shout(self):\n  return self.upper() + '!'\n"
        "class Bag(dict):\n def total(self):\n  return sum(self.values())\ndef f():\n return Celsius(1.5)\n"
        "def g():\n return Name('a')\ndef h():\n return Bag(a=1)",
        (
            "assert f() == 1.5 and f() + 1 == 2.5",
            "assert g() == 'a' and g().shout() == 'A!'",
            "assert h() == {'a': 1} and h().total() == 1",
        ),
        "assert g() == 'b'",
    ),
    Row(
        "enums",
        "import enum\nclass Color(enum.Enum):\n RED = 1\n BLUE = 2\nclass Level(enum.IntEnum):\n LOW = 1\n"
        "def f(n):\n return Color(n)\ndef g():\n return Level.LOW",
        (
            "assert f(1) == Color.RED and f(1) is Color.RED",
            "assert f(2) != Color.RED and f(2).name == 'BLUE' and f(2).value == 2",
            "assert g() == 1",
            "assert len(Color) == 2 and [c.name for c in Color] == ['RED', 'BLUE']",
        ),
        "assert f(1) == Color.BLUE",
    ),
    Row(
        "types returned",
        "def f(x):\n return type(x)\ndef g():\n return max",
        (
            "assert f(1) is int and f([]) == list",
            "assert g()(1, 2) == 2",
            "from collections import Counter\nassert f(Counter()) is Counter",
        ),
        "assert f(1) is float",
    ),
    Row(
        "None, Ellipsis, slices",
        "def f():\n pass\ndef g():\n return ...\ndef h(x):\n return x[1:]",
        ("assert f() is None and f() == None", "assert g() is ...", "assert h('abc') == 'bc'"),
        "assert f() == 0",
    ),
    Row(
        "prints",
        "print('loading')\ndef f(x):\n print('x is', x)\n return x",
        ("assert f(1) == 1", "assert f('a') == 'a'"),
        "assert f(1) == 2",
    ),
    Row(
        "input not needed",
        "if __name__ == '__main__':\n print(f(int(input())))\ndef f(x):\n return x",
        ("assert f(1) == 1",),
        "assert f(1) == 2",
    ),
    Row(
        "threads",
        "import threading\nfrom concurrent.futures import ThreadPoolExecutor\ndef f(n):\n out = []\n"
        " ts = [threading.Thread(target=out.append, args=(i,)) for i in range(n)]\n [t.start() for t in ts]\n"
        " [t.join() for t in ts]\n return sorted(out)\ndef g(n):\n with ThreadPoolExecutor(4) as pool:\n"
        "  return list(pool.map(lambda i: i * i, range(n)))",
        ("assert f(8) == list(range(8))", "assert g(3) == [0, 1, 4]"),
        "assert g(3) == [0, 1, 5]",
    ),
    Row(
        "asyncio",
        "import asyncio\nasync def work(x):\n await asyncio.sleep(0)\n return x * 2\ndef f(x):\n"
        " return asyncio.run(work(x))",
        ("assert f(2) == 4",),
        "assert f(2) == 5",
    ),
    Row(
        "tempfile",
        "import os, tempfile\ndef f(s):\n with tempfile.NamedTemporaryFile('w+') as t:\n  t.write(s)\n"
        "  t.seek(0)\n  return t.read()\ndef g():\n with tempfile.TemporaryDirectory() as d:\n"
        "  p = os.path.join(d, 'a')\n  open(p, 'w').write('x')\n  return os.listdir(d)",
        ("assert f('hi') == 'hi'", "assert g() == ['a']"),
        "assert f('hi') == ''",
    ),
    Row(
        "lazy standard library imports",
        "def f():\n import colorsys, sqlite3, zlib, xml.etree.ElementTree as et, difflib, secrets, zoneinfo\n"
        " db = sqlite3.connect(':memory:')\n"
        " return db.execute('select 1 + 1').fetchone()[0], zlib.decompress(zlib.compress(b'a')), "
        "et.fromstring('<a/>').tag",
        ("assert f() == (2, b'a', 'a')",),
        "assert f() == (3, b'a', 'a')",
    ),
    Row(
        "recursion near the limit",
        "def f(n):\n return 0 if n == 0 else 1 + f(n - 1)",
        ("assert f(900) == 900",),
        "assert f(100) == 101",
    ),
    Row(
        "recursion limit raised",
        "import sys\nsys.setrecursionlimit(20000)\ndef f(n):\n return 0 if n == 0 else 1 + f(n - 1)",
        ("assert f(15000) == 15000",),
        "assert f(100) == 101",
    ),
    Row(
        "recursion error expected",
        "def f(n):\n return f(n + 1)",
        ("try:\n f(0)\n assert False\nexcept RecursionError:\n pass",),
        "try:\n f(0)\n assert False\nexcept ValueError:\n pass",
    ),
    Row(
        "state shared between asserts",
        "seen = []\ncount = 0\ndef f(x):\n global count\n count += 1\n seen.append(x)\n return len(seen)",
        (
            "assert f(1) == 1",
            "assert f(2) == 2",
            "assert count == 2",
            "assert seen == [1, 2]",
            "seen.clear()\nassert f(5) == 3 or f(5)",
        ),
        "assert f(1) == 0",
    ),
    Row(
        "function attributes and metadata",
        "def f(x):\n 'Doc.'\n f.calls += 1\n return x\nf.calls = 0",
        ("f(1)\nassert f.calls == 1", "assert f.__name__ == 'f' and f.__doc__ == 'Doc.' and callable(f)"),
        "f(1)\nassert f.calls == 0",
    ),
    Row(
        "memoised",
        "import functools\n@functools.lru_cache(maxsize=None)\ndef fib(n):\n"
        " return n if n < 2 else fib(n - 1) + fib(n - 2)",
        ("assert fib(80) == 23416728348467685",),
        "assert fib(3) == 3",
    ),
    Row(
        "keyword and default arguments",
        "def f(a, *rest, b=2, **more):\n return a, rest, b, more",
        (
            "assert f(1) == (1, (), 2, {})",
            "assert f(1, 5, b=3, c=4) == (1, (5,), 3, {'c': 4})",
            "assert f(*[1, 2], **{'z': 0}) == (1, (2,), 2, {'z': 0})",
        ),
        "assert f(1) == (1,)",
    ),
    Row("named as a builtin", "def sum(a, b):\n return a * b", ("assert sum(3, 4) == 12",), "assert sum(3, 4) == 7"),
    Row(
        "named as a helper",
        "def gcd(a, b):\n return b and gcd(b, a % b) or a",
        ("assert gcd(4, 6) == 2",),
        "assert gcd(4, 6) == 4",
    ),
    Row(
        "tests use modules the program imports",
        "import math\nimport re\nimport collections as c\nfrom itertools import count\ndef f(x):\n return math.sqrt(x)",
        (
            "assert math.isclose(f(2), 1.41421356, rel_tol=1e-6)",
            "assert c.Counter('a') == {'a': 1}",
            "assert re.sub('a', 'b', 'a') == 'b'",
        ),
        "assert math.isclose(f(2), 1.5)",
    ),
    Row(
        "check function",
        "def f(x):\n return x + 1",
        (
            "def check(candidate):\n assert candidate(1) == 2\n for i in range(5):\n"
            "  assert candidate(i) == i + 1, 'message'\ncheck(f)",
        ),
        "def check(candidate):\n assert candidate(1) == 3\ncheck(f)",
    ),
    Row(
        "alias of an argument's row",
        "def f(m):\n return m[0]",
        ("m = [[1], [2]]\nassert f(m) == [1] and m == [[1], [2]]",),
        "assert f([[1]]) == [2]",
    ),
    Row(
        "StringIO argument",
        "def f(stream):\n return stream.read().split()",
        ("import io\nassert f(io.StringIO('a b')) == ['a', 'b']",),
        "import io\nassert f(io.StringIO('a')) == []",
    ),
    Row(
        "linked list",
        "class Node:\n def __init__(self, v):\n  self.v, self.next = v, None\nclass List:\n"
        " def __init__(self):\n  self.head = None\n def add(self, v):\n  n = Node(v)\n"
        "  n.next, self.head = self.head, n\n def __iter__(self):\n  n = self.head\n  while n:\n   yield n.v\n"
        "   n = n.next",
        (
            "l = List()\nfor i in range(50):\n l.add(i)\nassert list(l) == list(range(49, -1, -1))\n"
            "assert l.head.next.v == 48",
            "l = List()\nl.add(3)\nassert 3 in l",
        ),
        "l = List()\nl.add(1)\nassert list(l) == []",
    ),
    Row(
        "slots",
        "class P:\n __slots__ = ('x',)\n def __init__(self, x):\n  self.x = x\n def __eq__(self, o):\n"
        "  return self.x == o.x\ndef f(x):\n return P(x)",
        ("assert f(1) == P(1)", "assert f(1).x == 1"),
        "assert f(1) == P(2)",
    ),
    Row(
        "abstract classes",
        "from abc import ABC, abstractmethod\nclass Shape(ABC):\n @abstractmethod\n def area(self): ...\n"
        "class Square(Shape):\n def __init__(self, s):\n  self.s = s\n def area(self):\n  return self.s ** 2",
        (
            "assert Square(3).area() == 9 and isinstance(Square(1), Shape) and issubclass(Square, Shape)",
            "try:\n Shape()\n assert False\nexcept TypeError:\n pass",
        ),
        "assert Square(3).area() == 6",
    ),
    Row(
        "hash and dict keys",
        "class K:\n def __init__(self, v):\n  self.v = v\n def __eq__(self, o):\n  return self.v == o.v\n"
        " def __hash__(self):\n  return hash(self.v)",
        ("assert len({K(1), K(1), K(2)}) == 2", "assert {K(1): 'a'}[K(1)] == 'a'"),
        "assert len({K(1), K(2)}) == 1",
    ),
    Row(
        "random is seeded by the program",
        "import random\ndef f():\n random.seed(1)\n return random.randint(0, 10**9)",
        ("assert f() == f()",),
        "assert f() == -1",
    ),
    Row(
        "hundred thousand numbers",
        "def f(n):\n return list(range(n))",
        ("assert f(100000) == list(range(100000))",),
        "assert f(10) == [0]",
    ),
    Row(
        "cached result object",
        "class R:\n def __init__(self, v):\n  self.v = v\ncache = {}\ndef f(x):\n return cache.setdefault(x, R(x))",
        ("assert f(1) is f(1)", "assert f(1) is not f(2)", "assert f(1).v == 1"),
        "assert f(1).v == 2",
    ),
    Row(
        "namedtuple with defaults and methods",
        "import collections\nclass P(collections.namedtuple('P', 'x y')):\n def norm(self):\n"
        "  return abs(self.x) + abs(self.y)\ndef f(a):\n return P(a, -a)",
        (
            "assert f(2).norm() == 4 and f(2) == (2, -2)",
            "assert [p.x for p in sorted([f(2), f(1)])] == [1, 2]",
            "x, y = f(3)\nassert y == -3",
        ),
        "assert f(2).norm() == 5",
    ),
    Row(
        "ordered enum",
        "import enum\nclass L(enum.IntEnum):\n LOW = 1\n HIGH = 2\nclass F(enum.Flag):\n A = enum.auto()\n"
        " B = enum.auto()\ndef f(n):\n return L(n)\ndef g():\n return F.A | F.B",
        (
            "assert f(2) > f(1) and f(2) == 2",
            "assert f(1).name == 'LOW'",
            "assert g() == F.A | F.B",
            "assert [m.value for m in L] == [1, 2]",
        ),
        "assert f(1) == 2",
    ),
    Row(
        "string enum",
        "import enum\nclass S(str, enum.Enum):\n A = 'a'\ndef f():\n return S.A",
        ("assert f() == 'a' and f() is S.A", "assert f().upper() == 'A'", "assert f().value == 'a'"),
        "assert f() == 'b'",
    ),
    Row(
        "properties, class and static methods",
        "class T:\n count = 0\n def __init__(self, c):\n  self._c = c\n  T.count += 1\n @property\n"
        " def f(self):\n  return self._c * 2\n @f.setter\n def f(self, v):\n  self._c = v / 2\n @classmethod\n"
        " def zero(cls):\n  return cls(0)\n @staticmethod\n def unit():\n  return 'C'",
        (
            "t = T(5)\nassert t.f == 10\nt.f = 4\nassert t._c == 2",
            "assert T.zero().f == 0 and T.unit() == 'C' and T(1).unit() == 'C'",
            "n = T.count\nT(1)\nassert T.count == n + 1",
        ),
        "assert T(1).f == 1",
    ),
    Row(
        "inheritance and super",
        "class A:\n def who(self):\n  return 'A'\nclass B(A):\n def who(self):\n  return 'B' + super().who()",
        (
            "assert B().who() == 'BA' and isinstance(B(), A) and not isinstance(A(), B)",
            "assert issubclass(B, A) and B.__mro__[1] is A and B.__bases__ == (A,)",
            "assert type(B()).__name__ == 'B'",
        ),
        "assert B().who() == 'AB'",
    ),
    Row(
        "iterator class",
        "class Down:\n def __init__(self, n):\n  self.n = n\n def __iter__(self):\n  return self\n"
        " def __next__(self):\n  if self.n == 0:\n   raise StopIteration\n  self.n -= 1\n  return self.n + 1",
        (
            "assert list(Down(3)) == [3, 2, 1]",
            "d = Down(1)\nassert next(d) == 1\ntry:\n next(d)\n assert False\nexcept StopIteration:\n pass",
            "assert sum(Down(4)) == 10 and sorted(Down(2)) == [1, 2]",
        ),
        "assert list(Down(2)) == [1, 2]",
    ),
    Row(
        "generator that is sent values",
        "def avg():\n total = n = 0\n value = None\n while True:\n  value = yield value\n  total += value\n"
        "  n += 1\n  value = total / n",
        ("g = avg()\nnext(g)\nassert g.send(2) == 2 and g.send(4) == 3", "g = avg()\nnext(g)\ng.close()"),
        "g = avg()\nnext(g)\nassert g.send(2) == 3",
    ),
    Row(
        "dunder conversions",
        "class M:\n def __init__(self, v):\n  self.v = v\n def __int__(self):\n  return int(self.v)\n"
        " def __float__(self):\n  return float(self.v)\n def __bool__(self):\n  return self.v != 0\n"
        " def __round__(self, n=0):\n  return round(self.v, n)\n def __index__(self):\n  return int(self.v)\n"
        " def __bytes__(self):\n  return b'm'\n def __complex__(self):\n  return complex(self.v)\n"
        " def __reversed__(self):\n  return iter([2, 1])",
        (
            "assert int(M(2.5)) == 2 and float(M(2)) == 2.0 and not M(0)",
            "assert round(M(2.567), 1) == 2.6 and [1, 2, 3][M(1)] == 2",
            "assert bytes(M(1)) == b'm' and complex(M(1)) == 1 + 0j and list(reversed(M(1))) == [2, 1]",
        ),
        "assert int(M(2.5)) == 3",
    ),
    Row(
        "power of three, in-place and reflected operators",
        "class Z:\n def __init__(self, v):\n  self.v = v\n def __pow__(self, n, m=None):\n"
        "  return Z(pow(self.v, n.v, m.v) if m else self.v ** n.v)\n def __imul__(self, o):\n  self.v *= o.v\n"
        "  return self\n def __rsub__(self, o):\n  return Z(o - self.v)\n def __floordiv__(self, o):\n"
        "  return Z(self.v // o.v)",
        (
            "assert pow(Z(3), Z(4), Z(5)).v == 1 and (Z(2) ** Z(3)).v == 8",
            "z = Z(2)\nz *= Z(5)\nassert z.v == 10",
            "assert (5 - Z(2)).v == 3 and (Z(7) // Z(2)).v == 3",
        ),
        "assert (5 - Z(2)).v == 2",
    ),
    Row(
        "copying",
        "class N:\n def __init__(self, l):\n  self.l = l",
        (
            "import copy\na = N([1])\nb, c = copy.copy(a), copy.deepcopy(a)\na.l.append(2)\n"
            "assert c.l == [1] and type(b) is N",
            "import copy\na = N([1])\nassert copy.deepcopy(a) is not a and copy.copy(a).l == [1]",
        ),
        "import copy\nassert copy.copy(N([1])).l == [2]",
    ),
    Row(
        "pattern matching on values",
        "def f(x):\n return {'kind': x, 'at': (1, [2, 3])}",
        ("match f('a'):\n case {'kind': 'a', 'at': (1, [2, *rest])}:\n  assert rest == [3]\n case _:\n  assert False",),
        "match f('a'):\n case {'kind': 'b'}:\n  pass\n case _:\n  assert False",
    ),
    Row(
        "exceptions with a cause, notes and groups",
        "def f():\n try:\n  1 / 0\n except ZeroDivisionError as e:\n  raise ValueError('bad') from e\n"
        "def g():\n raise ExceptionGroup('many', [ValueError(1), TypeError(2)])\ndef h():\n"
        " open('/nowhere/at/all')",
        (
            "try:\n f()\nexcept ValueError as e:\n"
            " assert isinstance(e.__cause__, ZeroDivisionError) and type(e) is ValueError",
            "try:\n g()\nexcept* ValueError as e:\n assert len(e.exceptions) == 1\nexcept* TypeError:\n pass",
            "try:\n h()\n assert False\nexcept OSError as e:\n assert e.errno is not None",
        ),
        "try:\n f()\nexcept ValueError as e:\n assert isinstance(e.__cause__, KeyError)",
    ),
    Row(
        "own exceptions in a family",
        "class Base(Exception): pass\nclass Low(Base):\n def __init__(self, need, have):\n"
        "  self.need, self.have = need, have\n def __str__(self):\n"
        "  return f'need {self.need}, have {self.have}'\ndef f(x):\n if x < 3:\n  raise Low(3, x)\n return x",
        (
            "try:\n f(1)\n assert False\nexcept Base as e:\n"
            " assert str(e) == 'need 3, have 1' and e.need - e.have == 2 and type(e).__name__ == 'Low'",
            "import unittest\nwith unittest.TestCase().assertRaises(Low) as c:\n f(0)\nassert c.exception.have == 0",
        ),
        "try:\n f(1)\nexcept Low as e:\n assert e.have == 2",
    ),
    Row(
        "library values",
        "import uuid, ipaddress, re, array, types, collections, pathlib, datetime, zoneinfo\ndef f():\n"
        " return [uuid.UUID(int=5), ipaddress.ip_network('10.0.0.0/8'), re.compile('a+', re.I), "
        "types.SimpleNamespace(a=1), collections.ChainMap({1: 2}, {3: 4}), pathlib.PurePosixPath('/a/b'), "
        "datetime.timezone(datetime.timedelta(hours=6)), range(3), slice(1, 2), bytearray(b'x')]",
        (
            "import uuid, ipaddress, re, types, pathlib, datetime\nr = f()\n"
            "assert r[0] == uuid.UUID(int=5) and r[1] == ipaddress.ip_network('10.0.0.0/8') and r[2] == "
            "re.compile('a+', re.I)\n"
            "assert r[3] == types.SimpleNamespace(a=1) and r[4][3] == 4 and r[5].name == 'b' and "
            "r[6].utcoffset(None).seconds == 21600\nassert r[7:] == [range(3), slice(1, 2), bytearray(b'x')]",
        ),
        "import uuid\nassert f()[0] == uuid.UUID(int=6)",
    ),
    Row(
        "aware times",
        "import datetime\ndef f(h):\n"
        " return datetime.datetime(2024, 5, 1, h, tzinfo=datetime.timezone(datetime.timedelta(hours=6), "
        "'BST'))",
        (
            "import datetime\nassert f(6) == datetime.datetime(2024, 5, 1, 0, tzinfo=datetime.timezone.utc)",
            "assert f(6).tzname() == 'BST' and f(6).tzinfo.utcoffset(None).seconds == 21600",
        ),
        "import datetime\nassert f(6) == datetime.datetime(2024, 5, 1, 1, tzinfo=datetime.timezone.utc)",
    ),
    Row(
        "shared and cyclic containers",
        "def f():\n row = [0]\n return [row, row]\ndef g():\n d = {}\n d['me'] = d\n return d\ndef h(a):\n"
        " a[0] = a\n return a[0] is a",
        (
            "r = f()\nr[0].append(1)\nassert r[1] == [0, 1]",
            "d = g()\nassert d['me'] is d",
            "a = [1]\nassert h(a) and a[0] is a",
        ),
        "r = f()\nassert r[0] is not r[1]",
    ),
    Row(
        "part of an argument returned",
        "def f(m):\n return m['k'][1]\ndef g(m):\n m['new'] = m['k']",
        ("m = {'k': [0, [1]]}\nassert f(m) is m['k'][1]", "m = {'k': [1]}\ng(m)\nassert m['new'] is m['k']"),
        "m = {'k': [0, [1]]}\nassert f(m) == [2]",
    ),
    Row(
        "arguments emptied and refilled",
        "def f(q, c, o):\n q.appendleft(0)\n c['b'] += 2\n o.move_to_end('a')",
        (
            "from collections import deque, Counter, OrderedDict\n"
            "q, c, o = deque([1], maxlen=3), Counter('a'), OrderedDict(a=1, b=2)\nf(q, c, o)\n"
            "assert q == deque([0, 1]) and q.maxlen == 3 and c == {'a': 1, 'b': 2} and list(o) == ['b', 'a']",
        ),
        "from collections import deque, Counter, OrderedDict\nq = deque([1])\n"
        "f(q, Counter(), OrderedDict(a=1))\nassert q == deque([1])",
    ),
    Row(
        "setup tree changed and returned",
        "def f(t):\n if t:\n  t.l, t.r = f(t.r), f(t.l)\n return t",
        ("t = T(1, T(2), T(3))\nleft = t.l\nr = f(t)\nassert r is t and t.r is left and t.l.v == 3",),
        "t = T(1, T(2), T(3))\nassert f(t).l.v == 2",
        "class T:\n def __init__(self, v, l=None, r=None):\n  self.v, self.l, self.r = v, l, r",
    ),
    Row(
        "setup list built by the program",
        "def f(xs):\n head = None\n for x in reversed(xs):\n  head = Node(x, head)\n return head",
        (
            "h = f(list(range(500)))\nn = 0\nwhile h:\n assert h.val == n\n n, h = n + 1, h.next\nassert n == 500",
            "assert f([]) is None and isinstance(f([1]), Node)",
        ),
        "assert f([1, 2]).next.val == 3",
        "class Node:\n def __init__(self, val=0, next=None):\n  self.val, self.next = val, next",
    ),
    Row(
        "setup data classes",
        "def f(items):\n return [dataclasses.replace(i, n=i.n + 1) for i in items]",
        ("assert f([I('a', 1)]) == [I('a', 2)]", "assert f([I('a', 1)])[0].tags == []"),
        "assert f([I('a', 1)]) == [I('a', 1)]",
        "import dataclasses\n@dataclasses.dataclass\nclass I:\n s: str\n n: int\n"
        " tags: list = dataclasses.field(default_factory=list)",
    ),
    Row(
        "setup enum",
        "def f(c):\n return Color.B if c is Color.A else Color.A\ndef g():\n return {Color.A: 1}",
        ("assert f(Color.A) is Color.B", "assert g() == {Color.A: 1}"),
        "assert f(Color.A) is Color.A",
        "import enum\nclass Color(enum.Enum):\n A = 1\n B = 2",
    ),
    Row(
        "class defined in a test",
        "def f(items):\n return max(items, key=lambda i: i.weight())",
        (
            "class I:\n def __init__(self, w): self.w = w\n def weight(self): return self.w\n"
            "a, b = I(1), I(2)\nassert f([a, b]) is b",
        ),
        "class I:\n def __init__(self, w): self.w = w\n def weight(self): return -self.w\na, b = I(1), I(2)\n"
        "assert f([a, b]) is b",
    ),
    Row(
        "functions of functions",
        "def compose(*fs):\n def run(x):\n  for g in reversed(fs): x = g(x)\n  return x\n return run\n"
        "def curry(g):\n return lambda a: lambda b: g(a, b)",
        (
            "assert compose(lambda x: x + 1, abs)(-3) == 4",
            "assert curry(lambda a, b: a - b)(5)(3) == 2",
            "assert list(map(compose(str, len), ['a', 'bb'])) == ['1', '2']",
        ),
        "assert compose(abs)(-3) == -3",
    ),
    Row(
        "callback's own list",
        "def f(xs, g):\n for x in xs: g(x)",
        (
            "seen = []\nf([1, 2], seen.append)\nassert seen == [1, 2]",
            "seen = {}\nf('ab', lambda c: seen.setdefault(c, len(seen)))\nassert seen == {'a': 0, 'b': 1}",
        ),
        "seen = []\nf([1], seen.append)\nassert seen == []",
    ),
    Row(
        "error of a callback goes through",
        "def f(g):\n return g()",
        (
            "class Mine(Exception): pass\ndef g(): raise Mine('x')\ntry:\n f(g)\n assert False\n"
            "except Mine as e:\n assert str(e) == 'x'",
        ),
        "def g(): raise ValueError\ntry:\n f(g)\n assert False\nexcept KeyError:\n pass",
    ),
    Row(
        "retry decorator",
        "def retry(n):\n def wrap(g):\n  def inner(*a):\n   for i in range(n):\n    try: return g(*a)\n"
        "    except ValueError:\n     if i == n - 1: raise\n  return inner\n return wrap",
        (
            "tries = []\n@retry(3)\ndef g(x):\n tries.append(x)\n if len(tries) < 3: raise ValueError\n"
            " return x\nassert g(7) == 7 and tries == [7, 7, 7]",
        ),
        "@retry(1)\ndef g(): raise ValueError\nassert g() == 1",
    ),
    Row(
        "cache information",
        "import functools\n@functools.lru_cache(maxsize=8)\ndef f(n):\n return n * 2",
        ("f(1)\nf(1)\nassert f.cache_info().hits >= 1 and f.__wrapped__(2) == 4", "f.cache_clear()\nassert f(3) == 6"),
        "assert f(1) == 3",
    ),
    Row(
        "overloads by type",
        "import functools\n@functools.singledispatch\ndef f(x):\n return 'other'\n@f.register\n"
        "def _(x: int):\n return 'int'",
        ("assert f(1) == 'int' and f('a') == 'other'",),
        "assert f(1) == 'other'",
    ),
    Row(
        "matrix of the program",
        "class Matrix:\n def __init__(self, rows):\n  self.rows = rows\n def __matmul__(self, o):\n"
        "  return Matrix([[sum(a * b for a, b in zip(r, c)) for c in zip(*o.rows)] for r in self.rows])\n"
        " def __eq__(self, o):\n  return self.rows == o.rows\n def __getitem__(self, ij):\n"
        "  return self.rows[ij[0]][ij[1]]\n def __len__(self):\n  return len(self.rows)",
        (
            "assert Matrix([[1, 2]]) @ Matrix([[3], [4]]) == Matrix([[11]])",
            "m = Matrix([[1, 2], [3, 4]])\nassert m[1, 0] == 3 and len(m) == 2",
        ),
        "assert Matrix([[1]]) @ Matrix([[2]]) == Matrix([[3]])",
    ),
    Row(
        "bank account",
        "class Account:\n def __init__(self, owner, balance=0):\n  self.owner, self.balance = owner, balance\n"
        " def withdraw(self, n):\n  if n > self.balance: raise ValueError('insufficient funds')\n"
        "  self.balance -= n\n  return self.balance\n def __repr__(self):\n"
        "  return f'Account({self.owner!r}, {self.balance})'",
        (
            "a = Account('x', 10)\nassert a.withdraw(3) == 7 and a.balance == 7 and repr(a) == \"Account('x', 7)\"",
            "a = Account('x')\ntry:\n a.withdraw(1)\n assert False\nexcept ValueError as e:\n"
            " assert 'insufficient' in str(e)",
            "assert vars(Account('y', 2)) == {'owner': 'y', 'balance': 2}",
        ),
        "assert Account('x', 1).withdraw(1) == 1",
    ),
    Row(
        "trie with predicates",
        "class Trie:\n def __init__(self):\n  self.d = {}\n def insert(self, w):\n  d = self.d\n"
        "  for c in w: d = d.setdefault(c, {})\n  d['$'] = 1\n def search(self, w):\n  d = self.d\n"
        "  for c in w:\n   if c not in d: return False\n   d = d[c]\n  return '$' in d\n"
        " def startswith(self, p):\n  d = self.d\n  for c in p:\n   if c not in d: return False\n   d = d[c]\n"
        "  return True",
        ("t = Trie()\nt.insert('apple')\nassert t.search('apple') and not t.search('app') and t.startswith('app')",),
        "t = Trie()\nt.insert('a')\nassert t.search('b')",
    ),
    Row(
        "list subclass under test",
        "class Stack(list):\n def push(self, x):\n  self.append(x)\n  return self\n def peek(self):\n  return self[-1]",
        (
            "s = Stack()\ns.push(1).push(2)\nassert s.peek() == 2 and len(s) == 2 and s[0] == 1 and list(s) == [1, 2]",
            "s = Stack([3])\ns.append(4)\nassert s == [3, 4] and s.pop() == 4 and 3 in s",
        ),
        "s = Stack([3])\nassert s == [4]",
    ),
    Row(
        "numbers of every size",
        "def f(x):\n return x\ndef g():\n"
        " return [2 ** 62, -2 ** 62, 2 ** 63 - 1, 1e308, 5e-324, float('-inf'), True, 0]",
        (
            "assert g() == [2 ** 62, -2 ** 62, 2 ** 63 - 1, 1e308, 5e-324, float('-inf'), True, 0]",
            "import math\nn = math.nan\nassert f([n])[0] is n and f([n]) == [n]",
            "assert f(10 ** 400) == 10 ** 400 and f((1, (2,))) == (1, (2,))",
        ),
        "assert f(2 ** 62) == 2 ** 62 + 1",
    ),
    Row(
        "text of every kind",
        "def f(s):\n return s",
        (
            "for s in ('', '\\0', '\\ud800', 'é', 'e\\u0301', '\\u202e', '\\U0001f600', 'a' * 10000, "
            "'\\x1b[31m'):\n assert f(s) == s",
            "assert f('é') != 'e\\u0301'",
        ),
        "assert f('é') == 'e\\u0301'",
    ),
    Row(
        "keys of every kind",
        "def f():\n return {1: 'a', '1': 'b', (1,): 'c', None: 'd', True + 1: 'e', frozenset([1]): 'f', 1.5: 'g'}",
        ("assert f() == {1: 'a', '1': 'b', (1,): 'c', None: 'd', 2: 'e', frozenset({1}): 'f', 1.5: 'g'}",),
        "assert f()[1] == 'b'",
    ),
    Row(
        "printing and returning",
        "def f(n):\n print('n is', n)\n return n",
        (
            "import io, contextlib\nout = io.StringIO()\nwith contextlib.redirect_stdout(out):\n f(3)\n"
            "assert out.getvalue() == 'n is 3\\n'",
            "assert f(2) == 2",
        ),
        "import io, contextlib\nout = io.StringIO()\nwith contextlib.redirect_stdout(out):\n f(3)\n"
        "assert out.getvalue() == 'n is 4\\n'",
    ),
    Row(
        "awaited by the test",
        "import asyncio\nasync def f(x):\n await asyncio.sleep(0)\n return x + 1\nasync def g():\n"
        " raise ValueError('no')",
        (
            "import asyncio\nassert asyncio.run(f(1)) == 2",
            "import asyncio\nasync def both():\n return await asyncio.gather(f(1), f(2))\n"
            "assert asyncio.run(both()) == [2, 3]",
            "import asyncio\ntry:\n asyncio.run(g())\n assert False\nexcept ValueError:\n pass",
        ),
        "import asyncio\nassert asyncio.run(f(1)) == 3",
    ),
    Row(
        "asked for its signature",
        "def f(a, /, b: int = 1, *c, d, **e):\n 'Doc.'\n return a",
        (
            "import inspect\nassert list(inspect.signature(f).parameters) == ['a', 'b', 'c', 'd', 'e'] and "
            "inspect.isfunction(f)",
            "import inspect\nassert inspect.signature(f).parameters['b'].default == 1 and inspect.getdoc(f) == 'Doc.'",
        ),
        "import inspect\nassert list(inspect.signature(f).parameters) == ['a']",
    ),
    Row(
        "exception class of the setup, raised, derived from, given back and caught from the test",
        "class Sub(Refused):\n pass\n"
        "def f(x):\n if x < 0:\n  raise Refused(x, 'less than nothing')\n if x > 9:\n  raise Sub(x)\n"
        " return Refused(x)\n"
        "def g(call):\n try:\n  return call()\n except Refused as error:\n  if error.code > 1:\n   raise\n"
        "  return 'caught'",
        (
            "try:\n f(-1)\n assert False\nexcept Refused as e:\n "
            "assert (e.code, str(e)) == (-1, '-1: less than nothing')",
            "try:\n f(10)\n assert False\nexcept Refused as e:\n assert (e.code, type(e).__name__) == (10, 'Sub')",
            "e = f(3)\nassert type(e) is Refused and e.code == 3",
            "def refuse(code):\n raise Refused(code)\nassert g(lambda: refuse(1)) == 'caught'",
            "try:\n g(lambda: refuse(2))\n assert False\nexcept Refused as e:\n assert e.code == 2",
        ),
        "try:\n f(-1)\nexcept Refused as e:\n assert e.code == 1",
        setup="class Refused(Exception):\n def __init__(self, code, why='no'):\n"
        "  super().__init__(f'{code}: {why}')\n  self.code = code",
    ),
    Row(
        "object of the test's class that a callback gives",
        "def f(call):\n return call().x",
        ("class P:\n def __init__(self, x):\n  self.x = x\nassert f(lambda: P(3)) == 3",),
        "class P:\n def __init__(self, x):\n  self.x = x\nassert f(lambda: P(3)) == 4",
    ),
    Row(
        "classes of the setup defined once more",
        "class Node:\n def __init__(self, x):\n  self.x = x\n def twice(self):\n  return 2 * self.x\n"
        "class Refused(Exception):\n pass\ndef f(node):\n if node.x < 0:\n  raise Refused('no')\n"
        " return Node(node.twice())",
        (
            "assert isinstance(f(Node(1)), Node) and f(Node(1)).x == 2",
            "try:\n f(Node(-1))\n assert False\nexcept Refused as e:\n assert str(e) == 'no'",
        ),
        "assert f(Node(1)).x == 3",
        setup="class Node:\n def __init__(self, x):\n  self.x = x\nclass Refused(Exception):\n pass",
    ),
    Row(
        "read-only view of a mapping",
        "import types\ndef f(x):\n return types.MappingProxyType({'a': x})",
        (
            "assert f(1) == {'a': 1} and f(2)['a'] == 2",
            "try:\n f(1)['b'] = 2\n assert False\nexcept TypeError:\n pass",
        ),
        "assert f(1) == {'a': 2}",
    ),
    Row(
        "list of the test's that an object keeps and changes",
        "class Stack:\n def __init__(self, items):\n  self.items = items\n def push(self, x):\n  self.items.append(x)\n"
        " def total(self):\n  return sum(self.items)",
        (
            "xs = [1]\ns = Stack(xs)\ns.push(2)\nassert xs == [1, 2]",
            "xs.append(3)\nassert s.total() == 6",
            "assert s.items is s.items and s.items is xs",
            "del xs[0]\ns.push(9)\nassert s.items == xs == [2, 3, 9]",
        ),
        "xs = [1]\ns = Stack(xs)\ns.push(2)\nassert xs == [1]",
    ),
    Row(
        "mutable default argument",
        "def f(x, seen=[]):\n seen.append(x)\n return seen",
        ("a = f(1)\nb = f(2)\nassert a == [1, 2] and a is b", "a.clear()\nassert f(3) == [3]"),
        "a = f(1)\nf(2)\nassert a == [1]",
    ),
    Row(
        "memo handed out",
        "memo = {0: 0}\ndef f(n):\n memo[n] = n * n\n return memo",
        ("m = f(2)\nf(3)\nassert m == {0: 0, 2: 4, 3: 9} and memo is m", "m[5] = 1\nassert f(1)[5] == 1"),
        "m = f(2)\nf(7)\nassert 7 not in m",
    ),
    Row(
        "generator that changes a list of the test's",
        "def f(xs):\n while xs:\n  yield xs.pop()",
        (
            "xs = [1, 2, 3]\ng = f(xs)\nassert next(g) == 3 and xs == [1, 2]",
            "xs.append(7)\nassert list(g) == [7, 2, 1]",
        ),
        "xs = [1, 2]\ng = f(xs)\nnext(g)\nassert xs == [1, 2]",
    ),
    Row(
        "context manager that changes a list of the test's",
        "import contextlib\n@contextlib.contextmanager\ndef f(log):\n log.append('in')\n yield log\n log.append('out')",
        (
            "log = []\nwith f(log) as same:\n assert same is log == ['in']\n same.append('body')\n"
            "assert log == ['in', 'body', 'out']",
        ),
        "log = []\nwith f(log):\n pass\nassert log == ['in']",
    ),
    Row(
        "containers of every kind that an object keeps",
        "class K:\n def __init__(self, *held):\n  self.held = held\n def change(self):\n"
        "  a, b, c, d, e = self.held\n  a.add(2)\n  b['k'] = 1\n  c.appendleft(0)\n  d += b'x'\n  e['n'] += 1",
        (
            "import collections\nheld = {1}, {}, collections.deque([1], 3), bytearray(b'a'), collections.Counter()\n"
            "k = K(*held)\nk.change()\n"
            "assert held == ({1, 2}, {'k': 1}, collections.deque([0, 1]), bytearray(b'ax'), {'n': 1})",
            "held[0].clear()\nheld[3][:] = b'zz'\nk.change()\nassert (held[0], bytes(held[3])) == ({2}, b'zzx')",
            "assert all(x is y for x, y in zip(k.held, held))",
        ),
        "s = set()\nk = K(s, {}, __import__('collections').deque(), bytearray(), {'n': 0})\nk.change()\nassert not s",
    ),
    Row(
        "list in a list that changes later",
        "class Grid:\n def __init__(self, n):\n  self.rows = [[0] * n for _ in range(n)]\n def mark(self, i, j):\n"
        "  self.rows[i][j] = 1\n  return self.rows",
        (
            "g = Grid(2)\nrows = g.rows\ng.mark(0, 1)\nassert rows == [[0, 1], [0, 0]]",
            "row = rows[1]\ng.mark(1, 0)\nassert row == [1, 0] and g.rows[1] is row",
            "rows.append(row)\nassert g.mark(1, 1)[2] == [1, 1]",
        ),
        "g = Grid(1)\nr = g.rows\ng.mark(0, 0)\nassert r == [[0]]",
    ),
    Row(
        "list that two objects share",
        "class A:\n def __init__(self, xs):\n  self.xs = xs\n def add(self, x):\n  self.xs.append(x)",
        (
            "xs = []\na, b = A(xs), A(xs)\na.add(1)\nb.add(2)\nassert a.xs == b.xs == xs == [1, 2] and a.xs is b.xs",
            "ys = a.xs\nb.xs = []\na.add(3)\nassert ys == [1, 2, 3] and b.xs == []",
        ),
        "xs = []\na, b = A(xs), A(xs)\na.add(1)\nassert b.xs == []",
    ),
    Row(
        "list that a callback sees and changes",
        "def f(xs, call):\n for i in range(3):\n  xs.append(i)\n  call(xs)\n return xs",
        (
            "seen = []\ndef call(xs):\n seen.append(len(xs))\n xs.append('c')\n"
            "assert f([], call) == [0, 'c', 1, 'c', 2, 'c'] and seen == [1, 3, 5]",
            "mine = []\nassert f(mine, lambda xs: mine.append(xs is mine)) == [0, True, 1, True, 2, True]",
        ),
        "seen = []\nf([], lambda xs: seen.append(list(xs)))\nassert seen == [[], [], []]",
    ),
    Row(
        "observer that keeps what it was notified with",
        "class Bus:\n def __init__(self):\n  self.calls, self.log = [], []\n def on(self, call):\n"
        "  self.calls.append(call)\n def emit(self, x):\n  self.log.append(x)\n"
        "  for call in self.calls:\n   call(self.log)",
        (
            "got = []\nbus = Bus()\nbus.on(got.append)\nbus.emit(1)\nbus.emit(2)\nassert got == [[1, 2], [1, 2]]",
            "assert got[0] is got[1] is bus.log",
        ),
        "got = []\nbus = Bus()\nbus.on(got.append)\nbus.emit(1)\nbus.emit(2)\nassert got[0] == [1]",
    ),
    Row(
        "list returned twice and changed by the test",
        "class Cart:\n def __init__(self):\n  self._items = []\n def items(self):\n  return self._items\n"
        " def count(self):\n  return len(self._items)\n def copy(self):\n  return list(self._items)",
        (
            "c = Cart()\nc.items().append('a')\nassert c.count() == 1 and c.items() == ['a']",
            "d = c.copy()\nd.append('b')\nassert c.count() == 1 and c.items() is not c.copy()",
        ),
        "c = Cart()\nc.items().append('a')\nassert c.count() == 0",
    ),
    Row(
        "instance of the set-up's class whose list both change",
        "def link(a, b):\n a.next.append(b)\n return a\ndef size(a):\n return len(a.next)",
        (
            "a, b = Node(1), Node(2)\nassert link(a, b) is a and a.next[0] is b",
            "a.next.append(a)\nassert size(a) == 2",
            "kept = a.next\nlink(a, b)\nassert kept is a.next and len(kept) == 3",
        ),
        "a, b = Node(1), Node(2)\nlink(a, b)\nassert a.next == []",
        setup="class Node:\n def __init__(self, x):\n  self.x, self.next = x, []",
    ),
    Row(
        "instances of the set-up's class as keys",
        "def f(points):\n return {p: p.x for p in points}, set(points), frozenset(points)",
        (
            "a = P(1, 2)\nd, s, z = f([a, P(1, 2), P(3, 4)])\nassert d == {P(1, 2): 1, P(3, 4): 3} and d[a] == 1",
            "assert s == z == {P(1, 2), P(3, 4)}",
        ),
        "assert f([P(1, 2)])[0] == {P(1, 2): 2}",
        setup="from dataclasses import dataclass\n@dataclass(frozen=True)\nclass P:\n x: int\n y: int",
    ),
    Row(
        "objects of the program's as keys",
        "class K:\n def __init__(self, x):\n  self.x = [x]\n def __eq__(self, o):\n  return self.x == o.x\n"
        " def __hash__(self):\n  return self.x[0]\ndef f(n):\n return {K(i): i for i in range(n)}\n"
        "def g(d, n):\n return K(n) in d",
        ("d = f(3)\nassert sorted(d.values()) == [0, 1, 2] and all(k in d for k in d)", "assert g(f(3), 2)"),
        "assert len(f(3)) == 2",
    ),
    Row(
        "lists nested deep, both ways",
        "def f(n):\n x = []\n for _ in range(n):\n  x = [x]\n return x\ndef depth(x):\n n = 0\n while x:\n"
        "  x, n = x[0], n + 1\n return n",
        (
            "x, n = f(5000), 0\nwhile x:\n x, n = x[0], n + 1\nassert n == 5000",
            "x = []\nfor _ in range(5000):\n x = [x]\nassert depth(x) == 5000",
            "assert f(900) == f(900) != f(901)",
        ),
        "assert f(400) == f(401)",
    ),
    Row(
        "pairs nested deep, as linked lists of tuples are",
        "def f(n):\n x = None\n for i in range(n):\n  x = (i, x)\n return x\ndef total(x):\n n = 0\n while x:\n"
        "  n, x = n + x[0], x[1]\n return n",
        (
            "assert f(900)[0] == 899 and f(900) == f(900)",
            "x = None\nfor i in range(900):\n x = (1, x)\nassert total(x) == 900",
        ),
        "assert f(500) == f(501)",
    ),
    Row(
        "dictionaries nested deep, one shared",
        "def f(n):\n leaf = {}\n x = leaf\n for _ in range(n):\n  x = {'in': x, 'leaf': leaf}\n return x",
        ("x = f(1500)\nleaf = x['leaf']\nwhile x is not leaf:\n assert x['leaf'] is leaf\n x = x['in']",),
        "assert f(250) == f(251)",
    ),
    Row(
        "list that holds itself, changed later",
        "class R:\n def __init__(self):\n  self.ring = [1]\n  self.ring.append(self.ring)\n def add(self, x):\n"
        "  self.ring.append(x)",
        ("r = R()\nring = r.ring\nr.add(5)\nassert ring[1] is ring and ring[2] == 5 and len(ring) == 3",),
        "r = R()\nring = r.ring\nr.add(5)\nassert len(ring) == 2",
    ),
    Row(
        "list subclass that changes after it was returned",
        "class Path(list):\n pass\nkept = Path()\ndef f(x):\n kept.append(x)\n return kept",
        (
            "p = f(1)\nf(2)\nassert p == [1, 2] and p is f(3) and len(p) == 3",
            "p.append(0)\nassert f(4) == [1, 2, 3, 0, 4]",
        ),
        "p = f(1)\nf(2)\nassert len(p) == 1",
    ),
    Row(
        "many lists, of which most are let go",
        "kept = []\ndef f(i):\n x = [i, i, i]\n if i % 100 == 0:\n  kept.append(x)\n return x\n"
        "def bump():\n for x in kept:\n  x.append(1)",
        (
            "held = [f(i) for i in range(500)]\nbump()\nassert [len(x) for x in held].count(4) == 5",
            "assert held[100][3] == 1",
            "for i in range(501, 1200):\n assert f(i) == [i] * 3",
            "bump()\nassert len(held[0]) == 5 and len(held[1]) == 3",
        ),
        "x = f(0)\nbump()\nassert x == [0, 0, 0]",
    ),
    Row(
        "arrays and views",
        "import array\nclass A:\n def __init__(self, a):\n  self.a = a\n def set(self, x):\n  self.a[0] = x\n"
        "def view(b):\n return memoryview(b)[1:]",
        (
            "import array\na = array.array('d', [1.5, 2.5])\nk = A(a)\nk.set(9.25)\nassert a[0] == 9.25 and k.a is a",
            "a[1] = 3.0\nk.set(1.0)\nassert list(k.a) == [1.0, 3.0]",
            "assert view(b'abc') == b'bc' and bytes(view(b'abc')) == b'bc' and view(b'abc').tolist() == [98, 99]",
        ),
        "assert view(b'abc') == b'ab'",
    ),
    Row(
        "views of a dictionary that changes later",
        "import types\nclass D:\n def __init__(self):\n  self.d = {'a': 1}\n def put(self, k, v):\n  self.d[k] = v\n"
        " def views(self):\n  return self.d.keys(), self.d.values(), self.d.items(), types.MappingProxyType(self.d)",
        (
            "d = D()\nkeys, values, items, proxy = d.views()\nd.put('b', 2)\nassert list(keys) == ['a', 'b']",
            "assert list(values) == [1, 2] and ('b', 2) in items and proxy['b'] == 2 and proxy == {'a': 1, 'b': 2}",
            "assert keys == {'a', 'b'} and keys & {'a'} == {'a'}",
        ),
        "d = D()\nkeys = d.views()[0]\nd.put('b', 2)\nassert list(keys) == ['a']",
    ),
    Row(
        "long list that both change",
        "class L:\n def __init__(self, xs):\n  self.xs = xs\n def put(self, i, x):\n  self.xs[i] = x\n"
        " def at(self, i):\n  return self.xs[i]",
        (
            "xs = list(range(100_000))\ns = L(xs)\nfor i in range(300):\n assert s.at(i) == i",
            "s.put(5, -1)\nxs[6] = -2\nassert xs[5] == -1 and s.at(6) == -2 and s.xs is xs",
        ),
        "xs = list(range(2000))\nL(xs).put(5, -1)\nassert xs[5] == 5",
    ),
    Row(
        "exception with a list that changes later",
        "log = []\ndef f(x):\n log.append(x)\n raise ValueError(log)",
        (
            "got = []\nfor i in range(2):\n try:\n  f(i)\n except ValueError as e:\n  got.append(e.args[0])\n"
            "assert got == [[0, 1], [0, 1]] and got[0] is got[1]",
        ),
        "try:\n f(1)\nexcept ValueError as e:\n assert e.args[0] == []",
    ),
    Row(
        "namespace, ordered and chained dictionaries kept",
        "class C:\n def __init__(self, *held):\n  self.held = held\n def change(self):\n  n, o, c = self.held\n"
        "  n.x += 1\n  o.move_to_end('a')\n  c['new'] = 1",
        (
            "import collections, types\nn, o = types.SimpleNamespace(x=1), collections.OrderedDict(a=1, b=2)\nm = {}\n"
            "c = collections.ChainMap(m, {'old': 1})\nk = C(n, o, c)\nk.change()\n"
            "assert n.x == 2 and list(o) == ['b', 'a'] and m == {'new': 1}",
        ),
        "import collections, types\nn = types.SimpleNamespace(x=1)\n"
        "C(n, collections.OrderedDict(a=1), {}).change()\nassert n.x == 1",
    ),
    Row(
        "modules of the program's that the test names too",
        "import hashlib, csv, threading, os.path as p\ndef f(x):\n return hashlib.md5(x).hexdigest()[:4]",
        (
            "import hashlib\nassert f(b'a') == hashlib.md5(b'a').hexdigest()[:4]",
            "csv = f(b'a')\nassert csv == '0cc1'",
            "assert threading is not None and [p for p in f(b'a')] == ['0', 'c', 'c', '1']",
        ),
        "import hashlib\nassert f(b'a') == hashlib.md5(b'b').hexdigest()[:4]",
    ),
    Row(
        "value of a generator that ends",
        "def f(n):\n got = yield n\n return [n, got]\ndef g(it):\n return next(it)",
        (
            "g1 = f(1)\nnext(g1)\ntry:\n next(g1)\nexcept StopIteration as end:\n assert end.value == [1, None]",
            "h = f(2)\nnext(h)\ntry:\n h.send(5)\n assert False\nexcept StopIteration as e:\n assert e.value == [2, 5]",
            "def outer():\n value = yield from f(3)\n yield value\nassert list(outer()) == [3, [3, None]]",
            "try:\n g(iter([]))\n assert False\nexcept StopIteration:\n pass",
        ),
        "g3 = f(1)\nnext(g3)\ntry:\n next(g3)\nexcept StopIteration as end:\n assert end.value == [1, 1]",
    ),
    Row(
        "generator of the test's that gives a value",
        "def f(it):\n got = yield from it\n yield got",
        ("def three():\n yield 1\n return 3\nassert list(f(three())) == [1, 3]",),
        "def three():\n yield 1\n return 3\nassert list(f(three())) == [1, None]",
    ),
    Row(
        "globals of the program's that a call changes",
        "count, last = 0, None\nclass Node:\n def __init__(self, x):\n  self.x = x\n"
        "def f(x):\n global count, last\n count += 1\n last = Node(x)\n return count",
        (
            "f(7)\nassert count == 1 and last.x == 7",
            "before = count\nf(8)\nf(9)\nassert count == before + 2 and last.x == 9",
            "assert f(1) == count",
        ),
        "f(7)\nassert count == 0",
    ),
    Row(
        "setup constants, tables and helpers that the program uses",
        "def f(x):\n return scaled(x) % MOD + SQUARES[2]\ndef g(names):\n return [n for n in names if n not in STOP]",
        ("assert f(10) == 5", "assert g(['a', 'b', 'd']) == ['d']", "assert f(MOD) == f(0) == 4"),
        "assert f(10) == 4",
        "MOD: int = 7\nFACTOR, STOP = 5, {'a'}\nSTOP.add('b')\nSQUARES = {}\nfor i in range(3):\n SQUARES[i] = i * i\n"
        "def scaled(x):\n return x * FACTOR",
    ),
    Row(
        "setup that needs what the program defines",
        "class Node:\n def __init__(self, x):\n  self.x = x\ndef f(n, root=None):\n return n + STEP",
        ("assert f(root.x) == 4",),
        "assert f(root.x) == 3",
        "STEP = 1\nroot = Node(3)",
    ),
    Row(
        "classes of a test that need imports, decorators and each other",
        "def f(p):\n return p.x\ndef g(items):\n return max(items)\ndef h(p):\n return p.other()\n"
        "def ys(items):\n return sum(i is type(i).y for i in items)",
        (
            "from dataclasses import dataclass\n@dataclass\nclass P:\n x: int\nassert f(P(1)) == 1",
            "import typing as t\nclass N(t.NamedTuple):\n x: int\nassert f(N(2)) == 2 and g([N(1), N(3)]) == N(3)",
            "from functools import total_ordering\n@total_ordering\nclass V:\n def __init__(self, x):\n  self.x = x\n"
            " def __lt__(self, o):\n  return self.x < o.x\nassert g([V(1), V(5), V(2)]).x == 5 and f(V(4)) == 4",
            "from dataclasses import dataclass, field\n@dataclass\nclass A:\n x: int = field(default=3)\n"
            " def other(self):\n  return B(self.x)\n@dataclass\nclass B(A):\n y: int = 1\n"
            "assert h(A()) == B(3) and isinstance(h(B(2)), A) and f(B(7)) == 7",
            "import enum\nclass C(enum.Enum):\n x = 1\n y = 2\nassert f(C.y) is C.x and ys([C.y, C.x, C.y]) == 2",
        ),
        "from dataclasses import dataclass\n@dataclass\nclass P:\n x: int\nassert f(P(1)) == 2",
    ),
    Row(
        "streams that the program writes, reads and closes",
        "import io\ndef f(out):\n out.write(out.read() + '\u00e9\\n')\ndef g():\n return io.StringIO('a\\nb')\n"
        "def h(out):\n out.write(b'\\x00')\n out.close()",
        (
            "import io\ns = io.StringIO('ab')\nf(s)\nassert s.getvalue() == 'abab\u00e9\\n' and s.read() == ''\n"
            "f(s)\nassert s.getvalue() == 'abab\u00e9\\n\u00e9\\n'",
            "import io\nfrom contextlib import redirect_stdout\ns = io.StringIO()\nprint('x', file=s)\nf(s)\n"
            "assert s.getvalue() == 'x\\n\u00e9\\n'",
            "import io\nb = io.BytesIO()\nh(b)\nassert b.closed",
            "assert g().readlines() == ['a\\n', 'b'] and [line for line in g()] == ['a\\n', 'b']",
        ),
        "import io\ns = io.StringIO()\nf(s)\nassert s.getvalue() == ''",
    ),
    Row(
        "classes derived from the setup's",
        "class Dog(Animal):\n legs = 4\n def speak(self):\n  return 'woof'\nclass Puppy(Dog):\n pass\n"
        "class Square(Shape):\n def area(self):\n  return 4\ndef f(x):\n return Dog(x)\ndef g():\n"
        " return Animal, Puppy('p')",
        (
            "d = f('Rex')\n"
            "assert isinstance(d, Animal) and d.speak() == 'woof' and d.name == 'Rex' and d.hello() == 'I woof'",
            "assert isinstance(Dog('x'), Animal) and issubclass(Dog, Animal) and Dog.legs == 4 and Dog('y').legs == 4",
            "kind, p = g()\n"
            "assert kind is Animal and isinstance(p, Animal) and isinstance(p, Dog) and p.speak() == 'woof'",
            "assert isinstance(Square(), Shape) and issubclass(Square, Shape) and Square().area() == 4",
            "assert f('a') == Animal('a') and Animal('a') == f('a') and f('a') != Animal('b') and check('Rex')",
        ),
        "assert isinstance(f('Rex'), Shape)",
        "from abc import ABC, abstractmethod\nclass Animal:\n legs = 0\n def __init__(self, name):\n"
        "  self.name = name\n"
        " def speak(self):\n  return ''\n def hello(self):\n  return 'I ' + self.speak()\n"
        " def __eq__(self, other):\n  return self.name == other.name\n"
        "class Shape(ABC):\n @abstractmethod\n def area(self):\n  pass\ndef check(x):\n return f(x).name == x",
    ),
]


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=1) as sandbox:
        yield sandbox


def task(tests: tuple[str, ...], setup: str) -> Task:
    return Task("t", "s", "d", "p", "en", "python", "function", "", tests, setup_code=setup, time_limit_s=3)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_right_answer_passes(sandbox, row):
    verdict = sandbox.grade(task(row.tests, row.setup), row.program)
    assert (verdict.status, verdict.passed) == ("success", len(row.tests)), verdict.failure


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_same_program_fails_a_wrong_expectation(sandbox, row):
    verdict = sandbox.grade(task((row.fails,), row.setup), row.program)
    assert verdict.status in ("wrong-output", "runtime-error") and verdict.failure, verdict


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_table_is_true_of_plain_python(row):
    """Every row holds in one ordinary namespace, and every wrong expectation fails there too."""
    namespace: dict[str, object] = {"__name__": "solution"}
    exec("import sys, types; sys.modules['solution'] = types.ModuleType('solution')", {})
    exec(row.setup if "root" not in row.setup else "", namespace)
    exec(row.program, namespace)
    exec(row.setup if "root" in row.setup else "", namespace)
    for test in row.tests:
        exec(test, namespace)
    with pytest.raises(BaseException):  # noqa: B017
        exec(row.fails, namespace)


@pytest.mark.parametrize(
    "test",
    [
        "limit = 1\nclass P:\n def x(self):\n  return limit\nassert f(P()) == 1",
        "class P:\n def x(self):\n  assert True\n  return 1\nassert f(P()) == 1",
        "import io\nclass S(io.StringIO):\n def x(self):\n  return 1\nassert f(S()) == 1",
        "import io\nassert f(io.TextIOWrapper(io.BytesIO())) == 1",
    ],
)
def test_an_object_that_cannot_travel_is_no_failure_of_the_program(sandbox, test):
    """Whether it is passed over or judged, a right program does not fail."""
    verdict = sandbox.grade(task((test,), ""), "def f(p):\n return p.x() if hasattr(p, 'x') else p.write('a')")
    assert verdict.status in ("success", "unsupported-test"), verdict.failure
