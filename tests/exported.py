"""Every metric of ours, found in the code itself, so that no page and no query forgets one.

A metric is made by a class that takes a `registry`, or at a module's import in the client's own.
"""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.registry import Collector

ROOT = Path(__file__).parents[1]
PACKAGES = ("service", "agents", "workflow_templates", "policies")
ENDINGS = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
    "gauge": ("",),
}


def exported() -> set[str]:
    """Give the names under which they are stored; raises `KeyError` for a type not in `ENDINGS`."""
    registry = CollectorRegistry()
    for module in _modules():
        for _, made in inspect.getmembers(module, inspect.isclass):
            if made.__module__ == module.__name__ and makes_metrics(made):
                made(registry)
    families = [*registry.collect()]
    families += [one for one in REGISTRY.collect() if one.name.startswith("tiphys_")]
    return {family.name + ending for family in families for ending in ENDINGS[family.type]}


def _modules() -> Iterator[ModuleType]:
    """Import each module that knows the client library."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "prometheus_client" in path.read_text():
                parts = path.relative_to(ROOT).with_suffix("").parts
                yield importlib.import_module(".".join(("tiphys", *parts)))


def makes_metrics(made: type) -> bool:
    """Whether a class makes metrics, and is no mere base of such."""
    finished = getattr(made, "collect", None) is not Collector.collect
    return finished and "registry" in inspect.signature(made).parameters
