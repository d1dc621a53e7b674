"""GMPO's maths: hand-computed examples, the reductions that must hold, and the places where floats break."""

import math
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib.gmpo import advantages as gmpo
from lib.gmpo import neighbourhoods, objective
from lib.gmpo.neighbourhoods import PromptBank, PromptStatistics
from lib.sampling import scoring

torch.set_num_threads(1)

Batch = Sequence[Tensor]  # rewards, log_probs (B, G), h (B, d)
relaxed = settings(deadline=None, max_examples=60)  # a busy machine is not a failure
TAU = 1.5 / math.log(2)  # three orthogonal embeddings, centred, are 120° apart: w = 1/2 on itself, 1/4 on others
REWARDS = torch.tensor([[1.0, 0], [1, 1], [0, 0]], dtype=torch.float64)
LOG_PROBS = torch.tensor([[-4.0, -2], [-1, -3], [-6, -2]], dtype=torch.float64)


def close(actual: Tensor, expected: Any, atol: float = 1e-6) -> None:
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(actual, expected, atol=atol, rtol=atol)


def random_batch(seed: int, prompts: int, group: int, d: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Binary rewards, log-probs and embeddings, float64."""
    stream = torch.Generator().manual_seed(seed)
    rewards = (torch.rand(prompts, group, generator=stream) < torch.rand(prompts, 1, generator=stream)).double()
    log_probs = -100 * torch.rand(prompts, group, generator=stream, dtype=torch.float64)
    return rewards, log_probs, torch.randn(prompts, d, generator=stream, dtype=torch.float64)


batches = st.builds(random_batch, st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 6))
temperatures = st.floats(-3, 2).map(lambda power: 10**power)


def weights(h: Tensor, tau: float, bank_h: Tensor | None = None) -> Tensor:
    return neighbourhoods.neighbourhood_weights(neighbourhoods.similarities(h, bank_h), tau)


def advantages_of(
    batch: Batch, tau: float, lam: float, bank: PromptStatistics | None = None, **options: Any
) -> gmpo.Advantages:
    rewards, log_probs, h = batch
    w = weights(h, tau, None if bank is None else bank.h)
    return gmpo.gmpo_advantages(rewards, log_probs, w, lam=lam, bank=bank, **options)


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    torch.manual_seed(0)


# -- a three-prompt example worked by hand ------------------------------------------------------------------


def test_three_prompts_weights() -> None:
    close(
        weights(torch.eye(3), TAU),
        [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]],
    )


def test_three_prompts_meta_statistics() -> None:
    w = weights(torch.eye(3), TAU)
    mean, std = neighbourhoods.meta_statistics(w, *neighbourhoods.group_statistics(LOG_PROBS))
    close(mean, [-3, -2.75, -3.25])
    close(std.square(), [9 / 4, 39 / 16, 51 / 16])  # within 7/4, 7/4, 5/2 and between 1/2, 11/16, 11/16


def test_three_prompts_every_part_of_the_advantages() -> None:
    found = gmpo.gmpo_advantages(REWARDS, LOG_PROBS, weights(torch.eye(3), TAU), lam=0.5, delta=1e-12)
    root15, root39, root51 = math.sqrt(15), math.sqrt(39), math.sqrt(51)
    close(found.a_meta, [[1, -1], [3 / root15, 3 / root15], [-3 / root15, -3 / root15]])
    close(found.l_hat, [[-2 / 3, 2 / 3], [7 / root39, -1 / root39], [-11 / root51, 5 / root51]])
    close(found.surprise, found.a_meta * found.l_hat)
    factor = [[4 / 3, 4 / 3], [1, 1 + 0.5 / root15 * 3 / root39], [1, 1 + 7.5 / root15 / root51]]
    close(found.amplification, factor)
    second = [3 / root15, 3 / root15 + 0.3 / root39]
    third = [-3 / root15, -3 / root15 - 1.5 / root51]
    close(found.advantages, [[4 / 3, -4 / 3], second, third])


# -- neighbourhood weights ----------------------------------------------------------------------------------


@relaxed
@given(batches, temperatures)
def test_rows_of_weights_sum_to_one(batch: Batch, tau: float) -> None:
    w = weights(batch[2], tau)
    close(w.sum(1), [1.0] * len(w), atol=1e-12)
    assert (w >= 0).all()


def test_infinite_temperature_gives_uniform_weights() -> None:
    close(weights(torch.randn(4, 3), math.inf), torch.full((4, 4), 0.25), atol=1e-15)


def test_vanishing_temperature_gives_the_identity_in_float32() -> None:
    w = weights(torch.randn(50, 8), 1e-300)
    assert torch.equal(w, torch.eye(50, dtype=torch.float64))


def test_duplicates_share_equally_at_any_temperature() -> None:
    h = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    close(weights(h, 1e-3)[0], [0.5, 0.5, 0])


def test_length_of_an_embedding_does_not_matter() -> None:
    h = torch.randn(5, 4, dtype=torch.float64)
    close(weights(h * 1000, 0.2), weights(h, 0.2), atol=1e-12)


@pytest.mark.parametrize("tau", [-1.0, math.nan])
def test_weights_refuse_a_temperature_below_zero(tau: float) -> None:
    with pytest.raises(ValueError, match="tau="):
        weights(torch.eye(3), tau)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_embedding_that_is_not_finite_is_refused(value: float) -> None:
    h = torch.ones(3, 2)
    h[1] = value
    with pytest.raises(ValueError, match="1 of 3 embeddings"):
        weights(h, 1.0)


def test_centring_tells_prompts_apart_that_share_a_large_mean() -> None:
    """(100, ±1): .9998 alike as they are, opposite once the mean (100, 0) is off."""
    h = torch.tensor([[100.0, 1], [100, 1], [100, -1], [100, -1]])
    raw = neighbourhoods.similarities(h, centre=False)
    assert raw[0, 2].item() == pytest.approx((1e4 - 1) / (1e4 + 1)) and raw.min() > 0.999
    close(neighbourhoods.similarities(h), [[1, 1, -1, -1], [1, 1, -1, -1], [-1, -1, 1, 1], [-1, -1, 1, 1]])


def test_the_bank_is_part_of_the_mean() -> None:
    """The mean of (0, 0), (2, 0) and the bank's (1, 3) is (1, 1): directions (−1, −1), (1, −1) and (0, 2)."""
    found = neighbourhoods.similarities(torch.tensor([[0.0, 0], [2, 0]]), torch.tensor([[1.0, 3]]))
    half = -1 / math.sqrt(2)
    close(found, [[1, 0, half], [0, 1, half]])


def test_a_prompt_at_the_mean_resembles_none() -> None:
    close(neighbourhoods.similarities(torch.tensor([[1.0, 0], [3, 0], [2, 0]])), [[1, -1, 0], [-1, 1, 0], [0, 0, 1]])
    close(neighbourhoods.similarities(torch.full((2, 3), 0.1)), torch.eye(2))


def test_effective_neighbours_are_the_exponential_of_the_entropy() -> None:
    w = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.25, 0.25, 0]])
    close(neighbourhoods.effective_neighbours(w), [1, 2, 4, 2**1.5])


