"""The bandit simulation: its gradients are the true ones, its measures are right by hand, its runs repeat."""

import math
from typing import Any, get_args

import pytest
import torch

from notebooks.studies import gmpo_normalisers as simulation
from notebooks.studies.gmpo_normalisers import Mix

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("mix", "first_cluster"),
    [
        ("even", [0.5, 0.5]),
        ("by-cluster", [0.05, 0.05]),
        ("within-cluster", [0.05, 0.95]),
        ("rare", [0.03, 0.03]),
    ],
)
def test_each_mix_gives_the_success_it_names(mix: Mix, first_cluster: list[float]) -> None:
    world = simulation.make_world(mix, 0, clusters=3, per_cluster=2)
    success = (world.policy * world.correct).sum(1)
    assert success[:2].tolist() == pytest.approx(first_cluster)
    assert world.policy.sum(1).tolist() == pytest.approx([1.0] * 6)


def test_clusters_are_close_in_embedding_space() -> None:
    h = torch.nn.functional.normalize(simulation.make_world("even", 0).h, dim=1)
    cosines = h @ h.T
    same = torch.arange(len(h)) // 4
    inside = same[:, None] == same[None]
    assert cosines[inside].min() > cosines[~inside].max()


@pytest.mark.parametrize("mix", get_args(Mix))
def test_the_known_gradient_is_the_derivative_of_mean_success(mix: Mix) -> None:
    world = simulation.make_world(mix, 1)
    theta = torch.zeros_like(world.gradient, requires_grad=True)
    policy = torch.softmax(world.policy.log() + world.score @ theta, dim=1)
    (slope,) = torch.autograd.grad((policy * world.correct).sum(1).mean(), theta)
    torch.testing.assert_close(slope, world.gradient)


def test_estimates_weighted_by_the_policy_are_the_gradient_itself() -> None:
    """Each arm once, its advantage the reward times probability times A: the expectation, without draws."""
    world = simulation.make_world("within-cluster", 2)
    prompts, arms = world.policy.shape
    every_arm = torch.arange(arms).expand(1, prompts, arms)
    estimate = simulation.gradient_estimates(world, every_arm, (world.policy * world.correct * arms)[None])
    torch.testing.assert_close(estimate[0], world.gradient)


def test_draws_follow_the_policy() -> None:
    world = simulation.make_world("by-cluster", 0, clusters=2, per_cluster=1)
    drawn = simulation.draw(world, 10, 4000, seed=3)
    share = torch.nn.functional.one_hot(drawn[:, 1].flatten(), 8).double().mean(0)
    torch.testing.assert_close(share, world.policy[1], atol=0.015, rtol=0)  # 6 standard errors


def test_alignment_by_hand_and_of_no_step_at_all() -> None:
    estimates = torch.tensor([[3.0, 4.0], [-1.0, 0.0], [0.0, 0.0]])
    assert simulation.alignment(estimates, torch.tensor([2.0, 0.0])).tolist() == pytest.approx([0.6, -1, 0])


def test_a_common_scale_is_no_bias() -> None:
    estimates = torch.tensor([[5.0, 0.0], [5.0, 0.0]])
    assert simulation.bias_and_variance(estimates, torch.tensor([1.0, 0.0])) == (0, 0)


def test_bias_is_what_points_elsewhere() -> None:
    estimates = torch.tensor([[2.0, 1.0], [2.0, 1.0]])
    assert simulation.bias_and_variance(estimates, torch.tensor([1.0, 0.0])) == (0.25, 0)


def test_variance_and_its_share_in_the_measured_bias() -> None:
    estimates = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    bias, variance = simulation.bias_and_variance(estimates, torch.tensor([1.0, 0.0]))
    assert (bias, variance) == (-0.5, 2)  # measured bias 0, less 2·(2 − 1)/(2·2)


def test_no_signal_has_neither_bias_nor_variance() -> None:
    assert all(map(math.isnan, simulation.bias_and_variance(torch.zeros(3, 2), torch.ones(2))))


def cells(**options: Any) -> dict[tuple[str, int, str], dict[str, Any]]:
    rows = simulation.simulate(**{"worlds": 4, "replicates": 20} | options)
    return {(row["mix"], row["group_size"], row["method"]): row for row in rows}


def test_one_row_for_each_cell_and_method() -> None:
    found = cells(mixes=("even", "rare"), group_sizes=(1, 2), worlds=2, replicates=2)
    methods = {method for _, size, method in found if size == 2}
    assert methods == {
        "reinforce", "cgmn", "gmpo", "grpo", "dr_grpo", "rloo", "batch", "group_batch", "james_stein"
    }  # fmt: skip
    assert {method for _, size, method in found if size == 1} == {"reinforce", "cgmn", "grpo", "batch"}


def test_a_seed_repeats_and_another_differs() -> None:
    options: dict[str, Any] = {"mixes": ("even",), "group_sizes": (2,), "worlds": 2, "replicates": 3}
    assert simulation.simulate(**options, seed=1) == simulation.simulate(**options, seed=1)
    assert simulation.simulate(**options, seed=1) != simulation.simulate(**options, seed=2)


