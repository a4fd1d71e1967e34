"""Where to look: namespaces and, where a namespace is too large, the workloads that come first.

Invariant: names enter a query only as quoted strings, each escaped.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from tiphys.agents.promql import any_of, quoted, regex_of

OWNER: Final = "owner_kind, owner_name"
_WORKLOAD_LABELS: Final = ("deployment", "statefulset", "daemonset")
_SERVICE_LABELS: Final = ("workload", "destination_workload", "server", "service", "service_name",
                          "app", "job")  # fmt: skip
"""Labels that may name a workload by its own name; believed where there is such a Deployment."""
_POD_NAME: Final = re.compile(r"(.+?)(-[a-z0-9]{6,10})?(-[a-z0-9]{5}|-\d+)")


@dataclass(frozen=True)
class Place:
    """Namespaces, the affected one first, and the workloads to narrow to; none: all of them."""

    namespaces: tuple[str, ...]
    names: tuple[str, ...] = ()

    @property
    def home(self) -> str:
        """The affected service's namespace."""
        return self.namespaces[0]

    def within(self, label: str = "namespace") -> str:
        """Write the matcher of the namespaces."""
        if len(self.namespaces) == 1:
            return f"{label}={quoted(self.home)}"
        return f"{label}=~{any_of(self.namespaces)}"

    def pods(self) -> str:
        """Write the matchers of the workloads' pods."""
        if not self.names:
            return self.within()
        either = "|".join(regex_of(name) for name in self.names)
        return f"{self.within()},pod=~{quoted(f'({either})-.+', limit=20_000)}"

    def named(self, label: str) -> str:
        """Write the matchers of the workloads by a label that names them."""
        if not self.names:
            return self.within()
        return f"{self.within()},{label}=~{any_of(self.names)}"

    def by_pod_owner(self, of_pods: str, how: str, also: str = "") -> str:
        """Write an expression by pod (and `also` by these labels), put together by the owners."""
        owners = f"max by (namespace, pod, {OWNER}) (kube_pod_owner{{{self.pods()}}})"
        joined = f"{of_pods} * on (namespace, pod) group_left({OWNER}) {owners}"
        return f"{how} by ({also}namespace, {OWNER}) ({joined})"

    def component(self, namespace: str, name: str) -> str:
        """Name a workload: bare in the affected namespace, with its own elsewhere."""
        return name if namespace in {"", self.home} else f"{namespace}/{name}"


class Names:
    """Which workload a series is about; ReplicaSets are known by their Deployments."""

    def __init__(self, place: Place, replicasets: Mapping[tuple[str, str], str]) -> None:
        """`replicasets`: namespace and name to the Deployment's name."""
        self.place = place
        self._replicasets = replicasets
        self._known = {(namespace, name) for (namespace, _), name in replicasets.items()}

    def of_owner(self, labels: Mapping[str, str]) -> str | None:
        """Name the owner of a pod; None for what is no lasting workload."""
        namespace, kind = labels.get("namespace", ""), labels.get("owner_kind", "")
        name = labels.get("owner_name", "")
        if kind == "ReplicaSet":
            # Unknown ones are named as the controller names them: the Deployment and a hash.
            name = self._replicasets.get((namespace, name)) or name.rpartition("-")[0] or name
        elif kind not in {"StatefulSet", "DaemonSet"}:
            return None
        return self.place.component(namespace, name) if name else None

    def of_labels(self, labels: Mapping[str, str]) -> str | None:
        """Name the workload that a label names; None without one."""
        for label in _WORKLOAD_LABELS:
            if labels.get(label):
                return self.place.component(labels.get("namespace", ""), labels[label])
        return None

    def of_alert(self, labels: Mapping[str, str]) -> str:
        """Name the workload that an alert is about; empty where its labels do not tell."""
        namespace = labels.get("namespace", "")
        told = self.of_labels(labels)
        if told is not None:
            return told
        if pod := labels.get("pod", ""):
            made = _POD_NAME.fullmatch(pod)
            known = self._replicasets.get((namespace, pod.rpartition("-")[0]))
            stem = known or (made[1] if made else "")
            return self.place.component(namespace, stem) if stem else ""
        named = (labels.get(label, "") for label in _SERVICE_LABELS)
        return next((n for n in named if (namespace, n) in self._known), "")


def either(words: Iterable[str]) -> str:
    """Write `or` between expressions."""
    return " or ".join(words)
