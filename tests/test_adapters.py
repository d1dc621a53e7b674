"""Adapter folders: merged, loaded by the engines, and what their cards say."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lib.__main__ import main
from lib.models.adapters import AdapterError, base_of, copy_adapter, merge, save_adapter
from lib.models.card import add_scores, read_facts, write_card
from lib.models.resolve import resolve
from lib.sampling import Request, SamplingParams, open_engine
from lib.stats.intervals import rate_over_tasks
from lib.training.sft import TARGET_MODULES

LAYER = "model.layers.3.mlp.down_proj"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A LoRA over all seven kinds of layer whose B is not zero, α/r = 2."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(resolve("embedded"), dtype=torch.bfloat16)
    model = get_peft_model(
        base, LoraConfig(r=4, lora_alpha=8, target_modules=list(TARGET_MODULES), task_type="CAUSAL_LM")
    )
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.15)
    folder = tmp_path_factory.mktemp("adapters") / "one"
    save_adapter(model, AutoTokenizer.from_pretrained(resolve("embedded")), folder)
    write_card(
        folder, "embedded", ["b", "a", "b"], {"lora_rank": 4, "learning_rate": 5e-5}, {"steps": 3, "first_loss": 1.25}
    )
    return folder


@pytest.fixture(scope="module")
def merged(adapter, tmp_path_factory):
    out = tmp_path_factory.mktemp("merged") / "plain"
    assert main(["merge", str(adapter), "--out", str(out)]) == 0
    return out


def weight(folder: Path, name: str) -> torch.Tensor:
    with safe_open(next(folder.glob("*.safetensors")), "pt") as file:
        return file.get_tensor(name).float()


def test_merged_weights_are_the_bases_plus_the_scaled_product(adapter, merged):
    a, b = (weight(adapter, f"base_model.model.{LAYER}.lora_{part}.weight") for part in "AB")
    expected = weight(resolve("embedded"), f"{LAYER}.weight") + 2 * b @ a
    assert torch.allclose(weight(merged, f"{LAYER}.weight"), expected, atol=2**-8 * float(expected.abs().max()))


def test_merged_weights_answer_as_base_and_adapter_do(adapter, merged):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(merged)("def add(a, b):", return_tensors="pt")["input_ids"]
    base = AutoModelForCausalLM.from_pretrained(resolve("embedded"), dtype=torch.float32)
    with torch.no_grad():
        theirs = PeftModel.from_pretrained(base, str(adapter))(ids).logits
        ours = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)(ids).logits
    assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.999


def test_merging_never_overwrites(adapter, tmp_path):
    with pytest.raises(AdapterError, match="is there already"):
        merge(adapter, "embedded", tmp_path)


@pytest.mark.parametrize("engine", ["openvino", "transformers"])
def test_both_engines_load_the_folder_and_it_changes_their_answers(adapter, engine):
    asked = [Request(0, "def add_numbers(a, b):", ("```",), 0)]
    texts = []
    for folder in (None, str(adapter)):
        opened = open_engine("embedded", folder, engine)
        texts += [completion.text for _, completion in opened.stream(asked, SamplingParams(0.0, 0.95, 12))]
        opened.close()
    assert texts[0] != texts[1]


def test_an_adapter_of_another_base_is_not_merged(adapter, tmp_path, capsys):
    other = tmp_path / "base"
    other.mkdir()
    save_file({f"{LAYER}.weight": torch.zeros(640, 1536)}, other / "model.safetensors")
    (other / "config.json").write_text("{}")
    assert main(["merge", str(adapter), "--model", str(other), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert f"not for {other}" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_names_no_base_asks_for_it(tmp_path, capsys):
    with pytest.raises(AdapterError, match="give --model"):
        base_of(tmp_path)
    assert main(["merge", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "give --model" in capsys.readouterr().err


def test_a_copy_replaces_what_was_there(adapter, tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/old").touch()
    copy_adapter(adapter, tmp_path / "copy")
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == sorted(
        path.name for path in adapter.iterdir()
    )


def test_the_card_names_the_tasks_their_digest_and_the_parameters(adapter):
    facts, text = read_facts(adapter), (adapter / "README.md").read_text()
    assert facts["task_ids"] == ["a", "b"] and facts["rows"] == 3
    assert facts["task_ids_sha256"] == hashlib.sha256(b"a\nb\n").hexdigest() and facts["task_ids_sha256"] in text
    assert "| learning_rate | 5e-05 |" in text and "`a`, `b`" in text
    assert text.startswith("---\nbase_model: HuggingFaceTB/SmolLM2-135M-Instruct\nlibrary_name: peft\n")
    assert base_of(adapter) == "embedded"


def test_scores_in_the_card_carry_their_interval_and_are_replaced_not_repeated(adapter, tmp_path):
    copy_adapter(adapter, tmp_path / "copy")
    for passed in ([[True], [False]], [[True], [True]]):
        add_scores(tmp_path / "copy", {"dev, greedy": rate_over_tasks(passed, protocol="greedy", tests="hidden")})
    scores = json.loads((tmp_path / "copy/training.json").read_text())["scores"]
    assert [(row["what"], row["rate"]) for row in scores] == [("dev, greedy", 1.0)] and scores[0]["lo"] < 0.9
    assert "| dev, greedy | 100.0 % [34.2, 100.0]" in (tmp_path / "copy/README.md").read_text()
