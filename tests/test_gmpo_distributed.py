"""Two processes that exchange statistics of prompts learn what one process with all of them would."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from lib.gmpo.advantages import Memory  # noqa: E402
from lib.gmpo.batch import shared_advantages  # noqa: E402
from lib.gmpo.run import make_trainer  # noqa: E402
from lib.gmpo.settings import GmpoSettings  # noqa: E402
from lib.models.resolve import resolve  # noqa: E402
from lib.tasks.prompts import build_prompt  # noqa: E402
from lib.tasks.task import Task  # noqa: E402

PROMPTS, GROUP, BATCHES = 6, 4, 3
CASES = {
    "all prompts": GmpoSettings(),
    "nearest three": GmpoSettings(top_k=3),
    "half of the weight": GmpoSettings(mass=0.5),
    "with a memory": GmpoSettings(memory=8),
}


def batch(number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Binary rewards and log-probs (B, G), embeddings (B, 5)."""
    stream = torch.Generator().manual_seed(number)
    chance = torch.rand(PROMPTS, 1, generator=stream)
    rewards = (torch.rand(PROMPTS, GROUP, generator=stream) < chance).double()
    log_probs = -50 * torch.rand(PROMPTS, GROUP, generator=stream, dtype=torch.float64)
    return rewards, log_probs, torch.randn(PROMPTS, 5, generator=stream)


def learnt_from(settings: GmpoSettings, gather: object, rank: int, processes: int) -> list[dict[str, Tensor]]:
    """Every normaliser's advantages for one process's share of some batches in a row."""
    memory, found = Memory(settings.memory) if settings.memory else None, []
    for number in range(BATCHES):
        share = [part.chunk(processes)[rank] for part in batch(number)]
        found.append(shared_advantages(*share, settings, memory, gather, rank)[0])  # type: ignore[arg-type]
    return found


def one_of_two(folder: Path) -> None:
    """What is launched twice: accelerate's own gather over gloo, then a step of training; results in files."""
    from accelerate import Accelerator

    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    rank, processes = accelerator.process_index, accelerator.num_processes
    assert (processes, torch.distributed.get_backend()) == (2, "gloo")
    found = {name: learnt_from(settings, accelerator.gather, rank, 2) for name, settings in CASES.items()}
    torch.save(found, folder / f"{rank}.pt")
    train_a_step(folder, rank)


def train_a_step(folder: Path, rank: int) -> None:
    """Two prompts a process, one of each group right."""
    from transformers import AutoTokenizer

    tokenizer, rows = AutoTokenizer.from_pretrained(resolve("embedded")), list[dict[str, Any]]()
    names = ("double", "triple", "is_even", "is_odd")
    asked = [
        Task(n, "test", "train", f"Write `{n}(n)`.", "en", "python", "function", n, visible_tests=("assert True",))
        for n in names
    ]
    prompts = [build_prompt(task, tokenizer) for task in asked]
    settings = GmpoSettings(
        prompts_per_batch=2,
        group_size=2,
        rows_per_pass=2,
        steps=1,
        num_iterations=1,
        max_new_tokens=8,
        learning_rate=1e-3,
    )

    def reward(task_id: list[str], **_: Any) -> list[float]:
        return [float(row % 2 == name.startswith("is")) for row, name in enumerate(task_id)]

    trainer = make_trainer("embedded", folder / "start", prompts, settings, reward, folder / "work", rows.append)
    trainer.train()
    learnt = {name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    torch.save(
        {name.removeprefix("module."): weight.detach() for name, weight in learnt.items()}, folder / f"weights{rank}.pt"
    )
    (folder / f"rows{rank}.json").write_text(json.dumps(rows))


def save_start(folder: Path) -> None:
    """A small adapter that does nothing yet."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(resolve("embedded"), dtype=torch.bfloat16)
    get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(folder)


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that two launched processes have filled."""
    folder = tmp_path_factory.mktemp("ranks")
    save_start(folder / "start")
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--local-addr",
        "127.0.0.1",
        "--nproc-per-node",
        "2",
    ]
    done = subprocess.run([*launch, __file__, str(folder)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def two_processes(launched: Path) -> list[dict[str, list[dict[str, Tensor]]]]:
    return [torch.load(launched / f"{rank}.pt") for rank in (0, 1)]


def test_a_launched_step_leaves_both_processes_with_the_same_new_weights_and_is_told_once(launched: Path) -> None:
    weights, rows = ([load(rank) for rank in (0, 1)] for load in (
        lambda rank: torch.load(launched / f"weights{rank}.pt"),
        lambda rank: json.loads((launched / f"rows{rank}.json").read_text()),
    ))  # fmt: skip
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any(bool(weight.any()) for name, weight in weights[0].items() if "lora_B" in name)  # it began at 0
    assert [row["step"] for row in rows[0]] == [1] and not rows[1]
    assert rows[0][0]["reward"] == 0.5 and rows[0][0]["decidable"] == 1.0  # of all four prompts


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one_on_the_union(
    two_processes: list[dict[str, list[dict[str, Tensor]]]], case: str
) -> None:
    union = learnt_from(CASES[case], lambda tensor: tensor, 0, 1)
    for number, expected in enumerate(union):
        for name, advantages in expected.items():
            found = torch.cat([rank[case][number][name] for rank in two_processes])
            torch.testing.assert_close(found, advantages, atol=1e-6, rtol=0)


def test_another_process_changes_what_is_learnt(two_processes: list[dict[str, list[dict[str, Tensor]]]]) -> None:
    """Or the comparison above would hold for processes that do not talk."""
    alone = shared_advantages(*(part[:3] for part in batch(0)), GmpoSettings(), None, lambda tensor: tensor, 0)[0]
    together = two_processes[0]["all prompts"][0]
    for name in ("gmpo", "batch"):
        assert not torch.allclose(alone[name], together[name], atol=1e-3)
    for name in ("grpo", "dr_grpo", "rloo"):
        assert torch.equal(alone[name], together[name])


if __name__ == "__main__":
    one_of_two(Path(sys.argv[1]))
