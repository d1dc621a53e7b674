"""Recall and precision on planted overlaps in six languages, and speed against sketching libraries at one
set of thresholds.

    python benchmarks/decontamination.py [--quick] [--json] [--pairs N] [--documents N] [--sizes N,N,N]

Planted: random programs, each disguised by a new set of names, a new order of functions, other literals, a
paraphrased or a translated comment; and as many unrelated programs, every match of which is a false one.
Speed: documents of random words, one in a hundred a copy of an evaluation document with some words replaced.
Both sides start from the same canonical texts and are timed in CPU seconds. datasketch runs twice: as its
documentation shows it, and with bands as sensitive as its recall has to be to equal ours. rensa (Rust) and
FastSketchLSH (C++), where installed, get the sensitive bands and shingles as Python strings, as datasketch does.
Growth: each size in a process of its own, tasks streaming by; making the documents is not timed.
"""

import argparse
import functools
import importlib.util
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasketch import MinHash, MinHashLSH

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import show, spread  # noqa: E402
from benchmarks.minhash import PERMUTATIONS, bands  # noqa: E402
from benchmarks.planting import SYNTAXES, planted_sides, score_planted  # noqa: E402
from lib.decontamination import screen  # noqa: E402
from lib.decontamination.canonical import Headers  # noqa: E402
from lib.decontamination.screen import PROMPT_NGRAM, Item, Screen, Thresholds, item_of, items_of  # noqa: E402
from lib.tasks.task import Task  # noqa: E402

Row = dict[str, Any]
Query = Callable[[set[str]], Iterable[int]]  # a document's shingles -> numbers of evaluation documents like it


def row(name: str, value: float, unit: str) -> Row:
    """One line of the result."""
    return {"name": name, "value": float(f"{value:.6g}"), "unit": unit}


# ----------------------------------------------------------------------------------------- planted overlaps


def planted(language: str, pairs: int) -> Iterator[Row]:
    """Recall and precision of the screen on the planted sides of one language."""
    train, evaluation = planted_sides(language, pairs)
    excluded = screen(train, evaluation).excluded
    found = score_planted(pairs, ((match.train.id, match.evaluation.id) for match in excluded))
    yield row(f"planted {language}: recall over {pairs}", found.recall, "of 1")
    yield row(f"planted {language}: precision against {pairs} clean", found.precision, "of 1")
    for kind, recall in found.by_kind.items():
        yield row(f"planted {language}: recall, {kind}", recall, "of 1")


# ---------------------------------------------------------------------------------------------------- speed


class Words:
    """Documents of words drawn by Zipf's law from a vocabulary of 20,000."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
        self.vocabulary = ["".join(self.rng.choice(letters, size)) for size in self.rng.integers(2, 11, 20_000)]
        share = 1 / np.arange(1, len(self.vocabulary) + 1)
        self.share = np.cumsum(share / share.sum())

    def documents(self, count: int, words: int = 100) -> Iterator[str]:
        for start in range(0, count, 4096):
            drawn = np.searchsorted(self.share, self.rng.random((min(4096, count - start), words)))
            for line in np.minimum(drawn, len(self.vocabulary) - 1).tolist():
                yield " ".join(map(self.vocabulary.__getitem__, line))

    def copies(self, originals: Sequence[str], count: int) -> Iterator[str]:
        """Originals with 1 to 12 words replaced."""
        fresh = self.documents(count)
        for i, other in enumerate(fresh):
            words, others = originals[i % len(originals)].split(" "), other.split(" ")
            for place in self.rng.choice(len(words), int(self.rng.integers(1, 13)), replace=False):
                words[place] = others[place]
            yield " ".join(words)


def collection(documents: int, evaluation: int, seed: int = 0) -> tuple[Callable[[], Iterator[str]], list[str]]:
    """A function that gives the training documents anew, and the evaluation documents."""
    originals = list(Words(seed).documents(evaluation))

    def train() -> Iterator[str]:
        words = Words(seed + 1)
        copies = Words(seed + 2).copies(originals, documents // 100 + 1)
        for i, text in enumerate(words.documents(documents)):
            yield next(copies) if i % 100 == 50 else text

    return train, originals


def ours(train: Sequence[str], evaluation: Sequence[str], thresholds: Thresholds) -> set[tuple[int, int]]:
    """Pairs at or above the threshold, through the screen."""
    side = Screen([_item(i, text) for i, text in enumerate(evaluation)], thresholds)
    matches = side.matches(_item(i, text) for i, text in enumerate(train))
    return {(int(m.train.id), int(m.evaluation.id)) for m in matches if m.score >= thresholds.prompt}


def _task(number: int, text: str) -> Task:
    return Task(str(number), "words", "any", text, "en", "python", "program")


def _item(number: int, text: str) -> Item:
    return Item(str(number), text, "", "", frozenset(), (), (), (), "")


def theirs(
    train: Sequence[str], evaluation: Sequence[str], thresholds: Thresholds, index: Callable[[list[set[str]]], Query]
) -> set[tuple[int, int]]:
    """The same through a peer's sketches and bands, then the exact similarity of what they bring."""
    n = PROMPT_NGRAM
    shingles = [{text[i : i + n] for i in range(len(text) - n + 1)} for text in evaluation]
    query = index(shingles)
    pairs = set()
    for number, text in enumerate(train):
        some = {text[i : i + n] for i in range(len(text) - n + 1)}
        for other in query(some):
            both = len(some & shingles[other])
            if both / (len(some) + len(shingles[other]) - both) >= thresholds.prompt:
                pairs.add((number, other))
    return pairs


