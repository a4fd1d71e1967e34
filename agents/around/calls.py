"""Who calls whom: from metrics that carry both ends of a call.

Istio's standard metrics (istio.io/latest/docs/reference/config/metrics), the service graph that
Tempo's metrics generator and OpenTelemetry's servicegraph connector make of traces, Linkerd's proxy
metrics (linkerd.io/2/reference/proxy-metrics) and Hubble's httpV2 with the workloads and namespaces
among its labelsContext (docs.cilium.io/en/stable/observability/metrics).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tiphys.agents.around.place import Place, either
from tiphys.agents.around.standard import RATE
from tiphys.agents.causes.signals import Kind
from tiphys.agents.promql import any_of

UNKNOWN: Final = frozenset({"", "unknown"})
"""What meshes write where they do not know one end."""
MAX_EDGES: Final = 5_000


@dataclass(frozen=True)
class Mesh:
    """One source of such metrics; the ends' labels in the order in which they are looked at."""

    name: str
    requests: str
    failed: str
    """The metric with matchers for requests that failed."""
    buckets: str
    callers: tuple[str, ...]
    caller_namespace: str
    callees: tuple[str, ...]
    callee_namespace: str
    where: str = ""
    """Matchers that all its queries have."""
    reporter: str = ""
    """The label of who tells; both ends tell of one call, so the greater number holds."""
    latency: Kind = Kind.LATENCY
    milliseconds: bool = False

    @property
    def ends(self) -> tuple[str, ...]:
        """All labels of both ends."""
        namespaces = (self.caller_namespace, self.callee_namespace)
        return tuple(label for label in (*self.callers, *self.callees, *namespaces) if label)


MESHES: Final = (
    Mesh(
        "istio", "istio_requests_total", 'istio_requests_total{response_code=~"5..|0",',
        "istio_request_duration_milliseconds_bucket",
        ("source_workload",), "source_workload_namespace",
        ("destination_workload",), "destination_workload_namespace",
        reporter="reporter", milliseconds=True,
    ),
    Mesh(
        "service graph", "traces_service_graph_request_total",
        "traces_service_graph_request_failed_total{",
        "traces_service_graph_request_server_seconds_bucket",
        ("client",), "", ("server",), "",
    ),
    Mesh(
        "linkerd", "response_total", 'response_total{classification="failure",',
        "response_latency_ms_bucket",
        ("deployment", "statefulset", "daemonset"), "namespace",
        ("dst_deployment", "dst_statefulset", "dst_daemonset"), "dst_namespace",
        where='direction="outbound"', latency=Kind.CALL_LATENCY, milliseconds=True,
    ),
    Mesh(
        "hubble", "hubble_http_requests_total", 'hubble_http_requests_total{status=~"5..",',
        "hubble_http_request_duration_seconds_bucket",
        ("source_workload",), "source_namespace",
        ("destination_workload",), "destination_namespace",
        reporter="reporter",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Edge:
    """One caller, one callee, as components, with the callee's namespace where it is told."""

    caller: str
    callee: str
    namespaces: frozenset[str]


def requests(mesh: Mesh, place: Place) -> str:
    """Write the requests a second by both ends."""
    return _by_ends(mesh, f"{mesh.requests}{{", place)


def failures(mesh: Mesh, place: Place) -> str:
    """Write the failed requests a second by both ends."""
    return _by_ends(mesh, mesh.failed, place)


def latencies(mesh: Mesh, place: Place) -> str:
    """Write the 95th percentile of the callees' answers, in seconds."""
    by = ", ".join(label for label in ("le", *mesh.callees, mesh.callee_namespace) if label)
    own = ['reporter=~"destination|server"'] if mesh.reporter else []
    where = ",".join([*_where(mesh, place, "callee"), *own])
    quantile = f"histogram_quantile(0.95, sum by ({by}) (rate({mesh.buckets}{{{where}}}{RATE})))"
    return f"{quantile} / 1000" if mesh.milliseconds else quantile


def edge(mesh: Mesh, place: Place, labels: Mapping[str, str]) -> Edge | None:
    """Read both ends of a series; None where one is not known."""
    caller, callee = (
        next((labels[k] for k in keys if labels.get(k, "") not in UNKNOWN), "")
        for keys in (mesh.callers, mesh.callees)
    )
    if not caller or not callee:
        return None
    homes = [labels.get(k, "") if k else "" for k in (mesh.caller_namespace, mesh.callee_namespace)]
    return Edge(
        place.component(homes[0], caller),
        place.component(homes[1], callee),
        frozenset(h for h in homes if h not in UNKNOWN),
    )


def callee(mesh: Mesh, place: Place, labels: Mapping[str, str]) -> str | None:
    """Read the component that was called."""
    name = next((labels[k] for k in mesh.callees if labels.get(k, "") not in UNKNOWN), "")
    home = labels.get(mesh.callee_namespace, "") if mesh.callee_namespace else ""
    return place.component(home, name) if name else None


def graph_of(edges: Sequence[Edge]) -> dict[str, list[str]]:
    """Give who calls whom; calls of oneself say nothing."""
    found: dict[str, list[str]] = {}
    for one in edges[:MAX_EDGES]:
        if one.caller != one.callee and one.callee not in found.setdefault(one.caller, []):
            found[one.caller].append(one.callee)
    return {caller: callees for caller, callees in found.items() if callees}


def near(start: str, calls: Mapping[str, Sequence[str]]) -> list[str]:
    """Give what is joined to a component by calls, nearest first, itself left out."""
    joined: dict[str, list[str]] = {}
    for caller, callees in calls.items():
        for one in callees:
            joined.setdefault(caller, []).append(one)
            joined.setdefault(one, []).append(caller)
    return _reached(start, joined)


def below(start: str, calls: Mapping[str, Sequence[str]]) -> list[str]:
    """Give what a component calls, directly or not, nearest first; itself never, cycles or not."""
    return _reached(start, calls)


def _reached(start: str, onwards: Mapping[str, Sequence[str]]) -> list[str]:
    seen = {start: None}
    waiting = [start]
    while waiting:
        here = waiting.pop(0)
        for one in onwards.get(here, ()):
            if one not in seen:
                seen[one] = None
                waiting.append(one)
    return list(seen)[1:]


def _by_ends(mesh: Mesh, metric: str, place: Place) -> str:
    by = ", ".join(mesh.ends)
    # Calls of which at least one end is in the place; where nothing tells the place, all.
    sides = ("caller", "callee") if mesh.caller_namespace or place.names else ("",)
    rates = either(f"rate({metric}{','.join(_where(mesh, place, side))}}}{RATE})" for side in sides)
    if mesh.reporter:
        return f"max by ({by}) (sum by ({by}, {mesh.reporter}) ({rates}))"
    return f"sum by ({by}) ({rates})"


def _where(mesh: Mesh, place: Place, side: str) -> list[str]:
    found = [mesh.where] if mesh.where else []
    if not side:
        return found
    caller = side == "caller"
    namespace = mesh.caller_namespace if caller else mesh.callee_namespace
    labels = mesh.callers if caller else mesh.callees
    found += [place.within(namespace)] if namespace else []
    if place.names and len(labels) == 1:
        found.append(f"{labels[0]}=~{any_of(place.names)}")
    return found
