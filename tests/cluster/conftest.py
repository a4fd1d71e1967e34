"""The real cluster for tests: found once, a fresh namespace for each test that asks."""

import secrets
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kubernetes import client, config

# At the end: the checkout's other folders must not hide an installed package of the same name.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from tools.cluster.report import Trouble
from tools.cluster.target import Target, find

HEAL = {"tiphys.io/heal": "enabled"}
MakeNamespace = Callable[..., str]
TokenFor = Callable[[str, str], str]


@pytest.fixture(scope="session")
def cluster() -> Target:
    """The cluster that `make cluster-up` started, or the one TIPHYS_TEST_KUBECONFIG names."""
    try:
        return find()
    except Trouble as trouble:
        pytest.fail(str(trouble), pytrace=False)


@pytest.fixture(scope="session")
def api(cluster: Target) -> Generator[client.ApiClient]:
    """The administrator's client."""
    with config.new_client_from_config(str(cluster.kubeconfig)) as made:
        yield made


@contextmanager
def _made(cluster: Target) -> Iterator[MakeNamespace]:
    names: list[str] = []

    def make(prefix: str = "test", *, opted_in: bool = False) -> str:
        name = f"{prefix}-{secrets.token_hex(4)}"
        labels = HEAL if opted_in else {}
        cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": name, "labels": labels},
            }
        )
        names.append(name)
        cluster.kubectl("-n", name, "wait", "--for=create", "serviceaccount/default")
        return name

    try:
        yield make
    finally:
        if names:
            cluster.kubectl("delete", "namespace", "--wait=false", "--ignore-not-found", *names)


@pytest.fixture
def make_namespace(cluster: Target) -> Generator[MakeNamespace]:
    """`make_namespace(prefix, opted_in=False)` gives a new namespace, deleted after the test."""
    with _made(cluster) as make:
        yield make


@pytest.fixture
def namespace(make_namespace: MakeNamespace) -> str:
    """A new namespace that did not opt in, deleted after the test."""
    return make_namespace()


@pytest.fixture
def opted_in(make_namespace: MakeNamespace) -> str:
    """A new namespace with `tiphys.io/heal: enabled`, deleted after the test."""
    return make_namespace(opted_in=True)


@pytest.fixture(scope="session")
def token_for(cluster: Target) -> TokenFor:
    """`token_for(namespace, serviceaccount)` gives a new bearer token."""
    return cluster.token
