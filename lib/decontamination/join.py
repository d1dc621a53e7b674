"""All pairs of a small and a large collection of sets whose Jaccard similarity reaches a floor.

Differs from the paper in: the paper takes candidates from MinHash bands, which miss some pairs by chance. Here they
come from a prefix filter, which misses none (Chaudhuri, Ganti and Kaushik 2006; Bayardo, Ma and Srikant 2007): if
J(x, y) ≥ t then |x ∩ y| ≥ α = ⌈t|x|⌉, so any |x| − α + m elements of x hold at least m of y. The rarest are looked up.
Every candidate's similarity is then computed exactly. `minhash.py` is the paper's way.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy import sparse

from lib.decontamination.shingles import I64, U64, Sets

PAIRS_AT_ONCE = 1 << 15
SHARED_PART = 0.25  # m = a quarter of α: longer prefixes, far fewer candidates
Matches = tuple[I64, I64, npt.NDArray[np.float64]]


class Index:
    """The smaller collection, indexed by its elements from the rarest to the most common."""

    def __init__(self, sets: Sets, floor: float) -> None:
        if not 0 < floor <= 1:
            raise ValueError(f"floor={floor}: it should be above 0 and at most 1")
        self.floor = floor
        self.sizes = sets.sizes
        vocabulary, inverse, frequency = np.unique(sets.values, return_inverse=True, return_counts=True)
        by_rarity = np.argsort(frequency, kind="stable")
        rank = np.empty(len(by_rarity), dtype=np.int64)
        rank[by_rarity] = np.arange(len(by_rarity))
        self._vocabulary, self._rank = vocabulary, rank
        shape = (len(sets), max(1, len(vocabulary)))
        ones = np.ones(len(sets.values), dtype=np.int32)
        self._by_set = sparse.csr_array((ones, (sets.rows, rank[inverse])), shape=shape)
        self._by_element = sparse.csr_array(self._by_set.T)

    def match(self, batch: Sets) -> Matches:
        """(set of the batch, set of the index, Jaccard) for every pair that reaches the floor."""
        known, ranks = self._look_up(batch.values)
        rows = batch.rows[known]
        by_row, order = _csr(rows, ranks, (len(batch), self._by_set.shape[1]))
        needed = np.ceil(self.floor * batch.sizes - 1e-9).astype(np.int64)
        shared = np.maximum(1, (SHARED_PART * needed).astype(np.int64))
        unknown = batch.sizes - np.diff(by_row.indptr)
        prefix = batch.sizes - needed + shared - unknown  # unknown elements are the rarest of all
        heads = _heads(by_row, prefix)
        counts = sparse.coo_array(heads @ self._by_element)
        enough = counts.data >= shared[counts.row]
        return self._verified(by_row, batch.sizes, counts.row[enough], counts.col[enough])

    def _look_up(self, values: U64) -> tuple[npt.NDArray[np.bool_], I64]:
        """Which values the index knows, and the ranks of those."""
        if not len(self._vocabulary):
            return np.zeros(len(values), dtype=bool), np.zeros(0, np.int64)
        at = np.minimum(np.searchsorted(self._vocabulary, values), len(self._vocabulary) - 1)
        known = self._vocabulary[at] == values
        return known, self._rank[at[known]]

    def _verified(self, by_row: sparse.csr_array, sizes: I64, rows: I64, columns: I64) -> Matches:
        scores = np.zeros(len(rows))
        for start in range(0, len(rows), PAIRS_AT_ONCE):
            part = slice(start, start + PAIRS_AT_ONCE)
            both = by_row[rows[part]].multiply(self._by_set[columns[part]]).sum(axis=1)
            scores[part] = both / (sizes[rows[part]] + self.sizes[columns[part]] - both)
        keep = scores >= self.floor - 1e-12
        return rows[keep].astype(np.int64), columns[keep].astype(np.int64), scores[keep]


def _csr(rows: I64, columns: I64, shape: tuple[int, int]) -> tuple[sparse.csr_array, I64]:
    """A 0/1 matrix whose rows list their columns in ascending order."""
    order = np.argsort((rows << 40) | columns)
    pointers = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=shape[0]))))
    ones = np.ones(len(rows), dtype=np.int32)
    return sparse.csr_array((ones, columns[order], pointers), shape=shape), order


def _heads(matrix: sparse.csr_array, lengths: I64) -> sparse.csr_array:
    """The first `lengths[i]` entries of each row i."""
    sizes = np.diff(matrix.indptr)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(len(rows)) - matrix.indptr[:-1][rows]
    keep = place < lengths[rows]
    pointers = np.concatenate(([0], np.cumsum(np.bincount(rows[keep], minlength=len(sizes)))))
    return sparse.csr_array((matrix.data[keep], matrix.indices[keep], pointers), shape=matrix.shape)


def jaccard_floor(score: float, margin: float) -> float:
    """`score` lowered by `margin`, never below a hundredth."""
    return max(0.01, math.floor((score - margin) * 1e9) / 1e9)
