"""The controllers' loop: every change wakes those whom it concerns; nothing is polled.

https://kubernetes.io/docs/concepts/architecture/controller/
"""

import asyncio
import logging
from collections.abc import Callable

from tiphys.sandbox.behaviour import Behaviours
from tiphys.sandbox.deployments import MANAGER, reconcile_deployment
from tiphys.sandbox.disruptions import budget_status
from tiphys.sandbox.logs import Logs
from tiphys.sandbox.pods import Kubelets, Pace
from tiphys.sandbox.quotas import quota_status
from tiphys.sandbox.resources import Obj
from tiphys.sandbox.store import ApiError, Store
from tiphys.sandbox.volumes import reconcile_claim
from tiphys.sandbox.workloads import (
    reconcile_daemon_set,
    reconcile_job,
    reconcile_replica_set,
    reconcile_stateful_set,
)

_log = logging.getLogger(__name__)

Key = tuple[str, str, str]
"""Kind, namespace, name."""

RETRY_SECONDS = 1.0


class Controllers:
    """All controllers of one simulated cluster, the kubelets included."""

    def __init__(
        self, store: Store, behaviours: Behaviours, logs: Logs, pace: Pace | None = None
    ) -> None:
        self._store = store
        self._behaviours = behaviours
        self._kubelets = Kubelets(store, behaviours, logs, pace or Pace())
        self._wake = asyncio.Event()
        self._waiting: dict[Key, None] = {}
        self._gone: list[Obj] = []
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._reconcile: dict[str, Callable[[Obj], float | None]] = {
            "Deployment": lambda obj: reconcile_deployment(store, obj),
            "ReplicaSet": lambda obj: reconcile_replica_set(store, obj),
            "StatefulSet": lambda obj: reconcile_stateful_set(store, obj),
            "DaemonSet": lambda obj: reconcile_daemon_set(store, obj),
            "Job": lambda obj: reconcile_job(store, obj),
            "PodDisruptionBudget": self._keep_budget,
            "ResourceQuota": self._keep_quota,
            "PersistentVolumeClaim": lambda obj: reconcile_claim(store, obj),
            "Pod": self._kubelets.reconcile,
        }

    async def run(self) -> None:
        """Work until cancelled."""
        unsubscribe = self._store.subscribe(self._note)
        self._behaviours.on_change.append(self._look_at_pods)
        for kind in self._reconcile:
            self._look_at_all(kind)
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._work()
        finally:
            unsubscribe()
            self._behaviours.on_change.remove(self._look_at_pods)
            for timer in self._timers.values():
                timer.cancel()

    # --- what concerns whom ---------------------------------------------------------------------

    def _note(self, event: str, obj: Obj) -> None:
        kind, meta = obj["kind"], obj["metadata"]
        namespace = meta.get("namespace", "")
        if kind in self._reconcile:
            self._look_at((kind, namespace, meta["name"]))
        for owner in meta.get("ownerReferences") or []:
            self._look_at((owner["kind"], namespace, owner["name"]))
        if kind == "Pod":
            self._look_at_all("PodDisruptionBudget", namespace)
        if kind in {"Pod", "PersistentVolumeClaim"}:
            self._look_at_all("ResourceQuota", namespace)
        if kind == "PersistentVolume":
            self._look_at_all("PersistentVolumeClaim")
        if kind == "Node":
            self._look_at_all("DaemonSet")
        if kind == "Node" or (kind == "Pod" and event == "DELETED"):
            # Room has changed for those that no node took.
            self._look_at_all("Pod", field_selector="spec.nodeName=")
        if kind == "Pod" and event == "DELETED":
            self._gone.append(obj)

    def _look_at_pods(self) -> None:
        self._look_at_all("Pod")

    def _look_at_all(self, kind: str, namespace: str = "", field_selector: str = "") -> None:
        for obj in self._store.list(kind, namespace, field_selector=field_selector):
            meta = obj["metadata"]
            self._look_at((kind, meta["namespace"], meta["name"]))

    def _look_at(self, key: Key) -> None:
        self._waiting[key] = None
        self._wake.set()

    # --- work -----------------------------------------------------------------------------------

    async def _work(self) -> None:
        keys, self._waiting = list(self._waiting), {}
        gone, self._gone = self._gone, []
        for pod in gone:
            self._kubelets.gone(pod)
        for key in keys:
            if timer := self._timers.pop(key, None):
                timer.cancel()
            await asyncio.sleep(0)
            again = self._look(key)
            if again is not None:
                loop = asyncio.get_running_loop()
                self._timers[key] = loop.call_later(again, self._look_at, key)

    def _look(self, key: Key) -> float | None:
        kind, namespace, name = key
        reconcile = self._reconcile.get(kind)
        obj = self._store.find(kind, namespace, name) if reconcile else None
        if reconcile is None or obj is None:
            return None
        if "deletionTimestamp" in obj["metadata"]:
            return self._kubelets.end(obj) if kind == "Pod" else None
        try:
            return reconcile(obj)
        except ApiError as refusal:
            # Another write came between, or admission refused: look again later.
            _log.debug("%s %s/%s: %s", *key, refusal.message)
        except Exception:
            _log.exception("the simulated controller failed at %s %s/%s", *key)
        return RETRY_SECONDS

    def _keep_budget(self, budget: Obj) -> None:
        meta = {key: budget["metadata"][key] for key in ("name", "namespace")}
        status = budget_status(self._store, budget)
        body = {"kind": budget["kind"], "metadata": meta, "status": status}
        self._store.update(body, manager=MANAGER, subresource="status")

    def _keep_quota(self, quota: Obj) -> None:
        meta = {key: quota["metadata"][key] for key in ("name", "namespace")}
        body = {"kind": quota["kind"], "metadata": meta, "status": quota_status(self._store, quota)}
        self._store.update(body, manager=MANAGER, subresource="status")
