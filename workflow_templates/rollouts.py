"""How a workload's controller replaces its pods when the pod template changes. Pure.

https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#strategy and the update
strategies of StatefulSets and DaemonSets.
"""

import math
from dataclasses import dataclass

from tiphys.policies.model import Object
from tiphys.workflow_templates.pointers import at
from tiphys.workflow_templates.workloads import replicas, rolling_out


@dataclass(frozen=True)
class Turnover:
    """What a rollout may do to the number of pods at any moment."""

    pods: int
    """That are wanted."""
    missing: int
    """That may be gone before their successors are ready, at most."""
    surplus: int
    """More than wanted, at most."""

    @property
    def all_at_once(self) -> bool:
        """Whether every pod may have ended before a new one is ready."""
        return self.missing >= self.pods


def turnover(workload: Object) -> Turnover:
    """Read it from a Deployment, StatefulSet or DaemonSet, with the API's defaults."""
    pods = pods_of(workload)
    if workload.get("kind") == "Deployment":
        return _of_deployment(workload, pods)
    rolling = at(workload, "/spec/updateStrategy/rollingUpdate") or {}
    missing = _amount(rolling.get("maxUnavailable", 1), pods, up=True)
    surplus = _amount(rolling.get("maxSurge", 0), pods, up=True)
    return Turnover(pods, min(missing if surplus else max(missing, 1), pods), surplus)


def pods_of(workload: Object) -> int:
    """Give how many pods a workload wants; a DaemonSet's controller counts its nodes."""
    if workload.get("kind") == "DaemonSet":
        return int(at(workload, "/status/desiredNumberScheduled") or 0)
    return replicas(workload)


def obstacle(workload: Object) -> str | None:
    """Say why a new pod template would not reach every pod, or not now; None where it would."""
    if at(workload, "/spec/paused"):
        return "the rollout is paused"
    if at(workload, "/spec/updateStrategy/type") == "OnDelete":
        return "its update strategy is OnDelete: a new pod template replaces no pod"
    if int(at(workload, "/spec/updateStrategy/rollingUpdate/partition") or 0) > 0:
        return "its update strategy has a partition: a new pod template replaces only some pods"
    if pods_of(workload) == 0:
        return "it wants no pods"
    return rolling_out(workload)


def _of_deployment(deployment: Object, pods: int) -> Turnover:
    if at(deployment, "/spec/strategy/type") == "Recreate":
        return Turnover(pods, pods, 0)
    rolling = at(deployment, "/spec/strategy/rollingUpdate") or {}
    surplus = _amount(rolling.get("maxSurge", "25%"), pods, up=True)
    missing = _amount(rolling.get("maxUnavailable", "25%"), pods, up=False)
    # Both may round to nothing; the controller then takes one pod at a time.
    return Turnover(pods, min(missing if surplus else max(missing, 1), pods), surplus)


def _amount(value: object, pods: int, *, up: bool) -> int:
    """Give an int-or-percentage as a count."""
    text = str(value)
    if not text.endswith("%"):
        return int(text)
    share = int(text[:-1]) * pods / 100
    return math.ceil(share) if up else math.floor(share)
