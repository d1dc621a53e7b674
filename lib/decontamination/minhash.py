"""The paper's way to candidates: MinHash signatures and locality-sensitive bands, through datasketch.

Offered for comparison and for two sides that are both very large. Candidates are scored exactly, so it can
only miss pairs that the exact join finds, never add any. Bands are chosen so that it rarely does.
"""

import numpy as np
from datasketch import MinHash, MinHashLSH

from lib.decontamination.join import Matches
from lib.decontamination.shingles import U64, Grams, Sets

PERMUTATIONS = 128
MISS = 1e-4  # the chance to miss a pair right at the floor that the bands are chosen for


class MinHashIndex:
    """Same interface as `join.Index`."""

    def __init__(self, sets: Sets, floor: float) -> None:
        if not 0 < floor <= 1:
            raise ValueError(f"floor={floor}: it should be above 0 and at most 1")
        self.floor = floor
        self._sets = [sets.values[start:end] for start, end in zip(sets.offsets, sets.offsets[1:], strict=False)]
        self._bands = MinHashLSH(num_perm=PERMUTATIONS, params=bands(floor))
        for number, values in enumerate(self._sets):
            if len(values):
                self._bands.insert(number, signature(values))

    def match(self, grams: Grams) -> Matches:
        """(row of the batch, set of the index, Jaccard) for the pairs the bands bring together and the
        floor admits.
        """
        batch = grams.distinct()
        found: list[tuple[int, int, float]] = []
        for row, (start, end) in enumerate(zip(batch.offsets, batch.offsets[1:], strict=False)):
            values = batch.values[start:end]
            if not len(values):
                continue
            for number in self._bands.query(signature(values)):
                both = len(np.intersect1d(values, self._sets[number], assume_unique=True))
                score = both / (len(values) + len(self._sets[number]) - both)
                if score >= self.floor - 1e-12:
                    found.append((row, number, score))
        rows, columns, scores = zip(*found, strict=True) if found else ((), (), ())
        return np.array(rows, np.int64), np.array(columns, np.int64), np.array(scores, np.float64)


def bands(floor: float) -> tuple[int, int]:
    """(bands b, rows r): the longest rows for which a pair at the floor is missed with (1 − floor^r)^b ≤
    MISS.

    One row a band, the most sensitive there is, where none is.
    """
    for rows in range(PERMUTATIONS // 2, 0, -1):
        if (1 - floor**rows) ** (PERMUTATIONS // rows) <= MISS:
            return PERMUTATIONS // rows, rows
    return PERMUTATIONS, 1


def signature(values: U64) -> MinHash:
    """The MinHash of a set of hashes; they are hashes already, so nothing hashes them again."""
    minhash = MinHash(PERMUTATIONS, hashfunc=int, scheme="affine64")
    minhash.update_batch(values.tolist())
    return minhash
