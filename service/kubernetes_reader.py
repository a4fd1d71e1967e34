"""The Kubernetes API with the agents' read-only token: the agents' ClusterReader port.

Raw JSON instead of the client's models, which cost most of a read's time. Invariants: GET only;
Secrets are refused here too, whatever the token may read; every answer is bounded.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast
from urllib.parse import quote, urlencode

from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from tiphys.agents.ports import UnansweredError
from tiphys.policies.model import Object
from tiphys.service.kubernetes_api import TIMEOUT, UNREACHABLE, explain

PAGE: Final = 500
MAX_OBJECTS: Final = 10_000
"""More objects of one list are not read: the question was too wide."""
MAX_BYTES: Final = 64 << 20
"""Bytes of one answer."""
LOG_BYTES: Final = 64 << 10
"""Bytes kept of a log: its last ones."""
LOG_READ_BYTES: Final = 2 << 20
"""Bytes read of the last lines of a log. `limitBytes` leaves out the end of what is asked for, so
it must be more than such lines have: a runtime's log file breaks them at 16 KiB (CRI)."""
UNKNOWN_SECONDS: Final = 15.0
"""How long an API server may not know our token before that counts as no answer. A pod that is
being deleted has lost its token, and goes on for some seconds: what it concluded from that would be
written down in the place of what its successor sees."""
BUSY_SECONDS: Final = 10.0
"""How long to wait for an API server that says 429, within what it asks for."""
_AGAIN: Final = 1.0
_PLURALS: Final[Mapping[tuple[str, str], tuple[str, bool]]] = {
    ("v1", "ConfigMap"): ("configmaps", True),
    ("v1", "Event"): ("events", True),
    ("v1", "LimitRange"): ("limitranges", True),
    ("v1", "Namespace"): ("namespaces", False),
    ("v1", "Node"): ("nodes", False),
    ("v1", "PersistentVolumeClaim"): ("persistentvolumeclaims", True),
    ("v1", "Pod"): ("pods", True),
    ("v1", "ReplicationController"): ("replicationcontrollers", True),
    ("v1", "ResourceQuota"): ("resourcequotas", True),
    ("apps/v1", "DaemonSet"): ("daemonsets", True),
    ("apps/v1", "Deployment"): ("deployments", True),
    ("apps/v1", "ReplicaSet"): ("replicasets", True),
    ("apps/v1", "StatefulSet"): ("statefulsets", True),
    ("autoscaling/v2", "HorizontalPodAutoscaler"): ("horizontalpodautoscalers", True),
    ("autoscaling.k8s.io/v1", "VerticalPodAutoscaler"): ("verticalpodautoscalers", True),
    ("batch/v1", "CronJob"): ("cronjobs", True),
    ("batch/v1", "Job"): ("jobs", True),
    ("policy/v1", "PodDisruptionBudget"): ("poddisruptionbudgets", True),
    ("storage.k8s.io/v1", "StorageClass"): ("storageclasses", False),
}
"""Resource and whether it is namespaced; other kinds are looked up once in the API's discovery."""


