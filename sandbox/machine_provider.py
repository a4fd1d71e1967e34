"""A stand-in for Cluster API and a cloud behind it: pools become machines, and machines nodes.

It reaches its cluster over HTTP alone, so that it serves a simulated cluster and a real one. A node
of its has no kubelet: it is an object that says what a GPU node says, with a heartbeat.

What it takes from Cluster API: a MachineDeployment owns a MachineSet for each of its templates,
that owns Machines; annotated machines are deleted first; a deleted Machine is cordoned and drained,
then its node goes, then it; what is paused is left alone.
https://cluster-api.sigs.k8s.io/tasks/automated-machine-management/scaling
"""

import hashlib
import json
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import urllib3

from tiphys.sandbox.machine_nodes import Node, Nodes

Json = dict[str, Any]
Ask = Callable[[str, str, Any, str], tuple[int, Any]]
"""Sends (method, path, body, media type of a patch); gives the status and the JSON."""
PROVIDER = "machine-provider"
"""Who it is in a simulated cluster: one of its controllers."""
GROUP = "cluster.x-k8s.io"
VERSION = f"{GROUP}/v1beta2"
DELETE_FIRST = f"{GROUP}/delete-machine"
PAUSED = f"{GROUP}/paused"
MOST = "machines.tiphys.io/most"
"""Annotation of a MachineDeployment: how many machines the cloud has for it; the others wait."""
FINALIZER = f"machine.{GROUP}"
MERGE = "application/merge-patch+json"
_NOT_NOW = {403, 404, 409, 429}
"""Gone, there already, kept by a disruption budget, or in a namespace that ends: the next look."""
_DEPLOYMENT_LABEL, _SET_LABEL = f"{GROUP}/deployment-name", f"{GROUP}/set-name"
_CLUSTER_LABEL = f"{GROUP}/cluster-name"


class ProviderError(Exception):
    """The API server refused the provider something."""


