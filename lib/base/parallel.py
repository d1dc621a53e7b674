"""One function over many parts: in this process, or on the machines of a Ray cluster.

What comes back comes in any order. A part whose worker dies is done again, so it has to be one that may be done twice.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lib.base.errors import WorkbookError
from lib.base.files import ROOT, cache_dir

Machines = Callable[
    [Callable[[Any], Any], Iterable[Any]], Iterator[Any]
]  # (function, parts) -> the results, in any order

IN_FLIGHT = 1000  # parts handed to Ray at a time
RETRIES = 5  # workers that may die over one part
RAY = "ray==2.60.0"


class ClusterError(WorkbookError):
    """Machines that cannot be used; the message says what is missing."""


def machines(address: str) -> Machines:
    """Return a map over the Ray cluster at `address` ("host:port" or "auto"), or Python's `map` without an address.

    Raises ClusterError where Ray is not installed.
    """
    return over_ray(address) if address else map


def over_ray(address: str) -> Machines:
    """A worker for each GPU of the cluster, or for each machine where there are none: an engine uses every core it may.

    This repository and its environment have the same path on every machine; models are converted into each one's cache
    folder. Raises ClusterError where Ray is not installed or, when parts are handed out, the cluster does not answer.
    """
    ray = _ray()

    def run(function: Callable[[Any], Any], parts: Iterable[Any]) -> Iterator[Any]:
        environment = {"env_vars": {"PYTHONPATH": str(ROOT), "WORKBOOK_CACHE": str(cache_dir())}}
        try:
            ray.init(address=address, runtime_env=environment, log_to_driver=False)
        except ConnectionError as error:
            raise ClusterError(f"{address}: no Ray cluster answers there ({error})") from None
        try:
            remote = ray.remote(_apply).options(max_retries=RETRIES, **share(ray.nodes()))
            shared, waiting = ray.put(function), iter(parts)
            flying = [remote.remote(shared, part) for part in itertools.islice(waiting, IN_FLIGHT)]
            while flying:
                done, flying = ray.wait(flying)
                yield ray.get(done[0])
                flying += [remote.remote(shared, part) for part in itertools.islice(waiting, 1)]
        finally:
            ray.shutdown()

    return run


def _apply(function: Callable[[Any], Any], part: Any) -> Any:
    return function(part)


def share(nodes: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Return what one worker reserves: one GPU with its part of the cores, or all cores of the smallest machine."""
    there = [node["Resources"] for node in nodes if node["Alive"]]
    with_gpu = [node for node in there if node.get("GPU")]
    if with_gpu:
        return {"num_gpus": 1, "num_cpus": min(node["CPU"] // node["GPU"] for node in with_gpu)}
    return {"num_cpus": min((node["CPU"] for node in there if node.get("CPU")), default=1)}


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ClusterError(f"many machines: Ray is not installed here; pip install {RAY}") from None
    return ray
