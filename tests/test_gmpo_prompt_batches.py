"""Batches: a function of the seed, every prompt once a lap, similar prompts together but never alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.gmpo.prompt_batches import mdav_groups, prompt_order

relaxed = settings(deadline=None, max_examples=40)


def kinds(count: int, per_kind: int, d: int = 8) -> torch.Tensor:
    """Embeddings of `count` kinds of prompts, those of one kind all but equal."""
    centres = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(0))).Q[:count]
    noise = torch.randn(count * per_kind, d, generator=torch.Generator().manual_seed(1))
    return centres.repeat_interleave(per_kind, 0) + 0.01 * noise


def test_one_group_comes_in_shuffled_laps_and_never_twice_in_a_batch() -> None:
    order = prompt_order([range(7)], steps=5, size=3, seed=1)
    batches = [order[i : i + 3] for i in range(0, 15, 3)]
    assert len(order) == 15 and all(len(set(batch)) == 3 for batch in batches)
    assert len(set(order[:6])) == 6
    assert order == prompt_order([range(7)], 5, 3, 1) != prompt_order([range(7)], 5, 3, 2)
    assert prompt_order([range(7)], 9, 3, 1)[:15] == order, "a longer run begins as the shorter one"


def test_fewer_prompts_than_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="2 tasks are fewer than the 3 prompts"):
        prompt_order([range(2)], 1, 3, 0)


def test_prompts_of_a_kind_are_one_group() -> None:
    groups = mdav_groups(kinds(4, 5), 5)
    assert sorted(map(sorted, groups)) == [list(range(at, at + 5)) for at in range(0, 20, 5)]


@relaxed
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 9))
def test_groups_part_the_prompts_into_nearly_equal_shares(seed: int, count: int, size: int) -> None:
    h = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    groups = mdav_groups(h, size)
    assert sorted(i for group in groups for i in group) == list(range(count))
    lengths = [len(group) for group in groups]
    assert max(lengths) - min(lengths) <= 1 and min(lengths) >= min(size, count)
    assert groups == mdav_groups(h, size)


@relaxed
@given(st.integers(0, 10**6), st.integers(4, 12), st.data())
def test_a_batch_holds_two_of_a_kind_and_two_kinds_and_a_lap_each_prompt_once(
    seed: int, size: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(size, 5 * size))
    groups = mdav_groups(torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)), size // 2)
    group_of = {prompt: number for number, group in enumerate(groups) for prompt in group}
    a_lap = count // size
    order = prompt_order(groups, 2 * a_lap, size, seed)
    for start in range(0, len(order), size):
        found = [group_of[prompt] for prompt in order[start : start + size]]
        assert 2 <= len(set(found)) < size
    for lap in (order[: a_lap * size], order[a_lap * size :]):
        assert len(set(lap)) == a_lap * size
    assert order == prompt_order(groups, 2 * a_lap, size, seed)


def test_embeddings_without_a_prompt_each_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(prompts, features\)"):
        mdav_groups(torch.ones(3), 2)