def test_tau_is_solved_for_the_number_of_neighbours_by_hand() -> None:
    """Weights 1/2, 1/4, 1/4 have entropy 1.5 ln 2, that is 2^1.5 neighbours."""
    assert neighbourhoods.solve_tau(neighbourhoods.similarities(torch.eye(3)), 2**1.5) == pytest.approx(TAU, rel=1e-6)


@relaxed
@given(st.integers(0, 10**6), st.integers(3, 12), st.floats(0, 1))
def test_the_median_prompt_gets_the_neighbours_asked_for(seed: int, prompts: int, share: float) -> None:
    similarity = neighbourhoods.similarities(random_batch(seed, prompts, 1)[2])
    wanted = 1.01 + share * (prompts - 1.02)
    w = neighbourhoods.neighbourhood_weights(similarity, neighbourhoods.solve_tau(similarity, wanted))
    assert neighbourhoods.effective_neighbours(w).quantile(0.5).item() == pytest.approx(wanted, rel=1e-4)


def test_one_neighbour_is_the_prompt_itself_even_among_duplicates() -> None:
    similarity = neighbourhoods.similarities(torch.eye(4)[[0, 0, 1, 1]])
    assert neighbourhoods.solve_tau(similarity, 1) == 0
    assert torch.equal(neighbourhoods.neighbourhood_weights(similarity, 0), torch.eye(4, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"neighbours=0\.5"):
        neighbourhoods.solve_tau(similarity, 0.5)


# -- statistics ---------------------------------------------------------------------------------------------


def test_group_variance_is_the_population_variance_and_zero_for_one_completion() -> None:
    mean, var = neighbourhoods.group_statistics(torch.tensor([[1.0, 2, 3, 6]]))
    assert (mean.item(), var.item()) == (3.0, 3.5)
    assert neighbourhoods.group_statistics(torch.tensor([[7.0]]))[1].item() == 0


@relaxed
@given(batches, temperatures)
def test_meta_statistics_are_those_of_the_weighted_pool_of_samples(batch: Batch, tau: float) -> None:
    _, values, h = batch
    w = weights(h, tau)
    mean, std = neighbourhoods.meta_statistics(w, *neighbourhoods.group_statistics(values))
    for j in range(len(w)):
        share = (w[j][:, None] / values.shape[1]).expand_as(values)
        pooled = (share * values).sum()
        close(mean[j], pooled, atol=1e-9)
        close(std[j], (share * (values - pooled) ** 2).sum().sqrt(), atol=1e-9)


def test_weights_and_statistics_must_agree_on_the_pool() -> None:
    with pytest.raises(ValueError, match="3 columns"):
        neighbourhoods.meta_statistics(torch.eye(3), torch.zeros(2), torch.zeros(2))


# -- reductions ---------------------------------------------------------------------------------------------


@relaxed
@given(batches)
def test_identity_weights_without_sbam_are_per_prompt_standardisation(batch: Batch) -> None:
    rewards, log_probs, h = batch
    found = advantages_of((rewards, log_probs, h), 0, lam=0)
    mean, std = rewards.mean(1, keepdim=True), rewards.std(1, keepdim=True, correction=0)
    close(found.advantages, (rewards - mean) / (std + 1e-6))


@relaxed
@given(st.integers(0, 10**6), st.integers(1, 9))
def test_one_completion_and_uniform_weights_are_batch_standardisation(seed: int, prompts: int) -> None:
    rewards, log_probs, h = random_batch(seed, prompts, 1)
    found = advantages_of((rewards, log_probs, h), math.inf, lam=0)
    close(found.advantages, (rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-6))


@relaxed
@given(batches, temperatures, st.floats(0, 10), st.floats(0.2, 3))
def test_sbam_never_changes_a_sign(batch: Batch, tau: float, lam: float, gamma: float) -> None:
    found = advantages_of(batch, tau, lam, gamma=gamma)
    assert torch.equal(found.advantages.sign(), found.a_meta.sign())


@relaxed
@given(st.integers(0, 10**6), temperatures)
def test_one_prompt_is_standardised_by_itself(seed: int, tau: float) -> None:
    rewards, log_probs, h = random_batch(seed, 1, 5)
    close(advantages_of((rewards, log_probs, h), tau, 0).advantages, gmpo.grpo_advantages(rewards))


# -- invariants ---------------------------------------------------------------------------------------------


@relaxed
@given(batches, temperatures, st.floats(-1000, 1000), st.floats(0.1, 10))
def test_likelihood_scores_ignore_shift_and_scale(batch: Batch, tau: float, shift: float, scale: float) -> None:
    """Exactly so when δ, which stands beside a standard deviation, is scaled too."""
    _, log_probs, h = batch
    w = weights(h, tau)
    moved = gmpo.likelihood_z(log_probs * scale + shift, w, delta=1e-6 * scale)
    close(moved, gmpo.likelihood_z(log_probs, w, delta=1e-6), atol=1e-3)


@relaxed
@given(batches, temperatures, st.randoms(use_true_random=False))
def test_order_of_prompts_does_not_matter(batch: Batch, tau: float, random: Random) -> None:
    order = list(range(len(batch[0])))
    random.shuffle(order)
    shuffled = advantages_of([tensor[order] for tensor in batch], tau, 1.0)
    close(shuffled.advantages, advantages_of(batch, tau, 1.0).advantages[order])


@relaxed
@given(batches, temperatures)
def test_an_advantage_cannot_exceed_what_its_own_weight_allows(batch: Batch, tau: float) -> None:
    rewards, _, h = batch
    w = weights(h, tau)
    share = w.diagonal()[:, None] / rewards.shape[1]
    assert (gmpo.meta_advantages(rewards, w).abs() <= ((1 - share) / share).sqrt() + 1e-6).all()


# -- degenerate groups and broken input ---------------------------------------------------------------------


@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rewards_give_exactly_zero(reward: float, dtype: torch.dtype) -> None:
    """Not 1e-10: an optimiser that normalises its gradient would make a full step of rounding noise."""
    rewards = torch.full((33, 7), reward, dtype=dtype)
    log_probs = torch.randn(33, 7, dtype=dtype)
    found = gmpo.gmpo_advantages(rewards, log_probs, weights(torch.randn(33, 8), 0.5), lam=1.0)
    assert torch.equal(found.advantages, torch.zeros_like(rewards))


def test_equal_log_probs_give_no_surprise() -> None:
    scores = gmpo.likelihood_z(torch.full((33, 7), -123.4), weights(torch.randn(33, 8), 0.5))
    assert torch.equal(scores, torch.zeros(33, 7))


def test_all_pass_and_all_fail_groups_learn_from_each_other() -> None:
    rewards = torch.tensor([[1.0, 1], [0, 0]])
    assert torch.equal(gmpo.grpo_advantages(rewards), torch.zeros(2, 2))
    pooled = gmpo.meta_advantages(rewards, weights(torch.eye(2), math.inf))
    close(pooled, [[1.0, 1], [-1, -1]], atol=1e-5)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_broken_log_prob_is_one_clear_line(broken: float) -> None:
    log_probs = LOG_PROBS.clone()
    log_probs[1, 0] = broken
    with pytest.raises(ValueError, match=r"^log_probs: 1 of 6 values are NaN or infinite$"):
        gmpo.gmpo_advantages(REWARDS, log_probs, weights(torch.eye(3), 1.0), lam=1.0)


def test_a_broken_reward_is_one_clear_line() -> None:
    with pytest.raises(ValueError, match=r"^rewards: 6 of 6 values are NaN or infinite$"):
        gmpo.gmpo_advantages(REWARDS * math.nan, LOG_PROBS, weights(torch.eye(3), 1.0), lam=1.0)


def test_mismatched_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 2\), \(3, 2\) and \(2, 2\)"):
        gmpo.gmpo_advantages(REWARDS, LOG_PROBS, weights(torch.eye(2), 1.0), lam=1.0)