def by_datasketch(shingles: list[set[str]], **chosen: Any) -> Query:
    """datasketch's MinHash and bands."""

    def sketch(some: set[str]) -> MinHash:
        minhash = MinHash(PERMUTATIONS)
        minhash.update_batch([shingle.encode() for shingle in some])
        return minhash

    index = MinHashLSH(num_perm=PERMUTATIONS, **chosen)
    for number, some in enumerate(shingles):
        index.insert(number, sketch(some))
    return lambda some: index.query(sketch(some))


def even_bands(floor: float) -> int:
    """At least as many bands as equal recall needs, all of one length, as these two libraries want them."""
    return next(count for count in range(bands(floor)[0], PERMUTATIONS + 1) if PERMUTATIONS % count == 0)


def by_rensa(shingles: list[set[str]], floor: float) -> Query:
    """rensa's R-MinHash, in Rust, with the bands of equal recall."""
    import rensa

    def sketch(some: set[str]) -> Any:
        return rensa.RMinHash.from_token_sets([list(some)], num_perm=PERMUTATIONS, seed=1)[0]

    index = rensa.RMinHashLSH(threshold=floor, num_perm=PERMUTATIONS, num_bands=even_bands(floor))
    for number, some in enumerate(shingles):
        index.insert(number, sketch(some))
    return lambda some: index.query(sketch(some))


def by_fastsketchlsh(shingles: list[set[str]], floor: float) -> Query:
    """FastSketchLSH's similarity sketch, in C++, on one thread, with the bands of equal recall."""
    import FastSketchLSH

    sketch = FastSketchLSH.FastSimilaritySketch(size=PERMUTATIONS, seed=1)
    index = FastSketchLSH.LSH(num_perm=PERMUTATIONS, num_bands=even_bands(floor), num_threads=1)
    index.insert(sketch.batch([list(some) for some in shingles]))
    return lambda some: index.query(sketch.batch([list(some)])[0])


def peers(floor: float) -> dict[str, Callable[[list[set[str]]], Query]]:
    """The peers that are installed; datasketch twice, as its manual has it and with the bands of equal recall."""
    found: dict[str, Callable[[list[set[str]]], Query]] = {
        "datasketch, documented": functools.partial(by_datasketch, threshold=floor),
        "datasketch, equal recall": functools.partial(by_datasketch, params=bands(floor)),
    }
    for module, index in (("rensa", by_rensa), ("FastSketchLSH", by_fastsketchlsh)):
        if importlib.util.find_spec(module):
            found[f"{module}, equal recall"] = functools.partial(index, floor=floor)
        else:
            print(f"{module} is not installed and left out (pip install {module.lower()})", file=sys.stderr)
    return found


def timed(run: Callable[[], set[tuple[int, int]]]) -> tuple[set[tuple[int, int]], float]:
    """What a run gives, and its CPU seconds."""
    start = time.process_time()
    found = run()
    return found, time.process_time() - start


