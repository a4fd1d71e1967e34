"""Real helm, and what it renders; the real cluster for those tests that ask for it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

# At the end: the checkout's other folders must not hide an installed package of the same name.
sys.path.append(str(Path(__file__).parents[2]))
sys.path.append(str(Path(__file__).parent))

from charts import CHART, Helm, Objects, Render, as_values, values

from tools.cluster import builds
from tools.cluster.paths import Cache
from tools.cluster.report import Trouble
from tools.cluster.target import Target, find


@pytest.fixture(scope="session")
def helm_binary() -> str:
    """`TIPHYS_HELM`, else the one that the test cluster's tool builds from its Go module."""
    if named := os.environ.get("TIPHYS_HELM"):
        return named
    try:
        return str(builds.ensure(Cache.default(), ["helm"])["helm"])
    except Trouble as trouble:
        pytest.fail(f"helm: {trouble}", pytrace=False)


@pytest.fixture(scope="session")
def helm(helm_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Run helm with a home of its own; a failure is an answer like any other."""
    home = tmp_path_factory.mktemp("helm")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        **{f"HELM_{name}_HOME": str(home / name) for name in ("CACHE", "CONFIG", "DATA")},
    }

    def run(*argv: str, stdin: str = "", seconds: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [helm_binary, *argv],
            input=stdin,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )

    return run


@pytest.fixture(scope="session")
def render(helm: Helm) -> Render:
    """`render(mode, {"key.path": value})` gives the objects as Kubernetes gets them."""
    made: dict[str, Objects] = {}

    def objects(
        mode: str, changes: Mapping[str, Any] | None = None, *, hooks: bool = True
    ) -> Objects:
        key = json.dumps([mode, changes, hooks], sort_keys=True)
        if key not in made:
            argv = ["template", "tiphys", str(CHART), "-n", "tiphys-system", *values(mode, changes)]
            argv += [] if hooks else ["--no-hooks"]
            done = helm(*argv, "--kube-version", "1.35.0", stdin=as_values(changes))
            assert done.returncode == 0, done.stderr
            made[key] = [one for one in yaml.safe_load_all(done.stdout) if one]
        return made[key]

    return objects


@pytest.fixture(scope="session")
def cluster() -> Target:
    """The cluster that `make cluster-up` started, or the one TIPHYS_TEST_KUBECONFIG names."""
    try:
        return find()
    except Trouble as trouble:
        pytest.fail(str(trouble), pytrace=False)
