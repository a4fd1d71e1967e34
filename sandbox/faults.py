"""Plays a scenario's fault: one step after the other, each when its condition holds."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx2

from tiphys.sandbox.alertmanager import Alertmanager
from tiphys.sandbox.alertmanager_alerts import LabelMatch, Silence, alert_from
from tiphys.sandbox.alertmanager_groups import Group, group_key, group_labels, webhook_body
from tiphys.sandbox.behaviour import Behaviour, Behaviours, PodState
from tiphys.sandbox.circumstances import Circumstances
from tiphys.sandbox.logs import Logs
from tiphys.sandbox.owners import with_uids
from tiphys.sandbox.prometheus import Prometheus
from tiphys.sandbox.scenario import Post, Step
from tiphys.sandbox.store import ApiError, PatchType, Store
from tiphys.sandbox.timestamps import rfc3339

RESOLVE_SECONDS = 3600.0
PEER_SECONDS, PEER_PAUSE = 60.0, 0.5
"""How long the peer of Alertmanager goes on trying, and how long it waits between."""


@dataclass(frozen=True)
class Stage:
    """The parts of the world that a fault can reach."""

    store: Store
    behaviours: Behaviours
    logs: Logs
    prometheus: Prometheus
    alertmanager: Alertmanager
    circumstances: Circumstances


class Fault:
    """The player; `tell` hears each step's `told`."""

    def __init__(self, stage: Stage, tell: Callable[[str], None]) -> None:
        self._stage = stage
        self._tell = tell
        self._started: dict[str, float] = {}
        self._set: list[Behaviour] = []

    async def play(self, steps: list[Step]) -> None:
        """Play every step; raises what a step raises."""
        for step in steps:
            if step.when is not None:
                await self._stage.circumstances.until(step.when)
            await asyncio.sleep(step.after)
            await self._do(step)
            if step.told:
                self._tell(step.told)

    async def _do(self, step: Step) -> None:
        stage = self._stage
        if step.behave is not None:
            self._behave(step.behave)
        elif step.recover:
            for behaviour in self._set:
                stage.behaviours.remove(behaviour)
            self._set.clear()
        elif step.apply is not None:
            self._apply(step.apply)
        elif step.patch is not None:
            wanted = step.patch.object
            stage.store.patch(
                wanted.kind,
                wanted.namespace,
                wanted.name,
                step.patch.merge,
                PatchType.STRATEGIC,
                manager=step.patch.manager,
                subresource=step.patch.subresource,
            )
        elif step.silence is not None:
            now = time.time()
            matchers = [LabelMatch(key, value) for key, value in step.silence.matchers.items()]
            silence = Silence(
                matchers, now, now + step.silence.lasting, step.silence.by,
                step.silence.comment, now,
            )  # fmt: skip
            stage.alertmanager.add_silence(silence)
        elif step.post is not None:
            await self._post(step.post)
        elif step.flag is not None:
            stage.circumstances.set(step.flag)

    def _behave(self, behaviour: Behaviour) -> None:
        """Set the fault; a pod that runs already says now what it would say at its start."""
        stage = self._stage
        pods = stage.store.list("Pod")
        stage.behaviours.add(behaviour, pods)
        self._set.append(behaviour)
        if behaviour.state is not PodState.NOT_READY:
            return
        for pod in pods:
            if pod.get("status", {}).get("phase") == "Running" and behaviour.match.covers(pod):
                container = pod["spec"]["containers"][0]["name"]
                for line in behaviour.logs:
                    stage.logs.append(pod["metadata"]["uid"], container, line)

    def _apply(self, manifest: dict[str, Any]) -> None:
        store, manager = self._stage.store, "kubectl-client-side-apply"
        try:
            store.create(with_uids(store, manifest), manager=manager)
        except ApiError as error:
            if error.code != 409:
                raise
            store.update(manifest, manager=manager)

    async def _post(self, post: Post) -> None:
        """Push an alert by hand, as some other client of Alertmanager would."""
        alertmanager, now = self._stage.alertmanager, time.time()
        key = repr(sorted(post.labels.items()))
        started = now if post.resolved else self._started.setdefault(key, now)
        if post.resolved:
            started = self._started.pop(key, now - 1)
        body = {
            "labels": post.labels,
            "annotations": post.annotations,
            "startsAt": rfc3339(started),
            # Just before now: an end that is still to come would count as firing.
            "endsAt": rfc3339(now - 0.001 if post.resolved else now + RESOLVE_SECONDS),
            "generatorURL": self._link(post.labels.get("alertname", "")),
        }
        alertmanager.receive([body])
        if not post.past_silences:
            return
        held = alert_from(body, now, RESOLVE_SECONDS)
        labels = group_labels(held.labels)
        group = Group("tiphys", group_key("{}", labels), labels, 0)
        said = webhook_body(group, [held], now, alertmanager.external_url, 0)
        headers = {"Authorization": f"Bearer {alertmanager.bearer}"} if alertmanager.bearer else {}
        async with httpx2.AsyncClient(trust_env=False) as client, asyncio.timeout(PEER_SECONDS):
            while True:
                with contextlib.suppress(httpx2.TransportError):
                    answer = await client.post(alertmanager.webhook_url, json=said, headers=headers)
                    if answer.status_code < 500:
                        return
                await asyncio.sleep(PEER_PAUSE)

    def _link(self, alert: str) -> str:
        """Give the link back to Prometheus that the alert's rule would write."""
        for state in self._stage.prometheus.alerts():
            if state.rule.alert == alert:
                base = self._stage.prometheus.external_url
                return f"{base}/graph?g0.expr={quote(state.rule.expr.strip())}&g0.tab=1"
        return ""
