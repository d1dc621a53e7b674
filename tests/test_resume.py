"""Which checkpoint a training goes on from after a kill or a power cut."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lib.training.resume import is_whole, last_checkpoint


def checkpoint(folder: Path) -> Path:
    """What a trainer leaves of a small adapter."""
    folder.mkdir(parents=True)
    save_file({"lora_A": torch.ones(64)}, folder / "adapter_model.safetensors")
    for name in ("optimizer.pt", "gmpo.pt", "rng_state.pth", "training_args.bin"):
        torch.save({"state": torch.ones(64)}, folder / name)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 1}))
    return folder


FILES = (
    "adapter_model.safetensors",
    "optimizer.pt",
    "gmpo.pt",
    "rng_state.pth",
    "training_args.bin",
    "trainer_state.json",
)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_short_file_of_any_kind_sends_the_training_to_the_checkpoint_before(
    name: str, share: float, tmp_path: Path
) -> None:
    older, newer = checkpoint(tmp_path / "checkpoint-9"), checkpoint(tmp_path / "checkpoint-10")
    assert last_checkpoint(tmp_path) == newer
    content = (newer / name).read_bytes()
    (newer / name).write_bytes(content[: int(len(content) * share)])
    assert last_checkpoint(tmp_path) == older and not newer.exists()


def test_a_byte_that_changed_is_found(tmp_path: Path) -> None:
    whole = checkpoint(tmp_path / "checkpoint-1")
    spoilt = shutil.copytree(whole, tmp_path / "checkpoint-2")
    content = bytearray((spoilt / "optimizer.pt").read_bytes())
    place = content.index(torch.ones(8).numpy().tobytes())
    content[place] ^= 1
    (spoilt / "optimizer.pt").write_bytes(content)
    assert is_whole(whole) and not is_whole(spoilt)
