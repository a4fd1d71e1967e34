"""cordon-drain-node, tried on two nodes of its own: one is emptied onto the other."""

from tiphys.service.conform import node_readings as read
from tiphys.service.conform import readings
from tiphys.service.conform.played_nodes import IDLE, node_path, placed, play
from tiphys.service.conform.trial import Stage, Trial
from tiphys.service.conform.wire import Json, place, place_of
from tiphys.service.conform.workloads import container, deployment, settled, template
from tiphys.workflow_templates.mark import ANNOTATION
from tiphys.workflow_templates.nodes import CONTROL_PLANE, OPT_IN
from tiphys.workflow_templates.pointers import at

_BUDGET = "policy/v1"


def _build(stage: Stage) -> Json:
    """Put two pods on one node, and leave room for them on the other."""
    sick, spare = play(stage, "sick", "spare")
    _close(stage, spare)
    pods = placed(stage, template("cart", container(stage.world)))
    settled(stage.world, place_of(stage.wire.create(deployment(stage.namespace, pods, 2))))
    _open(stage, spare)
    return {"apiVersion": "v1", "kind": "Node", **stage.wire.get(node_path(sick))}


def _spare(stage: Stage) -> str:
    return f"spare-{stage.namespace}"


def _close(stage: Stage, node: str) -> None:
    stage.wire.patch(node_path(node), {"spec": {"unschedulable": True}})
    _tainted(stage, node, closed=True)


def _open(stage: Stage, node: str) -> None:
    stage.wire.patch(node_path(node), {"spec": {"unschedulable": None}})
    _tainted(stage, node, closed=False)


def _tainted(stage: Stage, node: str, *, closed: bool) -> None:
    """Wait for the taint that a real cluster's controller adds and takes away."""
    if not stage.world.real:
        return

    def taints() -> list[str]:
        return [t["key"] for t in at(stage.wire.get(node_path(node)), "/spec/taints") or []]

    wanted = "node.kubernetes.io/unschedulable"
    stage.world.until("its taint is right", taints, lambda now: (wanted in now) is closed)


# --- what may come in between ---------------------------------------------------------------------


def _another_pod(stage: Stage, target: Json) -> None:
    del target
    _close(stage, _spare(stage))
    pods = placed(stage, template("late", container(stage.world)))
    settled(stage.world, place_of(stage.wire.create(deployment(stage.namespace, pods, 1))))
    _open(stage, _spare(stage))


def _without_controller(stage: Stage, target: Json) -> None:
    made = template("alone", container(stage.world))
    spec = {**made["spec"], "nodeName": target["metadata"]["name"]}
    meta = {"name": "alone", "namespace": stage.namespace}
    stage.wire.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})


def _budget(stage: Stage, target: Json) -> None:
    del target
    meta = {"name": "guard", "namespace": stage.namespace}
    spec = {"minAvailable": 2, "selector": {"matchLabels": {"app": "cart"}}}
    body = {"apiVersion": _BUDGET, "kind": "PodDisruptionBudget", "metadata": meta, "spec": spec}
    path = place_of(stage.wire.create(body))

    def healthy() -> object:
        return at(stage.wire.get(path), "/status/currentHealthy")

    stage.world.until("it counts the pods", healthy, lambda now: now == 2)


def _space_opted_out(stage: Stage, target: Json) -> None:
    del target
    path = place("v1", "Namespace", "", stage.namespace)
    stage.wire.patch(path, {"metadata": {"labels": {OPT_IN: None}}})


def _node_opted_out(stage: Stage, target: Json) -> None:
    path = node_path(target["metadata"]["name"])
    stage.wire.patch(path, {"metadata": {"labels": {OPT_IN: None}}})


def _control_plane(stage: Stage, target: Json) -> None:
    path = node_path(target["metadata"]["name"])
    stage.wire.patch(path, {"metadata": {"labels": {CONTROL_PLANE[0]: ""}}})


def _closed_by_hand(stage: Stage, target: Json) -> None:
    _close(stage, target["metadata"]["name"])


