"""How many samples are worth it: success against K, from one pool of draws.

Pr(at least one winner in K) = 1 − (1 − p)^K;  K for confidence 1 − δ: ceil(ln δ / ln(1 − p)).
"""

import math
from collections.abc import Sequence

import numpy

from lib.estimators import pass_at_k


def success_in(p: float, k: int) -> float:
    """Pr(≥ 1 winner in k draws) = 1 − (1 − p)^k."""
    return -math.expm1(k * math.log1p(-p)) if p < 1 else 1.0


def draws_for_confidence(p: float, delta: float) -> int:
    """The smallest K with Pr(≥ 1 winner in K) ≥ 1 − δ: ceil(ln δ / ln(1 − p)).

    Raises ValueError unless 0 < p ≤ 1 and 0 < δ < 1.
    """
    if not 0 < p <= 1 or not 0 < delta < 1:
        raise ValueError(f"p={p}, delta={delta}: should be 0 < p ≤ 1 and 0 < delta < 1")
    return 1 if p == 1 else max(1, math.ceil(math.log(delta) / math.log1p(-p)))


def expected_solved(passed: "numpy.ndarray", ks: Sequence[int]) -> list[float]:
    """Expected number of tasks solved with k draws, for each k: Σ_tasks 1 − C(n−c,k)/C(n,k). `passed`: (tasks, n) bool."""
    draws = passed.shape[1]
    return [float(sum(pass_at_k(draws, int(c), k) for c in passed.sum(axis=1))) for k in ks]
