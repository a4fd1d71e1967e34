"""The kubectl agent: what the cluster says about the one object the alert is about.

It reads and never writes. What goes into the record are states and counts, not whole objects: an
object's environment may hold secrets.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from tiphys.agents.field_owner import BUILT_IN
from tiphys.agents.findings import findings, listing
from tiphys.agents.garbage_facts import garbage_facts, nodes_of
from tiphys.agents.gpu import Gpu
from tiphys.agents.limit_facts import (
    autoscaler_facts,
    budget_facts,
    job_facts,
    node_facts,
    told_budget,
)
from tiphys.agents.memory_facts import memory_facts
from tiphys.agents.node_around import around
from tiphys.agents.notebook import Notebook
from tiphys.agents.objects import (
    is_controlled_by,
    items,
    name_of,
    strings,
    target_of,
    text,
    uid_of,
    whole,
)
from tiphys.agents.on_call import firing
from tiphys.agents.pod_facts import (
    Trouble,
    is_ready,
    pod_facts,
    pods_facts,
    trouble_of,
)
from tiphys.agents.pod_words import LOG_LINES, event_lines, events_told, log_lines, log_told
from tiphys.agents.pool_facts import pool_facts
from tiphys.agents.ports import Case, ClusterReader, Metrics, UnansweredError
from tiphys.agents.promql import selector
from tiphys.agents.resolver import Link, Resolver, Subjects, targets
from tiphys.agents.state import State, written
from tiphys.agents.target_facts import autoscaler_of, pods_of
from tiphys.agents.volume_facts import volume_facts
from tiphys.agents.whereabouts import whereabouts
from tiphys.agents.workload_facts import (
    revision_of,
    revisions,
    rollout_at,
    rollout_facts,
    workload_facts,
)
from tiphys.policies.model import Json, Object, Source
from tiphys.workflow_templates.scheduled_runs import CRON_JOB

GROUPS: Final = ("autoscaler", "budget", "events", "garbage", "gpu", "job", "memory", "namespace",
                 "node", "pod", "pods", "pool", "resolution", "rollout", "volume",
                 "workload")  # fmt: skip
"""Fact groups of this agent; each is there, if empty, so that `has()` can be asked of it."""
ROLLED_OUT: Final = {"Deployment", "StatefulSet", "DaemonSet"}


class Kubectl:
    """Resolves the target and reads around it; its `look` is a node of the graph."""

    def __init__(
        self, cluster: ClusterReader, metrics: Metrics | None, clock: Callable[[], datetime]
    ) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._clock = clock

    async def look(self, case: Case) -> State:
        """Give targets by role, and facts about pod, workload, rollout, node and limits."""
        book = Notebook(self._clock)
        state = State(facts={}, targets={})
        try:
            await self._read(case, book, state)
        except UnansweredError as error:
            book.miss("the cluster", error)
        state.update(written("kubectl", book))
        return state

    async def _read(self, case: Case, book: Notebook, state: State) -> None:
        resolver = Resolver(self._cluster, book)
        gpu = await Gpu(self._cluster, self._metrics, self._clock).look(firing(case), book)
        subjects = await resolver.resolve(gpu.alerts)
        subjects.nodes |= gpu.nodes
        for gone in subjects.missing:
            book.note(f"{gone} no longer exists")
        if subjects.ambiguous:
            book.note(f"the alerts speak of several objects: {', '.join(subjects.ambiguous)}")
        facts: dict[str, Json] = {group: {} for group in GROUPS}
        facts["resolution"] = _resolution(subjects)
        facts["gpu"] = gpu.facts
        link = subjects.workload
        failing: Sequence[Object] = ()
        namespace = next((a.labels.get("namespace", "") for a in gpu.alerts), "")
        if link is not None:
            namespace = text(link.thing, "metadata", "namespace")
            failing = await self._workload(link, subjects, book, facts)
        if named := subjects.limits.get("horizontalpodautoscaler"):
            facts["autoscaler"] = autoscaler_facts(named)
        if named := subjects.limits.get("poddisruptionbudget"):
            facts["budget"] = told_budget(named)
        if subjects.claim is not None:
            facts["volume"] = await volume_facts(self._cluster, subjects.claim, book, self._clock())
        node = await self._around(namespace, subjects, failing, resolver, facts)
        found = targets(subjects, failing, node, case.cluster)
        facts["pool"], pool = await pool_facts(self._cluster, book, failing)
        if pool is not None:
            found["pool"] = target_of(
                pool, case.cluster, text(pool, "apiVersion"), text(pool, "kind")
            )
        state["targets"] = {role: t.model_dump(mode="json") for role, t in found.items()}
        state["facts"] = facts
        state["whereabouts"] = whereabouts(subjects, node, self._clock())
        for sentence in findings(facts):
            book.note(sentence)

    async def _workload(
        self, link: Link, subjects: Subjects, book: Notebook, facts: dict[str, Json]
    ) -> Sequence[Object]:
        """Read the workload's pods, history and limits; give its failing pods."""
        namespace = text(link.thing, "metadata", "namespace")
        now = self._clock()
        pods, replicasets, autoscalers, budgets = await asyncio.gather(
            self._list(book, f"pods of {link.kind} {name_of(link.thing)}", self._pods(link)),
            self._list(book, f"replicasets in {namespace}",
                       self._cluster.list("apps/v1", "ReplicaSet", namespace)),
            self._list(book, f"autoscalers in {namespace}",
                       self._cluster.list("autoscaling/v2", "HorizontalPodAutoscaler", namespace)),
            self._list(book, f"disruption budgets in {namespace}",
                       self._cluster.list("policy/v1", "PodDisruptionBudget", namespace)),
        )  # fmt: skip
        subjects.pods = pods
        history = revisions(link.thing, replicasets) if link.kind == "Deployment" else []
        newest = uid_of(history[0]) if history else ""
        if link.kind in ROLLED_OUT:
            above = next((o for o in subjects.owners if o.kind not in BUILT_IN), None)
            facts["workload"] = {
                **workload_facts(link.thing, link.kind),
                "operator": f"{above.kind} {above.name}" if above else "",
            }
            facts["rollout"] = await self._rollout(link, history, pods, book)
        if link.kind == "Deployment":
            facts["garbage"] = await self._garbage(link, pods, replicasets, book)
        elif link.kind == "Job":
            facts["job"] = await self._job(link, subjects, book)
        facts["pods"] = pods_facts(pods, newest, now, text(link.thing, "status", "updateRevision"))
        facts["memory"] = {**memory_facts(link.thing, history, pods, now)}
        facts["autoscaler"] = autoscaler_facts(autoscaler_of(link, autoscalers))
        facts["budget"] = budget_facts(pods, budgets)
        return [p for p in pods if _is_failing(p, now)]

    async def _job(self, link: Link, subjects: Subjects, book: Notebook) -> dict[str, Json]:
        """Read the CronJob of a Job, and its other runs."""
        namespace = text(link.thing, "metadata", "namespace")
        maker = next((o for o in subjects.owners if (o.api_version, o.kind) == CRON_JOB), None)
        if maker is None:
            return job_facts(link.thing, None, ())
        made, jobs = await asyncio.gather(
            Resolver(self._cluster, book).get(*CRON_JOB, namespace, maker.name),
            self._list(
                book, f"jobs in {namespace}", self._cluster.list("batch/v1", "Job", namespace)
            ),
        )
        return job_facts(link.thing, made, jobs)

    async def _garbage(
        self, link: Link, pods: Sequence[Object], replicasets: Sequence[Object], book: Notebook
    ) -> dict[str, Json]:
        """Read the nodes that have ended pods of a Deployment, and what they left."""
        related = {"ReplicaSet": replicasets, "Pod": pods}
        resolver = Resolver(self._cluster, book)
        names = nodes_of(link.thing, related)
        nodes = await asyncio.gather(*(resolver.get("v1", "Node", "", name) for name in names))
        return garbage_facts(link.thing, related, [node for node in nodes if node])

    async def _pods(self, link: Link) -> Sequence[Object]:
        return await pods_of(self._cluster, text(link.thing, "metadata", "namespace"), link)

    async def _list(
        self, book: Notebook, what: str, call: Awaitable[Sequence[Object]]
    ) -> Sequence[Object]:
        now = self._clock()
        return await book.ask(
            Source.KUBERNETES, f"list {what}", call, lambda found: _listed(what, found, now)
        )

    async def _rollout(
        self, link: Link, history: Sequence[Object], pods: Sequence[Object], book: Notebook
    ) -> dict[str, Json]:
        facts = rollout_facts(link.thing, link.kind, history, pods, self._clock())
        if len(history) < 2:
            return facts
        former = uid_of(history[1])
        serving = [p for p in pods if is_ready(p) and is_controlled_by(p, former)]
        began = rollout_at(link.thing, history)
        healthy = bool(serving) or (began is not None and await self._served(link, began, book))
        facts["previous_healthy"] = healthy
        listed: list[Json] = [
            {
                "revision": revision_of(r),
                "born": text(r, "metadata", "creationTimestamp"),
                "images": [text(c, "image") for c in _containers(r)],
                "ready": whole(r, "status", "readyReplicas"),
            }
            for r in history[:10]
        ]
        book.write(
            Source.KUBERNETES,
            f"rollout history of {link.kind} {name_of(link.thing)}",
            listed,
            f"revision {facts['revision']} began {facts['minutes']} min ago and changed "
            + (listing(facts["changed"]) or "nothing in the template"),
        )
        return facts

    async def _served(self, link: Link, began: datetime, book: Notebook) -> bool:
        """Ask Prometheus whether the workload was whole just before its last rollout."""
        if self._metrics is None:
            return False
        labels = {
            "namespace": text(link.thing, "metadata", "namespace"),
            "deployment": name_of(link.thing),
        }
        query = selector("kube_deployment_status_replicas_available", labels)
        at = began - timedelta(seconds=15)
        samples = await book.ask(
            Source.PROMETHEUS,
            f"{query} @ {at.isoformat()}",
            self._metrics.instant(query, at),
            lambda found: (
                [s.value for s in found],
                f"{max((s.value for s in found), default=0):.0f} available before the rollout",
            ),
        )
        return any(s.value >= 1 for s in samples)

    async def _around(
        self,
        namespace: str,
        subjects: Subjects,
        failing: Sequence[Object],
        resolver: Resolver,
        facts: dict[str, Json],
    ) -> Object | None:
        """Read the pod in question with its log and events, its node and its namespace."""
        now = self._clock()
        book = resolver.book
        pod = subjects.pod or (failing[0] if len(failing) == 1 else None)
        facts["pod"] = pod_facts(pod, now) if pod else {}
        home = text(pod or {}, "spec", "nodeName")
        nodes = {home} if home else subjects.nodes
        about = pod or (subjects.workload.thing if subjects.workload else None)
        node, place, events, log = await asyncio.gather(
            resolver.get("v1", "Node", "", next(iter(nodes))) if len(nodes) == 1 else _none(),
            resolver.get("v1", "Namespace", "", namespace) if namespace else _none(),
            self._events(about, book) if about else _no_lines(),
            self._log(pod, book) if pod else _no_lines(),
        )
        if pod:
            facts["pod"] = {**pod_facts(pod, now), "log_tail": [*log]}
        facts["node"] = node_facts(node) if node else {}
        if node and about is None:
            nodes = await self._list(book, "nodes", self._cluster.list("v1", "Node", ""))
            facts["node"] |= around(node, nodes)
        facts["namespace"] = {
            "name": namespace,
            "labels": {**strings(place or {}, "metadata", "labels")},
        }
        facts["events"] = {"recent": [*events]}
        return node

    async def _events(self, about: Object, book: Notebook) -> list[str]:
        namespace = text(about, "metadata", "namespace")
        found = await book.ask(
            Source.KUBERNETES,
            f"events of {namespace}/{name_of(about)}",
            self._cluster.list(
                "v1", "Event", namespace, field_selector=f"involvedObject.uid={uid_of(about)}"
            ),
            events_told,
        )
        return event_lines(found)

    async def _log(self, pod: Object, book: Notebook) -> list[str]:
        """Read the end of the failing container's log; missing logs do not stop a decision."""
        facts = pod_facts(pod, self._clock())
        container = str(facts["container"]) or next(
            (text(c, "name") for c in items(pod, "spec", "containers")), ""
        )
        crashed = facts["trouble"] in {Trouble.CRASH, Trouble.OUT_OF_MEMORY}
        namespace, name = text(pod, "metadata", "namespace"), name_of(pod)
        try:
            found = await book.ask(
                Source.LOGS,
                f"logs {namespace}/{name} -c {container} --tail={LOG_LINES}"
                + (" --previous" if crashed else ""),
                self._cluster.logs(
                    namespace, name, container, previous=crashed, tail_lines=LOG_LINES
                ),
                log_told,
            )
        except UnansweredError as error:
            book.note(f"the log of {name} could not be read: {error}")
            return []
        return log_lines(found)


async def _none() -> Object | None:
    return None


async def _no_lines() -> list[str]:
    return []


def _listed(what: str, found: Sequence[Object], now: datetime) -> tuple[Json, str]:
    if not what.startswith("pods"):
        return [name_of(one) for one in found], f"{len(found)} {what}"
    told: list[Json] = [
        {"name": name_of(p), "ready": is_ready(p), "trouble": trouble_of(p, now).value}
        for p in found
    ]
    over = sum(trouble_of(p, now) is Trouble.ENDED for p in found)
    more = f", {over} more ended" if over else ""
    return told, f"{sum(map(is_ready, found))} of {len(found) - over} {what} are ready{more}"


def _is_failing(pod: Object, now: datetime) -> bool:
    return trouble_of(pod, now) not in {Trouble.NONE, Trouble.TERMINATING, Trouble.ENDED}


def _resolution(subjects: Subjects) -> dict[str, Json]:
    return {
        "found": subjects.workload is not None,
        "ambiguous": bool(subjects.ambiguous),
        "candidates": [*subjects.ambiguous],
        "missing": [*subjects.missing],
    }


def _containers(replicaset: Object) -> Sequence[Object]:
    return items(replicaset, "spec", "template", "spec", "containers")
