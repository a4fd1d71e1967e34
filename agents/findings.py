"""Says in sentences what the cluster's facts mean; the numbers stay in them."""

from tiphys.agents.objects import dig, mapping, text
from tiphys.policies.model import Json, Object


def listing(value: Json) -> str:
    """Write a list in one line."""
    return ", ".join(str(item) for item in value) if isinstance(value, list) else ""


def findings(facts: Object) -> list[str]:
    """Give the kubectl agent's findings; whatever was not read is not mentioned."""
    return [
        *_of_workload(mapping(facts, "workload"), mapping(facts, "pods")),
        *_of_rollout(mapping(facts, "rollout")),
        *_of_garbage(mapping(facts, "garbage")),
        *_of_pod(mapping(facts, "pod")),
        *_of_node(mapping(facts, "node")),
        *_of_volume(mapping(facts, "volume")),
        *_of_pool(mapping(facts, "pool")),
        *_of_limits(mapping(facts, "autoscaler"), mapping(facts, "budget")),
    ]


def _of_workload(workload: Object, pods: Object) -> list[str]:
    if not workload:
        return []
    whole = (
        f"{workload['kind']} {workload['name']}: {pods['ready']} of {workload['replicas']} ready"
    )
    failing = listing(pods["failing_names"])
    return [f"{whole}; failing: {failing}" if failing else whole]


def _of_rollout(rollout: Object) -> list[str]:
    if not dig(rollout, "previous_revision"):
        return []
    ended = "is under way" if rollout["in_progress"] else "ended"
    state = "is stuck" if rollout["stuck"] else ended
    former = "served" if rollout["previous_healthy"] else "was not seen serving"
    changed = listing(rollout["changed"]) or "nothing in its template"
    new, old = rollout["revision"], rollout["previous_revision"]
    said = f"revision {new} began {_ago(rollout['minutes'])}, changed {changed} and {state}"
    return [f"{said}; revision {old} {former} before it"]


def _ago(minutes: Json) -> str:
    """Say how long ago something was; what is not known is said so."""
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or minutes < 0:
        return "at an unknown time"
    if minutes < 2:
        return f"{60 * minutes:.0f} s ago"
    return f"{minutes:.0f} min ago" if minutes < 120 else f"{minutes / 60:.0f} h ago"


def _of_garbage(garbage: Object) -> list[str]:
    if not dig(garbage, "count"):
        return []
    words = f"{garbage['count']} pods were ended by their nodes ({listing(garbage['reasons'])})"
    ill = listing(garbage["ill_nodes"])
    return [f"{words}; still ill: {ill}" if ill else words]


def _of_pod(pod: Object) -> list[str]:
    if not pod or pod["trouble"] == "none":
        return []
    words = f"pod {pod['name']}: {str(pod['trouble']).replace('_', ' ')}"
    if pod["exit_code"] != -1:
        words += f", last exit code {pod['exit_code']} ({pod['ended_because'] or 'no reason'})"
    for key in ("waiting_reason", "waiting_message", "scheduling_message"):
        words += f", {text(pod, key)}" if text(pod, key) else ""
    words += f", {pod['restarts']} restarts"
    return [words]


def _of_node(node: Object) -> list[str]:
    if not node:
        return []
    pressed = listing(node["pressures"])
    words = [f"node {node['name']} is {'ready' if node['ready'] else 'not ready'}"]
    words += ["cordoned"] if node["cordoned"] else []
    words += [f"under {pressed}"] if pressed else []
    return [", ".join(words)]


def _of_volume(volume: Object) -> list[str]:
    if not volume:
        return []
    words = f"claim {volume['name']} has {volume['size_gib']:.3g} GiB of {volume['class']}"
    words += f", mounted by {listing(volume['mounted_by']) or 'nobody'}"
    return [f"{words}; cannot grow: {volume['obstacle']}" if volume["obstacle"] else words]


def _of_pool(pool: Object) -> list[str]:
    if not pool:
        return []
    may = f"should have {pool['wanted']}" if not pool["obstacle"] else f"{pool['obstacle']}"
    return [f"pool {pool['namespace']}/{pool['name']} has {pool['machines']} machines: {may}"]


def _of_limits(autoscaler: Object, budget: Object) -> list[str]:
    found: list[str] = []
    if dig(autoscaler, "present"):
        has, most = autoscaler["current"], autoscaler["max"]
        name = autoscaler["name"]
        found.append(f"autoscaler {name} owns the replicas: {has} of at most {most}")
    if dig(budget, "present"):
        found.append(f"disruption budget {budget['name']} allows {budget['allowed']} disruptions")
    return found