def speed(documents: int, evaluation: int) -> tuple[list[Row], dict[str, float], dict[str, list[float]]]:
    """Both on the same documents, half of them a turn: rows, ratios and their spread.

    The truth is what either finds, which exact scoring makes right.
    """
    thresholds = Thresholds(margin=0.0)
    make, originals = collection(documents, evaluation)
    lanes: dict[str, Callable[[Sequence[str]], set[tuple[int, int]]]] = {
        "ours": lambda train: ours(train, originals, thresholds),
    }
    for name, index in peers(thresholds.prompt).items():
        lanes[name] = functools.partial(theirs, evaluation=originals, thresholds=thresholds, index=index)
    found: dict[str, set[tuple[int, int]]] = {name: set() for name in lanes}
    seconds: dict[str, list[float]] = {name: [] for name in lanes}
    whole = list(make())
    for turn, order in enumerate((list(lanes), list(lanes)[::-1])):  # a half of the documents each
        first = turn * (documents // 2)
        train = whole[first : None if turn else documents // 2]
        for name in order:
            pairs, spent = timed(functools.partial(lanes[name], train))
            found[name] |= {(first + number, other) for number, other in pairs}
            seconds[name].append(spent)
    truth = set().union(*found.values())
    rows = [row("pairs at or above the threshold", len(truth), "pairs")]
    for name in lanes:
        rows.append(row(f"{name}: {documents} x {evaluation}", sum(seconds[name]), "CPU s"))
        rows.append(row(f"{name}: recall", len(found[name] & truth) / max(1, len(truth)), "of 1"))
    spent = {f"documents per second, ours/{name}": seconds[name] for name in list(lanes)[1:]}
    ratios = {name: round(sum(some) / sum(seconds["ours"]), 3) for name, some in spent.items()}
    return rows, ratios, {name: spread(some, seconds["ours"]) for name, some in spent.items()}


def child(documents: int, evaluation: int) -> None:
    """One size of the growth curve, tasks to matches: prints CPU seconds less those of making documents,
    and memory.
    """
    make, originals = collection(documents, evaluation)
    spent = 0.0

    def tasks() -> Iterator[Task]:
        nonlocal spent
        source = make()
        for number in itertools.count():
            start = time.process_time()
            text = next(source, None)
            spent += time.process_time() - start
            if text is None:
                return
            yield _task(number, text)

    start = time.process_time()
    side = Screen(items_of([_task(i, text) for i, text in enumerate(originals)]), Thresholds())
    headers = Headers(task.prompt for task in tasks())
    matches = sum(1 for _ in side.matches(item_of(task, headers) for task in tasks()))
    seconds = time.process_time() - start - spent
    print(json.dumps({"seconds": seconds, "mib": peak_memory(), "matches": matches}))


def peak_memory() -> float:
    """MiB this process held at most. getrusage would count what its parent held as well."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def growth(sizes: Sequence[int], evaluation: int) -> Iterator[Row]:
    """CPU seconds and peak memory of each size, and how cost per document changes from the smallest to the
    largest.
    """
    each: list[float] = []
    for size in sizes:
        command = [sys.executable, __file__, "--child", str(size), "--evaluation", str(evaluation)]
        result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        yield row(f"growth: {size} x {evaluation}", result["seconds"], "CPU s")
        yield row(f"growth: {size} x {evaluation}: peak memory", result["mib"], "MiB")
        each.append(result["seconds"] / size)
    yield row("growth: cost per document, largest to smallest size", each[-1] / each[0], "ratio")


def measure(options: argparse.Namespace) -> Row:
    """Everything, as one object."""
    rows: list[Row] = []
    for language in SYNTAXES:
        rows += planted(language, options.pairs)
    timings, ratios, between = speed(options.documents, options.evaluation)
    rows += timings
    rows += growth(options.sizes, options.evaluation)
    return {"benchmark": "decontamination", "rows": rows, "ratios": ratios, "spread": between}


def main() -> None:
    """Print a table, or with --json one JSON object."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, under a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--pairs", type=int, help="planted and clean programs a language")
    parser.add_argument("--documents", type=int, help="training documents of the comparison with datasketch")
    parser.add_argument("--evaluation", type=int, help="evaluation documents")
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], help="growth curve")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    quick = {"pairs": 120, "documents": 3_000, "evaluation": 300, "sizes": [2_000, 20_000]}
    full = {"pairs": 2_000, "documents": 100_000, "evaluation": 1_000, "sizes": [10_000, 100_000, 1_000_000]}
    for name, value in (quick if options.quick else full).items():
        setattr(options, name, getattr(options, name) or value)
    if options.child:
        child(options.child, options.evaluation)
        return
    show(measure(options), options.json)


if __name__ == "__main__":
    main()
