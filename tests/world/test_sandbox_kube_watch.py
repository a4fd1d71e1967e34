"""A watch of the simulated API server misses nothing, resumes, and says when it cannot."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from kubernetes.aio import client, watch

from tiphys.sandbox import watches
from tiphys.sandbox.kube_api import kube_app
from tiphys.sandbox.logs import Logs
from tiphys.sandbox.loopback import serving
from tiphys.sandbox.rbac import MASTERS, Tokens
from tiphys.sandbox.resources import BY_KIND
from tiphys.sandbox.selectors import matcher
from tiphys.sandbox.store import Store
from tiphys.sandbox.watches import Watch, follow


def config_map(name: str, **labels: str) -> dict[str, Any]:
    return {"kind": "ConfigMap", "metadata": {"name": name, "namespace": "shop", "labels": labels}}


@pytest.fixture
def store() -> Store:
    store = Store(history=20)
    for name in ("shop", "bank"):
        store.create({"kind": "Namespace", "metadata": {"name": name}})
    return store


@pytest.fixture
async def core(store: Store) -> AsyncIterator[client.CoreV1Api]:
    tokens = Tokens()
    async with serving(kube_app(store, tokens, Logs())) as url:
        configuration = client.Configuration()
        configuration.host = url
        token = tokens.issue("admin", (MASTERS,))
        configuration.api_key = {"BearerToken": f"Bearer {token}"}
        async with client.ApiClient(configuration) as connection:
            yield client.CoreV1Api(connection)


async def heard(core: client.CoreV1Api, count: int, **options: Any) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    async with watch.Watch() as stream:
        events = stream.stream(core.list_namespaced_config_map, "shop", **options)
        async for event in events:
            found.append((event["type"], event["object"].metadata.name))
            if len(found) == count:
                break
    return found


async def test_a_watch_goes_on_after_a_list(core: client.CoreV1Api, store: Store) -> None:
    store.create(config_map("before"))
    listed = await core.list_namespaced_config_map("shop")
    version = listed.metadata.resource_version
    store.create(config_map("a"))
    following = asyncio.create_task(heard(core, 4, resource_version=version))
    store.create(config_map("a") | {"metadata": {"name": "a", "namespace": "bank"}})
    store.patch("ConfigMap", "shop", "a", {"data": {"k": "v"}})
    store.create({"kind": "Secret", "metadata": {"name": "s", "namespace": "shop"}})
    store.delete("ConfigMap", "shop", "a")
    store.create(config_map("b"))
    async with asyncio.timeout(3):
        assert await following == [
            ("ADDED", "a"),
            ("MODIFIED", "a"),
            ("DELETED", "a"),
            ("ADDED", "b"),
        ]


async def test_a_watch_without_a_version_begins_with_all(
    core: client.CoreV1Api, store: Store
) -> None:
    store.create(config_map("a"))
    store.create(config_map("b"))
    assert await heard(core, 2) == [("ADDED", "a"), ("ADDED", "b")]


async def test_an_object_enters_and_leaves_a_selector(core: client.CoreV1Api, store: Store) -> None:
    version = store.version
    store.create(config_map("a"))
    for value in ("1", "2", None):
        store.patch("ConfigMap", "shop", "a", {"metadata": {"labels": {"x": value}}})
    store.create(config_map("b", x="1"))
    store.delete("ConfigMap", "shop", "a")
    store.create(config_map("c", x="1"))
    events = await heard(core, 5, resource_version=str(version), label_selector="x")
    assert events == [
        ("ADDED", "a"),
        ("MODIFIED", "a"),
        ("DELETED", "a"),
        ("ADDED", "b"),
        ("ADDED", "c"),
    ]


async def test_a_forgotten_version_is_410(core: client.CoreV1Api, store: Store) -> None:
    version = str(store.version)
    for number in range(20):
        store.create(config_map(f"c{number}"))
    assert len(await heard(core, 20, resource_version=version)) == 20, "all still remembered"
    store.create(config_map("one-more"))
    with pytest.raises(client.ApiException) as caught:
        await heard(core, 1, resource_version=version)
    assert caught.value.status == 410
    version = str(store.version)
    store.create(config_map("last"))
    store.compact()
    with pytest.raises(client.ApiException, match="410"):
        await heard(core, 1, resource_version=version)


async def test_a_bookmark_tells_how_far_an_idle_watch_is(store: Store) -> None:
    asked = Watch(BY_KIND["ConfigMap"], "shop", matcher(), str(store.version), 0.05, True)
    store.create({"kind": "Secret", "metadata": {"name": "s", "namespace": "shop"}})
    lines = [line async for line in follow(store, asked)]
    assert len(lines) == 1
    assert b'"BOOKMARK"' in lines[0]
    assert f'"resourceVersion":"{store.version}"'.encode() in lines[0]


async def test_a_watch_that_ends_leaves_no_subscriber(store: Store) -> None:
    asked = Watch(BY_KIND["ConfigMap"], "shop", matcher(), str(store.version), 30, False)
    events = watches.follow(store, asked)
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    assert len(store._subscribers) == 1
    store.create(config_map("a"))
    assert b'"ADDED"' in await waiting
    await events.aclose()  # type: ignore[attr-defined]
    assert not store._subscribers
