"""Take a trained model elsewhere: plain weights, a GGUF file for llama.cpp, a Modelfile for Ollama."""

import shutil
import subprocess
import sys
from pathlib import Path

from lib.base.files import write_text
from lib.models.adapters import AdapterError, merge

CONVERTER = "convert_hf_to_gguf.py"  # llama.cpp's own


def export(adapter: Path, model: str, out: Path, converter: Path | None = None) -> list[Path]:
    """Write the merged weights to `out`; with a converter a GGUF and a Modelfile to `out/gguf` too; return the paths.

    Raises AdapterError as `merge` does, and when the conversion fails; the weights are there then.
    """
    merge(adapter, model, out)
    if converter is None:
        return [out]
    gguf = out / "gguf" / "model.gguf"  # apart: tokenizers that read a GGUF read what lies beside it first
    gguf.parent.mkdir()
    command = [sys.executable, str(converter), str(out), "--outfile", str(gguf), "--outtype", "auto"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not gguf.is_file():
        said = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise AdapterError(f"{converter}: no GGUF ({said}); the merged weights are in {out}")
    write_text(gguf.with_name("Modelfile"), modelfile(out))
    return [out, gguf, gguf.with_name("Modelfile")]


def find_converter(given: str = "") -> Path | None:
    """Return the path of CONVERTER: in the folder given, or the file itself; else on PATH, None where it is not there.

    Raises AdapterError for a path given that has none.
    """
    if not given:
        found = shutil.which(CONVERTER)
        return Path(found) if found else None
    path = Path(given) / CONVERTER if Path(given).is_dir() else Path(given)
    if not path.is_file():
        raise AdapterError(f"{path}: no such file; --llama-cpp takes a folder of llama.cpp, which holds {CONVERTER}")
    return path


def modelfile(weights: Path) -> str:
    """Return an Ollama Modelfile for `model.gguf`: the chat template around one question, and the end token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(weights)
    asked = [{"role": "user", "content": "{{ .Prompt }}"}]
    template = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    settings = f'PARAMETER temperature 0\nPARAMETER stop "{tokenizer.eos_token}"'
    return f'FROM ./model.gguf\nTEMPLATE """{template}"""\n{settings}\n'