def test_leave_one_out_is_dr_grpo_up_to_scale() -> None:
    found = cells(mixes=("within-cluster",), group_sizes=(4,))
    one, other = (found["within-cluster", 4, method] for method in ("rloo", "dr_grpo"))
    assert one["alignment"] == pytest.approx(other["alignment"], abs=1e-12)
    assert one["variance"] == pytest.approx(other["variance"], rel=1e-9)


def test_one_completion_a_prompt_teaches_cgmn_and_not_grpo() -> None:
    found = cells(mixes=("by-cluster",), group_sizes=(1,))
    assert found["by-cluster", 1, "grpo"]["alignment"] == 0
    assert found["by-cluster", 1, "cgmn"]["alignment"] > 0.4


@pytest.mark.parametrize(("gain", "verdict"), [(0.4, "helps"), (0.2, "unclear"), (-0.2, "unclear"), (-0.4, "hurts")])
def test_a_verdict_needs_three_standard_errors(gain: float, verdict: str) -> None:
    row = {"mix": "even", "group_size": 2, "method": "cgmn", "over_grpo": gain, "over_grpo_se": 0.1}
    assert [one["verdict"] for one in simulation.verdicts([row])] == [verdict]


def test_bad_settings_are_one_clear_line() -> None:
    with pytest.raises(ValueError, match="mix='hard'"):
        simulation.make_world("hard", 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="worlds=1"):
        simulation.simulate(worlds=1)
    with pytest.raises(ValueError, match="reference='ppo'"):
        simulation.verdicts([], reference="ppo")
    with pytest.raises(ValueError, match="method='cgmm'"):
        simulation.verdicts([{"method": "cgmn"}], method="cgmm")


# -- stored samples -------------------------------------------------------------------------------------------


def test_large_groups_of_stored_samples_come_near_the_gradient_of_all_and_dr_grpo_is_unbiased() -> None:
    stream = torch.Generator().manual_seed(0)
    rewards = (torch.rand(8, 64, generator=stream) < torch.linspace(0.1, 0.9, 8)[:, None]).double()
    gradients = torch.randn(8, 64, 12, generator=stream).double() + rewards[..., None]
    held = simulation.Stored(rewards, -torch.rand(8, 64, generator=stream).double(), torch.randn(8, 5), gradients)
    few, many = (simulation.measure_stored(held, torch.arange(8), size, 60, 0, 3.0) for size in (4, 48))
    for method in ("grpo", "dr_grpo", "batch", "cgmn", "james_stein"):
        assert many[method]["variance"] < few[method]["variance"]
        assert many[method]["alignment"] > 0.97
    assert few["rloo"]["variance"] == pytest.approx(few["dr_grpo"]["variance"], rel=1e-9)
    assert abs(many["dr_grpo"]["bias2"]) < 0.01


def test_a_policy_with_one_logit_per_prompt_has_the_gradient_of_a_bernoulli() -> None:
    """Two of four right: every score is ±1/2, and the yardstick p (1 − p) · S/(S − 1) = 1/3 for each prompt, over B."""
    rewards = torch.tensor([[1.0, 1, 0, 0], [0, 1, 0, 1]])
    held = simulation.one_logit_per_prompt(rewards, -torch.ones(2, 4), torch.eye(2))
    assert held.gradients[0, 0].tolist() == [0.5, 0] and held.gradients[1, 0].tolist() == [0, -0.5]
    whole = simulation.measure_stored(held, torch.arange(2), 4, 3, 0, 1.5)
    assert whole["dr_grpo"]["alignment"] == pytest.approx(1) and whole["dr_grpo"]["variance"] == pytest.approx(0)
    assert whole["dr_grpo"]["bias2"] == pytest.approx(0)


def test_a_sketch_keeps_inner_products() -> None:
    values = torch.randn(3, 4000, generator=torch.Generator().manual_seed(1))
    values[1] = values[0] + 0.5 * values[1]
    kept = torch.stack([simulation.sketch(values, 512, seed) for seed in range(20)])
    found = torch.einsum("sip,sjp->ij", kept, kept) / 20
    torch.testing.assert_close(found, values @ values.T, rtol=0.05, atol=150.0)


def test_gradients_by_lora_b_are_those_that_autograd_finds() -> None:
    """A tiny Llama; the derivative along a direction of one B, by finite differences of the log-probability."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    policy = LlamaForCausalLM(LlamaConfig(vocab_size=20, num_hidden_layers=2, **shape)).double().eval()
    policy.requires_grad_(False)
    total, found = simulation.gradients_of(policy, [1, 2, 3], [[4, 5], [6]], 0.8)
    alone, gradient = simulation.gradients_of(policy, [1, 2, 3], [[6]], 0.8)
    torch.testing.assert_close((total[1], found[1]), (alone[0], gradient[0]), rtol=1e-4, atol=1e-5)
    module, rank = policy.model.layers[1].mlp.down_proj, 8
    a = torch.randn(rank, 32, generator=torch.Generator().manual_seed(1)) / 32**0.5  # the second module's
    b = torch.randn(16, rank, generator=torch.Generator().manual_seed(9))
    step = 1e-4
    module.weight += step * (b @ a).double()
    moved, _ = simulation.gradients_of(policy, [1, 2, 3], [[4, 5], [6]], 0.8)
    expected = (moved - total) / step
    torch.testing.assert_close(found[:, -16 * rank :] @ b.flatten(), expected.float(), rtol=2e-2, atol=2e-3)
