"""What the chart ships rendered is what the code renders now."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def load(name: str) -> ModuleType:
    """Import a tool by its file: `tools` is no package of the wheel."""
    path = ROOT / "tools" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tools_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


CHART = load("chart")
FILES = CHART.files()


@pytest.mark.parametrize("name", sorted(FILES))
def test_rendered_files_are_current(name: str) -> None:
    path = CHART.FILES / name
    assert path.exists(), "run `make chart`"
    assert path.read_text() == FILES[name], "run `make chart`"


def test_a_template_that_left_the_catalogue_may_stay_for_a_release_and_nothing_else_may() -> None:
    shipped = {
        str(path.relative_to(CHART.FILES))
        for path in CHART.FILES.rglob("*.yaml")
        if path.read_text().startswith("# Rendered by")
    }
    assert {name for name in shipped - {*FILES} if not name.startswith("templates/")} == set()


def test_every_template_of_the_catalogue_is_shipped() -> None:
    catalogue = yaml.safe_load(FILES["catalogue.yaml"])["data"]
    assert {f"templates/{name}.yaml" for name in catalogue} <= {*FILES}


PLACEHOLDER = re.compile("@@[A-Z_]+@@")
LISTS = {"@@PUBLISHER_USERS@@", "@@PUBLISHER_GROUPS@@"}


def fill(text: str) -> str:
    """Replace as the chart does, by the worst that the schema's patterns let through."""
    return PLACEHOLDER.sub(
        lambda found: (
            "['a:b', 'c@d/e']" if found[0] in LISTS else "https://x.example:1/a?b=%5Bc%5D"
        ),
        text,
    )


def filled(value: Any) -> Any:
    if isinstance(value, dict):
        return {fill(key): filled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item) for item in value]
    return fill(value) if isinstance(value, str) else value


@pytest.mark.parametrize("name", sorted(FILES))
def test_what_is_filled_in_changes_its_own_string_and_nothing_else(name: str) -> None:
    as_text = list(yaml.safe_load_all(fill(FILES[name])))
    assert as_text == [filled(one) for one in yaml.safe_load_all(FILES[name])]
