"""Sets of shingles as flat arrays: character n-grams, computed for a whole batch of texts at once."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

ROW_BITS = 14  # a batch holds at most 2^14 sets; the other 50 bits of a word hold the hash
BATCH = 1 << ROW_BITS
HASH_BITS = np.uint64(64 - ROW_BITS)
_HASH_MASK = np.uint64((1 << int(HASH_BITS)) - 1)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclasses.dataclass(frozen=True)
class Sets:
    """Sets of 50-bit hashes, sorted and distinct within each: set i is values[offsets[i]:offsets[i + 1]]."""

    values: U64
    offsets: I64

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> I64:
        """The number of values in each set."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> I64:
        """The set each value belongs to."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def at_least(self, size: int) -> "Sets":
        """The same sets, with those of fewer than `size` values emptied."""
        keep = self.sizes >= size
        return Sets(self.values[keep[self.rows]], np.concatenate(([0], np.cumsum(np.where(keep, self.sizes, 0)))))

    def grams(self) -> "Grams":
        """The same values as rows and hashes."""
        return Grams(self.values, self.rows, len(self))


@dataclasses.dataclass(frozen=True)
class Grams:
    """50-bit hashes with the row each belongs to, rows ascending, repeats and all."""

    hashes: U64
    rows: I64
    count: int

    def where(self, keep: npt.NDArray[np.bool_]) -> "Grams":
        """The grams that a mask keeps."""
        return Grams(self.hashes[keep], self.rows[keep], self.count)

    def distinct(self) -> Sets:
        """Distinct hashes a row: row number and hash are sorted as one word. Raises ValueError for too
        many rows.
        """
        if self.count > BATCH:
            raise ValueError(f"{self.count} sets in one batch; at most {BATCH} fit")
        keys = (self.rows.astype(np.uint64) << HASH_BITS) | self.hashes
        keys.sort()
        keep = np.ones(len(keys), dtype=bool)
        np.not_equal(keys[1:], keys[:-1], out=keep[1:])
        keys = keys[keep]
        sizes = np.bincount((keys >> HASH_BITS).astype(np.int64), minlength=self.count)
        return Sets(keys & _HASH_MASK, np.concatenate(([0], np.cumsum(sizes))))


def mixed(values: U64) -> U64:
    """splitmix64's finaliser, cut to 50 bits: close inputs to unrelated outputs."""
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return (values ^ (values >> np.uint64(31))) & _HASH_MASK


def character_ngrams(texts: Sequence[str], n: int) -> Grams:
    """The character n-grams of each text; a text shorter than n is one shingle, an empty one none.

    A gram of code points c is hashed as mix(Σ cᵢ·B^(n−1−i) mod 2^64).
    """
    padded = [text.ljust(n, "\0") if text else "" for text in texts]
    widths = np.fromiter(map(len, padded), dtype=np.int64, count=len(padded))
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    if len(codes) == 0:
        return Grams(np.zeros(0, np.uint64), np.zeros(0, np.int64), len(texts))
    base = np.uint64(0x100000001B3)
    hashes = np.zeros(len(codes) - n + 1, dtype=np.uint64)
    for i in range(n):
        hashes = hashes * base + codes[i : len(codes) - n + 1 + i]
    whole = np.ones(len(codes), dtype=bool)  # does a gram that starts here end in the same text?
    ends = np.cumsum(widths)[widths > 0]
    for i in range(1, n):
        whole[ends - i] = False
    rows = np.repeat(np.arange(len(texts)), np.maximum(widths - n + 1, 0))
    return Grams(mixed(hashes[whole[: len(hashes)]]), rows, len(texts))


def concatenate(batches: Sequence[Sets]) -> Sets:
    """Batches as one; the result may hold more sets than a batch may."""
    sizes = np.concatenate([batch.sizes for batch in batches]) if batches else np.zeros(0, np.int64)
    values = np.concatenate([batch.values for batch in batches]) if batches else np.zeros(0, np.uint64)
    return Sets(values, np.concatenate(([0], np.cumsum(sizes))))
