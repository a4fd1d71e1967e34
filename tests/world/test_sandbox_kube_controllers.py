"""The simulated controllers and kubelets bring workloads where real ones would."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tiphys.sandbox.behaviour import Behaviour, Behaviours, Match, PodState
from tiphys.sandbox.controllers import Controllers
from tiphys.sandbox.logs import Logs
from tiphys.sandbox.store import PatchType, Store

Json = dict[str, Any]
REVISION = "deployment.kubernetes.io/revision"


def workload(kind: str, image: str = "web:1", **spec: Any) -> Json:
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [_container(image)]}}
    return {
        "kind": kind,
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"selector": {"matchLabels": labels}, "template": template, **spec},
    }


def _container(image: str, **resources: str) -> Json:
    return {"name": "app", "image": image, "resources": {"limits": resources}}


def job(image: str, **spec: Any) -> Json:
    template = {"spec": {"restartPolicy": "Never", "containers": [_container(image)]}}
    meta = {"name": "job", "namespace": "shop"}
    return {"kind": "Job", "metadata": meta, "spec": {"template": template, **spec}}


class Cluster:
    """A store with its controllers at work, and what a test asks of it."""

    def __init__(self) -> None:
        self.store, self.behaviours, self.logs = Store(), Behaviours(), Logs()
        self.store.create({"kind": "Namespace", "metadata": {"name": "shop"}})
        for name in ("n1", "n2"):
            self.store.create({"kind": "Node", "metadata": {"name": name}})
        self.controllers = Controllers(self.store, self.behaviours, self.logs)

    async def until(self, holds: Callable[[], object], seconds: float = 4) -> None:
        """Wait for it, looking after each change."""
        changed = asyncio.Event()
        stop = self.store.subscribe(lambda _, __: changed.set())
        try:
            async with asyncio.timeout(seconds):
                while not holds():
                    changed.clear()
                    await changed.wait()
        finally:
            stop()

    def status(self, kind: str = "Deployment") -> Json:
        return self.store.get(kind, "shop", "job" if kind == "Job" else "web").get("status", {})

    def done(self) -> bool:
        """Whether the Deployment is rolled out."""
        found = self.store.get("Deployment", "shop", "web")
        status, wanted = found.get("status", {}), found["spec"]["replicas"]
        counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
        seen = status.get("observedGeneration") == found["metadata"]["generation"]
        return seen and all(status.get(count) == wanted for count in counts)

    def release(self, image: str) -> None:
        body = {"spec": {"template": {"spec": {"containers": [{"name": "app", "image": image}]}}}}
        self.store.patch("Deployment", "shop", "web", body, PatchType.STRATEGIC)

    def pods(self) -> list[Json]:
        """Give the pods that are not about to end."""
        found = self.store.list("Pod", "shop")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def ready(self) -> int:
        return sum(self.container(pod).get("ready", False) for pod in self.pods())

    def container(self, pod: Json) -> Json:
        return (pod["status"].get("containerStatuses") or [{}])[0]

    def waiting(self, reason: str) -> list[Json]:
        return [
            pod
            for pod in self.pods()
            if self.container(pod).get("state", {}).get("waiting", {}).get("reason") == reason
        ]

    def reasons(self, name: str) -> set[str]:
        events = self.store.list("Event", "shop", "", f"involvedObject.name={name}")
        return {event["reason"] for event in events}

    def revisions(self) -> dict[str, tuple[str, int]]:
        """Give image -> (revision, replicas) of the ReplicaSets."""
        return {
            each["spec"]["template"]["spec"]["containers"][0]["image"]: (
                each["metadata"]["annotations"][REVISION],
                each["spec"]["replicas"],
            )
            for each in self.store.list("ReplicaSet", "shop")
        }

    def condition(self, name: str) -> tuple[str, str]:
        found = {c["type"]: c for c in self.status().get("conditions", [])}
        return found[name]["status"], found[name]["reason"]


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    task = asyncio.create_task(cluster.controllers.run())
    yield cluster
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_rollout_replaces_pods_one_by_one_and_counts_revisions(cluster: Cluster) -> None:
    cluster.store.create(workload("Deployment", replicas=3))
    await cluster.until(cluster.done)
    made = cluster.store.get("Deployment", "shop", "web")
    assert made["metadata"]["annotations"][REVISION] == "1"
    assert made["metadata"]["generation"] == 1, "the controller's note is no new generation"
    least, most = 3, 3

    def watch(_: str, obj: Json) -> None:
        nonlocal least, most
        if obj["kind"] == "Pod":
            least, most = min(least, cluster.ready()), max(most, len(cluster.pods()))

    stop = cluster.store.subscribe(watch)
    began = asyncio.get_running_loop().time()
    cluster.release("web:2")
    await cluster.until(cluster.done)
    assert asyncio.get_running_loop().time() - began < 2.0, "0.7 s on an idle machine"
    assert (least, most) == (3, 4), "25% of 3: one more at a time, none less"
    assert cluster.revisions() == {"web:1": ("1", 0), "web:2": ("2", 3)}
    stop()
    cluster.release("web:1")
    await cluster.until(cluster.done)
    assert cluster.revisions() == {"web:1": ("3", 3), "web:2": ("2", 0)}, "the old one is reused"
    assert cluster.condition("Progressing") == ("True", "NewReplicaSetAvailable")
    assert "ScalingReplicaSet" in cluster.reasons("web")
    for pod in cluster.pods():
        assert pod["metadata"]["labels"]["pod-template-hash"] in pod["metadata"]["name"]


async def test_a_crashing_release_leaves_the_old_pods_serving(cluster: Cluster) -> None:
    cluster.store.create(workload("Deployment", replicas=4, progressDeadlineSeconds=1))
    await cluster.until(cluster.done)
    bad = Behaviour(
        match=Match(image="web:bad*"), state=PodState.CRASH, message="no config", logs=["starting"]
    )
    cluster.behaviours.add(bad)
    cluster.release("web:bad")
    await cluster.until(lambda: len(cluster.waiting("CrashLoopBackOff")) == 2)
    assert cluster.revisions() == {"web:1": ("1", 3), "web:bad": ("2", 2)}
    assert cluster.status()["availableReplicas"] == 3, "25% of 4 may be missing"
    assert cluster.status()["updatedReplicas"] == 2
    assert cluster.condition("Available") == ("True", "MinimumReplicasAvailable")
    crashing = cluster.waiting("CrashLoopBackOff")[0]
    name, uid = crashing["metadata"]["name"], crashing["metadata"]["uid"]
    await cluster.until(
        lambda: cluster.container(cluster.store.get("Pod", "shop", name))["restartCount"] >= 2
    )
    container = cluster.container(cluster.store.get("Pod", "shop", name))
    assert container["lastState"]["terminated"]["exitCode"] == 1
    assert cluster.logs.read(uid, "app", previous=True) == "starting\nno config\n"
    assert "BackOff" in cluster.reasons(name)
    await cluster.until(
        lambda: cluster.condition("Progressing") == ("False", "ProgressDeadlineExceeded")
    )
    ready: set[int] = set()
    cluster.store.subscribe(lambda _, __: ready.add(cluster.ready()))
    cluster.release("web:3")
    await cluster.until(cluster.done)
    assert min(ready) == 3, "the crashing pods go first"
    assert cluster.condition("Progressing")[0] == "True"
    assert cluster.revisions() == {"web:1": ("1", 0), "web:bad": ("2", 0), "web:3": ("3", 4)}


async def test_a_fault_of_one_generation_is_gone_with_the_pod(cluster: Cluster) -> None:
    cluster.store.create(workload("Deployment", replicas=2))
    await cluster.until(cluster.done)
    first, other = (pod["metadata"]["name"] for pod in cluster.pods())
    stuck = Match(name=first, first_generation_only=True)
    fault = Behaviour(match=stuck, state=PodState.NOT_READY, message="503")
    cluster.behaviours.add(fault, cluster.pods())
    await cluster.until(lambda: cluster.status().get("readyReplicas") == 1)
    assert cluster.container(cluster.store.get("Pod", "shop", other))["ready"]
    await cluster.until(lambda: "Unhealthy" in cluster.reasons(first))
    cluster.store.delete("Pod", "shop", first)
    await cluster.until(cluster.done)
    assert first not in [pod["metadata"]["name"] for pod in cluster.pods()]
    assert "Killing" in cluster.reasons(first)


async def test_a_pod_recreated_under_its_old_name_is_of_a_new_generation(cluster: Cluster) -> None:
    cluster.store.create(workload("StatefulSet", replicas=2))
    await cluster.until(lambda: cluster.status("StatefulSet").get("readyReplicas") == 2)
    match = Match(name="web-1", first_generation_only=True)
    cluster.behaviours.add(Behaviour(match=match, state=PodState.CRASH), cluster.pods())
    await cluster.until(lambda: cluster.status("StatefulSet").get("readyReplicas") == 1)
    await cluster.until(lambda: cluster.waiting("CrashLoopBackOff"))
    cluster.store.delete("Pod", "shop", "web-1")
    await cluster.until(lambda: cluster.status("StatefulSet").get("readyReplicas") == 2)
    assert cluster.waiting("CrashLoopBackOff") == []


async def test_a_healed_fault_lets_its_pods_recover(cluster: Cluster) -> None:
    fault = Behaviour(match=Match(labels={"app": "web"}), state=PodState.OOM)
    cluster.behaviours.add(fault)
    cluster.store.create(workload("Deployment", replicas=1))
    await cluster.until(lambda: cluster.waiting("CrashLoopBackOff"))
    container = cluster.container(cluster.pods()[0])
    assert container["lastState"]["terminated"]["reason"] == "OOMKilled"
    assert container["lastState"]["terminated"]["exitCode"] == 137
    assert cluster.condition("Available") == ("False", "MinimumReplicasUnavailable")
    cluster.behaviours.remove(fault)
    await cluster.until(cluster.done)


async def test_an_image_that_cannot_be_pulled_waits(cluster: Cluster) -> None:
    fault = Behaviour(match=Match(image="web:typo"), state=PodState.IMAGE_PULL)
    cluster.behaviours.add(fault)
    cluster.store.create(workload("Deployment", "web:typo", replicas=1))
    await cluster.until(lambda: cluster.waiting("ImagePullBackOff"))
    pod = cluster.pods()[0]
    assert pod["status"]["phase"] == "Pending"
    await cluster.until(lambda: {"Failed", "BackOff"} <= cluster.reasons(pod["metadata"]["name"]))


async def test_scaling_takes_the_pods_that_are_least_of_use(cluster: Cluster) -> None:
    cluster.store.create(workload("Deployment", replicas=2))
    await cluster.until(cluster.done)
    sick = cluster.pods()[0]["metadata"]["name"]
    match = Match(name=sick)
    cluster.behaviours.add(Behaviour(match=match, state=PodState.NOT_READY))
    await cluster.until(lambda: cluster.status().get("readyReplicas") == 1)
    for replicas in (4, 3):
        scale = {"metadata": {"name": "web", "namespace": "shop"}, "spec": {"replicas": replicas}}
        cluster.store.update_scale("Deployment", scale)
        await cluster.until(lambda: cluster.status().get("readyReplicas") == 3)
        await cluster.until(lambda wanted=replicas: len(cluster.pods()) == wanted)
    assert sick not in [pod["metadata"]["name"] for pod in cluster.pods()]
    await cluster.until(cluster.done)


async def test_no_node_no_pod_until_there_is_room(cluster: Cluster) -> None:
    gpus = {"status": {"allocatable": {"nvidia.com/gpu": "1"}}}
    cluster.store.patch("Node", "", "n1", gpus, subresource="status")
    cluster.store.patch("Node", "", "n2", {"spec": {"unschedulable": True}})
    body = workload("Deployment", replicas=2)
    container = _container("web:1", **{"nvidia.com/gpu": "1"})
    body["spec"]["template"]["spec"]["containers"] = [container]
    cluster.store.create(body)
    await cluster.until(lambda: cluster.status().get("readyReplicas") == 1)
    left = next(pod for pod in cluster.pods() if "nodeName" not in pod["spec"])
    await cluster.until(lambda: "FailedScheduling" in cluster.reasons(left["metadata"]["name"]))
    condition = cluster.store.get("Pod", "shop", left["metadata"]["name"])["status"]["conditions"][
        0
    ]
    assert condition["reason"] == "Unschedulable"
    assert condition["message"] == (
        "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) were unschedulable."
    )
    cluster.store.patch("Node", "", "n2", {"spec": {"unschedulable": None}})
    cluster.store.patch("Node", "", "n2", gpus, subresource="status")
    await cluster.until(cluster.done)


async def test_a_stateful_set_goes_in_order_and_a_daemon_set_to_every_node(
    cluster: Cluster,
) -> None:
    born: list[tuple[str, int]] = []

    def note(event: str, obj: Json) -> None:
        if (event, obj["kind"]) == ("ADDED", "Pod"):
            born.append((obj["metadata"]["name"], cluster.ready()))

    stop = cluster.store.subscribe(note)
    cluster.store.create(workload("StatefulSet", replicas=3))
    await cluster.until(lambda: cluster.status("StatefulSet").get("readyReplicas") == 3)
    body = {"spec": {"template": {"metadata": {"labels": {"v": "2"}}}}}
    cluster.store.patch("StatefulSet", "shop", "web", body)

    def updated() -> bool:
        status = cluster.status("StatefulSet")
        moved = status["currentRevision"] == status["updateRevision"]
        return moved and status["observedGeneration"] == 2 and status["readyReplicas"] == 3

    await cluster.until(updated)
    assert born[:3] == [("web-0", 0), ("web-1", 1), ("web-2", 2)], "each waits for the one before"
    assert born[3:] == [("web-2", 2), ("web-1", 2), ("web-0", 2)], "updated from the last down"
    stop()
    cluster.store.delete("StatefulSet", "shop", "web")
    cluster.store.create(workload("DaemonSet"))
    await cluster.until(lambda: cluster.status("DaemonSet").get("numberReady") == 2)
    cluster.store.create({"kind": "Node", "metadata": {"name": "n3"}})
    await cluster.until(lambda: cluster.status("DaemonSet").get("numberReady") == 3)
    assert {pod["spec"]["nodeName"] for pod in cluster.pods()} == {"n1", "n2", "n3"}
    spec = {"taints": [{"key": "apart", "effect": "NoSchedule"}]}
    cluster.store.create({"kind": "Node", "metadata": {"name": "n4"}, "spec": spec})
    cluster.store.update({**cluster.store.get("Node", "", "n3"), "spec": spec})
    cluster.store.create({"kind": "Node", "metadata": {"name": "n5"}})
    await cluster.until(lambda: cluster.status("DaemonSet").get("numberReady") == 4)
    assert {pod["spec"]["nodeName"] for pod in cluster.pods()} == {"n1", "n2", "n3", "n5"}


async def test_jobs_complete_or_fail_at_their_limit(cluster: Cluster) -> None:
    cluster.behaviours.add(Behaviour(match=Match(image="good"), state=PodState.SUCCEEDED))
    cluster.behaviours.add(Behaviour(match=Match(image="bad"), state=PodState.CRASH, exit_code=3))
    for image, ends, count in (("good", "Complete", 2), ("bad", "Failed", 2)):
        cluster.store.create(job(image, completions=2, backoffLimit=1))
        await cluster.until(lambda: cluster.status("Job").get("conditions"))
        status = cluster.status("Job")
        assert status["conditions"][0]["type"] == ends
        assert status["succeeded" if image == "good" else "failed"] == count
        cluster.store.delete("Job", "shop", "job")


async def test_a_disruption_budget_tells_what_it_allows(cluster: Cluster) -> None:
    budget = {"kind": "PodDisruptionBudget", "metadata": {"name": "web", "namespace": "shop"}}
    selector = {"matchLabels": {"app": "web"}}
    cluster.store.create({**budget, "spec": {"maxUnavailable": 1, "selector": selector}})
    cluster.store.create(workload("Deployment", replicas=3))
    await cluster.until(cluster.done)
    await cluster.until(
        lambda: cluster.status("PodDisruptionBudget").get("disruptionsAllowed") == 1
    )


async def test_pods_of_workflows_are_left_to_argo(cluster: Cluster) -> None:
    meta = {"name": "step", "namespace": "shop", "labels": {"workflows.argoproj.io/workflow": "w"}}
    pod = {"kind": "Pod", "metadata": meta, "spec": {"containers": [_container("step")]}}
    cluster.store.create(pod)
    cluster.store.create(workload("Deployment", replicas=1))
    await cluster.until(cluster.done)
    assert cluster.store.get("Pod", "shop", "step")["status"] == {"phase": "Pending"}


async def test_a_settled_cluster_costs_nothing(cluster: Cluster) -> None:
    cluster.store.create(workload("Deployment", replicas=3))
    await cluster.until(cluster.done)
    await asyncio.sleep(0.2)  # whatever is still to be written
    version, before = cluster.store.version, sum(os.times()[:2])
    await asyncio.sleep(0.6)  # what is measured
    assert cluster.store.version == version
    assert sum(os.times()[:2]) - before < 0.06
    cluster.store.delete("Namespace", "", "shop")
    await cluster.until(lambda: not cluster.store.list("Pod", "shop"))
