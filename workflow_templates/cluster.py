"""The only Kubernetes writes in the project, as named verbs with their fences.

Used inside a step's pod with that pod's own ServiceAccount. Invariants: every write names the run
as its field manager and is refused by the API server when the object is not the one that was read;
every request has a time-out; nothing is retried here, since only the caller can tell what happened.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import urllib3

from tiphys.policies.model import Json, Object, ObjectReference

REQUEST_SECONDS = 5.0
"""A write that was not answered by then may still happen; see `Unreachable`."""
PAGE = 500
"""Objects of one answer to a list."""
MAX_ANSWER = 32 << 20
"""Bytes of one answer."""
_DEFAULT_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_PLURALS = {
    "ConfigMap": "configmaps",
    "CronJob": "cronjobs",
    "DaemonSet": "daemonsets",
    "Deployment": "deployments",
    "Event": "events",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
    "Job": "jobs",
    "LimitRange": "limitranges",
    "Machine": "machines",
    "MachineDeployment": "machinedeployments",
    "MachineSet": "machinesets",
    "Namespace": "namespaces",
    "Node": "nodes",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "Pod": "pods",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "ReplicaSet": "replicasets",
    "ResourceQuota": "resourcequotas",
    "StatefulSet": "statefulsets",
    "StorageClass": "storageclasses",
    "VerticalPodAutoscaler": "verticalpodautoscalers",
}


class ClusterError(Exception):
    """The API server did not do what was asked; the message says what and why."""


class Conflict(ClusterError):
    """The object is not the one that was read: read it again."""


class Exists(Conflict):
    """An object of that name is already there."""


class Gone(ClusterError):
    """There is no such object."""


class Forbidden(ClusterError):
    """The API server forbids it."""


class Unreachable(ClusterError):
    """The API server did not answer; a write may or may not have happened."""


@dataclass(frozen=True)
class Connection:
    """Where the API server is and who we are there."""

    url: str
    token_file: Path
    """Read anew for each request: a projected token is replaced while the pod runs."""
    ca_file: Path | None

    @staticmethod
    def of_pod(environment: Mapping[str, str]) -> "Connection":
        """Find the pod's own ServiceAccount and API server.

        https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/
        """
        folder = Path(environment.get("TIPHYS_SERVICE_ACCOUNT_DIR") or _DEFAULT_ACCOUNT)
        url = environment.get("TIPHYS_KUBERNETES_URL", "")
        if not url:
            host = environment.get("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc")
            host = f"[{host}]" if ":" in host else host
            url = f"https://{host}:{environment.get('KUBERNETES_SERVICE_PORT', '443')}"
        ca = folder / "ca.crt"
        return Connection(url.rstrip("/"), folder / "token", ca if ca.exists() else None)


class Cluster:
    """The Kubernetes API as one run of one action sees it."""

    def __init__(self, connection: Connection, digest: str) -> None:
        self._connection = connection
        self._manager = f"tiphys-{digest}"
        ca = connection.ca_file
        self._pool = urllib3.PoolManager(
            cert_reqs="CERT_REQUIRED", ca_certs=os.fspath(ca) if ca else None, retries=False
        )

    # --- reading --------------------------------------------------------------------------------

    def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object:
        """Read one object; raises `Gone` when there is none."""
        return self._ask("GET", _path(api_version, kind, namespace, name))

    def list(
        self, api_version: str, kind: str, namespace: str, field_selector: str = ""
    ) -> Sequence[Object]:
        """List the objects of a namespace, or of all; a kind that is not served has none."""
        found: list[Object] = []
        query = f"limit={PAGE}&fieldSelector={quote(field_selector)}"
        place, after = _path(api_version, kind, namespace), ""
        while True:
            try:
                answer = self._ask("GET", f"{place}?{query}{after}")
            except Gone:
                if after:
                    raise Unreachable(f"{place}: the list changed while it was read") from None
                return []
            found += cast("Sequence[Object]", answer.get("items") or [])
            token = cast("dict[str, str]", answer.get("metadata") or {}).get("continue")
            if not token:
                return found
            after = f"&continue={quote(token)}"

    # --- writing --------------------------------------------------------------------------------

    def create_event(self, event: Object) -> None:
        """Create an Event in its namespace; raises `Exists` when its name is taken."""
        namespace = str(cast("dict[str, Json]", event["metadata"])["namespace"])
        self._ask("POST", _path("v1", "Event", namespace), body=event, manager=self._manager)

    def delete_pod(self, namespace: str, name: str, uid: str) -> None:
        """Delete exactly this pod, gracefully; raises `Conflict` when the name has a new uid."""
        self._ask("DELETE", _path("v1", "Pod", namespace, name), body=_exactly(uid))

    def delete_job(self, namespace: str, name: str, uid: str) -> None:
        """Delete exactly this Job, its pods behind it; `Conflict` when the name has a new uid.

        Without a policy the API orphans a Job's pods, for compatibility.
        """
        options: Json = {**_exactly(uid), "propagationPolicy": "Background"}
        self._ask("DELETE", _path("batch/v1", "Job", namespace, name), body=options)

    def delete_machine(self, machine: ObjectReference) -> None:
        """Delete exactly this Machine, its node behind it; `Conflict` for another uid."""
        place = _path(machine.api_version, machine.kind, machine.namespace, machine.name)
        options: Json = {**_exactly(machine.uid), "propagationPolicy": "Background"}
        self._ask("DELETE", place, body=options)

    def evict_pod(self, namespace: str, name: str, uid: str) -> None:
        """Evict exactly this pod; `Conflict` for another uid, `Unreachable` while it is withheld.

        Preconditions count only inside `deleteOptions`. A disruption budget answers 429.
        https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/
        """
        body: Json = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": _exactly(uid),
        }
        self._ask("POST", f"{_path('v1', 'Pod', namespace, name)}/eviction", body=body)

    def patch_node(self, node: Object, operations: Sequence[Json]) -> None:
        """Apply a JSON patch to exactly this node, or raise `Conflict`; the caller tests values."""
        meta = cast("dict[str, str]", node["metadata"])
        fence: Json = {"op": "test", "path": "/metadata/uid", "value": meta["uid"]}
        place = _path("v1", "Node", "", meta["name"])
        self._ask("PATCH", place, body=[fence, *operations], manager=self._manager)

    def patch(self, obj: Object, operations: Sequence[Json]) -> None:
        """Apply a JSON patch to exactly the object that was read, or raise `Conflict`.

        The test of its resourceVersion covers every old value and every mark in it.
        """
        meta = cast("dict[str, str]", obj["metadata"])
        tests: list[Json] = [
            {"op": "test", "path": "/metadata/uid", "value": meta["uid"]},
            {"op": "test", "path": "/metadata/resourceVersion", "value": meta["resourceVersion"]},
        ]
        kind = str(obj["apiVersion"]), str(obj["kind"])
        place = _path(*kind, meta.get("namespace", ""), meta["name"])
        self._ask("PATCH", place, body=[*tests, *operations], manager=self._manager)

    def put_scale(self, workload: Object, replicas: int, ending: str) -> None:
        """Set the replicas of exactly the workload that was read, or raise `Conflict`.

        The field manager, with such an ending as `.undone`, is the mark: only a subresource may be
        written. PUT, since a merge patch of a custom resource's `/scale` ignores a wrong uid.
        """
        meta = cast("dict[str, str]", workload["metadata"])
        fence = {key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion")}
        scale: Json = {
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": {**fence},
            "spec": {"replicas": replicas},
        }
        version, kind = str(workload["apiVersion"]), str(workload["kind"])
        place = _path(version, kind, meta["namespace"], meta["name"]) + "/scale"
        self._ask("PUT", place, body=scale, manager=f"{self._manager}{ending}")

    # --- the wire -------------------------------------------------------------------------------

    def _ask(
        self, method: str, path: str, *, body: Json | Object = None, manager: str = ""
    ) -> Object:
        what = f"{method} {path}"
        query = f"?fieldManager={quote(manager)}" if manager else ""
        kind = "application/json-patch+json" if method == "PATCH" else "application/json"
        try:
            token = self._connection.token_file.read_text().strip()
            answer = self._pool.request(
                method,
                f"{self._connection.url}{path}{query}",
                body=None if body is None else json.dumps(body).encode(),
                headers={
                    "Authorization": f"Bearer {token}",
                    "Accept": "application/json",
                    "Content-Type": kind,
                },
                timeout=urllib3.Timeout(total=REQUEST_SECONDS),
                redirect=False,
                preload_content=False,
            )
            data = answer.read(MAX_ANSWER + 1)
            answer.release_conn()
        except OSError as error:
            raise Unreachable(f"{what}: no ServiceAccount token: {error.strerror}") from error
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"{what}: {type(error).__name__}") from error
        return _judge(what, method, answer.status, data)


def _exactly(uid: str) -> dict[str, Json]:
    """Give the options of a deletion that is for one object, not for its name."""
    return {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}


def _judge(what: str, method: str, status: int, data: bytes) -> Object:
    try:
        found: Any = json.loads(data) if len(data) <= MAX_ANSWER else None
    except ValueError:
        found = None
    if status < 300 and isinstance(found, dict):
        return cast("Object", found)
    told = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    message = f"{what}: {status} {str(told.get('message') or 'without a reason')[:300]}"
    if status == 409:
        raise Exists(message) if told.get("reason") == "AlreadyExists" else Conflict(message)
    if status == 422 and method == "PATCH":
        # A JSON patch whose test failed; the answer may quote values and does not say which test.
        raise Conflict(f"{what}: 422, the patch does not apply")
    if status in {404, 410}:
        raise Gone(message)
    if status in {401, 403}:
        raise Forbidden(message)
    if status < 300 or status in {408, 429} or status >= 500:
        raise Unreachable(message)
    raise ClusterError(message)


def _path(api_version: str, kind: str, namespace: str, name: str = "") -> str:
    root = f"/api/{api_version}" if api_version == "v1" else f"/apis/{api_version}"
    item = f"/{quote(name, safe='')}" if name else ""
    within = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"{root}{within}/{_PLURALS[kind]}{item}"