@dataclass
class MachineProvider:
    """One provider; `look` does what there is to do, `run` again and again."""

    ask: Ask
    serves: Callable[[str], bool] = lambda _namespace: True
    """Whether the pools of a namespace are its own; others it leaves alone."""
    pause: float = 0.2
    """Seconds between two looks."""
    nodes: Nodes = field(init=False)

    def __post_init__(self) -> None:
        """Take the nodes in hand, too."""
        self.nodes = Nodes(self.want)

    def run(self, over: threading.Event) -> None:
        """Work until it is over; what goes wrong is tried again, as controllers do."""
        while not over.wait(self.pause):
            try:
                self.look()
            except (ProviderError, OSError):
                continue

    def look(self) -> None:
        """Bring every pool and machine one step further."""
        pools, machines = self._list("machinedeployments"), self._list("machines")
        sets = self._list("machinesets") if pools else []
        for pool in pools:
            if not _paused(pool):
                # One that ends meanwhile does not hold up the others.
                with suppress(ProviderError):
                    self._pool(pool, _owned(sets, pool), machines)
        up = Counter(_pool_of(one) for one in machines if "nodeRef" in one.get("status", {}))
        room = {_place(one, _name(one)): _most(one) - up[_place(one, _name(one))] for one in pools}
        for machine in self._list("machines") if pools or machines else []:
            mine = _pool_of(machine)
            if _ends(machine):
                self._end(machine)
            elif self.nodes.keep(machine) or _paused(machine):
                continue
            elif room.get(mine, 0) > 0:
                self._start(machine)
                room[mine] -= 1
            else:
                self._wait(machine)
        sets, machines = self._list("machinesets"), self._list("machines")
        for pool in pools:
            self._tell(pool, _owned(sets, pool), machines)

    def close(self) -> None:
        """Let every machine and node go at once, so that the namespace can end."""
        for machine in self._list("machines"):
            self.nodes.remove(_name(machine))
            self._patch("machines", machine, {"metadata": {"finalizers": None}})

    # --- pools ----------------------------------------------------------------------------------

    def _pool(self, pool: Json, sets: Sequence[Json], machines: Sequence[Json]) -> None:
        """Have one set of the present template with every replica; older ones go down to none."""
        name = f"{_name(pool)}-{_hash(pool)}"
        if name not in {_name(one) for one in sets}:
            sets = [*sets, self._create("machinesets", self._set_of(pool, name))]
        for one in sets:
            wanted = pool["spec"].get("replicas", 1) if _name(one) == name else 0
            if one["spec"].get("replicas") != wanted:
                self._patch("machinesets", one, {"spec": {"replicas": wanted}})
            self._fill(one, wanted, _owned(machines, one))

    def _set_of(self, pool: Json, name: str) -> Json:
        labels = {_CLUSTER_LABEL: pool["spec"]["clusterName"], _DEPLOYMENT_LABEL: _name(pool)}
        spec = {k: pool["spec"][k] for k in ("clusterName", "selector", "template")}
        return {
            "kind": "MachineSet",
            "metadata": _child(pool, name, labels),
            "spec": {**spec, "replicas": pool["spec"].get("replicas", 1)},
        }

    def _fill(self, one: Json, wanted: int, machines: Sequence[Json]) -> None:
        """Have as many machines as wanted; a set's machines that end do not count."""
        there = [machine for machine in machines if not _ends(machine)]
        for _ in range(wanted - len(there)):
            self._create("machines", self._machine_of(one))
        order = one["spec"].get("deletion", {}).get("order", "Random")
        surplus = max(0, len(there) - wanted)
        for machine in sorted(there, key=lambda m: _first_to_go(m, order))[:surplus]:
            self.want("DELETE", _path("machines", one, _name(machine)))

    def _machine_of(self, one: Json) -> Json:
        template = one["spec"]["template"]
        own = template.get("metadata", {})
        labels = {
            **own.get("labels", {}),
            **one["metadata"]["labels"],
            _SET_LABEL: _name(one),
        }
        meta = _child(one, f"{_name(one)}-{secrets.token_hex(3)}", labels)
        notes = {"annotations": own["annotations"]} if own.get("annotations") else {}
        return {
            "kind": "Machine",
            "metadata": {**meta, **notes, "finalizers": [FINALIZER]},
            "spec": template["spec"],
        }

    # --- machines -------------------------------------------------------------------------------

    def _wait(self, machine: Json) -> None:
        """The cloud has none left: the Machine stays so, for hours if need be."""
        if machine.get("status", {}).get("phase") != "Provisioning":
            self._status(machine, "Provisioning")

    def _start(self, machine: Json) -> None:
        space = machine["metadata"]["namespace"]
        owner = machine["metadata"]["labels"][_DEPLOYMENT_LABEL]
        pool = self.want("GET", _path("machinedeployments", machine, owner))
        if pool is None:  # deleted since it was listed: its machines end, too
            return
        node = Node.of(machine, pool)
        if not machine["spec"].get("providerID"):
            self._patch("machines", machine, {"spec": {"providerID": node.provider_id}})
        self.nodes.make(node, {f"{GROUP}/cluster-namespace": space})
        self._status(machine, "Running", nodeRef={"name": node.name})

    def _end(self, machine: Json) -> None:
        """Cordon and drain, then take the node away, then the machine."""
        if machine.get("status", {}).get("phase") != "Deleting":
            self._status(machine, "Deleting")
        reference = machine.get("status", {}).get("nodeRef")
        if reference and not self.nodes.drained(reference["name"]):
            return
        self.nodes.remove(_name(machine))
        self._patch("machines", machine, {"metadata": {"finalizers": None}})

    def _status(self, machine: Json, phase: str, **more: Any) -> None:
        running = "True" if phase == "Running" else "False"
        ready = _conditions(machine, ("Ready", "Available", "NodeReady", "NodeHealthy"), running)
        status = {"phase": phase, "conditions": ready, **more}
        self._patch("machines", machine, {"status": status}, "status")

    # --- telling --------------------------------------------------------------------------------

    def _tell(self, pool: Json, sets: Sequence[Json], machines: Sequence[Json]) -> None:
        """Write down what there is, in the pool's status and in its sets'."""
        newest = f"{_name(pool)}-{_hash(pool)}"
        counts = dict.fromkeys(("replicas", "readyReplicas", "upToDateReplicas"), 0)
        for one in sets:
            mine = _owned(machines, one)
            up = sum(m.get("status", {}).get("phase") == "Running" for m in mine)
            status = {"replicas": len(mine), "readyReplicas": up, "availableReplicas": up}
            status["upToDateReplicas"] = len(mine) if _name(one) == newest else 0
            self._write("machinesets", one, status)
            for key in counts:
                counts[key] += status[key]
        wanted = pool["spec"].get("replicas", 1)
        phase = "Running" if counts["readyReplicas"] == wanted else "ScalingUp"
        phase = "ScalingDown" if counts["replicas"] > wanted else phase
        more = {"availableReplicas": counts["readyReplicas"], "phase": phase}
        self._write("machinedeployments", pool, {**counts, **more})

    def _write(self, plural: str, obj: Json, status: Json) -> None:
        selector = obj["spec"]["selector"].get("matchLabels", {})
        status |= {
            "observedGeneration": obj["metadata"]["generation"],
            "selector": ",".join(f"{k}={v}" for k, v in sorted(selector.items())),
        }
        before = obj.get("status", {})
        if any(before.get(key) != value for key, value in status.items()):
            self._patch(plural, obj, {"status": status}, "status")

    # --- the wire -------------------------------------------------------------------------------

    def want(self, method: str, path: str, body: Any = None, media: str = "") -> Any:
        """Ask; gives None where there is nothing, or is already, or it may not be now."""
        status, answer = self.ask(method, path, body, media)
        if status in _NOT_NOW:
            return None
        if status >= 300:
            raise ProviderError(f"{method} {path}: {status} {json.dumps(answer)[:300]}")
        return answer

    def _list(self, plural: str) -> list[Json]:
        found: list[Json] = (self.want("GET", f"/apis/{VERSION}/{plural}") or {"items": []})[
            "items"
        ]
        return [one for one in found if self.serves(one["metadata"]["namespace"])]

    def _create(self, plural: str, obj: Json) -> Json:
        made = {"apiVersion": VERSION, **obj}
        if found := self.want("POST", _path(plural, made, ""), made):
            return found
        raise ProviderError(f"{obj['kind']} {_name(obj)} cannot be made now")

    def _patch(self, plural: str, obj: Json, body: Json, part: str = "") -> None:
        path = _path(plural, obj, _name(obj)) + (f"/{part}" if part else "")
        self.want("PATCH", path, body, MERGE)


