"""What may have been read of a node and its pods: changes that trials plan on, see `Trial`.

Beside its target a trial's world has one more node of its stage, with room for the pods. On a real
cluster there are other nodes, too: none of them takes a stage's pods.
"""

from collections.abc import Callable
from typing import Any

from tiphys.service.conform.planner import Edit, Json, Related
from tiphys.service.conform.snapshot import STAGE
from tiphys.workflow_templates.nodes import labels_of

HOST = "kubernetes.io/hostname"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def both(*edits: Edit) -> Edit:
    """Make several changes."""

    def edit(target: Json, related: Related) -> None:
        for one in edits:
            one(target, related)

    return edit


def without(kind: str) -> Edit:
    """Let there be nothing of a kind."""

    def edit(target: Json, related: Related) -> None:
        del target
        related[kind] = []

    return edit


# --- the node -------------------------------------------------------------------------------------


def labelled(key: str, value: str | None) -> Edit:
    """Set a label of the node; None: without it."""

    def edit(target: Json, related: Related) -> None:
        del related
        target["metadata"]["labels"].pop(key, None)
        if value is not None:
            target["metadata"]["labels"][key] = value

    return edit


def silent(target: Json, related: Related) -> None:
    """Let the node's kubelet not answer."""
    del related
    target["status"]["conditions"] = []


# --- its pods -------------------------------------------------------------------------------------


def pods_of(target: Json, related: Related) -> list[Json]:
    """Give the pods on the node."""
    name = target["metadata"]["name"]
    return [pod for pod in related["Pod"] if pod["spec"].get("nodeName") == name]


def first(change: Callable[[Json], Any]) -> Edit:
    """Change the first pod on the node."""

    def edit(target: Json, related: Related) -> None:
        change(pods_of(target, related)[0])

    return edit


def each(change: Callable[[Json], Any]) -> Edit:
    """Change every pod on the node."""

    def edit(target: Json, related: Related) -> None:
        for pod in pods_of(target, related):
            change(pod)

    return edit


def asking(**spec: Any) -> Edit:
    """Let the first pod ask for this."""
    return first(lambda pod: pod["spec"].update(spec))


def volume(**source: Any) -> Edit:
    """Let the first pod have such a volume."""
    return first(lambda pod: pod["spec"].update(volumes=[{"name": "data", **source}]))


def container(**fields: Any) -> Edit:
    """Let the first pod's container say this."""
    return first(lambda pod: pod["spec"]["containers"][0].update(fields))


def noted(key: str, value: str = "", kind: str = "Pod") -> Edit:
    """Let the first pod, its owner or its namespace have an annotation."""

    def edit(target: Json, related: Related) -> None:
        one = _of_first(target, related, kind)
        one["metadata"].setdefault("annotations", {})[key] = value

    return edit


def changed(kind: str, change: Callable[[Json], Any]) -> Edit:
    """Change the first pod's owner or namespace."""

    def edit(target: Json, related: Related) -> None:
        change(_of_first(target, related, kind))

    return edit


def owned(**reference: Any) -> Edit:
    """Let the first pod's reference to its owner say this."""
    return first(lambda pod: pod["metadata"]["ownerReferences"][0].update(reference))


def of_job(limit: int | None, failed: int) -> Edit:
    """Let the first pod be a Job's, of which so many have failed."""

    def edit(target: Json, related: Related) -> None:
        pod = pods_of(target, related)[0]
        reference = {"apiVersion": "batch/v1", "kind": "Job", "name": "import", "uid": "import"}
        pod["metadata"]["ownerReferences"] = [{**reference, "controller": True}]
        meta = {"name": "import", "namespace": pod["metadata"]["namespace"], "uid": "import"}
        spec = {} if limit is None else {"backoffLimit": limit}
        related["Job"] = [{"metadata": meta, "spec": spec, "status": {"failed": failed}}]

    return edit


