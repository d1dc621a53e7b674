"""What benchmarks share: a process a run, how far turns lie apart, and a table or one JSON object at the end."""

import dataclasses
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def apart(script: str, *arguments: str) -> dict[str, float]:
    """What a benchmark, called again with `arguments`, prints last. Raises CalledProcessError when it fails."""
    done = subprocess.run([sys.executable, script, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def spread(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """[least, most] of over / under, turn by turn."""
    ratios = [float(f"{a / b:.3g}") for a, b in zip(over, under, strict=True)]
    return [min(ratios), max(ratios)]


def machine() -> str:
    """What measured, in one line without a name of host or user."""
    from lib.run.doctor import device, platform_facts

    facts, unit = platform_facts(), device()
    gpu = unit["name"] if unit["kind"] == "cuda" else "no GPU"
    cores = f"{facts['cores']} × {facts['processor']}"
    return f"{cores}, {facts['memory_gb']:.0f} GB, {gpu}, {facts['system']}, Python {platform.python_version()}"


def sft_settings(**changes: Any) -> Any:
    """Preset reference's settings of fine-tuning, with changes; nothing is reported to a tracker."""
    from lib.run.presets import parameters
    from lib.training.sft import SftSettings

    names = {field.name for field in dataclasses.fields(SftSettings)} - {"seed", "report_to"}
    ours = {name: value for name, value in parameters("reference")["03_sft"].items() if name in names}
    return SftSettings(**ours | changes)


def show(result: dict[str, Any], as_json: bool) -> None:
    """Print rows, ratios with their spread and the machine: a table, or one JSON object."""
    result = result | {"machine": machine()}
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
        return
    between = {  # of one turn there is nothing to tell
        name: " to ".join(f"{end:g}" for end in ends)
        for name, ends in result.get("spread", {}).items()
        if ends[0] < ends[1]
    }
    width = max(len(name) for name in [*(row["name"] for row in result["rows"]), *result["ratios"]])
    for row in result["rows"]:
        print(f"{row['name']:<{width}} {row['value']:>12.6g} {row['unit']}")
    for name, ratio in result["ratios"].items():
        print(f"{name:<{width}} {ratio:>12.4g} × {between.get(name, '')}".rstrip())
    print(result["machine"])
