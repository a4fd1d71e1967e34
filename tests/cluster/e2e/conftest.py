"""End to end on the real cluster: one installation, and workloads that break at the same time.

Everything is set up once: namespaces, workloads, monitoring, the chart. `struck` breaks what the
first tests look at, all at once, since most of the time is waiting.
"""

import json
import sys
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.append(str(Path(__file__).resolve().parents[2] / "chart"))  # its PostgreSQL

from bed import Bed, made
from kubectl import Kubectl
from shop import Shop

from tools.cluster.target import Target

PEOPLE = ("denied", "stopped")
KILLED = ("gateway", "agents", "launcher", "broker", "argo")
CARTS = ("release", "wedged", "approval", *PEOPLE, *KILLED)
"""Namespaces with a cart."""
SEARCHES = {"overload": "no", "ineffective": "yes", "undone": "no"}
"""Namespaces with a search, and whether it needs the database."""
NAMES = (*CARTS, *SEARCHES, "missing")

Shops = Mapping[str, Shop]


@pytest.fixture(scope="session")
def shops(cluster: Target) -> Generator[Shops]:
    """The namespaces, opted in, each with its workload, not all of them ready yet."""
    kubectl = Kubectl(cluster.bin["kubectl"], cluster.kubeconfig)
    image = cluster.images["test-base"]
    found = {name: Shop(kubectl, f"e2e-{name}", image) for name in NAMES}
    spaces = [shop.namespace for shop in found.values()]
    kubectl("delete", "namespace", "--ignore-not-found", *spaces, seconds=180)
    try:
        for shop in found.values():
            shop.make_namespace()
        for name in CARTS:
            found[name].deploy("cart")
        for name, needs_database in SEARCHES.items():
            found[name].deploy_search(needs_database)
        yield MappingProxyType(found)
    finally:
        kubectl("delete", "namespace", "--ignore-not-found", "--wait=false", *spaces)


@pytest.fixture(scope="session")
def bed(cluster: Target, shops: Shops) -> Generator[Bed]:
    """The installation; nothing is broken yet when it is given out."""

    def settled() -> None:
        for name in CARTS:
            shops[name].ready("cart")
        for name in SEARCHES:
            shops[name].ready("queue")
            shops[name].ready("search")

    with tempfile.TemporaryDirectory(prefix="tiphys-e2e-") as folder:
        spaces = [shop.namespace for shop in shops.values()]
        with made(cluster, Path(folder), spaces, settled) as everything:
            yield everything


@pytest.fixture(scope="session")
def struck(bed: Bed, shops: Shops) -> Mapping[str, str]:
    """Break several things in several ways; gives what the tests need to know of before."""
    assert bed.tiphys.get("/api/stop")["engaged"] is False
    before = shops["ineffective"].kubectl.get("deployment", "search", "e2e-ineffective")
    shops["ineffective"].load()  # first: its verification takes longest
    shops["release"].release_badly()
    known = {
        "wedged": shops["wedged"].wedge(),
        "approval": shops["approval"].wedge(),
        "before": json.dumps(before),
    }
    for name in ("overload", "undone"):
        shops[name].load()
    known["denied"] = shops["denied"].wedge()
    shops["missing"].deploy("missing")
    return known
