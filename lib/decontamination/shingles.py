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
        return np.diff(self.offsets)

    @property
    def rows(self) -> I64:
        """The set each value belongs to."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def at_least(self, size: int) -> "Sets":
        """The same sets, with those of fewer than `size` values emptied."""
        keep = self.sizes >= size
        return Sets(self.values[keep[self.rows]], np.concatenate(([0], np.cumsum(np.where(keep, self.sizes, 0)))))


def mixed(values: U64, salt: int) -> U64:
    """splitmix64's finaliser: close inputs to unrelated outputs."""
    values = values + np.uint64((salt * 0x9E3779B97F4A7C15 + 0x1234567) % (1 << 64))
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))


def sets_of(hashes: U64, rows: I64, count: int) -> Sets:
    """Distinct hashes per row, as Sets of `count` rows. Sorts row number and hash as one word."""
    if count > BATCH:
        raise ValueError(f"{count} sets in one batch; at most {BATCH} fit")
    keys = (rows.astype(np.uint64) << HASH_BITS) | (hashes >> np.uint64(ROW_BITS))
    keys.sort()
    keep = np.ones(len(keys), dtype=bool)
    np.not_equal(keys[1:], keys[:-1], out=keep[1:])
    keys = keys[keep]
    sizes = np.bincount((keys >> HASH_BITS).astype(np.int64), minlength=count)
    values = keys & np.uint64((1 << int(HASH_BITS)) - 1)
    return Sets(values, np.concatenate(([0], np.cumsum(sizes))))


def character_ngrams(texts: Sequence[str], n: int, salt: int = 0) -> Sets:
    """The set of character n-grams of each text; a text shorter than n is one shingle, an empty one none.

    A gram of code points c is hashed as mix(Σ cᵢ·B^(n−1−i)) mod 2^64.
    """
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    padded = [text.ljust(n, "\0") if text else "" for text in texts]
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    if len(codes) == 0:
        return Sets(np.zeros(0, np.uint64), np.zeros(len(texts) + 1, np.int64))
    base = np.uint64(0x100000001B3)
    hashes = np.zeros(len(codes) - n + 1, dtype=np.uint64)
    for i in range(n):
        hashes = hashes * base + codes[i : len(codes) - n + 1 + i]
    widths = np.where(lengths > 0, np.maximum(lengths, n), 0)
    rows = np.repeat(np.arange(len(texts)), widths)
    left = np.repeat(np.cumsum(widths), widths) - np.arange(len(codes))  # characters to the end of the text
    whole = left[: len(hashes)] >= n
    return sets_of(mixed(hashes[whole], salt), rows[: len(hashes)][whole], len(texts))


def concatenate(batches: Sequence[Sets]) -> Sets:
    """Batches as one; the result may hold more sets than a batch may."""
    sizes = np.concatenate([batch.sizes for batch in batches]) if batches else np.zeros(0, np.int64)
    values = np.concatenate([batch.values for batch in batches]) if batches else np.zeros(0, np.uint64)
    return Sets(values, np.concatenate(([0], np.cumsum(sizes))))
