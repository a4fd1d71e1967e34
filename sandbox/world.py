"""A whole simulated outside for one scenario: Kubernetes, Prometheus, Alertmanager and Argo.

`start` brings it up healthy and with a past, `strike` breaks it, `stop` leaves nothing behind.
Real time, one process, loopback only; the service and the steps reach it as they reach a real one.
"""

import asyncio
import contextvars
import logging
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tiphys.sandbox import admission, installation
from tiphys.sandbox.alertmanager import Alertmanager, Timing
from tiphys.sandbox.argo import STEP_MODULE, Argo
from tiphys.sandbox.behaviour import Behaviours
from tiphys.sandbox.circumstances import Circumstances
from tiphys.sandbox.controllers import Controllers
from tiphys.sandbox.faults import Fault, Stage
from tiphys.sandbox.kube_api import kube_app
from tiphys.sandbox.kube_metrics import samples
from tiphys.sandbox.logs import Logs
from tiphys.sandbox.loopback import serving
from tiphys.sandbox.machine_provider import PROVIDER, MachineProvider, asking
from tiphys.sandbox.owners import with_uids
from tiphys.sandbox.prometheus import Prometheus, Rule
from tiphys.sandbox.rbac import MASTERS, Tokens
from tiphys.sandbox.scenario import STRUCK, Reference, Scenario
from tiphys.sandbox.series import BACKFILL_SECONDS, BACKFILL_STEP, ScenarioSeries
from tiphys.sandbox.store import LAG, ApiError, PatchType, Store
from tiphys.sandbox.tsdb import Tsdb

CLUSTER = "sandbox"
OPTED_IN = "tiphys.io/heal=enabled"
KUBE_STATE_METRICS, APPLICATIONS = "kube-state-metrics", "apps"
"""The scrape jobs."""
SETTLE_SECONDS = 5.0
_IMPATIENT = Timing(group_wait=0.2, group_interval=0.5)
_NOWHERE = "http://127.0.0.1:9/webhook"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pace:
    """How fast the outside looks, in seconds."""

    scrape: float = 0.5
    """Between two scrapes, and two evaluations of the rules."""
    alertmanager: Timing = _IMPATIENT


