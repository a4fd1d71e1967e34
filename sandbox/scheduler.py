"""The scheduler: which node a pod goes to, or why none takes it."""

import re
from collections import Counter, defaultdict

from tiphys.sandbox.resources import Obj
from tiphys.sandbox.store import Store

_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12} | {
    f"{letter}i": 1024.0 ** (power + 1) for power, letter in enumerate("KMGT")
}


def quantity(text: str | float) -> float:
    """Read a Kubernetes quantity such as 500m, 2 or 1Gi."""
    found = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(text))
    return float(found[1]) * _UNITS[found[2]] if found else 0.0


def requests(*pods: Obj) -> dict[str, float]:
    """Sum what the pods' containers ask for, by resource."""
    total: dict[str, float] = defaultdict(float)
    for container in (each for pod in pods for each in pod["spec"]["containers"]):
        resources = container.get("resources") or {}
        asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        for name, value in asked.items():
            total[name] += quantity(value)
    return total


def choose(store: Store, pod: Obj) -> tuple[str, str]:
    """Give (node, "") or ("", why no node takes the pod); the emptiest node wins."""
    nodes = store.seen("Node")
    placed: dict[str, list[Obj]] = defaultdict(list)
    for one in store.seen("Pod"):
        if one.get("status", {}).get("phase") in {"Pending", "Running"}:
            placed[one["spec"].get("nodeName", "")].append(one)
    reasons: Counter[str] = Counter()
    fitting: list[tuple[int, str]] = []
    for node in nodes:
        name = node["metadata"]["name"]
        here = placed[name]
        if reason := _refusal(node, pod, here):
            reasons[reason] += 1
        else:
            fitting.append((len(here), name))
    if fitting:
        return min(fitting)[1], ""
    told = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return "", f"0/{len(nodes)} nodes are available: {told or 'no nodes'}."


def _refusal(node: Obj, pod: Obj, here: list[Obj]) -> str:
    spec, labels = node.get("spec") or {}, node["metadata"].get("labels") or {}
    if spec.get("unschedulable"):
        return "node(s) were unschedulable"
    conditions = node.get("status", {}).get("conditions") or []
    if any(c["type"] == "Ready" and c["status"] != "True" for c in conditions):
        return "node(s) had untolerated taint(s)"
    if repels(node, pod["spec"]):
        return "node(s) had untolerated taint(s)"
    if not (pod["spec"].get("nodeSelector") or {}).items() <= labels.items():
        return "node(s) didn't match Pod's node affinity/selector"
    if not _wanted(pod, {**labels}, node["metadata"]["name"]):
        return "node(s) didn't match Pod's node affinity/selector"
    room = node.get("status", {}).get("allocatable") or {}
    used = requests(*here)
    for name, asked in requests(pod).items():
        # A node that does not tell its CPUs or memory has enough; GPUs must be told.
        if (name in room or "/" in name) and used[name] + asked > quantity(room.get(name, 0)):
            return f"Insufficient {name}"
    return ""


def _wanted(pod: Obj, labels: dict[str, str], name: str) -> bool:
    """Whether required node affinity is met: any term, wholly."""
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    return any(
        all(_holds(e, labels) for e in term.get("matchExpressions") or [])
        and all(_holds(f, {"metadata.name": name}) for f in term.get("matchFields") or [])
        for term in required["nodeSelectorTerms"]
        if term
    )


def _holds(expression: Obj, values: dict[str, str]) -> bool:
    present, listed = values.get(expression["key"]), expression.get("values") or []
    return {
        "In": present in listed,
        "NotIn": present not in listed,
        "Exists": present is not None,
        "DoesNotExist": present is None,
    }[expression["operator"]]


def repels(node: Obj, spec: Obj) -> bool:
    """Whether a node has a taint that a pod of this spec does not tolerate."""
    taints = (node.get("spec") or {}).get("taints") or []
    return any(t["effect"] != "PreferNoSchedule" and not _tolerated(spec, t) for t in taints)


def _tolerated(spec: Obj, taint: Obj) -> bool:
    return any(
        t.get("key") in {None, taint["key"]}
        and (t.get("operator") == "Exists" or t.get("value", "") == taint.get("value", ""))
        and t.get("effect") in {None, "", taint["effect"]}
        for t in spec.get("tolerations") or []
    )