def _no_room(stage: Stage, target: Json) -> None:
    del target
    _close(stage, _spare(stage))


def _hands_off(stage: Stage, target: Json) -> None:
    del target
    pod = stage.objects("v1", "Pod")[0]
    noted = {"annotations": {"tiphys.io/hands-off": "somebody looks at it"}}
    stage.wire.patch(place_of(pod), {"metadata": noted})


def _idle(stage: Stage, target: Json) -> None:
    """Let nothing start on the other node."""
    del target
    path = node_path(_spare(stage))
    stage.wire.patch(path, {"metadata": {"annotations": {IDLE: "yes"}}})


def _opened_by_hand(stage: Stage, target: Json) -> None:
    _open(stage, target["metadata"]["name"])


def _marked_by_another(stage: Stage, target: Json) -> None:
    path = node_path(target["metadata"]["name"])
    stage.wire.patch(path, {"metadata": {"annotations": {ANNOTATION: f"{'b' * 40}.act"}}})


def _registered_again(stage: Stage, target: Json) -> None:
    """Let another node have everything that the node had but its uid."""
    path = node_path(target["metadata"]["name"])
    old = stage.wire.get(path)
    stage.wire.delete(path, force=True)
    stage.world.until("its name is free", lambda: stage.wire.find(path) is None)
    meta = {key: old["metadata"][key] for key in ("name", "labels", "annotations")}
    stage.wire.create({**target, "metadata": meta, "spec": old["spec"]})


# --- what may have been read ----------------------------------------------------------------------

_HANDS_OFF = "tiphys.io/hands-off"
_STAYS = "cluster-autoscaler.kubernetes.io/safe-to-evict"
_AWAY = {"affinity": read.near(podAntiAffinity={})}
_FAR = {"affinity": read.near(podAntiAffinity={"topologyKey": "topology.kubernetes.io/zone"})}
_SPREAD = {"topologyKey": read.HOST, "maxSkew": 1}


def _tolerating(**toleration: object) -> read.Edit:
    """Let the other node be reserved, and the pods tolerate something."""
    given = {"key": "reserved", **toleration}
    tolerate = read.each(lambda pod: pod["spec"]["tolerations"].append(given))
    return read.both(read.taint("NoSchedule", value="yes"), tolerate)