class World:
    """One scenario's world; `directory` gets the kubeconfigs and must exist."""

    def __init__(self, scenario: Scenario, directory: Path, pace: Pace | None = None) -> None:
        self.scenario = scenario
        self.directory = directory
        self.pace = pace or Pace()
        self.store = Store()
        self.tokens = Tokens()
        self.logs = Logs()
        self.behaviours = Behaviours()
        self.circumstances = Circumstances(self.store)
        self.told: list[tuple[float, str]] = []
        """What happened, for people: (unix seconds, sentence)."""
        self.on_told: Callable[[str], None] | None = None
        self.kubernetes_url = self.prometheus_url = self.alertmanager_url = ""
        """Base URLs, known once started."""
        self.kubeconfigs: dict[str, Path] = {}
        """Paths by role: agents, launcher, gateway, admin; written by `start`."""
        self._serving = AsyncExitStack()
        self._kubernetes = AsyncExitStack()
        self._controllers = Controllers(self.store, self.behaviours, self.logs)
        self._series = ScenarioSeries(scenario.series, self.store, self.circumstances)
        self.alertmanager = Alertmanager(_NOWHERE, timing=self.pace.alertmanager)
        self.prometheus = Prometheus(
            Tsdb(),
            [
                Rule(rule.alert, rule.expr, rule.hold, rule.labels, rule.annotations)
                for rule in scenario.rules
            ],
            sources={
                KUBE_STATE_METRICS: lambda: samples(self.store),
                APPLICATIONS: lambda: self._series.readings(time.time()),
            },
            push=self.alertmanager.receive,
        )
        self.argo: Argo | None = None
        self._argo_task: asyncio.Task[None] | None = None
        self._fault: asyncio.Task[None] | None = None
        self._over = threading.Event()
        self._tasks: list[asyncio.Task[None]] = []

    # --- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring everything up: healthy, settled long ago, with an hour of metrics."""
        await self.open()
        await self.settle()

    async def open(self) -> None:
        """Serve the APIs of a cluster that is still empty: its clients may start meanwhile."""
        await self._serve()
        admission.install(self.store)
        self._create(installation.manifests())
        self.kubeconfigs = installation.write_kubeconfigs(
            self.directory, self.kubernetes_url, self.tokens
        )

    async def settle(self) -> None:
        """Fill it with the scenario's objects and their past, and let its controllers run."""
        await self._grow_old()
        self._backfill(time.time())
        self._run(self._controllers.run())
        self.argo = Argo(
            self.store,
            self.tokens,
            self.kubernetes_url,
            (sys.executable, "-m", STEP_MODULE),
            directory=self.directory,
        )
        self.argo.pods.logs = self.logs
        await self.resume_argo()
        self._run(self.alertmanager.run())
        self._run(self.prometheus.run(self.pace.scrape))

    def install(self, manifests: Iterable[dict[str, Any]]) -> None:
        """Apply manifests: the rendered catalogue, and its Roles in the opted-in namespaces."""
        self._create(manifests)

    @property
    def opted_in(self) -> list[str]:
        """Names of the namespaces that opted in."""
        return [space["metadata"]["name"] for space in self.store.list("Namespace", "", OPTED_IN)]

    def connect_webhook(self, url: str, token: str = "") -> None:
        """Say where Alertmanager posts, and with which bearer token."""
        self.alertmanager.webhook_url = url
        self.alertmanager.bearer = token

    def environment(self, webhook_url: str, token: str) -> dict[str, str]:
        """Give the `TIPHYS_*` variables of a `tiphys serve` that lives in this world."""
        address = urlsplit(webhook_url)
        return {
            "TIPHYS_CLUSTER": CLUSTER,
            "TIPHYS_HOST": address.hostname or "127.0.0.1",
            "TIPHYS_PORT": str(address.port or 0),
            "TIPHYS_WEBHOOK_TOKEN": token,
            "TIPHYS_PROMETHEUS_URL": self.prometheus_url,
            "TIPHYS_ALERTMANAGER_URLS": self.alertmanager_url,
            "TIPHYS_KUBECONFIG": str(self.kubeconfigs[installation.AGENTS]),
            "TIPHYS_LAUNCHER_KUBECONFIG": str(self.kubeconfigs[installation.LAUNCHER]),
            "TIPHYS_GATEWAY_KUBECONFIG": str(self.kubeconfigs[installation.GATEWAY]),
        }

    async def strike(self) -> None:
        """Begin the fault; its steps go on by themselves."""
        stage = Stage(
            self.store, self.behaviours, self.logs, self.prometheus, self.alertmanager,
            self.circumstances,
        )  # fmt: skip
        self.circumstances.set({STRUCK: True})
        self._fault = self._start(Fault(stage, self._tell).play(self.scenario.fault))
        self._tasks.append(self._fault)

    @property
    def fault_over(self) -> bool:
        """Whether every step of the fault has happened."""
        return self._fault is not None and self._fault.done()

    async def stop(self) -> None:
        """End everything: tasks, step processes, servers. May be repeated."""
        self._over.set()
        await self.pause_argo()
        if self.argo is not None:
            await self.argo.close()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.stop_kubernetes()
        await self._serving.aclose()
        for path in self.kubeconfigs.values():
            path.unlink(missing_ok=True)

    # --- breaking things by hand ----------------------------------------------------------------

    async def pause_argo(self) -> None:
        """Kill the Argo controller; pods that run go on."""
        if self._argo_task is not None:
            self._argo_task.cancel()
            await asyncio.gather(self._argo_task, return_exceptions=True)
            self._argo_task = None

    async def resume_argo(self) -> None:
        """Start the Argo controller again."""
        if self.argo is not None and self._argo_task is None:
            self._argo_task = self._start(self.argo.run())

    async def stop_kubernetes(self) -> None:
        """Shut the API server down: nothing listens on its port any more."""
        await self._kubernetes.aclose()

    def edit(self, obj: Reference, merge: dict[str, Any], manager: str = "kubectl-edit") -> None:
        """Change an object as somebody else."""
        self.store.patch(
            obj.kind, obj.namespace, obj.name, merge, PatchType.STRATEGIC, manager=manager
        )

    # --- inside ---------------------------------------------------------------------------------

    def _tell(self, sentence: str) -> None:
        self.told.append((time.time(), sentence))
        if self.on_told is not None:
            self.on_told(sentence)

    def _create(self, manifests: Iterable[dict[str, Any]]) -> None:
        for manifest in manifests:
            try:
                made = with_uids(self.store, manifest)
                self.store.create(made, manager="kubectl-client-side-apply")
            except ApiError as error:
                if error.code != 409:
                    raise
                self.store.update(manifest, manager="kubectl-client-side-apply")

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(self._start(work))

    @staticmethod
    def _start(
        work: Coroutine[Any, Any, None], context: contextvars.Context | None = None
    ) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, context=context)
        task.add_done_callback(_complain)
        return task

    async def _serve(self) -> None:
        kube = kube_app(self.store, self.tokens, self.logs)
        self.kubernetes_url = await self._kubernetes.enter_async_context(serving(kube))
        prometheus, alertmanager = self.prometheus, self.alertmanager
        self.prometheus_url = await self._serving.enter_async_context(serving(prometheus.app()))
        self.alertmanager_url = await self._serving.enter_async_context(serving(alertmanager.app()))
        prometheus.external_url = self.prometheus_url
        alertmanager.external_url = self.alertmanager_url

    async def _grow_old(self) -> None:
        """Create the scenario's objects and let them settle, all written as of `age` ago."""
        past = contextvars.copy_context()
        past.run(LAG.set, self.scenario.age)
        for behaviour in self.scenario.behaviours:
            self.behaviours.add(behaviour, first=False)
        past.run(self._create, [*installation.nodes(), *self.scenario.objects])
        changed = asyncio.Event()
        unsubscribe = self.store.subscribe(lambda _event, _obj: changed.set())
        task = self._start(self._controllers.run(), past)
        self._provide_machines()
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                while not self._settled():
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            _log.info("the scenario's objects have not settled: it begins unhealthy")
        unsubscribe()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for event in self.store.list("Event"):
            # Kubernetes keeps Events for an hour; these would be older.
            meta = event["metadata"]
            self.store.delete("Event", meta["namespace"], meta["name"])

    def _provide_machines(self) -> None:
        """Have what makes machines of pools, where there are any."""
        if self.store.list("MachineDeployment"):
            token = self.tokens.issue(PROVIDER, (MASTERS,))
            provider = MachineProvider(asking(self.kubernetes_url, token))
            self._run(asyncio.to_thread(provider.run, self._over))

    def _settled(self) -> bool:
        for kind in ("Deployment", "StatefulSet"):
            for obj in self.store.list(kind):
                status = obj.get("status", {})
                wanted = obj["spec"]["replicas"]
                if status.get("readyReplicas", 0) != wanted:
                    return False
                if kind == "Deployment" and status.get("availableReplicas", 0) != wanted:
                    return False
        jobs = self.store.list("Job")
        began = all(self.store.owned_by("Pod", job["metadata"]["uid"]) for job in jobs)
        return began and all(_is_ready(pod) or _has_ended(pod) for pod in self.store.list("Pod"))

    def _backfill(self, now: float) -> None:
        tsdb, start = self.prometheus.tsdb, now - BACKFILL_SECONDS
        count = int(BACKFILL_SECONDS / BACKFILL_STEP)
        for name, labels, value in samples(self.store):
            tsdb.extend(name, labels, start, BACKFILL_STEP, [value] * count)
        for job in self.prometheus.sources:
            labels = {"job": job, "instance": job}
            tsdb.extend("up", labels, start, BACKFILL_STEP, [1.0] * count)
        self._series.backfill(tsdb, now)


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions: list[dict[str, Any]] = pod.get("status", {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _has_ended(pod: dict[str, Any]) -> bool:
    return pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}


def _complain(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a part of the sandbox has failed", exc_info=error)
