"""Keeps `import openai` from loading what a gateway never uses.

Of the SDK's import time most is `openai.types`: thousands of pydantic models for APIs other than this one. Here that
package, and the largest inside it, are put in place with their `__init__` not yet run; the first attribute asked of one
runs it (PEP 562), so nothing of the SDK is missing, only later. Measured in docs/performance.md.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Final

DEFERRED: Final = ("openai.types", "openai.types.responses")


def defer_sdk_types() -> None:
    """Call before the first `import openai`; does nothing once the SDK has been imported in full."""
    for name in DEFERRED:
        if name not in sys.modules:
            _defer(name)


def _defer(name: str) -> None:
    spec = _find(name)
    if spec is None or spec.loader is None:  # another layout of the SDK: import it the ordinary way
        return
    loader, module = spec.loader, importlib.util.module_from_spec(spec)

    def load(attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        del module.__dict__["__getattr__"]
        loader.exec_module(module)
        return getattr(module, attribute)

    module.__dict__["__getattr__"] = load
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent in sys.modules:  # as the import of a submodule does
        setattr(sys.modules[parent], child, module)


def _find(name: str) -> ModuleSpec | None:
    """The spec of a package, without importing its parent as `importlib.util.find_spec` would."""
    parent = name.rpartition(".")[0]
    known: ModuleType | None = sys.modules.get(parent)
    if known is not None:
        return PathFinder.find_spec(name, known.__path__)
    found = importlib.util.find_spec(parent) if "." not in parent else None
    return PathFinder.find_spec(name, found.submodule_search_locations) if found else None
