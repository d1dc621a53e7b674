"""Time and memory of CGMN with |B| from 8 to 8,192 prompts, over all neighbours and over the nearest K.

Each size runs in a process of its own, so that its peak memory is its own: the high-water mark less what was
resident before, inputs included. Times are CPU time on one thread. The search for neighbours is exact and
looks at all |B|² cosines in blocks; it is timed apart from the statistics, because only those can cost |B|·K.
Growth is the slope of log cost over log |B|, from a quarter of the largest size to it: 2 is |B|², 1 is |B|·K.

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

SIZES = tuple(2**power for power in range(3, 14))
QUICK_SIZES = (8, 128, 512, 2048)
TOP_K = 32
Found = dict[tuple[str, int], dict[str, float]]  # (mode, B) -> what `measure` found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--quick", action="store_true", help=f"sizes {QUICK_SIZES} only, under a minute")
    parser.add_argument("--group-size", type=int, default=16, metavar="G")
    parser.add_argument("--features", type=int, default=256, metavar="D", help="size of an embedding")
    parser.add_argument("--child", nargs=2, type=int, metavar=("B", "K"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        size, top_k = options.child
        print(json.dumps(measure(size, top_k, options.group_size, options.features)))
        return
    report = compare(QUICK_SIZES if options.quick else SIZES, options.group_size, options.features)
    show(report, options.json)


def compare(sizes: tuple[int, ...], group_size: int, features: int) -> dict[str, Any]:
    """Both modes at every size, and the step the trainer takes most: B = 64, G = 16, d = 4096."""
    rows: list[dict[str, Any]] = []
    found: Found = {}
    for mode, top_k in (("all", 0), (f"top{TOP_K}", TOP_K)):
        for size in sizes:
            found[mode, size] = child(size, top_k, group_size, features)
            rows += [row(f"{mode}/B={size}/{name}", value) for name, value in found[mode, size].items()]
        rows += growth_rows(mode, sizes, found)
    step = child(64, 0, 16, 4096)
    rows.append(row("trainer step B=64 G=16 d=4096/total_ms", step["total_ms"]))
    large = sizes[-1]
    ratios = {
        f"top{TOP_K}/all {name} B={large}": found[f"top{TOP_K}", large][name] / found["all", large][name]
        for name in ("total_ms", "statistics_ms", "peak_mib")
    }
    return {"benchmark": "cgmn", "rows": rows, "ratios": ratios}


def child(size: int, top_k: int, group_size: int, features: int) -> dict[str, float]:
    """`measure` in a fresh interpreter."""
    shape = ["--group-size", str(group_size), "--features", str(features)]
    command = [sys.executable, __file__, "--child", str(size), str(top_k), *shape]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"B={size}, K={top_k} failed: {done.stderr.strip().splitlines()[-1]}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


def measure(size: int, top_k: int, group_size: int, features: int) -> dict[str, float]:
    """CPU milliseconds of search, of statistics with SBAM, of both; peak memory in MiB. One thread."""
    import torch

    from lib.gmpo import advantages as gmpo
    from lib.gmpo import neighbourhoods

    torch.set_num_threads(1)
    stream = torch.Generator().manual_seed(0)
    warm = torch.rand(2, group_size, generator=stream)
    gmpo.gmpo_advantages(warm, warm, torch.randn(2, 8, generator=stream), tau=0.1, lam=1.0, top_k=top_k or None)
    before = resident("VmRSS")
    h = torch.randn(size, features, generator=stream)
    rewards = (torch.rand(size, group_size, generator=stream) < 0.3).float()
    log_probs = -100 * torch.rand(size, group_size, generator=stream)

    def search() -> Any:
        return neighbourhoods.nearest_weights(h, 0.1, top_k) if top_k else neighbourhoods.neighbourhood_weights(h, 0.1)

    def pool(w: Any) -> Any:
        return gmpo.sbam(gmpo.meta_advantages(rewards, w), gmpo.likelihood_z(log_probs, w), 1.0)

    once = clock(lambda: pool(search()))
    peak = resident("VmHWM") - before
    repeats = max(1, min(20, int(1.0 / max(once, 1e-6))))
    w = search()
    searched = statistics.median(clock(search) for _ in range(repeats))
    pooled = statistics.median(clock(lambda: pool(w)) for _ in range(repeats))
    times = {"search_ms": searched, "statistics_ms": pooled, "total_ms": searched + pooled}
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


def growth_rows(mode: str, sizes: tuple[int, ...], found: Found) -> list[dict[str, Any]]:
    """Slope of log cost over log |B| between the largest size and a quarter of it."""
    large, small = sizes[-1], sizes[-1] // 4
    rows = []
    for name, value in found[mode, large].items():
        base = found[mode, small][name]
        if name != "peak_mib" or base > 1:
            slope = math.log(value / base) / math.log(large / small)
            rows.append(row(f"{mode}/growth of {name} B={small}..{large}", slope, "exponent"))
    return rows


def row(name: str, value: float, unit: str = "") -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit or ("MiB" if name.endswith("mib") else "ms")}


if __name__ == "__main__":
    main()
