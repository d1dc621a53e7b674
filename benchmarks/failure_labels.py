"""How well labels by rules agree with labels by reading: the shipped labels, Cohen's kappa, the confusion matrix."""

import collections
import csv
import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy
import pandas

from lib.base.files import ROOT
from lib.evaluation.failures.taxonomy import POLYCODE_TYPES, TROOPERS_TYPES, Label
from lib.evaluation.scores import NO_TYPE

TROOPERS_CLASSES = (*map(str, TROOPERS_TYPES), NO_TYPE)
HALVES = ("develop", "held-out")
SHIPPED = ROOT / "data" / "failure_labels.csv"


@dataclasses.dataclass(frozen=True)
class Read:
    """One program's labels by reading: two passes, and what was settled on. `sha256` is of the program."""

    task_id: str
    sha256: str
    half: str
    troopers_type_1: str
    polycode_type_1: str
    troopers_type_2: str
    polycode_type_2: str
    troopers_type: str
    polycode_type: str
    note: str


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Cohen's κ with its asymptotic 95 % interval, and the confusion matrix: rows by reading, columns by rules.

    A matrix without errors, or with one class, leaves no variance: the interval is then the point itself and says
    nothing.
    """

    kappa: float
    lo: float
    hi: float
    confusion: pandas.DataFrame

    @property
    def total(self) -> int:
        """How many programs were compared."""
        return int(self.confusion.to_numpy().sum())

    @property
    def agreed(self) -> int:
        """On how many both sides say the same."""
        return int(numpy.trace(self.confusion.to_numpy()))

    def per_class(self) -> pandas.DataFrame:
        """Precision and recall of the rules, class by class; nan where a class never occurs on that side."""
        table = self.confusion.to_numpy().astype(float)
        right, read, ruled = numpy.diag(table), table.sum(axis=1), table.sum(axis=0)
        with numpy.errstate(invalid="ignore"):
            columns = {"precision": right / ruled, "recall": right / read, "read": read, "ruled": ruled}
        return pandas.DataFrame(columns, index=self.confusion.index)


def read_labels(path: str | Path = SHIPPED) -> list[Read]:
    """The labels of a csv. Raises ValueError naming file, row, value and what would be right."""
    wanted = [field.name for field in dataclasses.fields(Read)]
    with Path(path).open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines)
        if rows.fieldnames != wanted:
            raise ValueError(f"{path}: columns {rows.fieldnames}, should be {wanted}")
        labels = [_checked(Read(**row), f"{path}, row {number}") for number, row in enumerate(rows, 1)]
    if twice := {label.task_id for label in labels if sum(other.task_id == label.task_id for other in labels) > 1}:
        raise ValueError(f"{path}: task_id {min(twice)!r} occurs twice; one row a program")
    return labels


def _checked(label: Read, where: str) -> Read:
    known = {"troopers_type": TROOPERS_CLASSES, "polycode_type": POLYCODE_TYPES, "half": HALVES}
    for name, value in dataclasses.asdict(label).items():
        allowed = known.get(name.removesuffix("_1").removesuffix("_2"))
        if allowed and value not in allowed:
            raise ValueError(f"{where}: {name} is {value!r}, should be one of {', '.join(allowed)}")
    return label


def agreement(read: Sequence[str], ruled: Sequence[str], classes: Sequence[str]) -> Agreement:
    """κ = (p_o − p_e) / (1 − p_e) of two labellings of the same programs; nan where all are in one class.

    Raises ValueError for no programs, for sides of different length and for a label that is no class.
    """
    from statsmodels.stats.inter_rater import cohens_kappa

    if not read or len(read) != len(ruled):
        raise ValueError(f"{len(read)} labels by reading and {len(ruled)} by rules: equally many, and at least 1")
    if strange := (set(read) | set(ruled)) - set(classes):
        raise ValueError(f"label {min(strange)!r} is none of {', '.join(classes)}")
    places = {name: place for place, name in enumerate(classes)}
    table = numpy.zeros((len(classes), len(classes)), dtype=int)
    numpy.add.at(table, ([places[name] for name in read], [places[name] for name in ruled]), 1)
    confusion = pandas.DataFrame(table, index=list(classes), columns=list(classes))
    if numpy.count_nonzero(table.sum(axis=0) + table.sum(axis=1)) == 1:
        return Agreement(numpy.nan, numpy.nan, numpy.nan, confusion)
    found = cohens_kappa(table)
    return Agreement(float(found.kappa), float(found.kappa_low), float(min(found.kappa_upp, 1.0)), confusion)


@dataclasses.dataclass(frozen=True)
class Counts:
    """How many failures have each label; categories that never occur count 0."""

    total: int
    troopers: dict[int | None, int]
    polycode: dict[str, int]
    rules: dict[str, int]


def tally(labels: Iterable[Label]) -> Counts:
    """Count labels in both taxonomies, and of rules, most frequent first."""
    found = list(labels)
    troopers = collections.Counter(label.troopers_type for label in found)
    polycode = collections.Counter(label.polycode_type for label in found)
    rules = collections.Counter(label.rule for label in found)
    return Counts(
        len(found),
        {kind: troopers[kind] for kind in (None, *TROOPERS_TYPES)},
        {kind: polycode[kind] for kind in POLYCODE_TYPES},
        dict(rules.most_common()),
    )
