"""Every ratio to a peer that `results/` holds, as one table, with the command that measures it again.

python benchmarks/ratios.py [--json]
"""

import argparse
import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
COMMANDS = {
    "adaptive": "adaptive.py --json",
    "decontamination": "decontamination.py --json",
    "end_to_end": "end_to_end.py --json",
    "estimators": "estimators.py --json",
    "gmpo_step": "gmpo_step.py --json",
    "ledger": "ledger.py --json",
    "mining": "mining.py --rounds 4 --json",
    "sampling": "sampling.py --samples 1000 --json",
    "sandbox": "sandbox.py --rounds 6 --peers PYTHON --json",
    "sft": "sft.py --json",
}


def ratios() -> list[dict[str, Any]]:
    """One row a ratio: benchmark, ratio, value, [least, most] of its turns where they were kept, command."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}
    return [
        {
            "benchmark": name,
            "ratio": ratio,
            "value": float(f"{value:.3g}"),
            "spread": result.get("spread", {}).get(ratio),
            "command": f"python benchmarks/{COMMANDS[name]}",
        }
        for name, result in found.items()
        if name in COMMANDS
        for ratio, value in result["ratios"].items()
    ]


def main() -> None:
    """Print the table, or with --json one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    rows = ratios()
    if parser.parse_args().json:
        print(json.dumps({"benchmark": "ratios", "rows": rows}))
        return
    print("| benchmark | ratio | value | least to most | measured by |\n|---|---|---|---|---|")
    for row in rows:
        between = " to ".join(f"{end:.3g}" for end in row["spread"] or [])
        print(f"| {row['benchmark']} | {row['ratio']} | {row['value']:g} | {between} | `{row['command']}` |")


if __name__ == "__main__":
    main()
