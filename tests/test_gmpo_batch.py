"""What a batch becomes and what a run may be set to: hand-computed, without a model."""

from typing import Any

import pytest
import torch

from lib.base.progress import Log
from lib.gmpo import advantages as statistics
from lib.gmpo.batch import batch_diagnostics, equal_rewards_cause, normalised
from lib.gmpo.settings import GmpoSettings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"advantage": "ppo"}, "choose one of gmpo, grpo, dr_grpo, batch, rloo"),
        ({"ratio": "gspo"}, "choose one of sequence, sequence_mean, token"),
        ({"group_size": 1}, "at least two completions"),
        ({"prompts_per_batch": 1}, "pooling needs two prompts"),
        ({"temperature": 0}, "sampled above 0"),
        ({"rows_per_pass": 3}, "does not divide"),
        ({"steps": 0}, "steps=0"),
        ({"top_k": 2, "mass": 0.5}, "not both"),
        ({"mass": 0.0}, "mass=0.0"),
        ({"tau": 0.0}, "tau=0.0"),
        ({"lam": float("nan")}, "lam=nan"),
        ({"epsilon": 1.0}, "epsilon=1.0"),
        ({"beta_final": 0.1}, "annealing starts from beta"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GmpoSettings(**changes)


def test_one_prompt_a_batch_is_allowed_where_nothing_is_pooled() -> None:
    for changes in ({"advantage": "grpo"}, {"top_k": 1}, {"memory": 8}):
        assert GmpoSettings(prompts_per_batch=1, **changes).rows == 8


def test_normalisers_differ_by_name_alone() -> None:
    """One right of four in the first group, three in the second; a uniform pool of both is the whole batch."""
    rewards = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 0]])
    settings = GmpoSettings(tau=1e9, lam=0.0)
    by_name, _ = normalised(rewards, torch.zeros(2, 4), torch.eye(2), settings)
    assert torch.allclose(by_name["gmpo"], by_name["batch"], atol=1e-5)
    assert torch.allclose(by_name["batch"], (rewards - 0.5) / 0.5, atol=1e-5)
    assert torch.allclose(by_name["grpo"][0], torch.tensor([3.0, -1, -1, -1]) / 3**0.5, atol=1e-5)
    assert by_name["dr_grpo"][0].tolist() == [0.75, -0.25, -0.25, -0.25]
    assert torch.allclose(by_name["rloo"][1], torch.tensor([1, 1, 1, -3]) / 3, atol=1e-6)


def test_diagnostics_of_a_batch_by_hand() -> None:
    """Three prompts: all right, mixed, all wrong. SBAM doubles one of six advantages."""
    rewards = torch.tensor([[1.0, 1], [1, 0], [0, 0]])
    log_probs = torch.tensor([[-1.0, -2], [-3, -4], [-5, -6]])
    factor = torch.ones(3, 2)
    factor[1, 0] = 2.0
    parts = statistics.Advantages(factor, factor, log_probs + 3.5, factor, factor)
    row = batch_diagnostics(rewards, log_probs, -log_probs, {"gmpo": rewards, "grpo": 2 * rewards}, parts)
    assert row["reward"] == 0.5
    assert row["solved"] == pytest.approx(2 / 3) and row["decidable"] == pytest.approx(1 / 3)
    assert row["amplified"] == pytest.approx(1 / 6) and row["amplification"] == 2.0
    assert row["l_hat_right"] == pytest.approx(1.5) and row["l_hat_wrong"] == pytest.approx(-1.5)
    assert row["advantage_var_grpo"] == pytest.approx(1.0) and row["advantage_mean_gmpo"] == 0.5
    assert row["length_log_prob_correlation"] == pytest.approx(-1)


def test_the_cause_of_equal_rewards_is_named() -> None:
    assert "too hard" in equal_rewards_cause(0.0)
    assert "too easy" in equal_rewards_cause(1.0)
    assert "same share" in equal_rewards_cause(0.5)


def test_kl_weight_is_annealed_linearly() -> None:
    assert GmpoSettings(beta=0.2).beta_at(0.7) == 0.2
    assert GmpoSettings(beta=0.2, beta_final=0.0).beta_at(0.5) == pytest.approx(0.1)


def test_weight_threshold_and_modulation_reach_the_advantages() -> None:
    """Two near prompts and a far one: with half of the weight, each is its own neighbour alone, as with top_k=1."""
    rewards = torch.tensor([[1.0, 0], [1, 1], [0, 0]])
    log_probs, h = torch.tensor([[-4.0, -2], [-1, -3], [-6, -2]]), torch.eye(3)
    alone = normalised(rewards, log_probs, h, GmpoSettings(tau=1.0, top_k=1))[0]["gmpo"]
    assert torch.equal(normalised(rewards, log_probs, h, GmpoSettings(tau=1.0, mass=0.4))[0]["gmpo"], alone)
    relu, tanh = (normalised(rewards, log_probs, h, GmpoSettings(tau=1.0, phi=phi))[1] for phi in ("relu", "tanh"))
    raised = relu.amplification > 1
    assert raised.any() and (tanh.amplification[raised] < relu.amplification[raised]).all()


def test_a_live_plot_sees_all_rows_so_far_and_an_unattended_run_draws_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[list[int]] = []

    def draw(rows: list[dict[str, Any]]) -> tuple[Any, None]:
        import matplotlib.figure

        seen.append([row["step"] for row in rows])
        return matplotlib.figure.Figure(), None

    monkeypatch.delenv("WORKBOOK_BATCH", raising=False)
    log = Log("step", draw=draw)
    log({"step": 1})
    log({"step": 2})
    assert seen == [[1], [1, 2]]
    monkeypatch.setenv("WORKBOOK_BATCH", "1")
    log({"step": 3})
    assert len(seen) == 2 and len(log) == 3
