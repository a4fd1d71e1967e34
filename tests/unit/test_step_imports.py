"""A step starts fast and small because it imports little; its image holds just that."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
STEP = "tiphys.workflow_templates.run_step"
NEVER = {
    "aiohttp", "cel", "fastapi", "hera", "kubernetes", "langgraph", "nats", "openai", "pandas",
    "requests", "rich", "sqlalchemy", "structlog", "typer", "yaml",
}  # fmt: skip
NEVER_OURS = {"tiphys.agents", "tiphys.sandbox", "tiphys.service", "tiphys.policies.expressions"}
MEMORY_MIB = 100


def loaded() -> set[str]:
    """Give every module that the step's process has imported before it does anything."""
    program = f"import json, sys, {STEP}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def imports(tree: ast.AST) -> Iterator[str]:
    """Give what a module imports, in functions too; not what only the type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imports(node)


def closure(start: str) -> tuple[set[str], set[str]]:
    """Follow every import from one of our modules; give our modules and the foreign packages."""
    ours: set[str] = set()
    foreign: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name.split(".")[0] != "tiphys":
            foreign.add(name.split(".")[0])
            continue
        # `tiphys` itself is no package with code; a name imported from a module is no module.
        spec = importlib.util.find_spec(name) if is_module(name) else None
        if name in ours or not spec or not spec.origin:
            continue
        ours.add(name)
        waiting += imports(ast.parse(Path(spec.origin).read_text()))
    return ours, foreign - sys.stdlib_module_names


def is_module(name: str) -> bool:
    _, _, path = name.partition(".")
    place = ROOT / path.replace(".", "/")
    return bool(path) and (place.with_suffix(".py").exists() or (place / "__init__.py").exists())


def pins(lock: str) -> dict[str, str]:
    """Give a lock's packages and versions."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", (ROOT / lock).read_text(), re.MULTILINE))


def needed(names: set[str]) -> set[str]:
    """Give distributions and, as their metadata says, all that they need on this interpreter."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        found.add(name)
        for text in metadata.requires(name) or []:
            wanted = Requirement(text)
            if not wanted.marker or wanted.marker.evaluate({"extra": ""}):
                waiting.append(wanted.name)
    return found


def test_a_step_loads_none_of_the_service_s_libraries() -> None:
    modules = loaded()
    assert STEP in modules
    assert {name.split(".")[0] for name in modules} & NEVER == set()
    assert {n for n in modules for ours in NEVER_OURS if n == ours or n.startswith(f"{ours}.")} == (
        set()
    )


def test_nor_does_it_later_inside_a_function() -> None:
    ours, foreign = closure(STEP)
    assert {"tiphys.workflow_templates.restart_pod", "tiphys.policies.plan"} <= ours
    assert foreign & NEVER == set()
    assert {n for n in ours for bad in NEVER_OURS if n == bad or n.startswith(f"{bad}.")} == set()


def test_the_search_sees_imports_inside_functions() -> None:
    _, foreign = closure("tiphys.workflow_templates.render")
    assert "hera" in foreign
    found = set(imports(ast.parse("def f():\n    if x:\n        from a.b import c")))
    assert found == {"a.b", "a.b.c"}


def test_the_step_s_lock_holds_exactly_what_a_step_needs() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    named = {canonicalize_name(Requirement(text).name) for text in groups["step"]}
    provided = metadata.packages_distributions()
    _, foreign = closure(STEP)
    imported = {canonicalize_name(provided[package][0]) for package in foreign}
    assert named == imported, "the group `step` of pyproject.toml is what steps import"
    assert set(pins("requirements-step.lock")) == needed(named), "run `make lock`"


def test_every_lock_names_the_same_versions() -> None:
    everything = pins("requirements.lock")
    for name in ("requirements-run.lock", "requirements-step.lock"):
        one = pins(name)
        assert one
        assert {k: v for k, v in one.items() if everything.get(k) != v} == {}, "run `make lock`"


def test_the_service_s_lock_holds_its_dependencies_and_no_tools() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {canonicalize_name(Requirement(t).name) for t in project["project"]["dependencies"]}
    tools = {canonicalize_name(Requirement(t).name) for t in project["dependency-groups"]["dev"]}
    locked = set(pins("requirements-run.lock"))
    assert wanted - locked == set(), "run `make lock`"
    assert locked & (tools - wanted) == set()


def test_a_step_needs_little_memory() -> None:
    """Measured by a small process: a child's peak counts its parent's size until it begins."""
    program = (
        "import json, resource, subprocess, sys\n"
        f"command = [sys.executable, '-m', '{STEP}', 'precheck']\n"
        "done = subprocess.run(command, capture_output=True)\n"
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
        "print(json.dumps([done.returncode, done.stdout.decode(), peak]))"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TIPHYS_")}
    measured = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    code, said, peak_kib = json.loads(measured.stdout)
    assert (code, json.loads(said)["message"]) == (3, "TIPHYS_PLAN is not set")
    assert 10 < peak_kib / 1024 < MEMORY_MIB