def budgets(*allowed: int, elsewhere: bool = False, **status: int) -> Edit:
    """Let disruption budgets cover the pods, or all pods of another namespace."""

    def edit(target: Json, related: Related) -> None:
        space = pods_of(target, related)[0]["metadata"]["namespace"]
        related["PodDisruptionBudget"] = [
            {
                "metadata": {
                    "name": f"budget-{number}",
                    "namespace": "elsewhere" if elsewhere else space,
                    "generation": 1,
                },
                "spec": {"selector": {}},
                "status": {"observedGeneration": 1, "disruptionsAllowed": count, **status},
            }
            for number, count in enumerate(allowed)
        ]

    return edit


def many(count: int) -> Edit:
    """Let there be so many more pods on the node, which ask for nothing."""

    def edit(target: Json, related: Related) -> None:
        pod = pods_of(target, related)[0]
        for number in range(count):
            meta = {**pod["metadata"], "name": f"more-{number}", "uid": f"more-{number}"}
            related["Pod"].append({**pod, "metadata": meta})
        for node in _others(target, related):
            node["status"]["allocatable"]["pods"] = str(2 * count)

    return edit


# --- the other node -------------------------------------------------------------------------------


def other(change: Callable[[Json], Any]) -> Edit:
    """Change the other node."""

    def edit(target: Json, related: Related) -> None:
        for node in _others(target, related):
            change(node)

    return edit


def room(**allocatable: str) -> Edit:
    """Let the other node have this to give."""
    return other(lambda node: node["status"]["allocatable"].update(allocatable))


def taint(effect: str, **more: str) -> Edit:
    """Let the other node have a taint, which no pod tolerates."""
    new = {"key": "reserved", "effect": effect, **more}
    return other(lambda node: node["spec"]["taints"].append(new))


def only(target: Json, related: Related) -> None:
    """Let there be no other node that takes pods."""
    related["Node"] = [
        one for one in related["Node"] if one["metadata"]["name"] == target["metadata"]["name"]
    ]


def moved(**spec: Any) -> Edit:
    """Let the last pod be on the other node already, and ask for this."""

    def edit(target: Json, related: Related) -> None:
        [node] = _others(target, related)
        pod = pods_of(target, related)[-1]
        pod["spec"] |= {"nodeName": node["metadata"]["name"], **spec}

    return edit


def waiting(**spec: Any) -> Edit:
    """Let the last pod be on no node yet, and ask for this."""

    def edit(target: Json, related: Related) -> None:
        pod = pods_of(target, related)[-1]
        del pod["spec"]["nodeName"]
        pod["spec"] |= spec
        pod["status"]["phase"] = "Pending"

    return edit


def near(**terms: Any) -> Json:
    """Give an affinity of pods to each other: `podAffinity` or `podAntiAffinity`."""
    every = {"labelSelector": {}, "topologyKey": HOST}
    return {kind: {_REQUIRED: [{**every, **term}]} for kind, term in terms.items()}


def chosen(*terms: Json) -> Json:
    """Give an affinity to nodes."""
    return {"nodeAffinity": {_REQUIRED: {"nodeSelectorTerms": [*terms]}}}


def _others(target: Json, related: Related) -> list[Json]:
    stage, name = labels_of(target)[STAGE], target["metadata"]["name"]
    return [
        one
        for one in related["Node"]
        if labels_of(one).get(STAGE) == stage and one["metadata"]["name"] != name
    ]


def _of_first(target: Json, related: Related, kind: str) -> Json:
    """Give the first pod on the node, its namespace, or its owner."""
    pod = pods_of(target, related)[0]
    if kind == "Pod":
        return pod
    if kind == "Namespace":
        space = pod["metadata"]["namespace"]
        return next(one for one in related[kind] if one["metadata"]["name"] == space)
    uid = pod["metadata"]["ownerReferences"][0]["uid"]
    return next(one for one in related[kind] if one["metadata"]["uid"] == uid)
