"""What each catalogued action is tried with: one module an action, found by the action's name."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec

from tiphys.service.conform.trial import Trial
from tiphys.workflow_templates.catalogue import every


def module_of(action: str) -> str:
    """Name the module that holds an action's `TRIAL`."""
    return f"{__name__}.{action.replace('-', '_')}"


def _found() -> Iterator[tuple[str, Trial]]:
    for action in every():
        if find_spec(module_of(action.name)):
            yield action.name, import_module(module_of(action.name)).TRIAL


TRIALS: Mapping[str, Trial] = dict(_found())
"""By the action's name; an action without one is missing here, and a test says so."""