@pytest.mark.parametrize("delta", [0.0, -1e-6, math.nan])
def test_delta_must_be_positive(delta: float) -> None:
    with pytest.raises(ValueError, match="delta="):
        gmpo.meta_advantages(REWARDS, torch.eye(3), delta)


@pytest.mark.parametrize(
    ("given_dtype", "returned"),
    [(torch.bool, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_advantages_come_back_in_the_rewards_dtype(given_dtype: torch.dtype, returned: torch.dtype) -> None:
    found = gmpo.gmpo_advantages(REWARDS.to(given_dtype), LOG_PROBS.float(), weights(torch.eye(3), 1.0), lam=1.0)
    assert {part.dtype for part in vars(found).values()} == {returned}


def test_advantages_carry_no_gradient() -> None:
    found = gmpo.gmpo_advantages(
        REWARDS, LOG_PROBS.clone().requires_grad_(), weights(torch.eye(3).requires_grad_(), 1.0), lam=1.0
    )
    assert not found.advantages.requires_grad


# -- SBAM: Proposition 1 ------------------------------------------------------------------------------------


@relaxed
@given(st.floats(-50, 50), st.floats(-50, 50), st.floats(0, 5), st.floats(0.2, 3))
def test_bounded_inputs_bound_the_amplification(a: float, l_hat: float, lam: float, gamma: float) -> None:
    s = gmpo.surprise(*torch.tensor([a, l_hat], dtype=torch.float64))
    factor = gmpo.amplification(s, lam, gamma).item()
    assert 1 <= factor <= (1 + lam * (abs(a) * abs(l_hat)) ** gamma) * (1 + 1e-12)


def test_the_bound_is_reached_where_reward_and_confidence_disagree_most() -> None:
    assert gmpo.amplification(torch.tensor(2.0 * -3.0), 0.5).item() == 1 + 0.5 * 6


def test_the_negative_side_has_no_bound() -> None:
    factors = gmpo.amplification(-torch.tensor([1e2, 1e4, 1e8]), 1.0)
    close(factors, [1e2, 1e4, 1e8], atol=1e-1)


@relaxed
@given(st.floats(-30, 30), st.floats(0, 10), st.floats(0.2, 3))
def test_amplification_never_rises_with_surprise(s: float, step: float, gamma: float) -> None:
    low, high = gmpo.amplification(torch.tensor([s, s + step], dtype=torch.float64), 1.0, gamma)
    assert low >= high


@relaxed
@given(batches, temperatures)
def test_a_batch_bounds_its_own_amplification(batch: Batch, tau: float) -> None:
    found = advantages_of(batch, tau, lam=1.0)
    own = weights(batch[2], tau).diagonal()[:, None]
    assert (found.amplification <= batch[0].shape[1] / own + 1e-5).all()  # 1 + (G/w_jj − 1)


def test_exponent_of_relu() -> None:
    assert gmpo.amplification(torch.tensor(-3.0), 0.5, gamma=2.0).item() == 1 + 0.5 * 9


def test_lambda_zero_turns_sbam_off() -> None:
    a = torch.randn(4, 3)
    assert torch.equal(gmpo.sbam(a, torch.randn(4, 3), 0.0), a)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lam": -0.1}, "lam=-0.1"),
        ({"lam": math.nan}, "lam=nan"),
        ({"lam": 1.0, "gamma": 0.0}, "gamma=0.0"),
    ],
)
def test_sbam_refuses_bad_settings(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gmpo.sbam(REWARDS, LOG_PROBS, **arguments)


# -- bank -------------------------------------------------------------------------------------------------


def statistics_of(*values: float) -> PromptStatistics:
    column = torch.tensor(values, dtype=torch.float64)
    return PromptStatistics(column[:, None].repeat(1, 2), column, column, column, column)


def test_bank_keeps_the_newest_in_order() -> None:
    bank = PromptBank(3)
    bank.push(statistics_of(1, 2))
    bank.push(statistics_of(3, 4))
    assert bank.prompts is not None
    assert bank.prompts.mean_r.tolist() == [2, 3, 4]
    bank.push(statistics_of(5, 6, 7, 8, 9))
    assert bank.prompts.mean_l.tolist() == [7, 8, 9]
    assert len(bank) == 3


def test_pooling_with_bank_equals_pooling_with_the_remembered_batch() -> None:
    past, now = random_batch(1, 4, 3), random_batch(2, 5, 3)
    bank = PromptBank(100)
    bank.push(neighbourhoods.prompt_statistics(*past))
    together = advantages_of([torch.cat(pair) for pair in zip(now, past, strict=True)], 0.5, 1.0)
    close(advantages_of(now, 0.5, 1.0, bank=bank.prompts).advantages, together.advantages[:5])


def test_an_empty_bank_changes_nothing() -> None:
    batch = random_batch(3, 4, 3)
    expected = advantages_of(batch, 0.5, 1.0).advantages
    assert torch.equal(advantages_of(batch, 0.5, 1.0, bank=PromptBank(8).prompts).advantages, expected)


def test_bank_survives_a_checkpoint(tmp_path: Path) -> None:
    bank, restored = PromptBank(3), PromptBank(3)
    bank.push(statistics_of(1, 2, 3, 4))
    torch.save(bank.state_dict(), tmp_path / "bank.pt")
    restored.load_state_dict(torch.load(tmp_path / "bank.pt", weights_only=True))
    assert restored.prompts is not None
    assert restored.prompts.mean_r.tolist() == [2, 3, 4]
    restored.load_state_dict(PromptBank(3).state_dict())
    assert len(restored) == 0


def test_bank_refuses_a_checkpoint_from_other_settings() -> None:
    with pytest.raises(ValueError, match="capacity 5, these settings 3"):
        PromptBank(3).load_state_dict(PromptBank(5).state_dict())


def test_bank_refuses_embeddings_of_another_size() -> None:
    bank = PromptBank(3)
    bank.push(statistics_of(1))
    with pytest.raises(ValueError, match="size 2, the batch brings size 6"):
        bank.push(neighbourhoods.prompt_statistics(*random_batch(0, 2, 2)))


# -- baselines ----------------------------------------------------------------------------------------------


def test_baselines_by_hand() -> None:
    rewards = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0]])
    root3 = math.sqrt(3)
    close(
        gmpo.grpo_advantages(rewards),
        [[root3, -1 / root3, -1 / root3, -1 / root3], [1, 1, -1, -1]],
        atol=1e-5,
    )
    close(gmpo.dr_grpo_advantages(rewards), [[0.75, -0.25, -0.25, -0.25], [0.5, 0.5, -0.5, -0.5]])
    close(gmpo.rloo_advantages(rewards)[0], [1, -1 / 3, -1 / 3, -1 / 3])
    up, down = 0.625 / math.sqrt(15 / 64), -0.375 / math.sqrt(15 / 64)
    close(gmpo.batch_advantages(rewards), [[up, down, down, down], [up, up, down, down]], atol=1e-5)


