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
    Row("generator returned", "def f(n):\n yield from range(n)", ("assert list(f(3)) == [0, 1, 2]", "assert next(f(1)) == 0"), "assert list(f(3)) == [0, 1]"),
    Row("endless generator", "def f():\n n = 0\n while True:\n  yield n\n  n += 1", ("g = f()\nassert [next(g), next(g)] == [0, 1]", "import itertools\nassert list(itertools.islice(f(), 3)) == [0, 1, 2]"), "assert next(f()) == 1"),
    Row("map, filter, zip returned", "def f(x):\n return map(str, x)\ndef g(x):\n return filter(None, x)\ndef h(a, b):\n return zip(a, b)", ("assert list(f([1, 2])) == ['1', '2']", "assert list(g([0, 1])) == [1]", "assert dict(h('ab', [1, 2])) == {'a': 1, 'b': 2}"), "assert list(f([1])) == [1]"),
    Row("reversed and enumerate", "def f(x):\n return reversed(x)\ndef g(x):\n return enumerate(x)", ("assert list(f([1, 2])) == [2, 1]", "assert list(g('a')) == [(0, 'a')]"), "assert list(f([1, 2])) == [1, 2]"),
    Row("argument mutated", "def f(x):\n x.sort()\n x.append(0)", ("x = [3, 1]\nf(x)\nassert x == [1, 3, 0]", "x = [1]\nassert f(x) is None and x == [1, 0]"), "x = [3, 1]\nf(x)\nassert x == [3, 1]"),
    Row("nested argument mutated", "def f(m):\n m[0][1] = 9\n m[1]['k'].add(5)", ("row = [1, 2]\nm = [row, {'k': {4}}]\nf(m)\nassert m == [[1, 9], {'k': {4, 5}}]\nassert row == [1, 9]",), "m = [[1, 2], {'k': {4}}]\nf(m)\nassert m[0] == [1, 2]"),
    Row("mutated dict, set, bytearray, deque", "def f(d, s, b, q):\n d['x'] = 1\n s.discard(1)\n b[0] = 65\n q.rotate(1)", ("from collections import deque\nd, s, b, q = {}, {1, 2}, bytearray(b'b'), deque([1, 2, 3])\nf(d, s, b, q)\nassert (d, s, b, q) == ({'x': 1}, {2}, bytearray(b'A'), deque([3, 1, 2]))",), "d = {}\nf(d, set(), bytearray(b'b'), __import__('collections').deque())\nassert d == {}"),
    Row("argument returned", "def f(x):\n x.append(1)\n return x", ("x = []\nassert f(x) is x and x == [1]",), "assert f([]) == []"),
    Row("namedtuple returned", "from collections import namedtuple\nPoint = namedtuple('Point', 'x y')\ndef f(a, b):\n return Point(a, b)", ("assert f(1, 2) == (1, 2)", "assert f(1, 2).x == 1", "assert f(1, 2) == Point(1, 2)", "assert isinstance(f(1, 2), Point)", "x, y = f(1, 2)\nassert y == 2"), "assert f(1, 2) == (2, 1)"),
    Row("typing.NamedTuple", "from typing import NamedTuple\nclass P(NamedTuple):\n x: int\n y: int = 0\ndef f(a):\n return P(a)", ("assert f(1) == (1, 0)", "assert f(1)._asdict() == {'x': 1, 'y': 0}", "assert f(1)._replace(y=5) == (1, 5)"), "assert f(1) == (1, 1)"),
    Row("dataclass returned", "from dataclasses import dataclass\n@dataclass\nclass P:\n x: int\n y: int\ndef f(a):\n return P(a, a + 1)", ("assert f(1) == P(1, 2)", "assert f(1).y == 2", "assert repr(f(1)) == 'P(x=1, y=2)'", "assert f(1) != P(1, 3)", "assert P(1, 2) == P(1, 2)"), "assert f(1) == P(1, 3)"),
    Row("nested dataclass", "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass A:\n v: tuple\n@dataclass\nclass B:\n a: A\n l: list\ndef f():\n return B(A((1,)), [A((2,))])", ("assert f() == B(A((1,)), [A((2,))])",), "assert f() == B(A((1,)), [A((3,))])"),
    Row("class under test", "class Stack:\n def __init__(self):\n  self.items = []\n def push(self, x):\n  self.items.append(x)\n  return self\n def pop(self):\n  return self.items.pop()\n def __len__(self):\n  return len(self.items)\n def __bool__(self):\n  return bool(self.items)\n def __contains__(self, x):\n  return x in self.items\n @property\n def top(self):\n  return self.items[-1]\n @staticmethod\n def make():\n  return Stack()\n limit = 5", ("s = Stack()\ns.push(1).push(2)\nassert len(s) == 2\nassert s.top == 2\nassert s.pop() == 2\nassert 1 in s and 3 not in s", "s = Stack()\nassert not s\ns.push(0)\nassert s and s.items == [0]", "assert Stack.limit == 5 and isinstance(Stack.make(), Stack)", "s = Stack()\ntry:\n s.pop()\n assert False\nexcept IndexError:\n pass"), "s = Stack()\ns.push(1)\nassert s.pop() == 2"),
    Row("operators under test", "class V:\n def __init__(self, x, y):\n  self.x, self.y = x, y\n def __add__(self, o):\n  return V(self.x + o.x, self.y + o.y)\n def __mul__(self, k):\n  return V(self.x * k, self.y * k)\n __rmul__ = __mul__\n def __neg__(self):\n  return V(-self.x, -self.y)\n def __eq__(self, o):\n  return (self.x, self.y) == (o.x, o.y)\n def __abs__(self):\n  return (self.x ** 2 + self.y ** 2) ** .5\n def __getitem__(self, i):\n  return (self.x, self.y)[i]\n def __lt__(self, o):\n  return abs(self) < abs(o)\n def __iter__(self):\n  yield self.x\n  yield self.y\n def __repr__(self):\n  return f'V({self.x}, {self.y})'", ("assert V(1, 2) + V(3, 4) == V(4, 6)", "assert V(1, 2) * 3 == V(3, 6) and 3 * V(1, 2) == V(3, 6)", "assert abs(V(3, 4)) == 5.0 and -V(1, 2) == V(-1, -2)", "assert V(3, 4)[1] == 4 and list(V(1, 2)) == [1, 2]", "assert V(1, 1) < V(2, 2) and sorted([V(2, 2), V(1, 1)])[0] == V(1, 1)", "assert str(V(1, 2)) == 'V(1, 2)' and f'{V(1, 2)}' == 'V(1, 2)'", "assert V(1, 2) != V(2, 1)"), "assert V(1, 2) + V(3, 4) == V(4, 7)"),
    Row("own equality under test", "class R:\n def __init__(self, a, b):\n  self.a, self.b = a, b\n def __eq__(self, o):\n  return self.a * o.b == o.a * self.b", ("assert R(1, 2) == R(2, 4)", "assert not R(1, 2) == R(1, 3)"), "assert R(1, 2) == R(1, 3)"),
    Row("attributes set and deleted", "class Box:\n def __init__(self):\n  self.v = 1\n def get(self):\n  return self.v", ("b = Box()\nb.v = 7\nassert b.get() == 7 and hasattr(b, 'v') and not hasattr(b, 'w')\ndel b.v\nassert not hasattr(b, 'v')",), "b = Box()\nb.v = 7\nassert b.get() == 1"),
    Row("items set", "class Grid:\n def __init__(self):\n  self.d = {}\n def __setitem__(self, k, v):\n  self.d[k] = v\n def __getitem__(self, k):\n  return self.d[k]\n def __delitem__(self, k):\n  del self.d[k]", ("g = Grid()\ng[1, 2] = 'a'\nassert g[1, 2] == 'a'\ndel g[1, 2]\nassert g.d == {}",), "g = Grid()\ng[0] = 1\nassert g[0] == 2"),
    Row("context manager", "class C:\n def __enter__(self):\n  self.open = True\n  return self\n def __exit__(self, *a):\n  self.open = False", ("with C() as c:\n assert c.open\nassert not c.open",), "with C() as c:\n assert not c.open"),
    Row("tree nodes", "class Node:\n def __init__(self, v, left=None, right=None):\n  self.v, self.left, self.right = v, left, right\ndef depth(n):\n return 0 if n is None else 1 + max(depth(n.left), depth(n.right))\ndef build(x):\n return Node(x[0], build(x[1:])) if x else None", ("assert depth(root) == 3", "assert build([1, 2]).left.v == 2", "assert build([]) is None"), "assert depth(root) == 2", "root = Node(1)\nroot.left = Node(2)\nroot.left.right = Node(3)"),
    Row("setup class used by program", "def total(pairs):\n return sum(p.a * p.b for p in pairs)\ndef swap(p):\n return Pair(p.b, p.a)", ("assert total([Pair(1, 2), Pair(3, 4)]) == 14", "assert swap(Pair(1, 2)).a == 2", "assert swap(Pair(1, 2)) == Pair(2, 1)"), "assert swap(Pair(1, 2)) == Pair(1, 2)", "class Pair:\n def __init__(self, a, b):\n  self.a = a\n  self.b = b\n def __eq__(self, o):\n  return (self.a, self.b) == (o.a, o.b)"),
    Row("setup instance mutated", "def move(p):\n p.x += 1", ("p = P(1)\nmove(p)\nassert p.x == 2",), "p = P(1)\nmove(p)\nassert p.x == 1", "class P:\n def __init__(self, x):\n  self.x = x"),
    Row("setup imports and helpers", "def area(r):\n return round(math.pi * square(r), 2)", ("assert area(1) == 3.14",), "assert area(1) == 3", "import math\ndef square(x):\n return x * x"),
    Row("setup namedtuple", "def f(p):\n return Point(p.y, p.x)", ("assert f(Point(1, 2)) == Point(2, 1)", "assert f(Point(1, 2)).x == 2"), "assert f(Point(1, 2)) == Point(1, 2)", "from collections import namedtuple\nPoint = namedtuple('Point', 'x y')"),
    Row("lambda as argument", "def f(g, x):\n return [g(i) for i in x]", ("assert f(lambda i: i * i, [1, 2]) == [1, 4]", "def half(i):\n return i / 2\nassert f(half, [1]) == [.5]"), "assert f(lambda i: i, [1]) == [2]"),
    Row("builtins as arguments", "def f(g, x):\n return g(x)", ("assert f(len, [1, 2]) == 2", "assert f(sorted, (2, 1)) == [1, 2]", "assert f(str.upper, 'a') == 'A'", "assert f(int, '5') == 5", "import math\nassert f(math.sqrt, 4) == 2", "import operator\nassert f(operator.itemgetter(1), 'ab') == 'b'"), "assert f(len, []) == 1"),
    Row("program's function as argument", "def apply(g, x):\n return g(x)\ndef double(x):\n return 2 * x", ("assert apply(double, 4) == 8", "assert list(map(double, [1, 2])) == [2, 4]", "assert sorted([3, 1], key=double) == [1, 3]"), "assert apply(double, 4) == 9"),
    Row("callback that raises", "def f(g):\n try:\n  g()\n except ValueError as e:\n  return str(e)", ("def bad():\n raise ValueError('no')\nassert f(bad) == 'no'",), "def bad():\n raise ValueError('no')\nassert f(bad) == 'yes'"),
    Row("callback calls back", "def f(n, g):\n return 1 if n == 0 else g(n)\ndef h(n):\n return n", ("assert f(3, lambda n: h(n) + f(n - 1, lambda m: 10)) == 13",), "assert f(3, lambda n: h(n)) == 4"),
    Row("iterator as argument", "def f(it):\n return sum(it)\ndef g(it):\n return next(it)", ("assert f(iter([1, 2])) == 3", "assert f(x for x in (1, 2)) == 3", "import itertools\nassert g(itertools.count(5)) == 5"), "assert f(iter([1])) == 2"),
    Row("closure returned", "def adder(n):\n return lambda x: x + n\ndef counter():\n c = 0\n def inc():\n  nonlocal c\n  c += 1\n  return c\n return inc", ("assert adder(2)(3) == 5", "c = counter()\nc()\nassert c() == 2"), "assert adder(2)(3) == 6"),
    Row("decorator", "import functools\ndef twice(g):\n @functools.wraps(g)\n def inner(*a, **k):\n  return g(*a, **k) * 2\n return inner", ("@twice\ndef one():\n return 1\nassert one() == 2", "assert twice(lambda x, y=1: x + y)(1, y=2) == 6"), "assert twice(lambda: 1)() == 1"),
    Row("functools.partial returned", "from functools import partial\ndef f(n):\n return partial(pow, n)", ("assert f(2)(3) == 8",), "assert f(2)(3) == 9"),
    Row("truthiness", "import re\ndef f(s):\n return re.search('b+', s)\ndef g(x):\n return x or []", ("assert f('abb')", "assert not f('a')", "assert f('abb').group() == 'bb'", "assert not g(0)"), "assert f('a')"),
    Row("expected exceptions", "class Mine(ValueError):\n def __init__(self, code):\n  super().__init__(f'code {code}')\n  self.code = code\ndef f(x):\n if x < 0:\n  raise ValueError('negative')\n if x == 0:\n  raise Mine(7)\n return x", ("try:\n f(-1)\n assert False\nexcept ValueError as e:\n assert str(e) == 'negative'", "try:\n f(0)\n assert False\nexcept Mine as e:\n assert e.code == 7 and str(e) == 'code 7'", "import unittest\nunittest.TestCase().assertRaises(ValueError, f, -1)", "from contextlib import suppress\nwith suppress(ValueError):\n f(0)"), "try:\n f(1)\n assert False, 'no error'\nexcept ValueError:\n pass"),
    Row("standard exceptions", "def f(d, k):\n return d[k]\ndef g():\n raise NotImplementedError\ndef h():\n raise KeyError('k')", ("try:\n f({}, 1)\nexcept KeyError as e:\n assert e.args == (1,)\nelse:\n assert False", "try:\n g()\nexcept NotImplementedError:\n ok = True\nassert ok", "try:\n f([], 1)\nexcept LookupError:\n pass\nelse:\n assert False"), "try:\n f([1], 0)\nexcept IndexError:\n pass\nelse:\n assert False"),
    Row("exception returned", "def f(x):\n return ValueError(x)", ("assert isinstance(f('a'), ValueError) and f('a').args == ('a',)",), "assert isinstance(f('a'), KeyError)"),
    Row("big ints", "def f(n):\n return 7 ** n\ndef g(n):\n return -n", ("assert f(3000) == 7 ** 3000", "assert g(10 ** 40) == -10 ** 40", "assert f(30000) % 10 == 1"), "assert f(3000) == 7 ** 3000 + 1"),
    Row("floats", "def f(x):\n return x / 3\ndef g():\n return -0.0\ndef h():\n return float('inf')", ("assert f(1) == 1 / 3", "import math\nassert math.copysign(1, g()) == -1", "assert h() == float('inf')", "assert abs(f(1) - 0.3333) < 1e-3", "assert round(f(1), 2) == 0.33"), "assert f(1) == 0.3333"),
    Row("nan", "def f():\n return float('nan')", ("import math\nassert math.isnan(f())", "assert f() != f()"), "assert f() == f()"),
    Row("complex", "def f(a):\n return a * 1j", ("assert f(2) == 2j and f(1j) == -1",), "assert f(2) == 2"),
    Row("sets and frozensets", "def f(x):\n return set(x)\ndef g(x):\n return frozenset(x)\ndef h(x):\n return {frozenset(x): 1}", ("assert f('aab') == {'a', 'b'}", "assert g([1, (2,)]) == {1, (2,)}", "assert h([1]) == {frozenset([1]): 1}"), "assert f('a') == {'b'}"),
    Row("tuples, nested and as keys", "def f():\n return (1, (2, [3, (4,)]), {(5, 6): (7,)})", ("assert f() == (1, (2, [3, (4,)]), {(5, 6): (7,)})", "assert f()[1][1] == [3, (4,)]"), "assert f() == [1, (2, [3, (4,)]), {(5, 6): (7,)}]"),
    Row("int keys stay ints", "def f(s):\n return {len(w): w for w in s.split()}", ("assert f('a bb') == {1: 'a', 2: 'bb'}", "assert list(f('bb a')) == [2, 1]"), "assert f('a') == {'1': 'a'}"),
    Row("bool and int", "def f(x):\n return x > 1\ndef g():\n return 1", ("assert f(2) is True and f(1) is False", "assert type(g()) is int and g() == True"), "assert g() is True"),
    Row("bytes", "def f(s):\n return s.encode()\ndef g(b):\n return bytearray(b)\ndef h(b):\n return b[::-1]", ("assert f('é') == b'\\xc3\\xa9'", "assert g(b'a') == bytearray(b'a')", "assert h(b'\\x00\\xff') == b'\\xff\\x00'"), "assert f('a') == 'a'"),
    Row("text", "def f(s):\n return s[::-1]", ("assert f('বাংলা') == 'বাংলা'[::-1]", "assert f('a\\ud800') == '\\ud800a'", "assert f('\\x00\\u2028😀') == '😀\\u2028\\x00'"), "assert f('ab') == 'ab'"),
    Row("Decimal and Fraction", "from decimal import Decimal\nfrom fractions import Fraction\ndef f(a, b):\n return Decimal(a) / Decimal(b)\ndef g(a, b):\n return Fraction(a, b)", ("from decimal import Decimal\nassert f('1', '8') == Decimal('0.125')", "from fractions import Fraction\nassert g(2, 4) == Fraction(1, 2) and g(2, 4).denominator == 2", "assert g(1, 2) == 0.5"), "assert g(1, 2) == 1"),
    Row("datetime", "import datetime\ndef f(d, n):\n return d + datetime.timedelta(days=n)\ndef g():\n return datetime.datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=datetime.timezone.utc)\ndef h():\n return datetime.time(1, 2)", ("import datetime\nassert f(datetime.date(2024, 2, 28), 1) == datetime.date(2024, 2, 29)", "assert g().isoformat() == '2024-02-29T01:02:03.000004+00:00'", "assert h() == datetime.time(1, 2)", "assert f(datetime.datetime(2024, 1, 1), 1) - datetime.datetime(2024, 1, 1) == datetime.timedelta(1)"), "assert h() == datetime.time(1, 3)"),
    Row("Counter", "from collections import Counter\ndef f(s):\n return Counter(s)", ("assert f('aab') == {'a': 2, 'b': 1}", "from collections import Counter\nassert f('aab') == Counter('aab') and f('aab').most_common(1) == [('a', 2)]", "assert f('a')['z'] == 0"), "assert f('a') == {'a': 2}"),
    Row("defaultdict", "from collections import defaultdict\ndef f(x):\n d = defaultdict(list)\n for i in x:\n  d[i % 2].append(i)\n return d\ndef g():\n return defaultdict(lambda: 7)", ("assert f([1, 2, 3]) == {1: [1, 3], 0: [2]}", "assert f([])['x'] == []", "assert g()['x'] == 7"), "assert f([1]) == {}"),
    Row("OrderedDict and deque", "from collections import OrderedDict, deque\ndef f(x):\n return OrderedDict(x)\ndef g(x):\n return deque(x, maxlen=2)", ("from collections import OrderedDict, deque\nassert f([(2, 'a'), (1, 'b')]) == OrderedDict([(2, 'a'), (1, 'b')])", "assert g([1, 2, 3]) == deque([2, 3]) and g([1]).maxlen == 2", "assert list(g([1, 2, 3])) == [2, 3]"), "assert g([1, 2, 3]) == [2, 3]"),
    Row("ranges and dict views", "def f(n):\n return range(n)\ndef g(d):\n return d.keys()\ndef h(d):\n return d.values()\ndef i(d):\n return d.items()", ("assert f(3) == range(3) and list(f(2)) == [0, 1]", "assert g({1: 2}) == {1} and list(h({1: 2})) == [2] and sorted(i({1: 2})) == [(1, 2)]"), "assert f(3) == [0, 1, 2]"),
    Row("subclasses of builtins", "class Celsius(float):\n pass\nclass Name(str):\n def shout(self):\n  return self.upper() + '!'\nclass Bag(dict):\n def total(self):\n  return sum(self.values())\ndef f():\n return Celsius(1.5)\ndef g():\n return Name('a')\ndef h():\n return Bag(a=1)", ("assert f() == 1.5 and f() + 1 == 2.5", "assert g() == 'a' and g().shout() == 'A!'", "assert h() == {'a': 1} and h().total() == 1"), "assert g() == 'b'"),
    Row("enums", "import enum\nclass Color(enum.Enum):\n RED = 1\n BLUE = 2\nclass Level(enum.IntEnum):\n LOW = 1\ndef f(n):\n return Color(n)\ndef g():\n return Level.LOW", ("assert f(1) == Color.RED and f(1) is Color.RED", "assert f(2) != Color.RED and f(2).name == 'BLUE' and f(2).value == 2", "assert g() == 1", "assert len(Color) == 2 and [c.name for c in Color] == ['RED', 'BLUE']"), "assert f(1) == Color.BLUE"),
    Row("types returned", "def f(x):\n return type(x)\ndef g():\n return max", ("assert f(1) is int and f([]) == list", "assert g()(1, 2) == 2", "from collections import Counter\nassert f(Counter()) is Counter"), "assert f(1) is float"),
    Row("None, Ellipsis, slices", "def f():\n pass\ndef g():\n return ...\ndef h(x):\n return x[1:]", ("assert f() is None and f() == None", "assert g() is ...", "assert h('abc') == 'bc'"), "assert f() == 0"),
    Row("prints", "print('loading')\ndef f(x):\n print('x is', x)\n return x", ("assert f(1) == 1", "assert f('a') == 'a'"), "assert f(1) == 2"),
    Row("input not needed", "if __name__ == '__main__':\n print(f(int(input())))\ndef f(x):\n return x", ("assert f(1) == 1",), "assert f(1) == 2"),
    Row("threads", "import threading\nfrom concurrent.futures import ThreadPoolExecutor\ndef f(n):\n out = []\n ts = [threading.Thread(target=out.append, args=(i,)) for i in range(n)]\n [t.start() for t in ts]\n [t.join() for t in ts]\n return sorted(out)\ndef g(n):\n with ThreadPoolExecutor(4) as pool:\n  return list(pool.map(lambda i: i * i, range(n)))", ("assert f(8) == list(range(8))", "assert g(3) == [0, 1, 4]"), "assert g(3) == [0, 1, 5]"),
    Row("asyncio", "import asyncio\nasync def work(x):\n await asyncio.sleep(0)\n return x * 2\ndef f(x):\n return asyncio.run(work(x))", ("assert f(2) == 4",), "assert f(2) == 5"),
    Row("tempfile", "import os, tempfile\ndef f(s):\n with tempfile.NamedTemporaryFile('w+') as t:\n  t.write(s)\n  t.seek(0)\n  return t.read()\ndef g():\n with tempfile.TemporaryDirectory() as d:\n  p = os.path.join(d, 'a')\n  open(p, 'w').write('x')\n  return os.listdir(d)", ("assert f('hi') == 'hi'", "assert g() == ['a']"), "assert f('hi') == ''"),
    Row("lazy standard library imports", "def f():\n import colorsys, sqlite3, zlib, xml.etree.ElementTree as et, difflib, secrets, zoneinfo\n db = sqlite3.connect(':memory:')\n return db.execute('select 1 + 1').fetchone()[0], zlib.decompress(zlib.compress(b'a')), et.fromstring('<a/>').tag", ("assert f() == (2, b'a', 'a')",), "assert f() == (3, b'a', 'a')"),
    Row("recursion near the limit", "def f(n):\n return 0 if n == 0 else 1 + f(n - 1)", ("assert f(900) == 900",), "assert f(100) == 101"),
    Row("recursion limit raised", "import sys\nsys.setrecursionlimit(20000)\ndef f(n):\n return 0 if n == 0 else 1 + f(n - 1)", ("assert f(15000) == 15000",), "assert f(100) == 101"),
    Row("recursion error expected", "def f(n):\n return f(n + 1)", ("try:\n f(0)\n assert False\nexcept RecursionError:\n pass",), "try:\n f(0)\n assert False\nexcept ValueError:\n pass"),
    Row("state shared between asserts", "seen = []\ncount = 0\ndef f(x):\n global count\n count += 1\n seen.append(x)\n return len(seen)", ("assert f(1) == 1", "assert f(2) == 2", "assert count == 2", "assert seen == [1, 2]", "seen.clear()\nassert f(5) == 3 or f(5)"), "assert f(1) == 0"),
    Row("function attributes and metadata", "def f(x):\n 'Doc.'\n f.calls += 1\n return x\nf.calls = 0", ("f(1)\nassert f.calls == 1", "assert f.__name__ == 'f' and f.__doc__ == 'Doc.' and callable(f)"), "f(1)\nassert f.calls == 0"),
    Row("memoised", "import functools\n@functools.lru_cache(maxsize=None)\ndef fib(n):\n return n if n < 2 else fib(n - 1) + fib(n - 2)", ("assert fib(80) == 23416728348467685",), "assert fib(3) == 3"),
    Row("keyword and default arguments", "def f(a, *rest, b=2, **more):\n return a, rest, b, more", ("assert f(1) == (1, (), 2, {})", "assert f(1, 5, b=3, c=4) == (1, (5,), 3, {'c': 4})", "assert f(*[1, 2], **{'z': 0}) == (1, (2,), 2, {'z': 0})"), "assert f(1) == (1,)"),
    Row("named as a builtin", "def sum(a, b):\n return a * b", ("assert sum(3, 4) == 12",), "assert sum(3, 4) == 7"),
    Row("named as a helper", "def gcd(a, b):\n return b and gcd(b, a % b) or a", ("assert gcd(4, 6) == 2",), "assert gcd(4, 6) == 4"),
    Row("tests use modules the program imports", "import math\nimport re\nimport collections as c\nfrom itertools import count\ndef f(x):\n return math.sqrt(x)", ("assert math.isclose(f(2), 1.41421356, rel_tol=1e-6)", "assert c.Counter('a') == {'a': 1}", "assert re.sub('a', 'b', 'a') == 'b'"), "assert math.isclose(f(2), 1.5)"),
    Row("check function", "def f(x):\n return x + 1", ("def check(candidate):\n assert candidate(1) == 2\n for i in range(5):\n  assert candidate(i) == i + 1, 'message'\ncheck(f)",), "def check(candidate):\n assert candidate(1) == 3\ncheck(f)"),
    Row("alias of an argument's row", "def f(m):\n return m[0]", ("m = [[1], [2]]\nassert f(m) == [1] and m == [[1], [2]]",), "assert f([[1]]) == [2]"),
    Row("StringIO argument", "def f(stream):\n return stream.read().split()", ("import io\nassert f(io.StringIO('a b')) == ['a', 'b']",), "import io\nassert f(io.StringIO('a')) == []"),
    Row("linked list", "class Node:\n def __init__(self, v):\n  self.v, self.next = v, None\nclass List:\n def __init__(self):\n  self.head = None\n def add(self, v):\n  n = Node(v)\n  n.next, self.head = self.head, n\n def __iter__(self):\n  n = self.head\n  while n:\n   yield n.v\n   n = n.next", ("l = List()\nfor i in range(50):\n l.add(i)\nassert list(l) == list(range(49, -1, -1))\nassert l.head.next.v == 48", "l = List()\nl.add(3)\nassert 3 in l"), "l = List()\nl.add(1)\nassert list(l) == []"),
    Row("slots", "class P:\n __slots__ = ('x',)\n def __init__(self, x):\n  self.x = x\n def __eq__(self, o):\n  return self.x == o.x\ndef f(x):\n return P(x)", ("assert f(1) == P(1)", "assert f(1).x == 1"), "assert f(1) == P(2)"),
    Row("abstract classes", "from abc import ABC, abstractmethod\nclass Shape(ABC):\n @abstractmethod\n def area(self): ...\nclass Square(Shape):\n def __init__(self, s):\n  self.s = s\n def area(self):\n  return self.s ** 2", ("assert Square(3).area() == 9 and isinstance(Square(1), Shape) and issubclass(Square, Shape)", "try:\n Shape()\n assert False\nexcept TypeError:\n pass"), "assert Square(3).area() == 6"),
    Row("hash and dict keys", "class K:\n def __init__(self, v):\n  self.v = v\n def __eq__(self, o):\n  return self.v == o.v\n def __hash__(self):\n  return hash(self.v)", ("assert len({K(1), K(1), K(2)}) == 2", "assert {K(1): 'a'}[K(1)] == 'a'"), "assert len({K(1), K(2)}) == 1"),
    Row("random is seeded by the program", "import random\ndef f():\n random.seed(1)\n return random.randint(0, 10**9)", ("assert f() == f()",), "assert f() == -1"),
    Row("hundred thousand numbers", "def f(n):\n return list(range(n))", ("assert f(100000) == list(range(100000))",), "assert f(10) == [0]"),
]  # fmt: skip


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
