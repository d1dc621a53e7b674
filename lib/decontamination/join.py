"""All pairs of a small and a large collection of sets whose Jaccard similarity reaches a floor.

Differs from the paper in: the paper takes candidates from MinHash bands, which miss some pairs by chance. Here they
come from counting shared elements, which misses none: J(x, y) ≥ t needs |x ∩ y| ≥ α = ⌈t|x|⌉, so a set that shares
fewer elements with the whole index is dropped at once, and of the rest only elements rare in the index are counted, of
which y must hold α less the common ones in x (the prefix filter of Chaudhuri, Ganti and Kaushik 2006, with one border
for all sets in place of a sort of each). Every candidate's similarity is then computed exactly. `minhash.py` is the
paper's way.
"""

import numpy as np
import numpy.typing as npt
from scipy import sparse

from lib.decontamination.shingles import HASH_BITS, I64, U64, Sets

PAIRS_AT_ONCE = 1 << 15
COMMON_PART = 0.5  # of α, on average, that may be common elements and go uncounted
SLOTS_EACH = 8  # slots of the look-up table per element, so that few share one
Matches = tuple[I64, I64, npt.NDArray[np.float64]]


class Index:
    """The smaller collection, indexed by element."""

    def __init__(self, sets: Sets, floor: float) -> None:
        if not 0 < floor <= 1:
            raise ValueError(f"floor={floor}: it should be above 0 and at most 1")
        self.floor = floor
        self.sizes = sets.sizes
        vocabulary, elements, frequency = np.unique(sets.values, return_inverse=True, return_counts=True)
        self._table = _Table(vocabulary)
        self._width = max(1, len(vocabulary))
        self._common = _common(frequency, COMMON_PART * floor)
        rare = ~self._common[elements]
        self._by_set = _matrix(sets.rows, elements, (len(sets), self._width))
        rare_only = _matrix(sets.rows[rare], elements[rare], (len(sets), self._width))
        self._by_rare_element = sparse.csr_array(rare_only.T)

    def match(self, batch: Sets) -> Matches:
        """(set of the batch, set of the index, Jaccard) for every pair that reaches the floor."""
        sizes, rows = batch.sizes, batch.rows
        needed = np.maximum(1, np.ceil(self.floor * sizes - 1e-9).astype(np.int64))
        places = self._table.find(batch.values)
        known = places >= 0
        possible = np.bincount(rows[known], minlength=len(batch)) >= needed
        known &= possible[rows]
        rows, elements = rows[known], places[known]
        full = _matrix(rows, elements, (len(batch), self._width))
        common = self._common[elements]
        needed_rare = needed - np.bincount(rows[common], minlength=len(batch))
        pairs = self._sharing(rows[~common], elements[~common], needed_rare)
        mostly_common = np.flatnonzero(possible & (needed_rare < 1))
        if len(mostly_common):
            pairs = _joined(pairs, self._sharing_any(full, mostly_common, needed))
        return self._verified(full, sizes, *pairs)

    def _sharing(self, rows: I64, elements: I64, needed: I64) -> tuple[I64, I64]:
        """Pairs that share enough rare elements."""
        counts = sparse.coo_array(_matrix(rows, elements, (len(needed), self._width)) @ self._by_rare_element)
        enough = (counts.data >= needed[counts.row]) & (needed[counts.row] >= 1)
        return counts.row[enough].astype(np.int64), counts.col[enough].astype(np.int64)

    def _sharing_any(self, full: sparse.csr_array, some: I64, needed: I64) -> tuple[I64, I64]:
        """Pairs of a few sets, all elements counted."""
        counts = sparse.coo_array(full[some] @ self._by_set.T)
        enough = counts.data >= needed[some[counts.row]]
        return some[counts.row[enough]], counts.col[enough].astype(np.int64)

    def _verified(self, full: sparse.csr_array, sizes: I64, rows: I64, columns: I64) -> Matches:
        scores = np.zeros(len(rows))
        for start in range(0, len(rows), PAIRS_AT_ONCE):
            part = slice(start, start + PAIRS_AT_ONCE)
            both = full[rows[part]].multiply(self._by_set[columns[part]]).sum(axis=1)
            scores[part] = both / (sizes[rows[part]] + self.sizes[columns[part]] - both)
        keep = scores >= self.floor - 1e-12
        return rows[keep], columns[keep], scores[keep]


class _Table:
    """Where a value stands among sorted ones: a slot for the leading bits, then a short walk."""

    def __init__(self, values: U64) -> None:
        bits = max(1, min(28, int(len(values) * SLOTS_EACH).bit_length()))
        self._shift = HASH_BITS - np.uint64(bits)
        self._values = np.append(values, np.uint64(1 << 63))  # no hash has that bit
        self._starts = np.searchsorted(values, np.arange(1 << bits, dtype=np.uint64) << self._shift).astype(np.int32)
        slots = (values >> self._shift).astype(np.int64)
        self._longest = int(np.bincount(slots).max()) if len(values) else 1

    def find(self, values: U64) -> I64:
        """The place of each value, −1 for one that is not there."""
        places = self._starts[(values >> self._shift).astype(np.int64)].astype(np.int64)
        for _ in range(self._longest - 1):
            behind = np.flatnonzero(self._values[places] < values)
            if not len(behind):
                break
            places[behind] += 1
        places[self._values[places] != values] = -1
        return places


def _common(frequency: I64, part: float) -> npt.NDArray[np.bool_]:
    """The most frequent elements that together make up `part` of all occurrences; elements of one set are rare."""
    order = np.argsort(-frequency, kind="stable")
    within = np.cumsum(frequency[order]) <= part * frequency.sum()
    common = np.zeros(len(frequency), dtype=bool)
    common[order[within]] = True
    return common & (frequency > 1)


def _matrix(rows: I64, columns: I64, shape: tuple[int, int]) -> sparse.csr_array:
    """A 0/1 matrix from entries grouped by row."""
    pointers = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=shape[0]))))
    return sparse.csr_array((np.ones(len(rows), dtype=np.int32), columns, pointers), shape=shape)


def _joined(first: tuple[I64, I64], second: tuple[I64, I64]) -> tuple[I64, I64]:
    return np.concatenate((first[0], second[0])), np.concatenate((first[1], second[1]))


def jaccard_floor(score: float, margin: float) -> float:
    """`score` lowered by `margin`, never below a hundredth."""
    return max(0.01, round(score - margin, 9))
