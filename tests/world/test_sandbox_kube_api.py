"""The simulated API server answers real clients as a real one does."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
import urllib3
from kubernetes import client
from starlette.types import ASGIApp, Receive, Scope, Send

from tiphys.sandbox.kube_api import kube_app
from tiphys.sandbox.logs import Logs
from tiphys.sandbox.loopback import serving
from tiphys.sandbox.rbac import MASTERS, Tokens
from tiphys.sandbox.store import AdmissionRequest, ApiError, Store

pytestmark = pytest.mark.asyncio(loop_scope="module")

Json = dict[str, Any]
DEPLOYMENTS = "/apis/apps/v1/namespaces/shop/deployments"
PODS = "/api/v1/namespaces/shop/pods"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"


def deployment(name: str = "web", replicas: int = 2) -> Json:
    labels = {"app": name}
    container = {"name": "app", "image": "web:1", "env": [{"name": "A", "value": "1"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def pod(name: str, *, ready: bool = True, **labels: str) -> Json:
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": labels},
        "spec": {"containers": [{"name": "app", "image": "web:1"}]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [{"name": "app", "state": {"running": {}}, "lastState": {}}],
        },
    }


@dataclass
class Api:
    store: Store
    tokens: Tokens
    logs: Logs
    url: str
    token: str

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        media: str = "application/json",
        token: str = "",
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token or self.token}", "User-Agent": "kubectl/1"}
        headers |= {"Content-Type": media} if media else {}
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)

        def call() -> tuple[int, Any]:
            with urllib3.PoolManager() as pool:
                answer = pool.request(
                    method, self.url + path, body=data, headers=headers, retries=False, timeout=5
                )
                kind = answer.headers.get("Content-Type", "")
                return answer.status, answer.json() if "json" in kind else answer.data.decode()

        return await asyncio.to_thread(call)

    def client(self) -> client.ApiClient:
        configuration = client.Configuration()
        configuration.host = self.url
        configuration.api_key = {"authorization": f"Bearer {self.token}"}
        return client.ApiClient(configuration)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def front() -> AsyncIterator[tuple[str, list[ASGIApp]]]:
    """Serve whatever application is in the list: starting a server takes longer than a test."""
    apps: list[ASGIApp] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await apps[-1](scope, receive, send)

    async with serving(app) as url:
        yield url, apps


@pytest_asyncio.fixture(loop_scope="module")
async def api(front: tuple[str, list[ASGIApp]]) -> Api:
    store, tokens, logs = Store(), Tokens(), Logs()
    store.create({"kind": "Namespace", "metadata": {"name": "shop"}})
    url, apps = front
    apps.append(kube_app(store, tokens, logs))
    return Api(store, tokens, logs, url, tokens.issue("admin", (MASTERS,)))


def refused(answer: tuple[int, Any], code: int, reason: str) -> str:
    """Check that the answer is a proper Status and give its message."""
    status, body = answer
    assert (status, body["kind"], body["status"]) == (code, "Status", "Failure")
    assert (body["code"], body["reason"]) == (code, reason)
    return body["message"]


# --- the real client ----------------------------------------------------------------------------


async def test_the_real_client_creates_reads_scales_patches_and_deletes(api: Api) -> None:
    apps = client.AppsV1Api(api.client())

    def work() -> None:
        made = apps.create_namespaced_deployment("shop", deployment())
        assert made.metadata.generation == 1
        assert made.spec.strategy.rolling_update.max_surge == "25%"
        scale = apps.read_namespaced_deployment_scale("web", "shop")
        scale.spec.replicas = 4
        apps.replace_namespaced_deployment_scale("web", "shop", scale)
        body = {"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "web:2"}]}}}}
        apps.patch_namespaced_deployment("web", "shop", body)
        found = apps.list_namespaced_deployment("shop", label_selector="!x").items
        assert [item.spec.replicas for item in found] == [4]
        container = found[0].spec.template.spec.containers[0]
        assert (container.image, container.env[0].name) == ("web:2", "A"), "merged by name"
        assert found[0].metadata.generation == 3
        assert apps.delete_namespaced_deployment("web", "shop")["status"] == "Success"
        with pytest.raises(client.ApiException, match="NotFound"):
            apps.read_namespaced_deployment("web", "shop")

    await asyncio.to_thread(work)


async def test_discovery_and_health_answer(api: Api) -> None:
    _, resources = await api.ask("GET", "/apis/apps/v1")
    assert "deployments/scale" in [resource["name"] for resource in resources["resources"]]
    assert (await api.ask("GET", "/version"))[1]["major"] == "1"
    assert (await api.ask("GET", "/readyz", token="none"))[0] == 200


async def test_a_list_tells_its_version_and_comes_in_pages(api: Api) -> None:
    for name in "abc":
        api.store.create(pod(name, app=name))
    _, first = await api.ask("GET", f"{PODS}?limit=2")
    assert first["metadata"]["resourceVersion"] == str(api.store.version)
    token = first["metadata"]["continue"]
    _, second = await api.ask("GET", f"{PODS}?limit=2&continue={token}")
    names = [item["metadata"]["name"] for page in (first, second) for item in page["items"]]
    assert names == ["a", "b", "c"]
    assert "continue" not in second["metadata"]
    _, some = await api.ask("GET", f"{PODS}?labelSelector=app%20in%20(a,b),app!=b")
    assert [item["metadata"]["name"] for item in some["items"]] == ["a"]
    _, one = await api.ask("GET", "/api/v1/pods?fieldSelector=metadata.name=b")
    assert [item["metadata"]["name"] for item in one["items"]] == ["b"]


# --- fences -------------------------------------------------------------------------------------


async def test_a_stale_resource_version_is_a_conflict(api: Api) -> None:
    old = api.store.create(deployment())["metadata"]["resourceVersion"]
    api.store.patch("Deployment", "shop", "web", {"metadata": {"labels": {"x": "y"}}})
    stale = {"metadata": {"resourceVersion": old}, "spec": {"replicas": 9}}
    refused(await api.ask("PATCH", f"{DEPLOYMENTS}/web", stale, MERGE_PATCH), 409, "Conflict")
    refused(await api.ask("PATCH", f"{DEPLOYMENTS}/web/scale", stale, MERGE_PATCH), 409, "Conflict")
    scale = {"metadata": {"name": "web", "resourceVersion": old}, "spec": {"replicas": 9}}
    refused(await api.ask("PUT", f"{DEPLOYMENTS}/web/scale", scale), 409, "Conflict")
    assert api.store.get("Deployment", "shop", "web")["spec"]["replicas"] == 2


async def test_a_wrong_uid_is_a_conflict(api: Api) -> None:
    api.store.create(deployment())
    scale = {"metadata": {"name": "web", "uid": "another"}, "spec": {"replicas": 9}}
    refused(await api.ask("PUT", f"{DEPLOYMENTS}/web/scale", scale), 409, "Conflict")
    options = {"preconditions": {"uid": "another"}}
    refused(await api.ask("DELETE", f"{DEPLOYMENTS}/web", options), 409, "Conflict")
    assert api.store.get("Deployment", "shop", "web")["spec"]["replicas"] == 2
    right = {
        "preconditions": {"uid": api.store.get("Deployment", "shop", "web")["metadata"]["uid"]}
    }
    assert (await api.ask("DELETE", f"{DEPLOYMENTS}/web", right))[0] == 200


async def test_only_put_heeds_the_uid_on_a_custom_resources_scale(api: Api) -> None:
    meta = {"name": "gpus", "namespace": "shop"}
    api.store.create({"kind": "MachineDeployment", "metadata": meta, "spec": {"replicas": 1}})
    path = "/apis/cluster.x-k8s.io/v1beta2/namespaces/shop/machinedeployments/gpus/scale"
    wrong = {"metadata": {"name": "gpus", "uid": "another"}, "spec": {"replicas": 2}}
    refused(await api.ask("PUT", path, wrong), 409, "Conflict")
    assert (await api.ask("PATCH", path, wrong, MERGE_PATCH))[1]["spec"]["replicas"] == 2


@pytest.mark.parametrize(
    "test",
    [
        {"path": "/metadata/uid", "value": "another"},
        {"path": "/metadata/annotations/tiphys.io~1run", "value": "x.act"},
        {"path": "/spec/replicas", "value": True},
    ],
)
async def test_a_json_patch_whose_test_fails_changes_nothing(api: Api, test: Json) -> None:
    body = deployment(replicas=1)
    body["metadata"]["annotations"] = {"other": "1"}
    api.store.create(body)
    change = {"op": "add", "path": "/spec/replicas", "value": 9}
    patch = [{**change, "path": "/spec/paused"}, {"op": "test", **test}, change]
    answer = await api.ask("PATCH", f"{DEPLOYMENTS}/web", patch, JSON_PATCH)
    refused(answer, 422, "Invalid")
    spec = api.store.get("Deployment", "shop", "web")["spec"]
    assert (spec["replicas"], spec.get("paused")) == (1, None), "all or nothing"


async def test_a_json_patch_does_all_its_operations(api: Api) -> None:
    api.store.create(deployment())
    patch = [
        {"op": "test", "path": "/metadata/annotations", "value": None},
        {"op": "add", "path": "/metadata/annotations", "value": {"a/b": "1"}},
        {"op": "copy", "from": "/metadata/annotations/a~1b", "path": "/metadata/annotations/c"},
        {"op": "move", "from": "/metadata/annotations/c", "path": "/metadata/annotations/d"},
        {"op": "remove", "path": "/spec/template/spec/containers/0/env"},
        {
            "op": "add",
            "path": "/spec/template/spec/containers/-",
            "value": {"name": "b", "image": "b"},
        },
    ]
    _, found = await api.ask("PATCH", f"{DEPLOYMENTS}/web", patch, JSON_PATCH)
    assert found["metadata"]["annotations"] == {"a/b": "1", "d": "1"}
    containers = found["spec"]["template"]["spec"]["containers"]
    assert containers == [{"name": "app", "image": "web:1"}, {"name": "b", "image": "b"}]
    missing = [{"op": "remove", "path": "/spec/nothing"}]
    refused(await api.ask("PATCH", f"{DEPLOYMENTS}/web", missing, JSON_PATCH), 422, "Invalid")


async def test_generation_counts_specs_and_nobody_else_sets_it(api: Api) -> None:
    api.store.create(deployment())
    body = {"metadata": {"generation": 77, "uid": None}, "status": {"replicas": 5}}
    _, same = await api.ask("PATCH", f"{DEPLOYMENTS}/web", body, MERGE_PATCH)
    assert same["metadata"]["generation"] == 1
    assert "status" not in same, "a status is written through /status only"
    status = f"{DEPLOYMENTS}/web/status"
    both = {"status": {"replicas": 5}, "spec": {"replicas": 9}}
    _, told = await api.ask("PATCH", status, both, MERGE_PATCH)
    assert (told["status"], told["spec"]["replicas"]) == ({"replicas": 5}, 2)
    assert told["metadata"]["generation"] == 1
    _, noted = await api.ask(
        "PATCH", f"{DEPLOYMENTS}/web", {"metadata": {"annotations": {"a": "b"}}}, MERGE_PATCH
    )
    assert noted["metadata"]["generation"] == 2, "a Deployment's annotations count as its spec"
    _, config = await api.ask(
        "POST", "/api/v1/namespaces/shop/configmaps", {"metadata": {"name": "c"}, "data": {}}
    )
    assert "generation" not in config["metadata"]


async def test_a_workflow_has_no_status_subresource(api: Api) -> None:
    meta = {"name": "w", "namespace": "shop"}
    api.store.create({"kind": "Workflow", "metadata": meta, "spec": {}})
    path = "/apis/argoproj.io/v1alpha1/namespaces/shop/workflows/w"
    body = {"status": {"phase": "Running"}}
    refused(await api.ask("PATCH", f"{path}/status", body, MERGE_PATCH), 404, "NotFound")
    _, found = await api.ask("PATCH", path, body, MERGE_PATCH)
    assert found["status"] == {"phase": "Running"}
    strategic = "application/strategic-merge-patch+json"
    refused(await api.ask("PATCH", path, body, strategic), 415, "UnsupportedMediaType")


async def test_a_write_that_changes_nothing_leaves_the_version(api: Api) -> None:
    version = api.store.create(deployment())["metadata"]["resourceVersion"]
    body = {"spec": {"replicas": 2}}
    _, same = await api.ask("PATCH", f"{DEPLOYMENTS}/web?fieldManager=x", body, MERGE_PATCH)
    assert same["metadata"]["resourceVersion"] == version
    _, dry = await api.ask(
        "PATCH", f"{DEPLOYMENTS}/web?dryRun=All", {"spec": {"replicas": 7}}, MERGE_PATCH
    )
    assert dry["spec"]["replicas"] == 7
    assert api.store.get("Deployment", "shop", "web")["spec"]["replicas"] == 2


# --- who owns a field ---------------------------------------------------------------------------


def owners(obj: Json, *path: str) -> list[tuple[str, str]]:
    """List (manager, subresource) of the entries that have a field."""
    found: list[tuple[str, str]] = []
    for entry in obj["metadata"]["managedFields"]:
        fields: Any = entry["fieldsV1"]
        for part in path:
            fields = fields.get(part) if fields is not None else None
        if fields is not None:
            found.append((entry["manager"], entry.get("subresource", "")))
    return found


async def test_a_scale_put_takes_the_replicas_from_their_owner(api: Api) -> None:
    await api.ask("POST", DEPLOYMENTS, deployment())
    made = api.store.get("Deployment", "shop", "web")
    assert owners(made, "f:spec", "f:replicas") == [("kubectl", "")]
    scale = {"metadata": {"name": "web", "uid": made["metadata"]["uid"]}, "spec": {"replicas": 5}}
    await api.ask("PUT", f"{DEPLOYMENTS}/web/scale?fieldManager=tiphys-abc", scale)
    _, found = await api.ask("GET", f"{DEPLOYMENTS}/web")
    assert owners(found, "f:spec", "f:replicas") == [("tiphys-abc", "scale")]
    containers = "f:spec", "f:template", "f:spec", "f:containers"
    assert owners(found, *containers, 'k:{"name":"app"}', "f:image") == [("kubectl", "")]
    entry = found["metadata"]["managedFields"][-1]
    assert entry["fieldsV1"] == {"f:spec": {"f:replicas": {}}}
    assert (entry["operation"], entry["fieldsType"]) == ("Update", "FieldsV1")
    body = {"spec": {"replicas": 6}}
    await api.ask("PATCH", f"{DEPLOYMENTS}/web?fieldManager=hand", body, MERGE_PATCH)
    assert owners(api.store.get("Deployment", "shop", "web"), "f:spec", "f:replicas") == [
        ("hand", "")
    ]


# --- rights -------------------------------------------------------------------------------------


def grant(api: Api, verbs: list[str], **more: Any) -> None:
    meta = {"name": "fixer", "namespace": "shop"}
    rule = {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": verbs, **more}
    api.store.create({"kind": "Role", "metadata": meta, "rules": [rule]})
    subject = {"kind": "ServiceAccount", "name": "fixer", "namespace": "actions"}
    api.store.create(
        {
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"kind": "Role", "name": "fixer"},
            "subjects": [subject],
        }
    )


async def test_an_unknown_token_is_not_let_in(api: Api) -> None:
    refused(await api.ask("GET", PODS, token="guess"), 401, "Unauthorized")
    token = api.tokens.service_account("actions", "fixer")
    api.tokens.revoke(token)
    refused(await api.ask("GET", PODS, token=token), 401, "Unauthorized")


async def test_a_role_grants_its_verbs_in_its_namespace_and_no_more(api: Api) -> None:
    api.store.create(deployment())
    api.store.create({"kind": "Namespace", "metadata": {"name": "bank"}})
    grant(api, ["get", "patch"])
    token = api.tokens.service_account("actions", "fixer")
    body = {"spec": {"replicas": 3}}
    assert (await api.ask("GET", f"{DEPLOYMENTS}/web", token=token))[0] == 200
    path = f"{DEPLOYMENTS}/web"
    assert (await api.ask("PATCH", path, body, MERGE_PATCH, token))[0] == 200
    elsewhere = "/apis/apps/v1/namespaces/bank/deployments/web"
    for method, where in (
        ("GET", DEPLOYMENTS),
        ("GET", elsewhere),
        ("GET", f"{path}/scale"),
        ("DELETE", path),
        ("GET", "/api/v1/nodes"),
    ):
        refused(await api.ask(method, where, token=token), 403, "Forbidden")
    told = refused(await api.ask("DELETE", path, token=token), 403, "Forbidden")
    assert told == (
        'deployments.apps "web" is forbidden: User "system:serviceaccount:actions:fixer" cannot '
        'delete resource "deployments" in API group "apps" in the namespace "shop"'
    )
    role = api.store.get("Role", "shop", "fixer")
    role["rules"][0]["verbs"] = ["get"]
    api.store.update(role)
    refused(await api.ask("PATCH", path, body, MERGE_PATCH, token), 403, "Forbidden")


async def test_a_role_with_names_grants_only_those_objects(api: Api) -> None:
    api.store.create(deployment())
    api.store.create(deployment("other"))
    grant(api, ["get", "list"], resourceNames=["web"])
    token = api.tokens.service_account("actions", "fixer")
    assert (await api.ask("GET", f"{DEPLOYMENTS}/web", token=token))[0] == 200
    refused(await api.ask("GET", f"{DEPLOYMENTS}/other", token=token), 403, "Forbidden")
    refused(await api.ask("GET", DEPLOYMENTS, token=token), 403, "Forbidden")


async def test_one_may_ask_for_ones_own_rights(api: Api) -> None:
    grant(api, ["patch"])
    token = api.tokens.service_account("actions", "fixer")
    for verb, expected in (("patch", True), ("delete", False)):
        attributes = {"verb": verb, "group": "apps", "resource": "deployments", "namespace": "shop"}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        body = {"spec": {"resourceAttributes": attributes}}
        code, review = await api.ask("POST", path, body, token=token)
        assert (code, review["status"]["allowed"]) == (201, expected)


async def test_admission_sees_the_user_and_can_refuse(api: Api) -> None:
    seen: list[AdmissionRequest] = []

    def rule(request: AdmissionRequest) -> None:
        seen.append(request)
        raise ApiError(403, "Forbidden", "not today")

    api.store.admission.append(rule)
    assert (
        refused(await api.ask("POST", DEPLOYMENTS, deployment()), 403, "Forbidden") == "not today"
    )
    assert (seen[0].operation, seen[0].kind, seen[0].user) == ("CREATE", "Deployment", "admin")
    assert api.store.list("Deployment") == []


# --- pods ---------------------------------------------------------------------------------------


def eviction(name: str, **options: Any) -> Json:
    meta = {"name": name, "namespace": "shop"}
    return {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta, **options}


async def test_an_evictions_preconditions_count_only_in_its_delete_options(api: Api) -> None:
    api.store.create(pod("web-1"))
    path = f"{PODS}/web-1/eviction"
    wrong = {"preconditions": {"uid": "another"}}
    refused(await api.ask("POST", path, eviction("web-1", deleteOptions=wrong)), 409, "Conflict")
    stale = {"preconditions": {"resourceVersion": "1"}}
    refused(await api.ask("POST", path, eviction("web-1", deleteOptions=stale)), 409, "Conflict")
    assert len(api.store.list("Pod")) == 1
    assert (await api.ask("POST", path, eviction("web-1", **wrong)))[0] == 201
    assert api.store.list("Pod") == []


async def test_a_disruption_budget_holds_evictions_up_but_not_deletions(api: Api) -> None:
    for name in ("web-1", "web-2"):
        api.store.create(pod(name, app="web"))
    api.store.create(pod("web-3", app="web", ready=False))
    selector = {"matchLabels": {"app": "web"}}
    budget = {"kind": "PodDisruptionBudget", "metadata": {"name": "web", "namespace": "shop"}}
    api.store.create({**budget, "spec": {"minAvailable": 2, "selector": selector}})
    answer = await api.ask("POST", f"{PODS}/web-1/eviction", eviction("web-1"))
    refused(answer, 429, "TooManyRequests")
    assert answer[1]["details"]["causes"][0]["reason"] == "DisruptionBudget"
    assert (await api.ask("POST", f"{PODS}/web-3/eviction", eviction("web-3")))[0] == 201
    assert (await api.ask("DELETE", f"{PODS}/web-1"))[0] == 200


async def test_logs_are_cut_and_told_apart_by_restart(api: Api) -> None:
    uid = api.store.create(pod("web-1"))["metadata"]["uid"]
    path = f"{PODS}/web-1/log"
    refused(await api.ask("GET", f"{path}?previous=true"), 400, "BadRequest")
    api.logs.append(uid, "app", "old")
    api.logs.restarted(uid, "app")
    for line in ("one", "two", "three"):
        api.logs.append(uid, "app", line)
    assert await api.ask("GET", f"{path}?tailLines=2") == (200, "two\nthree\n")
    assert await api.ask("GET", f"{path}?limitBytes=5") == (200, "one\nt")
    assert await api.ask("GET", f"{path}?container=app&previous=true") == (200, "old\n")
    refused(await api.ask("GET", f"{path}?container=other"), 400, "BadRequest")


async def test_what_a_deleted_object_owned_goes_with_it_unless_orphaned(api: Api) -> None:
    meta = {"name": "job", "namespace": "shop"}
    for orphan in (True, False):
        job = api.store.create(
            {"kind": "Job", "metadata": meta, "spec": {"template": pod("")["spec"]}}
        )
        owned = pod("worker")
        reference = {"kind": "Job", "name": "job", "uid": job["metadata"]["uid"]}
        owned["metadata"]["ownerReferences"] = [{**reference, "controller": True}]
        api.store.create(owned)
        path = "/apis/batch/v1/namespaces/shop/jobs/job"
        # A Job's pods are orphaned by default.
        body = None if orphan else {"propagationPolicy": "Background"}
        assert (await api.ask("DELETE", path, body))[0] == 200
        assert len(api.store.list("Pod")) == orphan
        if orphan:
            api.store.delete("Pod", "shop", "worker")


async def test_a_finalizer_holds_an_object_until_it_is_taken_off(api: Api) -> None:
    held = pod("web-1")
    held["metadata"]["finalizers"] = ["tiphys.io/wait"]
    api.store.create(held)
    _, going = await api.ask("DELETE", f"{PODS}/web-1")
    assert going["metadata"]["deletionTimestamp"]
    assert (await api.ask("GET", f"{PODS}/web-1"))[0] == 200
    await api.ask("PATCH", f"{PODS}/web-1", {"metadata": {"finalizers": None}}, MERGE_PATCH)
    refused(await api.ask("GET", f"{PODS}/web-1"), 404, "NotFound")


# --- malformed requests -------------------------------------------------------------------------


async def test_malformed_requests_get_a_status_that_says_so(api: Api) -> None:
    refused(await api.ask("GET", "/apis/apps/v1/namespaces/shop/gadgets"), 404, "NotFound")
    refused(await api.ask("GET", "/apis/nobody/v1/things"), 404, "NotFound")
    refused(await api.ask("GET", "/nothing"), 404, "NotFound")
    refused(await api.ask("GET", f"{DEPLOYMENTS}/web"), 404, "NotFound")
    refused(await api.ask("POST", DEPLOYMENTS, b"{"), 400, "BadRequest")
    refused(await api.ask("POST", DEPLOYMENTS, b"[]"), 400, "BadRequest")
    refused(await api.ask("POST", DEPLOYMENTS, pod("x")), 400, "BadRequest")
    refused(await api.ask("POST", DEPLOYMENTS, {"metadata": {"namespace": "b"}}), 400, "BadRequest")
    refused(await api.ask("POST", DEPLOYMENTS, {"metadata": {}}), 422, "Invalid")
    refused(await api.ask("DELETE", DEPLOYMENTS), 405, "MethodNotAllowed")
    refused(await api.ask("GET", f"{PODS}?labelSelector=%3D%3D"), 400, "BadRequest")
    unmatched = deployment()
    unmatched["spec"]["selector"] = {"matchLabels": {"app": "other"}}
    refused(await api.ask("POST", DEPLOYMENTS, unmatched), 422, "Invalid")
    nowhere = "/api/v1/namespaces/none/configmaps"
    refused(await api.ask("POST", nowhere, {"metadata": {"name": "c"}}), 404, "NotFound")
    # Without a content type a body is taken for JSON, a patch is not understood.
    assert (await api.ask("POST", DEPLOYMENTS, deployment(), ""))[0] == 201
    refused(await api.ask("POST", DEPLOYMENTS, deployment(), ""), 409, "AlreadyExists")
    refused(await api.ask("PATCH", f"{DEPLOYMENTS}/web", {}, ""), 415, "UnsupportedMediaType")
    refused(await api.ask("PUT", f"{DEPLOYMENTS}/other", deployment()), 400, "BadRequest")
    refused(await api.ask("PUT", f"{DEPLOYMENTS}/other", deployment("other")), 404, "NotFound")
