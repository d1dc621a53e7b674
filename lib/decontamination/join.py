"""All pairs of a small and a large collection of sets whose Jaccard similarity reaches a floor.

Differs from the paper in: the paper takes candidates from MinHash bands. Here they come from counting shared
elements: J(x, y) ≥ t needs |x ∩ y| ≥ t|x|, and t/(1 + t)·(|x| + |y|). Counting all of them misses no pair. A
large x is counted on the elements whose hash ends in k zero bits, a 2^−k sample of them (as in FracMinHash;
Irber et al. 2022), and has to reach the bound less SIGMAS standard deviations there, which a pair at the
floor fails with a probability below 1e-9. Every candidate's similarity is then computed exactly, on all
elements. `minhash.py` is the paper's way.
"""

import numpy as np
import numpy.typing as npt
from scipy import sparse

from lib.decontamination.shingles import I64, Grams, Sets

PAIRS_AT_ONCE = 1 << 15
SAMPLE_SIZE = 64  # a set is halved until it is no larger than twice this
MOST_HALVINGS = 12
SIGMAS = 6.0
Matches = tuple[I64, I64, npt.NDArray[np.float64]]


class Index:
    """The smaller collection, indexed by element."""

    def __init__(self, sets: Sets, floor: float) -> None:
        if not 0 < floor <= 1:
            raise ValueError(f"floor={floor}: it should be above 0 and at most 1")
        self.floor = floor
        self.sizes = sets.sizes
        vocabulary, elements = np.unique(sets.values, return_inverse=True)
        self._vocabulary = np.append(vocabulary, np.uint64(1 << 63))  # no hash has that bit
        self._by_set = _matrix(sets.rows, elements, (len(sets), max(1, len(vocabulary))))
        self._by_element = sparse.csr_array(self._by_set.T)

    def match(self, batch: Grams) -> Matches:
        """(row of the batch, set of the index, Jaccard) for every pair that reaches the floor."""
        rows, columns = self._candidates(batch)
        if not len(rows):
            return rows, columns, np.zeros(0)
        wanted = np.zeros(batch.count, dtype=bool)
        wanted[rows] = True
        sets = batch.where(wanted[batch.rows]).distinct()
        return self._verified(self._known(sets), sets.sizes, rows, columns)

    def _known(self, sets: Sets) -> sparse.csr_array:
        """The sets as rows over the index's elements; elements it does not know are left out."""
        places = np.searchsorted(self._vocabulary[:-1], sets.values)
        known = self._vocabulary[places] == sets.values
        return _matrix(sets.rows[known], places[known], (len(sets), self._by_set.shape[1]))

    def _candidates(self, batch: Grams) -> tuple[I64, I64]:
        """Pairs that share enough of what is counted."""
        lengths = np.bincount(batch.rows, minlength=batch.count)  # with repeats: at least the set's size
        halvings = _halvings(lengths)
        if halvings.any():
            ending = (np.uint64(1) << halvings.astype(np.uint64)) - np.uint64(1)
            batch = batch.where((batch.hashes & ending[batch.rows]) == 0)
        sets = batch.distinct()
        sampled = halvings > 0
        known = self._known(sets)
        least = _needed(sets.sizes, np.full(batch.count, self.floor), sampled)
        possible = np.flatnonzero(np.diff(known.indptr) >= least)
        counts = sparse.coo_array(known[possible] @ self._by_element)
        rows, columns = possible[counts.row], counts.col.astype(np.int64)
        enough = counts.data >= least[rows]
        rows, columns, shared = rows[enough], columns[enough], counts.data[enough]
        share = self.floor / (1 + self.floor) * (1 + self.sizes[columns] / lengths[rows])
        enough = shared >= _needed(sets.sizes[rows], np.clip(share, self.floor, 1), sampled[rows])
        return rows[enough], columns[enough]

    def _verified(self, full: sparse.csr_array, sizes: I64, rows: I64, columns: I64) -> Matches:
        scores = np.zeros(len(rows))
        for start in range(0, len(rows), PAIRS_AT_ONCE):
            part = slice(start, start + PAIRS_AT_ONCE)
            both = full[rows[part]].multiply(self._by_set[columns[part]]).sum(axis=1)
            scores[part] = both / (sizes[rows[part]] + self.sizes[columns[part]] - both)
        keep = scores >= self.floor - 1e-12
        return rows[keep], columns[keep], scores[keep]


def _halvings(sizes: I64) -> I64:
    """How often a set of that size is halved for counting: k with size / 2^k ≤ 2·SAMPLE_SIZE."""
    ratio = np.maximum(sizes, 1) / (2 * SAMPLE_SIZE)
    halvings: I64 = np.clip(np.ceil(np.log2(ratio)), 0, MOST_HALVINGS).astype(np.int64)
    return halvings


def _needed(counted: I64, share: npt.NDArray[np.float64], sampled: npt.NDArray[np.bool_]) -> I64:
    """⌈share·n⌉ of the n elements counted, less the sampling error where it applies."""
    spread = SIGMAS * np.sqrt(counted * share * (1 - share)) * sampled
    needed: I64 = np.maximum(1, np.ceil(share * counted - spread - 1e-9)).astype(np.int64)
    return needed


def _matrix(rows: I64, columns: I64, shape: tuple[int, int]) -> sparse.csr_array:
    """A 0/1 matrix from entries grouped by row."""
    pointers = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=shape[0]))))
    return sparse.csr_array((np.ones(len(rows), dtype=np.int32), columns, pointers), shape=shape)
