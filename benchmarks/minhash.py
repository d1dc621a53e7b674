"""The paper's way to candidates: the bands of MinHash signatures, chosen to miss hardly any pair."""

PERMUTATIONS = 128
MISS = 1e-4  # the chance to miss a pair right at the floor that the bands are chosen for


def bands(floor: float) -> tuple[int, int]:
    """Return (bands b, rows r): the longest rows for which a pair at the floor is missed with (1 − floor^r)^b ≤ MISS.

    One row per band, the most sensitive there is, where none is.
    """
    for rows in range(PERMUTATIONS // 2, 0, -1):
        if (1 - floor**rows) ** (PERMUTATIONS // rows) <= MISS:
            return PERMUTATIONS // rows, rows
    return PERMUTATIONS, 1