def asking(url: str, token: str) -> Ask:
    """Give what asks a simulated API server with a bearer token."""
    pool = urllib3.PoolManager(retries=False, timeout=10.0)

    def ask(method: str, path: str, body: Any, media: str) -> tuple[int, Any]:
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": media or "application/json",
            "User-Agent": "machine-provider/1",
        }
        data = None if body is None else json.dumps(body).encode()
        try:
            answer = pool.request(method, url + path, body=data, headers=headers)
            return answer.status, json.loads(answer.data)
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise ProviderError(f"{method} {path}: {type(error).__name__}") from error

    return ask


def _path(plural: str, near: Json, name: str) -> str:
    root = f"/apis/{VERSION}/namespaces/{near['metadata']['namespace']}/{plural}"
    return f"{root}/{name}" if name else root


def _name(obj: Json) -> str:
    return str(obj["metadata"]["name"])


def _ends(obj: Json) -> bool:
    return "deletionTimestamp" in obj["metadata"]


def _paused(obj: Json) -> bool:
    notes: Mapping[str, str] = obj["metadata"].get("annotations") or {}
    return bool(obj["spec"].get("paused")) or PAUSED in notes or _ends(obj)


def _place(obj: Json, name: str) -> str:
    return f"{obj['metadata']['namespace']}/{name}"


def _pool_of(machine: Json) -> str:
    labels: Mapping[str, str] = machine["metadata"].get("labels") or {}
    return _place(machine, labels.get(_DEPLOYMENT_LABEL, ""))


def _most(pool: Json) -> int:
    return int((pool["metadata"].get("annotations") or {}).get(MOST, 1000))


def _hash(pool: Json) -> str:
    text = json.dumps(pool["spec"]["template"], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:5]


def _child(owner: Json, name: str, labels: Mapping[str, str]) -> Json:
    meta = owner["metadata"]
    reference = {
        "apiVersion": VERSION,
        "kind": owner["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "name": name,
        "namespace": meta["namespace"],
        "labels": {**labels},
        "ownerReferences": [reference],
    }


def _owned(objects: Sequence[Json], owner: Json) -> list[Json]:
    uid = owner["metadata"].get("uid")
    return [
        one
        for one in objects
        if any(r["uid"] == uid for r in one["metadata"].get("ownerReferences") or [])
    ]


def _first_to_go(machine: Json, order: str) -> tuple[bool, bool, str]:
    """Order as Cluster API does: annotated, without a node, then by the pool's own order."""
    annotated = DELETE_FIRST in (machine["metadata"].get("annotations") or {})
    made = machine["metadata"]["creationTimestamp"]
    tie = _name(machine) if order == "Random" else made
    if order == "Newest":
        tie = "".join(chr(255 - ord(c)) for c in made)
    return not annotated, "nodeRef" in machine.get("status", {}), tie


def _conditions(machine: Json, kinds: Sequence[str], status: str) -> list[Json]:
    before = {c["type"]: c for c in machine.get("status", {}).get("conditions") or []}
    reason = "Running" if status == "True" else "NotRunning"
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    fresh = {"status": status, "reason": reason, "message": "", "lastTransitionTime": now}
    return [
        before[kind] if before.get(kind, {}).get("status") == status else {"type": kind, **fresh}
        for kind in kinds
    ]
