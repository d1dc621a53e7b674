"""Time and memory of CGMN with |B| from 8 to 4,096 prompts, each pooling over all.

Each size runs in a process of its own, so that its peak memory is its own: the high-water mark less what was
resident before, inputs included. Times are CPU time on one thread. `weights` compares the embeddings and solves tau for
four neighbours, which looks at the |B|² weights some fifty times; `statistics` are CGMN and SBAM with those weights.
Growth is the slope of log cost over log |B|, from a quarter of the largest size to it.

Memory below about 1 MiB is allocator noise; its growth is given only above that.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import show  # noqa: E402

SIZES = tuple(2**power for power in range(3, 13))
QUICK_SIZES = (8, 128, 512)
NEIGHBOURS = 4.0
Found = dict[int, dict[str, float]]  # B -> what `measure` found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--quick", action="store_true", help=f"sizes {QUICK_SIZES} only, under a minute")
    parser.add_argument("--group-size", type=int, default=16, metavar="G")
    parser.add_argument("--features", type=int, default=256, metavar="D", help="size of an embedding")
    parser.add_argument("--child", type=int, metavar="B", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options.group_size, options.features)))
        return
    report = compare(QUICK_SIZES if options.quick else SIZES, options.group_size, options.features)
    show(report, options.json)


def compare(sizes: tuple[int, ...], group_size: int, features: int) -> dict[str, Any]:
    """Every size, and the step the trainer takes most: B = 64, G = 16, d = 4096."""
    found = {size: child(size, group_size, features) for size in sizes}
    rows = [row(f"B={size}/{name}", value) for size in sizes for name, value in found[size].items()]
    rows += growth_rows(sizes, found)
    rows.append(row("trainer step B=64 G=16 d=4096/total_ms", child(64, 16, 4096)["total_ms"]))
    large = found[sizes[-1]]
    ratios = {f"statistics/total ms B={sizes[-1]}": large["statistics_ms"] / large["total_ms"]}
    return {"benchmark": "cgmn", "rows": rows, "ratios": ratios}


def child(size: int, group_size: int, features: int) -> dict[str, float]:
    """`measure` in a fresh interpreter."""
    shape = ["--group-size", str(group_size), "--features", str(features)]
    command = [sys.executable, __file__, "--child", str(size), *shape]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"B={size} failed: {done.stderr.strip().splitlines()[-1]}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


def measure(size: int, group_size: int, features: int) -> dict[str, float]:
    """CPU milliseconds of weights, of statistics with SBAM, of both; peak memory in MiB. One thread."""
    import torch

    from lib.gmpo import advantages as gmpo
    from lib.gmpo.batch import batch_weights

    torch.set_num_threads(1)
    stream = torch.Generator().manual_seed(0)
    warm = torch.rand(2, group_size, generator=stream)
    gmpo.gmpo_advantages(warm, warm, batch_weights(torch.randn(2, 8, generator=stream), 1.5)[0], lam=1.0)
    before = resident("VmRSS")
    h = torch.randn(size, features, generator=stream)
    rewards = (torch.rand(size, group_size, generator=stream) < 0.3).float()
    log_probs = -100 * torch.rand(size, group_size, generator=stream)

    def search() -> Any:
        return batch_weights(h, NEIGHBOURS)[0]

    def pool(w: Any) -> Any:
        return gmpo.sbam(gmpo.meta_advantages(rewards, w), gmpo.likelihood_z(log_probs, w), 1.0)

    once = clock(lambda: pool(search()))
    peak = resident("VmHWM") - before
    repeats = max(1, min(20, int(1.0 / max(once, 1e-6))))
    w = search()
    searched = statistics.median(clock(search) for _ in range(repeats))
    pooled = statistics.median(clock(lambda: pool(w)) for _ in range(repeats))
    times = {"weights_ms": searched, "statistics_ms": pooled, "total_ms": searched + pooled}
    return {name: 1000 * seconds for name, seconds in times.items()} | {"peak_mib": peak}


def clock(work: Callable[[], Any]) -> float:
    """CPU seconds that `work` takes: on one thread, what the wall shows on an idle machine."""
    start = time.process_time()
    work()
    return time.process_time() - start


def resident(field: str) -> float:
    """VmRSS or VmHWM of this process in MiB; Linux only."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"/proc/self/status has no {field}: this benchmark needs Linux")


def growth_rows(sizes: tuple[int, ...], found: Found) -> list[dict[str, Any]]:
    """Slope of log cost over log |B| between the largest size and a quarter of it."""
    large, small = sizes[-1], sizes[-1] // 4
    rows = []
    for name, value in found[large].items():
        base = found[small][name]
        if name != "peak_mib" or base > 1:
            slope = math.log(value / base) / math.log(large / small)
            rows.append(row(f"growth of {name} B={small}..{large}", slope, "exponent"))
    return rows


def row(name: str, value: float, unit: str = "") -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit or ("MiB" if name.endswith("mib") else "ms")}


if __name__ == "__main__":
    main()