def test_group_mean_and_batch_deviation_by_hand() -> None:
    """Three right of eight: the batch's variance is 15/64."""
    rewards = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0]])
    sigma = math.sqrt(15 / 64)
    expected = [[0.75 / sigma, *[-0.25 / sigma] * 3], [0.5 / sigma, 0.5 / sigma, -0.5 / sigma, -0.5 / sigma]]
    close(gmpo.group_batch_advantages(rewards), expected, atol=1e-5)


def test_james_stein_by_hand() -> None:
    """Means 1/2, 0 and 1, within-group variances 1/2, 0 and 0 (unbiased, G = 2).

    For the first prompt the others have s² = 0: nothing is shrunk, its baseline is the other completion. For the second
    they have means 1/2 and 1, s² = 1/4, v = 1/4, Var = 1/8 = s²/2, so t = 0 and all weight lies on their mean 3/4; for
    the third, likewise, on 1/4.
    """
    found = gmpo.james_stein_advantages(torch.tensor([[1.0, 0], [0, 0], [1, 1]]))
    close(found, [[1, -1], [-0.75, -0.75], [0.75, 0.75]])
    two = torch.tensor([[1.0, 0], [1, 1]])
    assert torch.equal(gmpo.james_stein_advantages(two), gmpo.rloo_advantages(two))


