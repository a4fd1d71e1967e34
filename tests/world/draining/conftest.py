"""A cluster of three nodes for every test here."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest

sys.path.append(str(Path(__file__).parent))

from draining_world import NS, OPTED_IN, Obj, World

from tiphys.sandbox import installation
from tiphys.sandbox.controllers import Controllers
from tiphys.sandbox.kube_api import kube_app
from tiphys.sandbox.logs import Logs
from tiphys.sandbox.loopback import serving
from tiphys.sandbox.pods import Pace
from tiphys.workflow_templates.render import (
    RenderSettings,
    cluster_role_bindings,
    role_bindings,
)

SETTINGS = RenderSettings(image="i", public_key="ab" * 32)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    here = World(tmp_path)
    for name, labels in ((NS, OPTED_IN), ("bank", {}), ("default", {}), ("tiphys-actions", {})):
        here.store.create({"kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    for node in installation.nodes(3):
        node["metadata"]["labels"] |= OPTED_IN
        here.store.create(node)
    for one in (*role_bindings(SETTINGS, NS), *cluster_role_bindings(SETTINGS, nodes=True)):
        here.store.create(cast(Obj, one))
    async with serving(kube_app(here.store, here.tokens, Logs())) as here.url:
        control = Controllers(here.store, here.behaviours, Logs(), Pace(start=0.01, ready=0.02))
        controllers = asyncio.create_task(control.run())
        yield here
        controllers.cancel()
        with suppress(asyncio.CancelledError):
            await controllers
