"""What may have been read of a pool of GPU machines: changes that trials plan on, see `Trial`.

The pool's own machines and nodes are told from others, which the cluster may have besides.
"""

from copy import deepcopy

from tiphys.service.conform.planner import Edit, Json, Related

_GROUP = "cluster.x-k8s.io"
_LATER = "2099-01-01T00:00:00Z"
_COUNTED = f"count/machines.{_GROUP}"


def noted(key: str, value: str) -> Edit:
    """Annotate the pool."""

    def edit(target: Json, related: Related) -> None:
        del related
        target["metadata"].setdefault("annotations", {})[key] = value

    return edit


def sized(size: int, *, idle: int, waits: bool = False) -> Edit:
    """Let the pool have so many machines, of which the newest are empty; whole and settled.

    `waits`: whether the pods that wait for GPUs still do.
    """

    def edit(target: Json, related: Related) -> None:
        machines = _machines(target, related)
        for one in machines[size:]:
            _remove(one, related)
        for number in range(size - len(machines)):
            _add(machines[0], number, related)
        target["spec"]["replicas"] = size
        counts = ("replicas", "readyReplicas", "upToDateReplicas", "availableReplicas")
        target["status"] |= dict.fromkeys(counts, size)
        if not waits:
            gone = _waiting(target, related)
            related["Pod"] = [pod for pod in related["Pod"] if pod not in gone]
        _occupy(target, related, size - idle)

    return edit


def _occupy(target: Json, related: Related, busy: int) -> None:
    """Let a pod fill each of the oldest machines, and none the others."""
    nodes = [_node_of(one, related)["metadata"]["name"] for one in _machines(target, related)]
    pods = [pod for pod in _jobs(target, related) if pod["spec"].get("nodeName") in nodes]
    related["Pod"] = [pod for pod in related["Pod"] if pod not in pods]
    for name in nodes[:busy]:
        pod = deepcopy(pods[0])
        pod["metadata"] |= {"name": f"train-on-{name}", "uid": f"u-train-on-{name}"}
        pod["spec"]["nodeName"] = name
        related["Pod"].append(pod)


def topology(target: Json, related: Related) -> None:
    """Let the topology of a Cluster have set the size."""
    del related
    for entry in _of_size(target):
        entry |= {"manager": "capi-topology", "operation": "Apply"}


def ownerless(target: Json, related: Related) -> None:
    """Let the API server have lost who set the size."""
    del related
    for entry in _of_size(target):
        for key in ("time", "subresource"):
            entry.pop(key, None)


def far_node(target: Json, related: Related) -> None:
    """Let a machine's node not be among those of this cluster."""
    related["Node"].remove(_node_of(_machines(target, related)[0], related))


def anothers_node(target: Json, related: Related) -> None:
    """Let a node say that it is another machine's."""
    node = _node_of(_machines(target, related)[0], related)
    node["metadata"]["annotations"][f"{_GROUP}/machine"] = "another"


def starting(target: Json, related: Related) -> None:
    """Let a machine have no node yet."""
    del _machines(target, related)[0]["status"]["nodeRef"]


def not_opted_in(target: Json, related: Related) -> None:
    """Let a node not have opted in."""
    del _node_of(_machines(target, related)[0], related)["metadata"]["labels"]["tiphys.io/heal"]


def unready(target: Json, related: Related) -> None:
    """Let no node be ready."""
    for machine in _machines(target, related):
        ready = {"type": "Ready", "status": "Unknown"}
        _node_of(machine, related)["status"]["conditions"] = [ready]


def room(target: Json, related: Related) -> None:
    """Let a machine have become empty."""
    name = _node_of(_machines(target, related)[0], related)["metadata"]["name"]
    related["Pod"] = [pod for pod in related["Pod"] if pod["spec"].get("nodeName") != name]


def quota(hard: Json, used: Json) -> Edit:
    """Let a quota count."""

    def edit(target: Json, related: Related) -> None:
        meta = {"name": "budget", "namespace": target["metadata"]["namespace"]}
        counted = {"hard": hard, "used": used}
        related["ResourceQuota"].append(
            {"metadata": meta, "spec": {"hard": hard}, "status": counted}
        )

    return edit


def ending_waiters(target: Json, related: Related) -> None:
    """Let the pods that wait be about to end."""
    for pod in _waiting(target, related):
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"


def nominated(target: Json, related: Related) -> None:
    """Let others be made to go for the pods that wait."""
    name = _node_of(_machines(target, related)[0], related)["metadata"]["name"]
    for pod in _waiting(target, related):
        pod["status"]["nominatedNodeName"] = name


def chosen_by_hand(target: Json, related: Related) -> None:
    """Let a machine be empty, and somebody have marked one to go first."""
    sized(4, idle=1)(target, related)
    meta = _machines(target, related)[0]["metadata"]
    meta["annotations"] = {**(meta.get("annotations") or {}), f"{_GROUP}/delete-machine": "yes"}


def _machines(target: Json, related: Related) -> list[Json]:
    name, label = target["metadata"]["name"], f"{_GROUP}/deployment-name"
    own = [one for one in related["Machine"] if one["metadata"]["labels"].get(label) == name]
    return sorted(own, key=lambda one: one["metadata"]["creationTimestamp"])


def _node_of(machine: Json, related: Related) -> Json:
    name = machine["status"]["nodeRef"]["name"]
    return next(node for node in related["Node"] if node["metadata"]["name"] == name)


def _remove(machine: Json, related: Related) -> None:
    related["Node"].remove(_node_of(machine, related))
    related["Machine"].remove(machine)


def _add(like: Json, number: int, related: Related) -> None:
    """Add a machine and its node, younger than those that are there."""
    machine, node, name = deepcopy(like), deepcopy(_node_of(like, related)), f"added-{number}"
    for one in (machine, node):
        one["metadata"] |= {"name": name, "uid": f"u-{one['kind']}-{name}"}
        one["spec"]["providerID"] = f"added://{name}"
    machine["metadata"]["creationTimestamp"] = _LATER
    machine["status"]["nodeRef"] = {"name": name}
    node["metadata"]["annotations"][f"{_GROUP}/machine"] = name
    related["Machine"].append(machine)
    related["Node"].append(node)


def _waiting(target: Json, related: Related) -> list[Json]:
    return [pod for pod in _jobs(target, related) if not pod["spec"].get("nodeName")]


def _jobs(target: Json, related: Related) -> list[Json]:
    """Give the trial's own pods; DaemonSets bring others to the nodes of a real cluster."""
    space = target["metadata"]["namespace"]
    return [pod for pod in related["Pod"] if pod["metadata"]["namespace"] == space]


def _of_size(target: Json) -> list[Json]:
    entries: list[Json] = target["metadata"]["managedFields"]
    return [e for e in entries if "f:replicas" in e.get("fieldsV1", {}).get("f:spec", {})]


COUNTED_OUT = quota({_COUNTED: "2"}, {_COUNTED: "2"})
"""There are as many machines as a quota allows."""
ALL_BUSY = sized(4, idle=0)
TOO_MANY = sized(6, idle=4)
EMPTY_AND_WANTED = sized(4, idle=1, waits=True)
EMPTY = sized(4, idle=1)
"""The pool is to get smaller by one machine, and one is empty."""