class KubernetesReader:
    """Reads through one client, which its owner closes."""

    def __init__(self, api: client.ApiClient, unknown_seconds: float = UNKNOWN_SECONDS) -> None:
        self._api = api
        self._unknown_seconds = unknown_seconds
        self._found: dict[tuple[str, str], tuple[str, bool] | None] = {}

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object | None:
        """Read one object; None when the API server says 404. Raises `UnansweredError`."""
        place = await self._place(api_version, kind, namespace)
        if place is None:
            return None
        status, body = await self._read(f"{place}/{quote(name, safe='')}")
        return None if status == 404 else _named(_object(body), kind, name)

    async def list(
        self,
        api_version: str,
        kind: str,
        namespace: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Sequence[Object]:
        """List objects, page by page; a kind that is not served has none."""
        place = await self._place(api_version, kind, namespace)
        found: list[Object] = []
        if place is None:
            return found
        query = {"limit": str(PAGE)}
        query |= {"labelSelector": label_selector} if label_selector else {}
        query |= {"fieldSelector": field_selector} if field_selector else {}
        for _ in range(MAX_OBJECTS // PAGE):
            status, body = await self._read(f"{place}?{urlencode(query)}")
            if status == 404 and "continue" not in query:
                return found
            page = _page(status, body)
            # Lists leave apiVersion and kind out of their items.
            found += [
                {"apiVersion": api_version, "kind": kind, **one} for one in _objects(page, "items")
            ]
            metadata = page.get("metadata")
            more = metadata.get("continue") if isinstance(metadata, dict) else None
            if not more:
                return found
            query["continue"] = str(more)
        raise UnansweredError(f"Kubernetes has more than {MAX_OBJECTS} {kind} objects here")

    async def logs(
        self, namespace: str, pod: str, container: str, *, previous: bool, tail_lines: int
    ) -> str:
        """Read the end of a log, at most 64 KiB; empty where there is none (yet).

        Raises `UnansweredError` also where so few lines have no end that could be read.
        """
        query = {"tailLines": str(tail_lines), "limitBytes": str(LOG_READ_BYTES)}
        query |= {"container": container} if container else {}
        query |= {"previous": "true"} if previous else {}
        place = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}/log"
        # 400: the container waits to start, or there was none before this one.
        status, body = await self._read(f"{place}?{urlencode(query)}", LOG_READ_BYTES, (400, 404))
        if status in {400, 404}:
            return ""
        if len(body) >= LOG_READ_BYTES:
            raise UnansweredError(
                f"the last {tail_lines} lines have {LOG_READ_BYTES} bytes or more: "
                "the end of the log was not reached"
            )
        return body[-LOG_BYTES:].decode(errors="replace")

    async def _place(self, api_version: str, kind: str, namespace: str) -> str | None:
        if kind == "Secret":
            raise UnansweredError("Secrets are not read")
        root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
        known = _PLURALS.get((api_version, kind)) or await self._discover(root, api_version, kind)
        if known is None:
            return None
        plural, namespaced = known
        within = f"/namespaces/{quote(namespace, safe='')}" if namespaced and namespace else ""
        return f"{root}{within}/{plural}"

    async def _discover(self, root: str, api_version: str, kind: str) -> tuple[str, bool] | None:
        if (api_version, kind) not in self._found:
            status, body = await self._read(root)
            resources = [] if status == 404 else _objects(_object(body), "resources")
            self._found[api_version, kind] = next(
                (
                    (str(r.get("name")), bool(r.get("namespaced")))
                    for r in resources
                    if r.get("kind") == kind and "/" not in str(r.get("name"))
                ),
                None,
            )
        return self._found[api_version, kind]

    async def _read(
        self, path: str, most: int = MAX_BYTES, absent: Sequence[int] = (404,)
    ) -> tuple[int, bytes]:
        """GET a path; gives the status, 200 or one of `absent`, and the body's first bytes."""
        began = asyncio.get_running_loop().time()
        while True:
            status, body, wait = await self._ask(path, most)
            if status == 200 or status in absent:
                return status, body
            gone = asyncio.get_running_loop().time() - began
            patience = {401: self._unknown_seconds, 429: BUSY_SECONDS - wait}.get(status, 0.0)
            if gone >= patience:
                said = f"Kubernetes answered {status} to GET {path[:200]}: {_said(body)}"
                raise UnansweredError(said)
            await asyncio.sleep(wait)

    async def _ask(self, path: str, most: int) -> tuple[int, bytes, float]:
        """GET a path once; gives the seconds until it may be asked again, too."""
        try:
            async with asyncio.timeout(TIMEOUT):
                request = await self._api.param_serialize(
                    "GET", path, header_params={"Accept": "*/*"}, auth_settings=["BearerToken"]
                )
                answer = await self._api.call_api(*request, _request_timeout=TIMEOUT)
                again = _seconds(answer.response.headers.get("Retry-After", ""))
                return int(answer.status), await _bounded(answer.response, most), again
        except ApiException as error:
            raise UnansweredError(explain(error)) from error
        except UNREACHABLE as error:
            raise UnansweredError(explain(error)) from error


def _seconds(retry_after: str) -> float:
    """Read Retry-After, of which the API server writes whole seconds."""
    return float(retry_after) if retry_after.isdigit() and len(retry_after) < 6 else _AGAIN


async def _bounded(response: Any, most: int) -> bytes:
    """Read at most so many bytes; what is left is thrown away with the connection."""
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_chunked(1 << 16):
        parts.append(part)
        size += len(part)
        if size >= most:
            response.close()
            break
    return b"".join(parts)[:most]


def _object(body: bytes) -> dict[str, Any]:
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnansweredError("Kubernetes' answer cannot be read") from error
    if not isinstance(found, dict):
        raise UnansweredError("Kubernetes' answer is no object")
    return cast("dict[str, Any]", found)


def _named(found: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    """Refuse what is not the object that was asked for, or has no identity to act on."""
    metadata = found.get("metadata")
    known = cast("dict[str, Any]", metadata) if isinstance(metadata, dict) else {}
    if known.get("name") != name or not isinstance(known.get("uid"), str) or not known["uid"]:
        raise UnansweredError(f"Kubernetes' answer is not {kind} {name[:200]}, or has no uid")
    return found


def _page(status: int, body: bytes) -> dict[str, Any]:
    """Read one page; a later one that is not there leaves a list of which nobody knows the rest."""
    if status != 200:
        raise UnansweredError(f"Kubernetes answered {status} in the middle of a list")
    return _object(body)


def _objects(page: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Give the objects of an answer's list; one that is none makes the whole unreadable."""
    listed = page.get(key) or []
    if not isinstance(listed, list):
        raise UnansweredError("Kubernetes' answer is no list")
    found = cast("list[Any]", listed)
    if not all(isinstance(one, dict) for one in found):
        raise UnansweredError("Kubernetes' list holds what is no object")
    return cast("list[dict[str, Any]]", found)


def _said(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