_UNFIT = {
    "the node did not opt in": read.labelled(OPT_IN, None),
    "it bears the control plane": read.labelled(CONTROL_PLANE[0], ""),
    "it is closed already": readings.spec(unschedulable=True),
    "its kubelet does not answer": read.silent,
    "it is about to end": readings.going,
    "there are more pods than a plan can name": read.many(60),
}
_STAYING = {
    "a pod's namespace did not opt in": read.changed(
        "Namespace", lambda space: space["metadata"].update(labels={})
    ),
    "a pod has no controller": read.owned(controller=False),
    "a pod's controller is of an unknown kind": read.owned(apiVersion="example.com/v1"),
    "a pod's controller is gone": read.without("ReplicaSet"),
    "a pod's controller is about to end": read.changed(
        "ReplicaSet", lambda owner: owner["metadata"].update(deletionTimestamp="2026-01-01")
    ),
    "a pod's controller wants none": read.changed(
        "ReplicaSet", lambda owner: owner["spec"].update(replicas=0)
    ),
    "a pod's Job would fail with it": read.of_job(3, failed=3),
    "a pod is to be left alone": read.noted(_HANDS_OFF),
    "a pod's controller is to be left alone": read.noted(_HANDS_OFF, kind="ReplicaSet"),
    "a pod's namespace is to be left alone": read.noted(_HANDS_OFF, kind="Namespace"),
    "a pod is said to be not safe to evict": read.noted(_STAYS, "false"),
    "a pod has a volume claim": read.volume(persistentVolumeClaim={"claimName": "data"}),
    "a pod has a volume claim of its own": read.volume(ephemeral={}),
    "a pod has a folder of its node": read.volume(hostPath={"path": "/data"}),
    "a disruption budget lets none go": read.budgets(0),
    "a disruption budget has not been counted again": read.budgets(1, observedGeneration=0),
    "two disruption budgets cover a pod": read.budgets(1, 1),
}
_NO_ROOM = {
    "no other node takes pods": read.only,
    "no other node takes pods, and it has none": read.both(read.only, read.without("Pod")),
    "the other node has no room for pods": read.room(pods="1"),
    "the other node has too little memory": read.both(
        read.container(resources={"requests": {"memory": "2Gi"}}), read.room(memory="1Gi")
    ),
    "a pod wants a device that the other node has not": read.container(
        resources={"limits": {"nvidia.com/gpu": "1"}}
    ),
    "nobody can read how much a pod wants": read.container(
        resources={"requests": {"memory": "much"}}
    ),
    "a pod that waits takes the room": read.both(read.waiting(), read.room(pods="1")),
    "a pod may not be on the other node": read.asking(nodeSelector={"disk": "fast"}),
    "a pod wants other nodes": read.asking(
        affinity=read.chosen({"matchExpressions": [{"key": read.HOST, "operator": "DoesNotExist"}]})
    ),
    "the other node is reserved": read.taint("NoSchedule"),
    "the other node is reserved for others": _tolerating(operator="Equal", value="no"),
    "the other node is reserved in another way": _tolerating(
        operator="Exists", effect="PreferNoSchedule"
    ),
    "pods bear the other node for a while alone": _tolerating(
        operator="Exists", tolerationSeconds=300
    ),
    "each pod wants a node without the other": read.each(lambda pod: pod["spec"].update(_AWAY)),
    "a pod on the other node wants none beside it": read.moved(**_AWAY),
    "a pod elsewhere wants none in its zone": read.moved(**_FAR),
    "a pod wants a zone for itself": read.asking(**_FAR),
    "a pod must be near another": read.asking(affinity=read.near(podAffinity={})),
    "pods must be spread evenly": read.asking(
        topologySpreadConstraints=[{**_SPREAD, "whenUnsatisfiable": "DoNotSchedule"}]
    ),
    "a pod has a scheduler of its own": read.asking(schedulerName="volcano"),
    "a pod claims a device": read.asking(resourceClaims=[{"name": "gpu"}]),
    "a pod takes a port of its node": read.container(ports=[{"hostPort": 80}]),
}

TRIAL = Trial(
    action="cordon-drain-node",
    build=_build,
    violations={
        "a pod has come that the plan does not name": _another_pod,
        "a pod has no controller": _without_controller,
        "a disruption budget lets none go": _budget,
        "a pod's namespace has opted out": _space_opted_out,
        "the node has opted out": _node_opted_out,
        "the node bears the control plane": _control_plane,
        "somebody has closed the node": _closed_by_hand,
        "there is no room elsewhere": _no_room,
        "a pod is to be left alone": _hands_off,
    },
    unplannable={**_UNFIT, **_STAYING, **_NO_ROOM},
    plannable={
        "a pod's Job may fail once more": read.of_job(3, failed=2),
        "a disruption budget lets one go": read.budgets(1),
        "a disruption budget is another namespace's": read.budgets(0, elsewhere=True),
        "a pod has an empty folder": read.volume(emptyDir={}),
        "a pod is said to be safe to evict": read.noted(_STAYS, "true"),
        "the other node is reserved for these pods": _tolerating(operator="Equal", value="yes"),
        "the other node would rather have others": read.taint("PreferNoSchedule"),
        "pods are spread as evenly as can be": read.asking(
            topologySpreadConstraints=[{**_SPREAD, "whenUnsatisfiable": "ScheduleAnyway"}]
        ),
    },
    halfway={
        "somebody has opened the node": _opened_by_hand,
        "another run has marked the node": _marked_by_another,
        "another node has its name": _registered_again,
        "a pod has come that the plan does not name": _without_controller,
    },
    spoil=_idle,
    meddle=_opened_by_hand,
    clash=_closed_by_hand,
)