@relaxed
@given(st.integers(0, 10**6), st.integers(3, 6), st.integers(2, 5))
def test_a_james_stein_baseline_never_uses_the_completions_own_reward(seed: int, prompts: int, group: int) -> None:
    rewards, *_ = random_batch(seed, prompts, group)
    before = rewards[0, 0] - gmpo.james_stein_advantages(rewards)[0, 0]
    rewards[0, 0] = 1 - rewards[0, 0]
    close(rewards[0, 0] - gmpo.james_stein_advantages(rewards)[0, 0], before.item())


def test_equal_norm_gives_every_estimator_one_root_mean_square() -> None:
    close(gmpo.unit_rms(torch.tensor([[3.0, -4], [0, 0]])), [[1.2, -1.6], [0, 0]])
    assert torch.equal(gmpo.unit_rms(torch.zeros(2, 2)), torch.zeros(2, 2))


def test_sample_deviation_as_an_option() -> None:
    rewards = torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64)
    close(gmpo.grpo_advantages(rewards, 1e-4, ddof=1), (rewards - 0.25) / (0.5 + 1e-4))


def test_one_completion_says_nothing_to_grpo_and_is_refused_by_leave_one_out() -> None:
    rewards = torch.tensor([[1.0], [0.0]])
    assert torch.equal(gmpo.grpo_advantages(rewards, ddof=1), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="at least two"):
        gmpo.rloo_advantages(rewards)


