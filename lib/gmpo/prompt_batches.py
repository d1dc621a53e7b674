"""The order of prompts in a training: batches that hold similar prompts, and none that holds one kind alone."""

import random
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional


def mdav_groups(h: Tensor, size: int) -> list[list[int]]:
    """Group similar prompts: the one furthest from the mean with those nearest to it, and so on with the rest.

    That is MDAV microaggregation (Domingo-Ferrer and Mateo-Sanz 2002), one group at a time and with cosines.
    h (N, d) -> max(1, N // size) lists of indices, each of `size` or more, whose lengths differ by at most one.
    Raises ValueError for size < 1 or h that is no (N, d).
    """
    if size < 1 or h.ndim != 2:
        raise ValueError(f"size={size}, h of shape {tuple(h.shape)}: expected at least 1 and (prompts, features)")
    unit = functional.normalize(h.detach().cpu().double(), dim=1)
    rest, groups = list(range(len(unit))), list[list[int]]()
    for left in range(max(1, len(unit) // size), 0, -1):
        here = unit[rest]
        furthest = here[(here @ here.mean(0)).argmin()]
        near = (here @ furthest).argsort(descending=True, stable=True)[: len(rest) // left].tolist()
        groups.append([rest[place] for place in sorted(near)])
        rest = sorted(set(rest) - set(groups[-1]))
    return groups


def prompt_order(groups: Sequence[Sequence[int]], steps: int, size: int, seed: int) -> list[int]:
    """Return `steps` batches of `size` indices: laps over all, group members side by side, none twice in a batch.

    Groups and members are shuffled anew in each lap; what does not fill a batch at its end is left out of that lap. One
    group of all prompts gives plain shuffled laps. Where every group has 2 to size − 1 members, every batch of at least
    three holds two prompts of one group and prompts of two groups. Raises ValueError when there are fewer prompts than
    one batch takes.
    """
    count = sum(map(len, groups))
    if count < size:
        raise ValueError(f"{count} tasks are fewer than the {size} prompts of one batch")
    stream, order = random.Random(seed), list[int]()
    while len(order) < steps * size:
        shuffled = [list(group) for group in groups]
        stream.shuffle(shuffled)
        for group in shuffled:
            stream.shuffle(group)
        lap = [prompt for group in shuffled for prompt in group]
        order += lap[: count - count % size]
    return order[: steps * size]
