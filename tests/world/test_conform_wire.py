"""The kit's own way to an API server: what is no answer yet is asked again, and nothing else is."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tiphys.sandbox.kube_api import kube_app
from tiphys.sandbox.logs import Logs
from tiphys.sandbox.loopback import serving
from tiphys.sandbox.machine_provider import MachineProvider
from tiphys.sandbox.rbac import MASTERS, Tokens
from tiphys.sandbox.store import Store
from tiphys.service.conform.pools import asking
from tiphys.service.conform.wire import Wire, place

PODS = "/api/v1/pods"


def wire_to(url: str, folder: Path, token: str = "t") -> Wire:
    named: dict[str, Any] = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(
        yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "current-context": "x", **named})
    )
    return Wire(path)


class Hesitant:
    """Refuses for as often as it is told to."""

    def __init__(self, often: int) -> None:
        self.often = often
        self.asked: list[str] = []

    async def answer(self, request: Request) -> JSONResponse:
        self.asked.append(request.method)
        if len(self.asked) <= self.often:
            body = {"message": "storage is (re)initializing"}
            return JSONResponse(body, 429, {"Retry-After": "0"})
        return JSONResponse({"items": []})


async def test_a_read_that_is_put_off_is_asked_again(tmp_path: Path) -> None:
    api = Hesitant(3)
    async with serving(Starlette(routes=[Route(PODS, api.answer)])) as url:
        assert await asyncio.to_thread(wire_to(url, tmp_path).items, PODS) == []
    assert api.asked == ["GET"] * 4


async def test_a_write_that_is_refused_is_an_answer(tmp_path: Path) -> None:
    api = Hesitant(1)
    app = Starlette(routes=[Route(PODS, api.answer, methods=["POST"])])
    async with serving(app) as url:
        found = await asyncio.to_thread(wire_to(url, tmp_path).ask, "POST", PODS, {})
    assert (found.status, api.asked) == (429, ["POST"])


async def test_what_something_holds_back_is_wiped_all_the_same(tmp_path: Path) -> None:
    """A claim that a pod mounts, and whatever else bears a finalizer."""
    store, tokens = Store(), Tokens()
    store.create({"kind": "Namespace", "metadata": {"name": "shop"}})
    meta = {"name": "cache", "namespace": "shop"}
    held = {**meta, "finalizers": ["kubernetes.io/pvc-protection"]}
    store.create({"kind": "PersistentVolumeClaim", "metadata": held, "spec": {}})
    store.create({"kind": "PersistentVolumeClaim", "metadata": {**meta, "name": "free"}})
    async with serving(kube_app(store, tokens, Logs())) as url:
        wire = wire_to(url, tmp_path, tokens.issue("admin", (MASTERS,)))
        for name in ("cache", "free", "missing"):
            path = place("v1", "PersistentVolumeClaim", "shop", name)
            await asyncio.to_thread(wire.wipe, path)
    assert store.list("PersistentVolumeClaim", "shop") == []


async def test_nobody_there_is_said_at_once(tmp_path: Path) -> None:
    wire = wire_to("http://127.0.0.1:9", tmp_path)
    with pytest.raises(urllib3.exceptions.NewConnectionError):
        await asyncio.to_thread(wire.ask, "GET", PODS)


async def test_what_gets_no_answer_does_not_end_the_provider_of_machines(tmp_path: Path) -> None:
    """Without it every later wait for a pool would be in vain, whatever is being proven."""
    over = threading.Event()
    made = MachineProvider(asking(wire_to("http://127.0.0.1:9", tmp_path)), pause=0.01)
    looking = asyncio.create_task(asyncio.to_thread(made.run, over))
    await asyncio.sleep(0.3)
    assert not looking.done()
    over.set()
    await looking