# -- ratios and objective -----------------------------------------------------------------------------------


def test_log_ratio_at_each_level() -> None:
    new = torch.tensor([[-1.0, -2, -3], [-1, -1, -1]])
    old = torch.tensor([[-1.5, -2, -5], [-1, -2, -9]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    close(objective.log_ratio(new, old, mask, "sequence"), [2.5, 1])
    close(objective.log_ratio(new, old, mask, "sequence_mean"), [2.5 / 3, 0.5])
    close(objective.log_ratio(new, old, mask, "token"), [[0.5, 0, 2], [0, 1, 0]])
    with pytest.raises(ValueError, match="level='word'"):
        objective.log_ratio(new, old, mask, "word")  # type: ignore[arg-type]


@pytest.mark.parametrize("padding", [math.nan, -math.inf])
def test_what_stands_at_padding_reaches_neither_value_nor_gradient(padding: float) -> None:
    new = torch.tensor([[-1.0, padding]], requires_grad=True)
    mask = torch.tensor([[True, False]])
    ratio = objective.log_ratio(new, torch.tensor([[-2.0, padding]]), mask)
    (ratio.sum() + objective.kl_k3(new, torch.tensor([[-2.0, padding]]), mask).sum()).backward()
    assert ratio.item() == 1
    assert new.grad is not None
    assert new.grad[0, 1] == 0
    assert new.grad[0, 0].isfinite()


def test_a_completion_without_tokens_has_ratio_one() -> None:
    nothing = torch.zeros(1, 3)
    for level in ("sequence", "sequence_mean"):
        assert objective.log_ratio(nothing - 1, nothing, nothing, level).item() == 0


def test_ratios_are_float32_even_from_half_precision() -> None:
    half = torch.full((1, 2), -1.0, dtype=torch.bfloat16)
    assert objective.log_ratio(half, half, torch.ones(1, 2)).dtype == torch.float32


def test_a_broken_log_prob_under_the_mask_is_refused() -> None:
    new = torch.tensor([[math.nan, -1.0]])
    with pytest.raises(ValueError, match="1 of 2 tokens"):
        objective.log_ratio(new, torch.zeros(1, 2), torch.ones(1, 2))


@relaxed
@given(st.floats(-5, 5), st.floats(-3, 3), st.floats(0.01, 0.9))
def test_objective_is_the_textbook_minimum(log_s: float, a: float, epsilon: float) -> None:
    s = math.exp(log_s)
    expected = min(s * a, min(max(s, 1 - epsilon), 1 + epsilon) * a)
    ratio, advantage = torch.tensor([[log_s], [a]], dtype=torch.float64)
    found = objective.clipped_objective(ratio, advantage, epsilon)
    assert found.objective.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("log_s", [-50.0, 50.0])
@pytest.mark.parametrize("a", [-1.0, 0.0, 1.0])
def test_objective_in_float32_at_fifty(log_s: float, a: float) -> None:
    exact = min(math.exp(log_s) * a, min(max(math.exp(log_s), 0.8), 1.2) * a)
    ratio = torch.tensor([log_s], requires_grad=True)
    value = objective.clipped_objective(ratio, torch.tensor([a]), 0.2).objective
    value.sum().backward()
    assert value.item() == pytest.approx(exact, rel=1e-5)
    assert ratio.grad is not None
    assert ratio.grad.isfinite().all()


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("level", ["sequence", "sequence_mean", "token"])
def test_4096_tokens_at_fifty_each_stay_finite(sign: int, level: objective.Level) -> None:
    new = torch.full((2, 4096), 50.0 * sign).requires_grad_()
    mask = torch.ones(2, 4096)
    ratio = objective.log_ratio(new, torch.zeros(2, 4096), mask, level)
    found = objective.clipped_objective(ratio, torch.tensor([1.0, -1.0]), 0.2, mask if level == "token" else None)
    found.objective.mean().backward()
    assert found.objective.isfinite().all()
    assert found.effective_sample_size.isfinite()
    assert new.grad is not None
    assert new.grad.isfinite().all()


def test_a_sum_over_4096_small_differences_keeps_its_digits() -> None:
    stream = torch.Generator().manual_seed(0)
    old = -3 * torch.rand(4, 4096, generator=stream)
    new = old + 0.01 * torch.randn(4, 4096, generator=stream)
    exact = (new.double() - old.double()).sum(1)
    close(objective.log_ratio(new, old, torch.ones_like(old)).double(), exact, atol=1e-5)


@pytest.mark.parametrize(("s", "a", "slope"), [(1.1, 2.0, 2.2), (1.3, 2.0, 0), (1.3, -2.0, -2.6), (0.7, -2.0, 0)])
def test_gradient_stops_only_on_the_clipped_side(s: float, a: float, slope: float) -> None:
    ratio = torch.tensor([math.log(s)], requires_grad=True)
    found = objective.clipped_objective(ratio, torch.tensor([a]), 0.2)
    found.objective.sum().backward()
    assert ratio.grad is not None
    assert ratio.grad.item() == pytest.approx(slope, rel=1e-5)
    assert found.clip_fraction.item() == (slope == 0)


def test_clip_fraction_counts_completion_tokens_only() -> None:
    ratios = torch.tensor([[1.0, 0, 1], [-1, -1, -1]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    found = objective.clipped_objective(ratios, torch.tensor([1.0, -1]), 0.2, mask)
    assert found.clip_fraction.item() == pytest.approx(2 / 3)
    close(found.objective, [[1.2, 1, 0], [-0.8, 0, 0]])


def test_effective_sample_size() -> None:
    assert scoring.effective_sample_size(torch.zeros(7)).item() == 7
    assert scoring.effective_sample_size(torch.tensor([math.log(3.0), 0])).item() == pytest.approx(1.6)
    assert scoring.effective_sample_size(torch.tensor([1000.0, 0, -1000])).item() == 1


def test_a_fully_masked_batch_gives_zeros_not_nan() -> None:
    found = objective.clipped_objective(torch.zeros(2, 3), torch.ones(2), 0.2, torch.zeros(2, 3))
    assert [part.abs().sum().item() for part in vars(found).values()] == [0, 0, 0]


@pytest.mark.parametrize("epsilon", [0.0, 1.0, -0.2, math.nan])
def test_clip_range_is_checked(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon="):
        objective.clipped_objective(torch.zeros(1), torch.ones(1), epsilon)


# -- KL -----------------------------------------------------------------------------------------------------


def test_kl_by_hand_and_at_padding() -> None:
    new, ref = torch.tensor([[-1.0, -1, -1]]), torch.tensor([[-1 + math.log(2), -1, 5]])
    close(objective.kl_k3(new, ref, torch.tensor([[1, 1, 0]])), [[1 - math.log(2), 0, 0]])


def test_kl_of_near_equal_policies_keeps_its_digits() -> None:
    """At x = 1e-4 in float32, exp(x) − 1 − x is off by more than its value; the answer is x²/2."""
    x = torch.tensor([[1e-4]])
    assert abs((x.exp() - 1 - x).item() / 5e-9 - 1) > 1
    assert objective.kl_k3(torch.zeros(1, 1), x, torch.ones(1, 1)).item() == pytest.approx(5e-9, rel=2e-3)


@relaxed
@given(st.floats(-60, 60, width=32))
def test_kl_is_finite_and_never_negative(x: float) -> None:
    found = objective.kl_k3(torch.zeros(1, 1), torch.tensor([[x]]), torch.ones(1, 1)).item()
    assert math.isfinite(found)
    assert found >= 0


def test_kl_averages_to_the_true_divergence() -> None:
    """Weighted by pi_theta, the token terms sum to KL(pi_theta‖pi_ref) exactly."""
    new, ref = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.3, 0.3, 0.4]])
    terms = objective.kl_k3(new.log(), ref.log(), torch.ones(1, 3))
    close((new * terms).sum(), (new * (new / ref).log()).sum())


# -- sampler and trainer --------------------------------------------------------------------------------------


def test_mismatch_of_sampler_and_trainer_by_hand() -> None:
    """Token ratios pi/q of 2 and 1/2 in one sequence, 1 in the other, one token padded.

    k3 at ln 2 is 1 − ln 2, at −ln 2 ln 2 − 1/2, at 0 nothing: their mean over three tokens is 1/6. Both sequences have
    the ratio 1, so that no sample is lost.
    """
    old = torch.tensor([[math.log(0.8), math.log(0.1)], [-1.0, 7]])
    drawn_from = torch.tensor([[math.log(0.4), math.log(0.2)], [-1.0, -7]])
    found = scoring.mismatch(old, drawn_from, torch.tensor([[1, 1], [1, 0]]))
    assert found["mismatch_kl"] == pytest.approx(1 / 6, rel=1e-5)
    assert (found["mismatch_ess"], found["mismatch_ratio_max"]) == pytest.approx((1, 2))


def test_corrections_are_cut_at_the_cap_by_token_and_by_sequence() -> None:
    old = torch.tensor([[math.log(0.8), math.log(0.3)], [-1.0, 7]])
    drawn_from = torch.tensor([[math.log(0.2), math.log(0.6)], [-2.0, -7]])
    mask = torch.tensor([[1, 1], [1, 0]])
    close(objective.correction_weights(old, drawn_from, mask, "token", 2.5), [[2.5, 0.5], [2.5, 1]])
    close(objective.correction_weights(old, drawn_from, mask, "sequence", 2.5), [2, 2.5])
    assert objective.correction_weights(old, drawn_from, mask, "none", 2.5) is None
