"""One suite, two clusters: `world` is the sandbox, and a real one where `-m cluster` asks for it.

The modules beside this file are found by their plain names. Tests marked `together` take nothing
but `world`; on a real cluster they all begin at once, since most of what they do there is waiting.
"""

import sys
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
# At the end: the checkout's other folders must not hide an installed package of the same name.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from tiphys.service.conform.simulated import SandboxWorld
from tiphys.service.conform.worlds import World, closing

REAL, TOGETHER = "cluster", "together"
AT_ONCE = 8
"""Tests under way on a real cluster."""
LONGEST = 1200
"""Seconds for one of them, which may be the first to wait for all: two cores start many pods."""
_MARKERS = (
    f"{REAL}: needs a real cluster; left out unless -m names it",
    f"{TOGETHER}: takes `world` alone, and may run beside the others",
)


def pytest_configure(config: pytest.Config) -> None:
    """Name our marks."""
    for line in _MARKERS:
        config.addinivalue_line("markers", line)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the real cluster alone unless it was asked for."""
    if REAL in config.option.markexpr:
        for item in items:
            if item.get_closest_marker(REAL):
                item.add_marker(pytest.mark.timeout(LONGEST))
        return
    kept = [item for item in items if item.get_closest_marker(REAL) is None]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Wait for a test that began together with the others."""
    if not (pyfuncitem.get_closest_marker(REAL) and pyfuncitem.get_closest_marker(TOGETHER)):
        return None
    begun = pyfuncitem.session.stash.setdefault(_BEGUN, {})
    if not begun:
        pool = ThreadPoolExecutor(AT_ONCE)
        world: World = pyfuncitem.funcargs["world"]
        for item in pyfuncitem.session.items:
            if item.get_closest_marker(REAL) and item.get_closest_marker(TOGETHER):
                assert isinstance(item, pytest.Function)
                given = getattr(getattr(item, "callspec", None), "params", {})
                others = {name: value for name, value in given.items() if name != "world"}
                begun[item.nodeid] = pool.submit(item.function, world=world, **others)
        pool.shutdown(wait=False)
    begun[pyfuncitem.nodeid].result()
    return True


_BEGUN = pytest.StashKey[dict[str, "Future[Any]"]]()


@pytest.fixture(scope="session")
def sandbox_world(tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    """One simulated cluster for all tests of this process."""
    with closing(SandboxWorld(tmp_path_factory.mktemp("sandbox"))) as world:
        yield world


@pytest.fixture(scope="session")
def real_world(tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    """A real cluster, with an Argo controller of our own."""
    from real_world import RealWorld  # its tools are needed here alone

    with closing(RealWorld(tmp_path_factory.mktemp("real"))) as world:
        yield world


@pytest.fixture(params=["sandbox", pytest.param("real", marks=pytest.mark.cluster)])
def world(request: pytest.FixtureRequest) -> World:
    """A cluster."""
    return request.getfixturevalue(f"{request.param}_world")
