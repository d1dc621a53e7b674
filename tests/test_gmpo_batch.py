"""What a batch becomes and what a run may be set to: hand-computed, without a model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from lib.base.progress import Log
from lib.gmpo.advantages import Advantages
from lib.gmpo.batch import all_advantages, batch_diagnostics, batch_weights, equal_rewards_cause
from lib.gmpo.config import PolyCodeConfig
from lib.gmpo.neighbourhoods import PromptBank, prompt_statistics
from lib.gmpo.rollouts import RolloutLedger, SandboxReward
from lib.gmpo.run import run_config
from lib.gmpo.trainer import Rolled
from lib.mining.ledger import Ledger
from lib.models.resolve import resolve
from lib.sampling import sample_seed
from lib.sandbox import Status, Verdict
from lib.tasks.prompts import build_prompt
from lib.tasks.task import read_tasks

STARTER = Path(__file__).resolve().parents[1] / "data" / "starter_bn.jsonl"

SMALL: dict[str, Any] = {"steps": 1, "prompts_per_batch": 4, "group_size": 8, "output_dir": "unused"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"advantage_estimator": "ppo"}, "choose one of gmpo, grpo, dr_grpo, rloo, batch, group_batch, james_stein"),
        ({"ratio": "gspo"}, "choose one of sequence, sequence_mean, token"),
        ({"group_size": 1, "advantage_estimator": "rloo"}, "nothing in a group to compare"),
        ({"group_size": 1, "refill": 2}, "nothing in a group to compare"),
        ({"group_size": 0}, "group_size=0"),
        ({"encoder": "text"}, "choose one of policy, base"),
        ({"prompts_per_batch": 1}, "pooling needs two, a bank"),
        ({"temperature": 0}, "temperature=0: should be above 0"),
        ({"rows_per_pass": 3}, "does not divide"),
        ({"steps": 0}, "steps=0"),
        ({"tau": -0.1}, "tau=-0.1"),
        ({"neighbours": 0.5}, "neighbours=0.5"),
        ({"neighbours": 4.5}, "neighbours=4.5: a batch and the bank hold 4 prompts"),
        ({"refill": -1}, "refill=-1"),
        ({"correction": "turns"}, "choose one of none, token, sequence"),
        ({"correction": "token"}, 'set ratio="token"'),
        ({"kl_reference": "new"}, "choose one of base, start, old, refreshed"),
        ({"kl_level": "word"}, "choose one of token, sequence"),
        ({"kl_refresh": 0}, "kl_refresh=0"),
        ({"gamma": 0.0}, "gamma=0.0"),
        ({"advantage_delta": 0.0}, "advantage_delta=0.0"),
        ({"lam": float("nan")}, "lam=nan"),
        ({"epsilon": 1.0}, "epsilon=1.0"),
        ({"beta_final": 0.1}, "annealing starts from beta"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_config(**SMALL | changes)


def test_one_prompt_a_batch_is_allowed_where_nothing_is_pooled() -> None:
    for changes in ({"advantage_estimator": "grpo"}, {"neighbours": 1}, {"bank_size": 8}):
        assert run_config(**SMALL | changes | {"prompts_per_batch": 1}).rows == 8


def test_estimators_differ_by_name_alone() -> None:
    """One right of four in the first group, three in the second; a uniform pool of both is the whole batch."""
    rewards = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 0]])
    by_name, _ = all_advantages(rewards, torch.zeros(2, 4), torch.full((2, 2), 0.5), lam=0.0)
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
    parts = Advantages(factor, factor, log_probs + 3.5, factor, factor)
    row = batch_diagnostics(rewards, log_probs, -log_probs, {"gmpo": rewards, "grpo": 2 * rewards}, parts)
    assert row["reward"] == 0.5
    assert row["solved"] == pytest.approx(2 / 3) and row["mixed_outcome"] == pytest.approx(1 / 3)
    assert row["amplified"] == pytest.approx(1 / 6) and row["amplification"] == 2.0
    assert row["l_hat_right"] == pytest.approx(1.5) and row["l_hat_wrong"] == pytest.approx(-1.5)
    assert row["advantage_var_grpo"] == pytest.approx(1.0) and row["advantage_mean_gmpo"] == 0.5
    assert row["length_log_prob_correlation"] == pytest.approx(-1)


def test_the_cause_of_equal_rewards_is_named() -> None:
    assert "too hard" in equal_rewards_cause(0.0)
    assert "too easy" in equal_rewards_cause(1.0)
    assert "same share" in equal_rewards_cause(0.5)


def test_groups_of_one_are_pooled_with_their_neighbours() -> None:
    config = run_config(**SMALL | {"group_size": 1})
    assert (config.num_generations, config.rows) == (1, 4)
    by_name, _ = all_advantages(torch.tensor([[1.0], [0.0]]), torch.zeros(2, 1), torch.full((2, 2), 0.5), lam=0.0)
    assert by_name["gmpo"].flatten().tolist() == pytest.approx([1, -1], abs=1e-5)
    assert not by_name["grpo"].any() and not {"rloo", "james_stein"} & set(by_name)


def test_kl_weight_is_annealed_linearly() -> None:
    assert run_config(**SMALL, beta=0.2).beta_at(0.7) == 0.2
    assert run_config(**SMALL, beta=0.2, beta_final=0.0).beta_at(0.5) == pytest.approx(0.1)


def test_every_setting_of_the_paper_reaches_the_advantages() -> None:
    """Two prompts that are near, one that is far; each setting away from its default changes something."""
    rewards = torch.tensor([[1.0, 0], [1, 1], [0, 0]])
    log_probs, h = torch.tensor([[-4.0, -2], [-1, -3], [-6, -2]]), torch.tensor([[1.0, 0], [1, 0.1], [0, 1]])

    def advantages(**changes: Any) -> torch.Tensor:
        config = run_config(**SMALL | {"neighbours": 1.8} | changes)
        w, _ = batch_weights(h, config.neighbours, config.tau)
        return all_advantages(rewards, log_probs, w, **config.sbam)[0]["gmpo"]

    default = advantages()
    for changes in ({"tau": 5.0}, {"lam": 0.1}, {"gamma": 2.0}, {"neighbours": 1.2}, {"advantage_delta": 0.1}):
        assert not torch.allclose(advantages(**changes), default, atol=1e-3), changes


def test_a_config_made_as_trl_makes_its_own_is_complete() -> None:
    config = PolyCodeConfig(output_dir="unused", use_cpu=True, bf16=False, num_generations=4, lam=0.1)
    assert (config.rows, config.sbam["lam"], config.disable_dropout, config.top_p) == (8, 0.1, True, 1.0)


def test_what_a_batch_pools_over_is_reported() -> None:
    """Six prompts of which each has one twin: at two neighbours, τ is so small that twins share everything."""
    h = torch.eye(3)[[0, 0, 1, 1, 2, 2]]
    w, pooled = batch_weights(h, 2.0001)
    assert pooled["effective_neighbours"] == pytest.approx(2.0001, abs=1e-4)
    assert pooled["own_weight"] == pytest.approx(0.5, abs=1e-3) and w[0, 1] == pytest.approx(0.5, abs=1e-3)
    assert batch_weights(h, 2.0, tau=float("inf"))[1]["effective_neighbours"] == pytest.approx(6)
    assert batch_weights(h, 2.0, tau=float("inf"))[1]["tau"] == float("inf")


def test_past_prompts_are_columns_of_the_weights_and_change_the_advantages() -> None:
    rewards, log_probs, h = torch.tensor([[1.0, 0], [0, 0]]), torch.tensor([[-1.0, -2], [-3, -4]]), torch.eye(2)
    bank = PromptBank(8)
    bank.push(prompt_statistics(torch.ones(3, 2), torch.zeros(3, 2), torch.rand(3, 2)))
    w, _ = batch_weights(h, 3.0, bank=bank)
    assert w.shape == (2, 5)
    with_bank, _ = all_advantages(rewards, log_probs, w, bank=bank, lam=0.5)
    alone, _ = all_advantages(rewards, log_probs, batch_weights(h, 1.5)[0], lam=0.5)
    assert not torch.allclose(with_bank["gmpo"], alone["gmpo"], atol=0.1)
    assert torch.equal(with_bank["grpo"], alone["grpo"])


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


# ---- rollouts in the ledger


def test_every_completion_is_an_attempt_with_its_step_and_prompts_have_their_statistics(tmp_path: Path) -> None:
    """Two prompts, two completions each, by hand; learning the step again repeats no row."""
    tokenizer = AutoTokenizer.from_pretrained(resolve("embedded"))
    tasks = [task for task in read_tasks(STARTER) if task.split == "train"][:2]
    prompts = [build_prompt(task, tokenizer) for task in tasks]
    config = run_config(steps=1, prompts_per_batch=2, group_size=2, rows_per_pass=4)
    ledger = Ledger(tmp_path / "run" / "attempts" / "gmpo.jsonl")
    judge, statistics = SandboxReward(None, tasks, prompts), tmp_path / "gmpo.prompts.jsonl"  # type: ignore[arg-type]
    right, wrong = Verdict(Status.SUCCESS, 8, 8, exit_code=0), Verdict(Status.TIMEOUT, 1, 8, stderr_head="slow")
    names = [task.task_id for task in tasks for _ in range(2)]
    judge.judged = list(zip(names, ["    a", "    b", "    c", "    d"], [right, wrong, wrong, right], strict=True))
    shape = torch.arange(4.0).view(2, 2)
    rolled = Rolled(3, torch.tensor([[1.0, 0], [0, 1]]), -shape, torch.full((2, 2), 5), shape / 4)
    for _ in range(2):
        RolloutLedger(ledger, judge, config, model="m", adapter="rsft", statistics=statistics)(rolled)
    rows = list(ledger)
    assert [(row.task_id, row.draw, row.step, row.status) for row in rows] == [
        (names[0], 4, 3, "success"), (names[1], 5, 3, "timeout"),
        (names[2], 4, 3, "timeout"), (names[3], 5, 3, "success"),
    ]  # fmt: skip
    assert [row.logprob_sum for row in rows] == [0, -1, -2, -3] and rows[1].stderr_head == "slow" and rows[0].finished
    assert rows[0].seed == sample_seed(config.seed, names[0], 4) and rows[0].run_id == "run"
    first = json.loads(statistics.read_text().splitlines()[0])
    assert first == {"step": 3, "task_id": names[0], "n": 2, "mean_r": 0.5, "var_r": 0.25, "mean_l": -0.5,
                     "var_l": 0.25, "advantages": [0.0, 0.25]}  # fmt: skip
