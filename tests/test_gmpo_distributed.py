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


from lib.gmpo.batch import all_advantages, batch_weights  # noqa: E402
from lib.gmpo.run import make_trainer, run_config  # noqa: E402
from lib.models.resolve import resolve  # noqa: E402
from lib.tasks.prompts import build_prompt  # noqa: E402
from lib.tasks.task import Task  # noqa: E402

NAMES = ("double", "triple", "is_even", "is_odd")


def one_of_two(folder: Path) -> None:
    """What is launched twice: a step of training over gloo; results in files."""
    from accelerate import PartialState

    torch.set_num_threads(1)
    state = PartialState(cpu=True)
    assert (state.num_processes, torch.distributed.get_backend()) == (2, "gloo")
    train_a_step(folder, state.process_index)


def train_a_step(folder: Path, rank: int) -> None:
    """Two prompts a process, one of each group right."""
    from transformers import AutoTokenizer

    tokenizer, rows = AutoTokenizer.from_pretrained(resolve("embedded")), list[dict[str, Any]]()
    asked = [
        Task(n, "test", "train", f"Write `{n}(n)`.", "en", "python", "function", n, visible_tests=("assert True",))
        for n in NAMES
    ]
    prompts = [build_prompt(task, tokenizer) for task in asked]
    config = run_config(
        steps=1, prompts_per_batch=2, group_size=2, rows_per_pass=2, num_iterations=1, max_completion_length=8,
        learning_rate=1e-3, temperature=0.8, output_dir=str(folder / "work"),
    )  # fmt: skip

    def reward(task_id: list[str], **_: Any) -> list[float]:
        return [float(row % 2 == name.startswith("is")) for row, name in enumerate(task_id)]

    trainer = make_trainer("embedded", folder / "start", prompts, config, reward, rows.append)
    advantages = trainer._advantages

    def watched(*own: Tensor) -> Tensor:
        found = advantages(*own)
        torch.save({"own": own, "rewards": trainer._rewards, "found": found}, folder / f"batch{rank}.pt")
        return found

    trainer._advantages = watched  # type: ignore[method-assign]
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


@pytest.mark.slow
def test_a_launched_step_leaves_both_processes_with_the_same_new_weights_and_is_reported_once(launched: Path) -> None:
    weights, rows = ([load(rank) for rank in (0, 1)] for load in (
        lambda rank: torch.load(launched / f"weights{rank}.pt"),
        lambda rank: json.loads((launched / f"rows{rank}.json").read_text()),
    ))  # fmt: skip
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any(bool(weight.any()) for name, weight in weights[0].items() if "lora_B" in name)  # it began at 0
    assert [row["step"] for row in rows[0]] == [1] and not rows[1]
    assert rows[0][0]["reward"] == 0.5 and rows[0][0]["mixed_outcome"] == 1.0  # of all four prompts


@pytest.mark.slow
def test_two_processes_learn_what_one_would_from_the_union(launched: Path) -> None:
    """Each pools over its own two prompts and the other's: the advantages of all four, computed here once more."""
    parts = [torch.load(launched / f"batch{rank}.pt") for rank in (0, 1)]
    log_probs, _, h = (torch.cat([part["own"][place] for part in parts]) for place in range(3))
    w, _ = batch_weights(h, 2.0)
    by_name, _ = all_advantages(parts[0]["rewards"].sum(1).view(4, 2), log_probs.view(4, 2), w, lam=0.5)
    for part in parts:
        torch.testing.assert_close(part["found"], by_name["gmpo"].flatten(), atol=1e-6, rtol=0)
    alone, _ = batch_weights(h[:2], 2.0)
    separate, _ = all_advantages(parts[0]["rewards"].sum(1).view(4, 2)[:2], log_probs.view(4, 2)[:2], alone, lam=0.5)
    assert not torch.allclose(separate["gmpo"].flatten(), parts[0]["found"][:4], atol=1e-3)


if __name__ == "__main__":
    one_of_two(Path(sys.argv[1]))
