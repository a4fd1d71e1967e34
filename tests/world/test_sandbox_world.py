"""The sandbox as a whole: healthy with a past, broken as told, mended by the catalogue's steps."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tiphys.policies.model import Check, DecidedBy, Json, Plan, Target
from tiphys.policies.plan import digest, encode, workflow_name
from tiphys.sandbox import scenario
from tiphys.sandbox.admission import LAUNCHER
from tiphys.sandbox.loopback import serving
from tiphys.sandbox.scenario import Reference
from tiphys.sandbox.world import World
from tiphys.workflow_templates import catalogue, render
from tiphys.workflow_templates.signature import public_hex, sign

Obj = dict[str, Any]


class Webhook:
    """What Alertmanager posts to."""

    def __init__(self) -> None:
        self.bodies: list[Obj] = []
        self.arrived = asyncio.Event()

    def app(self) -> Starlette:
        async def take(request: Request) -> Response:
            assert request.headers["authorization"] == "Bearer secret"
            self.bodies.append(await request.json())
            self.arrived.set()
            return Response()

        return Starlette(routes=[Route("/hook", take, methods=["POST"])])

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self.arrived.clear()
                await self.arrived.wait()

    def alerts(self) -> list[tuple[str, str]]:
        return [(a["labels"]["alertname"], a["status"]) for b in self.bodies for a in b["alerts"]]


@asynccontextmanager
async def running(name: str, directory: Path) -> AsyncIterator[tuple[World, Webhook]]:
    place = directory / name
    place.mkdir()
    world, webhook = World(scenario.find(name), place), Webhook()
    async with serving(webhook.app()) as url:
        await world.start()
        world.connect_webhook(f"{url}/hook", "secret")
        try:
            yield world, webhook
        finally:
            await world.stop()


def client(world: World, role: str) -> httpx2.AsyncClient:
    config = yaml.safe_load(world.kubeconfigs[role].read_text())
    token = config["users"][0]["user"]["token"]
    return httpx2.AsyncClient(
        base_url=config["clusters"][0]["cluster"]["server"],
        headers={"Authorization": f"Bearer {token}"},
        trust_env=False,
    )


async def settled(world: World, condition: Callable[[], bool]) -> None:
    changed = asyncio.Event()
    unsubscribe = world.store.subscribe(lambda _event, _obj: changed.set())
    try:
        async with asyncio.timeout(30):
            while not condition():
                changed.clear()
                await changed.wait()
    finally:
        unsubscribe()


# --- before the fault ---------------------------------------------------------------------------


async def test_a_world_is_healthy_and_old_before_it_is_struck(tmp_path: Path) -> None:
    async with running("bad-release", tmp_path) as (world, webhook):
        await world.prometheus.tick(time.time())
        assert all(not rule.active for rule in world.prometheus.alerts())
        long_ago = datetime.now(UTC) - timedelta(days=2)
        for kind in ("Deployment", "ReplicaSet", "Pod"):
            for obj in world.store.list(kind, "shop"):
                assert datetime.fromisoformat(obj["metadata"]["creationTimestamp"]) < long_ago
        assert not world.store.list("Event")
        now = time.time()
        async with httpx2.AsyncClient(trust_env=False) as http:
            answer = await http.get(
                f"{world.prometheus_url}/api/v1/query_range",
                params={
                    "query": 'sum(kube_pod_status_ready{namespace="shop",condition="true"})',
                    "start": now - 3500,
                    "end": now,
                    "step": 60,
                },
            )
        [series] = answer.json()["data"]["result"]
        assert len(series["values"]) >= 58
        assert {value for _, value in series["values"]} == {"3"}
        assert not webhook.bodies


async def test_each_role_may_do_its_part_and_no_more(tmp_path: Path) -> None:
    pods, secrets = "/api/v1/namespaces/shop/pods", "/api/v1/namespaces/shop/secrets"
    workflows = "/apis/argoproj.io/v1alpha1/namespaces/tiphys-actions/workflows"
    stops = "/api/v1/namespaces/tiphys-stop/configmaps"
    stop = {"metadata": {"name": "stop-halt", "labels": {"tiphys.io/stop": "true"}}}
    async with running("wedged-pod", tmp_path) as (world, _):
        async with client(world, "agents") as agents:
            assert (await agents.get(pods)).status_code == 200
            name = (await agents.get(pods)).json()["items"][0]["metadata"]["name"]
            assert (await agents.get(f"{pods}/{name}/log")).status_code == 200
            assert (await agents.get(secrets)).status_code == 403
            assert (await agents.get(stops)).status_code == 403
            assert (await agents.delete(f"{pods}/{name}")).status_code == 403
            assert (await agents.post(workflows, json={})).status_code == 403
        async with client(world, "launcher") as launcher:
            assert (await launcher.get(workflows)).status_code == 200
            assert (await launcher.get(stops)).status_code == 200
            assert (await launcher.get(pods)).status_code == 403
            refused = await launcher.post(workflows, json={"metadata": {"name": "x"}, "spec": {}})
            assert "ValidatingAdmissionPolicy" in refused.json()["message"]
        async with client(world, "gateway") as gateway:
            assert (await gateway.post(stops, json=stop)).status_code == 201
            assert (await gateway.delete(f"{stops}/stop-halt")).status_code == 403
            assert (await gateway.get(workflows)).status_code == 403
        async with client(world, "admin") as admin:
            assert (await admin.delete(f"{stops}/stop-halt")).status_code == 200


async def test_the_environment_names_everything_a_service_needs(tmp_path: Path) -> None:
    async with running("overload", tmp_path) as (world, _):
        given = world.environment("http://127.0.0.1:8123/webhooks/alertmanager", "secret")
        assert (given["TIPHYS_HOST"], given["TIPHYS_PORT"]) == ("127.0.0.1", "8123")
        assert given["TIPHYS_WEBHOOK_TOKEN"] == "secret"
        assert given["TIPHYS_PROMETHEUS_URL"] == world.prometheus_url
        roles = ("KUBECONFIG", "LAUNCHER_KUBECONFIG", "GATEWAY_KUBECONFIG")
        modes = [os.stat(given[f"TIPHYS_{role}"]).st_mode & 0o777 for role in roles]
        assert modes == [0o600, 0o600, 0o600]
    assert list(world.directory.iterdir()) == []


async def test_stopping_leaves_nothing_behind(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    async with running("overload", tmp_path) as (world, _):
        await world.strike()
        url = world.kubernetes_url
        await world.stop()
        with pytest.raises(httpx2.TransportError):
            async with httpx2.AsyncClient(trust_env=False) as http:
                await http.get(f"{url}/readyz")
    assert {task for task in asyncio.all_tasks() - before if not task.done()} == set()


# --- the faults ---------------------------------------------------------------------------------

FIRST_POSTS = {
    "already-resolved": [("KubePodNotReady", "firing")],
    "bad-release": [("KubePodCrashLooping", "firing")],
    "dependency-down": [("KubeDeploymentReplicasMismatch", "firing")],
    "flapping": [
        ("WorkloadOverloaded", status)
        for status in ("firing", "resolved", "firing", "resolved", "firing")
    ],
    "gpu-training": [("KubePodNotReady", "firing")],
    "ineffective": [("WorkloadOverloaded", "firing")],
    "killed-by-probe": [("KubePodCrashLooping", "firing")],
    "memory-too-small": [("KubePodCrashLooping", "firing")],
    "outside-catalogue": [("KubePodNotReady", "firing")],
    "overload": [("WorkloadOverloaded", "firing")],
    "rollback-cannot-hold": [("WorkloadOverloaded", "firing")],
    "runaway-log": [("KubePersistentVolumeFillingUp", "firing")],
    "silenced": [("KubePodNotReady", "firing")],
    "stale-connections": [("KubeDeploymentReplicasMismatch", "firing")],
    "volume-filling": [("KubePersistentVolumeFillingUp", "firing")],
    "wedged-pod": [("KubePodNotReady", "firing")],
}


async def posts_of(name: str, directory: Path) -> Obj:
    wanted = FIRST_POSTS[name]
    async with running(name, directory) as (world, webhook):
        await world.strike()
        await webhook.until(lambda: len(webhook.alerts()) >= len(wanted))
        held = await world_alerts(world)
        true = [rule.rule.alert for rule in world.prometheus.alerts() if rule.active]
        return {"posts": webhook.alerts(), "held": held, "true": true, "logs": said(world)}


async def world_alerts(world: World) -> list[str]:
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"{world.alertmanager_url}/api/v2/alerts")
    return [alert["status"]["state"] for alert in answer.json()]


def said(world: World) -> str:
    return "".join(
        world.logs.read(pod["metadata"]["uid"], pod["spec"]["containers"][0]["name"]) or ""
        for space in ("shop", "research")
        for pod in world.store.list("Pod", space)
    )


async def test_every_fault_is_posted_as_its_story_says(tmp_path: Path) -> None:
    names = sorted(FIRST_POSTS)
    found = dict(
        zip(names, await asyncio.gather(*(posts_of(n, tmp_path) for n in names)), strict=True)
    )
    for name in names:
        assert found[name]["posts"][: len(FIRST_POSTS[name])] == FIRST_POSTS[name], name
    assert not found["already-resolved"]["true"]
    assert found["silenced"]["held"] == ["suppressed"]
    assert found["silenced"]["true"] == ["KubePodNotReady"]
    assert found["overload"]["held"] == ["active"]
    assert "migration 0042" in found["bad-release"]["logs"]
    assert "pid 1743 does not exist" in found["wedged-pod"]["logs"]
    assert "ALLREDUCE" in found["gpu-training"]["logs"]


# --- the catalogue's own steps, in this world ---------------------------------------------------

KEY = Ed25519PrivateKey.generate()


def install(world: World) -> None:
    settings = render.RenderSettings(
        image="tiphys-step:test",
        public_key=public_hex(KEY),
        prometheus_url=world.prometheus_url,
        verify_share=0.01,
    )
    world.install(render.manifests(settings))
    for namespace in world.opted_in:
        world.install(render.role_bindings(settings, namespace))


def plan_of(world: World, action_name: str, target: Obj, parameters: dict[str, Json]) -> Plan:
    action, meta = catalogue.find(action_name), target["metadata"]
    related = {r.kind: world.store.list(r.kind, meta["namespace"]) for r in action.reads}
    given = action.parameters.model_validate(parameters)
    rule = world.scenario.rules[0]
    labels = {"namespace": meta["namespace"]}
    return Plan(
        incident="inc-1",
        attempt=1,
        action=action.name,
        version=action.version,
        target=Target(
            cluster="sandbox",
            api_version=target["apiVersion"],
            kind=target["kind"],
            namespace=meta["namespace"],
            name=meta["name"],
            uid=meta["uid"],
        ),
        parameters=parameters,
        changes=action.changes(target, related, given),
        check=Check(query=rule.expr, labels=labels, settle_seconds=1, hold_seconds=1),
        policy="test",
        evidence_hash="0" * 64,
        decided_by=DecidedBy(reasoner="human"),
    )


def launch(world: World, plan: Plan) -> str:
    name = workflow_name(plan)
    not_after = (datetime.now(UTC) + timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    values = {
        "plan": encode(plan),
        "notAfter": not_after,
        "signature": sign(KEY, digest(plan), not_after),
        "target": plan.target.uid,
    }
    workflow = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": name, "namespace": "tiphys-actions"},
        "spec": {
            "workflowTemplateRef": {"name": f"{plan.action}-v{plan.version}"},
            "arguments": {"parameters": [{"name": k, "value": v} for k, v in values.items()]},
        },
    }
    world.store.create(workflow, user=LAUNCHER)
    return name


async def mended(
    name: str, directory: Path, action: str, target: Reference, parameters: dict[str, Json]
) -> tuple[Obj, list[tuple[str, str]], Obj | None]:
    """Strike, launch the action when the alert arrives, and give status, posts and target."""
    async with running(name, directory) as (world, webhook):
        install(world)
        await world.strike()
        await webhook.until(lambda: bool(webhook.bodies))
        if not target.name:
            pod = webhook.bodies[0]["alerts"][0]["labels"]["pod"]
            target = Reference(kind="Pod", namespace=target.namespace, name=pod)
        found = world.store.get(target.kind, target.namespace, target.name)
        workflow = launch(world, plan_of(world, action, found, parameters))

        def status() -> Obj:
            return world.store.get("Workflow", "tiphys-actions", workflow).get("status", {})

        await settled(world, lambda: "finishedAt" in status())
        if status()["phase"] == "Succeeded":
            await webhook.until(lambda: webhook.alerts()[-1][1] == "resolved")
        assert world.argo is not None
        assert world.argo.pods.pids(workflow) == []
        left = world.store.find(target.kind, target.namespace, target.name)
        return status(), webhook.alerts(), left


def node(status: Obj, name: str) -> Obj:
    return next(n for n in status["nodes"].values() if n["displayName"] == name)


def deployment(name: str) -> Reference:
    return Reference(kind="Deployment", namespace="shop", name=name)


async def test_the_catalogues_steps_mend_and_undo_in_this_world(tmp_path: Path) -> None:
    some_pod = Reference(kind="Pod", namespace="shop", name="")
    more: dict[str, Json] = {"replicas": 3}
    undo, restart, helpless, foreign = await asyncio.gather(
        mended("bad-release", tmp_path, "rollout-undo", deployment("checkout"), {}),
        mended("wedged-pod", tmp_path, "restart-pod", some_pod, {}),
        mended("ineffective", tmp_path, "scale-workload", deployment("orders"), more),
        mended("rollback-cannot-hold", tmp_path, "scale-workload", deployment("payments"), more),
    )
    for status, posts, _ in (undo, restart):
        assert status["phase"] == "Succeeded", status
        assert node(status, "run")["outputs"]["exitCode"] == "0"
        assert posts[-1][1] == "resolved"
    assert undo[2] is not None
    image = undo[2]["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "registry.example/shop/checkout:1.7.3"
    assert restart[2] is None

    for status, _, _ in (helpless, foreign):
        assert status["phase"] == "Failed"
        assert node(status, "run")["outputs"]["exitCode"] == "4"
    assert (
        '"result": "undone"' in node(helpless[0], "rollback")["outputs"]["parameters"][0]["value"]
    )
    assert helpless[2] is not None
    assert helpless[2]["spec"]["replicas"] == 2
    assert node(foreign[0], "rollback")["outputs"]["exitCode"] == "5"
    assert foreign[2] is not None
    assert foreign[2]["spec"]["replicas"] == 9
