"""What crosses by name, and how a change made on the other side is made on this one."""

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


def trusted_name(value: Any) -> str:
    """ "module:name" of something the standard library exports, else empty."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if not isinstance(module, str) or not isinstance(name, str):
        owner = getattr(value, "__objclass__", None)  # a method of a builtin type, such as str.upper
        return f"{owner.__module__}:{name}" if isinstance(owner, type) and owner.__module__ == "builtins" else ""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is value and module in sys.stdlib_module_names else ""


def patch(old: Any, new: Any, shared: Mapping[str, type] = MappingProxyType({})) -> None:
    """Make `old` read like `new` in place, keeping the identity of nested containers that still match."""
    if type(old) is not type(new):
        return
    if isinstance(old, list):
        keep = len(old) == len(new)
        old[:] = [_patched(old[i], item) if keep else item for i, item in enumerate(new)]
    elif isinstance(old, dict):
        merged = {key: _patched(old.get(key), item) for key, item in new.items()}
        old.clear()
        old.update(merged)
    elif isinstance(old, set):
        old.intersection_update(new)
        old.update(new)
    elif isinstance(old, bytearray):
        old[:] = new
    elif hasattr(old, "appendleft"):
        old.clear()
        old.extend(new)
    elif type(old).__module__ == "numpy" and old.shape == new.shape:
        old[...] = new
    elif shared.get(type(old).__name__) is type(old):
        old.__dict__.update(new.__dict__)


def _patched(old: Any, new: Any) -> Any:
    if type(old) is type(new) and isinstance(old, list | dict | set | bytearray):
        patch(old, new)
        return old
    return new
