"""Adapter folders: merged, loaded by the engines, and what their cards say."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lib.__main__ import main
from lib.models.adapters import AdapterError, base_of, copy_adapter, merge, save_adapter
from lib.models.card import add_scores, read_facts, write_card
from lib.models.export import CONVERTER, export, find_converter, modelfile
from lib.models.resolve import resolve
from lib.sampling import Request, SamplingParams, open_engine, sample
from lib.stats.intervals import rate_over_tasks
from lib.tasks.prompts import build_prompt
from lib.tasks.task import read_tasks
from lib.training.sft import TARGET_MODULES

TASKS = read_tasks(Path(__file__).parents[1] / "data" / "starter_bn.jsonl")[:3]
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
    assert main(["export", str(adapter), "--out", str(out)]) == 0
    return out


def weight(folder: Path, name: str) -> torch.Tensor:
    with safe_open(next(folder.glob("*.safetensors")), "pt") as file:
        return file.get_tensor(name).float()


def test_merged_weights_are_the_bases_plus_the_scaled_product(adapter, merged):
    a, b = (weight(adapter, f"base_model.model.{LAYER}.lora_{part}.weight") for part in "AB")
    expected = weight(resolve("embedded"), f"{LAYER}.weight") + 2 * b @ a
    assert torch.allclose(weight(merged, f"{LAYER}.weight"), expected, atol=2**-8 * float(expected.abs().max()))


def greedy(model, folder=None):
    """Greedy answers to three tasks, nothing quantised."""
    engine = open_engine(model, folder, "transformers")
    prompts = [build_prompt(task, engine.tokenizer) for task in TASKS]
    drawn = sample(engine, prompts, 1, SamplingParams(0.0, max_new_tokens=12))
    engine.close()
    return [completion.text for (completion,) in drawn]


def test_the_exported_model_s_greedy_answers_are_the_adapter_s(adapter, merged):
    assert greedy("embedded", str(adapter)) == greedy(str(merged)) != greedy("embedded")


def test_where_llama_cpp_is_missing_one_line_says_so(adapter, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["export", str(adapter), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("no GGUF: convert_hf_to_gguf.py is not on PATH")
    assert main(["export", str(adapter), "--out", str(tmp_path / "two"), "--llama-cpp", str(tmp_path)]) == 1
    assert "convert_hf_to_gguf.py: no such file" in capsys.readouterr().err and not (tmp_path / "two").exists()


def test_a_converter_that_fails_is_quoted_and_the_weights_stay(adapter, tmp_path):
    (tmp_path / CONVERTER).write_text("raise SystemExit('an architecture nobody knows')")
    with pytest.raises(AdapterError, match="an architecture nobody knows"):
        export(adapter, "embedded", tmp_path / "out", find_converter(str(tmp_path)))
    assert (tmp_path / "out" / "config.json").is_file()


@pytest.mark.skipif(not shutil.which(CONVERTER), reason="llama.cpp's converter is not on PATH: no GGUF was made")
def test_a_gguf_made_by_llama_cpp_answers_as_the_adapter_does(adapter, merged, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBOOK_CACHE", str(tmp_path))
    _, gguf, _ = export(adapter, "embedded", tmp_path / "out", find_converter())
    assert greedy(str(gguf)) == greedy(str(merged))


def test_the_modelfile_asks_as_training_did(merged):
    text = modelfile(merged)
    assert text.startswith("FROM ./model.gguf\n") and 'PARAMETER stop "<|im_end|>"' in text
    assert '<|im_start|>user\n{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n"""' in text


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
    assert main(["export", str(adapter), "--model", str(other), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert f"not for {other}" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_names_no_base_asks_for_it(tmp_path, capsys):
    with pytest.raises(AdapterError, match="give --model"):
        base_of(tmp_path)
    (tmp_path / "adapter_config.json").touch()
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
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
